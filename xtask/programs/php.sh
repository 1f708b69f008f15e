# PHP's own web server: one process, by poll.
. "$FOLDER/web.sh"
site
start php php -S 127.0.0.1:8080 -t www
server=$started
listens 8080
fetches http://127.0.0.1:8080
stop $server INT 0 130
