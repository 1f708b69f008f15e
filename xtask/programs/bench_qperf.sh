# Throughput and round trips of blocking calls.
start server qperf
server=$started
listens 19765
for test in tcp_bw tcp_lat; do
    by_sdp qperf -t 2 -uu 127.0.0.1 "$test" >"$test" || fail "qperf $test"
done
# bytes/s, and seconds one way.
figure bandwidth "$(awk '/bw *=/ { print $3 / 1e6 }' tcp_bw)" MB/s
figure round_trips "$(awk '/latency *=/ { print 0.5 / $3 }' tcp_lat)" /s
stop $server TERM 0 143
