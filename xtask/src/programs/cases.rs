//! Which programs are run. What a case does is in `xtask/programs/<name>.sh`.

use crate::packages::{Need, need};

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    /// Of its script.
    pub(super) name: &'static str,
    /// The programs, in a few words.
    pub(super) programs: &'static str,
    /// What it needs beyond [`COMMON`].
    pub(super) needs: &'static [Need],
}

const fn case(name: &'static str, programs: &'static str, needs: &'static [Need]) -> Case {
    Case {
        name,
        programs,
        needs,
    }
}

/// What every case needs.
pub(super) const COMMON: &[Need] = &[
    need("unshare", "util-linux"),
    need("setpriv", "util-linux"),
    need("ip", "iproute2"),
    need("pgrep", "procps"),
    need("python3", "python3"),
    need("diff", "diffutils"),
];

const CURL: Need = need("curl", "curl");
const NGINX: Need = need("nginx", "nginx-light");
const OPENSSL: Need = need("openssl", "openssl");
const NC: Need = need("nc", "netcat-openbsd");
const REDIS: Need = need("redis-server", "redis-server");
const SOCAT: Need = need("socat", "socat");
const SSH: Need = need("ssh", "openssh-client");
const WRK: Need = need("wrk", "wrk");

/// All of them.
pub(super) const CASES: &[Case] = &[
    case(
        "redis",
        "redis-server, a follower of it, redis-cli, redis-benchmark",
        &[REDIS, need("redis-cli", "redis-tools")],
    ),
    case(
        "memcached",
        "memcached, python3",
        &[need("memcached", "memcached")],
    ),
    case("nginx", "nginx, curl, wrk; a reload", &[NGINX, CURL, WRK]),
    case(
        "nginx_workers",
        "nginx with four workers, wrk, curl",
        &[NGINX, CURL, WRK],
    ),
    case(
        "haproxy",
        "haproxy between curl and nginx",
        &[need("haproxy", "haproxy"), NGINX, CURL],
    ),
    case(
        "apache2",
        "apache2, curl, ab",
        &[
            need("apache2", "apache2-bin"),
            need("ab", "apache2-utils"),
            CURL,
        ],
    ),
    case(
        "lighttpd",
        "lighttpd, curl",
        &[need("lighttpd", "lighttpd"), CURL],
    ),
    case(
        "busybox",
        "busybox httpd and wget, curl",
        &[need("busybox", "busybox"), CURL],
    ),
    case("php", "php -S, curl", &[need("php", "php-cli"), CURL]),
    case(
        "squid",
        "squid between curl and nginx",
        &[need("squid", "squid"), NGINX, CURL],
    ),
    case("iperf3", "iperf3", &[need("iperf3", "iperf3")]),
    case(
        "qperf",
        "qperf, by TCP's sockets and by SDP's address family",
        &[need("qperf", "qperf")],
    ),
    case("sockperf", "sockperf", &[need("sockperf", "sockperf")]),
    case("socat", "socat with a child for each connection", &[SOCAT]),
    case("netcat", "nc, ncat", &[NC, need("ncat", "ncat")]),
    case("bash", "bash with its own connection, cat, socat", &[SOCAT]),
    case(
        "ssh",
        "sshd, ssh, scp",
        &[SSH, need("/usr/sbin/sshd", "openssh-server")],
    ),
    case(
        "dropbear",
        "dropbear, ssh",
        &[SSH, need("dropbear", "dropbear-bin")],
    ),
    case("rsync", "rsync", &[need("rsync", "rsync")]),
    case("git", "git daemon, git", &[need("git", "git")]),
    case(
        "vsftpd",
        "vsftpd, curl, lftp",
        &[need("vsftpd", "vsftpd"), need("lftp", "lftp"), CURL],
    ),
    case(
        "postgres",
        "PostgreSQL, psql, pgbench",
        &[
            need("psql", "postgresql-client"),
            need("/usr/lib/postgresql", "postgresql"),
        ],
    ),
    case(
        "mariadb",
        "MariaDB",
        &[
            need("mariadbd", "mariadb-server-core"),
            need("mariadb", "mariadb-client-core"),
            need("mariadb-install-db", "mariadb-server-core"),
        ],
    ),
    case(
        "mosquitto",
        "mosquitto",
        &[
            need("mosquitto", "mosquitto"),
            need("mosquitto_pub", "mosquitto-clients"),
        ],
    ),
    case(
        "openssl",
        "openssl s_server and s_client, curl",
        &[OPENSSL, CURL],
    ),
    case(
        "stunnel",
        "two stunnels between socats",
        &[need("stunnel4", "stunnel4"), OPENSSL, SOCAT],
    ),
    case(
        "python",
        "python3: http.server, asyncio, socketserver, selectors; curl",
        &[CURL],
    ),
    case("node", "node", &[need("node", "nodejs")]),
    case(
        "java",
        "java: sockets, channels, HTTP; and SDP as the Java machine asks for it",
        &[
            need("java", "openjdk-17-jre-headless"),
            need("javac", "openjdk-17-jdk-headless"),
        ],
    ),
    case(
        "go",
        "hey, which makes its system calls itself, and nginx",
        &[need("hey", "hey"), NGINX],
    ),
    case(
        "tcp_client",
        "nginx and redis-server; curl and redis-cli without SDP",
        &[NGINX, REDIS, CURL],
    ),
    case(
        "tcp_server",
        "nginx and redis-server without SDP; curl and redis-cli",
        &[NGINX, REDIS, CURL],
    ),
];

/// Benchmarks, of scripts `bench_<name>.sh`.
pub(super) const BENCHMARKS: &[Case] = &[
    case("bench_redis", "redis-benchmark", &[REDIS]),
    case("bench_nginx", "nginx, wrk", &[NGINX, WRK]),
    case("bench_iperf3", "iperf3", &[need("iperf3", "iperf3")]),
    case("bench_qperf", "qperf", &[need("qperf", "qperf")]),
    case(
        "bench_memcached",
        "memcached, python3",
        &[need("memcached", "memcached")],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Each script that is no part of others is a case, and each case has a script.
    #[test]
    fn cases_are_scripts() {
        let parts = ["run", "lib", "web", "nginx_conf"];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        let names = std::fs::read_dir(folder).unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".sh").map(str::to_owned)
        });
        let scripts: BTreeSet<String> = names.filter(|name| !parts.contains(&&**name)).collect();
        let all = CASES.iter().chain(BENCHMARKS);
        let cases: BTreeSet<String> = all.map(|case| case.name.to_owned()).collect();
        assert_eq!(scripts, cases);
        assert_eq!(cases.len(), CASES.len() + BENCHMARKS.len());
    }
}
