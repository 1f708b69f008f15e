//! Polling the completion queue: completions into the engine, and what it reports to those who wait.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sdp_core::{BufferId, Completion, Event, Instant, WorkId};
use sdp_verbs::{QpNum, WcOpcode, WcStatus, WorkCompletion, WrId};

use super::{Conn, Inner, POLL_BATCH, Portion, WR_KIND, WR_RECV, WR_UNNAMED, WR_WORK};
use crate::park::{NEVER, WaitWord, pass_moment};
use crate::ready::Level;

/// How long a receive that finds nothing waits for whoever has the turn, who is about to let go of it but
/// may have lost the processor: for long in a test, which means it to.
const TURN_WAIT: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 10 });

/// A transport that is gone flushes its receives; if it has not after this time, it is made to.
pub(super) const FLUSH_WAIT: Duration = Duration::from_secs(1);

const EMPTY_WC: WorkCompletion = WorkCompletion {
    wr_id: WrId(WR_UNNAMED),
    status: WcStatus::Flushed,
    opcode: WcOpcode::Recv,
    byte_len: 0,
    invalidated: None,
    qp: QpNum(0),
};

impl Conn {
    /// Sees to it that somebody polls the completion queue: this thread, whoever has the turn, or
    /// the leader, which may be asleep.
    pub(super) fn drive(&self) {
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
            self.pump_held(&mut { Portion::CALL });
            if self.turn.leave() {
                return true;
            }
        }
    }

    /// As [`pump`](Self::pump), for one that arms and pumps before it sleeps. Returns the time, if it
    /// was asked for at the end.
    pub(super) fn look(&self) -> Option<Instant> {
        if !self.turn.try_enter() {
            return None;
        }
        loop {
            let mut portion = Portion::LOOK;
            self.pump_held(&mut portion);
            if self.turn.leave() {
                return portion.found_at;
            }
        }
    }

    /// For a receive that has found nothing: whoever has the turn may have taken from the queue what the
    /// descriptor has told of, and not be through with it. True: there is something now. Without a
    /// descriptor nobody was told, and nobody waits.
    pub(super) fn has_come_meanwhile(&self) -> bool {
        if self.lock().ready.is_none() {
            return false;
        }
        let mut until = None;
        while !self.turn.try_enter_quietly() {
            let now = self.context.now();
            if now >= *until.get_or_insert(now + TURN_WAIT) {
                return false;
            }
            pass_moment(true);
        }
        self.pump_held(&mut { Portion::CALL });
        while !self.turn.leave() {
            self.pump_held(&mut { Portion::CALL });
        }
        self.lock().engine.is_readable()
    }

    /// As [`pump`](Self::pump), but no more than is left of a portion. If there may be more, the
    /// progress loop comes back; until then a thread in a call may take the turn.
    pub(super) fn pump_portion(&self, portion: &mut Portion) {
        if !self.turn.try_enter() {
            return;
        }
        loop {
            self.pump_held(portion);
            if self.turn.leave() {
                break;
            }
        }
        if portion.is_used_up() {
            self.context.schedule(Instant::from_nanos(0), self.token);
        }
    }

    /// As [`look`](Self::look), but leaves no note with whoever has the turn: for spinning.
    pub(super) fn look_if_free(&self) -> Option<Instant> {
        if !self.turn.try_enter_quietly() {
            return None;
        }
        let mut portion = Portion::LOOK;
        self.pump_held(&mut portion);
        if self.turn.leave() {
            return portion.found_at;
        }
        self.pump_held(&mut { Portion::CALL });
        while !self.turn.leave() {
            self.pump_held(&mut { Portion::CALL });
        }
        None
    }

    /// Polls until the queue is empty or the portion is used up. The caller has the turn. Returns
    /// how many completions.
    pub(super) fn pump_held(&self, portion: &mut Portion) -> usize {
        let mut wcs = [EMPTY_WC; POLL_BATCH];
        let mut total = 0;
        while !portion.is_used_up() {
            let n = self.pump_once(portion, &mut wcs);
            total += n;
            let enough = !portion.all && n < POLL_BATCH;
            if n == 0 || enough {
                break;
            }
        }
        total
    }

    fn pump_once(&self, portion: &mut Portion, wcs: &mut [WorkCompletion; POLL_BATCH]) -> usize {
        let room = portion.steps.min(POLL_BATCH);
        let n = self.cq.poll(&mut wcs[..room]);
        portion.take(&wcs[..n]);
        let down = self.transport_down.load(Ordering::Acquire);
        if n == 0 && !down && !self.is_due(self.timeout.load(Ordering::Relaxed)) {
            return 0;
        }
        let mut inner = self.lock();
        let now = self.context.now();
        portion.found_at = Some(now);
        for wc in &wcs[..n] {
            self.complete(&mut inner, now, wc);
        }
        if down {
            self.wind_down(&mut inner, now);
        }
        if self.next_timeout(Ordering::Relaxed) <= now.as_nanos() {
            fire_timeout(&mut inner, now);
        }
        n + usize::from(self.finish(inner, now))
    }

    pub(super) fn is_due(&self, at: u64) -> bool {
        at != NEVER && at <= self.context.now().as_nanos()
    }

    /// Handles the engine's time-out if it is due.
    pub(super) fn tick(&self) {
        if self.is_due(self.timeout.load(Ordering::Relaxed)) {
            let mut inner = self.lock();
            let now = self.context.now();
            fire_timeout(&mut inner, now);
            self.after(inner, now);
        }
    }

    /// One completion into the engine.
    fn complete(&self, inner: &mut Inner, now: Instant, wc: &WorkCompletion) {
        let low = wc.wr_id.0 & !WR_KIND;
        match wc.wr_id.0 & WR_KIND {
            WR_RECV => {
                inner.receives -= 1;
                let buf = BufferId(u16::try_from(low).unwrap_or(u16::MAX));
                if wc.status == WcStatus::Success {
                    self.received(inner, now, buf, wc);
                } else {
                    inner.engine.handle_recv_flushed(now, buf);
                    self.note_failure(wc);
                }
            }
            WR_WORK => {
                inner.works -= 1;
                let work = WorkId(low);
                if wc.status == WcStatus::Flushed {
                    // Messages of the peer's may still follow in the queue.
                    inner.flushed_works.push(work);
                    self.transport_down.store(true, Ordering::Release);
                    return;
                }
                inner
                    .calls
                    .finish_invalidate(work, wc.status == WcStatus::Success);
                let result = self.completion_of(wc.status);
                inner.engine.handle_completion(now, work, result);
            }
            _ => self.note_failure(wc),
        }
    }

    /// What has become of a request. Between processes of one machine no peer is silent: one that does
    /// not answer has ended, as a reset says.
    fn completion_of(&self, status: WcStatus) -> Completion {
        match status {
            WcStatus::Success => Completion::Success,
            WcStatus::RemoteAccess => Completion::RemoteAccess,
            WcStatus::SourceUnreadable => Completion::RemoteFault,
            WcStatus::LocalProtection | WcStatus::LocalLength => Completion::LocalFault,
            WcStatus::Flushed => Completion::Flushed,
            WcStatus::RnrRetryExceeded => {
                Completion::TransportFailed("receiver not ready for too long")
            }
            WcStatus::RetryExceeded if self.same_host => {
                Completion::TransportFailed("the peer's process has ended")
            }
            WcStatus::RetryExceeded => Completion::Unanswered,
            WcStatus::RemoteOperation => Completion::TransportFailed("the peer's adapter failed"),
            _ => Completion::TransportFailed("unknown completion status"),
        }
    }

    /// A failure of a request that the engine did not name: the transport is broken.
    fn note_failure(&self, wc: &WorkCompletion) {
        if !matches!(wc.status, WcStatus::Success | WcStatus::Flushed) {
            tracing::warn!(qp = ?wc.qp, "{:?} failed: {:?}", wc.opcode, wc.status);
            self.transport_down.store(true, Ordering::Release);
        }
    }

    fn received(&self, inner: &mut Inner, now: Instant, buf: BufferId, wc: &WorkCompletion) {
        let memory = inner.recv_bufs.find(buf).map(|m| *m.mem());
        let Some(memory) = memory.filter(|m| wc.byte_len <= m.len()) else {
            tracing::error!(qp = ?wc.qp, "{buf:?}: no such buffer of {} bytes", wc.byte_len);
            self.transport_down.store(true, Ordering::Release);
            inner.engine.handle_recv_flushed(now, buf);
            return;
        };
        let mut head = [0; sdp_wire::HEAD_LEN_MAX];
        let head_len = wc.byte_len.min(head.len());
        memory.read(0, &mut head[..head_len]);
        let message = sdp_core::Received {
            head: &head[..head_len],
            len: wc.byte_len,
            invalidated: wc.invalidated.map(|k| sdp_wire::Rkey(k.0)),
        };
        inner.engine.handle_recv(now, buf, message);
    }

    /// The transport is gone. Once every receive has come back, nothing of the peer's can follow:
    /// the queue pair's keys are killed, then the engine is told.
    fn wind_down(&self, inner: &mut Inner, now: Instant) {
        let first = !inner.told_down;
        if first {
            let since = *inner.down_since.get_or_insert(now);
            if inner.receives != 0 && now.since(since) < FLUSH_WAIT {
                return;
            }
            inner.told_down = true;
            if let Some(pair) = &inner.pair {
                pair.qp.set_error();
            }
            inner.calls.forget_all_keys();
        }
        let mut works = std::mem::take(&mut inner.flushed_works);
        // The engine wants them as they were posted; those that could not be are among them.
        works.sort_unstable();
        for work in works {
            inner.calls.finish_invalidate(work, false);
            inner
                .engine
                .handle_completion(now, work, Completion::Flushed);
        }
        for buf in std::mem::take(&mut inner.flushed_receives) {
            inner.engine.handle_recv_flushed(now, buf);
        }
        if first {
            inner.engine.handle_cm(now, sdp_core::CmInput::Disconnected);
        }
    }

    /// The connection manager reports that the transport is gone.
    pub(crate) fn transport_gone(&self) {
        self.transport_down.store(true, Ordering::Release);
        self.drive();
    }

    /// Tells waiters of what the engine reports.
    pub(super) fn tell(&self, inner: &mut Inner) {
        while let Some(event) = inner.engine.poll_event() {
            match event {
                Event::SendReady => self.notify(&self.tx),
                Event::RecvReady => self.notify(&self.rx),
                Event::Connected => {
                    self.connected.store(true, Ordering::Release);
                    self.notify_all();
                    self.context.settled(self.token);
                }
                Event::Closed(why) => {
                    tracing::debug!(token = ?self.token, ?why, "connection closed");
                    self.closed.store(true, Ordering::Release);
                    self.notify_all();
                    self.context.settled(self.token);
                }
                // Nobody waits for it but who polls, which is seen to below.
                Event::Urgent => {}
                _ => self.notify_all(),
            }
        }
        self.show_ready(inner);
        let engine = inner.engine.poll_timeout();
        let flush = match inner.down_since {
            Some(since) if !inner.told_down => Some(since + FLUSH_WAIT),
            Some(since) if inner.moving.has_left() => Some(since + 2 * FLUSH_WAIT),
            _ => None,
        };
        let nanos = |at: Option<Instant>| at.map_or(NEVER, Instant::as_nanos);
        let at = nanos(engine).min(nanos(flush));
        // The lock is held, so nobody else changes it.
        if at != self.timeout.load(Ordering::Relaxed)
            && at < self.timeout.swap(at, Ordering::SeqCst)
            && self.leading.load(Ordering::SeqCst)
        {
            // It sleeps until a later time, or for ever.
            self.cq.wake();
        }
        let at = nanos(inner.engine.poll_housekeeping());
        if at != self.housekeeping.load(Ordering::Relaxed) {
            self.housekeeping.store(at, Ordering::SeqCst);
            // Threads in calls do not look after this, however long they stay.
            self.schedule_timeout();
        }
    }

    /// The engine's next time-out of any kind: nanoseconds.
    pub(super) fn next_timeout(&self, order: Ordering) -> u64 {
        let timeout = self.timeout.load(order);
        timeout.min(self.housekeeping.load(order))
    }

    /// Brings the program's descriptor, if it has one, in line with the engine.
    fn show_ready(&self, inner: &mut Inner) {
        let Some(ready) = &mut inner.ready else {
            return;
        };
        let engine = &inner.engine;
        let (space, waits) = (engine.send_space(), engine.send_waits());
        let level = Level {
            readable: engine.is_readable(),
            arrivals: engine.stats().received.iter().sum(),
            full: space == 0 || waits,
            // Linux calls a TCP socket writable from a third of its buffer on.
            roomy: space >= engine.send_buffer_len() / 3 && !waits,
            urgent: engine.has_urgent(),
            read_closed: engine.is_read_closed(),
            write_closed: engine.is_write_closed(),
            ended: engine.is_closed().then(|| engine.has_failed()),
        };
        let put = self.cq.recall_tokens();
        // A token goes that was put for a message nobody has looked for: somebody must, since the peer
        // tells of it no more.
        inner.local_work |= put != 0 && !level.readable;
        if let Err(error) = ready.show(level, put) {
            tracing::error!(token = ?self.token, "the readiness descriptor: {error}");
        }
    }

    /// Wakes those who wait on a word, the leader among them.
    fn notify(&self, word: &WaitWord) {
        word.signal();
        // After the word has moved (its fence orders the two): a leader that did not see it move
        // is seen here.
        if self.leading.load(Ordering::SeqCst) && !sdp_core::mutant!(WakeUpLost) {
            self.cq.wake();
        }
    }

    pub(super) fn notify_all(&self) {
        self.tx.signal();
        self.notify(&self.rx);
    }
}

pub(super) fn fire_timeout(inner: &mut Inner, now: Instant) {
    let engine = &inner.engine;
    let due = [engine.poll_timeout(), engine.poll_housekeeping()];
    if due.into_iter().flatten().any(|t| t <= now) {
        inner.engine.handle_timeout(now);
    }
}
