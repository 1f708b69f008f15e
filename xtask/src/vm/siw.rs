//! The module of software iWARP. Debian ships its source but does not build it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::packages;
use crate::ui::Ui;

/// Where the module goes, from the folder of the kernel's modules.
pub(super) const MODULE: &str = "extra/siw.ko";
/// The driver in the kernel's source.
const SOURCE: &str = "drivers/infiniband/sw/siw";

/// Builds the module of `kernel` in `folder`, which is removed afterwards, and puts it into
/// `modules`.
///
/// # Errors
/// When the packages of this very kernel are not offered any more, or the module does not build.
pub(super) fn build(ui: &Ui, kernel: &str, folder: &Path, modules: &Path) -> anyhow::Result<()> {
    let version = series(kernel).with_context(|| format!("`{kernel}` is no kernel release"))?;
    let headers = format!("linux-headers-{kernel}");
    let common = format!("linux-headers-{}-common", kernel.trim_end_matches("-amd64"));
    let kbuild = format!("linux-kbuild-{version}");
    let source = format!("linux-source-{version}");
    let wanted: [&str; 5] = [
        &headers,
        &common,
        &kbuild,
        "linux-compiler-gcc-12-x86",
        &source,
    ];
    let root = folder.join("root");
    packages::unpack(ui, &wanted, &folder.join("packages"), &root).with_context(|| {
        format!(
            "siw needs the headers of kernel {kernel}: remove its cached guest to take the \
             kernel that Debian offers now"
        )
    })?;
    let driver = folder.join("driver");
    fs::create_dir_all(&driver).with_context(|| format!("cannot make {}", driver.display()))?;
    let mut tar = Command::new("tar");
    tar.arg("-xf")
        .arg(root.join(format!("usr/src/{source}.tar.xz")))
        .arg("-C")
        .arg(&driver)
        .args(["--strip-components=5", &format!("{source}/{SOURCE}")]);
    packages::tool(ui, "unpack the source of siw", tar)?;
    write_makefile(&driver)?;
    let headers = root.join("usr/src").join(headers);
    relocate(&headers.join("Makefile"), &root)?;
    let mut make = Command::new("make");
    make.arg("-s")
        .arg("-C")
        .arg(&headers)
        .arg(format!("M={}", driver.display()))
        .args(["-j2", "modules"]);
    packages::tool(ui, "build siw", make)?;
    let target = modules.join(MODULE);
    let extra = target.parent().context("a file has a folder")?;
    fs::create_dir_all(extra).with_context(|| format!("cannot make {}", extra.display()))?;
    let mut strip = Command::new("strip");
    strip
        .args(["--strip-debug", "-o"])
        .arg(&target)
        .arg(driver.join("siw.ko"));
    packages::tool(ui, "strip siw", strip)?;
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// `6.1` of `6.1.0-40-amd64`.
fn series(kernel: &str) -> Option<&str> {
    let minor = kernel.find('.')? + 1;
    let end = minor + kernel.get(minor..)?.find('.')?;
    kernel.get(..end)
}

/// Replaces the driver's own makefile, which asks the kernel's configuration whether to build.
fn write_makefile(driver: &Path) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for entry in
        fs::read_dir(driver).with_context(|| format!("cannot list {}", driver.display()))?
    {
        let name = entry?.file_name();
        if let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".c")) {
            objects.push(format!("{stem}.o"));
        }
    }
    objects.sort();
    let text = format!("obj-m := siw.o\nsiw-y := {}\n", objects.join(" "));
    let path = driver.join("Makefile");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The headers' makefile names its other half by the place where it would be installed.
fn relocate(makefile: &Path, root: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(makefile)
        .with_context(|| format!("cannot read {}", makefile.display()))?;
    let moved = text.replace("/usr/src/", &format!("{}/usr/src/", root.display()));
    fs::write(makefile, moved).with_context(|| format!("cannot write {}", makefile.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_first_two_numbers() {
        assert_eq!(series("6.1.0-40-amd64"), Some("6.1"));
        assert_eq!(series("6"), None);
        assert_eq!(series("6.1"), None);
    }

    #[test]
    fn the_makefile_names_every_source() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["siw_qp.c", "siw_cm.c", "siw.h"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        write_makefile(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("Makefile")).unwrap();
        assert_eq!(text, "obj-m := siw.o\nsiw-y := siw_cm.o siw_qp.o\n");
    }

    #[test]
    fn the_headers_find_their_other_half_where_it_was_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let makefile = folder.path().join("Makefile");
        fs::write(
            &makefile,
            "include /usr/src/linux-headers-6.1-common/Makefile\n",
        )
        .unwrap();
        relocate(&makefile, Path::new("/cache")).unwrap();
        let text = fs::read_to_string(&makefile).unwrap();
        assert_eq!(
            text,
            "include /cache/usr/src/linux-headers-6.1-common/Makefile\n"
        );
    }
}
