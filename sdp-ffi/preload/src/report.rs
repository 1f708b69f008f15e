//! What a process has done, and said at its end if somebody asked for it.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libc::c_int;
use sdp::SdpStats;
use sdp::posix::guard;

use crate::config::{Report, config_if_read};
use crate::{io_uring, log, table};

/// Why a socket is TCP's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Reason {
    /// A rule says so.
    Rule,
    /// Nobody answers in SDP there.
    Refused,
    /// The way there is none for SDP.
    Unreachable,
    /// The answer did not come in time.
    Late,
    /// The kernel was asked for something that only TCP has.
    Option,
    /// Another process has the address for SDP.
    AddressTaken,
    /// Anything else; the log has the words.
    Failed,
}

/// Each reason, in words, and as `sdp stat` counts it.
const REASONS: [(Reason, &str, &str); 7] = [
    (Reason::Rule, "rule", "tcp_rule"),
    (Reason::Refused, "refused", "tcp_refused"),
    (Reason::Unreachable, "unreachable", "tcp_unreachable"),
    (Reason::Late, "late", "tcp_late"),
    (Reason::Option, "option", "tcp_option"),
    (Reason::AddressTaken, "address taken", "tcp_address_taken"),
    (Reason::Failed, "failed", "tcp_failed"),
];

impl Reason {
    /// Of the errno of an attempt.
    pub(crate) fn of(errno: c_int) -> Self {
        match errno {
            libc::ECONNREFUSED => Self::Refused,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EOPNOTSUPP | libc::EADDRNOTAVAIL => {
                Self::Unreachable
            }
            libc::ETIMEDOUT => Self::Late,
            libc::EADDRINUSE => Self::AddressTaken,
            _ => Self::Failed,
        }
    }

    /// In a word or two.
    pub(crate) fn name(self) -> &'static str {
        REASONS[self as usize].1
    }
}

static CONNECTED: AtomicU64 = AtomicU64::new(0);
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
static ACCEPTED_BY_TCP: AtomicU64 = AtomicU64::new(0);
static TCP: [AtomicU64; REASONS.len()] = [const { AtomicU64::new(0) }; REASONS.len()];
/// Connections that children go on with, and those that they could not be given.
static PASSED_ON: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
/// All bytes that sends have taken.
static SENT: AtomicU64 = AtomicU64::new(0);
/// Sent and received: copied, inside adverts, not copied.
static BYTES: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

fn add(to: &AtomicU64, count: u64) {
    to.fetch_add(count, Ordering::Relaxed);
}

/// A connect that SDP has carried out.
pub(crate) fn connected() {
    look_at_first();
    add(&CONNECTED, 1);
}

/// A connection accepted, by SDP or not.
pub(crate) fn accepted(by_sdp: bool) {
    if by_sdp {
        look_at_first();
    }
    add(if by_sdp { &ACCEPTED } else { &ACCEPTED_BY_TCP }, 1);
}

/// A process that reports has its first connection.
fn look_at_first() {
    let reports = config_if_read().is_some_and(|config| config.report.is_some());
    if reports && !has_spoken() {
        io_uring::look();
    }
}

/// Whether this process has had a connection by SDP.
pub(crate) fn has_spoken() -> bool {
    [&CONNECTED, &ACCEPTED]
        .iter()
        .any(|count| count.load(Ordering::Relaxed) > 0)
}

/// Whether this process has had a socket that was decided about.
pub(crate) fn has_anything() -> bool {
    let all = [&CONNECTED, &ACCEPTED, &ACCEPTED_BY_TCP];
    let mut all = all.into_iter().chain(&TCP);
    all.any(|count| count.load(Ordering::Relaxed) > 0)
}

/// A socket that TCP has from here on.
pub(crate) fn left_to_tcp(reason: Reason) {
    add(&TCP[reason as usize], 1);
}

/// A connection that is closed here, and that a child goes on with.
pub(crate) fn passed_on() {
    add(&PASSED_ON, 1);
}

/// Connections that a child is without, for want of descriptors or threads.
pub(crate) fn lost(count: usize) {
    add(&LOST, u64::try_from(count).unwrap_or(u64::MAX));
}

/// An exec has failed, before which the report was written and so many connections counted as lost: there
/// will be another report.
pub(crate) fn go_on(lost: usize) {
    LOST.fetch_sub(u64::try_from(lost).unwrap_or(0), Ordering::Relaxed);
    WRITTEN.store(false, Ordering::Relaxed);
}

/// Bytes that a send has taken.
pub(crate) fn sent(len: u64) {
    add(&SENT, len);
}

/// What a connection that has ended, or ends with the process, has done.
pub(crate) fn ended(stats: &SdpStats) {
    let counts = [
        stats.tx_bytes_bcopy,
        stats.tx_bytes_inline,
        stats.tx_bytes_zcopy,
        // Fetched before anybody read, and copied then.
        stats.rx_bytes_bcopy + stats.rx_bytes_read_ahead,
        stats.rx_bytes_inline,
        stats.rx_bytes_zcopy,
    ];
    for (total, count) in BYTES.iter().zip(counts) {
        add(total, count);
    }
}

/// A forked child has done nothing yet. Only stores to atomics: it is called where nothing else is
/// allowed.
pub(crate) fn start_anew() {
    let all = [
        &CONNECTED,
        &ACCEPTED,
        &ACCEPTED_BY_TCP,
        &PASSED_ON,
        &LOST,
        &SENT,
    ];
    for count in all.into_iter().chain(&TCP).chain(&BYTES) {
        count.store(0, Ordering::Relaxed);
    }
    io_uring::start_anew();
}

/// Has `sdp stat` show what this library has done.
pub(crate) fn tell_when_asked() {
    sdp_socket::set_counters("preload", || {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let tcp = REASONS.map(|(reason, _, name)| (name, get(&TCP[reason as usize])));
        let others = [
            ("sdp_connected", get(&CONNECTED)),
            ("sdp_accepted", get(&ACCEPTED)),
            ("tcp_accepted", get(&ACCEPTED_BY_TCP)),
            ("passed_to_children", get(&PASSED_ON)),
            ("not_passed_to_children", get(&LOST)),
        ];
        others.into_iter().chain(tcp).collect()
    });
}

/// Has the report written when the process ends by exit.
pub(crate) fn at_exit() {
    // SAFETY: `write` is a function, and the library is never unloaded (build.rs).
    let failed = unsafe { libc::atexit(write) } != 0;
    if failed {
        log::to_stderr("no memory to register an exit handler: no report");
    }
}

static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Writes the report, once, if one is asked for.
pub(crate) extern "C" fn write() {
    let Some(config) = config_if_read() else {
        return;
    };
    let Some(to) = &config.report else { return };
    if !table::is_owner() {
        return;
    }
    let put_down = || {
        let words = format!("{}[{}]: {}", config.program, std::process::id(), line());
        let written = match to {
            Report::Stderr => return log::to_stderr(&words),
            Report::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                file.and_then(|mut file| file.write_all(format!("{words}\n").as_bytes()))
            }
        };
        if let Err(error) = written {
            log::to_stderr(&format!("the report: {error}; {words}"));
        }
    };
    guard("exit", || {
        if !WRITTEN.swap(true, Ordering::Relaxed) {
            io_uring::look();
            put_down();
        }
        Ok(0)
    });
}

fn line() -> String {
    let relayed = crate::fork::relayed();
    let held = table::within(0, c_int::MAX).filter_map(table::get);
    for entry in held.chain(relayed) {
        if let Some(stats) = entry.last_stats() {
            ended(&stats);
        }
    }
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mut text = format!(
        "SDP: {} connected, {} accepted; TCP: {} accepted",
        get(&CONNECTED),
        get(&ACCEPTED),
        get(&ACCEPTED_BY_TCP)
    );
    for (reason, name, _) in REASONS {
        let count = get(&TCP[reason as usize]);
        if count > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {name} {count}");
        }
    }
    for (count, what) in [(&PASSED_ON, "to children"), (&LOST, "not to children")] {
        if get(count) > 0 {
            let _ = write!(text, "; {what}: {}", get(count));
        }
    }
    if io_uring::is_seen() {
        text.push_str("; io_uring: goes past SDP");
    }
    let [copied, inline, zcopy, rx_copied, rx_inline, rx_zcopy] = BYTES.each_ref().map(get);
    // What has been taken and had not left when its connection was closed leaves as a copy.
    let copied = copied.max(get(&SENT).saturating_sub(inline + zcopy));
    let _ = write!(
        text,
        "; sent: {copied} copied, {inline} inline, {zcopy} zero copy; received: {rx_copied} \
         copied, {rx_inline} inline, {rx_zcopy} zero copy"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reason has its own name at its own place.
    #[test]
    fn reasons_have_their_names() {
        for (at, (reason, name, counted)) in REASONS.into_iter().enumerate() {
            assert_eq!(counted, format!("tcp_{}", name.replace(' ', "_")));
            assert_eq!(reason as usize, at);
            assert_eq!(reason.name(), name);
        }
        assert_eq!(Reason::of(libc::ECONNREFUSED), Reason::Refused);
        assert_eq!(Reason::of(libc::EIO), Reason::Failed);
    }
}
