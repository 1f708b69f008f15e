# A broker: messages from one connection to many.
printf 'listener 1883 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\nsys_interval 1\n' >mosquitto.conf
start broker mosquitto -c mosquitto.conf
server=$started
listens 1883
data message $((1 << 20))
for at in 1 2 3; do
    by_sdp mosquitto_sub -h 127.0.0.1 -t large -C 8 -N -q 1 >"got$at" 2>"sub$at.log" &
    subscribers[at]=$!
done
# It says who has subscribed to what.
all_subscribed() { [ "$(by_sdp mosquitto_sub -h 127.0.0.1 -t '$SYS/broker/subscriptions/count' -C 1 -W 20)" -ge 3 ]; }
await "three subscribers" all_subscribed
for ((at = 0; at < 8; at++)); do
    must by_sdp mosquitto_pub -h 127.0.0.1 -t large -q 1 -f message
    cat message
done >all
for at in 1 2 3; do
    ends "${subscribers[at]}" 0
    same all "got$at"
done
moves $((32 << 20))
stop $server TERM 0
