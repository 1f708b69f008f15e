//! The only place where the engine's actions become verbs calls, and completions its inputs.
//!
//! One [`Conn`] per connection, with two locks of different kind:
//!
//! * `inner`, a mutex around the engine and everything it names. Never held while waiting or while
//!   more than [`COPY_LOCKED_MAX`] bytes of payload are copied.
//! * `turn`, which is not waited for: whoever has it polls the completion queue (on same-host
//!   providers that is where RDMA READs are carried out). Who does not get it leaves a note.
//!
//! Order: `turn` before `inner`. Waiting threads are leader (has the turn, sleeps on the
//! completion queue) and followers (sleep on the words `tx` and `rx`). A leader that leaves its
//! call wakes the followers, one of whom becomes leader.

mod actions;
mod buffers;
mod recv;
mod regions;
mod send;
mod setup;
mod wait;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use sdp_core::connection::Phase;
use sdp_core::{BufferId, Completion, Connection, Event, Instant, WorkId};
use sdp_verbs::{
    ArmFor, CmId, CompletionQueue, CqToken, QueuePair, WcOpcode, WcStatus, WorkCompletion, WrId,
};
use smallvec::SmallVec;

use buffers::{Grants, PrivateSend, ReadAhead, RecvBuffers};
pub(crate) use recv::RecvFlags;
use regions::CallTable;
pub(crate) use regions::{region_bytes, region_bytes_mut};
pub(crate) use setup::config;

use crate::context::Context;
use crate::options::Options;
use crate::park::{Turn, WaitWord};
use crate::sync::lock;

/// Payload of at most this many bytes is copied under the connection's lock.
pub(crate) const COPY_LOCKED_MAX: usize = 4 << 10;

/// Completions taken from the queue at once.
const POLL_BATCH: usize = 16;

/// Rounds of polling in one go, so that one busy connection cannot hold a thread for ever.
const PUMP_ROUNDS_MAX: usize = 64;

const NEVER: u64 = u64::MAX;

/// One connection.
pub(crate) struct Conn {
    pub(crate) context: Arc<Context>,
    pub(crate) token: CqToken,
    pub(crate) id: Arc<dyn CmId>,
    pub(crate) options: Options,
    cq: Arc<dyn CompletionQueue>,
    recv_buffer_len: usize,
    qp: OnceLock<Arc<dyn QueuePair>>,
    turn: Turn,
    inner: Mutex<Inner>,
    /// Moves on at every event that a sender may wait for.
    pub(crate) tx: WaitWord,
    /// Moves on at every event that a receiver may wait for.
    pub(crate) rx: WaitWord,
    callers: AtomicU32,
    followers: AtomicU32,
    /// The engine's next time-out, mirrored so that pollers need not take the lock: nanoseconds.
    timeout: AtomicU64,
    /// The earliest time for which the progress loop has been asked to look here.
    scheduled: AtomicU64,
    /// The connection manager said that the transport is gone; told to the engine once the
    /// completion queue is empty.
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
            .field("id", &self.id)
            .finish()
    }
}

/// Who wants to know how the handshake ends.
pub(crate) type OnSettled = Box<dyn FnOnce(&Arc<Conn>) + Send>;

/// Everything the engine names, under one lock.
pub(crate) struct Inner {
    pub(crate) engine: Connection,
    recv_bufs: RecvBuffers,
    grants: Grants,
    private: PrivateSend,
    read_ahead: ReadAhead,
    calls: CallTable,
    jobs: Vec<sdp_core::CopyJob>,
    /// Requests were posted whose completion somebody must poll for.
    local_work: bool,
    told_down: bool,
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

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.id.peer_addr()
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.id.local_addr()
    }

    /// Applies `f` to the engine, then carries out what it wants.
    pub(crate) fn with_engine<R>(&self, f: impl FnOnce(&mut Connection, Instant) -> R) -> R {
        let mut inner = self.lock();
        let now = self.context.now();
        let result = f(&mut inner.engine, now);
        self.after(inner, now);
        result
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

    /// Sees to it that somebody polls the completion queue: this thread, or the one that has the
    /// turn, which may be asleep.
    fn drive(&self) {
        if !self.pump() {
            self.cq.wake();
        }
    }

    /// Polls the completion queue until it is empty, if it is nobody else's turn. False: somebody
    /// else has the turn, and will look again before it lets go.
    pub(crate) fn pump(&self) -> bool {
        if !self.turn.try_enter() {
            return false;
        }
        loop {
            self.pump_held();
            if self.turn.leave() {
                return true;
            }
        }
    }

    /// Polls until the queue is empty. The caller has the turn. Returns how many completions.
    fn pump_held(&self) -> usize {
        let mut total = 0;
        for _ in 0..PUMP_ROUNDS_MAX {
            let n = self.pump_once();
            total += n;
            if n == 0 {
                break;
            }
        }
        total
    }

    fn pump_once(&self) -> usize {
        let down = self.transport_down.load(Ordering::Acquire);
        let mut wcs = [EMPTY_WC; POLL_BATCH];
        let n = self.cq.poll(&mut wcs);
        let due = self.timeout.load(Ordering::Relaxed);
        if n == 0 && !down && (due == NEVER || due > self.context.now().as_nanos()) {
            return 0;
        }
        let mut inner = self.lock();
        let now = self.context.now();
        for wc in &wcs[..n] {
            self.complete(&mut inner, now, wc);
        }
        if n == 0 && down && !inner.told_down {
            inner.told_down = true;
            inner.engine.handle_cm(now, sdp_core::CmInput::Disconnected);
        }
        self.fire_timeout(&mut inner, now);
        n + usize::from(self.finish(inner, now))
    }

    /// Handles the engine's time-out if it is due.
    pub(crate) fn tick(&self) {
        let due = self.timeout.load(Ordering::Relaxed);
        if due == NEVER || due > self.context.now().as_nanos() {
            return;
        }
        let mut inner = self.lock();
        let now = self.context.now();
        self.fire_timeout(&mut inner, now);
        self.after(inner, now);
    }

    fn fire_timeout(&self, inner: &mut Inner, now: Instant) {
        if inner.engine.poll_timeout().is_some_and(|t| t <= now) {
            inner.engine.handle_timeout(now);
        }
    }

    /// One completion into the engine.
    fn complete(&self, inner: &mut Inner, now: Instant, wc: &WorkCompletion) {
        let low = wc.wr_id.0 & !WR_KIND;
        match wc.wr_id.0 & WR_KIND {
            WR_RECV => {
                let buf = BufferId(u16::try_from(low).unwrap_or(u16::MAX));
                if wc.status == WcStatus::Success {
                    self.received(inner, now, buf, wc);
                } else {
                    inner.engine.handle_recv_flushed(now, buf);
                    self.note_failure(inner, now, wc);
                }
            }
            WR_WORK => {
                let result = completion_of(wc.status);
                self.retire_key(inner, WorkId(low));
                inner.engine.handle_completion(now, WorkId(low), result);
            }
            _ => self.note_failure(inner, now, wc),
        }
    }

    /// A failure of a request that the engine did not name: the transport is broken.
    fn note_failure(&self, inner: &mut Inner, now: Instant, wc: &WorkCompletion) {
        if matches!(wc.status, WcStatus::Success | WcStatus::Flushed) || inner.told_down {
            return;
        }
        inner.told_down = true;
        tracing::warn!(qp = ?wc.qp, "{:?} failed: {:?}", wc.opcode, wc.status);
        inner.engine.handle_cm(now, sdp_core::CmInput::Disconnected);
    }

    fn received(&self, inner: &mut Inner, now: Instant, buf: BufferId, wc: &WorkCompletion) {
        let mut head = [0; sdp_wire::HEAD_LEN_MAX];
        let head_len = wc.byte_len.min(head.len());
        let Some(memory) = inner.recv_bufs.find(buf) else {
            tracing::error!("a completion for {buf:?}, which was never posted");
            return;
        };
        memory.mem().read(0, &mut head[..head_len]);
        let message = sdp_core::Received {
            head: &head[..head_len],
            len: wc.byte_len,
            invalidated: wc.invalidated.map(|k| sdp_wire::Rkey(k.0)),
        };
        inner.engine.handle_recv(now, buf, message);
    }

    /// Tells waiters of what the engine reports.
    fn tell(&self, inner: &mut Inner) {
        while let Some(event) = inner.engine.poll_event() {
            match event {
                Event::Connected => {
                    self.connected.store(true, Ordering::Release);
                    self.signal_all();
                    self.context.settled(self.token);
                }
                Event::SendReady => self.tx.signal(),
                Event::RecvReady => self.rx.signal(),
                Event::Closed(why) => {
                    tracing::debug!(token = ?self.token, ?why, "connection closed");
                    self.closed.store(true, Ordering::Release);
                    self.signal_all();
                    self.context.settled(self.token);
                }
                _ => self.signal_all(),
            }
        }
        let timeout = inner.engine.poll_timeout().map_or(NEVER, Instant::as_nanos);
        self.timeout.store(timeout, Ordering::Relaxed);
    }

    fn signal_all(&self) {
        self.tx.signal();
        self.rx.signal();
    }

    /// The connection manager reports that the transport is gone.
    pub(crate) fn transport_gone(&self) {
        self.transport_down.store(true, Ordering::Release);
        self.drive();
    }

    /// Looks after a connection that no thread is in a call on: the progress loop's visit.
    pub(crate) fn service(self: &Arc<Self>) {
        self.scheduled.store(NEVER, Ordering::Relaxed);
        self.tick();
        self.pump();
        if self.callers.load(Ordering::SeqCst) == 0 {
            self.settle();
        }
        if self.is_closed() {
            self.context.forget(self.token);
        }
    }

    /// Before nobody watches the completion queue: arm the channel for what must not wait until
    /// the next call, look once more, and leave the engine's time-out with the progress loop.
    pub(crate) fn settle(&self) {
        for _ in 0..PUMP_ROUNDS_MAX {
            self.cq.arm(self.wanted_events());
            if !self.turn.try_enter() {
                break;
            }
            let n = self.pump_held();
            while !self.turn.leave() {
                self.pump_held();
            }
            if n == 0 {
                break;
            }
        }
        let timeout = self.timeout.load(Ordering::Relaxed);
        if timeout < self.scheduled.load(Ordering::Relaxed) {
            self.scheduled.store(timeout, Ordering::Relaxed);
            self.context
                .schedule(Instant::from_nanos(timeout), self.token);
        }
    }

    /// All events while something is unfinished; else only those that the peer marks as urgent.
    fn wanted_events(&self) -> ArmFor {
        let inner = self.lock();
        let unfinished = match inner.engine.phase() {
            Phase::Open => inner.engine.unsent_len() != 0,
            Phase::Closed => false,
            _ => true,
        };
        if unfinished {
            ArmFor::Channel
        } else {
            ArmFor::ChannelSolicited
        }
    }

    /// Closes as `close(2)`: the progress loop finishes what is left.
    pub(crate) fn close(self: &Arc<Self>) {
        let linger = self.options.linger();
        self.with_engine(|engine, now| engine.close(now, linger));
        if self.is_closed() {
            self.context.forget(self.token);
        } else {
            self.settle();
        }
    }

    /// The pending error, once (SO_ERROR).
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.lock()
            .engine
            .take_error()
            .map(|e| crate::error::connection_error(&e))
    }
}

const EMPTY_WC: WorkCompletion = WorkCompletion {
    wr_id: WrId(WR_UNNAMED),
    status: WcStatus::Flushed,
    opcode: WcOpcode::Recv,
    byte_len: 0,
    invalidated: None,
    qp: sdp_verbs::QpNum(0),
};

fn completion_of(status: WcStatus) -> Completion {
    match status {
        WcStatus::Success => Completion::Success,
        WcStatus::RemoteAccess => Completion::RemoteAccess,
        WcStatus::RemoteOperation => Completion::RemoteFault,
        WcStatus::LocalProtection | WcStatus::LocalLength => Completion::LocalFault,
        WcStatus::Flushed => Completion::Flushed,
        WcStatus::RnrRetryExceeded => {
            Completion::TransportFailed("receiver not ready for too long")
        }
        WcStatus::RetryExceeded => Completion::TransportFailed("the peer does not answer"),
        _ => Completion::TransportFailed("unknown completion status"),
    }
}
