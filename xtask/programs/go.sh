# A program that makes its system calls itself is not reached: it speaks TCP, and gets what it asks for.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
nginx_serves
must by_sdp hey -n 40 -c 4 http://127.0.0.1:8080/large >hey.log 2>&1
grep -q '\[200\].*40 responses' hey.log || fail "not every request was answered"
moves_by_tcp $((40 * 64 << 20))
stop $nginx QUIT 0
