# Ours beside rsockets and the programs of perftest, on the same device and in turns. What each
# program says of itself goes to a file of its own for every round.
out=/mnt/share/said
work=/run/performance
mkdir -p $out $work
cp "$SDP" $work/sdp
cd $work

# beside FILE SERVER'S -- CLIENT'S: a program and its server.
beside() {
    local file=$1 server=()
    shift
    while [ "$1" != -- ]; do
        server+=("$1")
        shift
    done
    shift
    "${server[@]}" >server.txt 2>&1 &
    rdma_listens
    "$@" >"$file" 2>&1 || fail "$* ended with $?: $(tail -n 3 "$file")"
    # It ends with its client, with an error or without.
    wait $! || true
}

rsockets() {
    local run=(rstream -T b -S "$2" -I "$3" -C "$4")
    beside "$out/rstream.$1" "${run[@]}" -b "$SDP_VM_ADDR" -- "${run[@]}" -s "$SDP_VM_ADDR"
}

perftest() {
    local run=("$1" -d "$SDP_VM_DEVICE" -F -R -s 1048576 -n 32)
    beside "$out/$1.$2" "${run[@]}" -- "${run[@]}" "$SDP_VM_ADDR"
}

ours() {
    ./sdp perf "$2" --provider rdma --connect "$SDP_VM_ADDR:7471" --mode "$3" --size "$4" \
        --bytes "$5" --json "$out/$1" "${@:6}" >ours.txt 2>&1 || fail "$1: $(tail -n 3 ours.txt)"
}

for round in 0 1 2 3 4 5; do
    # The first round only brings programs into memory: the next one writes over its files.
    round=$((round > 0 ? round : 1))
    rsockets "64K.$round" 65536 1 256
    rsockets "1M.$round" 1048576 1 16
    rsockets "64.$round" 64 500 1
    perftest ib_read_bw "$round"
    perftest ib_write_bw "$round"
    "$RSETUP" "$SDP_VM_ADDR" 20 >"$out/rsetup.$round" || fail "rsetup ended with $?"
    ./sdp perf server --listen "$SDP_VM_ADDR:7471" >server.txt 2>&1 &
    server=$!
    within 20 grep -q : server.txt || fail "the server does not listen"
    ours "sdp.64K.$round" bw auto 64K 16M
    ours "sdp.1M.$round" bw auto 1M 16M
    ours "sdp.registered.$round" bw auto 1M 16M --buffers registered
    ours "sdp.64.$round" lat auto 64 32000
    # A stream is read. A conversation in large messages is written: each waits for the next.
    ours "sdp.read.$round" bw zcopy 1M 16M
    ours "sdp.write.$round" lat zcopy 1M 16M
    kill $server
    wait $server || true
    ./sdp perf conn --provider rdma --address "$SDP_VM_ADDR" --open 1 --cycles 200 --parallel 1 \
        --json "$out/sdp.conn.$round" >ours.txt 2>&1 || fail "conn: $(tail -n 3 ours.txt)"
done
