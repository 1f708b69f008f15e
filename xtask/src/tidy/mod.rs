//! `cargo xtask tidy`: the rules of the house that no compiler checks.

mod banned;
mod direction;
mod files;
mod ignored;
mod length;
mod map;
mod msrv;
mod paths;
mod source;
mod text;
mod unsafety;

use std::fmt;

use crate::diagrams;
use crate::step::Tally;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// One rule broken at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// Path from the root of the workspace.
    file: String,
    /// Line, from 1.
    line: usize,
    /// What is wrong and what to do.
    what: String,
}

impl Violation {
    /// `what` is wrong in `file` at `line`, counted from 1.
    fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Prints every violation; `Ok(true)` exactly when there is none.
///
/// # Errors
/// When a file cannot be read or the output cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui) -> anyhow::Result<bool> {
    let violations = check(workspace)?;
    for violation in &violations {
        ui.line(&violation.to_string())?;
    }
    ui.line(&format!("tidy: {} violations", violations.len()))?;
    Ok(violations.is_empty())
}

/// The same as one step of a longer list.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn tally(workspace: &Workspace) -> anyhow::Result<Tally> {
    let violations = check(workspace)?;
    if violations.is_empty() {
        return Ok(Tally {
            passed: 1,
            ..Tally::default()
        });
    }
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    Ok(Tally::failed(lines.join("\n")))
}

/// Applies every rule to every file.
fn check(workspace: &Workspace) -> anyhow::Result<Vec<Violation>> {
    let files = files::read(&workspace.root)?;
    let mut violations = direction::check(workspace);
    violations.extend(msrv::check(&files));
    violations.extend(unsafety::check_forbidden(&files));
    violations.extend(map::check(&files));
    violations.extend(stale_diagrams(workspace, &files)?);
    for file in &files {
        violations.extend(text::check(file));
        let Some(source) = source::Source::of(file) else {
            continue;
        };
        violations.extend(length::check(&source));
        violations.extend(banned::check(&source));
        violations.extend(unsafety::check(&source));
        violations.extend(ignored::check(&source));
    }
    violations.sort();
    Ok(violations)
}

/// The page of state tables is as the snapshots say.
fn stale_diagrams(
    workspace: &Workspace,
    files: &[files::File],
) -> anyhow::Result<Option<Violation>> {
    let page = diagrams::page(&workspace.root)?;
    let there = files.iter().find(|file| file.path == diagrams::PAGE);
    let stale = there.is_none_or(|file| file.text != page);
    let what = "not as the snapshots are: run `cargo xtask diagrams`";
    Ok(stale.then(|| Violation::new(diagrams::PAGE, 1, what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_tidy() {
        let violations = check(&Workspace::load().unwrap()).unwrap();
        let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
