//! The calls of [`QueuePair`].

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};

use smallvec::SmallVec;

use super::buf::{HeapBuf, Message, Place, Reservation};
use super::entry::{Entry, Op, SendHead};
use super::tx::{self, State, Tx};
use super::{HostQp, LocalSge};
use crate::error::{PostError, VerbsError};
use crate::host::cells::Cell;
use crate::host::keys::LiveKey;
use crate::host::notice::Notice;
use crate::host::provider::LIMITS;
use crate::host::region::HostWindow;
use crate::memory::{ForeignSlice, Keep, RecvBuf, SendBuf};
use crate::mr::{Binding, MemoryWindow};
use crate::qp::QueuePair;
use crate::sync::fence;
use crate::types::{Access, QpNum, Rkey, Sge, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcStatus};

impl HostQp {
    /// Resolves local pieces of memory. Pieces without bytes are left out.
    fn resolve(&self, sges: &[Sge], access: Access) -> Result<SmallVec<[LocalSge; 1]>, PostError> {
        if sges.len() > LIMITS.sge_max {
            return Err(PostError::TooLarge);
        }
        let regions = self.link().plane().regions();
        let mut total = 0usize;
        let mut resolved = SmallVec::new();
        for sge in sges.iter().filter(|sge| sge.len > 0) {
            total = total.saturating_add(sge.len);
            let addr = sge.addr.addr() as u64;
            let region = regions
                .covering(sge.lkey, addr, sge.len, access)
                .ok_or(PostError::LocalProtection)?;
            let ptr = region
                .pointer(addr, sge.len)
                .ok_or(PostError::LocalProtection)?;
            resolved.push(LocalSge {
                ptr,
                len: sge.len,
                region,
            });
        }
        if total > LIMITS.rdma_len_max {
            return Err(PostError::TooLarge);
        }
        Ok(resolved)
    }

    /// Whether a request may be posted now.
    fn check(&self, tx: &Tx) -> Result<(), PostError> {
        if tx.state != State::Ready {
            return Err(PostError::WrongState);
        }
        // Only posters count up, and they hold the lock of `tx`.
        if self.outstanding.load(Ordering::Acquire) >= self.send_wr_max {
            return Err(PostError::QueueFull);
        }
        Ok(())
    }

    /// Counts a request against the depth of the queue.
    fn admit(&self, tx: &Tx) -> Result<(), PostError> {
        self.check(tx)?;
        self.count_send();
        Ok(())
    }

    fn post(&self, entry: Entry) -> Result<(), PostError> {
        let mut tx = self.tx();
        self.admit(&tx)?;
        tx.queue.push_back(entry);
        self.drive(tx);
        Ok(())
    }

    /// A message that the caller keeps: copied before this returns, into the peer's receive if
    /// one is free.
    fn post_copied(
        &self,
        head: SendHead,
        len: usize,
        copy: impl Fn(&ForeignSlice),
    ) -> Result<(), PostError> {
        if len > LIMITS.recv_len_max {
            return Err(PostError::TooLarge);
        }
        let mut tx = self.tx();
        self.check(&tx)?;
        match tx.send_now(self, head, len, &copy) {
            Ok(Some(made)) => {
                self.settle(tx, Ok(made));
                return Ok(());
            }
            Ok(None) => {}
            Err(broken) => {
                drop(tx);
                self.peer_broke(broken);
                return Err(PostError::WrongState);
            }
        }
        self.count_send();
        let message = match tx.take_slot(self) {
            Ok(Some(slot)) if len > slot.mem.len() => Message::Overrun(slot),
            Ok(Some(slot)) => {
                copy(&slot.mem);
                Message::Slot(slot)
            }
            Ok(None) => {
                let heap = HeapBuf::new(len);
                copy(&heap.mem());
                Message::Heap(heap)
            }
            Err(broken) => {
                self.send_taken();
                drop(tx);
                self.peer_broke(broken);
                return Err(PostError::WrongState);
            }
        };
        self.queue_send(tx, head, message, len);
        Ok(())
    }

    /// Queues a message behind what is posted already, and starts what can start.
    fn queue_send(&self, mut tx: MutexGuard<'_, Tx>, head: SendHead, message: Message, len: usize) {
        let op = Op::Send {
            message,
            len,
            invalidate: head.invalidate,
        };
        tx.queue.push_back(Entry::new(head.wr_id, head.flags, op));
        self.drive(tx);
    }

    fn post_reserved(&self, head: SendHead, buf: &SendBuf, len: usize) -> Result<(), PostError> {
        let reservation = Arc::clone(buf.keep())
            .downcast::<Reservation>()
            .map_err(|_| PostError::LocalProtection)?;
        if !std::ptr::eq(reservation.qp.as_ptr(), self) {
            return Err(PostError::LocalProtection);
        }
        if len > buf.mem().len() {
            return Err(PostError::TooLarge);
        }
        let mut tx = self.tx();
        self.admit(&tx)?;
        if !reservation.take() {
            self.send_taken();
            return Err(PostError::LocalProtection);
        }
        self.reserved.fetch_sub(1, Ordering::Release);
        let message = match &reservation.place {
            Place::Slot(slot) => Message::Slot(slot.clone()),
            Place::Heap(_) => match tx.take_slot(self) {
                Ok(Some(slot)) => tx::place(slot, &reservation.mem(), len),
                Ok(None) => Message::Reserved(Arc::clone(&reservation)),
                Err(broken) => {
                    self.send_taken();
                    drop(tx);
                    self.peer_broke(broken);
                    return Err(PostError::WrongState);
                }
            },
        };
        self.queue_send(tx, head, message, len);
        Ok(())
    }

    /// Checks a binding and brings its key to life.
    fn bind_key(&self, binding: &Binding) -> Result<Rkey, PostError> {
        let remote = Access::REMOTE_READ | Access::REMOTE_WRITE;
        if binding.len == 0 || !remote.contains(binding.access) || binding.access.is_empty() {
            return Err(PostError::LocalProtection);
        }
        let mut needed = Access::MW_BIND;
        if binding.access.contains(Access::REMOTE_WRITE) {
            needed |= Access::LOCAL_WRITE;
        }
        let addr = binding.addr.as_ptr().addr() as u64;
        let plane = self.link().plane();
        let region = plane
            .regions()
            .covering(binding.lkey, addr, binding.len, needed)
            .ok_or(PostError::LocalProtection)?;
        let shown = self.show(&region, addr).map_err(|error| {
            tracing::debug!(%error, qp = format_args!("{:#x}", self.number()), "bind refused");
            PostError::Unsupported
        })?;
        let cell = Cell {
            addr,
            len: binding.len as u64,
            access: binding.access.bits(),
            region: shown,
            qp: self.number(),
        };
        let live = LiveKey {
            cell,
            region: Arc::clone(&region),
        };
        let rkey = plane.keys().bind(live).map_err(|_| PostError::QueueFull)?;
        region.note_key(plane.keys(), rkey);
        Ok(rkey)
    }
}

impl QueuePair for HostQp {
    fn num(&self) -> QpNum {
        QpNum(self.number())
    }

    fn alloc_recv(&self, len: usize) -> Result<RecvBuf, VerbsError> {
        if len > LIMITS.recv_len_max {
            return Err(VerbsError::Argument {
                what: "length of a receive buffer",
                reason: format!("{len} is above {}", LIMITS.recv_len_max),
            });
        }
        self.core.alloc(self.number(), len)
    }

    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError> {
        let slot = u32::try_from(buf.token() & u64::from(u32::MAX));
        let (true, Ok(slot)) = (buf.token() >> 32 == u64::from(self.number()), slot) else {
            return Err(PostError::LocalProtection);
        };
        let mut rx = self.core.lock();
        rx.post(wr_id, slot, self.recv_wr_max)?;
        fence(Ordering::SeqCst);
        let waiting = if self.block().take_want_receive() {
            rx.remote.as_ref().map(Arc::clone)
        } else {
            None
        };
        drop(rx);
        if let Some(remote) = waiting {
            self.tell(&remote, Notice::Solicited, 0);
        }
        Ok(())
    }

    /// Memory of messages is plain memory here.
    fn keep_send(&self, _: usize) -> Result<(), VerbsError> {
        Ok(())
    }

    fn reserve_send(&self, len: usize) -> Result<SendBuf, PostError> {
        if len > LIMITS.recv_len_max {
            return Err(PostError::TooLarge);
        }
        let mut tx = self.tx();
        if tx.state != State::Ready {
            return Err(PostError::WrongState);
        }
        let remote = tx.remote().map(Arc::clone).ok_or(PostError::WrongState)?;
        let held = self.reserved.load(Ordering::Acquire);
        if held.saturating_add(self.outstanding.load(Ordering::Acquire)) >= self.send_wr_max {
            return Err(PostError::QueueFull);
        }
        let place = match tx.take_slot(self) {
            Ok(Some(slot)) if slot.mem.len() >= len => Place::Slot(slot),
            Ok(Some(slot)) => {
                // Too short for it: whoever posts meets it again and gets the error.
                tx.return_slot(slot);
                Place::Heap(HeapBuf::new(len))
            }
            Ok(None) => Place::Heap(HeapBuf::new(len)),
            Err(broken) => {
                drop(tx);
                self.peer_broke(broken);
                return Err(PostError::WrongState);
            }
        };
        self.reserved.fetch_add(1, Ordering::Relaxed);
        drop(tx);
        let reservation = Reservation {
            qp: self.me.clone(),
            place,
            posted: AtomicBool::new(false),
            _remote: remote,
        };
        let mem = reservation.mem().slice(0, len).ok_or(PostError::TooLarge)?;
        let keep: Keep = Arc::new(reservation);
        Ok(SendBuf::new(mem, 0, keep))
    }

    fn unreserve_send(&self, buf: SendBuf) {
        // Its keep gives the slot back to the queue pair it came from.
        drop(buf);
    }

    fn post_send(&self, wr: SendWr<'_>) -> Result<(), PostError> {
        let SendWr { wr_id, op, flags } = wr;
        match op {
            SendOp::Send { data, invalidate } => {
                let head = SendHead {
                    wr_id,
                    flags,
                    invalidate,
                };
                match data {
                    SendData::Inline(bytes) => {
                        self.post_copied(head, bytes.len(), |to| to.write(0, bytes))
                    }
                    SendData::Buf { buf, len } => self.post_reserved(head, &buf, len),
                    SendData::Sges(sges) => {
                        let local = self.resolve(sges, Access::empty())?;
                        let len = local.iter().map(|sge| sge.len).sum();
                        self.post_copied(head, len, |to| gather(to, &local))
                    }
                }
            }
            SendOp::Read {
                local,
                remote,
                rkey,
            } => {
                let local = self.resolve(local, Access::LOCAL_WRITE)?;
                self.post(Entry::new(
                    wr_id,
                    flags,
                    Op::Read {
                        local,
                        remote,
                        rkey,
                    },
                ))
            }
            SendOp::Write {
                local,
                remote,
                rkey,
            } => {
                let local = self.resolve(local, Access::empty())?;
                self.post(Entry::new(
                    wr_id,
                    flags,
                    Op::Write {
                        local,
                        remote,
                        rkey,
                        keys: SmallVec::new(),
                        end: 0,
                    },
                ))
            }
            SendOp::LocalInv { rkey } => self.post(Entry::new(wr_id, flags, Op::LocalInv { rkey })),
        }
    }

    fn bind(
        &self,
        wr_id: WrId,
        flags: SendFlags,
        window: &dyn MemoryWindow,
        binding: Binding,
    ) -> Result<Rkey, PostError> {
        let window = window
            .as_any()
            .downcast_ref::<HostWindow>()
            .filter(|w| w.belongs_to(self.link().plane()))
            .ok_or(PostError::LocalProtection)?;
        let mut tx = self.tx();
        self.admit(&tx)?;
        let bound = window.bind_with(PostError::WrongState, || self.bind_key(&binding));
        match bound {
            Ok(rkey) => {
                tx.queue.push_back(Entry::new(wr_id, flags, Op::Bind));
                self.drive(tx);
                Ok(rkey)
            }
            Err(error) => {
                self.send_taken();
                Err(error)
            }
        }
    }

    fn heap_reachable(&self) -> Result<(), String> {
        self.link().heap_reachable()
    }

    fn queued_len(&self) -> usize {
        self.tx().queued_len()
    }

    fn lend_token_socket(&self, socket: BorrowedFd<'_>) -> Result<(), VerbsError> {
        let remote = self.tx().remote().map(Arc::clone);
        let Some(remote) = remote else {
            return Err(VerbsError::State {
                op: "lend_token_socket",
                state: "not connected",
            });
        };
        if self.lent_token_socket.swap(true, Ordering::Relaxed) {
            return Err(VerbsError::State {
                op: "lend_token_socket",
                state: "lent before",
            });
        }
        self.link().lend_token_socket(remote.place(), socket)
    }

    fn set_error(&self) {
        self.enter_error(WcStatus::Flushed);
    }
}

fn gather(to: &ForeignSlice, local: &[LocalSge]) {
    let mut at = 0;
    for sge in local {
        // SAFETY: each piece was checked against its region, which is held; the peer's slot or
        // the private copy overlaps no registered memory.
        unsafe { to.write_from(at, sge.ptr.cast_const(), sge.len) };
        at += sge.len;
    }
}
