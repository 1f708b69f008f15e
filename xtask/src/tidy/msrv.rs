//! The oldest compiler is stated once, in the root manifest.

use super::Violation;
use super::files::File;

/// Words that make a version number one of the compiler.
const COMPILER_WORDS: [&str; 5] = ["rust", "rustc", "msrv", "toolchain", "compiler"];

/// `rust-version` only in the root manifest; members inherit it; no prose repeats it.
pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        match name {
            "Cargo.toml" if file.path == "Cargo.toml" => violations.extend(root(file)),
            "Cargo.toml" => violations.extend(member(file)),
            "rust-toolchain" | "rust-toolchain.toml" => violations.push(Violation::new(
                &file.path,
                1,
                "a toolchain file pins the compiler: remove it, Cargo.toml states the oldest one",
            )),
            _ if file.path.ends_with(".rs") => {}
            _ => violations.extend(prose(file)),
        }
    }
    violations
}

fn root(file: &File) -> Option<Violation> {
    let stated = file
        .text
        .lines()
        .filter(|line| line.starts_with("rust-version"))
        .count();
    (stated != 1).then(|| {
        let what = format!("rust-version is stated {stated} times here: state it once");
        Violation::new(&file.path, 1, what)
    })
}

fn member(file: &File) -> Option<Violation> {
    let stated = (1..)
        .zip(file.text.lines())
        .find(|(_, line)| line.starts_with("rust-version"));
    let what = "inherit the oldest compiler: write `rust-version.workspace = true`";
    match stated {
        Some((_, line)) if line.replace(' ', "") == "rust-version.workspace=true" => None,
        Some((line, _)) => Some(Violation::new(&file.path, line, what)),
        // Only a package has one; a bare workspace manifest does not, and a package that is a
        // workspace of its own has nothing to inherit.
        None => (file.text.contains("[package]") && !file.text.contains("[workspace]"))
            .then(|| Violation::new(&file.path, 1, what)),
    }
}

fn prose(file: &File) -> Vec<Violation> {
    let states = |line: &str| {
        let line = line.to_lowercase();
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        let compiler = words.any(|word| COMPILER_WORDS.contains(&word));
        compiler
            && line
                .split(|c: char| !c.is_ascii_digit() && c != '.')
                .any(is_compiler_version)
    };
    (1..)
        .zip(file.text.lines())
        .filter(|(_, line)| states(line))
        .map(|(number, _)| {
            let what = "states a compiler version: point to rust-version in Cargo.toml instead";
            Violation::new(&file.path, number, what)
        })
        .collect()
}

/// `1.56` or later, with or without a patch number: what this project could mean.
fn is_compiler_version(text: &str) -> bool {
    let mut parts = text.trim_end_matches('.').split('.');
    parts.next() == Some("1")
        && parts.next().is_some_and(|minor| {
            minor.len() >= 2 && minor.parse::<u32>().is_ok_and(|minor| minor >= 56)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_of_its_own_inherits_nothing() {
        let member = File::planted("fuzz/Cargo.toml", "[package]\nname = \"x\"\n");
        assert_eq!(check(std::slice::from_ref(&member)).len(), 1);
        let own = File::planted("fuzz/Cargo.toml", "[package]\nname = \"x\"\n[workspace]\n");
        assert_eq!(check(&[own]), []);
    }

    fn count(path: &str, text: &str) -> usize {
        check(&[File::planted(path, text)]).len()
    }

    #[test]
    fn the_root_states_it_exactly_once() {
        assert_eq!(count("Cargo.toml", "rust-version = \"1.95\"\n"), 0);
        assert_eq!(count("Cargo.toml", "[workspace]\n"), 1);
    }

    #[test]
    fn a_member_inherits_it() {
        assert_eq!(
            count("a/Cargo.toml", "[package]\nrust-version.workspace = true\n"),
            0
        );
        assert_eq!(
            count("a/Cargo.toml", "[package]\nrust-version = \"1.95\"\n"),
            1
        );
        assert_eq!(count("a/Cargo.toml", "[package]\nname = \"a\"\n"), 1);
    }

    #[test]
    fn prose_that_repeats_it_is_found_and_other_numbers_are_not() {
        assert_eq!(count("README.md", "Needs Rust 1.95 or newer.\n"), 1);
        assert_eq!(count("CONTRIBUTING.md", "MSRV: 1.80.1\n"), 1);
        assert_eq!(
            count("README.md", "1.95 GB/s, ratio 1.80; Rust is needed.\n"),
            1
        );
        assert_eq!(count("README.md", "1.95 GB/s on the loopback\n"), 0);
        assert_eq!(count("README.md", "Rust, version 2.2 of the protocol\n"), 0);
    }

    #[test]
    fn a_toolchain_file_is_found() {
        assert_eq!(count("rust-toolchain.toml", "[toolchain]\n"), 1);
    }
}
