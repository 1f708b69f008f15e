//! Reading what Rust's test harness prints.

use crate::report::Skipped;
use crate::run::Outcome;
use crate::step::Tally;

/// Reason given to a skipped test that states none.
const NO_REASON: &str = "no reason given: write #[ignore = \"why\"]";

/// Counts the tests of one `cargo test` run.
///
/// A run that fails without a failed test (it does not build, or the harness died) counts as one
/// failure; so does a harness that announced tests and never gave its result.
pub(crate) fn tally(outcome: &Outcome) -> Tally {
    let mut tally = Tally::default();
    let mut ignored = 0;
    let mut unfinished = 0usize;
    let (mut itself, mut passed_names) = (Vec::new(), Vec::new());
    // A test that runs alone has its line begun before it speaks.
    let mut begun = None;
    for line in &outcome.lines {
        begun = line
            .strip_prefix("test ")
            .and_then(|line| line.strip_suffix(" ... "))
            .or(begun);
        if let Some(summary) = line.strip_prefix("test result: ") {
            tally.passed += count(summary, "passed");
            tally.failed += count(summary, "failed");
            ignored += count(summary, "ignored");
            unfinished = unfinished.saturating_sub(1);
        } else if line.starts_with("running ") && line.trim_end().ends_with(['t', 's']) {
            unfinished += usize::from(is_announcement(line));
        } else if let Some(skipped) = skipped(line) {
            tally.skipped.push(skipped);
        } else if let Some(skipped) = skipped_itself(line) {
            if !itself.contains(&skipped) {
                itself.push(skipped);
            }
        } else if let Some(name) = passed(line) {
            passed_names.push(name);
        } else if line == "ok" {
            passed_names.extend(begun.take());
        }
    }
    // The summary is the authority; a test that hides its own line is still listed.
    while tally.skipped.len() < ignored {
        tally.skipped.push(Skipped {
            name: "unnamed test".into(),
            reason: NO_REASON.into(),
        });
    }
    // To the harness a test that found nothing to do has passed; one that left out a part has.
    let whole = itself.iter().filter(|s| passed_names.contains(&&*s.name));
    tally.passed = tally.passed.saturating_sub(whole.count());
    tally.skipped.extend(itself);
    if tally.failed == 0 && (outcome.failure.is_some() || unfinished > 0) {
        tally.failed = 1;
    }
    if tally.failed > 0 {
        let why = outcome
            .failure
            .as_deref()
            .unwrap_or("a test harness gave no result");
        tally.output = format!("{}\n{why}", outcome.lines.join("\n"));
    }
    tally
}

/// One test of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    /// Its path within its program.
    pub(crate) name: String,
    /// What became of it.
    pub(crate) verdict: Verdict,
}

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It was not run, or found itself what it needs missing: the reason.
    Skipped(String),
}

/// The tests of one run, each with what became of it, in the order of their ends.
pub(crate) fn cases(outcome: &Outcome) -> Vec<Case> {
    let itself: Vec<Skipped> = outcome
        .lines
        .iter()
        .filter_map(|l| skipped_itself(l))
        .collect();
    let case = |name: &str, verdict| Case {
        name: name.to_owned(),
        verdict,
    };
    let of = |line: &String| {
        if let Some(name) = passed(line) {
            let left_out = itself.iter().find(|skipped| skipped.name == name);
            let verdict = left_out.map_or(Verdict::Passed, |skipped| {
                Verdict::Skipped(skipped.reason.clone())
            });
            return Some(case(name, verdict));
        }
        if let Some(name) = failed(line) {
            return Some(case(name, Verdict::Failed));
        }
        skipped(line).map(|it| case(&it.name, Verdict::Skipped(it.reason)))
    };
    outcome.lines.iter().filter_map(of).collect()
}

/// Whether `line` is `running N tests`.
fn is_announcement(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let number = words
        .next()
        .is_some_and(|word| word.parse::<usize>().is_ok());
    number && matches!(words.next(), Some("test" | "tests")) && words.next().is_none()
}

/// The number before `word` in `ok. 2 passed; 0 failed; …`.
fn count(summary: &str, word: &str) -> usize {
    summary
        .split([';', '.'])
        .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
        .unwrap_or(0)
}

/// `test NAME ... ignored, REASON`.
fn skipped(line: &str) -> Option<Skipped> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = match outcome.trim() {
        "ignored" => NO_REASON,
        other => other.strip_prefix("ignored, ")?,
    };
    Some(Skipped {
        name: name.to_owned(),
        reason: reason.to_owned(),
    })
}

/// `test NAME ... ok`.
fn passed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... ok")
}

/// `test NAME ... FAILED`.
fn failed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// `skipped NAME: REASON`, by a test that found what it needs missing when it ran, or a part of
/// one.
fn skipped_itself(line: &str) -> Option<Skipped> {
    let (name, reason) = line.strip_prefix("skipped ")?.split_once(": ")?;
    Some(Skipped {
        name: name.to_owned(),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str, failure: Option<&str>) -> Outcome {
        let lines = text.lines().map(str::to_owned).collect();
        Outcome {
            lines,
            failure: failure.map(str::to_owned),
        }
    }

    const GREEN: &str = "\
running 3 tests
test a::one ... ok
test a::two ... ok
test hw::three ... ignored, needs an RDMA adapter

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests sdp_wire

running 1 test
test src/lib.rs - f (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s";

    #[test]
    fn sums_every_harness_and_keeps_reasons() {
        let tally = tally(&outcome(GREEN, None));
        assert_eq!((tally.passed, tally.failed), (3, 0));
        let expected = Skipped {
            name: "hw::three".to_owned(),
            reason: "needs an RDMA adapter".to_owned(),
        };
        assert_eq!(tally.skipped, [expected]);
        assert!(tally.output.is_empty());
    }

    #[test]
    fn each_test_has_its_verdict() {
        let text = "running 4 tests\ntest a::one ... ok\n\nskipped b: absent: Caps(X)\n\n\
            test b ... ok\ntest c ... FAILED\ntest d ... ignored, needs a device\n";
        let found: Vec<(String, Verdict)> = cases(&outcome(text, Some("exit status: 101")))
            .into_iter()
            .map(|it| (it.name, it.verdict))
            .collect();
        let skipped = |reason: &str| Verdict::Skipped(reason.to_owned());
        let expected = [
            ("a::one", Verdict::Passed),
            ("b", skipped("absent: Caps(X)")),
            ("c", Verdict::Failed),
            ("d", skipped("needs a device")),
        ];
        assert_eq!(found, expected.map(|(name, it)| (name.to_owned(), it)));
    }

    #[test]
    fn failed_tests_are_counted_and_the_output_is_kept() {
        let text = "running 2 tests\ntest a ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = tally(&outcome(text, Some("exit status: 101")));
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert!(tally.output.contains("test a ... FAILED"));
    }

    #[test]
    fn a_build_that_fails_is_a_failure() {
        let tally = tally(&outcome(
            "error: could not compile",
            Some("exit status: 101"),
        ));
        assert_eq!(tally.failed, 1);
    }

    #[test]
    fn a_harness_without_a_result_is_a_failure_even_with_exit_0() {
        assert_eq!(
            tally(&outcome("running 2 tests\ntest a ... ok", None)).failed,
            1
        );
    }

    #[test]
    fn a_test_that_skips_itself_has_not_passed() {
        let text = "running 2 tests\n\nskipped b: no valgrind in PATH\n\n\
            skipped part of a: no c++ in PATH\n\nskipped part of a: no c++ in PATH\n\
            test a ... ok\ntest b ... ok\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = tally(&outcome(text, None));
        assert_eq!(tally.passed, 1);
        let names: Vec<_> = tally.skipped.iter().map(|s| &*s.name).collect();
        assert_eq!(names, ["b", "part of a"]);
    }

    #[test]
    fn so_has_one_that_runs_alone() {
        let text = "running 2 tests\ntest a ... \nskipped a: no c++ in PATH\nok\ntest b ... ok\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = tally(&outcome(text, None));
        assert_eq!((tally.passed, tally.skipped.len()), (1, 1));
    }

    #[test]
    fn a_skip_without_reason_says_so() {
        let text = "running 1 test\ntest a ... ignored\n\
            test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        let tally = tally(&outcome(text, None));
        assert_eq!(tally.skipped.len(), 1);
        assert!(tally.skipped[0].reason.contains("no reason"));
    }
}
