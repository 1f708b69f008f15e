//! A Rust file with its strings and comments told apart from its code.

use super::files::File;

/// A Rust file, seen three ways. All three have the same lines.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The file as it is.
    pub(super) file: &'a File,
    /// Contents of strings and comments blanked.
    pub(super) code: String,
    /// Contents of strings blanked.
    pub(super) said: String,
    /// Number of lines before the tests; all lines in a file without, none in a file of tests.
    pub(super) lines_before_tests: usize,
}

impl<'a> Source<'a> {
    /// None if `file` is not a Rust file.
    pub(super) fn of(file: &'a File) -> Option<Self> {
        if !file.path.ends_with(".rs") {
            return None;
        }
        let (code, said) = Blanker::new(&file.text).run();
        let lines_before_tests = if is_test_file(&file.path) {
            0
        } else {
            lines_before_tests(&code)
        };
        Some(Self {
            file,
            code,
            said,
            lines_before_tests,
        })
    }

    /// Lines of code with their numbers from 1, tests left out.
    pub(super) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines()).take(self.lines_before_tests)
    }
}

/// `tests.rs`, or anything below a folder `tests`.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests")
}

/// Lines before the first `#[cfg(test)]` that is followed by a module with a body. One on a `use`
/// or on `mod tests;` does not make the rest of the file tests.
fn lines_before_tests(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let starts = |at: usize| {
        let line = lines[at];
        let gate = line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
        let item = lines[at + 1..]
            .iter()
            .find(|next| !next.is_empty() && !next.starts_with("#["));
        gate && item.is_some_and(|item| {
            item.split_whitespace().any(|word| word == "mod") && item.ends_with('{')
        })
    };
    (0..lines.len())
        .find(|at| starts(*at))
        .unwrap_or(lines.len())
}

/// Whether `c` can be part of a name.
pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte offsets at which `word` stands alone in `line`.
pub(super) fn words<'t>(line: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    line.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let before = line[..*at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            !before.is_some_and(is_name) && !after.is_some_and(is_name)
        })
}

/// Walks over a Rust file and blanks what is not code.
struct Blanker {
    chars: Vec<char>,
    at: usize,
    code: String,
    said: String,
}

impl Blanker {
    fn new(text: &str) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            code: String::new(),
            said: String::new(),
        }
    }

    fn run(mut self) -> (String, String) {
        while self.at < self.chars.len() {
            let fresh = self.at == 0 || !is_name(self.chars[self.at - 1]);
            if self.sees("//") {
                while self.at < self.chars.len() && self.chars[self.at] != '\n' {
                    self.comment();
                }
            } else if self.sees("/*") {
                self.block_comment();
            } else if let Some(hashes) = self.raw_string().filter(|_| fresh) {
                self.raw(hashes);
            } else if self.sees("\"") {
                self.quoted('"');
            } else if self.sees("'") && self.is_char() {
                self.quoted('\'');
            } else {
                self.keep();
            }
        }
        (self.code, self.said)
    }

    fn sees(&self, what: &str) -> bool {
        what.chars()
            .enumerate()
            .all(|(i, c)| self.chars.get(self.at + i) == Some(&c))
    }

    /// The next character is code.
    fn keep(&mut self) {
        if let Some(&c) = self.chars.get(self.at) {
            self.code.push(c);
            self.said.push(c);
            self.at += 1;
        }
    }

    /// The next character is part of a comment.
    fn comment(&mut self) {
        if let Some(&c) = self.chars.get(self.at) {
            self.code.push(if c == '\n' { '\n' } else { ' ' });
            self.said.push(c);
            self.at += 1;
        }
    }

    /// The next character is part of a string.
    fn hide(&mut self) {
        if let Some(&c) = self.chars.get(self.at) {
            let blank = if c == '\n' { '\n' } else { ' ' };
            self.code.push(blank);
            self.said.push(blank);
            self.at += 1;
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.chars.len() {
            if self.sees("/*") {
                depth += 1;
                self.comment();
            } else if self.sees("*/") {
                depth -= 1;
                self.comment();
            }
            self.comment();
            if depth == 0 {
                break;
            }
        }
    }

    /// A string or character literal, from quote to quote.
    fn quoted(&mut self, quote: char) {
        self.keep();
        while let Some(&c) = self.chars.get(self.at) {
            if c == quote {
                self.keep();
                break;
            }
            if c == '\\' {
                self.hide();
            }
            self.hide();
        }
    }

    /// Whether a quote begins a character and not a lifetime.
    fn is_char(&self) -> bool {
        self.chars.get(self.at + 1) == Some(&'\\') || self.chars.get(self.at + 2) == Some(&'\'')
    }

    /// The number of `#` of a raw string that begins here.
    fn raw_string(&self) -> Option<usize> {
        let mut at = self.at;
        if matches!(self.chars.get(at), Some('b' | 'c')) {
            at += 1;
        }
        if self.chars.get(at) != Some(&'r') {
            return None;
        }
        let hashes = self.chars[at + 1..]
            .iter()
            .take_while(|c| **c == '#')
            .count();
        (self.chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
    }

    fn raw(&mut self, hashes: usize) {
        while !self.sees("\"") {
            self.keep();
        }
        self.keep();
        let end = format!("\"{}", "#".repeat(hashes));
        while self.at < self.chars.len() && !self.sees(&end) {
            self.hide();
        }
        for _ in 0..end.len() {
            self.keep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(text: &str) -> (String, String) {
        Blanker::new(text).run()
    }

    #[test]
    fn comments_and_strings_are_blanked_and_lines_kept() {
        let (code, said) = blank("a(\"un\\\"safe\"); // why\n/* x /* y */ z */ b\n");
        assert_eq!(code, "a(\"        \");       \n                  b\n");
        assert_eq!(said, "a(\"        \"); // why\n/* x /* y */ z */ b\n");
    }

    #[test]
    fn raw_strings_characters_and_lifetimes() {
        assert_eq!(blank("r#\"a \" b\"# c").0, "r#\"     \"# c");
        assert_eq!(blank("'\"' x<'a> '\\'' y").0, "' ' x<'a> '  ' y");
        assert_eq!(blank("for\"x\"").0, "for\" \"");
        assert_eq!(blank("\"a\nb\" c").0, "\" \n \" c");
    }

    #[test]
    fn text_that_ends_in_the_middle_does_not_panic() {
        for text in [
            "\"",
            "'",
            "/*",
            "r#\"",
            "\"\\",
            "b",
            "r",
            "br##\"x\"#",
            "'\\",
        ] {
            blank(text);
        }
    }

    #[test]
    fn tests_begin_at_the_test_module_with_a_body() {
        assert_eq!(lines_before_tests("a\n#[cfg(test)]\nmod tests {\n}\n"), 1);
        assert_eq!(lines_before_tests("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
        assert_eq!(lines_before_tests("#[cfg(test)]\nuse x;\nb\n"), 3);
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(
            words("unsafe_code unsafe", "unsafe").collect::<Vec<_>>(),
            [12]
        );
    }
}
