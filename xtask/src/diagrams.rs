//! `cargo xtask diagrams`: docs/state-tables.md, from the snapshots that sdp-core's tests check.
//!
//! The snapshots say what the engine does; the page shows them to people. `cargo xtask tidy` fails
//! while the page is not as the snapshots are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::ui::Ui;
use crate::workspace::Workspace;

/// The page, from the root.
pub(crate) const PAGE: &str = "docs/state-tables.md";
/// Where the snapshots are.
const TESTS: &str = "sdp-core/src/tests";

const HEAD: &str = "# States

Written by `cargo xtask diagrams` from the snapshots in `sdp-core/src/tests`, which
`sdp-core table::*` compares with what the engine does. Do not edit it by hand.

";
const PHASES: &str = "## Phases of a connection

What takes a connection from one phase to the next: a message of the peer's, or a call of the
program's. `close()` with bytes unread is an abort.

";
const MODES: &str = "## Modes of the receiving half

What the peer's ModeChange does to the half this side receives on. Every change that is not drawn
breaks a rule and ends the connection. The sending half mirrors it: there the peer is told.

";
const TABLE: &str = "## Every message in every state

`-`: the message is taken. `+`: it is, and answered at once. `end`: the stream ends in good order.
`reset`: the peer gave up. `§`: the clause whose rule it breaks; the connection ends.

";

const UNREACHABLE: &str = "
## What no run of the simulator reaches

Everything else that is legal above must come in `cargo xtask sim --minutes 10`, and none of this
in any run.

";
/// Where the reasons for that are, from the root.
const REASONS: &str = "sdp-socket/sim/src/judge/unreachable.md";

/// Writes the page.
///
/// # Errors
/// When a snapshot cannot be read or understood, or the page cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui) -> anyhow::Result<bool> {
    let path = workspace.root.join(PAGE);
    fs::write(&path, page(&workspace.root)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    ui.line(&format!("wrote {}", path.display()))?;
    Ok(true)
}

/// What should be on the page.
///
/// # Errors
/// When a snapshot cannot be read or understood.
pub(crate) fn page(root: &Path) -> anyhow::Result<String> {
    let read_file = |name: &Path| {
        let path = root.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let read = |name: &str| read_file(&Path::new(TESTS).join(name));
    Ok([
        HEAD,
        PHASES,
        &diagram(&read("phases.txt")?)?,
        MODES,
        &diagram(&read("modes.txt")?)?,
        TABLE,
        &read("table.md")?,
        UNREACHABLE,
        &read_file(Path::new(REASONS))?,
    ]
    .concat())
}

/// Lines `from --input--> to` as a diagram. What ends the connection by a broken rule is left out
/// where it has no state of its own.
fn diagram(lines: &str) -> anyhow::Result<String> {
    let mut edges: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for line in lines.lines() {
        let parts = line.split_once(" --").and_then(|(from, rest)| {
            let (input, to) = rest.split_once("--> ")?;
            Some((from, input, to))
        });
        let Some((from, input, to)) = parts else {
            bail!("not a transition: {line}");
        };
        if to != "end" {
            edges.entry((from, to)).or_default().push(input);
        }
    }
    let mut out = "```mermaid\nstateDiagram-v2\n".to_owned();
    for ((from, to), inputs) in edges {
        // A String takes everything.
        let _ = writeln!(out, "    {from} --> {to} : {}", inputs.join(", "));
    }
    out.push_str("```\n\n");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_become_edges_and_what_goes_the_same_way_one_edge() {
        let lines = "A --x--> B\nA --y z--> B\nB --x--> end\n";
        let expected = "```mermaid\nstateDiagram-v2\n    A --> B : x, y z\n```\n\n";
        assert_eq!(diagram(lines).unwrap(), expected);
        assert!(diagram("A x B\n").is_err());
    }
}
