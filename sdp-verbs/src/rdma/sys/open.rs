//! Opening the libraries at run time, and what a machine lacks that has no RDMA.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use super::Library;
use crate::error::VerbsError;
use crate::rdma::NAME;

/// The verbs, and the connection manager, which needs them.
const VERBS: &str = "libibverbs.so.1";
const CM: &str = "librdmacm.so.1";

/// Opened once, for as long as the process lives.
static LIBRARY: OnceLock<(Library, u32)> = OnceLock::new();

pub(in crate::rdma) fn unavailable(reason: impl Into<String>) -> VerbsError {
    VerbsError::Unavailable {
        provider: NAME,
        reason: reason.into(),
    }
}

/// Both libraries.
///
/// # Errors
/// [`VerbsError::Unavailable`]: one is not installed, or a parent process has used them.
pub(in crate::rdma) fn library() -> Result<&'static Library, VerbsError> {
    let (library, owner) = match LIBRARY.get() {
        Some(opened) => opened,
        None => {
            let opened = (open()?, std::process::id());
            LIBRARY.get_or_init(|| opened)
        }
    };
    if *owner != std::process::id() {
        return Err(unavailable(format!(
            "this process was forked from process {owner}, which had opened {VERBS}; the library \
             does not survive a fork: open sockets in the child before the parent does, or exec"
        )));
    }
    Ok(library)
}

fn open() -> Result<Library, VerbsError> {
    let failed = |name: &str, package: &str, error: libloading::Error| {
        unavailable(format!(
            "{name} cannot be opened ({error}): install rdma-core ({package} on Debian and Ubuntu)"
        ))
    };
    // SAFETY: rdma-core's library has no initialiser with preconditions.
    let verbs = unsafe { libloading::Library::new(VERBS) };
    let verbs = verbs.map_err(|e| failed(VERBS, "libibverbs1 ibverbs-providers", e))?;
    // SAFETY: as above. Its symbols include those of the verbs, which it is linked with.
    let cm = unsafe { libloading::Library::new(CM) };
    let cm = cm.map_err(|e| failed(CM, "librdmacm1", e))?;
    // SAFETY: the declarations were generated from the libraries' headers, whose functions keep
    // their meaning under this major version.
    let library = unsafe { Library::from_library(cm) };
    let library = library.map_err(|e| failed(CM, "librdmacm1, at least version 23", e))?;
    if !copies_on_fork(&rustix::system::uname().release().to_string_lossy()) {
        keep_from_children(&library);
    }
    // Kept open by the connection manager's own dependency.
    drop(verbs);
    Ok(library)
}

/// The first kernel that says, by the attribute COPY_ON_FORK of its device link, that a forked child
/// gets copies of the pages that a device uses.
const COPIES_FROM: (u32, u32) = (5, 13);

/// Whether a forked child gets copies of the pages that a device uses. Where it does not, such a page
/// that the parent writes after a fork is the parent's copy, and the device goes on with the old one:
/// queues stand still, and other bytes are sent than were written.
fn copies_on_fork(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    number()
        .zip(number())
        .is_some_and(|version| version >= COPIES_FROM)
}

/// Has the library keep its queues, and what is registered, out of forked children (ibv_fork_init(3)).
fn keep_from_children(library: &Library) {
    // SAFETY: no preconditions; nothing of the library's has been made yet by us.
    let returned = unsafe { library.ibv_fork_init() };
    if returned != 0 {
        // EINVAL: the program has used the library before.
        let error = io::Error::from_raw_os_error(returned);
        tracing::warn!(
            "ibv_fork_init: {error}: fork only to exec, by posix_spawn, or set RDMAV_FORK_SAFE=1"
        );
    }
}

/// What this machine lacks, with the remedy; `None` if everything seems to be there.
pub(in crate::rdma) fn diagnose(sys: &Path, dev: &Path) -> Option<String> {
    let holds_any =
        |path: &Path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if !holds_any(&sys.join("class/infiniband")) {
        return Some(
            "no RDMA device: load the adapter's driver, or make a software one: `modprobe \
             rdma_rxe && rdma link add rxe0 type rxe netdev eth0`"
                .to_owned(),
        );
    }
    if !holds_any(&sys.join("class/infiniband_verbs")) {
        return Some("kernel module ib_uverbs is not loaded: `modprobe ib_uverbs`".to_owned());
    }
    let opens = |name: &str| {
        let path = dev.join("infiniband").join(name);
        let opened = fs::OpenOptions::new().read(true).write(true).open(&path);
        opened.map(drop).map_err(|error| (path, error))
    };
    let cm = match opens("rdma_cm") {
        Err((_, error))
            if error.kind() == io::ErrorKind::NotFound
                && !sys.join("class/misc/rdma_cm").exists() =>
        {
            return Some("kernel module rdma_ucm is not loaded: `modprobe rdma_ucm`".to_owned());
        }
        other => other,
    };
    // One device that opens is enough.
    let mut devices = uverbs(sys).into_iter().map(|name| opens(&name));
    let device = match devices.next() {
        Some(Err(first)) if !devices.any(|opened| opened.is_ok()) => Err(first),
        _ => Ok(()),
    };
    cm.and(device)
        .err()
        .map(|(path, error)| unopened(&path, &error))
}

/// The kernel's names of the devices' nodes.
fn uverbs(sys: &Path) -> Vec<String> {
    let entries = fs::read_dir(sys.join("class/infiniband_verbs"));
    let names = entries.into_iter().flatten().flatten();
    let mut names: Vec<_> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("uverbs"))
        .collect();
    names.sort();
    names
}

/// Why a node of the kernel's could not be opened, with the remedy.
fn unopened(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{path} is not there: a container must be given the nodes of /dev/infiniband (docker: \
             --device), elsewhere udev makes them"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "no permission to open {path}: give this user the group that owns /dev/infiniband (often \
             `rdma`), have udev set mode 0666 as rdma-core's rules do, or permit a container the device"
        ),
        _ => format!("{path} cannot be opened: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernels that do not copy what a device uses are told from those that do.
    #[test]
    fn kernels_that_copy_on_fork() {
        for (release, copies) in [
            ("5.4.0-150-generic", false),
            ("5.10.0-28-amd64", false),
            ("5.13.0", true),
            ("6.1.0-28-amd64", true),
            ("10.0", true),
            ("strange", false),
        ] {
            assert_eq!(copies_on_fork(release), copies, "{release}");
        }
    }

    /// Each thing that is missing is named, in the order in which one would supply it.
    #[test]
    fn what_is_missing_is_named() {
        let root = std::env::temp_dir().join(format!("sdp-diagnose-{}", std::process::id()));
        let (sys, dev) = (root.join("sys"), root.join("dev"));
        let said = || diagnose(&sys, &dev).unwrap_or_default();
        assert!(said().contains("rdma link add"), "{}", said());
        fs::create_dir_all(sys.join("class/infiniband/rxe0")).unwrap();
        assert!(said().contains("modprobe ib_uverbs"), "{}", said());
        fs::create_dir_all(sys.join("class/infiniband_verbs/uverbs0")).unwrap();
        assert!(said().contains("modprobe rdma_ucm"), "{}", said());
        fs::create_dir_all(sys.join("class/misc/rdma_cm")).unwrap();
        assert!(said().contains("rdma_cm is not there"), "{}", said());
        fs::create_dir_all(dev.join("infiniband")).unwrap();
        fs::write(dev.join("infiniband/rdma_cm"), b"").unwrap();
        assert!(said().contains("uverbs0 is not there"), "{}", said());
        fs::create_dir_all(sys.join("class/infiniband_verbs/uverbs1")).unwrap();
        assert!(said().contains("uverbs0 is not there"), "{}", said());
        fs::write(dev.join("infiniband/uverbs1"), b"").unwrap();
        assert_eq!(said(), "");
        fs::remove_dir_all(&root).unwrap();
    }
}
