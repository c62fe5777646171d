// Receives webhooks: verifies, answers, and only then works. A repeat is worked on once.
//
// Usage: WEBHOOK_SECRET=whsec_… node receive.js PORT
//
// What was seen is remembered in memory here. A service keeps it in its database, with the `webhook-id` as a unique
// key, in the transaction that does the work; then it also holds when the service is restarted.

const { createServer } = require('node:http');
const { Webhook } = require('standardwebhooks');

const LARGEST_BODY = 1024 * 1024;
const MOST_REMEMBERED = 100_000;
const MOST_WAITING = 1_000;

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const seen = new Set();
const waiting = [];

/** What this receiver answers; the work comes later. */
function take(headers, body) {
  let event;
  try {
    // On the bytes as they came, before anything parses them.
    event = webhook.verify(body, headers);
  } catch (fault) {
    console.error(`refused: ${fault.message}`);
    return 401;
  }
  const id = headers['webhook-id'];
  if (seen.has(id)) return 204;
  // Better to be called again than to promise what a full memory cannot keep.
  if (waiting.length >= MOST_WAITING) return 503;
  seen.add(id);
  // The oldest go first: a Set keeps the order in which it was filled.
  if (seen.size > MOST_REMEMBERED) seen.delete(seen.values().next().value);
  waiting.push({ id, type: event.type, traceparent: headers.traceparent, data: event.data });
  setImmediate(work);
  return 204;
}

function work() {
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    console.log(JSON.stringify(next));
  }
}

const server = createServer((request, response) => {
  const chunks = [];
  let length = 0;
  const answer = (status) => response.writeHead(status, status === 503 ? { 'retry-after': '5' } : {}).end();
  request.on('data', (chunk) => {
    length += chunk.length;
    if (length <= LARGEST_BODY) chunks.push(chunk);
  });
  request.on('end', () => answer(length > LARGEST_BODY ? 413 : take(request.headers, Buffer.concat(chunks).toString())));
});
server.listen(Number(process.argv[2]), '127.0.0.1', () => {
  console.log(`listening at http://127.0.0.1:${server.address().port}/`);
});
