//! Wrappers around any provider.
//!
//! [`Trace`] counts and logs below everything that is to be judged; [`Lazy`] does everything as
//! late as verbs allow, so that software tested on a provider with instant copies does not come
//! to rely on them. Both are providers themselves and may be stacked in either order.

pub mod lazy;
pub mod trace;

pub use lazy::Lazy;
pub use trace::{Trace, TraceCounters};
