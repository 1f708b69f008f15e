//! The paths that code names, with the groups of `use` spelled out.

use super::source::is_name;

/// One path and the line of its last part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPath {
    /// Line, from 1.
    pub(super) line: usize,
    /// For example `std::thread::sleep`.
    pub(super) path: String,
}

/// Every path in `code`: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(super) fn named(code: &str) -> Vec<NamedPath> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    // Prefixes of the groups we are in; a brace that opens no group has none.
    let mut groups: Vec<Option<String>> = Vec::new();
    let mut path = String::new();
    let mut at = 0;
    while let Some((line, token)) = tokens.get(at) {
        let next = tokens.get(at + 1).map(|(_, token)| token.as_str());
        match token.as_str() {
            "{" => groups.push(path.ends_with("::").then(|| std::mem::take(&mut path))),
            "}" => {
                groups.pop();
            }
            "::" => path.push_str("::"),
            name if name == "*" && path.ends_with("::") || name.starts_with(is_name) => {
                path.push_str(name);
                if next != Some("::") {
                    let prefix: String = groups.iter().flatten().map(String::as_str).collect();
                    found.push(NamedPath {
                        line: *line,
                        path: format!("{prefix}{path}"),
                    });
                    path.clear();
                }
            }
            _ => path.clear(),
        }
        at += 1;
    }
    found
}

/// Names, `::`, and single other characters, with their lines.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let len = if is_name(first) {
                rest.find(|c| !is_name(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                found.push((line, rest[..len].to_owned()));
            }
            rest = &rest[len..];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        named(code).into_iter().map(|named| named.path).collect()
    }

    #[test]
    fn groups_are_spelled_out() {
        let code = "use std::{io, sync::{self, Arc}, time::*};";
        let expected = [
            "use",
            "std::io",
            "std::sync::self",
            "std::sync::Arc",
            "std::time::*",
        ];
        assert_eq!(paths(code), expected);
    }

    #[test]
    fn braces_of_blocks_are_no_groups() {
        assert_eq!(paths("fn f() { a::b(); } c"), ["fn", "f", "a::b", "c"]);
    }

    #[test]
    fn lines_are_those_of_the_last_part() {
        let found = named("use std::{\n    thread,\n};");
        assert_eq!(
            found[1],
            NamedPath {
                line: 2,
                path: "std::thread".to_owned()
            }
        );
    }
}
