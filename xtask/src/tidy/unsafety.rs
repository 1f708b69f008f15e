//! Unsafe code only where it is expected and looked at.

use super::Violation;
use super::banned::is_in;
use super::files::File;
use super::source::{Source, words};

/// Roots of the packages without any unsafe code.
const FORBIDDING: [&str; 3] = [
    "sdp-wire/src/lib.rs",
    "sdp-core/src/lib.rs",
    "xtask/src/main.rs",
];

/// A package with some unsafe code.
struct Confined {
    /// Its folder.
    within: &'static str,
    /// The modules that may have any.
    modules: &'static [&'static str],
    /// Whether `unsafe fn` may stand anywhere: it states what callers owe, and the compiler wants
    /// an unsafe block for anything its body does, which is found.
    contracts: bool,
}

const CONFINED: [Confined; 3] = [
    Confined {
        within: "sdp-socket/src/",
        modules: &[
            "sdp-socket/src/driver/regions",
            // An exit handler and a page that fork wipes: there is no safe way to ask for either.
            "sdp-socket/src/park/exit",
            "sdp-socket/src/park/fork",
            // Asking how signals are handled, likewise.
            "sdp-socket/src/park/signals",
        ],
        contracts: false,
    },
    Confined {
        within: "sdp-verbs/src/",
        modules: &[
            "sdp-verbs/src/rdma",
            "sdp-verbs/src/host",
            "sdp-verbs/src/memory",
            // Names for memory, and wrappers that hand the contract of `register` through.
            "sdp-verbs/src/types",
            "sdp-verbs/src/mr",
            "sdp-verbs/src/hook",
            "sdp-verbs/src/sim/provider",
            "sdp-verbs/src/conformance",
        ],
        contracts: true,
    },
    Confined {
        within: "sdp-ffi/src/",
        modules: &[
            // The functions of sdp.h, one file per kind.
            "sdp-ffi/src/socket",
            "sdp-ffi/src/io",
            "sdp-ffi/src/message",
            "sdp-ffi/src/sendfile",
            "sdp-ffi/src/options",
            "sdp-ffi/src/names",
            "sdp-ffi/src/poll",
            "sdp-ffi/src/control",
            "sdp-ffi/src/ioctl",
            "sdp-ffi/src/memory",
            "sdp-ffi/src/version",
            // C's pointers, errno, cancelled threads, and the table that a forked child must not
            // touch.
            "sdp-ffi/src/pointer",
            "sdp-ffi/src/guard",
            "sdp-ffi/src/cancel",
            "sdp-ffi/src/process",
        ],
        contracts: false,
    },
];

/// The compiler itself refuses unsafe code in the packages that promise to have none.
pub(super) fn check_forbidden(files: &[File]) -> Vec<Violation> {
    let forbids = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.and_then(Source::of).is_some_and(|source| {
            let code: String = source.code.split_whitespace().collect();
            code.split("#![forbid(").skip(1).any(|rest| {
                rest.split(')')
                    .next()
                    .is_some_and(|list| list.contains("unsafe_code"))
            })
        })
    };
    FORBIDDING
        .iter()
        .filter(|path| !forbids(path))
        .map(|path| Violation::new(path, 1, "write #![forbid(unsafe_code)] at the top"))
        .collect()
}

/// Unsafe code stays in the modules named for it, tests included.
pub(super) fn check(source: &Source<'_>) -> Vec<Violation> {
    let path = &source.file.path;
    let Some(rule) = CONFINED.iter().find(|rule| path.starts_with(rule.within)) else {
        return Vec::new();
    };
    if rule.modules.iter().any(|module| is_in(path, module)) {
        return Vec::new();
    }
    let found = |line: &str| {
        words(line, "unsafe").any(|at| {
            let next = line[at + "unsafe".len()..].split_whitespace().next();
            !(rule.contracts && next == Some("fn"))
        })
    };
    (1..)
        .zip(source.code.lines())
        .filter(|(_, line)| found(line))
        .map(|(number, _)| {
            let what = format!("unsafe code here: move it to one of {:?}", rule.modules);
            Violation::new(path, number, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Source::of(&File::planted(path, text)).unwrap()).len()
    }

    #[test]
    fn planted_unsafe_code_is_found_outside_its_modules() {
        let text = "unsafe { f() }\n";
        for path in [
            "sdp-socket/src/stream.rs",
            "sdp-socket/src/driver/mod.rs",
            "sdp-verbs/src/caps.rs",
        ] {
            assert_eq!(count(path, text), 1, "{path}");
        }
        for path in [
            "sdp-socket/src/driver/regions.rs",
            "sdp-socket/src/driver/regions/map.rs",
            "sdp-verbs/src/host/link.rs",
            "sdp-verbs/src/memory.rs",
            "sdp-verbs/src/rdma/sys.rs",
        ] {
            assert_eq!(count(path, text), 0, "{path}");
        }
    }

    #[test]
    fn a_contract_may_stand_in_the_vocabulary_of_the_verbs_only() {
        let text = "unsafe fn register(&self);\n";
        assert_eq!(count("sdp-verbs/src/provider.rs", text), 0);
        assert_eq!(count("sdp-socket/src/stream.rs", text), 1);
        assert_eq!(
            count("sdp-verbs/src/provider.rs", "unsafe impl Send for X {}\n"),
            1
        );
    }

    #[test]
    fn the_word_in_comments_strings_and_lints_is_free() {
        let text = "#![deny(unsafe_code)]\n// unsafe\nf(\"unsafe\");\n";
        assert_eq!(count("sdp-socket/src/lib.rs", text), 0);
    }

    #[test]
    fn a_root_that_does_not_forbid_is_found() {
        let good = FORBIDDING.map(|path| File::planted(path, "//! X.\n#![forbid(unsafe_code)]\n"));
        assert_eq!(check_forbidden(&good), []);
        let mut bad = good;
        bad[1].text = "// #![forbid(unsafe_code)]\n".to_owned();
        let found = check_forbidden(&bad);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].file, FORBIDDING[1]);
    }
}
