# Short messages there and back, and as many as go, each with its number.
start server sockperf server --tcp -i 127.0.0.1 -p 11111
server=$started
listens 11111
step "ping-pong"
must by_sdp sockperf ping-pong --tcp -i 127.0.0.1 -p 11111 -t 2 -m 1000 --data-integrity >ping.log 2>&1
grep -q 'Summary: Latency' ping.log || fail "no summary"
step "throughput"
must by_sdp sockperf throughput --tcp -i 127.0.0.1 -p 11111 -t 2 -m 16384 >throughput.log 2>&1
grep -q 'Summary: BandWidth' throughput.log || fail "no summary"
moves $((32 << 20))
stop $server INT 0
