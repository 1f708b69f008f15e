# libuv: one set of descriptors by edges and levels, streams that are paused.
data sent $((64 << 20))
start server node "$FOLDER/node.js" serve 8080
server=$started
listens 8080
must by_sdp node "$FOLDER/node.js" call 8080 sent got >client.log 2>&1
same sent got
moves $((128 << 20))
stop $server TERM 0
