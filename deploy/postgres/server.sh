#!/usr/bin/env bash
#
# Gives Fanfare a private PostgreSQL server for development and tests.
#
#   server.sh start DIR [--durable]
#       Starts a server in the background and waits until it accepts connections. Everything
#       it writes is under DIR, it listens on one free port of 127.0.0.1 and on no socket, and
#       whoever is on this machine may do everything in it. Prints its URL on stdout and writes
#       DIR/server.env, which a shell can source: POSTGRES_URL, VERSION, SERVER_PID. A DIR that
#       held a server before keeps its port and its data. A server that runs is left as it is.
#       Without --durable it does not wait for the disk: a crash of the server loses nothing, a
#       crash of the machine may.
#
#   server.sh stop DIR
#       Stops the server in an orderly way: transactions under way are rolled back.
#
#   server.sh kill DIR
#       Kills the server at once, as a crash would. `start DIR` brings it back.
#
#   server.sh sql DIR [ARGUMENTS OF psql...]
#       Runs psql as the server's superuser.
#
#   server.sh install
#       Installs the distribution's package, without a cluster of its own and so without
#       anything to start.
#
#   server.sh help
#       Prints this text.
#
# PostgreSQL refuses to run as root. Started by root, it runs as the user `postgres` and sees DIR
# at /mnt, in a mount namespace of its own: DIR may lie where that user cannot reach.
#
# Progress goes to stderr. Needs Debian or a derivative.

set -euo pipefail

readonly START_BOUND_SECONDS=60
readonly STOP_BOUND_SECONDS=30
readonly SUPERUSER=fanfare

say() { printf 'postgres: %s\n' "$*" >&2; }

die() {
    printf 'postgres: error: %s\n' "$*" >&2
    exit 1
}

main() {
    local command=${1:-help}
    (($# == 0)) || shift
    case $command in
        start | stop | kill | sql | install) "$command"_command "$@" ;;
        help | --help | -h) sed -n '3,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
        *) die "unknown command '$command', see: server.sh help" ;;
    esac
}

start_command() {
    local directory='' durable=no
    while (($#)); do
        case $1 in
            --durable) durable=yes ;;
            -*) die "unknown option '$1' of start" ;;
            *) [[ -z $directory ]] || die "start takes one DIR" && directory=$1 ;;
        esac
        shift
    done
    [[ -n $directory ]] || die "start needs a DIR"
    mkdir -p "$directory"
    dir=$(cd "$directory" && pwd -P)
    if server_runs; then
        take_identity
        [[ -f $dir/server.env ]] || wait_until_ready
    else
        boot "$durable"
    fi
    sed -n 's/^POSTGRES_URL=//p' "$dir/server.env"
}

boot() {
    install_package
    take_identity
    prepare_directory
    [[ -f $dir/data/PG_VERSION ]] || make_cluster
    write_configuration "$1"

    # A start that fails or is interrupted must not leave half a server behind.
    trap abandon_start EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    say "starting PostgreSQL $version in $dir"
    wait_until_port_is_free
    launch
    wait_until_ready
    trap - EXIT INT TERM
    say "it accepts connections on 127.0.0.1:$PORT"
}

abandon_start() { if server_runs; then kill -KILL "$(server_pid)"; fi; }

# Reads or invents what stays the same over the restarts of a server: its version and its port.
take_identity() {
    if [[ -f $dir/postgres.identity ]]; then
        # shellcheck source=/dev/null
        source "$dir/postgres.identity"
    else
        VERSION=$(newest_version) PORT=$(free_port)
        write_file "$dir/postgres.identity" "VERSION=$VERSION" "PORT=$PORT"
    fi
    version=$VERSION
    programs=/usr/lib/postgresql/$VERSION/bin
    [[ -x $programs/postgres ]] || die "$dir holds the data of PostgreSQL $VERSION, which is not installed"
    if [[ $EUID -eq 0 ]]; then seen=/mnt; else seen=$dir; fi
}

# The server's user owns the data; what this script writes for itself is beside it.
prepare_directory() {
    mkdir -p "$dir/data" "$dir/log"
    chmod 700 "$dir/data"
    if [[ $EUID -eq 0 ]]; then
        chmod o+x "$dir"
        chown postgres: "$dir/data" "$dir/log"
    fi
}

make_cluster() {
    as_server "$programs/initdb" --pgdata="$seen/data" --username="$SUPERUSER" --auth=trust \
        --encoding=UTF8 --locale=C.UTF-8 --no-sync >"$dir/log/initdb.out" 2>&1 ||
        explain_failure "the data directory could not be made"
}

write_configuration() {
    local synchronous=off
    [[ $1 == no ]] || synchronous=on
    write_file "$dir/data/fanfare.conf" \
        "listen_addresses = '127.0.0.1'" "port = $PORT" "unix_socket_directories = ''" \
        "max_connections = 200" "fsync = $synchronous" "full_page_writes = $synchronous" \
        "timezone = 'UTC'"
    # The last line wins, so nothing of the distribution's defaults is in the way.
    grep -q fanfare.conf "$dir/data/postgresql.conf" ||
        echo "include 'fanfare.conf'" >>"$dir/data/postgresql.conf"
    write_file "$dir/data/pg_hba.conf" "host all all 127.0.0.1/32 trust"
    [[ $EUID -ne 0 ]] || chown postgres: "$dir/data/fanfare.conf" "$dir/data/pg_hba.conf"
}

# Starts the server in its own session, so that Ctrl-C at a terminal does not reach it, with a
# clean environment: settings of the caller's shell must not leak in.
launch() {
    (
        close_inherited_files
        cd /
        as_server env -i "FANFARE_POSTGRES_DIR=$dir" LANG=C.UTF-8 PATH=/usr/bin:/bin \
            "$programs/postgres" -D "$seen/data" </dev/null >>"$dir/log/server.out" 2>&1
    ) &
    echo "$!" >"$dir/server.pid"
    # Otherwise the shell would report its death when we are the ones to kill it.
    disown
}

# Becomes a command of the server's user, which sees DIR where `seen` says.
as_server() {
    if [[ $EUID -ne 0 ]]; then
        exec_or_run setsid "$@"
    else
        # shellcheck disable=SC2016  # The variables are those of the inner shell.
        exec_or_run unshare --mount setsid sh -euc \
            'mount --bind "$1" /mnt; shift; exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"' \
            enter "$dir" "$@"
    fi
}

# In a subshell of its own the command takes the subshell's place, so that its pid is known.
exec_or_run() { if [[ $BASHPID != "$$" ]]; then exec "$@"; else "$@"; fi; }

# A pipe or a lock of the caller would otherwise stay open for as long as the server lives.
close_inherited_files() {
    local file fd
    for file in "/proc/$BASHPID/fd/"*; do
        fd=${file##*/}
        if ((fd > 2 && fd != 255)); then { exec {fd}>&-; } 2>/dev/null || true; fi
    done
}

wait_until_ready() {
    local deadline=$((SECONDS + START_BOUND_SECONDS))
    until "$programs/pg_isready" --quiet --host=127.0.0.1 --port="$PORT" \
        --username="$SUPERUSER" --dbname=postgres; do
        alive "$(server_pid)" || explain_failure "the server ended during its start"
        ((SECONDS < deadline)) || explain_failure "the server is not ready after $START_BOUND_SECONDS s"
        sleep 0.05
    done
    write_file "$dir/server.env" \
        "POSTGRES_URL=postgresql://$SUPERUSER@127.0.0.1:$PORT/postgres" \
        "VERSION=$VERSION" "SERVER_PID=$(server_pid)"
}

explain_failure() {
    local log
    for log in "$dir/log/initdb.out" "$dir/log/server.out"; do
        [[ -s $log ]] || continue
        say "the end of $log:"
        tail -n 30 "$log" >&2
    done
    die "$1"
}

stop_command() {
    [[ $# -eq 1 ]] || die "stop needs one DIR"
    [[ -d $1 ]] || return 0
    dir=$(cd "$1" && pwd -P)
    if server_runs; then
        say "stopping the server in $dir"
        # SIGINT is PostgreSQL's "fast shutdown"; SIGTERM would wait for every client to leave.
        end_process "$(server_pid)"
    fi
    rm -f "$dir/server.pid" "$dir/server.env"
}

kill_command() {
    [[ $# -eq 1 && -d $1 ]] || die "kill needs one DIR of a server"
    dir=$(cd "$1" && pwd -P)
    server_runs || die "no server runs in $dir"
    say "killing the server in $dir"
    local processes
    processes=$(our_processes)
    # shellcheck disable=SC2086  # Several pids.
    kill -KILL $processes 2>/dev/null || true
    local pid
    for pid in $processes; do wait_for_end "$pid" 10 || die "process $pid outlived SIGKILL"; done
    # Nobody may have collected the dead process yet, and the next start would take it for alive.
    rm -f "$dir/server.env" "$dir/data/postmaster.pid"
}

sql_command() {
    [[ $# -ge 1 && -d $1 ]] || die "sql needs the DIR of a server"
    dir=$(cd "$1" && pwd -P)
    shift
    server_runs || die "no server runs in $dir"
    take_identity
    exec "$programs/psql" --no-psqlrc --host=127.0.0.1 --port="$PORT" --username="$SUPERUSER" \
        --dbname=postgres "$@"
}

end_process() {
    kill -INT "$1" 2>/dev/null || return 0
    wait_for_end "$1" "$STOP_BOUND_SECONDS" && return
    say "process $1 did not stop within $STOP_BOUND_SECONDS s, killing it"
    kill -KILL "$1" 2>/dev/null || return 0
    wait_for_end "$1" 10 || die "process $1 outlived SIGKILL"
}

wait_for_end() {
    local deadline=$((SECONDS + $2))
    while alive "$1"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

server_runs() { is_ours "$(server_pid)"; }

server_pid() { cat "$dir/server.pid" 2>/dev/null || true; }

# A zombie counts as ended: the first process of a container often never collects them.
alive() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*//p' "/proc/${1:-none}/status" 2>/dev/null) || return 1
    [[ -n $state && $state != [ZX]* ]]
}

# A recorded pid may belong to a stranger by now. Ours carry the mark that `launch` gave them.
is_ours() {
    alive "${1:-none}" && grep -qzxF -- "FANFARE_POSTGRES_DIR=$dir" "/proc/$1/environ" 2>/dev/null
}

# The server and what it started, the server first.
our_processes() {
    local server
    server=$(server_pid)
    echo "$server"
    awk -v parent="$server" '$1 == "PPid:" && $2 == parent { split(FILENAME, part, "/"); print part[3] }' \
        /proc/[0-9]*/status 2>/dev/null || true
}

newest_version() {
    local server versions=()
    for server in /usr/lib/postgresql/*/bin/postgres; do
        [[ ! -x $server ]] || versions+=("$(cut -d / -f 5 <<<"$server")")
    done
    ((${#versions[@]})) || return 0
    printf '%s\n' "${versions[@]}" | sort -n | tail -n 1
}

install_command() {
    [[ $# -eq 0 ]] || die "install takes no arguments"
    install_package
    say "PostgreSQL $(newest_version) is installed"
}

install_package() {
    [[ -z $(newest_version) ]] || return 0
    if [[ -z $(apt-cache madison postgresql 2>/dev/null) ]]; then
        say "refreshing the package lists of this machine (apt-get update)"
        system_apt update
    fi
    say "about to install the distribution's package postgresql, without a cluster of its own"
    # In a subshell, so that its exit takes the rule away whatever happens.
    (
        deny_main_cluster
        system_apt install -y --no-install-recommends postgresql
    )
    [[ -n $(newest_version) ]] || die "postgresql is installed, but not where it was expected"
}

# Debian's package makes a cluster and starts it, unless told otherwise: pg_createcluster(8).
deny_main_cluster() {
    local rule=/etc/postgresql-common/createcluster.d/fanfare.conf denial
    # shellcheck disable=SC2064  # The name is known now and local to this function.
    trap "as_root rm -f $rule" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    denial=$(mktemp)
    printf 'create_main_cluster = false\n' >"$denial"
    as_root install -D -m 0644 "$denial" "$rule"
    rm -f "$denial"
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: $*"
    fi
}

# Progress belongs on stderr, and several scripts may want the package database at once.
system_apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >&2
}

# Prints a port that nobody listens on, below those that the kernel hands to outgoing connections,
# which could otherwise be in the way of a restart.
free_port() {
    local lowest=20000 highest port
    read -r highest _ </proc/sys/net/ipv4/ip_local_port_range
    ((highest > lowest + 1000)) || highest=32768
    for _ in {1..200}; do
        port=$((lowest + SRANDOM % (highest - lowest)))
        if ! somebody_listens "$port"; then
            echo "$port"
            return
        fi
    done
    die "found no free port between $lowest and $highest"
}

# The kernel's table lists local addresses as HEX_ADDRESS:HEX_PORT; state 0A is LISTEN.
somebody_listens() {
    awk -v port="$(printf '%04X' "$1")" \
        '$4 == "0A" { sub(/.*:/, "", $2); if ($2 == port) found = 1 } END { exit !found }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# After a kill the kernel needs a moment to take the port back.
wait_until_port_is_free() {
    for _ in {1..50}; do
        somebody_listens "$PORT" || return 0
        sleep 0.1
    done
    die "another process listens on this server's port: $PORT"
}

write_file() {
    local file=$1
    shift
    printf '%s\n' "$@" >"$file.new"
    mv "$file.new" "$file"
}

main "$@"
