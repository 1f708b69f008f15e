# A thread for each session. The server does not run as root, and both ends are the same user's.
AS=(setpriv --reuid=www-data --regid=www-data --clear-groups)
chmod 777 .
must "${AS[@]}" mariadb-install-db --no-defaults --datadir="$PWD/base" --auth-root-authentication-method=normal \
    --skip-test-db >install.log 2>&1
start mariadbd mariadbd --no-defaults --datadir="$PWD/base" --bind-address=127.0.0.1 --port=3306 \
    --socket="$PWD/sock" --pid-file="$PWD/pid" --max-allowed-packet=64M --innodb-flush-log-at-trx-commit=0
server=$started
listens 3306
session() { by_sdp mariadb --no-defaults -h 127.0.0.1 -P 3306 -u root --protocol=tcp --max-allowed-packet=64M "$@"; }
await "the server" session -e 'select 1' >/dev/null
step "rows"
{
    echo 'create database d; use d; create table t (n int primary key, x longtext);'
    for ((at = 0; at < 2000; at++)); do
        echo "insert into t values ($at, repeat('row $at ', 1000));"
    done
} | must session
must session -N -B d -e 'select x from t order by n' >got
for ((at = 0; at < 2000; at++)); do
    printf "row $at %.0s" {1..1000}
    echo
done >rows
same rows got
moves "$(wc -c <rows)"
step "one large value"
value=$(head -c $((12 << 20)) /dev/urandom | base64 -w 0)
echo "insert into d.t values (100000, '$value');" | must session
[ "$(session -N -B d -e 'select x from t where n = 100000' | sha256sum)" = "$(echo "$value" | sha256sum)" ] ||
    fail "another value came back"
moves $((32 << 20))
stop $server TERM 0
