# Threads of the server that hand connections to each other, and of the client.
start memcached memcached -u root -l 127.0.0.1 -p 11211 -t 4 -m 512 -I 8m
server=$started
listens 11211
must by_sdp python3 "$FOLDER/memcached.py" 11211 >client.log 2>&1
# 8 threads, 24 values of 1 MiB, there and back.
moves $((8 * 24 * 2 << 20))
stop $server TERM 0
