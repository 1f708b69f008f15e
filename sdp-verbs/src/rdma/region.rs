//! Registered memory.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, Weak};

use memmap2::MmapMut;

use super::device::Device;
use super::returned::{check_released, made};
use super::sys;
use super::window::WindowCore;
use crate::caps::Caps;
use crate::error::VerbsError;
use crate::mr::MemoryRegion;
use crate::types::{Access, Lkey, Rkey};

/// Rights that let a peer in.
const REMOTE: Access = Access::REMOTE_READ.union(Access::REMOTE_WRITE);

/// Windows remembered by a region before those that are gone are swept.
const WINDOWS_SWEEP_MIN: usize = 32;

/// A registered range of memory.
#[derive(Debug)]
pub(super) struct RdmaRegion {
    device: Arc<Device>,
    mr: NonNull<sys::ibv_mr>,
    addr: NonNull<u8>,
    len: usize,
    access: Access,
    lkey: u32,
    rkey: u32,
    /// Windows that were bound over it: a device refuses to let a region go before them.
    windows: Mutex<Vec<Weak<WindowCore>>>,
    /// The memory, if it is ours.
    _owned: Option<MmapMut>,
}

// SAFETY: `addr` is a name for memory that the contract of `register`, or `_owned`, keeps valid;
// the region's object may be used from any thread.
unsafe impl Send for RdmaRegion {}
// SAFETY: as above.
unsafe impl Sync for RdmaRegion {}

impl RdmaRegion {
    /// Registers memory.
    ///
    /// # Safety
    /// As for [`Provider::register`](crate::Provider::register).
    pub(super) unsafe fn register(
        device: &Arc<Device>,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
        owned: Option<MmapMut>,
    ) -> Result<Arc<Self>, VerbsError> {
        if len == 0 || addr.as_ptr().addr().checked_add(len).is_none() {
            return Err(VerbsError::Argument {
                what: "length of a region",
                reason: format!("{len} bytes from {addr:p}"),
            });
        }
        let flags = flags(device, access);
        // SAFETY: the memory is valid by this function's contract; the protection domain lives as
        // long as the device.
        let mr = unsafe {
            device
                .lib
                .ibv_reg_mr(device.pd(), addr.as_ptr().cast(), len, flags)
        };
        let mr = made("registering memory", mr)?;
        // SAFETY: a region just made.
        let lkey = unsafe { (*mr.as_ptr()).lkey };
        // SAFETY: as above.
        let rkey = unsafe { (*mr.as_ptr()).rkey };
        let region = Arc::new(Self {
            device: Arc::clone(device),
            mr,
            addr,
            len,
            access,
            lkey,
            rkey,
            windows: Mutex::default(),
            _owned: owned,
        });
        device.add_region(lkey, Arc::downgrade(&region));
        Ok(region)
    }

    /// Allocates zeroed pages and registers them.
    pub(super) fn allocate(
        device: &Arc<Device>,
        len: usize,
        access: Access,
    ) -> Result<Arc<Self>, VerbsError> {
        let page = rustix::param::page_size();
        let rounded = len.checked_next_multiple_of(page).filter(|len| *len > 0);
        let Some(len) = rounded else {
            return Err(VerbsError::Argument {
                what: "length of a region",
                reason: format!("{len} bytes"),
            });
        };
        let mut map = MmapMut::map_anon(len).map_err(|e| VerbsError::os("mmap", e))?;
        // A forked child has no use for it, and sharing the pages would take them from the device.
        map.advise(memmap2::Advice::DontFork)
            .map_err(|e| VerbsError::os("madvise", e))?;
        let addr = NonNull::new(map.as_mut_ptr()).expect("no mapping at address 0");
        // SAFETY: the mapping goes into the region and is never referred to again.
        unsafe { Self::register(device, addr, len, access, Some(map)) }
    }

    /// The device's object, while the region is there.
    pub(super) fn mr(&self) -> *mut sys::ibv_mr {
        self.mr.as_ptr()
    }

    pub(super) fn belongs_to(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    /// Whether all of `addr..addr + len` lies within.
    pub(super) fn covers(&self, addr: usize, len: usize) -> bool {
        let offset = addr.checked_sub(self.addr.as_ptr().addr());
        offset
            .and_then(|offset| offset.checked_add(len))
            .is_some_and(|end| end <= self.len)
    }

    /// Remembers a window that shows a part of it.
    pub(super) fn note_window(&self, window: &Arc<WindowCore>) {
        let mut windows = self.windows.lock().expect("nothing panics under this lock");
        let window = Arc::downgrade(window);
        if windows.iter().any(|known| known.ptr_eq(&window)) {
            return;
        }
        if windows.len() >= WINDOWS_SWEEP_MIN && windows.len() == windows.capacity() {
            windows.retain(|window| window.strong_count() > 0);
        }
        windows.push(window);
    }
}

/// The rights in the words of verbs.h.
fn flags(device: &Device, access: Access) -> libc::c_int {
    let mut flags = 0;
    let mut set = |right: Access, flag: sys::ibv_access_flags| {
        if access.contains(right) {
            flags |= flag;
        }
    };
    set(Access::LOCAL_WRITE, sys::IBV_ACCESS_LOCAL_WRITE);
    // The specification wants the local right beside the remote one.
    let write = sys::IBV_ACCESS_REMOTE_WRITE | sys::IBV_ACCESS_LOCAL_WRITE;
    set(Access::REMOTE_WRITE, write);
    set(Access::REMOTE_READ, sys::IBV_ACCESS_REMOTE_READ);
    // Devices without windows refuse the right to bind one.
    if device.caps.contains(Caps::MEMORY_WINDOW) {
        set(Access::MW_BIND, sys::IBV_ACCESS_MW_BIND);
    }
    libc::c_int::try_from(flags).expect("flags are small")
}

impl MemoryRegion for RdmaRegion {
    fn addr(&self) -> NonNull<u8> {
        self.addr
    }

    fn len(&self) -> usize {
        self.len
    }

    fn lkey(&self) -> Lkey {
        Lkey(self.lkey)
    }

    fn rkey(&self) -> Option<Rkey> {
        self.access.intersects(REMOTE).then_some(Rkey(self.rkey))
    }

    fn access(&self) -> Access {
        self.access
    }
}

impl Drop for RdmaRegion {
    fn drop(&mut self) {
        self.device.remove_region(self.lkey);
        let windows =
            std::mem::take(&mut *self.windows.lock().expect("nothing panics under this lock"));
        for window in windows {
            if let Some(window) = window.upgrade() {
                window.kill_over(self.lkey);
            }
        }
        // SAFETY: made by `ibv_reg_mr`, given back once.
        let returned = unsafe { self.device.lib.ibv_dereg_mr(self.mr.as_ptr()) };
        check_released("ibv_dereg_mr", returned);
    }
}
