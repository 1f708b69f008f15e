//! What a process holds: descriptors, threads, shared mappings, memory.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::allocator::{allocated, trim};

/// How often a process that settles is counted.
const TICK: Duration = Duration::from_millis(50);
/// A process whose counts stand still for this long has settled: a link between two processes
/// stays for a second after its last connection.
const STILL: Duration = Duration::from_millis(1500);
/// How long settling may take.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Counts of one process. Anonymous mappings belong to the allocator and are counted as memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Census {
    /// Open descriptors.
    pub(crate) descriptors: usize,
    /// Threads.
    pub(crate) threads: usize,
    /// Mappings of files and of shared memory.
    pub(crate) maps: usize,
}

/// Resident memory of one process, bytes, after the allocator has given back what it does not
/// use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// All.
    pub(crate) rss: u64,
    /// All, before the allocator gave something back.
    pub(crate) untrimmed: u64,
    /// Private: heap and stacks.
    pub(crate) anonymous: u64,
    /// Shared memory, ours and that of peers.
    pub(crate) shared: u64,
    /// What the program has allocated and not given back, by the allocator's own count; 0 where it
    /// keeps none.
    pub(crate) allocated: u64,
}

impl Census {
    /// Counts this process.
    ///
    /// # Errors
    /// Without /proc.
    pub(crate) fn take() -> anyhow::Result<Self> {
        // The descriptor that reads the directory is in it.
        let descriptors = fs::read_dir("/proc/self/fd")
            .context("/proc/self/fd")?
            .count()
            - 1;
        let threads = fs::read_dir("/proc/self/task")
            .context("/proc/self/task")?
            .count();
        let maps = fs::read_to_string("/proc/self/maps").context("/proc/self/maps")?;
        // Address, rights, offset, device, inode: 0 for what has no file.
        let of_a_file = |line: &&str| line.split_whitespace().nth(4).is_some_and(|i| i != "0");
        let maps = maps.lines().filter(of_a_file).count();
        Ok(Self {
            descriptors,
            threads,
            maps,
        })
    }

    /// Counts this process when it has come to rest, or after ten seconds.
    ///
    /// # Errors
    /// Without /proc.
    pub(crate) fn settled() -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut last = Self::take()?;
        let mut since = began;
        while since.elapsed() < STILL && began.elapsed() < SETTLE_MAX {
            std::thread::sleep(TICK);
            let now = Self::take()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// Whether nothing is more than `before`.
    pub(crate) fn within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.maps <= before.maps
    }
}

impl Memory {
    /// Measures this process.
    ///
    /// # Errors
    /// Without /proc, or if it lacks a line.
    pub(crate) fn measure() -> anyhow::Result<Self> {
        let untrimmed = resident("VmRSS")?;
        trim();
        Ok(Self {
            rss: resident("VmRSS")?,
            untrimmed,
            anonymous: resident("RssAnon")?,
            shared: resident("RssShmem")?,
            allocated: allocated(),
        })
    }
}

/// A line of /proc/self/status, in bytes.
fn resident(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    let kib: u64 = kib
        .and_then(|kib| kib.parse().ok())
        .with_context(|| format!("no {name} in /proc/self/status"))?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn descriptors_and_shared_mappings_are_counted() {
        // Other tests run at the same time, so the counts are only bounded from one side: a
        // hundred more of each is more than they come and go with.
        let before = Census::take().unwrap();
        let fd: OwnedFd =
            rustix::fs::memfd_create("census", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        let held: Vec<_> = (0..100)
            .map(|_| {
                let fd = fd.try_clone().unwrap();
                let map = memmap2::MmapOptions::new().len(4096).map_raw(&fd).unwrap();
                (fd, map)
            })
            .collect();
        let during = Census::take().unwrap();
        assert!(during.descriptors > before.descriptors + 50, "{during:?}");
        assert!(during.maps > before.maps + 50, "{during:?}");
        assert!(!during.within(&before));
        drop(held);
        assert!(during.threads >= 1);
    }

    #[test]
    fn memory_is_measured_in_its_parts() {
        let memory = Memory::measure().unwrap();
        assert!(memory.rss >= memory.anonymous && memory.anonymous > 0);
    }
}
