//! Clocks, threads and locks only where they belong.

use super::Violation;
use super::paths::{NamedPath, named};
use super::source::{Source, words};

/// What a package may not name in its product code.
struct Ban {
    /// Folder it holds for.
    within: &'static str,
    /// Modules (a file or a folder) it does not hold for.
    but: &'static [&'static str],
    /// Paths, with all that is below them.
    paths: &'static [&'static str],
    /// Types, wherever they come from.
    types: &'static [&'static str],
    /// Functions, wherever they come from.
    calls: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
}

const BANS: [Ban; 2] = [
    Ban {
        within: "sdp-core/src/",
        but: &[],
        paths: &[
            "std::thread",
            "std::time",
            "std::sync",
            "std::net",
            "std::io",
            "std::fs",
        ],
        types: &["Condvar", "Mutex", "RwLock", "SystemTime"],
        calls: &["sleep"],
        instead: "the core has no clock, thread, lock or I/O: take it as an argument, give it as an \
                  action",
    },
    Ban {
        within: "sdp-socket/src/",
        but: &["sdp-socket/src/park"],
        paths: &["std::thread", "std::time::Instant"],
        types: &["Condvar"],
        calls: &["sleep"],
        instead: "waiting and clocks live in sdp-socket/src/park: call it",
    },
];

/// No clock, thread or wait outside the one module that has them.
pub(super) fn check(source: &Source<'_>) -> Vec<Violation> {
    let path = &source.file.path;
    let Some(ban) = BANS.iter().find(|ban| path.starts_with(ban.within)) else {
        return Vec::new();
    };
    if ban.but.iter().any(|module| is_in(path, module)) {
        return Vec::new();
    }
    let product: Vec<&str> = source.product_lines().map(|(_, line)| line).collect();
    let mut violations: Vec<Violation> = named(&product.join("\n"))
        .iter()
        .filter_map(|named| breaks(ban, named).map(|what| (named.line, what)))
        .map(|(line, what)| Violation::new(path, line, format!("`{what}`: {}", ban.instead)))
        .collect();
    for (number, line) in source.product_lines() {
        let call = |word: &&&str| {
            words(line, word).any(|at| {
                let declared = line[..at].trim_end().ends_with("fn");
                !declared && line[at + word.len()..].trim_start().starts_with('(')
            })
        };
        if let Some(word) = ban.calls.iter().find(call) {
            let what = format!("`{word}()`: {}", ban.instead);
            violations.push(Violation::new(path, number, what));
        }
    }
    violations
}

/// Whether `path` is the module `module`: its file, or a file below its folder.
pub(super) fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The banned thing that `named` names.
fn breaks(ban: &Ban, named: &NamedPath) -> Option<String> {
    let path = named
        .path
        .trim_start_matches("::")
        .trim_end_matches("::self");
    // A glob, or a module that leads to the banned thing, is as good as naming it.
    let open = path.trim_end_matches("::*");
    let below = |banned: &&&str| {
        let leads = open.contains("::") && banned.starts_with(&format!("{open}::"));
        open == **banned || path.starts_with(&format!("{banned}::")) || leads
    };
    let by_path = ban
        .paths
        .iter()
        .find(below)
        .map(|banned| (*banned).to_owned());
    let by_type = || {
        let last = path.split("::").find(|part| ban.types.contains(part));
        last.map(str::to_owned)
    };
    by_path.or_else(by_type)
}

#[cfg(test)]
mod tests {
    use super::super::files::File;
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let file = File::planted(path, text);
        let mut lines: Vec<usize> = check(&Source::of(&file).unwrap())
            .into_iter()
            .map(|v| v.line)
            .collect();
        lines.dedup();
        lines
    }

    #[test]
    fn planted_clocks_threads_and_waits_are_found_in_the_socket() {
        for text in [
            "use std::thread;\n",
            "use std::{io, thread};\n",
            "let t = std::time::Instant::now();\n",
            "use std::time::{Duration, Instant};\n",
            "use std::time;\n",
            "use std::time::*;\n",
            "use std::sync::{Arc, Condvar};\n",
            "nap::sleep(x);\n",
        ] {
            assert_eq!(lines("sdp-socket/src/stream.rs", text), [1], "{text}");
        }
    }

    #[test]
    fn park_tests_comments_and_durations_are_free() {
        let path = "sdp-socket/src/stream.rs";
        assert_eq!(lines("sdp-socket/src/park.rs", "use std::thread;\n"), NONE);
        assert_eq!(
            lines("sdp-socket/src/park/futex.rs", "use std::thread;\n"),
            NONE
        );
        assert_eq!(
            lines("sdp-socket/tests/pair.rs", "use std::thread;\n"),
            NONE
        );
        assert_eq!(
            lines("sdp-socket/cli/src/main.rs", "use std::thread;\n"),
            NONE
        );
        assert_eq!(
            lines(path, "// std::thread\nuse std::time::Duration;\n"),
            NONE
        );
        assert_eq!(
            lines(path, "#[cfg(test)]\nmod tests {\n    use std::thread;\n}\n"),
            NONE
        );
        assert_eq!(
            lines(path, "Wait::Sleep; w.sleep_max; enum W { sleep }\n"),
            NONE
        );
        assert_eq!(
            lines("sdp-socket/src/parking.rs", "use std::thread;\n"),
            [1]
        );
    }

    #[test]
    fn the_core_has_no_clock_lock_thread_or_io_at_all() {
        let path = "sdp-core/src/connection/mod.rs";
        for text in [
            "use std::sync::Arc;\n",
            "use std::time::Duration;\n",
            "std::io::stdout();\n",
        ] {
            assert_eq!(lines(path, text), [1], "{text}");
        }
        assert_eq!(
            lines(path, "use core::time::Duration;\nuse alloc::vec::Vec;\n"),
            NONE
        );
    }
}
