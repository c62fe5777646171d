// Publishes events to Fanfare with amqplib: many at once, each confirmed, and as part of a trace.
//
// Usage: node publish.js AMQP_URL TENANT COUNT
//
// The events are in binary mode: the attributes are headers, the body is the data byte for byte. An event is lost
// only if its producer forgets it, so each is published until RabbitMQ confirms it. Publishing one twice does no
// harm: Fanfare and receivers know it by tenant, source and id.

const { randomBytes } = require('node:crypto');
const { setTimeout: pause } = require('node:timers/promises');
const amqplib = require('amqplib');

const EXCHANGE = 'fanfare.events';
const TRIES = 5;
// More would wait in this process anyway, where they are lost if it dies.
const MOST_IN_FLIGHT = 100;

/** Publishes once. Rejects when RabbitMQ refuses the event, returns it, or goes away. */
function publishOnce(channel, returned, event, traceparent) {
  const headers = { traceparent, cloudEvents_specversion: '1.0' };
  for (const name of ['id', 'source', 'type', 'tenant', 'time']) {
    headers[`cloudEvents_${name}`] = event[name];
  }
  return new Promise((resolve, reject) => {
    const options = {
      contentType: 'application/json',
      persistent: true,
      mandatory: true,
      messageId: event.id,
      headers,
    };
    const body = Buffer.from(JSON.stringify(event.data));
    // The first word of the routing key has to be the tenant.
    channel.publish(EXCHANGE, `${event.tenant}.${event.type}`, body, options, (nack) => {
      if (nack) {
        reject(new Error('RabbitMQ refused the event: its queue is full, or the connection was lost'));
      } else if (returned.delete(event.id)) {
        // A message that no queue takes is returned first, and then confirmed.
        reject(new Error('the event was returned: no queue takes it'));
      } else {
        resolve();
      }
    });
  });
}

/** Publishes until RabbitMQ has stored the event. */
async function publish(channel, returned, event, traceparent) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await publishOnce(channel, returned, event, traceparent);
      return;
    } catch (fault) {
      console.error(`${event.id}: ${fault.message} (try ${attempt} of ${TRIES})`);
      if (attempt === TRIES) throw new Error(`${event.id} was not stored`);
      await pause(100 * 2 ** attempt);
    }
  }
}

async function main() {
  const [url, tenant, count] = process.argv.slice(2);
  // A service takes it from the request that it is working on; an OpenTelemetry SDK does so by itself.
  const traceparent =
    process.env.TRACEPARENT || `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;

  const connection = await amqplib.connect(url);
  connection.on('error', (fault) => console.error(`the connection was lost: ${fault.message}`));
  const channel = await connection.createConfirmChannel();
  channel.on('error', (fault) => console.error(`the channel was closed: ${fault.message}`));
  const returned = new Set();
  channel.on('return', (message) => returned.add(message.properties.messageId));

  const inFlight = new Set();
  for (let number = 0; number < Number(count); number += 1) {
    const event = {
      // Chosen once and kept with the business data, so that every repeat has the same.
      id: `node-${number}`,
      source: '/examples/node',
      type: 'reward.unlocked',
      tenant,
      time: new Date().toISOString(),
      data: { reward: number, language: 'node' },
    };
    const publishing = publish(channel, returned, event, traceparent).finally(() => inFlight.delete(publishing));
    inFlight.add(publishing);
    if (inFlight.size >= MOST_IN_FLIGHT) await Promise.race(inFlight);
  }
  await Promise.all(inFlight);
  await connection.close();
  console.log(`RabbitMQ has stored ${count} events`);
}

main().catch((fault) => {
  console.error(fault.message);
  process.exit(1);
});
