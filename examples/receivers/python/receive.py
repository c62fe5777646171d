"""Receives webhooks: verifies, stores, answers, and only then works. A repeat is worked on once.

Usage: WEBHOOK_SECRET=whsec_… receive.py PORT [DATABASE]

What arrived is kept in a table whose key is the `webhook-id`. That is the whole of deduplication, and it holds when
this program is killed between the answer and the work: the worker goes on with what is not done.
"""

import json
import os
import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

LARGEST_BODY = 1024 * 1024

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
database = sys.argv[2] if len(sys.argv) > 2 else ":memory:"
inbox = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
inbox.execute("CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY, traceparent TEXT, body TEXT, done INTEGER DEFAULT 0)")
lock = threading.Lock()
arrived = threading.Event()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if length > LARGEST_BODY:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        try:
            # On the bytes as they came, before anything parses them.
            webhook.verify(body.decode(), dict(self.headers.items()))
        except (WebhookVerificationError, UnicodeDecodeError) as fault:
            print(f"refused: {fault}", file=sys.stderr)
            return self.answer(401)
        with lock:
            # A repeat has the id of the first, and changes nothing.
            inbox.execute(
                "INSERT OR IGNORE INTO inbox (id, traceparent, body) VALUES (?, ?, ?)",
                (self.headers["webhook-id"], self.headers.get("traceparent"), body.decode()),
            )
        arrived.set()
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def work():
    """Works on what arrived, in the background. With a database of its own, in one transaction with the mark."""
    while True:
        with lock:
            row = inbox.execute("SELECT id, traceparent, body FROM inbox WHERE NOT done ORDER BY rowid LIMIT 1").fetchone()
        if row is None:
            arrived.wait()
            arrived.clear()
            continue
        webhook_id, traceparent, body = row
        event = json.loads(body)
        told = {"id": webhook_id, "type": event["type"], "traceparent": traceparent, "data": event["data"]}
        print(json.dumps(told), flush=True)
        with lock:
            inbox.execute("UPDATE inbox SET done = 1 WHERE id = ?", (webhook_id,))


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
threading.Thread(target=work, daemon=True).start()
print(f"listening at http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
