//! The only place where the engine's actions become verbs calls, and completions its inputs.
//!
//! One [`Conn`] per connection, with two locks of different kind:
//!
//! * `inner`, a mutex around the engine and everything it names. Never held while waiting or while
//!   more than [`COPY_LOCKED_MAX`] bytes of payload are copied.
//! * `turn`, which is not waited for: whoever has it polls the completion queue (on same-host
//!   providers that is where RDMA READs are carried out). Who does not get it leaves a note.
//!
//! Order: `turn` before `inner`. Of the threads that wait, one is the leader: it sleeps on the
//! completion queue, without the turn. The followers sleep on the words `tx` and `rx`, and only
//! while there is a leader; one that leaves wakes them, and another one leads.

mod actions;
mod attend;
mod buffers;
mod copies;
mod diagnosis;
mod keys;
mod moving;
mod pump;
mod recv;
mod regions;
mod send;
mod setup;
mod snapshot;
mod urgent;
mod wait;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use sdp_core::{BufferId, Connection, Instant, WorkId};
use sdp_verbs::{CompletionQueue, CqToken, QueuePair, RecvBuf, WcOpcode, WorkCompletion, WrId};
use smallvec::SmallVec;

use buffers::{Grants, PrivateSend, ReadAhead, RecvBuffers};
pub(crate) use diagnosis::Diagnosis;
use moving::{Moving, Pair};
use pump::FLUSH_WAIT;
pub use recv::RecvFlags;
use regions::CallTable;
pub(crate) use regions::{region_bytes, region_bytes_mut};
pub use send::SendFlags;
use setup::SEND_WR_MAX;
pub(crate) use setup::config;
pub(crate) use snapshot::{Parting, Snapshot};

use crate::budget::Allowance;
use crate::context::Context;
use crate::options::Options;
use crate::park::{Alarm, Turn, WaitWord};
use crate::ready::{Readiness, ReadyPair};
use crate::stats::Stats;
use crate::sync::lock;

/// Payload of at most this many bytes is copied under the connection's lock.
pub(crate) const COPY_LOCKED_MAX: usize = 4 << 10;

/// Completions taken from the queue at once.
const POLL_BATCH: usize = 8;

/// What is done on one connection in one go, so that none, however busy, holds a thread for ever:
/// completions, and bytes that were fetched from the peer's memory for them. A thread looks at what
/// is left before it takes more, so the last of them may go beyond.
#[derive(Clone, Copy, Debug)]
struct Portion {
    steps: usize,
    bytes: usize,
    /// Until there is nothing left; else a look that finds something will do.
    all: bool,
    /// When something was found last.
    found_at: Option<Instant>,
}

impl Portion {
    /// For the progress loop, on which every connection of the process waits.
    const VISIT: Self = Self {
        steps: 64,
        bytes: 256 << 10,
        all: true,
        found_at: None,
    };
    /// For a thread in a call: the bytes are those it waits for.
    const CALL: Self = Self {
        steps: 1024,
        bytes: usize::MAX,
        all: true,
        found_at: None,
    };
    /// For one that looks again before it sleeps.
    const LOOK: Self = Self {
        all: false,
        ..Self::CALL
    };

    fn is_used_up(&self) -> bool {
        self.steps == 0 || self.bytes == 0
    }

    fn take(&mut self, wcs: &[WorkCompletion]) {
        let fetched = wcs.iter().filter(|wc| wc.opcode == WcOpcode::Read);
        let bytes = fetched.map(|wc| wc.byte_len).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        // A look that finds nothing to report may have moved bytes for the peer.
        self.steps = self.steps.saturating_sub(wcs.len().max(1));
    }
}

/// One connection.
pub(crate) struct Conn {
    pub(crate) context: Arc<Context>,
    pub(crate) token: CqToken,
    /// This end's address and the peer's, as they were at first: a program is not told of moves.
    names: (Option<SocketAddr>, Option<SocketAddr>),
    pub(crate) options: Options,
    cq: Arc<dyn CompletionQueue>,
    /// The peer is on the same machine.
    same_host: bool,
    /// Bytes that a send may send at once.
    at_once_max: usize,
    /// Private memory: what it holds, and whether there is more.
    memory: Allowance,
    turn: Turn,
    inner: Mutex<Inner>,
    /// Moves on at every event that a sender may wait for.
    pub(crate) tx: WaitWord,
    /// Moves on at every event that a receiver may wait for.
    pub(crate) rx: WaitWord,
    callers: AtomicU32,
    /// When the last thread left its call: nanoseconds.
    left: AtomicU64,
    /// How often the progress loop has found a conversation going on, since it began.
    looks: AtomicU32,
    followers: AtomicU32,
    /// A thread sleeps on the completion queue, or is about to.
    leading: AtomicBool,
    /// The channel may have been armed since a thread last came into a call.
    channel_armed: AtomicBool,
    /// The engine's next time-out, mirrored so that pollers need not take the lock: nanoseconds.
    timeout: AtomicU64,
    /// The engine's next time-out that no call waits for, likewise.
    housekeeping: AtomicU64,
    /// When the progress loop has been asked to look here.
    alarm: Alarm,
    /// The transport is gone; the engine hears of it once every receive has come back, so that
    /// what the peer had sent before is delivered first.
    transport_down: AtomicBool,
    closed: AtomicBool,
    connected: AtomicBool,
    /// Called once, when the handshake is complete or has failed.
    on_settled: Mutex<Option<OnSettled>>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn")
            .field("token", &self.token)
            .field("names", &self.names)
            .finish()
    }
}

/// Who wants to know how the handshake ends.
pub(crate) type OnSettled = Box<dyn FnOnce(&Arc<Conn>) + Send>;

/// Everything the engine names, under one lock.
pub(crate) struct Inner {
    pub(crate) engine: Connection,
    /// None while the connection is between two queue pairs.
    pair: Option<Pair>,
    pub(crate) moving: Moving,
    /// Made with the connection, for the receives that its handshake needs.
    first_recvs: Vec<RecvBuf>,
    recv_bufs: RecvBuffers,
    grants: Grants,
    private: PrivateSend,
    /// Urgent sends whose bytes wait for their place among the others.
    urgent: PrivateSend,
    /// The urgent byte that came last.
    kept_urgent: u8,
    read_ahead: ReadAhead,
    calls: CallTable,
    jobs: SmallVec<[sdp_core::CopyJob; 2]>,
    /// Requests were posted whose completion somebody must poll for.
    local_work: bool,
    /// Signalled requests outstanding: their completions are not solicited.
    works: usize,
    /// Receives posted and not yet completed.
    receives: usize,
    /// Requests that a broken transport gave back. The engine hears of them after the last message
    /// of the peer's.
    flushed_works: Vec<WorkId>,
    /// As above: receives that could not be posted.
    flushed_receives: Vec<BufferId>,
    /// The descriptor to wait on, once the program has asked for it.
    ready: Option<ReadyPair>,
    /// When the transport was found to be gone.
    down_since: Option<Instant>,
    /// The engine knows that the transport is gone.
    told_down: bool,
}

impl Inner {
    /// A signalled request was posted.
    fn posted_work(&mut self) {
        self.works += 1;
        self.local_work = true;
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

/// Kinds of [`WrId`]: the two highest bits.
const WR_RECV: u64 = 1 << 62;
const WR_WORK: u64 = 2 << 62;
const WR_UNNAMED: u64 = 3 << 62;
const WR_KIND: u64 = 3 << 62;

fn recv_wr_id(buf: BufferId) -> WrId {
    WrId(WR_RECV | u64::from(buf.0))
}

fn work_wr_id(work: Option<WorkId>) -> WrId {
    WrId(work.map_or(WR_UNNAMED, |w| WR_WORK | w.0))
}

impl Conn {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// A thread is in a call.
    pub(crate) fn is_in_call(&self) -> bool {
        self.callers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.names.1
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.names.0
    }

    /// The queue pair, unless the connection is between two of them.
    fn qp(&self) -> Option<Arc<dyn QueuePair>> {
        self.lock().pair.as_ref().map(|pair| Arc::clone(&pair.qp))
    }

    /// Applies `f` to the engine, then carries out what it wants.
    pub(crate) fn with_engine<R>(&self, f: impl FnOnce(&mut Connection, Instant) -> R) -> R {
        let mut inner = self.lock();
        let now = self.context.now();
        let result = f(&mut inner.engine, now);
        self.after(inner, now);
        result
    }

    /// As [`with_engine`](Self::with_engine), from a thread that is in no other call.
    pub(crate) fn visit_engine<R>(&self, f: impl FnOnce(&mut Connection, Instant) -> R) -> R {
        let _caller = self.enter();
        self.with_engine(f)
    }

    /// Finishes a visit to the engine, then sees to it that what was posted gets polled for.
    fn after(&self, inner: MutexGuard<'_, Inner>, now: Instant) {
        if self.finish(inner, now) {
            self.drive();
        }
    }

    /// Carries out the engine's actions and tells of its events; then, without the lock, does the
    /// copying it asked for, and so on until it asks for none. Returns whether requests were
    /// posted whose completion somebody must poll for.
    fn finish<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, mut now: Instant) -> bool {
        loop {
            self.drain(&mut inner, now);
            if inner.jobs.is_empty() {
                return std::mem::take(&mut inner.local_work);
            }
            let jobs = std::mem::take(&mut inner.jobs);
            drop(inner);
            let done: SmallVec<[_; 2]> = jobs.iter().map(|job| self.run_job(job)).collect();
            inner = self.lock();
            now = self.context.now();
            for (job, ok) in jobs.iter().zip(done) {
                inner.engine.handle_copied(now, job.id, ok);
            }
        }
    }

    /// Closes as `close(2)`: the progress loop finishes what is left.
    pub(crate) fn close(self: &Arc<Self>) {
        let linger = self.options.linger();
        self.visit_engine(|engine, now| engine.close(now, linger));
        self.forget_if_over();
    }

    /// Has the context let go of a closed connection, once no thread is in a call, and whoever wants
    /// to know how the handshake ended does: until then the progress loop looks after its events
    /// and time-outs, for which a sleeping call may wait.
    fn forget_if_over(&self) {
        let over = self.is_closed() && self.callers.load(Ordering::SeqCst) == 0;
        if over && lock(&self.on_settled).is_none() {
            self.context.forget(self.token);
        }
    }

    /// The descriptor to wait on, made at the first call.
    pub(crate) fn readiness(&self) -> io::Result<Readiness> {
        let _caller = self.enter();
        let mut inner = self.lock();
        if let Some(ready) = &inner.ready {
            return Ok(ready.descriptor());
        }
        let ready = ReadyPair::new()?;
        let descriptor = ready.descriptor();
        inner.ready = Some(ready);
        inner.engine.set_polled();
        let now = self.context.now();
        self.after(inner, now);
        Ok(descriptor)
    }

    /// Whether each arrival is an edge of the descriptor, which must be there.
    pub(crate) fn set_edges(&self, on: bool) {
        // Who leaves a call arms by what is wanted now.
        let _caller = self.enter();
        if let Some(ready) = &mut self.lock().ready {
            ready.set_edges(on);
        }
    }

    /// What is awaited has changed: whoever leaves a call arms by what it is now.
    pub(crate) fn arm_anew(&self) {
        drop(self.enter());
    }

    /// Takes over the descriptor of the connect that this connection came of. It goes on showing
    /// what it does until [`show_adopted`](Self::show_adopted).
    pub(crate) fn adopt_ready(&self, ready: ReadyPair) {
        let mut inner = self.lock();
        inner.ready = Some(ready);
        inner.engine.set_polled();
    }

    /// A descriptor that was taken over shows the state of the connection from here on.
    pub(crate) fn show_adopted(&self) {
        if self.lock().ready.is_some() {
            self.visit_engine(|_, _| ());
        }
    }

    /// What this connection has done.
    pub(crate) fn stats(&self) -> Stats {
        let stats = self.visit_engine(|engine, _| Stats::of(engine));
        let queued = self.qp().map_or(0, |qp| qp.queued_len());
        Stats {
            tx_bytes_queued: queued as u64,
            memory_refused: self.memory.refused(),
            ..stats
        }
    }

    /// Bytes that a receive gets now.
    pub(crate) fn recv_queue_len(&self) -> usize {
        let _caller = self.enter();
        self.pump();
        self.lock().engine.readable_len()
    }

    /// The pending error, once (SO_ERROR).
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.lock()
            .engine
            .take_error()
            .map(|e| crate::error::connection_error(&e))
    }
}
