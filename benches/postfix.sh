#!/usr/bin/env bash
# What a delivery agent costs a Postfix: the same queue drained through Postfix's own lmtp(8) and through
# lastmile-lmtp, in turns.
#
#   benches/postfix.sh                    5,000 messages, 3 rounds, a server that answers at once and one after 20 ms
#   benches/postfix.sh -n 1000 -r 1       fewer messages, fewer rounds
#   benches/postfix.sh -s stock           one side only: stock or ours
#   benches/postfix.sh -d /var/tmp        the queue on that disk (default: in memory, /dev/shm)
#   benches/postfix.sh -p 8192            octets of a message (default 2048)
#
# It prints, for each side, the median of all rounds: messages a second; seconds of CPU time of all client processes,
# those that have ended included (a control group counts them); the highest sums of their resident memory (RSS, which
# counts shared pages in every process) and of their share of memory (PSS), and how many there were at a time.
#
# A private Postfix below a temporary directory is used, loopback only; all it has started is stopped at the end. Needs
# root, Postfix 3.4 or later, control groups, and cargo unless LASTMILE names the program.
set -euo pipefail

count=5000 rounds=3 sides='stock ours' parent=/dev/shm size=2048
while getopts n:r:s:d:p: option; do
    case $option in
        n) count=$OPTARG ;;
        r) rounds=$OPTARG ;;
        s) sides=$OPTARG ;;
        d) parent=$OPTARG ;;
        p) size=$OPTARG ;;
        *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
    esac
done

fail() { echo "benches/postfix.sh: $*" >&2; exit 1; }

[[ $(id -u) == 0 ]] || fail "only root can start a Postfix"
[[ -x /usr/sbin/postconf && -x /usr/sbin/smtp-source ]] || fail "Postfix is not installed (apt-get install postfix)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${LASTMILE:-} ]]; then
    cargo build --release --locked --quiet
    LASTMILE=$PWD/target/release/lastmile
fi
daemons=$(/usr/sbin/postconf -dh daemon_directory)
place=$(mktemp -d "$parent/lastmile-bench-XXXXXX")
chmod 755 "$place"

# A control group of our own: of the unified hierarchy, or of the older one that counts CPU time.
group=''
while read -r _ mount kind options _; do
    [[ $kind == cgroup2 || ($kind == cgroup && $options == *cpuacct*) ]] || continue
    if mkdir "$mount/lastmile-bench-$$" 2>/dev/null; then
        group=$mount/lastmile-bench-$$
        if [[ -e $group/cpu.stat || -e $group/cpuacct.usage ]]; then break; fi
        rmdir "$group"
        group=''
    fi
done </proc/mounts
[[ -n $group ]] || { rm -rf "$place"; fail "no control group can be made, so nobody counts the CPU time of ended processes"; }

master=''
sink=''
stop_master() {
    [[ -n $master ]] || return 0
    kill "$master" 2>/dev/null || true
    wait "$master" 2>/dev/null || true
    master=''
    for _ in {1..100}; do
        [[ -n $(<"$group/cgroup.procs") ]] || return 0
        sleep 0.1
    done
    # What is left now does not end by itself.
    while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done <"$group/cgroup.procs"
    sleep 0.5
}
stop_sink() {
    [[ -n $sink ]] || return 0
    kill "$sink" 2>/dev/null || true
    wait "$sink" 2>/dev/null || true
    sink=''
}
finish() {
    stop_master
    stop_sink
    rmdir "$group" || true
    rm -rf "$place"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Microseconds of CPU time that the group has used.
cpu_time() {
    if [[ -e $group/cpu.stat ]]; then
        awk '$1 == "usage_usec" { print $2 }' "$group/cpu.stat"
    else
        echo $(($(<"$group/cpuacct.usage") / 1000))
    fi
}

now() { echo "${EPOCHREALTIME/./}"; }

make_instance() {
    local name
    mkdir -p "$place"/{conf,queue,data,bin}
    for name in active bounce corrupt defer deferred flush hold incoming private saved trace; do
        mkdir -m 700 "$place/queue/$name"
        chown postfix "$place/queue/$name"
    done
    chown postfix "$place/data"
    chmod 700 "$place/data"
    mkdir "$place/queue/pid"
    mkdir -m 1730 "$place/queue/maildrop"
    mkdir -m 2710 "$place/queue/public"
    chown postfix:postdrop "$place/queue/maildrop" "$place/queue/public"
    chmod 1730 "$place/queue/maildrop"
    chmod 2710 "$place/queue/public"
    # Each client enters the group, then becomes itself: the shell's own start is not counted.
    ln -s "$LASTMILE" "$place/bin/lastmile-lmtp"
    printf '#!/bin/sh\necho $$ >%s/cgroup.procs\nexec %s/lmtp "$@"\n' "$group" "$daemons" >"$place/bin/stock"
    printf '#!/bin/sh\necho $$ >%s/cgroup.procs\nexec %s/bin/lastmile-lmtp "$@"\n' "$group" "$place" >"$place/bin/ours"
    chmod 755 "$place"/bin/stock "$place"/bin/ours
    cat >"$place/conf/main.cf" <<END
compatibility_level = 3.6
queue_directory = $place/queue
data_directory = $place/data
maillog_file = $place/log
maillog_file_prefixes = $place
myhostname = mx.test.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
in_flow_delay = 0
default_transport = carry:unix:$place/sink.sock
END
}

# master_cf SIDE: with `none`, mail is taken and stays where it is.
master_cf() {
    cat <<END
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
END
    case $1 in
        none) echo "127.0.0.1:$port inet n - n - - smtpd" ;;
        stock) echo "carry unix - - n - - ../../../..$place/bin/stock" ;;
        ours) echo "carry unix - - n - 1 ../../../..$place/bin/ours" ;;
    esac
    [[ $1 == none ]] || echo "qmgr unix n - n 300 1 qmgr"
}

start_master() {
    master_cf "$1" >"$place/conf/master.cf"
    : >"$place/log"
    "$daemons/master" -c "$place/conf" -s </dev/null >/dev/null 2>&1 &
    master=$!
    for _ in {1..300}; do
        if grep -q 'daemon started' "$place/log"; then return; fi
        kill -0 "$master" 2>/dev/null || fail "Postfix did not start"
        sleep 0.1
    done
    fail "Postfix did not start within 30 s"
}

free_port() {
    local candidate
    for _ in {1..100}; do
        candidate=$((20000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || { echo $candidate; return; }
    done
    fail "no free port"
}

# Takes the messages in once; every run begins with a copy of their files.
fill() {
    port=$(free_port)
    start_master none
    /usr/sbin/smtp-source -d -s 8 -l "$size" -m "$count" -N -f sender@sender.example -t user@test.example \
        "127.0.0.1:$port"
    stop_master
    [[ $(find "$place/queue/incoming" -type f | wc -l) == "$count" ]] || fail "not all messages were queued"
    mv "$place/queue/incoming" "$place/template"
}

start_sink() {
    local delay=$1 arguments=()
    rm -f "$place/sink.sock"
    if [[ $delay != 0 ]]; then
        echo "data-done delay ${delay}ms" >"$place/script"
        arguments=(--script "$place/script")
    fi
    "$LASTMILE" sink --lmtp --discard --listen "unix:$place/sink.sock" "${arguments[@]}" </dev/null >/dev/null 2>&1 &
    sink=$!
    for _ in {1..100}; do
        if [[ -S $place/sink.sock ]]; then chmod 666 "$place/sink.sock"; return; fi
        sleep 0.1
    done
    fail "the sink did not start"
}

# Sums of RSS and PSS in KB, and the number of processes, of the group.
memory() {
    local files
    files=$(sed 's|.*|/proc/&/smaps_rollup|' "$group/cgroup.procs" 2>/dev/null)
    [[ -n $files ]] || { echo 0 0 0; return; }
    # shellcheck disable=SC2086  # one word a file; one that has ended is no failure
    awk '/^Rss:/ { rss += $2; n++ } /^Pss:/ { pss += $2 } END { print rss + 0, pss + 0, n + 0 }' $files 2>/dev/null
}

# run SIDE: one line of messages/s, CPU seconds, RSS, PSS, processes.
run() {
    local start end before rss=0 pss=0 processes=0 now_rss now_pss now_processes sent
    rm -rf "$place"/queue/{incoming,active,deferred,defer,bounce}
    cp -a "$place/template" "$place/queue/incoming"
    mkdir -m 700 "$place"/queue/{active,deferred,defer,bounce}
    chown postfix "$place"/queue/{active,deferred,defer,bounce}
    before=$(cpu_time)
    start=$(now)
    start_master "$1"
    while [[ -n $(find "$place/queue/incoming" "$place/queue/active" -type f -print -quit) ]]; do
        # A process that ends while it is looked at spoils a look, not the measurement.
        read -r now_rss now_pss now_processes < <(memory) || { sleep 0.05; continue; }
        if ((now_rss > rss)); then rss=$now_rss; fi
        if ((now_pss > pss)); then pss=$now_pss; fi
        if ((now_processes > processes)); then processes=$now_processes; fi
        if grep -q 'bad command startup' "$place/log"; then fail "$1 does not start: $(grep warning "$place/log" | tail -1)"; fi
        (($(now) - start < 600000000)) || fail "$1: not done within 10 minutes"
        sleep 0.05
    done
    end=$(now)
    stop_master
    sent=$(grep -c 'status=sent' "$place/log" || true)
    [[ $sent == "$count" ]] || fail "$1: $sent of $count messages were sent; $(tail -3 "$place/log")"
    awk -v n="$count" -v t=$((end - start)) -v cpu=$(($(cpu_time) - before)) -v rss="$rss" -v pss="$pss" -v p="$processes" \
        'BEGIN { printf "%.0f %.2f %.1f %.1f %d\n", n * 1e6 / t, cpu / 1e6, rss / 1024, pss / 1024, p }'
}

# Medians, column by column.
medians() {
    local file=$1 column
    for column in 1 2 3 4 5; do
        sort -n -k "$column,$column" "$file" | awk -v c="$column" '{ v[NR] = $c } END { printf "%s ", v[int((NR + 1) / 2)] }'
    done
    echo
}

make_instance
fill
printf '%s messages of %s octets, %s rounds, queue in %s\n' "$count" "$size" "$rounds" "$parent"
for delay in 0 20; do
    start_sink "$delay"
    if ((delay)); then echo "a server that takes $delay ms for a message:"; else echo "a server that answers at once:"; fi
    for side in $sides; do : >"$place/$side.results"; done
    for ((round = 0; round < rounds; round++)); do
        for side in $sides; do run "$side" >>"$place/$side.results"; done
    done
    printf '  %-6s %12s %12s %12s %12s %10s\n' '' 'messages/s' 'CPU s' 'RSS MB' 'PSS MB' 'processes'
    for side in $sides; do
        read -r rate cpu rss pss processes < <(medians "$place/$side.results")
        printf '  %-6s %12s %12s %12s %12s %10s\n' "$side" "$rate" "$cpu" "$rss" "$pss" "$processes"
    done
    stop_sink
done
