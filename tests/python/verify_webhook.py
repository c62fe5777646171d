"""Verifies a webhook with the public `standardwebhooks` library and prints its payload as JSON.

Usage: verify_webhook.py SECRET ID TIMESTAMP SIGNATURE, with the body on stdin.
"""

import json
import sys

from standardwebhooks import Webhook

secret, webhook_id, timestamp, signature = sys.argv[1:]
body = sys.stdin.buffer.read()
headers = {
    "webhook-id": webhook_id,
    "webhook-timestamp": timestamp,
    "webhook-signature": signature,
}
print(json.dumps(Webhook(secret).verify(body.decode(), headers)))
