"""Publishes one CloudEvent to Fanfare with pika alone: what a service in Python does.

Usage: publish_event.py AMQP_URL TENANT TYPE ID TRACEPARENT, with the event's data as JSON on stdin.
"""

import json
import sys

import pika

url, tenant, event_type, event_id, traceparent = sys.argv[1:]
event = {
    "specversion": "1.0",
    "type": event_type,
    "source": "/tests/python",
    "id": event_id,
    "tenant": tenant,
    "data": json.load(sys.stdin),
}
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()
# With confirms on, basic_publish returns when the broker has stored the message, and raises otherwise.
channel.basic_publish(
    exchange="fanfare.events",
    routing_key=f"{tenant}.{event_type}",
    body=json.dumps(event).encode(),
    properties=pika.BasicProperties(
        content_type="application/cloudevents+json",
        delivery_mode=pika.DeliveryMode.Persistent,
        headers={"traceparent": traceparent},
    ),
    mandatory=True,
)
connection.close()
