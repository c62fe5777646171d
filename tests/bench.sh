#!/usr/bin/env bash
#
# Measures filters, and then Fanfare on a private RabbitMQ node of each version, one after the other
# so that they do not share the cores. Arguments are passed on to `fanfare bench`.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NODE_SH=$PWD/deploy/rabbitmq/node.sh
readonly SERVER_SH=$PWD/deploy/postgres/server.sh
readonly NODES=$PWD/target/bench-nodes

stop_nodes() {
    "$NODE_SH" stop "$NODES/4.3" || true
    "$NODE_SH" stop "$NODES/3.10" || true
    "$SERVER_SH" stop "$NODES/postgres" || true
}

deploy/prerequisites.sh
"$SERVER_SH" install
cargo bench --locked -p fanfare-model --bench filters
cargo build --release --locked -p fanfare-cli

trap stop_nodes EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for version in 4.3 3.10; do
    "$NODE_SH" stop "$NODES/$version"
    "$SERVER_SH" stop "$NODES/postgres"
    rm -rf "${NODES:?}/$version" "${NODES:?}/postgres"
    database=$("$SERVER_SH" start "$NODES/postgres")
    url=$("$NODE_SH" start "$NODES/$version" --version "$version")
    pid=$(sed -n 's/^SERVER_PID=//p' "$NODES/$version/node.env")
    echo "RabbitMQ $version"
    target/release/fanfare bench --amqp "$url" --broker-pid "$pid" --postgres "$database" "$@"
    "$NODE_SH" stop "$NODES/$version"
    "$SERVER_SH" stop "$NODES/postgres"
done
