"""Says whether a request is signed as a receiver of some sender would want it.

Usage: verify_signature.py SENDER SECRET NAME=VALUE…, with the headers as NAME=VALUE and the body on stdin.

`standard` asks the public `standardwebhooks` library; the others do what each sender tells its receivers to do.
Prints `valid`, or why not.
"""

import base64
import hashlib
import hmac
import sys
import time


def digest(secret, message):
    return hmac.new(secret.encode(), message, hashlib.sha256)


def same(sent, made):
    return hmac.compare_digest(sent.encode(), made.encode())


def standard(secret, headers, body):
    from standardwebhooks import Webhook, WebhookVerificationError

    try:
        Webhook(secret).verify(body.decode(), headers)
    except WebhookVerificationError:
        return False
    return True


def github(secret, headers, body):
    """The header has `sha256=` and the digest in hexadecimal."""
    made = "sha256=" + digest(secret, body).hexdigest()
    return same(headers["x-hub-signature-256"], made)


def shopify(secret, headers, body):
    """The header has the digest in base64."""
    made = base64.b64encode(digest(secret, body).digest()).decode()
    return same(headers["x-shopify-hmac-sha256"], made)


def stripe(secret, headers, body):
    """The header has a time and signatures, of which one must be of the time, a dot and the body."""
    items = [item.split("=", 1) for item in headers["stripe-signature"].split(",")]
    sent_at = next(value for name, value in items if name == "t")
    made = digest(secret, sent_at.encode() + b"." + body).hexdigest()
    recent = abs(time.time() - int(sent_at)) < 300
    return recent and any(same(value, made) for name, value in items if name == "v1")


def referralhero(secret, headers, body):
    """The header has the digest in base64."""
    made = base64.b64encode(digest(secret, body).digest()).decode()
    return same(headers["x-referralhero-signature"], made)


SENDERS = {check.__name__: check for check in (standard, github, shopify, stripe, referralhero)}

sender, secret, *pairs = sys.argv[1:]
headers = dict(pair.split("=", 1) for pair in pairs)
valid = SENDERS[sender](secret, headers, sys.stdin.buffer.read())
print("valid" if valid else "not signed by this secret")
