// Says whether a request is signed as Standard Webhooks has it.
//
// Usage: node verify_signature.js KEY NAME=VALUE…, with the headers as NAME=VALUE and the body on stdin.
//
// A shared secret is verified by the public `standardwebhooks` library, which knows no public keys; a public key by
// what Node itself knows of ed25519. Prints `valid`, or why not.

const { createPublicKey, verify } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { Webhook, WebhookVerificationError } = require('standardwebhooks');

function verifiesShared(secret, headers, body) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch (fault) {
    if (fault instanceof WebhookVerificationError) return false;
    throw fault;
  }
}

function verifiesPublic(key, headers, body) {
  const x = Buffer.from(key.slice('whpk_'.length), 'base64').toString('base64url');
  const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  const signatures = headers['webhook-signature'].split(' ').map((one) => one.split(','));
  return signatures.some(
    ([version, text]) =>
      version === 'v1a' && verify(null, Buffer.from(signed), publicKey, Buffer.from(text, 'base64')),
  );
}

const [key, ...pairs] = process.argv.slice(2);
const headers = Object.fromEntries(
  pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
);
const body = readFileSync(0).toString();
const verifies = key.startsWith('whpk_') ? verifiesPublic : verifiesShared;
console.log(verifies(key, headers, body) ? 'valid' : 'not signed by this key');
