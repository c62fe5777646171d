#!/usr/bin/env bash
#
# Makes sure of what a build needs beside Rust: a C compiler with its linker, and make. Does nothing where
# they are. Further packages can be named, each with the command whose absence means that it is
# missing. Without a command it is installed in any case:
#
#   prerequisites.sh [[COMMAND]=PACKAGE...]     for example: prerequisites.sh pkg-config=pkg-config

set -euo pipefail

say() { printf 'prerequisites: %s\n' "$*" >&2; }

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "error: this needs root: $*"
        exit 1
    fi
}

missing=()
for pair in cc=gcc make=make "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
done
((${#missing[@]})) || exit 0

# The C library's headers are only recommended by the compiler's package.
[[ " ${missing[*]} " != *' gcc '* ]] || missing+=(libc6-dev)

if ! command -v apt-get >/dev/null; then
    say "error: please install: ${missing[*]}"
    exit 1
fi
if [[ -z $(apt-cache madison "${missing[0]}" 2>/dev/null) ]]; then
    say "refreshing the package lists of this machine (apt-get update)"
    as_root apt-get -q update >&2
fi
say "about to install: ${missing[*]}"
as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
    install -y --no-install-recommends "${missing[@]}" >&2
