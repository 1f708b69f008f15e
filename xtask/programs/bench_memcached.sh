# Threads that store and load.
start memcached memcached -u root -l 127.0.0.1 -p 11211 -t 2 -m 512 -I 8m
server=$started
listens 11211
began=${EPOCHREALTIME/./}
by_sdp python3 "$FOLDER/memcached.py" 11211 || fail "memcached.py"
ended=${EPOCHREALTIME/./}
figure values "$(awk -v us=$((ended - began)) 'BEGIN { print 8 * 24 * 2 * 1.048576 / (us / 1e6) }')" MB/s
stop $server TERM 0
