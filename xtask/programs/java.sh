# The Java machine: its HTTP server and client, plain sockets; and SDP as it asks for it itself.
export JAVA_TOOL_OPTIONS="-XX:-UsePerfData -XX:TieredStopAtLevel=1"
data sent $((32 << 20))
must javac -d . "$FOLDER/Echo.java" >javac.log 2>&1
echo 'bind * *' >sdp.conf
echo 'connect 127.0.0.1 1024-*' >>sdp.conf
for options in '' '-Djava.net.preferIPv4Stack=true -Dcom.sun.sdp.conf=sdp.conf'; do
    step "java $options"
    # shellcheck disable=SC2086: several words.
    start server java $options Echo serve 8080 7000
    server=$started
    listens 8080 7000
    # shellcheck disable=SC2086
    must by_sdp java $options Echo call 8080 7000 sent got >client.log 2>&1
    same sent got
    # By plain sockets, channels and HTTP, there and back.
    moves $((192 << 20))
    stop $server TERM 143
done
