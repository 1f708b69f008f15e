//! A number that outlives the process which wrote it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

/// A number in memory of the kernel.
#[derive(Debug)]
pub(super) struct Counter {
    file: File,
}

impl Counter {
    /// A new one, 0.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub(super) fn create() -> io::Result<Self> {
        let file = File::from(memfd_create("sdp-kill", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&0u64.to_le_bytes(), 0)?;
        Ok(Self { file })
    }

    /// Where another process of this user finds it.
    pub(super) fn path(&self) -> PathBuf {
        let pid = std::process::id();
        format!("/proc/{pid}/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Opens one of another process.
    ///
    /// # Errors
    /// Those of open.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).open(path)?;
        Ok(Self { file })
    }

    /// Sets it.
    ///
    /// # Errors
    /// Those of write.
    pub(super) fn set(&self, value: u64) -> io::Result<()> {
        self.file.write_all_at(&value.to_le_bytes(), 0)
    }

    /// What it was set to last.
    ///
    /// # Errors
    /// Those of read.
    pub(super) fn get(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_sets_the_other_gets() {
        let counter = Counter::create().unwrap();
        Counter::open(&counter.path())
            .unwrap()
            .set(1 << 40)
            .unwrap();
        assert_eq!(counter.get().unwrap(), 1 << 40);
    }
}
