# Values large and small, pipelines, publishing, and a second server that follows the first.
start redis redis-server --port 6379 --bind 127.0.0.1 --save '' --enable-debug-command local
server=$started
listens 6379
step "one large value"
data value $((64 << 20))
must by_sdp redis-cli -x set large <value >reply
[ "$(cat reply)" = OK ] || fail "SET said $(cat reply)"
held=$(descriptors "$server")
by_sdp redis-cli --raw get large | head -c $((64 << 20)) >got
same value got
moves $((128 << 20))

step "redis-benchmark"
must by_sdp redis-benchmark -q -c 20 -P 16 -n 20000 -t set,get,lpush,lrange_100 >small.log
must by_sdp redis-benchmark -q -c 4 -d 1048576 -n 100 -t set,get >large.log
! grep -i error small.log large.log || fail "redis-benchmark met an error"
moves $((200 << 20))

step "publish and subscribe"
start heard redis-cli subscribe news
subscriber=$started
listeners() { [ "$(by_sdp redis-cli pubsub numsub news | tail -n 1)" = 1 ]; }
await "the subscriber" listeners
seq -f 'publish news message-%g' 1000 | must by_sdp redis-cli >/dev/null
heard_all() { [ "$(grep -c ^message- heard.log)" = 1000 ]; }
await "1000 messages" heard_all
stop $subscriber TERM 0 143

step "a second server follows the first"
mkdir follower
start follower redis-server --port 6380 --bind 127.0.0.1 --save '' --dir follower \
    --enable-debug-command local --replicaof 127.0.0.1 6379
follower=$started
listens 6380
in_step() { by_sdp redis-cli -p 6380 info replication | grep -q '^master_link_status:up'; }
await "the second server to be in step" in_step
must by_sdp redis-cli set last word >/dev/null
follows() { [ "$(by_sdp redis-cli -p 6380 get last)" = word ]; }
await "the last word" follows
[ "$(by_sdp redis-cli debug digest)" = "$(by_sdp redis-cli -p 6380 debug digest)" ] ||
    fail "the servers hold different data"
moves $((64 << 20))
stop $follower TERM 0
# What waits for children stays: it has made one to write its data.
has_no_more $server $((held + 1))
stop $server TERM 0
