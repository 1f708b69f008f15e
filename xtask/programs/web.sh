# What the cases of web servers have in common.

# site: a folder www of one large file and 300 small ones.
site() {
    local at
    mkdir -p www/small got
    data www/large $((64 << 20))
    for ((at = 0; at < 300; at++)); do
        echo "file $at of $RANDOM" >"www/small/$at"
    done
    chmod -R a+rX www
}

# fetches URL OPTION...: the site comes unchanged: the large file, a part of it, and the small ones by
# one connection and by several.
fetches() {
    local url=$1
    shift
    step "the large file from $url"
    must by_sdp curl -sS --fail "$@" -o got/large "$url/large"
    same www/large got/large
    moves $((64 << 20))
    step "small files from $url by one connection"
    must by_sdp curl -sS --fail "$@" -o 'got/#1' "$url/small/[0-299]"
    mkdir -p got/small && mv got/[0-9]* got/small
    must diff -r www/small got/small
    step "small files from $url by several connections"
    must by_sdp curl -sS --fail "$@" --parallel --parallel-max 8 -o 'got/#1' "$url/small/[0-299]"
    mv got/[0-9]* got/small
    must diff -r www/small got/small
}

# fetches_a_part URL OPTION...: a range of bytes.
fetches_a_part() {
    local url=$1
    shift
    step "a part of the large file from $url"
    must by_sdp curl -sS --fail "$@" -r 1000000-40999999 -o got/part "$url/large"
    head -c 41000000 www/large | tail -c 40000000 >part
    same part got/part
    moves 40000000
}
