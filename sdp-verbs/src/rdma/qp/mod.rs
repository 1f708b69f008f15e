//! Queue pairs.

mod attr;
mod complete;
mod create;
mod held;
mod message;
mod recv;
mod send;
mod wr;

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

pub(super) use attr::RETRY_COUNT;
pub(super) use create::inline_max;
pub(super) use send::OWN_WR_MAX;

use super::cm::IdCore;
use super::cq::RdmaCq;
use super::device::{Device, Transport};
use super::region::RdmaRegion;
use super::returned::{check, check_released, is_removed};
use super::slab::SlabPool;
use super::sys;
use super::window::{RdmaWindow, WindowCore};
use crate::error::{PostError, VerbsError};
use crate::memory::{RecvBuf, SendBuf};
use crate::mr::{Binding, MemoryRegion, MemoryWindow};
use crate::qp::QueuePair;
use crate::types::{Access, QpNum, Rkey, WrId};
use crate::wr::{SendFlags, SendOp, SendWr};

use held::{Posted, Request};
use message::{Messages, Reserved};
use recv::RecvQueue;
use send::{Entry, Kind, SendQueue};
use wr::Prepared;

/// Marks the device's name for a receive; the rest counts requests of its queue.
const RECV: u64 = 1 << 63;

/// No connection yet; it can send; it is in error.
const IDLE: u8 = 0;
const READY: u8 = 1;
const ERROR: u8 = 2;

/// A queue pair.
#[derive(Debug)]
pub(super) struct RdmaQp {
    device: Arc<Device>,
    slabs: Arc<SlabPool>,
    qp: NonNull<sys::ibv_qp>,
    number: u32,
    cq: Arc<RdmaCq>,
    id: Arc<IdCore>,
    rnr_retry: u8,
    state: AtomicU8,
    /// See [`QueuePair::has_refused_peer`].
    refused_peer: AtomicBool,
    /// See [`Self::lose_device`].
    lost_device: AtomicBool,
    send: Mutex<SendQueue>,
    recv: Mutex<RecvQueue>,
    messages: Messages,
    /// Keys that are good on it, and their windows.
    bound: Mutex<Vec<(u32, Weak<WindowCore>)>>,
}

// SAFETY: posting is behind the locks; modifying and destroying are the library's own locks.
unsafe impl Send for RdmaQp {}
// SAFETY: as above.
unsafe impl Sync for RdmaQp {}

impl RdmaQp {
    fn send_queue(&self) -> MutexGuard<'_, SendQueue> {
        self.send.lock().expect("nothing panics under this lock")
    }

    fn recv_queue(&self) -> MutexGuard<'_, RecvQueue> {
        self.recv.lock().expect("nothing panics under this lock")
    }

    fn bound(&self) -> MutexGuard<'_, Vec<(u32, Weak<WindowCore>)>> {
        self.bound.lock().expect("nothing panics under this lock")
    }

    /// The number as the device knows it.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    fn ready(&self) -> Result<(), PostError> {
        if self.state.load(Ordering::Acquire) == READY {
            Ok(())
        } else {
            Err(PostError::WrongState)
        }
    }

    /// The connection is there: requests are taken.
    pub(super) fn set_ready(&self) {
        // One that is in error stays so.
        let set = self
            .state
            .compare_exchange(IDLE, READY, Ordering::AcqRel, Ordering::Acquire);
        if set.is_err() {
            tracing::debug!(qp = %format_args!("{:#x}", self.number), "established too late");
        }
    }

    /// Moves it to a state of the handshake, with the attributes that the connection manager has
    /// negotiated and those that are ours.
    pub(super) fn advance(&self, attr: &mut sys::ibv_qp_attr, mask: i32) -> Result<(), VerbsError> {
        let mask = attr::complete(attr, mask, self.rnr_retry, self.device.read_depth_max);
        // SAFETY: a queue pair that lives as long as this value.
        let returned = unsafe { self.device.lib.ibv_modify_qp(self.qp.as_ptr(), attr, mask) };
        check("ibv_modify_qp", returned)
    }

    /// Into the error state; what is outstanding comes back flushed.
    pub(super) fn fail(&self) {
        self.state.store(ERROR, Ordering::Release);
        // SAFETY: plain numbers, for which zeros are valid.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = sys::IBV_QPS_ERR;
        let mask = i32::try_from(sys::IBV_QP_STATE).expect("flags are small");
        // SAFETY: a queue pair that lives as long as this value.
        let returned = unsafe {
            self.device
                .lib
                .ibv_modify_qp(self.qp.as_ptr(), &raw mut attr, mask)
        };
        let moved = check("ibv_modify_qp", returned).inspect_err(|error| {
            tracing::warn!(qp = %format_args!("{:#x}", self.number), "into error: {error}");
        });
        if moved.is_err_and(|error| is_removed(&error)) {
            self.lose_device();
        } else if self.device.forgets_to_flush {
            self.cq.flush_later(self.number);
        }
    }

    /// The device has been removed, and its queues may never tell of what is outstanding: the kernel
    /// destroys its objects, and nothing writes into the queues of a program any more.
    pub(super) fn lose_device(&self) {
        self.state.store(ERROR, Ordering::Release);
        self.lost_device.store(true, Ordering::Release);
        self.cq.flush_later(self.number);
    }

    /// Every key bound on it is dead when this returns.
    fn kill_keys(&self) {
        let bound = std::mem::take(&mut *self.bound());
        for (rkey, window) in bound {
            if let Some(window) = window.upgrade() {
                window.kill(rkey);
            }
        }
    }

    /// Takes a key out of those that are good here; its window, if that is still there.
    fn forget_key(&self, rkey: u32) -> Option<Arc<WindowCore>> {
        let mut bound = self.bound();
        let place = bound.iter().position(|(key, _)| *key == rkey)?;
        bound.swap_remove(place).1.upgrade()
    }

    /// A key was invalidated, by us or by the peer.
    fn invalidated(&self, rkey: u32) {
        if let Some(window) = self.forget_key(rkey) {
            window.unbind(rkey);
        }
    }

    /// Sends an empty request behind everything that is outstanding; the connection ends when it
    /// has completed. False: nothing is outstanding, or it cannot be sent.
    pub(super) fn post_marker(&self) -> bool {
        if self.ready().is_err() {
            return false;
        }
        let mut queue = self.send_queue();
        if queue.is_empty() || !self.cq.take_place() {
            return false;
        }
        let marker = Request {
            wr: Prepared::marker(self.device.transport),
            entry: Entry::new(WrId(0), Kind::Marker, true),
            window: None,
        };
        let posted = self.post_or_hold(&mut queue, marker);
        if posted.is_err() {
            self.cq.free_places(1);
        }
        posted.is_ok()
    }

    /// Posts under the queue's lock; the caller has taken a place in the completion queue, and gets
    /// back what could not be posted.
    fn post_prepared(
        &self,
        queue: &mut SendQueue,
        wr: &mut Prepared<'_>,
        entry: Entry,
    ) -> Result<(), (PostError, Entry)> {
        // On iWARP a request has ended when TCP has its bytes, and of one that asks for no completion
        // Soft-iWARP (siw_qp_tx.c) hands TCP the pages themselves: where TCP does not copy them (Debian's
        // 6.1 does), they are sent as they are by then, when the buffer serves another message.
        let in_place = self.device.transport == Transport::Iwarp;
        let keep = entry.keep.as_ref().and_then(|keep| keep.downcast_ref());
        let awaited = keep.is_some_and(Reserved::is_awaited);
        // What is held back behind it must hear of its end, however the connection ends; and so must the
        // next bind, for which an empty request would have to ask.
        let followed = queue.holds() || self.device.repeats_binds && queue.has_bound();
        let signaled = entry.signaled || in_place || awaited || followed || queue.wants_signal();
        let raw = wr.finish(queue.next_number(), signaled);
        let mut bad = ptr::null_mut();
        // SAFETY: the driver's own function; the request and its elements live until it returns,
        // and the memory they name until it completes, by the contracts of those who registered.
        let returned = unsafe { (self.device.ops.post_send)(self.qp.as_ptr(), raw, &raw mut bad) };
        match check("ibv_post_send", returned) {
            Ok(()) => {
                queue.push(entry, signaled);
                Ok(())
            }
            Err(error) => Err((self.refused(&error), entry)),
        }
    }

    /// What a driver's refusal means.
    fn refused(&self, error: &VerbsError) -> PostError {
        tracing::warn!(qp = %format_args!("{:#x}", self.number), "{error}");
        match error.errno() {
            libc::ENOMEM => PostError::QueueFull,
            libc::ENOSYS | libc::EOPNOTSUPP => PostError::Unsupported,
            _ if self.state.load(Ordering::Acquire) == ERROR => PostError::WrongState,
            _ => PostError::LocalProtection,
        }
    }

    fn post(&self, request: Request<'_>) -> Result<Posted, PostError> {
        let mut queue = self.send_queue();
        self.ready()?;
        if queue.is_full() || !self.cq.take_place() {
            return Err(PostError::QueueFull);
        }
        let posted = self.post_or_hold(&mut queue, request);
        if posted.is_err() {
            self.cq.free_places(1);
        }
        posted
    }

    /// The window and the region of a bind, if they fit each other.
    fn bind_parts<'a>(
        &self,
        window: &'a dyn MemoryWindow,
        binding: &Binding,
    ) -> Result<(&'a Arc<WindowCore>, Arc<RdmaRegion>), PostError> {
        if self.device.ops.windows.is_none() {
            return Err(PostError::Unsupported);
        }
        let window = window
            .as_any()
            .downcast_ref::<RdmaWindow>()
            .map(RdmaWindow::core)
            .filter(|window| window.belongs_to(&self.device))
            .ok_or(PostError::LocalProtection)?;
        let region = self
            .device
            .region(binding.lkey.0)
            .filter(|region| {
                binding.len > 0
                    && region.belongs_to(&self.device)
                    && region.covers(binding.addr.as_ptr().addr(), binding.len)
                    && region.access().contains(Access::MW_BIND)
            })
            .ok_or(PostError::LocalProtection)?;
        Ok((window, region))
    }
}

impl QueuePair for RdmaQp {
    fn num(&self) -> QpNum {
        QpNum(self.number)
    }

    fn alloc_recv(&self, len: usize) -> Result<RecvBuf, VerbsError> {
        let max = self.device.limits.recv_len_max;
        if len > max {
            return Err(VerbsError::Argument {
                what: "length of a receive",
                reason: format!("{len} bytes, at most {max}"),
            });
        }
        let slot = Arc::new(self.slabs.take(len)?);
        let mem = slot.mem().slice(0, len).expect("a slot is long enough");
        let token = self.recv_queue().adopt(&slot, len);
        Ok(RecvBuf::new(mem, token, slot))
    }

    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError> {
        if self.state.load(Ordering::Acquire) == ERROR {
            return Err(PostError::WrongState);
        }
        let mut queue = self.recv_queue();
        let slot = queue.find(buf).ok_or(PostError::LocalProtection)?;
        if queue.is_full() || !self.cq.take_place() {
            return Err(PostError::QueueFull);
        }
        let mut sge = wr::element(buf.mem(), slot.lkey());
        let mut raw = sys::ibv_recv_wr {
            wr_id: RECV | queue.next_number(),
            next: ptr::null_mut(),
            sg_list: &raw mut sge,
            num_sge: 1,
        };
        let mut bad = ptr::null_mut();
        // SAFETY: the driver's own function; request and element live until it returns, and the
        // buffer's memory is kept by the queue until the receive completes.
        let returned =
            unsafe { (self.device.ops.post_recv)(self.qp.as_ptr(), &raw mut raw, &raw mut bad) };
        match check("ibv_post_recv", returned) {
            Ok(()) => {
                queue.push(wr_id, buf.token(), slot);
                Ok(())
            }
            Err(error) => {
                self.cq.free_places(1);
                Err(self.refused(&error))
            }
        }
    }

    fn keep_send(&self, len: usize) -> Result<(), VerbsError> {
        self.messages.keep(len)
    }

    fn reserve_send(&self, len: usize) -> Result<SendBuf, PostError> {
        self.ready()?;
        if len > self.device.limits.recv_len_max {
            return Err(PostError::TooLarge);
        }
        let reserved = self.messages.reserve(len)?;
        let mem = reserved.mem();
        Ok(SendBuf::new(
            mem,
            u64::from(self.number),
            Arc::new(reserved),
        ))
    }

    fn unreserve_send(&self, buf: SendBuf) {
        drop(buf);
    }

    fn post_send(&self, wr: SendWr<'_>) -> Result<(), PostError> {
        self.ready()?;
        let SendWr { wr_id, op, flags } = wr;
        if let SendOp::LocalInv { rkey } = &op {
            if !self.device.caps.contains(crate::caps::Caps::LOCAL_INV) {
                return Err(PostError::Unsupported);
            }
            // Invalidating what is no window of this queue pair would end the connection.
            if !self.bound().iter().any(|(key, _)| *key == rkey.0) {
                return Err(PostError::LocalProtection);
            }
        }
        let (wr, kind, keep) = wr::prepare(self, op, flags)?;
        let mut entry = Entry::new(wr_id, kind, flags.contains(SendFlags::SIGNALED));
        entry.keep = keep;
        let window = None;
        self.post(Request { wr, entry, window })?;
        Ok(())
    }

    fn bind(
        &self,
        wr_id: WrId,
        flags: SendFlags,
        window: &dyn MemoryWindow,
        binding: Binding,
    ) -> Result<Rkey, PostError> {
        let (window, region) = self.bind_parts(window, &binding)?;
        self.ready()?;
        let mut state = window.state();
        let (mw, rkey) = window
            .next_key(&mut state)
            .ok_or(PostError::LocalProtection)?;
        let kind = Kind::Bind { rkey };
        let request = Request {
            wr: Prepared::bind(mw, rkey, &region, &binding, flags),
            entry: Entry::new(wr_id, kind, flags.contains(SendFlags::SIGNALED)),
            window: Some(Arc::clone(window)),
        };
        // Known before it is posted: its completion may be polled for at once.
        self.bound().push((rkey, Arc::downgrade(window)));
        let posted = self
            .post(request)
            .inspect_err(|_| self.bound().retain(|(key, _)| *key != rkey))?;
        state.set_bound(rkey, binding.lkey.0);
        if posted == Posted::Now {
            state.set_posted(rkey);
        }
        region.note_window(window);
        Ok(Rkey(rkey))
    }

    fn heap_reachable(&self) -> Result<(), String> {
        Ok(())
    }

    fn has_refused_peer(&self) -> bool {
        self.refused_peer.load(Ordering::Acquire)
    }

    fn set_error(&self) {
        self.fail();
        self.kill_keys();
    }
}

impl Drop for RdmaQp {
    fn drop(&mut self) {
        self.set_error();
        self.id.queue_pair_gone();
        // SAFETY: nobody else has it any more.
        let returned = unsafe { self.device.lib.ibv_destroy_qp(self.qp.as_ptr()) };
        check_released("ibv_destroy_qp", returned);
        let outstanding = self.send_queue().len() + self.recv_queue().len();
        self.cq.remove_qp(self.number, outstanding);
    }
}
