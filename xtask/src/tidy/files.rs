//! Which files the rules apply to.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

/// Endings of the files people write here. Others (test data, licences, the lock file) are left
/// alone.
const ENDINGS: [&str; 10] = [
    ".rs", ".toml", ".md", ".sh", ".c", ".h", ".map", ".yml", ".yaml", ".ci/run",
];

/// The file that marks a folder whose content can be made again (bford.info/cachedir): what cargo
/// downloads has one, and its home may lie in the clone.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// A text file of the workspace.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Path from the root, with `/`.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
}

impl File {
    /// A file for a test of a rule.
    #[cfg(test)]
    pub(super) fn planted(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Whether people wrote code here, as opposed to prose.
    pub(super) fn is_code(&self) -> bool {
        !self.path.ends_with(".md")
    }
}

/// Reads every file the rules apply to.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut paths = match listed_by_git(root) {
        Some(paths) => paths,
        None => walked(root)?,
    };
    leave_out_caches(&mut paths);
    paths.retain(|path| ENDINGS.iter().any(|ending| path.ends_with(ending)));
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let full = root.join(&path);
        // Git still lists a file that was deleted and not yet committed.
        if !full.is_file() {
            continue;
        }
        let text = fs::read_to_string(&full).with_context(|| format!("cannot read {path}"))?;
        files.push(File { path, text });
    }
    anyhow::ensure!(
        !files.is_empty(),
        "found no file to check in {}",
        root.display()
    );
    Ok(files)
}

/// Removes what lies in folders that are marked as caches.
fn leave_out_caches(paths: &mut Vec<String>) {
    let caches: Vec<String> = paths
        .iter()
        .filter_map(|path| path.strip_suffix(CACHE_TAG))
        .filter(|folder| folder.ends_with('/'))
        .map(str::to_owned)
        .collect();
    paths.retain(|path| !caches.iter().any(|cache| path.starts_with(cache)));
}

/// Tracked files, and untracked ones that are not ignored; none without git or outside a clone.
fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = text
        .split('\0')
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
        .collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// Everything but build output and git's own folder.
fn walked(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        let entries =
            fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", full.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            let kind = entry
                .file_type()
                .with_context(|| format!("cannot look at {path}"))?;
            if kind.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_the_folders_are_walked_and_what_can_be_made_again_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/src", "target/debug", ".ci", "ch/registry/src"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        for path in [
            "a/src/lib.rs",
            "target/debug/x.rs",
            ".ci/run",
            "a/data.bin",
            "ch/registry/CACHEDIR.TAG",
            "ch/registry/src/lib.rs",
        ] {
            fs::write(root.path().join(path), "x\n").unwrap();
        }
        let files = read(root.path()).unwrap();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".ci/run", "a/src/lib.rs"]);
    }

    #[test]
    fn an_empty_tree_is_an_error_and_not_a_pass() {
        assert!(read(tempfile::tempdir().unwrap().path()).is_err());
    }
}
