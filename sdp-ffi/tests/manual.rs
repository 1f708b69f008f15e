//! The manual: every function has a page, no page has a function that is not there, and the pages are
//! sound.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::layout::{Tree, copy, functions, names, pages};
use common::{is_there, skipped};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn all() -> Vec<(PathBuf, String)> {
    let found = pages(&package().join("man")).unwrap();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    found.into_iter().map(read).collect()
}

/// Each function of the version script is a name of one page, which declares it; other names are
/// pages' own.
#[test]
fn every_function_has_a_page() {
    let map = fs::read_to_string(package().join("libsdp.map")).unwrap();
    let exported: BTreeSet<String> = functions(&map).into_iter().collect();
    let mut documented = BTreeSet::new();
    for (path, text) in all() {
        let own = path.file_stem().unwrap().to_string_lossy().into_owned();
        let found = names(&text);
        if path.extension().is_some_and(|ending| ending != "3") {
            continue;
        }
        assert!(found.contains(&own), "{own}.3 does not name itself");
        for name in found.into_iter().filter(|name| *name != "libsdp") {
            let declared = [format!(".Fn {name} "), format!(".Fo {name}\n")];
            assert!(
                declared.iter().any(|line| text.contains(line)),
                "{} does not declare {name}",
                path.display()
            );
            assert!(documented.insert(name.clone()), "{name} has two pages");
        }
    }
    assert_eq!(documented, exported);
}

/// Every option that the header speaks of is in the page of options.
#[test]
fn every_option_is_explained() {
    let header = fs::read_to_string(package().join("include/sdp.h")).unwrap();
    let page = fs::read_to_string(package().join("man/sdp_getsockopt.3")).unwrap();
    let about = header
        .split("// Sets an option, as setsockopt(2).")
        .nth(1)
        .and_then(|rest| rest.split("int sdp_getsockopt(").next())
        .unwrap();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut count = 0;
    for word in about.split(|c| !is_name(c)) {
        let kinds = ["SO_", "TCP_", "IP_", "IPV6_", "SDP_"];
        if kinds.iter().any(|kind| word.starts_with(kind)) {
            assert!(page.contains(word), "{word}");
            count += 1;
        }
    }
    assert!(count > 40, "{count} options");
}

/// The pages that lead to others do so by every name, and the page is there.
#[test]
fn every_name_leads_to_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let tree = Tree {
        root: folder.path(),
        prefix: folder.path(),
        put: copy,
    };
    tree.manual(&package().join("man")).unwrap();
    let manual = folder.path().join("share/man");
    let leads = fs::read_to_string(manual.join("man3/sdp_recvmmsg.3")).unwrap();
    assert_eq!(leads, ".so man3/sdp_recv.3\n");
    assert!(manual.join("man3/sdp_recv.3").is_file());
    assert!(manual.join("man7/sdp.7").is_file() && manual.join("man1/sdp.1").is_file());
}

/// The formatters have nothing to say about any page.
#[test]
fn the_pages_are_sound() {
    let lint: &[&str] = if is_there("mandoc") {
        &["mandoc", "-T", "lint", "-W", "warning"]
    } else if is_there("groff") {
        &["groff", "-mandoc", "-ww", "-z"]
    } else {
        return skipped("the_pages_are_sound", "no mandoc and no groff in PATH");
    };
    for (path, _) in all() {
        let mut command = Command::new(lint[0]);
        let output = command.args(&lint[1..]).arg(&path).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
