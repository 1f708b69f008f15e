# Requests, short and long, one at a time and many.
start redis redis-server --port 6379 --bind 127.0.0.1 --save ''
server=$started
listens 6379
# once NAME OPTION...: requests for a second of each.
once() {
    local name=$1
    shift
    by_sdp redis-benchmark --csv -t set,get "$@" >bench.csv || fail "redis-benchmark"
    while IFS=, read -r test rate _; do
        rate=${rate//\"/}
        [ "$test" = '"test"' ] || figure "$(tr -d '"' <<<"$test").$name" "$rate" requests/s
    done <bench.csv
}
once c1 -c 1 -n 20000
once c20 -c 20 -n 50000
once c20.1KiB -c 20 -n 50000 -d 1024
once c1.1MiB -c 1 -n 300 -d 1048576
once c20.1MiB -c 20 -n 600 -d 1048576
stop $server TERM 0
