# A proxy between client and server: three processes, two connections each.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
nginx_serves
cat >haproxy.cfg <<'CONF'
defaults
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend web
    mode http
    bind 127.0.0.1:8081
    default_backend web
backend web
    mode http
    server one 127.0.0.1:8080 check inter 100ms
frontend bytes
    mode tcp
    option splice-auto
    bind 127.0.0.1:8082
    default_backend bytes
backend bytes
    mode tcp
    option splice-auto
    server one 127.0.0.1:8080
CONF
start haproxy haproxy -db -f haproxy.cfg
proxy=$started
listens 8081 8082
fetches http://127.0.0.1:8081
fetches_a_part http://127.0.0.1:8081
fetches http://127.0.0.1:8082
# Each byte goes by two connections.
moves $((128 << 20))
stop $proxy USR1 0
stop $nginx QUIT 0
