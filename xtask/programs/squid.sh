# A proxy that keeps what it has fetched.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
AS=(setpriv --reuid=proxy --regid=proxy --clear-groups)
chmod 777 .
nginx_serves
chmod 777 got
cat >squid.conf <<CONF
http_port 127.0.0.1:3128
http_access allow all
cache_mem 64 MB
pid_filename none
cache_log $PWD/squid.cache
access_log none
cache_store_log none
shutdown_lifetime 1 seconds
pinger_enable off
coredump_dir $PWD
CONF
start squid squid -N -f "$PWD/squid.conf"
proxy=$started
listens 3128
fetches http://127.0.0.1:8080 -x http://127.0.0.1:3128
stop $proxy TERM 0
stop $nginx QUIT 0
