#!/usr/bin/env bash
#
# Makes sure of promtool, which checks the alert rules, and prints its path. Where the machine has none it is taken
# out of Debian's package `prometheus`: unpacked below target/, so that nothing is installed and no server starts.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PLACE=$PWD/target/test-promtool
readonly UNPACKED=$PLACE/root/usr/bin/promtool

say() { printf 'promtool: %s\n' "$*" >&2; }

if command -v promtool; then
    exit 0
fi

# Tests that run at the same time must not unpack at the same time.
mkdir -p "$PLACE"
exec 9>"$PLACE/lock"
flock 9

if [[ ! -x $UNPACKED ]]; then
    command -v apt-get >/dev/null || { say "error: please install promtool, which comes with Prometheus"; exit 1; }
    rm -rf "$PLACE/root" "$PLACE"/*.deb
    say "taking promtool out of the package prometheus"
    # Lists that are old name packages that are gone.
    (cd "$PLACE" && apt-get -q download prometheus >&2) || {
        root=()
        [[ $EUID -eq 0 ]] || root=(sudo)
        "${root[@]}" apt-get -q update >&2
        (cd "$PLACE" && apt-get -q download prometheus >&2)
    }
    dpkg-deb --extract "$PLACE"/prometheus_*.deb "$PLACE/root"
    rm -f "$PLACE"/*.deb
fi
echo "$UNPACKED"
