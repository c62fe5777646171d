"""Publishes events to Fanfare with pika: confirmed, and as part of a trace.

Usage: publish.py AMQP_URL TENANT COUNT

An event is lost only if its producer forgets it, so each is published until RabbitMQ confirms it. Publishing one
twice does no harm: Fanfare and receivers know it by tenant, source and id.
"""

import json
import os
import secrets
import sys
import time

import pika
import pika.exceptions

EXCHANGE = "fanfare.events"
TRIES = 5


class Producer:
    """Publishes one event at a time, over a connection that it makes again when it is lost."""

    def __init__(self, url):
        self.parameters = pika.URLParameters(url)
        self.connection = None

    def publish(self, event, traceparent):
        """Returns once RabbitMQ has stored the event. Raises when it would not, after several tries."""
        for attempt in range(1, TRIES + 1):
            try:
                self._publish_once(event, traceparent)
                return
            except pika.exceptions.UnroutableError as returned:
                # No queue takes it: Fanfare has never been started here.
                raise RuntimeError("the event was returned: no queue takes it") from returned
            except pika.exceptions.NackError:
                # The queue is full. The broker wants us to slow down.
                reason = "RabbitMQ refused the event: its queue is full"
            except pika.exceptions.AMQPError as fault:
                # Stored or not, nobody knows. Fanfare recognises a repeat.
                reason = f"the connection was lost: {fault!r}"
                self.connection = None
            print(f"{event['id']}: {reason} (try {attempt} of {TRIES})", file=sys.stderr)
            if attempt < TRIES:
                time.sleep(0.1 * 2**attempt)
        raise RuntimeError(f"{event['id']} was not stored")

    def _publish_once(self, event, traceparent):
        if self.connection is None:
            self.connection = pika.BlockingConnection(self.parameters)
            self.channel = self.connection.channel()
            # From now on, basic_publish returns when the broker has stored the message, and raises otherwise.
            self.channel.confirm_delivery()
        self.channel.basic_publish(
            exchange=EXCHANGE,
            # The first word has to be the tenant.
            routing_key=f"{event['tenant']}.{event['type']}",
            body=json.dumps(event).encode(),
            properties=pika.BasicProperties(
                content_type="application/cloudevents+json",
                delivery_mode=pika.DeliveryMode.Persistent,
                message_id=event["id"],
                headers={"traceparent": traceparent},
            ),
            mandatory=True,
        )

    def close(self):
        if self.connection is not None:
            self.connection.close()


def main():
    url, tenant, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # A service takes it from the request that it is working on; an OpenTelemetry SDK does so by itself.
    traceparent = os.environ.get("TRACEPARENT") or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    producer = Producer(url)
    for number in range(count):
        event = {
            "specversion": "1.0",
            # Chosen once and kept with the business data, so that every repeat has the same.
            "id": f"python-{number}",
            "source": "/examples/python",
            "type": "reward.unlocked",
            "tenant": tenant,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": {"reward": number, "language": "python"},
        }
        producer.publish(event, traceparent)
    producer.close()
    print(f"RabbitMQ has stored {count} events")


main()
