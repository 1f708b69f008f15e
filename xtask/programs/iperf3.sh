# Blocking and not, one stream and eight, each way and both at once.
start server iperf3 -s -B 127.0.0.1
server=$started
listens 5201
for options in '-n 256M' '-n 256M -P 8' '-n 256M -R' '-n 64M -P 8 -R' '-t 2 --bidir' '-n 128M -Z' \
    '-n 16M -l 1K -N'; do
    step "iperf3 $options"
    # shellcheck disable=SC2086: several words.
    must by_sdp iperf3 -c 127.0.0.1 -J $options >client.log
    bytes=$(python3 -c '
import json
end = json.load(open("client.log"))["end"]
sums = [end[name]["bytes"] for name in ("sum_received", "sum_received_bidir_reverse") if name in end]
print(sum(sums))')
    [ "$bytes" -ge $((8 << 20)) ] || fail "only $bytes bytes with $options"
    moves "$bytes"
done
stop $server TERM 0 1
