//! Crashes of a guest's kernel that no program can help: defects of the drivers of software devices, and
//! of what they stand on.

use std::fs;
use std::path::Path;

/// A function of a driver's that crashed, and what is wrong with it.
const KNOWN: [(&str, &str); 1] = [(
    "siw_destroy_listen",
    "siw (seen in Linux 6.1) may have freed a listener that lost a caller in its handshake",
)];

/// What the kernel says, again and again, when it will never get on, and what is wrong with it. No program
/// has a reference that it could wait for there.
const STUCK: [(&str, &str); 1] = [(
    "cm_destroy_id_wait_timeout:",
    "ib_cm (seen once in Linux 6.1) may wait for ever for a message of a connection that it ends",
)];

/// What the kernel says when it crashes, or finds that it is about to.
const CRASHES: [&str; 3] = ["kernel BUG at", "Oops:", "WARNING:"];
/// Where it says so: to the end, or while there was still somebody to read it.
const LOGS: [&str; 2] = ["console.txt", "dmesg.txt"];

/// What the kernel says last before it tells where it was.
const TRACE: &str = "Call Trace:";

/// The first known crash of the guests that left their files in `folder`.
pub(super) fn known(folder: &Path) -> Option<&'static str> {
    let guests = [folder.to_owned(), folder.join("0"), folder.join("1")];
    let mut logs = guests
        .iter()
        .flat_map(|guest| LOGS.map(|log| guest.join(log)));
    logs.find_map(|log| {
        // A guest that did not get so far has left none.
        let log = fs::read(log).unwrap_or_default();
        in_log(&String::from_utf8_lossy(&log))
    })
}

fn in_log(log: &str) -> Option<&'static str> {
    // Of the kernel's own lines: what programs print has no time before it.
    let said = |word: &str| log.lines().any(|line| line.contains(&format!("] {word}")));
    if let Some((_, what)) = STUCK.iter().find(|(word, _)| said(word)) {
        return Some(what);
    }
    let (_, crash) = CRASHES.iter().find_map(|crash| log.split_once(crash))?;
    let (_, trace) = crash.split_once(TRACE)?;
    // A question mark before it says that it may be left from before.
    let mut frames = trace.lines().filter(|line| !line.contains(" ? "));
    let found = frames.find_map(|line| {
        let known = KNOWN.iter();
        known
            .copied()
            .find(|(function, _)| line.contains(&format!(" {function}+")))
    });
    found.map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: &str = "\
[   15.985293] list_del corruption, ffff88803fe42250->next is NULL
[   15.986295] kernel BUG at lib/list_debug.c:49!
[   15.989474] Call Trace:
[   15.989895]  <TASK>
[   15.990101]  siw_destroy_listen+0x4f/0x1a0 [siw]
[   15.990321]  destroy_cm_id+0x9f/0x230 [iw_cm]
";

    #[test]
    fn only_where_the_kernel_itself_says_so() {
        assert!(in_log(CRASH).is_some_and(|what| what.contains("siw")));
        assert_eq!(in_log("the test siw_destroy_listen+1 failed"), None);
        let elsewhere = CRASH.replace("siw_destroy_listen", "vfs_write");
        assert_eq!(in_log(&elsewhere), None);
        let warned = CRASH.replace("kernel BUG at", "WARNING: CPU: 1 at");
        assert_eq!(in_log(&warned), in_log(CRASH));
        assert_eq!(
            in_log(&warned.replace("siw_destroy_listen", "siw_close")),
            None
        );
        let stuck =
            "[   28.554763] cm_destroy_id_wait_timeout: cm_id=00000000f2b1ebbd timed out. state 11";
        assert!(in_log(stuck).is_some_and(|what| what.contains("ib_cm")));
        assert_eq!(in_log("cm_destroy_id_wait_timeout: says a program"), None);
        let stale = CRASH.replace(" siw_destroy_listen", " ? siw_destroy_listen");
        assert_eq!(in_log(&stale), None);
    }
}
