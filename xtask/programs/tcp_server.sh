# Clients by SDP, servers that know only TCP: everything goes by TCP, and why is said.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
PLAIN_SERVER=1
may_be_tcp refused
nginx_serves 1 start_plain
start_plain redis redis-server --port 6379 --bind 127.0.0.1 --save ''
redis=$started
listens 6379
must by_sdp curl -sS --fail -o got/large http://127.0.0.1:8080/large
same www/large got/large
must by_sdp redis-cli -x set large <www/large >/dev/null
by_sdp redis-cli --raw get large | head -c $((64 << 20)) >got/value
same www/large got/value
moves_by_tcp $((192 << 20))
stop $redis TERM 0
stop $nginx QUIT 0
