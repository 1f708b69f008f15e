# One process, one set of descriptors.
. "$FOLDER/web.sh"
site
cat >lighttpd.conf <<CONF
server.document-root = "$PWD/www"
server.bind = "127.0.0.1"
server.port = 8080
server.range-requests = "enable"
CONF
start lighttpd lighttpd -D -f lighttpd.conf
server=$started
listens 8080
fetches http://127.0.0.1:8080
fetches_a_part http://127.0.0.1:8080
stop $server INT 0
