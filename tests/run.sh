#!/usr/bin/env bash
#
# Runs all tests of the workspace against a RabbitMQ node of each version and a PostgreSQL server,
# which it starts and stops. Arguments are passed on to `cargo test`.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NODE_SH=$PWD/deploy/rabbitmq/node.sh
readonly SERVER_SH=$PWD/deploy/postgres/server.sh
readonly NODES=$PWD/target/test-nodes

starting=''
stop_nodes() {
    # A start in the background does not hear Ctrl-C, and could launch its node after our stop.
    if [[ -n $starting ]]; then
        kill -TERM "$starting" 2>/dev/null || true
        wait "$starting" || true
    fi
    # Together, because the 3.10 with management takes six seconds.
    "$NODE_SH" stop "$NODES/3.10" &
    "$NODE_SH" stop "$NODES/4.3" &
    "$SERVER_SH" stop "$NODES/postgres" &
    wait
}

# Two runs in one checkout would end each other's nodes.
mkdir -p "$NODES"
exec 9>"$NODES/lock"
flock --nonblock 9 || { echo "another run of the tests uses $NODES" >&2; exit 1; }

"$NODE_SH" install 3.10
"$NODE_SH" install 4.3
"$SERVER_SH" install
FANFARE_TEST_PYTHON=$(tests/support.sh)
# The tests ask for it themselves; what cannot be installed is better told before they run.
tests/languages.sh >/dev/null
tests/promtool.sh >/dev/null

trap stop_nodes EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What a run before left behind would make this one different.
stop_nodes
rm -rf "$NODES/3.10" "$NODES/4.3" "$NODES/postgres"
"$NODE_SH" start "$NODES/3.10" --version 3.10 --management >/dev/null &
starting=$!
"$NODE_SH" start "$NODES/4.3" --version 4.3 --management >/dev/null
wait "$starting"
starting=''
FANFARE_TEST_POSTGRES=$("$SERVER_SH" start "$NODES/postgres")

# Prints what node.env of a version says about a name.
of_node() { sed -n "s/^$2=//p" "$NODES/$1/node.env"; }

export FANFARE_TEST_PYTHON FANFARE_TEST_POSTGRES
export FANFARE_NODE_SH=$NODE_SH
FANFARE_TEST_310_AMQP=$(of_node 3.10 AMQP_URL)
FANFARE_TEST_310_MANAGEMENT=$(of_node 3.10 MANAGEMENT_URL)
FANFARE_TEST_43_AMQP=$(of_node 4.3 AMQP_URL)
FANFARE_TEST_43_MANAGEMENT=$(of_node 4.3 MANAGEMENT_URL)
export FANFARE_TEST_310_AMQP FANFARE_TEST_310_MANAGEMENT
export FANFARE_TEST_43_AMQP FANFARE_TEST_43_MANAGEMENT

# Some tests run the program, which `cargo test` alone would not build.
cargo build --locked --workspace --bins
cargo test --locked --workspace "$@"
