# What cases say. What they find goes to files in OUT, which cargo xtask programs reads.

# Bounds any wait for something that takes a moment.
PATIENCE=60
# A case may run its programs as another user: the words before each command.
AS=()

fact() {
    echo "$*" >>"$OUT/facts"
}

# fail WHY...: the end, with what the programs said.
fail() {
    {
        echo "$*"
        for log in *.log; do
            [ -s "$log" ] && echo "--- $log" && tail -n 20 "$log"
        done
    } >&9
    exit 1
}

# step WHAT...: what is being done, for the case that it does not end.
step() {
    echo "$*" >"$OUT/step"
}

# moves BYTES: at least so many more have gone by SDP now.
moves() {
    fact moved "$1"
}

# moves_by_tcp BYTES: so many have gone by TCP, as they were to.
moves_by_tcp() {
    fact tcp "$1"
}

# may_be_tcp REASON: what connections of this case may be TCP's for; else none may.
may_be_tcp() {
    fact may_be_tcp "$*"
}

# figure NAME VALUE UNIT: of a measurement.
figure() {
    fact figure "$*"
}

# by_sdp COMMAND...: with its sockets speaking SDP. In the comparison with TCP as it is.
by_sdp() {
    if [ "$MODE" = tcp ]; then
        ${AS[@]+"${AS[@]}"} "$@"
    else
        ${AS[@]+"${AS[@]}"} "$SDP" run "$@"
    fi
}

# start NAME COMMAND...: the same beside us; `started` is its process, NAME.log what it says.
start() {
    local log=$1.log
    shift
    if [ "$MODE" = tcp ]; then
        start_plain "${log%.log}" "$@"
        return
    fi
    start_plain "${log%.log}" "$SDP" run "$@"
}

# start_plain NAME COMMAND...: a program that knows only TCP.
start_plain() {
    local log=$1.log
    shift
    (exec ${AS[@]+"${AS[@]}"} "$@") >"$log" 2>&1 </dev/null &
    started=$!
}

# await WHAT COMMAND...: until the command succeeds.
await() {
    local what=$1 end=$((SECONDS + PATIENCE))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "in vain waited for $what"
        sleep 0.02
    done
}

# listens PORT...: until each is listened on, by SDP too where that is wanted.
listens() {
    local port
    for port; do
        await "a listener on port $port" is_listened_on "$port"
    done
}

is_listened_on() {
    kill -0 "$started" || fail "the server has ended"
    # A name of the provider's (sdp-verbs/src/host/names.rs).
    if [ "$MODE" = sdp ] && ! [ "${PLAIN_SERVER:-}" ]; then
        grep -q "@sdp-host/1/[^ ]*/$1/[0-9]*$" /proc/net/unix
    else
        grep -qi ":$(printf %04X "$1") [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6
    fi
}

# wrk_is_well LOG: every request was answered. A read that finds nothing behind an event, which happens
# (libsdp-preload.7), is a read error to wrk, after which it connects again.
wrk_is_well() {
    ! grep -q 'Non-2xx' "$1" || fail "wrk was refused"
    ! grep 'Socket errors' "$1" | grep -v 'connect 0, read [0-9]*, write 0, timeout 0' >&9 || fail "wrk met errors"
}

# data FILE BYTES: bytes that nobody guesses.
data() {
    head -c "$2" /dev/urandom >"$1"
}

# same A B: two files have the same bytes.
same() {
    [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ] ||
        fail "$1 ($(wc -c <"$1") bytes) is not $2 ($(wc -c <"$2") bytes)"
}

# must COMMAND...: it succeeds.
must() {
    "$@" || fail "exit status $? of: $*"
}

# ends PROCESS STATUS...: it has ended by itself, with one of these.
ends() {
    local process=$1 status=0 wanted
    shift
    wait "$process" || status=$?
    for wanted; do
        [ "$status" != "$wanted" ] || return 0
    done
    fail "process $process ended with $status"
}

# stop PROCESS SIGNAL STATUS...: by that signal it ends well.
stop() {
    local process=$1 signal=$2
    shift 2
    step "process $process is to end by $signal"
    kill "-$signal" "$process"
    ends "$process" "$@"
}

# descriptors PROCESS: how many it has.
descriptors() {
    set -- /proc/"$1"/fd/*
    echo $#
}

# has_no_more PROCESS COUNT: it comes back to so many descriptors at most.
has_no_more() {
    await "process $1 to have $2 descriptors, of which it has $(descriptors "$1")" holds_at_most "$@"
}

holds_at_most() {
    [ "$(descriptors "$1")" -le "$2" ]
}

# at_end STATUS: what the case has left.
at_end() {
    local end=$((SECONDS + 5))
    trap - EXIT
    sed -n 's/^ *lo: *\([0-9]*\) .*/\1/p' /proc/net/dev >"$OUT/lo"
    cp report "$OUT/report"
    until alone; do
        if [ $SECONDS -ge $end ]; then
            echo "$others" >"$OUT/left"
            break
        fi
        sleep 0.05
    done
    ls -A /dev/shm >"$OUT/shm"
    times >"$OUT/times"
    exit "$1"
}

# Whether no process of the case is left; `others` names those that are. Makes none itself.
alone() {
    local folder name
    others=
    for folder in /proc/[0-9]*; do
        [ "$folder" != /proc/1 ] || continue
        { read -r name <"$folder/comm"; } 2>/dev/null && others+="$name "
    done
    [ -z "$others" ]
}
