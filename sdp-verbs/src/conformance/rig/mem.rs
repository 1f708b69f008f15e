//! Registered memory that cases fill and look at without ever making a reference to it.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::conformance::report::{Stop, Verdict, ensure};
use crate::memory::ForeignSlice;
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::provider::Provider;
use crate::types::{Access, Lkey, RemoteAddr, Rkey, Sge};

/// Bytes that differ by place and by seed.
pub(in crate::conformance) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed).wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// A registered region.
#[derive(Debug)]
pub(in crate::conformance) struct Mem {
    region: Arc<dyn MemoryRegion>,
    slice: ForeignSlice,
    /// Memory of our own under the region, dropped after it.
    _heap: Option<memmap2::MmapMut>,
}

impl Mem {
    /// Memory that the provider owns.
    pub(super) fn alloc(provider: &dyn Provider, len: usize) -> Verdict<Self> {
        let region = provider.alloc_registered(len)?;
        ensure!(region.len() >= len, "{region:?} has less than {len} bytes");
        // SAFETY: the region keeps its memory mapped; this value keeps the region, and nobody
        // makes references into it.
        let slice = unsafe { ForeignSlice::new(region.addr(), region.len()) };
        Ok(Self {
            region,
            slice,
            _heap: None,
        })
    }

    /// Memory of our own, registered by address.
    pub(in crate::conformance) fn register(
        provider: &dyn Provider,
        len: usize,
        access: Access,
    ) -> Result<Self, Stop> {
        let mut heap = memmap2::MmapMut::map_anon(len)?;
        let Some(addr) = NonNull::new(heap.as_mut_ptr()) else {
            return Err(Stop::failed("an anonymous mapping at address 0"));
        };
        // SAFETY: the mapping is dropped after the region (order of fields), and nobody makes
        // references into it.
        let region = unsafe { provider.register(addr, len, access) }?;
        // SAFETY: as above.
        let slice = unsafe { ForeignSlice::new(addr, len) };
        Ok(Self {
            region,
            slice,
            _heap: Some(heap),
        })
    }

    /// Registers a part of it a second time.
    pub(super) fn reregister(
        &self,
        provider: &dyn Provider,
        offset: usize,
        len: usize,
        access: Access,
    ) -> Verdict<Arc<dyn MemoryRegion>> {
        // SAFETY: the case keeps this memory until the peer has been told that it is gone, and
        // nobody makes references into it.
        let region = unsafe { provider.register(self.at(offset, len), len, access) };
        Ok(region?)
    }

    pub(in crate::conformance) fn lkey(&self) -> Lkey {
        self.region.lkey()
    }

    pub(in crate::conformance) fn region(&self) -> &Arc<dyn MemoryRegion> {
        &self.region
    }

    /// Address of a part.
    ///
    /// # Panics
    /// If the case asks for more than there is.
    pub(in crate::conformance) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        let part = self.slice.slice(offset, len).expect("a part of the region");
        NonNull::new(part.as_ptr()).expect("no mapping at address 0")
    }

    /// A part as an element of a request.
    pub(in crate::conformance) fn sge(&self, offset: usize, len: usize) -> Sge {
        Sge {
            addr: self.at(offset, len).as_ptr(),
            len,
            lkey: self.lkey(),
        }
    }

    pub(in crate::conformance) fn write(&self, offset: usize, bytes: &[u8]) {
        self.slice.write(offset, bytes);
    }

    pub(in crate::conformance) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.slice.read(offset, &mut bytes);
        bytes
    }
}

/// A part of memory that the peer can reach until this is dropped.
#[derive(Debug)]
pub(in crate::conformance) struct Exposure {
    pub(in crate::conformance) window: Option<Box<dyn MemoryWindow>>,
    _region: Option<Arc<dyn MemoryRegion>>,
    pub(in crate::conformance) rkey: Rkey,
    pub(in crate::conformance) addr: RemoteAddr,
}

impl Exposure {
    pub(super) fn window(window: Box<dyn MemoryWindow>, rkey: Rkey, addr: RemoteAddr) -> Self {
        Self {
            window: Some(window),
            _region: None,
            rkey,
            addr,
        }
    }

    pub(super) fn region(region: Arc<dyn MemoryRegion>, rkey: Rkey, addr: RemoteAddr) -> Self {
        Self {
            window: None,
            _region: Some(region),
            rkey,
            addr,
        }
    }

    /// An address within it.
    pub(in crate::conformance) fn at(&self, offset: usize) -> RemoteAddr {
        RemoteAddr(self.addr.0 + offset as u64)
    }
}
