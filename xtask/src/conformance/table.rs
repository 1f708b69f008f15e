//! What was compared as a part of a page, of which nothing but the results decides.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::differ::{Comparison, Function, Library, Rule};

/// The part of the page about `library`.
pub(crate) fn part(library: Library, found: &Comparison) -> String {
    let (title, prefix, about) = match library {
        Library::Libsdp => (
            "libsdp",
            "sdp_",
            "Each function with `sdp_` before its name; `select` and `epoll` on the descriptor of \
             `sdp_fileno`.",
        ),
        Library::Preload => (
            "The preload library",
            "",
            "The same program with plain sockets under `libsdp_preload.so`, connections by SDP.",
        ),
    };
    let mut text = format!("## {title}\n\n{about}\n\n");
    text.push_str("| Function | Calls | As TCP | Otherwise, by the rule of that number |\n");
    text.push_str("|---|---|---|---|\n");
    for (name, function) in &found.functions {
        let prefix = match &**name {
            "select" | "epoll_ctl" | "epoll_wait" => "",
            _ => prefix,
        };
        // A String takes everything.
        let _ = writeln!(
            text,
            "| `{prefix}{name}` | {} | {} | {} |",
            function.calls,
            same(function),
            otherwise(function)
        );
    }
    text
}

/// The line of the page that says which Linux TCP is of: kernels have more options and flags from version
/// to version. `release` is the kernel's own word.
pub(crate) fn written_on(release: &str) -> String {
    let mut parts = release.trim().split(['.', '-']);
    let [major, minor] = [parts.next(), parts.next()].map(Option::unwrap_or_default);
    format!(
        "Written on Linux {major}.{minor}; on another kernel results are compared, this page is not.\n"
    )
}

/// The rules as a table.
pub(crate) fn rules(rules: &[Rule]) -> String {
    let mut text = "| | Of | |\n|---|---|---|\n".to_owned();
    for rule in rules {
        let of: Vec<&str> = rule.of.iter().map(|library| short(*library)).collect();
        // As above.
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            rule.number,
            of.join(", "),
            rule.why
        );
    }
    text
}

/// The name of a library in checks and tables.
pub(crate) const fn short(library: Library) -> &'static str {
    match library {
        Library::Libsdp => "libsdp",
        Library::Preload => "preload",
    }
}

/// What a topic is called, in a table.
fn called(topic: &str) -> String {
    match topic {
        "" => "other arguments".to_owned(),
        "nowhere" => "memory that is not there".to_owned(),
        "read_only" => "memory that cannot be written".to_owned(),
        "PIECES_MAX" => "1024 pieces".to_owned(),
        other => other.replace('|', "\\|"),
    }
}

fn same(function: &Function) -> String {
    let same = function.topics.iter().filter(|(_, it)| it.rules.is_empty());
    let names: Vec<String> = same.map(|(topic, _)| called(topic)).collect();
    names.join(", ")
}

/// `6: MSG_FIN, MSG_SYN; 2, 9: bind`.
fn otherwise(function: &Function) -> String {
    let mut by_rules: BTreeMap<Vec<u32>, Vec<String>> = BTreeMap::new();
    for (topic, it) in &function.topics {
        if !it.rules.is_empty() {
            let rules = it.rules.iter().copied().collect();
            by_rules.entry(rules).or_default().push(called(topic));
        }
    }
    let parts = by_rules.iter().map(|(rules, topics)| {
        let rules: Vec<String> = rules.iter().map(u32::to_string).collect();
        format!("**{}** {}", rules.join(", "), topics.join(", "))
    });
    parts.collect::<Vec<_>>().join("; ")
}
