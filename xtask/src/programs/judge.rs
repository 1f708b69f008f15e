//! What a case must have done, whatever its programs are.

use super::found::Found;
use crate::report::Check;

/// What may go over the loopback device although nothing is to: none of it is payload of a case.
const LOOPBACK_MAX: u64 = 16 << 10;

/// The promises of one case, each named after it.
pub(super) fn checks(name: &str, found: &Found) -> Vec<Check> {
    let check =
        |what: &str, ok: bool, value: Option<f64>, limit: Option<f64>, detail: String| Check {
            name: format!("programs.{name}.{what}"),
            ok,
            value,
            limit,
            unit: if value.is_some() { "bytes" } else { "" }.to_owned(),
            detail,
        };
    let plain = |what: &str, ok: bool, detail: String| check(what, ok, None, None, detail);
    let failure = found.failure.clone().unwrap_or_default();
    let mut checks = vec![plain("runs", found.failure.is_none(), failure)];
    if found.failure.is_some() {
        return checks;
    }
    let facts = &found.facts;
    // One side may have been killed, which reports nothing then.
    let by_sdp = found.reported.sent.all.max(found.reported.received.all);
    let (went, moved) = (number(by_sdp), number(facts.moved));
    let moves_any = facts.moved > 0 || facts.by_tcp.is_some();
    let enough = by_sdp >= facts.moved && moves_any;
    checks.push(check(
        "by_sdp",
        enough,
        Some(went),
        Some(moved),
        String::new(),
    ));

    let (least, most) = match facts.by_tcp {
        Some(bytes) => (bytes, u64::MAX),
        None => (0, LOOPBACK_MAX),
    };
    let loopback = found.loopback;
    let limit = if facts.by_tcp.is_some() { least } else { most };
    checks.push(check(
        "loopback",
        (least..=most).contains(&loopback),
        Some(number(loopback)),
        Some(number(limit)),
        if facts.by_tcp.is_some() {
            "at least"
        } else {
            "at most"
        }
        .to_owned(),
    ));

    let unexpected = found.reported.tcp.iter();
    let unexpected: Vec<String> = unexpected
        .filter(|(reason, _)| !facts.may_be_tcp.contains(reason))
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    checks.push(plain(
        "no_other_tcp",
        unexpected.is_empty(),
        unexpected.join(", "),
    ));
    let lost = found.reported.lost;
    checks.push(plain(
        "children",
        lost == 0,
        format!("{lost} connections lost"),
    ));
    let left = [&found.left, &found.shared].map(|it| it.replace('\n', " "));
    let is_left = left.iter().any(|it| !it.is_empty());
    checks.push(plain(
        "nothing_left",
        !is_left,
        left.join(" ").trim().to_owned(),
    ));
    checks
}

/// Exact up to 2^53, which no case moves.
#[expect(clippy::cast_precision_loss, reason = "no case moves 2^53 bytes")]
pub(super) fn number(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::facts::Facts;
    use crate::programs::report_line::{Bytes, Reported};

    fn bytes(all: u64) -> Bytes {
        Bytes { all, zcopy: 0 }
    }

    fn good() -> Found {
        Found {
            facts: Facts::parse("moved 1000").unwrap(),
            reported: Reported {
                sent: bytes(1000),
                ..Reported::default()
            },
            ..Found::default()
        }
    }

    fn broken(found: &Found) -> Vec<String> {
        let broken = checks("x", found).into_iter().filter(|check| !check.ok);
        broken.map(|check| check.name).collect()
    }

    #[test]
    fn each_promise_can_be_broken() {
        let nothing: [&str; 0] = [];
        assert_eq!(broken(&good()), nothing);
        let mut found = good();
        found.failure = Some("killed".to_owned());
        assert_eq!(broken(&found), ["programs.x.runs"]);
        let mut found = good();
        found.reported.sent = bytes(999);
        assert_eq!(broken(&found), ["programs.x.by_sdp"]);
        found.reported.received = bytes(1000);
        assert_eq!(broken(&found), nothing);
        let mut found = good();
        found.facts.moved = 0;
        assert_eq!(broken(&found), ["programs.x.by_sdp"]);
        let mut found = good();
        found.loopback = LOOPBACK_MAX + 1;
        assert_eq!(broken(&found), ["programs.x.loopback"]);
        let mut found = good();
        found.reported.tcp = vec![("late".to_owned(), 1)];
        assert_eq!(broken(&found), ["programs.x.no_other_tcp"]);
        found.facts.may_be_tcp = vec!["late".to_owned()];
        assert_eq!(broken(&found), nothing);
        let mut found = good();
        found.reported.lost = 1;
        assert_eq!(broken(&found), ["programs.x.children"]);
        let mut found = good();
        found.shared = "x".to_owned();
        assert_eq!(broken(&found), ["programs.x.nothing_left"]);
    }

    /// What is to go by TCP must, and then nothing need go by SDP.
    #[test]
    fn by_tcp() {
        let mut found = good();
        found.facts = Facts::parse("tcp 5000").unwrap();
        found.loopback = 4999;
        assert_eq!(broken(&found), ["programs.x.loopback"]);
        found.loopback = 1 << 40;
        assert_eq!(broken(&found), Vec::<String>::new());
    }
}
