//! Wrappers around any provider.
//!
//! [`Trace`] counts and logs below everything that is to be judged; [`Lazy`] does everything as
//! late as verbs allow, so that software tested on a provider with instant copies does not come
//! to rely on them; [`Capture`] writes packets for Wireshark. All are providers themselves and may
//! be stacked in any order.

pub mod capture;
pub mod lazy;
pub mod trace;

pub use capture::{Capture, CaptureFile, CaptureOptions};
pub use lazy::Lazy;
pub use trace::{Trace, TraceCounters};
