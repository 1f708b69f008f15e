# Files short and long.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
nginx_serves
by_sdp wrk -t1 -c16 -d3 http://127.0.0.1:8080/small/7 >small || fail "wrk"
by_sdp wrk -t1 -c4 -d3 http://127.0.0.1:8080/large >large || fail "wrk"
figure small "$(awk '/^Requests\/sec/ { print $2 }' small)" requests/s
figure large "$(awk '/^Requests\/sec/ { print $2 * 64 * 1.048576 }' large)" MB/s
stop $nginx QUIT 0
