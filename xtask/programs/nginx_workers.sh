# Four processes that accept from one listener: one has SDP, the others TCP, and whoever is busy,
# everything comes.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
export SDP_PRELOAD_WAIT=50
nginx_serves 4
may_be_tcp late
may_be_tcp refused
may_be_tcp address taken
step "wrk"
must by_sdp wrk -t2 -c40 -d2 http://127.0.0.1:8080/small/7 >wrk.log 2>&1
wrk_is_well wrk.log
# Some of it by either.
fact tcp 0
fetches http://127.0.0.1:8080
stop $nginx QUIT 0
