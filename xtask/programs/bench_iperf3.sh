# One stream and eight, each way.
start server iperf3 -s -B 127.0.0.1
server=$started
listens 5201
# once NAME OPTION...
once() {
    local name=$1
    shift
    by_sdp iperf3 -c 127.0.0.1 -t 2 -J "$@" >client || fail "iperf3 $*"
    figure "$name" "$(python3 -c '
import json
print(json.load(open("client"))["end"]["sum_received"]["bits_per_second"] / 1e9)')" Gb/s
}
once one
once one.back -R
once eight -P 8
stop $server TERM 0 1
