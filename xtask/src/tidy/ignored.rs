//! A skipped test says why.

use super::Violation;
use super::source::{Source, words};

const WHAT: &str = "a test skipped without a reason: write #[ignore = \"why\"]";
const WHAT_DOC: &str =
    "a doctest skipped without a reason: use `no_run`, or `text` if it is no code";

/// Every `ignore` attribute has a reason, and no doctest is skipped.
pub(super) fn check(source: &Source<'_>) -> Vec<Violation> {
    let path = &source.file.path;
    let lines = source.code.lines().zip(source.file.text.lines());
    let mut violations = Vec::new();
    for (number, (code, text)) in (1..).zip(lines) {
        let bare = words(code, "ignore").any(|at| {
            let opens = code[..at].trim_end();
            let attribute = opens.ends_with("#[")
                || opens.contains("cfg_attr(") && (opens.ends_with(',') || opens.ends_with('('));
            attribute && !has_reason(text, code, at + "ignore".len())
        });
        if bare {
            violations.push(Violation::new(path, number, WHAT));
        }
        if is_skipped_doctest(text) {
            violations.push(Violation::new(path, number, WHAT_DOC));
        }
    }
    violations
}

/// Whether `= "something"`, or a macro's argument, follows at character `at`. `code` is `text` with
/// strings blanked.
fn has_reason(text: &str, code: &str, at: usize) -> bool {
    // Same characters, perhaps not the same bytes: strings were blanked one character each.
    let skip = code[..at].chars().count();
    let rest: String = text.chars().skip(skip).collect();
    let reason = rest.trim_start().strip_prefix('=').map(str::trim_start);
    if reason.is_some_and(|rest| rest.starts_with('$')) {
        return true;
    }
    let reason = reason.and_then(|rest| rest.strip_prefix('"'));
    reason.is_some_and(|rest| {
        rest.split('"')
            .next()
            .is_some_and(|why| !why.trim().is_empty())
    })
}

/// A code fence in a doc comment with the word `ignore`.
fn is_skipped_doctest(text: &str) -> bool {
    let text = text.trim_start();
    let doc = text
        .strip_prefix("///")
        .or_else(|| text.strip_prefix("//!"));
    let fence = doc.and_then(|doc| doc.trim_start().strip_prefix("```"));
    fence.is_some_and(|tags| tags.split([',', ' ']).any(|tag| tag.trim() == "ignore"))
}

#[cfg(test)]
mod tests {
    use super::super::files::File;
    use super::*;

    fn count(text: &str) -> usize {
        check(&Source::of(&File::planted("a/src/x.rs", text)).unwrap()).len()
    }

    #[test]
    fn planted_skips_without_reason_are_found() {
        assert_eq!(count("    #[ignore]\n"), 1);
        assert_eq!(count("#[ignore = \"\"]\n"), 1);
        assert_eq!(count("#[cfg_attr(miri, ignore)]\n"), 1);
        assert_eq!(count("/// ```ignore\n"), 1);
        assert_eq!(count("//! ```rust,ignore\n"), 1);
    }

    #[test]
    fn reasons_and_other_uses_of_the_word_are_free() {
        assert_eq!(count("#[ignore = \"needs an adapter\"]\n"), 0);
        assert_eq!(count("#[cfg_attr(miri, ignore = \"too slow\")]\n"), 0);
        assert_eq!(
            count("// #[ignore]\nlet ignore = 1;\nf(\"#[ignore]\");\n"),
            0
        );
        assert_eq!(count("/// ```no_run\n"), 0);
    }
}
