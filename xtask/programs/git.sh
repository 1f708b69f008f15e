# A child for each connection that becomes another program; and clients whose children write to it.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_CONFIG_NOSYSTEM=1
git init -q -b main work
data work/large $((32 << 20))
for ((at = 0; at < 200; at++)); do
    echo "file $at" >"work/$at"
done
git -C work add . && git -C work commit -q -m one
git clone -q --bare work base/x.git 2>git.log
start daemon git daemon --listen=127.0.0.1 --port=9418 --base-path="$PWD/base" --export-all \
    --enable=receive-pack --reuseaddr --verbose
server=$started
listens 9418
step "a clone"
must by_sdp git clone -q git://127.0.0.1/x.git copy
must diff -r --exclude=.git work copy
must git -C copy fsck --no-progress >git.log 2>&1
moves $((32 << 20))
step "a push"
data copy/more $((16 << 20))
git -C copy add . && git -C copy commit -q -m two
must by_sdp git -C copy push -q origin main
# The daemon is killed in the end, and reports nothing: only what the clients have received is counted.
[ "$(git -C base/x.git rev-parse main)" = "$(git -C copy rev-parse main)" ] || fail "the push is not there"
must git -C base/x.git fsck --no-progress >git.log 2>&1
step "a pull"
data work/other $((16 << 20))
git -C work add . && git -C work commit -q -m three
git -C work pull -q --rebase=false --no-edit "$PWD/base/x.git" main && git -C work push -q "$PWD/base/x.git" main
must by_sdp git -C copy pull -q
must diff -r --exclude=.git work copy
moves $((16 << 20))
stop $server TERM 143 0
