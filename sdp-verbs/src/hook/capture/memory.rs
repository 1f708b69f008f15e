//! What lies in registered memory, to be shown.

use std::ptr::NonNull;

use crate::hook::regions::Regions;
use crate::hook::sge_bytes;
use crate::memory::ForeignSlice;
use crate::mr::MemoryRegion;
use crate::types::Sge;

/// Copies up to `max` bytes out of what a request of this process names. It ends early where the
/// request names memory that its key does not cover.
pub(super) fn copy(regions: &Regions, sges: &[Sge], max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(sge_bytes(sges).min(max));
    for sge in sges {
        let len = sge.len.min(max - out.len());
        let region = regions.find(sge.lkey);
        let Some(memory) = region.as_deref().and_then(|mr| part(mr, sge.addr, len)) else {
            break;
        };
        let at = out.len();
        out.resize(at + len, 0);
        memory.read(0, &mut out[at..]);
    }
    out
}

/// The part of a region at `addr`, if it is one.
fn part(region: &dyn MemoryRegion, addr: *mut u8, len: usize) -> Option<ForeignSlice> {
    let start: NonNull<u8> = region.addr();
    let offset = (addr as usize).checked_sub(start.as_ptr() as usize)?;
    // SAFETY: who registered the range keeps it mapped while a request names it, and keeps
    // references out of it where anybody writes (contract of `Provider::register`). It is used
    // before the request is posted, or before its completion is handed out.
    let whole = unsafe { ForeignSlice::new(start, region.len()) };
    whole.slice(offset, len)
}
