//! Queue pairs of the host provider.

mod buf;
mod connection;
mod entry;
mod poll;
mod post;
mod remote;
mod rx;
mod transfer;
mod tx;
mod writes;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

use super::cq::HostCq;
use super::layout::{self, Block, QpPlace, WRITES_MAX};
use super::link::PeerLink;
use super::notice::Notice;
use super::provider::LIMITS;
use super::region::RegionInner;
use super::token::TokenSocket;
use crate::error::VerbsError;
use crate::qp::QpAttr;
use crate::types::{QpNum, WrId};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};
use buf::PeerSlot;
use connection::Broken;
use entry::{Entry, Op};
use remote::Remote;
use rx::RxCore;
use tx::{Progress, State, Tx};

/// Where a queue pair's memory is in its link: goes into REQ and REP as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct QpDescriptor(pub(crate) [u8; QP_DESCRIPTOR_LEN]);

/// Bytes of a [`QpDescriptor`].
pub(crate) const QP_DESCRIPTOR_LEN: usize = 32;

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
    /// Whether the sending half has requests, as of its last change: for the polling thread.
    busy: AtomicBool,
    /// The peer's, to put tokens into.
    token_socket: Mutex<Option<TokenSocket>>,
    /// The peer has ours.
    lent_token_socket: AtomicBool,
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
            busy: AtomicBool::new(false),
            token_socket: Mutex::default(),
            lent_token_socket: AtomicBool::new(false),
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

    /// Entries of its ring that have been taken.
    pub(crate) fn taken(&self) -> &Arc<AtomicU64> {
        self.core.taken()
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

    /// A send request takes an entry of the queue.
    fn count_send(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// Queues the completion of a send request.
    fn complete_send(&self, wr_id: WrId, status: WcStatus, opcode: WcOpcode, byte_len: usize) {
        self.cq.push(WorkCompletion {
            wr_id,
            status,
            opcode,
            byte_len,
            invalidated: None,
            qp: QpNum(self.number),
        });
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
            self.tell(&remote, Notice::Solicited, 0);
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
        // Before the last look for a receive: whoever is woken by it must find us busy.
        self.busy.store(!tx.queue.is_empty(), Ordering::Relaxed);
        let progress = tx.progress(self);
        self.settle(tx, progress);
    }

    /// Gives the lock back and does what must be done without it.
    fn settle(&self, tx: MutexGuard<'_, Tx>, progress: Result<Progress, Broken>) {
        self.busy.store(!tx.queue.is_empty(), Ordering::Relaxed);
        let remote = match &progress {
            Ok(Progress {
                published: Some(notice),
                last_payload,
                ..
            }) => tx.remote().filter(|r| r.is_awaited(*notice, *last_payload)),
            _ => None,
        }
        .map(Arc::clone);
        drop(tx);
        let made = match progress {
            Ok(made) => made,
            Err(broken) => {
                self.peer_broke(broken);
                return;
            }
        };
        if let (Some(notice), Some(remote)) = (made.published, remote) {
            self.tell(&remote, notice, made.last_payload);
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

    /// Tells the peer of what was published, the last payload as entry `last`. No lock may be held.
    fn tell(&self, remote: &Remote, notice: Notice, last: u64) {
        if notice != Notice::Payload {
            return remote.notify(&self.link, (notice, last), None);
        }
        let socket = self.token_socket();
        remote.notify(&self.link, (notice, last), socket.as_ref().map(AsFd::as_fd));
    }

    /// The peer lends its socket. One that has come before stays; if there are too many, none does.
    pub(crate) fn keep_token_socket(&self, socket: OwnedFd) {
        let mut kept = self.token_socket();
        if kept.is_none() && !self.over.load(Ordering::Acquire) {
            *kept = TokenSocket::keep(socket, self.link.plane().token_sockets());
        }
    }

    fn token_socket(&self) -> MutexGuard<'_, Option<TokenSocket>> {
        self.token_socket
            .lock()
            .expect("nothing panics under this lock")
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
        // The peer's program sees the end of its socket only when nobody has it.
        drop(self.token_socket().take());
        if let Some(remote) = &remote
            && before != State::Error
        {
            remote.block().say_error();
            self.tell(remote, Notice::Solicited, 0);
        }
        drop((remote, rx_remote));
        self.cq.event(true);
    }

    fn recv_completion(&self, wr_id: WrId, status: WcStatus) -> WorkCompletion {
        WorkCompletion {
            wr_id,
            status,
            opcode: WcOpcode::Recv,
            byte_len: 0,
            invalidated: None,
            qp: QpNum(self.number),
        }
    }

    /// Lets the peer reach a region before it is told of a key over it. Returns the place of `addr` in what
    /// the peer maps; none if it asks the kernel for the bytes, as for all memory that cannot be shown.
    fn show(&self, region: &RegionInner, addr: u64) -> Result<Option<(u32, u64)>, VerbsError> {
        let refused = |reason: String| VerbsError::Unavailable {
            provider: "host",
            reason,
        };
        if region.fd().is_some() {
            if !self.link.is_own_user() {
                return Err(refused("the peer runs as another user".to_owned()));
            }
            match self.link.show_region(region) {
                Ok(()) => return Ok(Some((region.id(), addr - region.addr()))),
                Err(error) => {
                    tracing::debug!(%error, region = region.id(), "left to the kernel");
                }
            }
        }
        self.link.heap_reachable().map_err(refused)?;
        Ok(None)
    }
}

impl Drop for HostQp {
    fn drop(&mut self) {
        if !self.over.load(Ordering::Acquire) {
            self.enter_error(WcStatus::Flushed);
        }
        self.cq.remove_qp(self.number, self.link.id());
        self.link.remove_qp(self.index);
    }
}
