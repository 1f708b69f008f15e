# A program that asks for SDP by its address family, too.
start server qperf
server=$started
listens 19765
for test in tcp_bw tcp_lat sdp_bw sdp_lat; do
    step "qperf $test"
    must by_sdp qperf -t 2 127.0.0.1 "$test" >"$test.log" 2>&1

done
# The server tells its port before it accepts there: who is faster is connected by TCP.
may_be_tcp refused
moves_by_tcp 0
moves $((256 << 20))
stop $server TERM 0 143
