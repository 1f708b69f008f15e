//! How much memory this process may lock, which is what registering it for an adapter comes to.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Users of this process's namespace, and whose they are outside.
const USERS: &str = "/proc/self/uid_map";

/// Bytes of memory that the kernel lets this process lock; `None` without a bound.
///
/// The bound is RLIMIT_MEMLOCK. It does not bind who has CAP_IPC_LOCK in the machine's first user
/// namespace (`ib_umem_get` asks by `capable`); root of a container with users of its own has not.
#[must_use]
pub fn lockable() -> Option<u64> {
    let has =
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    // Where the kernel has no user namespaces there is no such file.
    let is_first = || fs::read_to_string(USERS).map_or(true, |users| is_everybody(&users));
    let limit = getrlimit(Resource::Memlock).current;
    limit.filter(|_| !(has() && is_first()))
}

/// Whether a namespace has all users, each by its own number: the first one has.
fn is_everybody(users: &str) -> bool {
    let numbers = users.split_whitespace().map(|number| number.parse().ok());
    numbers.eq([Some(0), Some(0), Some(u32::MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root of a container that has users of its own is bound by the limit, like everybody.
    #[test]
    fn the_first_namespace_is_told_from_others() {
        assert!(is_everybody("         0          0 4294967295\n"));
        for other in [
            "         0       1000          1\n",
            "         0     100000      65536\n",
            "0 1000 1\n1 100000 65536\n",
            "",
        ] {
            assert!(!is_everybody(other), "{other:?}");
        }
    }
}
