//! Loose ends and trailing blanks.

use super::Violation;
use super::files::File;
use super::source::{Source, words};

/// Words that promise work instead of doing it.
const LOOSE_ENDS: [&str; 3] = ["TODO", "FIXME", "XXX"];
/// Macros that do the same, or that were left over from a search.
const LOOSE_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// No loose ends in code or comments; no trailing blanks anywhere.
pub(super) fn check(file: &File) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        if line.trim_end() != line {
            violations.push(Violation::new(
                &file.path,
                number,
                "trailing blanks: remove them",
            ));
        }
    }
    let source = Source::of(file);
    let said = source
        .as_ref()
        .map_or(file.text.as_str(), |source| source.said.as_str());
    if file.is_code() {
        for (number, line) in (1..).zip(said.lines()) {
            if let Some(word) = LOOSE_ENDS
                .iter()
                .find(|word| words(line, word).next().is_some())
            {
                let what = format!("`{word}`: do it now, or open an issue and say nothing here");
                violations.push(Violation::new(&file.path, number, what));
            }
        }
    }
    for (number, line) in (1..).zip(source.iter().flat_map(|source| source.code.lines())) {
        let called = |word: &&&str| {
            words(line, word).any(|at| line[at + word.len()..].trim_start().starts_with('!'))
        };
        if let Some(word) = LOOSE_MACROS.iter().find(called) {
            let what = format!("`{word}!`: finish it or remove it");
            violations.push(Violation::new(&file.path, number, what));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&File::planted(path, text)).len()
    }

    #[test]
    fn planted_loose_ends_are_found() {
        for word in LOOSE_ENDS {
            assert_eq!(
                count("a/src/x.rs", &format!("f(); // {word}: later\n")),
                1,
                "{word}"
            );
            assert_eq!(count(".ci/run", &format!("# {word}\n")), 1, "{word}");
        }
        for word in LOOSE_MACROS {
            assert_eq!(count("a/src/x.rs", &format!("{word}!();\n")), 1, "{word}");
        }
    }

    #[test]
    fn strings_and_longer_words_are_free() {
        assert_eq!(
            count("a/src/x.rs", "f(\"TODO\"); let todo_list = XXXX;\n"),
            0
        );
        assert_eq!(count("Cargo.toml", "todo = \"warn\"\n"), 0);
    }

    #[test]
    fn planted_trailing_blanks_are_found() {
        assert_eq!(count("README.md", "a \nb\t\nc\n"), 2);
    }
}
