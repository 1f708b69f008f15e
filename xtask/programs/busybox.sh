# A child for each connection, whose bytes the parent relays.
. "$FOLDER/web.sh"
site
start httpd busybox httpd -f -p 127.0.0.1:8080 -h www
server=$started
listens 8080
fetches http://127.0.0.1:8080
step "busybox wget"
must by_sdp busybox wget -q -O got/large http://127.0.0.1:8080/large
same www/large got/large
moves $((64 << 20))
stop $server TERM 143
