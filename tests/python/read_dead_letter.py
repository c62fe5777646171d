"""Reads one dead letter with pika, without changing the queue, and prints headers and body as JSON.

Usage: read_dead_letter.py AMQP_URL QUEUE
"""

import json
import sys

import pika

url, queue = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
method, properties, body = channel.basic_get(queue)
channel.basic_nack(method.delivery_tag, requeue=True)
headers = {name: value for name, value in properties.headers.items() if isinstance(value, (str, int))}
print(json.dumps({"headers": headers, "body": body.decode(), "content_type": properties.content_type}))
connection.close()
