//! The kernel, the limits of this process, and the environment.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use sdp_socket::ProviderKind;
use tracing_subscriber::EnvFilter;

use super::finding::Finding;
use crate::cli::parse_bytes;

/// Kernels before this one lack what the provider for one machine needs.
const KERNEL_MIN: (u32, u32) = (5, 4);
/// From this one on a polled socket shows urgent bytes.
const KERNEL_PRI: (u32, u32) = (5, 15);
/// A handful of descriptors for each pair of processes, and the program's own.
const DESCRIPTORS_MIN: u64 = 256;
/// Shared segments of a few busy connections.
const FILE_MIN: u64 = 64 << 20;
/// Address space of the same, threads' stacks and the program.
const SPACE_MIN: u64 = 1 << 30;

/// Everything.
pub(super) fn look() -> Vec<Finding> {
    let mut findings = vec![kernel()];
    findings.extend(limits());
    findings.push(memory());
    findings.extend(environment());
    findings
}

fn kernel() -> Finding {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    judge_kernel(&release)
}

fn judge_kernel(release: &str) -> Finding {
    let name = "kernel";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let Some(version) = number().zip(number()) else {
        let remedy = "Linux 5.4 or newer is needed";
        return Finding::unchecked(name, format!("release {release}"), remedy);
    };
    if version < KERNEL_MIN {
        return Finding::fail(name, format!("Linux {release}"), "5.4 or newer is needed");
    }
    if version < KERNEL_PRI {
        let remedy = "5.15 or newer, where programs wait for urgent bytes by poll or epoll";
        return Finding::warning(name, format!("Linux {release}"), remedy);
    }
    Finding::ok(name, format!("Linux {release}"))
}

/// Soft limits: those that count.
fn limits() -> Vec<Finding> {
    let limit = |resource| getrlimit(resource).current;
    vec![
        at_least(
            "limit.nofile",
            "RLIMIT_NOFILE",
            limit(Resource::Nofile),
            DESCRIPTORS_MIN,
            "ulimit -n",
        ),
        at_least(
            "limit.fsize",
            "RLIMIT_FSIZE",
            limit(Resource::Fsize),
            FILE_MIN,
            "ulimit -f",
        ),
        at_least(
            "limit.as",
            "RLIMIT_AS",
            limit(Resource::As),
            SPACE_MIN,
            "ulimit -v",
        ),
    ]
}

fn at_least(name: &str, what: &str, limit: Option<u64>, min: u64, how: &str) -> Finding {
    match limit {
        None => Finding::ok(name, format!("{what} unlimited")),
        Some(limit) if limit >= min => Finding::ok(name, format!("{what} {limit}")),
        Some(limit) => Finding::warning(
            name,
            format!("{what} {limit}, less than {min}"),
            format!("raise it: {how}"),
        ),
    }
}

fn memory() -> Finding {
    let name = "memory";
    match sdp_socket::memory_use() {
        Ok(memory) => Finding::ok(
            name,
            format!(
                "{} MiB of private memory for all connections of a process",
                memory.max >> 20
            ),
        ),
        Err(error) => Finding::fail(
            name,
            error.to_string(),
            "set SDP_MEM_MAX to a size such as 512M, or unset it",
        ),
    }
}

/// Variables of the library and of the preload library, each with what is wrong with a value.
type Judge = fn(&str) -> Option<&'static str>;
const VARIABLES: [(&str, Judge); 10] = [
    ("SDP_PROVIDER", |value| match value.parse() {
        Ok(ProviderKind::Host | ProviderKind::Rdma) => None,
        _ => Some("host or rdma is expected"),
    }),
    ("SDP_RDMA_DEVICE", |_| None),
    // Said by the line on memory.
    ("SDP_MEM_MAX", |_| None),
    ("SDP_CAPTURE", |value| match Path::new(value).parent() {
        _ if !value.contains("%p") && Path::new(value).exists() => {
            Some("the file exists, so no socket can be opened: remove it, or put %p into the name")
        }
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Some("there is no such folder, so no socket can be opened")
        }
        _ => None,
    }),
    ("SDP_CAPTURE_PAYLOAD", |value| {
        let known = value == "all" || value == "0" || parse_bytes(value).is_ok();
        (!known).then_some("a number of bytes such as 64, or all, is expected")
    }),
    ("SDP_CAPTURE_SIZE", |value| {
        parse_bytes(value)
            .err()
            .map(|_| "a number of bytes such as 256M is expected")
    }),
    ("SDP_LOG", |value| {
        let parsed = EnvFilter::builder().parse(value);
        parsed
            .err()
            .map(|_| "a level such as debug is expected, or parts such as sdp_verbs=trace")
    }),
    ("SDP_STAT", |value| {
        (value != "off").then_some("only off has a meaning")
    }),
    ("SDP_PRELOAD_REPORT", |_| None),
    ("SDP_PRELOAD_WAIT", |value| {
        value
            .parse::<u64>()
            .err()
            .map(|_| "a number of milliseconds is expected; it is ignored")
    }),
];
/// Where rules are read from.
const RULES: &str = "LIBSDP_CONFIG_FILE";

fn environment() -> Vec<Finding> {
    let ours = env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SDP_"));
    let mut findings: Vec<_> = ours
        .map(|(name, value)| judge_variable(&name, &value))
        .collect();
    if let Some(path) = env::var_os(RULES)
        && let Err(error) = fs::read(&path)
    {
        let detail = format!("{RULES}={}: {error}", path.display());
        findings.push(Finding::warning(
            "environment",
            detail,
            "there are no rules: name a file, or unset it",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "environment",
            "no variable of the library is set",
        ));
    }
    findings
}

fn judge_variable(name: &OsStr, value: &OsStr) -> Finding {
    let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
    let detail = format!("{name}={value}");
    let mut known = VARIABLES.iter();
    match known.find(|(variable, _)| *variable == name) {
        None => Finding::warning(
            "environment",
            detail,
            "no such variable is known: see sdp(7)",
        ),
        Some((_, judge)) => match judge(&value) {
            None => Finding::ok("environment", detail),
            // A provider that there is not is an error of every socket.
            Some(why) if name == "SDP_PROVIDER" || name == "SDP_CAPTURE" => {
                Finding::fail("environment", detail, why)
            }
            Some(why) => Finding::warning("environment", detail, why),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn kernels() {
        for (release, verdict) in [
            ("4.19.0-27-amd64", Verdict::Fail),
            ("5.3.18", Verdict::Fail),
            ("5.4.0-150-generic", Verdict::Warning),
            ("5.14.0-427.el9.x86_64", Verdict::Warning),
            ("5.15.0", Verdict::Ok),
            ("6.1.0-28-amd64", Verdict::Ok),
            ("10.0", Verdict::Ok),
            ("strange", Verdict::Unchecked),
        ] {
            assert_eq!(judge_kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn limits_are_compared() {
        let verdict = |limit| at_least("limit", "RLIMIT", limit, 100, "ulimit").verdict;
        assert_eq!(verdict(None), Verdict::Ok);
        assert_eq!(verdict(Some(100)), Verdict::Ok);
        assert_eq!(verdict(Some(99)), Verdict::Warning);
    }

    #[test]
    fn values_that_do_not_work_are_named() {
        let verdict =
            |name: &str, value: &str| judge_variable(name.as_ref(), value.as_ref()).verdict;
        for (name, value, expected) in [
            ("SDP_PROVIDER", "host", Verdict::Ok),
            ("SDP_PROVIDER", "infiniband", Verdict::Fail),
            ("SDP_PROVIDER", "sim", Verdict::Fail),
            ("SDP_CAPTURE", "/nowhere/x.pcapng", Verdict::Fail),
            ("SDP_CAPTURE", "x-%p.pcapng", Verdict::Ok),
            ("SDP_CAPTURE_PAYLOAD", "all", Verdict::Ok),
            ("SDP_CAPTURE_SIZE", "many", Verdict::Warning),
            ("SDP_LOG", "sdp_verbs=trace", Verdict::Ok),
            ("SDP_LOG", "sdp=loud=very", Verdict::Warning),
            ("SDP_STAT", "on", Verdict::Warning),
            ("SDP_PRELOAD_WAIT", "2s", Verdict::Warning),
            ("SDP_PROVDER", "host", Verdict::Warning),
        ] {
            assert_eq!(verdict(name, value), expected, "{name}={value}");
        }
    }
}
