# What it costs to move a MiB, or a small message there and back: instructions of the programs and of
# the kernel, which is the device too, as the emulator's plugin counts them. Each measurement runs
# with few units and with many, in turns; the difference is what the units cost.
work=/run/cost
mkdir -p $work
cp "$SDP" $work/sdp
cd $work
# Nothing of another machine is waited for while it counts.
trap 'cp said.txt units.txt /mnt/share' EXIT

# What the kernel takes down behind a program's back belongs to that program's run.
settle() {
    sleep 0.05
}

# measure NAME UNITS COMMAND...
measure() {
    echo "$1 $2" >>units.txt
    shift 2
    settle
    "$MARK"
    "$@" >>said.txt 2>&1 || fail "$* ended with $?: $(tail -n 3 said.txt)"
    settle
    "$MARK"
}

# pair NAME UNITS PROGRAM OPTION... -- SERVER'S -- CLIENT'S: a program and itself as its server.
pair() {
    local name=$1 units=$2 side=() both=() mine=()
    shift 2
    for word in "$@"; do
        if [ "$word" = -- ]; then
            [ ${#both[@]} -gt 0 ] && mine=("${side[@]}") || both=("${side[@]}")
            side=()
        else
            side+=("$word")
        fi
    done
    "${both[@]}" "${mine[@]}" >>said.txt 2>&1 &
    server=$!
    rdma_listens
    measure "$name" "$units" client "${both[@]}" "${side[@]}"
}

client() {
    "$@"
    # It ends with its client, with an error or without.
    wait "$server" || true
}

rsockets() {
    pair "$1" "$2" rstream -T b -S "$3" -I "$4" -C "$5" -- -b "$SDP_VM_ADDR" -- -s "$SDP_VM_ADDR"
}

perftest() {
    local name=$1 units=$2
    shift 2
    pair "$name" "$units" "$@" -d "$SDP_VM_DEVICE" -F -R -n "$units" -- -- "$SDP_VM_ADDR"
}

ours() {
    measure "$1" "$2" ./sdp perf "$3" --connect "$SDP_VM_ADDR:7471" --provider rdma --mode "$4" \
        --size "$5" --bytes "$6" --json report.json "${@:7}"
}

# What comes first finds no program in memory yet, which is nothing that a unit costs: each kind runs
# once before it is measured. A program that starts and ends costs the kernel up to a million
# instructions more or less, whatever it does: many units are so many that this is little beside them.
./sdp perf server --listen "$SDP_VM_ADDR:7471" >server.txt 2>&1 &
server=$!
within 20 grep -q : server.txt || fail "the server does not listen"
for n in 1 2 36 2 36 2 36 2 36; do
    ours sdp.bcopy.1M $((2 * n)) bw bcopy 1M $((2 * n))M
    ours sdp.zcopy.1M $((3 * n)) bw zcopy 1M $((3 * n))M
    ours sdp.zcopy.registered.1M $((3 * n)) bw zcopy 1M $((3 * n))M --buffers registered
    ours sdp.auto.64 $((200 * n)) lat auto 64 $((64 * 200 * n))
done
# These fall into more patterns than the others, of which one is compared: they run twice as often.
for n in 1 2 36 2 36 2 36 2 36 2 36 2 36 2 36 2 36; do
    ours sdp.zcopy.64K $((2 * n)) bw zcopy 64K $((2 * n))M
done
kill $server
wait $server || true
# What other programs cost is counted in one boot: nothing is promised of it.
[ ! -e /mnt/share/ours-alone ] || exit 0
for n in 0 4 12; do
    # A transfer of rstream is one there and one back; it takes plain numbers of bytes.
    rsockets rstream.1M $((2 * n)) 1048576 1 $((n + 1))
    rsockets rstream.64K $((2 * n)) 65536 1 $((16 * n + 1))
    rsockets rstream.64 $((50 * n)) 64 $((50 * n + 1)) 1
    perftest ib_read_bw.1M $((n + 5)) ib_read_bw -s 1048576
    perftest ib_write_bw.1M $((n + 5)) ib_write_bw -s 1048576
done
