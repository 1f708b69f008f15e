//! Tests of what needs no run.

use std::path::Path;

use super::differ::{Library, Rule, compare};
use super::*;

fn compared(tcp: &str, ours: &str, rules: &[Rule]) -> Comparison {
    compare(Library::Libsdp, tcp, ours, rules).unwrap()
}

/// The same is the same, call by call and flag by flag.
#[test]
fn calls_are_sorted_by_function_and_by_what_is_asked() {
    let lines = "fresh, polls: S(recv)(s, b, 1, MSG_PEEK | MSG_OOB) = EAGAIN\n\
        fresh, polls: S(recv)(MSG_PEEK | MSG_OOB) = EAGAIN\n\
        fresh, polls: S(recv)(s, nowhere, 1, MSG_PEEK) = EFAULT\n\
        fresh, polls: length 3\n\
        fresh, polls: S(recv)(s, b, 1, 0) = 1\n\
        fresh_v6, polls: S(getsockopt)(SO_TYPE) = 0 01000000\n";
    let found = compared(lines, lines, &[]);
    assert_eq!((found.lines, found.has_v6), (6, true));
    let recv = &found.functions["recv"];
    assert_eq!(recv.calls, 4);
    let topics: Vec<(&str, usize)> = recv
        .topics
        .iter()
        .map(|(name, it)| (&**name, it.calls))
        .collect();
    let expected = [
        ("", 1),
        ("MSG_OOB", 1),
        ("MSG_PEEK", 1),
        ("MSG_PEEK | MSG_OOB", 1),
        ("nowhere", 1),
    ];
    assert_eq!(topics, expected);
    assert_eq!(found.functions["getsockopt"].topics["SO_TYPE"].calls, 1);
    assert!(found.unlisted().is_empty());
}

/// A difference is listed by the rule that names all of it, and what the call has left by the same.
#[test]
fn a_rule_lists_what_it_names_and_nothing_else() {
    let tcp = "bound, polls: S(send)(MSG_FIN) = 1\nbound, polls: bytes \"a\"\n";
    let ours = "bound, polls: S(send)(MSG_FIN) = EOPNOTSUPP\nbound, polls: bytes \"\"\n";
    let rule = || Rule {
        number: 7,
        of: &[Library::Libsdp],
        functions: &["send"],
        with: &["MSG_FIN"],
        phases: &["bound"],
        probes: &["polls"],
        ours: &["EOPNOTSUPP"],
        ..Rule::ANY
    };
    let found = compared(tcp, ours, &[rule()]);
    assert!(found.unlisted().is_empty(), "{:?}", found.unlisted());
    assert_eq!(found.functions["send"].topics["MSG_FIN"].rules, [7].into());
    assert_eq!(found.functions["send"].topics["MSG_FIN"].differing, 1);
    let others = [
        Rule {
            of: &[Library::Preload],
            ..rule()
        },
        Rule {
            functions: &["sendto"],
            ..rule()
        },
        Rule {
            with: &["MSG_FI"],
            ..rule()
        },
        Rule {
            phases: &["fresh"],
            ..rule()
        },
        Rule {
            probes: &["sends"],
            ..rule()
        },
        Rule {
            ours: &["EBADF"],
            ..rule()
        },
    ];
    for other in others {
        let found = compared(tcp, ours, &[other]);
        assert_eq!(found.unlisted().len(), 2);
        assert!(found.unlisted()[0].contains("EOPNOTSUPP"));
    }
}

/// What only tells what a call has left is not listed by a rule about results when the call gave the
/// same.
#[test]
fn what_is_left_behind_the_same_result_is_a_difference() {
    let tcp = "bound, polls: S(send)(s) = 1\nbound, polls: bytes \"a\"\n";
    let ours = "bound, polls: S(send)(s) = 1\nbound, polls: bytes \"b\"\n";
    let about_results = Rule {
        number: 1,
        of: &[Library::Libsdp],
        ours: &["1"],
        ..Rule::ANY
    };
    assert_eq!(compared(tcp, ours, &[about_results]).unlisted().len(), 1);
    let about_all = Rule {
        number: 1,
        of: &[Library::Libsdp],
        ..Rule::ANY
    };
    assert!(compared(tcp, ours, &[about_all]).unlisted().is_empty());
}

/// Runs that ask other questions, or end early, are no comparison.
#[test]
fn runs_that_part_are_an_error_that_says_where() {
    let line = "a, b: S(recv)(s) = 1\n";
    let more = format!("{line}a, b: S(send)(s) = 1\n");
    for (tcp, ours) in [(line, &*more), (&*more, line)] {
        let error = compare(Library::Libsdp, tcp, ours, &[]).unwrap_err();
        assert!(
            error.contains("S(send)") && error.contains("nothing"),
            "{error}"
        );
    }
    for ours in [
        "a, c: S(recv)(s) = 1",
        "a, b: S(recv)(t) = 1",
        "a, b: oh",
        "oh",
    ] {
        assert!(compare(Library::Libsdp, line, ours, &[]).is_err(), "{ours}");
    }
}

/// A rule that lists nothing any more is named, unless the machine could not ask everything.
#[test]
fn rules_for_nothing_are_named() {
    let rule = || Rule {
        number: 3,
        of: &[Library::Libsdp],
        ..Rule::ANY
    };
    let line = "fresh_v6, b: S(recv)(s) = 1\n";
    let found = compared(line, line, &[rule()]);
    assert_eq!(found.stale(Library::Libsdp, &[rule()]), [3]);
    assert!(found.stale(Library::Preload, &[rule()]).is_empty());
    let line = "fresh, b: S(recv)(s) = 1\n";
    let found = compared(line, line, &[rule()]);
    assert!(found.stale(Library::Libsdp, &[rule()]).is_empty());
}

/// Rules have the numbers of their places, which pages refer to, say why, and are of somebody.
#[test]
fn rules_are_numbered_and_explained() {
    for (place, rule) in (1..).zip(RULES) {
        assert_eq!(rule.number, place);
        assert!(!rule.of.is_empty() && rule.why.ends_with('.'), "{place}");
    }
}

/// The page tells each function's verdict.
#[test]
fn the_page_has_what_was_found() {
    let tcp = "a, b: S(recv)(s, MSG_PEEK) = 1\na, b: S(recv)(s, MSG_FIN) = 1\n";
    let ours = "a, b: S(recv)(s, MSG_PEEK) = 1\na, b: S(recv)(s, MSG_FIN) = 2\n";
    let rule = Rule {
        number: 5,
        of: &[Library::Libsdp],
        with: &["MSG_FIN"],
        ..Rule::ANY
    };
    let part = table::part(Library::Libsdp, &compared(tcp, ours, &[rule]));
    assert!(
        part.contains("| `sdp_recv` | 2 | MSG_PEEK | **5** MSG_FIN |\n"),
        "{part}"
    );
}

/// Kernels are told apart by the two numbers that say what they can do.
#[test]
fn the_page_names_its_kernel() {
    let names = ["6.18.44-fc-v657", "6.1.0-35-amd64\n", "6.18"].map(table::written_on);
    assert!(names[0].starts_with("Written on Linux 6.18;"), "{names:?}");
    assert!(names[1].starts_with("Written on Linux 6.1;"), "{names:?}");
    assert_eq!(names[0], names[2]);
}

/// Nothing is run that a filter cannot mean.
#[test]
fn a_filter_names_libraries_or_functions() {
    for (filter, libsdp, preload) in [
        ("", true, true),
        ("recv", true, true),
        ("libsdp", true, false),
        ("preload.recv", false, true),
        ("verbs", false, false),
        ("verbs.sim", false, false),
    ] {
        let may = ["libsdp", "preload"].map(|library| may_have(library, filter));
        assert_eq!(may, [libsdp, preload], "{filter}");
    }
}

/// A check fails for what no rule lists, and says what.
#[test]
fn each_function_has_a_check() {
    let root = Path::new(".");
    let mut report = Started::now().report("conformance", root, None).unwrap();
    let found = compared("a, b: S(recv)(s) = 1\n", "a, b: S(recv)(s) = 2\n", &[]);
    note_functions(Library::Libsdp, &found, &mut report);
    assert_eq!(report.checks[0].name, "conformance.libsdp.recv");
    assert!(!report.passed() && report.checks[0].detail.contains("= 2"));
    let html = html::page(&report).unwrap();
    assert!(html.contains("conformance FAILED") && html.contains("<span class=bad>differs"));
}
