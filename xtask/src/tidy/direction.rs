//! Which package may depend on which.

use super::Violation;
use crate::workspace::{Package, Workspace};

/// Every package of the workspace and the packages of the workspace it may depend on, in any way:
/// as an ordinary, build or test dependency.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("sdp-wire", &[]),
    ("sdp-verbs", &[]),
    ("sdp-core", &["sdp-wire"]),
    ("sdp-socket", &["sdp-wire", "sdp-core", "sdp-verbs"]),
    ("sdp-cli", &["sdp-socket"]),
    (
        "sdp-sim",
        &["sdp-core", "sdp-socket", "sdp-verbs", "sdp-wire"],
    ),
    ("sdp-ffi", &["sdp-socket"]),
    ("sdp-preload", &["sdp-ffi", "sdp-socket"]),
    ("xtask", &[]),
];

/// Dependencies point one way: the state machine and the verbs never see each other.
pub(super) fn check(workspace: &Workspace) -> Vec<Violation> {
    workspace
        .packages
        .iter()
        .flat_map(|package| check_package(workspace, package))
        .collect()
}

fn check_package(workspace: &Workspace, package: &Package) -> Vec<Violation> {
    let manifest = package.manifest_path.strip_prefix(&workspace.root);
    let file = manifest
        .unwrap_or(&package.manifest_path)
        .to_string_lossy()
        .into_owned();
    let name = &package.name;
    let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| known == name) else {
        let what = format!("{name} is new: say in xtask/src/tidy/direction.rs what it may use");
        return vec![Violation::new(&file, 1, what)];
    };
    let ours = package
        .dependencies
        .iter()
        .filter(|d| workspace.package(&d.name).is_some());
    ours.filter(|dependency| !allowed.contains(&dependency.name.as_str()))
        .map(|dependency| {
            let kind = dependency.kind.as_deref().unwrap_or("normal");
            let what = format!(
                "{name} must not depend on {} ({kind}): allowed are {allowed:?}",
                dependency.name
            );
            Violation::new(&file, 1, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies.iter().map(|(name, kind)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        });
        Package {
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
            manifest_path: PathBuf::from(format!("/w/{name}/Cargo.toml")),
            dependencies: dependencies.collect(),
            targets: Vec::new(),
        }
    }

    fn violations(packages: Vec<Package>) -> Vec<Violation> {
        let (root, target) = (PathBuf::from("/w"), PathBuf::from("/w/target"));
        check(&Workspace {
            packages,
            root,
            target,
        })
    }

    #[test]
    fn the_allowed_directions_pass() {
        let packages = vec![
            package("sdp-wire", &[("bitflags", None)]),
            package("sdp-core", &[("sdp-wire", None)]),
        ];
        assert_eq!(violations(packages), []);
    }

    #[test]
    fn a_planted_dependency_is_found_even_for_tests_only() {
        for kind in [None, Some("dev"), Some("build")] {
            let packages = vec![
                package("sdp-verbs", &[]),
                package("sdp-core", &[("sdp-verbs", kind)]),
            ];
            let found = violations(packages);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].file, "sdp-core/Cargo.toml");
            assert!(found[0].what.contains("sdp-verbs"));
        }
    }

    #[test]
    fn an_unknown_package_must_be_placed() {
        assert_eq!(violations(vec![package("sdp-new", &[])]).len(), 1);
    }
}
