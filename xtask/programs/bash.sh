# A shell keeps a connection, which it reads itself, and the programs that it starts read and write. (What
# it writes itself goes through a stream of the C library whose descriptor it has replaced.)
start server socat TCP-LISTEN:7000,bind=127.0.0.1,fork,reuseaddr EXEC:cat
server=$started
listens 7000
data sent $((4 << 20))
cat >client.sh <<'CLIENT'
exec 3<>/dev/tcp/127.0.0.1/7000
env echo "a word from the shell" >&3
read -r word <&3
[ "$word" = "a word from the shell" ] || exit 2
cat <sent >&3 &
head -c "$(wc -c <sent)" <&3 >got || exit 3
wait $! || exit 4
env echo "another word" >&3
read -r word <&3
[ "$word" = "another word" ] || exit 5
CLIENT
must by_sdp bash client.sh
same sent got
moves $((8 << 20))
stop $server TERM 143
