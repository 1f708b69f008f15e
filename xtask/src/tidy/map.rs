//! The protocol map names files and tests that are there.

use super::Violation;
use super::files::File;

/// The page.
const MAP: &str = "docs/protocol-map.md";

/// Every file and every test that the map names exists. A heading's last word in backticks is the package
/// that what is below it is about; a name that begins with another package and a blank is of that one.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let Some(map) = files.iter().find(|file| file.path == MAP) else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    let mut package = "";
    for (number, line) in (1..).zip(map.text.lines()) {
        if line.starts_with("## ") {
            package = quoted(line).last().unwrap_or("");
        } else {
            let wrong = quoted(line).filter_map(|name| missing(files, package, name));
            violations.extend(wrong.map(|what| Violation::new(MAP, number, what)));
        }
    }
    violations
}

/// What stands in backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// What is wrong with a name, if it is one of a file or a test and there is no such thing.
fn missing(files: &[File], package: &str, name: &str) -> Option<String> {
    let (package, name) = name.split_once(' ').unwrap_or((package, name));
    if name.ends_with(".rs") {
        let path = format!("{package}/{name}");
        let there = files.iter().any(|file| file.path == path);
        return (!there).then(|| format!("there is no file {path}"));
    }
    let (file_name, test) = name.rsplit_once("::")?;
    let is_name = |text: &str| {
        let mut chars = text.chars();
        chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:*".contains(c))
    };
    if !is_name(name) {
        return None;
    }
    let folder = file_name.replace("::", "/");
    let endings = [".rs", "/mod.rs", "/tests.rs"].map(|rest| format!("/{folder}{rest}"));
    let within = format!("{package}/");
    let mut candidates = files.iter().filter(|file| {
        let path = &file.path;
        path.starts_with(&within) && endings.iter().any(|ending| path.ends_with(ending.as_str()))
    });
    let there = candidates.any(|file| test == "*" || defines(file, test));
    (!there).then(|| format!("{package} has no test {name}"))
}

/// The file has a test of this name. One that takes something is called by tests that a macro makes, or is
/// such a test itself.
fn defines(file: &File, test: &str) -> bool {
    let [plain, open, generic] = ["()", "(", "<"].map(|next| format!("fn {test}{next}"));
    let lines: Vec<&str> = file.text.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        if !line.contains(&plain) {
            return line.contains(&open) || line.contains(&generic);
        }
        let above = lines.iter().take(at).rev();
        let mut attributes = above.take_while(|line| line.trim_start().starts_with(['#', '/']));
        attributes.any(|line| line.trim() == "#[test]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(row: &str) -> Vec<String> {
        let map = format!("# Map\n\n## The core (`core`)\n\n| {row} |\n");
        let files = [
            File::planted(MAP, &map),
            File::planted("core/src/a.rs", "fn helper() {}"),
            File::planted(
                "core/src/tests/b.rs",
                "#[test]\n#[ignore]\nfn holds() {}\n\nfn helps() {}\n",
            ),
            File::planted(
                "core/src/e/tests.rs",
                "    #[test]\n    fn stands_apart() {}",
            ),
            File::planted("core/tests/deep/c.rs", "fn is_macro_made(net: &Net) {}"),
            File::planted("other/tests/d.rs", "#[test]\nfn elsewhere() {}"),
        ];
        let violations = check(&files).into_iter();
        violations.map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn what_is_there_passes() {
        for row in [
            "`src/a.rs`, `b::holds`, `b::*`, `e::stands_apart`",
            "`c::is_macro_made`, `deep::c::is_macro_made`",
            "`other d::elsewhere`, `other tests/d.rs`",
            "`CA4-7` is `Head::check` of `HH`",
        ] {
            assert_eq!(found(row), Vec::<String>::new(), "{row}");
        }
    }

    #[test]
    fn what_is_not_there_is_found_with_its_line() {
        for row in [
            "`src/z.rs`",
            "`b::holds_not`",
            "`b::helps`",
            "`a::holds`",
            "`z::*`",
            "`d::elsewhere`",
        ] {
            let violations = found(row);
            assert_eq!(violations.len(), 1, "{row}");
            assert!(
                violations[0].starts_with("docs/protocol-map.md:5:"),
                "{violations:?}"
            );
        }
    }
}
