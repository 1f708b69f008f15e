# nginx_conf WORKERS: the file nginx.conf, for a server of the folder www on port 8080.
nginx_conf() {
    cat >nginx.conf <<CONF
daemon off;
user root;
worker_processes $1;
pid $PWD/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    sendfile on;
    client_body_temp_path $PWD/body;
    proxy_temp_path $PWD/proxy;
    fastcgi_temp_path $PWD/fastcgi;
    uwsgi_temp_path $PWD/uwsgi;
    scgi_temp_path $PWD/scgi;
    server {
        listen 127.0.0.1:8080;
        root $PWD/www;
    }
}
CONF
}

# nginx_serves [WORKERS [start_plain]]: the site, by nginx on port 8080, whose process is $nginx.
nginx_serves() {
    site
    nginx_conf "${1:-1}"
    "${2:-start}" nginx nginx -c "$PWD/nginx.conf"
    nginx=$started
    listens 8080
}
