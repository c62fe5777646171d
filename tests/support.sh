#!/usr/bin/env bash
#
# Makes sure of what the tests need beside Rust and RabbitMQ, and prints the path of a Python that
# has an AMQP client and the reference implementation of Standard Webhooks. Both are written by
# others, which is the point: they check us. Does nothing where all of it is.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=$PWD/target/test-python
readonly PACKAGES=(pika==1.3.2 standardwebhooks==1.0.1)

say() { printf 'support: %s\n' "$*" >&2; }

deploy/prerequisites.sh pkg-config=pkg-config python3=python3 >&2

imports() { "$VENV/bin/python" -c 'import pika, standardwebhooks' 2>/dev/null; }

make_venv() { "$1" -m venv --clear "$VENV" >&2; }

if ! imports; then
    say "making a Python environment in $VENV"
    mkdir -p "$(dirname "$VENV")"
    # A Debian python3 can lack the part of venv that brings pip, and shows it only by failing.
    if ! make_venv python3 2>/dev/null; then
        deploy/prerequisites.sh "=python3-venv"
        make_venv /usr/bin/python3
    fi
    say "installing ${PACKAGES[*]} into it"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" >&2
    imports
fi

echo "$VENV/bin/python"
