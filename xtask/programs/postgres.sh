# A child for each session, whose bytes the parent relays.
AS=(setpriv --reuid=postgres --regid=postgres --init-groups)
chmod 777 .
bin=$(dirname "$(readlink -f "$(command -v postgres || ls /usr/lib/postgresql/*/bin/postgres)")")
must "${AS[@]}" "$bin/initdb" -D "$PWD/base" -A trust -N >initdb.log
start postgres "$bin/postgres" -D "$PWD/base" -c listen_addresses=127.0.0.1 -p 5432 \
    -c unix_socket_directories= -c fsync=off
server=$started
listens 5432
session() { by_sdp psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -d postgres "$@"; }
await "the server" session -c 'select 1' -o /dev/null
step "32 MiB in and out again"
must session -c 'create table t (n int, x text)'
seq -f '%.0f	abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789' 500000 >rows
must session -c '\copy t from rows'
must session -c '\copy (select * from t order by n) to stdout' >got
same rows got
moves $((2 * $(wc -c <rows)))
step "pgbench"
must by_sdp "$bin/pgbench" -h 127.0.0.1 -i -q -s 2 postgres >pgbench.log 2>&1
must by_sdp "$bin/pgbench" -h 127.0.0.1 -n -c 4 -j 2 -t 200 postgres >pgbench.log 2>&1
grep -q 'number of failed transactions: 0 ' pgbench.log || fail "pgbench met errors"
must by_sdp "$bin/pgbench" -h 127.0.0.1 -n -C -S -c 2 -t 50 postgres >pgbench.log 2>&1
grep -q 'number of failed transactions: 0 ' pgbench.log || fail "pgbench met errors"
stop $server INT 0
