//! Wrappers around any provider.
//!
//! [`Trace`] counts and logs below everything that is to be judged; [`Lazy`] does everything as
//! late as verbs allow, so that software tested on a provider with instant copies does not come
//! to rely on them; [`Capture`] writes packets for Wireshark. All are providers themselves and may
//! be stacked in any order.

pub mod capture;
mod forward;
pub mod lazy;
mod per_qp;
mod regions;
pub mod trace;

use crate::types::Sge;

pub use capture::{Capture, CaptureFile, CaptureOptions};
pub use lazy::Lazy;
pub use trace::{Trace, TraceCounters};

/// Bytes named by a list of elements; lengths that no memory has do not wrap around.
fn sge_bytes(sges: &[Sge]) -> usize {
    sges.iter().fold(0, |sum, sge| sum.saturating_add(sge.len))
}
