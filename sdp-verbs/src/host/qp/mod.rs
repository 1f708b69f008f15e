//! Queue pairs of the host provider.

mod buf;
mod post;
mod remote;
mod rx;
mod transfer;
mod tx;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

use smallvec::SmallVec;

use super::cq::{HostCq, Work};
use super::keys::KeyUse;
use super::layout::{self, Block, Inbound, QpPlace, WRITES_MAX, WriteRequest};
use super::link::PeerLink;
use super::provider::LIMITS;
use super::region::RegionInner;
use super::xmem::Target;
use crate::error::VerbsError;
use crate::qp::QpAttr;
use crate::types::{QpNum, Rkey};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};
use buf::PeerSlot;
use remote::Remote;
use rx::{Rx, RxCore};
use transfer::Outcome;
use tx::{Broken, Entry, Op, Progress, State, Tx};

/// Where a queue pair's memory is in its link: goes into REQ and REP as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct QpDescriptor(pub(crate) [u8; QP_DESCRIPTOR_LEN]);

/// Bytes of a [`QpDescriptor`].
pub(crate) const QP_DESCRIPTOR_LEN: usize = 32;

/// Ring entries one poll looks at that give no completion.
const SILENT_MAX: u32 = 64;

/// A piece of registered memory of a request.
#[derive(Clone, Debug)]
struct LocalSge {
    ptr: *mut u8,
    len: usize,
    region: Arc<RegionInner>,
}

// SAFETY: a name for memory that `region`'s contract keeps valid.
unsafe impl Send for LocalSge {}
// SAFETY: as above.
unsafe impl Sync for LocalSge {}

/// A queue pair. Locks are taken in the order receiving half, sending half, completion queue.
#[derive(Debug)]
pub(crate) struct HostQp {
    me: Weak<Self>,
    number: u32,
    index: u16,
    link: Arc<PeerLink>,
    cq: Arc<HostCq>,
    core: Arc<RxCore>,
    tx: Mutex<Tx>,
    /// Send requests that hold an entry of the queue: not done, or done and not polled.
    outstanding: AtomicU32,
    /// Buffers reserved and neither posted nor given back.
    reserved: AtomicU32,
    send_wr_max: u32,
    recv_wr_max: u32,
    rnr_retry: u8,
    /// Our end marker is out: when the peer's messages are delivered this is over.
    closing: AtomicBool,
    /// It has been flushed.
    over: AtomicBool,
}

impl HostQp {
    /// Makes one with slot `index` of the link.
    pub(crate) fn create(
        link: &Arc<PeerLink>,
        cq: &Arc<HostCq>,
        attr: &QpAttr,
        index: u16,
    ) -> Result<Arc<Self>, VerbsError> {
        let checked = |what, wanted: u32, max: u32| {
            if wanted == 0 || wanted > max {
                return Err(VerbsError::Argument {
                    what,
                    reason: format!("{wanted} is not within 1..={max}"),
                });
            }
            Ok(())
        };
        checked("send_wr_max", attr.send_wr_max, LIMITS.send_wr_max)?;
        checked("recv_wr_max", attr.recv_wr_max, LIMITS.recv_wr_max)?;
        let recv_max = usize::try_from(attr.recv_wr_max).unwrap_or(usize::MAX);
        let rings = layout::ring_log(recv_max.saturating_add(WRITES_MAX + 1))
            .zip(layout::ring_log(recv_max));
        let Some((in_log, recv_log)) = rings else {
            return Err(VerbsError::Argument {
                what: "recv_wr_max",
                reason: format!("{recv_max} is too large"),
            });
        };
        let cell = cq.cell_for(link)?;
        let core = RxCore::new(link.pool(), cell, in_log, recv_log)?;
        let qp = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            number: link.plane().next_qp(),
            index,
            link: Arc::clone(link),
            cq: Arc::clone(cq),
            core: Arc::new(core),
            tx: Mutex::new(Tx::new()),
            outstanding: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            send_wr_max: attr.send_wr_max,
            recv_wr_max: attr.recv_wr_max,
            rnr_retry: attr.rnr_retry,
            closing: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        cq.add_qp(&qp);
        Ok(qp)
    }

    /// Its number, unique in the instance.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Its link.
    pub(crate) fn link(&self) -> &Arc<PeerLink> {
        &self.link
    }

    /// Its completion queue.
    pub(crate) fn cq(&self) -> &HostCq {
        &self.cq
    }

    /// Its block in our memory.
    pub(crate) fn block(&self) -> &Block {
        self.core.block()
    }

    fn rnr_retry(&self) -> u8 {
        self.rnr_retry
    }

    /// When it gives up waiting for a receive of the peer's.
    pub(crate) fn rnr_deadline(&self) -> Option<Instant> {
        self.tx().rnr_deadline()
    }

    /// A send completion was taken from the queue, or needed none: its entry is free.
    pub(crate) fn send_taken(&self) {
        self.outstanding.fetch_sub(1, Ordering::Release);
    }

    fn tx(&self) -> MutexGuard<'_, Tx> {
        self.tx.lock().expect("nothing panics under this lock")
    }

    /// What the peer needs to connect to it. From now on the peer may touch its memory.
    pub(crate) fn descriptor(&self) -> QpDescriptor {
        let (block, cell) = self.core.expose();
        let (_, in_log) = self.block().in_ring();
        let (_, recv_log) = self.block().recv_ring();
        let place = QpPlace {
            qp: self.number.into(),
            block_chunk: block.chunk.into(),
            block_offset: (block.offset as u64).into(),
            cell_chunk: cell.chunk.into(),
            cell_offset: u32::try_from(cell.offset)
                .expect("chunks are below 4 GiB but for single large areas, which cells are not")
                .into(),
            ready: self.index.into(),
            in_log,
            recv_log,
            reserved: 0.into(),
        };
        remote::describe(&place)
    }

    /// Connects to the peer's queue pair: messages may be sent from here on. On the passive side
    /// call it before REP is sent, on the active side when REP has come.
    ///
    /// # Errors
    /// [`VerbsError::Protocol`] if the descriptor is not a possible one, [`VerbsError::State`] if
    /// it was connected before or is in error.
    pub(crate) fn connect_to(&self, peer: &QpDescriptor) -> Result<(), VerbsError> {
        let remote = Arc::new(Remote::new(&self.link, peer)?);
        let mut rx = self.core.lock();
        let mut tx = self.tx();
        if tx.state != State::Init {
            drop(tx);
            drop(rx);
            // The peer must not wait for a queue pair that is over before it began.
            remote.block().say_error();
            remote.notify(&self.link, true);
            return Err(VerbsError::State {
                op: "connect_to",
                state: "connected or in error",
            });
        }
        rx.remote = Some(Arc::clone(&remote));
        tx.connect(remote);
        drop(tx);
        drop(rx);
        // Messages may be waiting already.
        self.cq.event(true);
        Ok(())
    }

    /// The peer has said that it will never touch this queue pair (REJ, or REQ was not sent), so
    /// its memory may be used again at once.
    pub(crate) fn peer_refused(&self) {
        self.core.unexpose();
    }

    /// Orderly end: what was posted before is delivered to the peer, then its queue pair flushes.
    /// Ours goes into error once the end marker is out and what the peer sent is delivered.
    pub(crate) fn disconnect(&self) {
        let mut tx = self.tx();
        match tx.state {
            State::Ready => {}
            State::Init => {
                drop(tx);
                self.enter_error(WcStatus::Flushed);
                return;
            }
            State::Ending | State::Error => return,
        }
        tx.state = State::Ending;
        let entry = Entry::new(Default::default(), Default::default(), Op::End);
        tx.queue.push_back(entry);
        self.drive(tx);
    }

    /// Runs the sending half and tells whoever must know, with no lock held.
    fn drive(&self, mut tx: MutexGuard<'_, Tx>) {
        let progress = tx.progress(self);
        let remote = tx.remote().map(Arc::clone);
        drop(tx);
        self.after(progress, remote.as_deref());
    }

    fn after(&self, progress: Result<Progress, Broken>, remote: Option<&Remote>) {
        let made = match progress {
            Ok(made) => made,
            Err(broken) => {
                self.peer_broke(broken);
                return;
            }
        };
        if let (Some(solicited), Some(remote)) = (made.published, remote) {
            remote.notify(&self.link, solicited);
        }
        if made.ended {
            self.closing.store(true, Ordering::Release);
        }
        if made.failed {
            self.enter_error(WcStatus::Flushed);
        } else if made.completed || made.wants_poll || made.ended {
            self.cq.event(made.wants_poll || made.ended);
        }
    }

    fn peer_broke(&self, Broken(rule): Broken) {
        self.link.warn(self.number, rule);
        self.enter_error(WcStatus::RemoteOperation);
    }

    /// A reserved buffer comes back unposted, with its slot if it had one.
    fn give_back(&self, slot: Option<PeerSlot>) {
        self.reserved.fetch_sub(1, Ordering::Release);
        let mut tx = self.tx();
        if let Some(slot) = slot {
            tx.return_slot(slot);
        }
        // A message may be waiting for just this slot.
        self.drive(tx);
    }

    /// Kills the keys, flushes both halves, tells the peer. The first send request that was not
    /// done ends with `first`.
    fn enter_error(&self, first: WcStatus) {
        // No key can be bound and nothing posted from here on.
        let mut tx = self.tx();
        let before = std::mem::replace(&mut tx.state, State::Error);
        let remote = tx.remote().map(Arc::clone);
        drop(tx);
        self.link.plane().keys().kill_all_of(self.number);
        let mut rx = self.core.lock();
        let flushed = rx.flush();
        let rx_remote = rx.remote.take();
        drop(rx);
        for wr_id in flushed {
            self.cq.push(self.recv_completion(wr_id, WcStatus::Flushed));
        }
        self.tx().flush(self, first);
        self.over.store(true, Ordering::Release);
        if let Some(remote) = &remote
            && before != State::Error
        {
            remote.block().say_error();
            remote.notify(&self.link, true);
        }
        drop((remote, rx_remote));
        self.cq.event(true);
    }

    fn recv_completion(&self, wr_id: crate::types::WrId, status: WcStatus) -> WorkCompletion {
        WorkCompletion {
            wr_id,
            status,
            opcode: WcOpcode::Recv,
            byte_len: 0,
            invalidated: None,
            qp: QpNum(self.number),
        }
    }

    /// One look at both halves, by the thread in `poll`.
    pub(crate) fn poll(&self, out: &mut [WorkCompletion], work: &mut Work) -> usize {
        if self.over.load(Ordering::Acquire) {
            return 0;
        }
        // Looked at before the ring: what the peer published before it died is seen below.
        let peer_over = self.link.is_dead() || self.block().peer_in_error();
        let (filled, drained) = self.poll_rx(out, work);
        self.poll_tx(work);
        if drained && !self.over.load(Ordering::Acquire) {
            if peer_over {
                self.enter_error(WcStatus::RetryExceeded);
            } else if self.closing.load(Ordering::Acquire) && self.tx().queue.is_empty() {
                self.enter_error(WcStatus::Flushed);
            }
        }
        filled
    }

    /// Takes what has come in. Returns completions made, and whether the ring is empty.
    fn poll_rx(&self, out: &mut [WorkCompletion], work: &mut Work) -> (usize, bool) {
        let mut filled = 0;
        let mut silent = 0;
        let mut rx = self.core.lock();
        loop {
            if !rx.open {
                return (filled, true);
            }
            let Some(entry) = rx.peek() else {
                return (filled, true);
            };
            if filled == out.len() || silent == SILENT_MAX {
                work.more = true;
                return (filled, false);
            }
            match entry {
                Some(Inbound::Send {
                    slot,
                    len,
                    invalidate,
                    ..
                }) => {
                    rx.advance();
                    match self.receive(&mut rx, slot, len, invalidate) {
                        Ok(wc) => {
                            out[filled] = wc;
                            filled += 1;
                            if wc.status != WcStatus::Success {
                                drop(rx);
                                self.enter_error(WcStatus::Flushed);
                                return (filled, false);
                            }
                        }
                        Err(broken) => {
                            drop(rx);
                            self.peer_broke(broken);
                            return (filled, false);
                        }
                    }
                }
                Some(Inbound::Overrun { slot }) => {
                    rx.advance();
                    let received = self.core.complete(&mut rx, slot);
                    drop(rx);
                    match received {
                        Some(received) => {
                            out[filled] =
                                self.recv_completion(received.wr_id, WcStatus::LocalLength);
                            filled += 1;
                            self.enter_error(WcStatus::Flushed);
                        }
                        None => self.peer_broke(Broken(NOT_POSTED)),
                    }
                    return (filled, false);
                }
                Some(Inbound::Write(request)) => {
                    if !work.transfer && request.len > 0 {
                        work.more = true;
                        return (filled, false);
                    }
                    let Some(remote) = rx.remote.as_ref().map(Arc::clone) else {
                        return (filled, false);
                    };
                    drop(rx);
                    work.transfer &= request.len == 0;
                    let Some(status) = self.carry_out(&remote, &request).report() else {
                        // The region is on its way: everything behind this waits for it.
                        return (filled, false);
                    };
                    silent += 1;
                    rx = self.core.lock();
                    // Only this thread takes from the ring, so it is still the next one.
                    rx.advance();
                    remote.block().report_write(request.n, status);
                    remote.notify(&self.link, true);
                }
                Some(Inbound::End) => {
                    rx.advance();
                    drop(rx);
                    self.enter_error(WcStatus::Flushed);
                    return (filled, false);
                }
                None => {
                    drop(rx);
                    self.peer_broke(Broken("an entry of the ring is of no known kind"));
                    return (filled, false);
                }
            }
        }
    }

    fn receive(
        &self,
        rx: &mut Rx,
        slot: u32,
        len: u64,
        invalidate: Option<Rkey>,
    ) -> Result<WorkCompletion, Broken> {
        let received = self.core.complete(rx, slot).ok_or(Broken(NOT_POSTED))?;
        let byte_len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= received.len)
            .ok_or(Broken("a message is longer than the receive it lies in"))?;
        let mut wc = self.recv_completion(received.wr_id, WcStatus::Success);
        if let Some(rkey) = invalidate {
            if self.link.plane().keys().kill(rkey, Some(self.number)) {
                wc.invalidated = Some(rkey);
            } else {
                wc.status = WcStatus::LocalProtection;
                return Ok(wc);
            }
        }
        wc.byte_len = byte_len;
        Ok(wc)
    }

    /// Fetches what the peer wants written into our memory.
    fn carry_out(&self, remote: &Remote, request: &WriteRequest) -> Outcome {
        if request.len == 0 {
            return Outcome::Done;
        }
        let (rkey, to) = request.to;
        let keys = self.link.plane().keys();
        let Some(using) = keys.use_for_write(rkey, self.number, to, request.len) else {
            return Outcome::Access;
        };
        self.fetch_into(&using, remote, request)
    }

    fn fetch_into(&self, using: &KeyUse, remote: &Remote, request: &WriteRequest) -> Outcome {
        let target = usize::try_from(request.len)
            .ok()
            .filter(|len| *len <= LIMITS.rdma_len_max)
            .and_then(|len| {
                let ptr = using.region().pointer(request.to.1, len)?;
                Some(Target { ptr, len })
            });
        let Some(target) = target else {
            return Outcome::Access;
        };
        let (rkey, from) = request.from;
        // SAFETY: the target lies within a region with LOCAL_WRITE (checked when the key was
        // bound), whose contract keeps it valid while the key lives; `using` keeps whoever kills
        // the key waiting until the copy is over.
        unsafe { transfer::fetch(&self.link, remote.qp(), rkey, from, &[target]) }
    }

    fn poll_tx(&self, work: &mut Work) {
        let mut tx = self.tx();
        if tx.queue.is_empty() {
            return;
        }
        let mut progress = tx.progress(self);
        if let Ok(made) = &progress
            && made.wants_poll
            && !made.failed
        {
            if !work.transfer {
                work.more = true;
            } else if let Some((local, from, rkey)) = tx.take_read() {
                work.transfer = false;
                let before = *made;
                let remote = tx.remote().map(Arc::clone);
                drop(tx);
                let (status, len) = self.read(remote.as_deref(), &local, from.0, rkey);
                tx = self.tx();
                tx.finish_read(status, len);
                if tx.state == State::Error {
                    // It went into error meanwhile; this was what the flush waited for.
                    tx.flush(self, status.unwrap_or(WcStatus::Flushed));
                    drop(tx);
                    self.cq.event(true);
                    return;
                }
                progress = tx.progress(self).map(|made| made.with(before));
                work.more |= matches!(&progress, Ok(made) if made.wants_poll && status.is_some());
            }
        }
        let remote = tx.remote().map(Arc::clone);
        drop(tx);
        self.after_poll(progress, remote.as_deref());
    }

    /// As [`after`](Self::after), but the polling thread need not be told what it is about to see.
    fn after_poll(&self, progress: Result<Progress, Broken>, remote: Option<&Remote>) {
        let progress = progress.map(|made| Progress {
            completed: false,
            wants_poll: false,
            ..made
        });
        self.after(progress, remote);
    }

    fn read(
        &self,
        remote: Option<&Remote>,
        local: &[LocalSge],
        from: u64,
        rkey: Rkey,
    ) -> (Option<WcStatus>, usize) {
        let targets: SmallVec<[Target; 4]> = local
            .iter()
            .map(|sge| Target {
                ptr: sge.ptr,
                len: sge.len,
            })
            .collect();
        let len = targets.iter().map(|t| t.len).sum();
        let (Some(remote), false) = (remote, self.link.is_dead()) else {
            return (Some(WcStatus::RetryExceeded), 0);
        };
        // SAFETY: each target was checked against a region with LOCAL_WRITE when it was posted,
        // and `local` keeps that region while the contract of `register` keeps its memory.
        let outcome = unsafe { transfer::fetch(&self.link, remote.qp(), rkey, from, &targets) };
        (outcome.status(), len)
    }

    /// Lets the peer see a region before it is told of a key over it.
    fn show(&self, region: &RegionInner) -> Result<(), VerbsError> {
        let refused = |reason: String| VerbsError::Unavailable {
            provider: "host",
            reason,
        };
        if region.fd().is_none() {
            return self.link.heap_reachable().map_err(refused);
        }
        if !self.link.may_see_regions() {
            return Err(refused("the peer runs as another user".to_owned()));
        }
        self.link.show_region(region)
    }
}

const NOT_POSTED: &str = "a message names a receive that is not posted";

impl Drop for HostQp {
    fn drop(&mut self) {
        if !self.over.load(Ordering::Acquire) {
            self.enter_error(WcStatus::Flushed);
        }
        self.cq.remove_qp(self.number, self.link.id());
        self.link.remove_qp(self.index);
    }
}
