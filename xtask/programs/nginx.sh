# A process that accepts for a master: files by sendfile, kept connections, a reload under load.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
nginx_serves
fetches http://127.0.0.1:8080
fetches_a_part http://127.0.0.1:8080
step "wrk"
must by_sdp wrk -t2 -c20 -d2 http://127.0.0.1:8080/small/7 >wrk.log 2>&1
wrk_is_well wrk.log
must by_sdp wrk -t2 -c4 -d2 http://127.0.0.1:8080/large >wrk.log 2>&1
wrk_is_well wrk.log
step "a reload"
# Its new process listens by SDP when the old one has let go.
may_be_tcp refused
may_be_tcp address taken
by_sdp curl -sS --fail --limit-rate 20M -o got/slow http://127.0.0.1:8080/large &
slow=$!
began() { [ -s got/slow ]; }
await "a slow transfer" began
kill -HUP $nginx
reloaded() { [ "$(pgrep -P $nginx | wc -l)" = 2 ]; }
await "a second worker" reloaded
must by_sdp curl -sS --fail -o got/after http://127.0.0.1:8080/small/1
same www/small/1 got/after
ends $slow 0
same www/large got/slow
moves $((64 << 20))
stop $nginx QUIT 0
