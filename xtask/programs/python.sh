# The servers of Python's library, as processes of their own.
. "$FOLDER/web.sh"
site
step "http.server"
start http python3 -m http.server 8080 --bind 127.0.0.1 --directory www
server=$started
listens 8080
fetches http://127.0.0.1:8080
stop $server INT 0
for kind in asyncio threads forks select; do
    step "a server by $kind"
    start echo python3 "$FOLDER/python.py" serve $kind 7000
    server=$started
    listens 7000
    must by_sdp python3 "$FOLDER/python.py" call 7000 >client.log 2>&1
    # 20 connections of 2 MiB, there and back.
    moves $((80 << 20))
    stop $server INT 0
done
