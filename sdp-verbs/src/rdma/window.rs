//! Memory windows of type 2.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

use super::device::{Device, WindowOps};
use super::returned::{check_released, made};
use super::sys;
use crate::error::VerbsError;
use crate::mr::MemoryWindow;
use crate::types::Rkey;

/// Keys of one window differ in their lowest byte. After as many binds a new window is made, so
/// that no key ever comes back.
const BINDS_MAX: u8 = u8::MAX;

/// A binding in force.
#[derive(Clone, Copy, Debug)]
struct Bound {
    rkey: u32,
    /// Local key of the region it shows.
    lkey: u32,
}

#[derive(Debug, Default)]
pub(super) struct WindowState {
    mw: Option<NonNull<sys::ibv_mw>>,
    bound: Option<Bound>,
    binds: u8,
}

/// A window, shared by its handle, the queue pair it is bound on, and the region it shows.
#[derive(Debug)]
pub(super) struct WindowCore {
    device: Arc<Device>,
    ops: WindowOps,
    state: Mutex<WindowState>,
}

// SAFETY: the window's object may be used from any thread; it is behind the lock.
unsafe impl Send for WindowCore {}
// SAFETY: as above.
unsafe impl Sync for WindowCore {}

impl WindowCore {
    fn new(device: &Arc<Device>, ops: WindowOps) -> Result<Self, VerbsError> {
        let mut state = WindowState::default();
        state.allocate(device, ops)?;
        Ok(Self {
            device: Arc::clone(device),
            ops,
            state: Mutex::new(state),
        })
    }

    pub(super) fn belongs_to(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// What a bind needs: the window and the key that it will have. `None`: a binding is in force,
    /// or no window can be had.
    pub(super) fn next_key(&self, state: &mut WindowState) -> Option<(NonNull<sys::ibv_mw>, u32)> {
        if state.bound.is_some() {
            return None;
        }
        if state.binds == BINDS_MAX {
            state.release(self.ops);
        }
        if state.mw.is_none()
            && let Err(error) = state.allocate(&self.device, self.ops)
        {
            tracing::warn!("{error}");
        }
        let mw = state.mw?;
        // SAFETY: a window that has not been given back.
        let old = unsafe { (*mw.as_ptr()).rkey };
        Some((mw, (old & !0xFF) | (old.wrapping_add(1) & 0xFF)))
    }

    fn key_in_force(&self) -> Option<u32> {
        self.state().bound.map(|bound| bound.rkey)
    }

    /// The key was invalidated.
    pub(super) fn unbind(&self, rkey: u32) {
        let mut state = self.state();
        if state.is_bound(rkey) {
            state.bound = None;
        }
    }

    /// The key is dead when this returns, whatever the device makes of it: the window is gone.
    pub(super) fn kill(&self, rkey: u32) {
        let mut state = self.state();
        if state.is_bound(rkey) {
            state.release(self.ops);
        }
    }

    /// As [`kill`](Self::kill), if it shows this region.
    pub(super) fn kill_over(&self, lkey: u32) {
        let mut state = self.state();
        if state.bound.is_some_and(|bound| bound.lkey == lkey) {
            state.release(self.ops);
        }
    }
}

impl WindowState {
    fn allocate(&mut self, device: &Device, ops: WindowOps) -> Result<(), VerbsError> {
        // SAFETY: the driver's own function, for a protection domain of its device.
        let mw = unsafe { (ops.alloc)(device.pd(), sys::IBV_MW_TYPE_2) };
        self.mw = Some(made("allocating a memory window", mw)?);
        self.binds = 0;
        Ok(())
    }

    pub(super) fn is_bound(&self, rkey: u32) -> bool {
        self.bound.is_some_and(|bound| bound.rkey == rkey)
    }

    /// A bind is on its way.
    pub(super) fn set_bound(&mut self, rkey: u32, lkey: u32) {
        self.bound = Some(Bound { rkey, lkey });
        self.binds += 1;
    }

    /// It was posted: until then the driver's library wants to see the old key.
    pub(super) fn set_posted(&mut self, rkey: u32) {
        if let Some(mw) = self.mw {
            // SAFETY: a window that has not been given back; the lock around this state makes the
            // access exclusive.
            unsafe { (*mw.as_ptr()).rkey = rkey };
        }
    }

    fn release(&mut self, ops: WindowOps) {
        self.bound = None;
        if let Some(mw) = self.mw.take() {
            // SAFETY: made by `alloc`, given back once.
            let returned = unsafe { (ops.dealloc)(mw.as_ptr()) };
            check_released("ibv_dealloc_mw", returned);
        }
    }
}

impl Drop for WindowCore {
    fn drop(&mut self) {
        let ops = self.ops;
        self.state().release(ops);
    }
}

/// The caller's handle.
#[derive(Debug)]
pub(super) struct RdmaWindow(Arc<WindowCore>);

impl RdmaWindow {
    /// Not yet bound.
    pub(super) fn new(device: &Arc<Device>, ops: WindowOps) -> Result<Self, VerbsError> {
        Ok(Self(Arc::new(WindowCore::new(device, ops)?)))
    }

    pub(super) fn core(&self) -> &Arc<WindowCore> {
        &self.0
    }
}

impl MemoryWindow for RdmaWindow {
    fn rkey(&self) -> Option<Rkey> {
        self.0.key_in_force().map(Rkey)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for RdmaWindow {
    fn drop(&mut self) {
        let ops = self.0.ops;
        self.0.state().release(ops);
    }
}
