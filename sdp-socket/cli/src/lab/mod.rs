//! What the tests between processes share: processes that talk, counts of what a process holds,
//! seeded choices.

mod allocator;
mod census;
mod diagnosis;
mod process;
mod rng;

pub(crate) use allocator::use_one_arena;
pub(crate) use census::{Census, Memory};
pub(crate) use diagnosis::keep_what_goes_on;
pub(crate) use process::{Orders, Process, say};
pub(crate) use rng::{Rng, mix};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A seed for a run that was not given one.
pub(crate) fn fresh_seed() -> u64 {
    // A clock before 1970 gives a fixed seed, which is as good as any.
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    // Six digits are easier to type again, and enough.
    mix(u64::from(since.subsec_nanos()) ^ since.as_secs()) % 1_000_000
}
