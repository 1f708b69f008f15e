//! The C libraries: their declarations, and how they are opened.

#[rustfmt::skip]
#[allow(
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::missing_safety_doc,
    clippy::use_self,
    clippy::too_many_lines,
    reason = "generated"
)]
mod bindings;
mod open;

pub(super) use bindings::*;
pub(super) use open::{diagnose, library, unavailable};
