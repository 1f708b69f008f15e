# A child for each connection, and a program that a child becomes.
start server socat TCP-LISTEN:7000,bind=127.0.0.1,fork,reuseaddr EXEC:cat
server=$started
listens 7000
data sent $((16 << 20))
for at in 1 2 3 4 5 6; do
    by_sdp socat -t 60 - TCP:127.0.0.1:7000 <sent >"got$at" &
    clients[at]=$!
done
for at in 1 2 3 4 5 6; do
    ends "${clients[at]}" 0
    same sent "got$at"
    moves $((32 << 20))
done
stop $server TERM 143
step "one connection"
start server socat -u TCP-LISTEN:7001,bind=127.0.0.1 CREATE:got
server=$started
listens 7001
must by_sdp socat -u -b 1048576 FILE:sent TCP:127.0.0.1:7001
ends $server 0
same sent got
moves $((16 << 20))
