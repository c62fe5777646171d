#!/usr/bin/env bash
#
# Runs the long and timed proofs against a private RabbitMQ 4.3, which it starts and stops. Arguments are passed
# on to the test program, such as the name of one proof. On a machine that does nothing else it is right, and
# takes an hour; FANFARE_PROOF_SECONDS, FANFARE_PROOF_PAIRS and FANFARE_PROOF_FLOOD make it shorter.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NODE_SH=$PWD/deploy/rabbitmq/node.sh
readonly NODE=$PWD/target/proof-node

stop_node() { "$NODE_SH" stop "$NODE" || true; }

deploy/prerequisites.sh
"$NODE_SH" install 4.3
cargo build --release --locked --workspace --bins
cargo test --release --locked -p fanfare-tests --test proof --no-run

trap stop_node EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

stop_node
rm -rf "$NODE"
"$NODE_SH" start "$NODE" --version 4.3 --management >/dev/null

of_node() { sed -n "s/^$1=//p" "$NODE/node.env"; }

export FANFARE_NODE_SH=$NODE_SH
FANFARE_TEST_43_AMQP=$(of_node AMQP_URL)
FANFARE_TEST_43_MANAGEMENT=$(of_node MANAGEMENT_URL)
export FANFARE_TEST_43_AMQP FANFARE_TEST_43_MANAGEMENT

# One at a time: two would measure each other.
cargo test --release --locked -p fanfare-tests --test proof -- --nocapture --test-threads=1 "$@"

# The outbox, with more transactions and more kills than in every test run. It starts a PostgreSQL of its own.
FANFARE_PROOF=1 cargo test --release --locked -p fanfare-tests --test faults -- --nocapture outbox
