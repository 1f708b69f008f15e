# Threads that a listener thread hands connections to.
. "$FOLDER/web.sh"
# It does not serve as root, and both ends of a connection are the same user's.
AS=(setpriv --reuid=www-data --regid=www-data --clear-groups)
chmod 777 .
site
chmod 777 got
modules=/usr/lib/apache2/modules
cat >apache2.conf <<CONF
ServerName localhost
ServerRoot $PWD
PidFile $PWD/apache2.pid
Listen 127.0.0.1:8080
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
MaxKeepAliveRequests 0
EnableSendfile on
ErrorLog $PWD/apache2.errors
DocumentRoot $PWD/www
CONF
start apache2 apache2 -DFOREGROUND -f "$PWD/apache2.conf"
server=$started
listens 8080
fetches http://127.0.0.1:8080
fetches_a_part http://127.0.0.1:8080
step "ab"
for kept in '' -k; do
    must by_sdp ab -q $kept -n 2000 -c 20 http://127.0.0.1:8080/small/7 >ab.log 2>&1
    grep -q '^Failed requests: *0$' ab.log || fail "ab met errors"
    ! grep -q '^Non-2xx' ab.log || fail "ab met errors"
done
stop $server TERM 0
