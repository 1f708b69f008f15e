# nc and ncat.
data sent $((32 << 20))
step "nc"
start server nc -l 127.0.0.1 7000
server=$started
listens 7000
must by_sdp nc -N 127.0.0.1 7000 <sent
ends $server 0
same sent server.log
moves $((32 << 20))
step "ncat"
start server ncat -l 127.0.0.1 7001 --recv-only
server=$started
listens 7001
must by_sdp ncat --send-only 127.0.0.1 7001 <sent
ends $server 0
same sent server.log
moves $((32 << 20))
