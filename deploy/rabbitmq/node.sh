#!/usr/bin/env bash
#
# Gives Fanfare a private RabbitMQ node for development and tests.
#
#   node.sh start DIR [--version 3.10|4.3|any] [--management]
#       Starts a node in the background and waits until it accepts AMQP. Everything it
#       writes is under DIR, everything it listens on is a free port of 127.0.0.1. Prints
#       the AMQP URL on stdout and writes DIR/node.env, which a shell can source:
#       AMQP_URL, MANAGEMENT_URL (empty without --management), VERSION, NODE, SERVER_PID,
#       EPMD_PID. A DIR that held a node before keeps its version, ports, name, plugins
#       and data. A node that already runs is left as it is.
#       --version any (the default) takes the RabbitMQ package of this machine, else an
#       unpacked 4.3, else installs the package. A version that is missing is installed.
#
#   node.sh stop DIR
#       Stops the node in an orderly way, then its epmd. Nothing is left running.
#
#   node.sh kill DIR
#       Kills the Erlang VM at once, as a crash would. `start DIR` brings it back.
#       RabbitMQ writes the list of its quorum queues with a delay of half a second: a queue
#       declared less than a second before is lost, with every message confirmed in it.
#
#   node.sh ctl DIR COMMAND...
#       Runs rabbitmqctl against the node that runs in DIR.
#
#   node.sh install 3.10|4.3
#       3.10 is the distribution's package, installed without starting its service.
#       4.3 comes from Debian testing with its own Erlang and C library. It is unpacked
#       into ${FANFARE_RABBITMQ_43_ROOT:-~/.cache/fanfare/rabbitmq-4.3}, never installed.
#
#   node.sh help
#       Prints this text.
#
# Progress goes to stderr. Needs Debian or a derivative with Debian in its apt sources.

set -euo pipefail

readonly START_BOUND_SECONDS=90
readonly STOP_BOUND_SECONDS=30
readonly TREE_SUITE=forky
readonly TREE_DEFAULT=${HOME:-/root}/.cache/fanfare/rabbitmq-4.3
readonly TREE=${FANFARE_RABBITMQ_43_ROOT:-$TREE_DEFAULT}

say() { printf 'rabbitmq: %s\n' "$*" >&2; }

die() {
    printf 'rabbitmq: error: %s\n' "$*" >&2
    exit 1
}

main() {
    local command=${1:-help}
    (($# == 0)) || shift
    case $command in
        start | stop | kill | ctl | install) "$command"_command "$@" ;;
        help | --help | -h) usage ;;
        *) die "unknown command '$command', see: node.sh help" ;;
    esac
}

usage() { sed -n '3,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

start_command() {
    local directory='' wanted=any management=no
    while (($#)); do
        case $1 in
            --version) wanted=${2:?--version needs a value} && shift ;;
            --version=*) wanted=${1#*=} ;;
            --management) management=yes ;;
            -*) die "unknown option '$1' of start" ;;
            *) [[ -z $directory ]] || die "start takes one DIR" && directory=$1 ;;
        esac
        shift
    done
    [[ -n $directory ]] || die "start needs a DIR"
    [[ $wanted == any || $wanted == 3.10 || $wanted == 4.3 ]] || die "unknown version '$wanted'"

    mkdir -p "$directory"
    dir=$(cd "$directory" && pwd -P)
    if server_runs; then
        take_identity "$wanted" "$management"
        [[ -f $dir/node.env ]] || wait_until_ready
    else
        boot "$wanted" "$management"
    fi
    sed -n 's/^AMQP_URL=//p' "$dir/node.env"
}

boot() {
    local began=$EPOCHREALTIME
    choose_installation "$1"
    take_identity "$1" "$2"
    write_configuration

    # A start that fails or is interrupted must not leave half a node behind.
    trap abandon_start EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    say "starting RabbitMQ $version in $dir"
    wait_until_ports_are_free
    start_epmd
    start_server
    wait_until_ready
    trap - EXIT INT TERM
    say "$NODE accepts AMQP on 127.0.0.1:$AMQP_PORT after $(seconds_since "$began") s"
}

# Asked to stop while it boots, a node can hang for good. It holds nothing that a crash would lose.
abandon_start() {
    if server_runs; then kill -KILL "$(pid_of server)"; fi
    stop_node
}

# Sets `root` (the directory to chroot into, or empty for the machine itself), `version`, and
# `seen`, the name that DIR has for the node.
choose_installation() {
    local wanted=$1 recorded=''
    # A node's data belongs to the version that wrote it.
    [[ ! -f $dir/identity ]] || recorded=$(sed -n 's/^VERSION=//p' "$dir/identity")
    if [[ -n $recorded && $wanted == any ]]; then wanted=${recorded%.*}; fi

    if [[ $wanted == any && -z $(package_version) && -f $TREE/.complete ]]; then
        wanted=4.3
    elif [[ $wanted == any ]]; then
        install_package
        wanted=$(package_version)
        wanted=${wanted%.*}
    elif [[ $(package_version) != "$wanted".* ]]; then
        if [[ $wanted == 4.3 ]]; then install_tree; else install_package; fi
    fi

    if [[ $(package_version) == "$wanted".* ]]; then
        root='' seen=$dir version=$(package_version)
    elif [[ $wanted == 4.3 ]]; then
        root=$TREE seen=/node version=$(<"$TREE/.complete")
    else
        die "this machine's package is RabbitMQ $(package_version), not $wanted"
    fi
}

# Reads or invents what stays the same over the restarts of a node: its name and its ports.
take_identity() {
    local wanted=$1 management=$2 base
    if [[ -f $dir/identity ]]; then
        # shellcheck source=/dev/null
        source "$dir/identity"
        [[ $wanted == any || $VERSION == "$wanted".* ]] ||
            die "$dir holds the data of RabbitMQ $VERSION, not of $wanted"
        if [[ $management == yes && $MANAGEMENT == no ]]; then
            ! server_runs || die "the node in $dir runs without --management, stop it first"
            MANAGEMENT=yes
        fi
    else
        base=$(free_ports)
        NODE="fanfare-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')@localhost"
        AMQP_PORT=$base MANAGEMENT_PORT=$((base + 1)) DIST_PORT=$((base + 2)) EPMD_PORT=$((base + 3))
        MANAGEMENT=$management
    fi
    VERSION=${version:-$VERSION}
    write_file "$dir/identity" \
        "VERSION=$VERSION" "NODE=$NODE" "MANAGEMENT=$MANAGEMENT" "AMQP_PORT=$AMQP_PORT" \
        "MANAGEMENT_PORT=$MANAGEMENT_PORT" "DIST_PORT=$DIST_PORT" "EPMD_PORT=$EPMD_PORT"
}

# Prints the first of four neighbouring ports that nobody listens on. They are below the ports
# that the kernel hands to outgoing connections, which could otherwise be in the way of a restart.
free_ports() {
    local lowest=20000 highest base
    read -r highest _ </proc/sys/net/ipv4/ip_local_port_range
    ((highest > lowest + 1000)) || highest=32768
    for _ in {1..200}; do
        base=$((lowest + SRANDOM % ((highest - lowest) / 4) * 4))
        if ! somebody_listens "$base" $((base + 1)) $((base + 2)) $((base + 3)); then
            echo "$base"
            return
        fi
    done
    die "found no four free ports between $lowest and $highest"
}

# The kernel's table lists local addresses as HEX_ADDRESS:HEX_PORT; state 0A is LISTEN.
somebody_listens() {
    local pattern
    pattern=$(printf '%04X|' "$@")
    awk -v ports="^(${pattern%|})\$" \
        '$4 == "0A" { sub(/.*:/, "", $2); if ($2 ~ ports) found = 1 } END { exit !found }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# After a kill the kernel needs a moment to take the ports back.
wait_until_ports_are_free() {
    local ports=("$AMQP_PORT" "$DIST_PORT")
    [[ $MANAGEMENT == no ]] || ports+=("$MANAGEMENT_PORT")
    for _ in {1..50}; do
        somebody_listens "${ports[@]}" || return 0
        sleep 0.1
    done
    die "another process listens on one of this node's ports: ${ports[*]}"
}

write_configuration() {
    mkdir -p "$dir/data" "$dir/log" "$dir/run"
    if [[ ! -f $dir/.erlang.cookie ]]; then
        (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$dir/.erlang.cookie")
        chmod 400 "$dir/.erlang.cookie"
    fi

    local settings=(
        "listeners.tcp.1 = 127.0.0.1:$AMQP_PORT"
        # The default would stop publishers on a laptop with a full disk.
        "disk_free_limit.absolute = 50MB"
        "log.file.level = info"
    )
    # The keys of a plugin that is not enabled are unknown, and stop the boot.
    if [[ $MANAGEMENT == yes ]]; then
        settings+=("management.tcp.ip = 127.0.0.1" "management.tcp.port = $MANAGEMENT_PORT")
        write_file "$dir/enabled_plugins" '[rabbitmq_management].'
    else
        write_file "$dir/enabled_plugins" '[].'
    fi
    write_file "$dir/rabbitmq.conf" "${settings[@]}"
    # What an operator's node is told of dead lettering, this one is told too.
    cp "$(dirname "${BASH_SOURCE[0]}")/advanced.config" "$dir/advanced.config"
    # Names come from the file alone. A lookup in a DNS that does not answer would delay the boot.
    write_file "$dir/inetrc" '{lookup, [file]}.' '{host, {127,0,0,1}, ["localhost"]}.'
}

start_epmd() {
    is_ours "$(pid_of epmd)" && return
    launch epmd epmd -port "$EPMD_PORT" -address 127.0.0.1
}

start_server() {
    # Without -sname the boot starts a second VM only to make sure of epmd, which costs a
    # second. With it the distribution is up before RabbitMQ, which then takes it as it is.
    local arguments=(
        -sname "$NODE" -start_epmd false
        -kernel inet_dist_use_interface '{127,0,0,1}'
        -kernel inet_dist_listen_min "$DIST_PORT" -kernel inet_dist_listen_max "$DIST_PORT"
        # Several nodes share few cores: two schedulers that sleep when they have nothing to do.
        +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none
    )
    local environment=(
        RABBITMQ_NODENAME="$NODE"
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
        RABBITMQ_NODE_PORT="$AMQP_PORT"
        RABBITMQ_DIST_PORT="$DIST_PORT"
        RABBITMQ_MNESIA_BASE="$seen/data"
        RABBITMQ_LOG_BASE="$seen/log"
        RABBITMQ_CONFIG_FILE="$seen/rabbitmq.conf"
        RABBITMQ_ADVANCED_CONFIG_FILE="$seen/advanced.config"
        RABBITMQ_CONF_ENV_FILE="$seen/rabbitmq-env.conf"
        RABBITMQ_ENABLED_PLUGINS_FILE="$seen/enabled_plugins"
        RABBITMQ_GENERATED_CONFIG_DIR="$seen/data/config"
        RABBITMQ_PID_FILE="$seen/run/rabbitmq.pid"
        # Bound schedulers would put every node of the machine on the same two cores.
        RABBITMQ_SCHEDULER_BIND_TYPE=u
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="${arguments[*]}"
        # Makes the script exec the VM, so that the process we start is the VM itself.
        RUNNING_UNDER_SYSTEMD=true
    )
    # The wrapper in /usr/sbin would change the user and read /etc/rabbitmq.
    launch server env "${environment[@]}" /usr/lib/rabbitmq/bin/rabbitmq-server
}

# Starts a process of the node in its own session, so that Ctrl-C at a terminal does not reach it,
# and records its pid. It gets a clean environment: settings of the caller's shell must not leak in.
launch() {
    local what=$1 enter=()
    shift
    if [[ -n $root ]]; then
        enter=(unshare --mount)
        [[ $EUID -eq 0 ]] || enter+=(--user --map-root-user)
        enter+=(sh -euc "$ENTER_TREE" enter "$root" "$dir")
    fi
    (
        close_inherited_files
        bound_open_files
        cd "$dir"
        exec setsid env -i "FANFARE_NODE_DIR=$dir" HOME="$seen" LANG=C.UTF-8 \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 ERL_INETRC="$seen/inetrc" \
            ERL_CRASH_DUMP="$seen/log/erl_crash.dump" \
            "${enter[@]}" "$@" </dev/null >>"$dir/log/$what.out" 2>&1
    ) &
    echo "$!" >"$dir/run/$what.pid"
    # Otherwise the shell would report its death when we are the ones to kill it.
    disown
}

# The mounts are made in a namespace of this one process and end with it: nodes that share
# the tree do not see each other's, and there is nothing to unmount.
# shellcheck disable=SC2016  # The variables are those of the inner shell.
readonly ENTER_TREE='
    mount --rbind /proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount --bind "$2" "$1/node"
    root=$1
    shift 2
    exec chroot "$root" "$@"'

# A pipe or a lock of the caller would otherwise stay open for as long as the node lives.
close_inherited_files() {
    local file fd
    for file in "/proc/$BASHPID/fd/"*; do
        fd=${file##*/}
        if ((fd > 2 && fd != 255)); then { exec {fd}>&-; } 2>/dev/null || true; fi
    done
}

# The VM sizes its tables by the limit: too low refuses connections, "unlimited" eats memory.
bound_open_files() {
    local limit
    limit=$(ulimit -Hn)
    if [[ $limit == unlimited ]] || ((limit > 65536)); then limit=65536; fi
    ulimit -Sn "$limit"
}

wait_until_ready() {
    local deadline=$((SECONDS + START_BOUND_SECONDS))
    until answers_amqp && { [[ $MANAGEMENT == no ]] || answers_http; }; do
        alive "$(pid_of server)" || explain_failure "the node ended during its start"
        alive "$(pid_of epmd)" || explain_failure "epmd ended during the start"
        ((SECONDS < deadline)) || explain_failure "the node is not ready after $START_BOUND_SECONDS s"
        sleep 0.05
    done
    local management_url=
    [[ $MANAGEMENT == no ]] || management_url="http://guest:guest@127.0.0.1:$MANAGEMENT_PORT"
    write_file "$dir/node.env" \
        "AMQP_URL=amqp://guest:guest@127.0.0.1:$AMQP_PORT/%2f" "MANAGEMENT_URL=$management_url" \
        "VERSION=$VERSION" "NODE=$NODE" \
        "SERVER_PID=$(pid_of server)" "EPMD_PID=$(pid_of epmd)"
}

# An open port is not enough: the broker has to answer the protocol header with
# Connection.Start, a method frame (1) of channel 0 with class 10 and method 10.
answers_amqp() {
    local answer
    answer=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$AMQP_PORT" || exit
        printf 'AMQP\0\0\011\001' >&3
        timeout 5 head -c 11 <&3 | od -An -v -tx1 | tr -d ' \n'
    )
    [[ $answer =~ ^010000[0-9a-f]{8}000a000a$ ]]
}

answers_http() {
    local status
    status=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$MANAGEMENT_PORT" || exit
        printf 'GET /api/whoami HTTP/1.0\r\nAuthorization: Basic %s\r\n\r\n' \
            "$(printf guest:guest | base64)" >&3
        timeout 5 head -n 1 <&3
    )
    [[ $status == HTTP/1.?' 200'* ]]
}

explain_failure() {
    local log
    for log in "$dir/log/epmd.out" "$dir/log/server.out" "$dir/log/$NODE.log"; do
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
    stop_node
}

stop_node() {
    local server pid
    server=$(pid_of server)
    if is_ours "$server"; then
        say "stopping the node in $dir"
        end_process "$server" "$STOP_BOUND_SECONDS"
    fi
    # Last epmd, which the node needs to the end, and whatever a killed VM may have left.
    for pid in $(our_processes); do
        end_process "$pid" 5
    done
    rm -f "$dir/run/server.pid" "$dir/run/epmd.pid"
}

kill_command() {
    [[ $# -eq 1 && -d $1 ]] || die "kill needs one DIR of a node"
    dir=$(cd "$1" && pwd -P)
    local server
    server=$(pid_of server)
    is_ours "$server" || die "no node runs in $dir"
    say "killing the node in $dir"
    kill -KILL "$server"
    wait_for_end "$server" 10 || die "process $server outlived SIGKILL"
}

ctl_command() {
    [[ $# -gt 1 && -d $1 ]] || die "ctl needs the DIR of a node and a command of rabbitmqctl"
    dir=$(cd "$1" && pwd -P)
    shift
    local server enter=() seen=$dir
    server=$(pid_of server)
    is_ours "$server" || die "no node runs in $dir"
    # shellcheck source=/dev/null
    source "$dir/identity"
    if [[ $(readlink "/proc/$server/root") != / ]]; then
        seen=/node enter=(nsenter --target "$server" --mount --root --wd)
        [[ $EUID -eq 0 ]] || enter+=(--user --preserve-credentials)
    fi
    "${enter[@]}" env -i HOME="$seen" LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 ERL_INETRC="$seen/inetrc" \
        RABBITMQ_CONF_ENV_FILE="$seen/rabbitmq-env.conf" \
        /usr/lib/rabbitmq/bin/rabbitmqctl --node "$NODE" "$@"
}

end_process() {
    kill -TERM "$1" 2>/dev/null || return 0
    wait_for_end "$1" "$2" && return
    say "process $1 did not stop within $2 s, killing it"
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

server_runs() { is_ours "$(pid_of server)"; }

pid_of() { cat "$dir/run/$1.pid" 2>/dev/null || true; }

# A zombie counts as ended: the first process of a container often never collects them.
alive() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*//p' "/proc/${1:-none}/status" 2>/dev/null) || return 1
    [[ -n $state && $state != [ZX]* ]]
}

# A recorded pid may belong to a stranger by now. Ours carry the mark that `launch` gave them,
# as do the processes that they started.
is_ours() { grep -qzxF -- "FANFARE_NODE_DIR=$dir" "/proc/${1:-none}/environ" 2>/dev/null; }

our_processes() {
    { grep -lzxF -- "FANFARE_NODE_DIR=$dir" /proc/[0-9]*/environ 2>/dev/null || true; } | cut -d / -f 3
}

install_command() {
    [[ $# -eq 1 ]] || die "install needs one version"
    case $1 in
        3.10)
            install_package
            [[ $(package_version) == 3.10.* ]] ||
                die "this machine's package is RabbitMQ $(package_version), not 3.10"
            say "RabbitMQ $(package_version) is installed"
            ;;
        4.3)
            install_tree
            say "RabbitMQ $(<"$TREE/.complete") is in $TREE"
            ;;
        *) die "unknown version '$1', install takes 3.10 or 4.3" ;;
    esac
}

package_version() {
    local directory
    for directory in /usr/lib/rabbitmq/lib/rabbitmq_server-*; do
        [[ ! -x $directory/sbin/rabbitmq-server ]] || echo "${directory##*-}"
    done
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

install_package() {
    [[ -z $(package_version) ]] || return 0
    if [[ -z $(apt-cache madison rabbitmq-server 2>/dev/null) ]]; then
        say "refreshing the package lists of this machine (apt-get update)"
        system_apt update
    fi
    say "about to install the distribution's package rabbitmq-server and the Erlang it needs"
    say "its service is neither started now nor enabled at boot"
    local units=(rabbitmq-server.service)
    # Somebody who had Erlang before may rely on its epmd.
    [[ -e /lib/systemd/system/epmd.service ]] || units+=(epmd.service epmd.socket)
    # In a subshell, so that its exit puts the policy back whatever happens.
    (
        deny_service_starts
        system_apt install -y --no-install-recommends rabbitmq-server
        as_root update-rc.d rabbitmq-server disable >/dev/null || true
        if command -v systemctl >/dev/null; then
            as_root systemctl disable "${units[@]}" >/dev/null 2>&1 || true
        fi
    )
    [[ -n $(package_version) ]] || die "rabbitmq-server is installed, but not where it was expected"
}

# Package scripts ask /usr/sbin/policy-rc.d whether they may start a service; 101 means no.
deny_service_starts() {
    local policy=/usr/sbin/policy-rc.d kept=/usr/sbin/policy-rc.d.before-fanfare denial
    # A copy that is already there is of a run that was cut off, and the true one.
    if [[ -e $policy && ! -e $kept ]]; then as_root cp -a "$policy" "$kept"; fi
    # shellcheck disable=SC2064  # Both names are known now and local to this function.
    trap "if [[ -e $kept ]]; then as_root mv -f $kept $policy; else as_root rm -f $policy; fi" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    denial=$(mktemp)
    printf '#!/bin/sh\nexit 101\n' >"$denial"
    as_root install -m 0755 "$denial" "$policy"
    rm -f "$denial"
}

install_tree() {
    [[ ! -f $TREE/.complete ]] || return 0
    [[ -z $(ls -A "$TREE" 2>/dev/null) ]] || die "$TREE is not empty and not a RabbitMQ tree, remove it"
    mkdir -p "$(dirname "$TREE")"
    (
        exec 9>"$TREE.lock"
        flock 9
        # Another run may have finished it while this one waited.
        if [[ ! -f $TREE/.complete ]]; then unpack_tree; fi
    )
}

unpack_tree() {
    local work=$TREE.unpacking package packages
    rm -rf "$work"
    mkdir -p "$work"/{apt/lists/partial,apt/archives/partial,tree}
    configure_apt "$work/apt"
    export APT_CONFIG=$work/apt/apt.conf

    say "reading the package list of Debian $TREE_SUITE"
    apt-get -q update >&2
    # The rest is what RabbitMQ's scripts take for granted on a Debian: the links of the root
    # directory and the tools of the shell. The status file is empty, so nothing else is implied.
    local wanted=(rabbitmq-server base-files dash coreutils sed grep libc-bin)
    say "about to download RabbitMQ 4.3 and all it depends on (about 80 MB) to unpack it into $TREE"
    apt-get -q install -y --no-install-recommends --download-only "${wanted[@]}" >&2

    say "unpacking"
    # First the package that makes /bin and /lib links into /usr.
    packages=("$work"/apt/archives/*.deb)
    for package in "$work"/apt/archives/base-files_*.deb "${packages[@]}"; do
        dpkg-deb --extract "$package" "$work/tree"
    done
    finish_tree "$work/tree"
    say "unpacked ${#packages[@]} packages"
    # A tree appears under its name only when it is complete.
    rmdir "$TREE" 2>/dev/null || true
    mv "$work/tree" "$TREE"
    rm -rf "$work"
}

finish_tree() {
    local tree=$1 server=("$1"/usr/lib/rabbitmq/lib/rabbitmq_server-4.3.*)
    [[ -d ${server[0]} ]] || die "Debian $TREE_SUITE has no RabbitMQ 4.3 any more"
    mkdir -p "$tree"/{proc,dev,tmp,node,etc}
    chmod 1777 "$tree/tmp"
    cp /etc/hosts /etc/passwd /etc/group "$tree/etc/"
    echo "${server[0]##*-}" >"$tree/.complete"
}

# Writes an apt configuration that shares nothing with the system's but its way to the network.
# The mirror is the one this machine uses already, and so is the key that signs it.
configure_apt() {
    local state=$1 source uri entry keyring
    source=$(debian_source)
    if [[ -z $source ]]; then
        say "refreshing the package lists of this machine (apt-get update)"
        system_apt update
        source=$(debian_source)
    fi
    [[ -n $source ]] || die "no Debian archive in this machine's apt sources to take 4.3 from"
    uri=${source%% *} entry=${source##* }
    keyring=$(keyring_of "${entry%:*}")

    : >"$state/status"
    echo "deb ${keyring:+[signed-by=$keyring] }$uri $TREE_SUITE main" >"$state/sources.list"
    {
        # Proxies and timeouts carry over; further kinds of index would only be downloaded.
        apt-config dump | grep '^Acquire::' | grep -v '^Acquire::\(IndexTargets\|Languages\)'
        cat <<CONFIG
Acquire::Languages "none";
APT::Sandbox::User "root";
Dir::State "$state";
Dir::State::status "$state/status";
Dir::Cache "$state";
Dir::Etc "$state";
Dir::Etc::parts "none";
Dir::Etc::main "none";
Dir::Etc::sourcelist "sources.list";
Dir::Etc::sourceparts "none";
Dir::Etc::preferences "none";
Dir::Etc::preferencesparts "none";
CONFIG
    } >"$state/apt.conf"
    mkdir "$state/none"
}

# Prints the URI of the Debian archive and the file that names it.
debian_source() {
    # shellcheck disable=SC2016  # The variables are apt's.
    apt-get indextargets --format '$(REPO_URI) $(SOURCESENTRY)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p
}

keyring_of() {
    local keyring
    keyring=$(sed -n 's/^Signed-By:[[:space:]]*\(\/[^[:space:]]*\).*/\1/p; s/^deb .*signed-by=\([^] ]*\).*/\1/p' "$1" | sed -n 1p)
    [[ -n $keyring || ! -f /usr/share/keyrings/debian-archive-keyring.gpg ]] ||
        keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "$keyring"
}

# Prints how long it is since a value of EPOCHREALTIME, whose separator depends on the locale.
seconds_since() {
    local tenths=$(((${EPOCHREALTIME//[.,]/} - ${1//[.,]/}) / 100000))
    echo "$((tenths / 10)).$((tenths % 10))"
}

write_file() {
    local file=$1
    shift
    printf '%s\n' "$@" >"$file.new"
    mv "$file.new" "$file"
}

main "$@"
