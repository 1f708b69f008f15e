//! One connection: the public face of the engine. It only hands inputs on; see [`Connection`].

mod at_once;
mod close;
mod dispatch;
mod getters;
mod handshake;
mod moving;
mod scarcity;
mod state;

use core::net::IpAddr;
use core::time::Duration;

use sdp_wire::{RemoteAddr, Rkey, ServiceId};

use crate::action::Action;
use crate::adaptive::{Adaptive, Choices};
use crate::call::{CopyTarget, EndCall, RecvRequest, RecvStep, SendRequest, SendStep, UrgentRecv};
use crate::config::{Config, ZcopyThreshold};
use crate::error::{CallError, ConnectionError};
use crate::event::{CmInput, Completion, Event, Received};
use crate::ids::{BufferId, JobId, KeyId, RecvId, SendId, WorkId};
use crate::keepalive::Keepalive;
use crate::rx::Rx;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;
use crate::tx::Tx;

pub use handshake::Refusal;
pub(crate) use state::Shared;
pub use state::{PeerParams, Phase};

/// One connection.
///
/// Four kinds of method:
///
/// * **Inputs** (`handle_*`, `buffer_unavailable`): what happened outside. Any order and any peer
///   bytes are taken without panic; a peer that breaks a rule ends the connection under the name
///   of that rule.
/// * **Application calls**: `send_*` and `recv_*` drive calls in progress, which take turns;
///   `shutdown_*`, `close`, `abort` and the `set_*` act at once.
/// * **Outputs** (`poll_*`): after every input or application call, first [`Self::poll_action`]
///   until it gives `None`, each action being carried out before the next is polled; then
///   [`Self::poll_event`] likewise; then [`Self::poll_timeout`].
/// * **Getters**.
///
/// `now` is given by the caller and never goes back.
///
/// # Invariants
/// 1. No clock, thread, lock, random number or I/O.
/// 2. A call ends only when every key of its memory is dead: its killing has completed, the peer
///    has invalidated it, or the queue pair is in error. Asserted when the call is forgotten.
/// 3. A receive call ends only when no RDMA READ into its memory is outstanding, a send call only
///    when no RDMA WRITE from its memory is. Asserted likewise.
/// 4. No message goes without a credit, none with payload with fewer than three, and none without
///    payload with fewer than two unless it brings the peer new ones. Asserted when a credit is
///    spent.
/// 5. Never more send work is outstanding than [`Config::send_slots`]. Asserted at every post.
/// 6. MSeq is given in the order of posting; Bufs and MSeqAck are those of the moment at which
///    the message is handed out.
/// 7. Bytes leave in the order of the calls, and no payload goes while a source advert is open.
///    Asserted at every Data. What a call advertises is one run of its memory, in order.
/// 8. A receive buffer is posted, holds unread bytes, or is free, and is never two of these.
/// 9. Unread bytes held and the payload that the peer has credits for fit
///    [`Config::recv_buffer_total`], to less than two messages, when a receive is posted; reading
///    ahead never exceeds it.
/// 10. Every queue is bounded: messages by credits and slots, reads by [`Config::read_depth`],
///     answers owed are facts that merge, received runs by buffers,
///     adverts of either kind by MaxAdverts.
/// 11. In Combined mode one source advert is open at most, asserted when one is sent. None is sent
///     while an offer of the peer's is in hand, asserted likewise: it would be discarded.
/// 12. RdmaWrCompl is posted directly behind the RDMA WRITEs it reports, and each offer of the
///     peer's is ended exactly once: by RdmaWrCompl, by one message with payload, or by
///     SinkCancelAck.
/// 13. A connection leaves a queue pair with nothing under way in either direction. Asserted then.
///
/// # Panics
/// Methods panic when the *driver* breaks the contract (the completion of work never posted, more
/// bytes copied than asked for). No input of the peer's can cause one.
#[derive(Debug)]
pub struct Connection {
    sh: Shared,
    tx: Tx,
    rx: Rx,
    /// When things were last moved on.
    pumped: Instant,
}

/// Inputs.
impl Connection {
    /// Something happened at the connection manager.
    pub fn handle_cm(&mut self, now: Instant, input: CmInput<'_>) {
        self.on_cm(now, input);
        self.pump(now);
    }

    /// A message came into `buf`.
    pub fn handle_recv(&mut self, now: Instant, buf: BufferId, msg: Received<'_>) {
        self.touch(now);
        match self.on_message(now, buf, msg) {
            Ok(()) => {}
            Err(ConnectionError::LocallyAborted) => {
                self.on_abort(now, ConnectionError::LocallyAborted);
            }
            Err(error) => self.fail(error),
        }
        self.pump(now);
    }

    /// The receive posted with `buf` came back in error: the queue pair is broken or was closed
    /// by the peer. Messages that came before it must have been handed in.
    pub fn handle_recv_flushed(&mut self, now: Instant, buf: BufferId) {
        self.rx.on_unposted(&mut self.sh, buf);
        self.on_transport_end(ConnectionError::Reset);
        self.pump(now);
    }

    /// A signalled work request has ended. Completions come in the order of posting.
    ///
    /// # Panics
    /// If `work` was never given out.
    pub fn handle_completion(&mut self, now: Instant, work: WorkId, result: Completion) {
        self.touch(now);
        self.on_completed(work);
        self.on_work_done(now, work, result);
        self.pump(now);
    }

    /// What became of `work` is known without a request: none was needed (a key that dies by
    /// deregistering memory), or none could be posted. Requests before it may still be under way.
    pub fn handle_unposted(&mut self, now: Instant, work: WorkId, result: Completion) {
        self.sh.out.on_unposted(work);
        self.on_work_done(now, work, result);
        self.pump(now);
    }

    /// Answers [`Action::BindKey`]: the key and the address under which the peer finds the first
    /// byte, or why there is none.
    pub fn handle_bound(
        &mut self,
        now: Instant,
        key: KeyId,
        result: Result<(Rkey, RemoteAddr), CopyReason>,
    ) {
        if !self.tx.on_bound(&mut self.sh, now, key, result) {
            self.rx.on_bound(&mut self.sh, key, result);
        }
        self.pump(now);
    }

    /// Answers [`Action::Register`].
    pub fn handle_registered(
        &mut self,
        now: Instant,
        call: SendId,
        result: Result<(), CopyReason>,
    ) {
        self.tx.on_registered(&mut self.sh, now, call, result);
        self.pump(now);
    }

    /// Answers [`Action::Copy`]. `ok` is false if the memory to copy to could not be had.
    pub fn handle_copied(&mut self, now: Instant, job: JobId, ok: bool) {
        if !self.tx.on_copied(&mut self.sh, now, job, ok) {
            self.rx.on_copied(&mut self.sh, now, job, ok);
        }
        self.pump(now);
    }

    /// Answers [`Action::PostRecv`]: the buffer could not be allocated, nothing was posted.
    pub fn buffer_unavailable(&mut self, now: Instant, buf: BufferId) {
        self.rx.on_unavailable(&mut self.sh, now, buf);
        self.on_memory_refused();
        self.pump(now);
    }

    /// Answers [`Action::Leave`] of a side that calls: the old queue pair is down and all of its
    /// completions have been handed in, the new one is there. Gives out [`Action::PostRecv`] for the
    /// first receives, then [`Action::Connect`].
    pub fn handle_path(
        &mut self,
        now: Instant,
        local_port: u16,
        src: Option<IpAddr>,
        dst: Option<IpAddr>,
    ) {
        self.on_calling(local_port, src, dst);
        self.pump(now);
    }

    /// Answers [`Action::Leave`] of a side that is called: the old queue pair is down and all of its
    /// completions have been handed in, and a request with this private data came to the service
    /// ID. Gives out [`Action::PostRecv`] for the first receives, then [`Action::Accept`], for
    /// which there must be a new queue pair.
    ///
    /// # Errors
    /// It is not the peer of this connection; it is to be rejected, and the peer goes on being
    /// waited for.
    pub fn handle_call(&mut self, now: Instant, hello: &[u8]) -> Result<(), Refusal> {
        let called = self.on_called(hello);
        self.pump(now);
        called
    }

    /// The time given by [`Self::poll_timeout`] has come. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.on_timeout(now);
        self.pump(now);
    }
}

/// Application calls.
impl Connection {
    /// Starts a send; it takes its turn behind those before it.
    pub fn send_start(&mut self, now: Instant, mut req: SendRequest) -> SendId {
        let chosen = self.choose(now, &mut req);
        let id = self.tx.start(req);
        if let Some(choices) = self.sh.choices.as_mut().filter(|_| chosen) {
            choices.started(id);
        }
        id
    }

    /// What a send needs next. After `Done` the id is forgotten.
    pub fn send_poll(&mut self, now: Instant, id: SendId) -> SendStep {
        let step = self.tx.step(&mut self.sh, now, id);
        if let SendStep::Done(result) = step
            && let Some(choices) = &mut self.sh.choices
        {
            choices.ended(id, result.ok());
        }
        step
    }

    /// Answers [`SendStep::Copy`]: `len` bytes were copied. Fewer than asked for mean that the
    /// rest of the caller's memory cannot be read; the call then ends.
    ///
    /// # Panics
    /// If `len` is more than was asked for.
    pub fn send_copied(&mut self, now: Instant, id: SendId, len: usize, to: CopyTarget) {
        self.tx.copied(&mut self.sh, id, len, to);
        self.pump(now);
    }

    /// Answers [`SendStep::Copy`]: there was no memory to copy to.
    pub fn send_copy_failed(&mut self, now: Instant, id: SendId, to: CopyTarget) {
        self.tx.copy_failed(&mut self.sh, now, id, to);
        self.pump(now);
    }

    /// The call must end. Poll it until it is done, which takes `cancel_wait` at most.
    pub fn send_end(&mut self, now: Instant, id: SendId, why: EndCall) {
        self.tx.end(&mut self.sh, now, id, why);
        self.pump(now);
    }

    /// Starts a receive; it takes its turn behind those before it.
    pub fn recv_start(&mut self, _now: Instant, req: RecvRequest) -> RecvId {
        self.rx.start(&self.sh, req)
    }

    /// What a receive needs next. After `Done` the id is forgotten.
    pub fn recv_poll(&mut self, now: Instant, id: RecvId) -> RecvStep {
        let step = self.rx.step(&mut self.sh, now, id);
        // Without its reader, what is unread may have to be buffered.
        let unread = matches!(step, RecvStep::Done(_)) && self.rx.has_unread(&self.sh);
        if self.rx.has_passed_urgent() || unread {
            self.pump(now);
        }
        step
    }

    /// Answers [`RecvStep::Copy`]: `len` bytes were copied. Fewer than asked for mean that the
    /// rest of the caller's memory cannot be written; the call then ends.
    ///
    /// # Panics
    /// If `len` is more than was asked for.
    pub fn recv_copied(&mut self, now: Instant, id: RecvId, len: usize) {
        self.rx.copied(&mut self.sh, id, len);
        self.pump(now);
    }

    /// The call must end. Poll it until it is done, which takes `cancel_wait` at most, RDMA READs
    /// under way apart.
    pub fn recv_end(&mut self, now: Instant, id: RecvId, why: EndCall) {
        self.rx.end(&mut self.sh, now, id, why);
        self.pump(now);
    }

    /// Sends `len` bytes, the last of them urgent, without waiting for another send (MSG_OOB). The
    /// caller appends the bytes to the connection's urgent memory before it polls the next action.
    /// `false`: the send is too long for that, there is no room, or the handshake is under way;
    /// it is to take its turn, as [`SendRequest::urgent`].
    ///
    /// # Errors
    /// As of a send: nothing may be sent any more.
    pub fn send_urgent(&mut self, now: Instant, len: usize) -> Result<bool, CallError> {
        let accepted = self.tx.send_urgent(&mut self.sh, len);
        self.pump(now);
        accepted
    }

    /// Receives the urgent byte out of band. `peek`: leaves it for the next such receive.
    pub fn recv_urgent(&mut self, peek: bool) -> UrgentRecv {
        self.rx.recv_urgent(&self.sh, peek)
    }

    /// SO_OOBINLINE.
    pub fn set_oob_inline(&mut self, inline: bool) {
        self.sh.config.oob_inline = inline;
        self.sh.wake.recv = true;
    }

    /// No more sends: what was accepted is delivered, then the peer reads the end of the stream.
    pub fn shutdown_send(&mut self, now: Instant) {
        self.on_shutdown_send(now);
        self.pump(now);
    }

    /// Receives give what has come so far, then the end of the stream.
    pub fn shutdown_recv(&mut self, now: Instant) {
        self.sh.life.rx_shut = true;
        self.rx.shut(&mut self.sh, now);
        self.pump(now);
    }

    /// Lets go of the connection. `linger`: `None`, graceful, given up after `close_wait` without
    /// progress; zero, abort; otherwise graceful, aborted after that time. Unread bytes abort it,
    /// as in TCP. [`Event::Closed`] tells the end.
    pub fn close(&mut self, now: Instant, linger: Option<Duration>) {
        self.on_close(now, linger);
        self.pump(now);
    }

    /// Ends the connection at once; bytes not delivered are lost.
    pub fn abort(&mut self, now: Instant) {
        self.on_abort(now, ConnectionError::LocallyAborted);
        self.pump(now);
    }

    /// Moves the connection to another queue pair (SuspComm, §2.8): the peer is asked to call at
    /// `service_id`, where the driver listens already. [`Action::Leave`] tells when nothing is under
    /// way on the old one any more. Bytes, urgent places and ends of the stream are kept; calls in
    /// progress go on. The peer must speak SuspComm: one that does not answer within
    /// [`Config::move_wait`] has its connection aborted.
    ///
    /// # Errors
    /// `NotConnected`: it is not, or not any more. `WouldBlock`: one such move is under way.
    pub fn suspend(&mut self, now: Instant, service_id: ServiceId) -> Result<(), CallError> {
        let begun = self.on_suspend(now, service_id);
        self.pump(now);
        begun
    }

    /// TCP_NODELAY.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.sh.config.nodelay = nodelay;
    }

    /// The program polls from here on: see [`Config::polled`].
    pub fn set_polled(&mut self) {
        self.sh.config.polled = true;
    }

    /// SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT.
    pub fn set_keepalive(&mut self, now: Instant, keepalive: Option<Keepalive>) {
        self.sh.config.keepalive = keepalive;
        self.sh.start_keepalive(now);
    }

    /// TCP_USER_TIMEOUT.
    pub fn set_user_timeout(&mut self, now: Instant, limit: Option<Duration>) {
        self.sh.config.user_timeout = limit;
        self.sh.restart_user_timeout();
        self.pump(now);
    }

    /// From which length on later sends are advertised.
    pub fn set_threshold(&mut self, threshold: ZcopyThreshold) {
        self.sh.config.zcopy_threshold = threshold;
    }

    /// Whether later sends above the threshold go by measurement, and where that begins. What was
    /// measured before is forgotten, if that is another beginning.
    pub fn set_adaptive(&mut self, adaptive: Option<Adaptive>) {
        if self.sh.config.adaptive != adaptive {
            self.sh.config.adaptive = adaptive;
            self.sh.choices = adaptive.map(Choices::new);
        }
    }

    /// SO_SNDBUF, in bytes. What is there already stays.
    pub fn set_send_buffer_len(&mut self, len: usize) {
        self.sh.config.send_buffer_len = len;
        self.sh.wake.send = true;
    }

    /// SO_RCVLOWAT, in bytes: for receives that start from now on, and for being readable.
    pub fn set_recv_low_water(&mut self, len: usize) {
        self.sh.config.recv_low_water = len.max(1);
        self.sh.wake.recv = true;
    }

    /// SO_RCVBUF, in bytes. What is there already stays. Asks for [`Self::handle_timeout`] at
    /// once, so that new room is offered to the peer.
    pub fn set_recv_buffer_total(&mut self, len: usize) {
        self.sh.config.recv_buffer_total = len;
        if self.sh.life.is_open() {
            self.sh.timers.set(Timer::Retry, Instant::from_nanos(0));
        }
    }
}

/// Outputs.
impl Connection {
    /// The next thing to do.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.sh.out.is_empty() && !self.refill() {
            return None;
        }
        let over_before = self.sh.out.error_set();
        let action = self.sh.out.poll(&mut self.sh.credits);
        if !over_before && self.sh.out.error_set() {
            // Keys are dead now: calls that waited for that may end.
            self.sh.wake.send = true;
            self.sh.wake.recv = true;
        }
        action
    }

    /// All actions are out: queues what had to wait for that. Says whether there is something.
    fn refill(&mut self) -> bool {
        if !self.sh.out.has_given() || !self.sh.life.is_open() {
            return false;
        }
        // With the last credit, and for a larger size, only what is posted for certain counts.
        let granted = self.sh.resize.ack_due() && self.sh.credits.all_posted();
        if self.sh.credits.has_settled() || granted {
            self.pump(self.pumped);
        }
        // The last message may have held credits back that are due now that it is out.
        self.sh.flush_update();
        !self.sh.out.is_empty()
    }

    /// The next thing to tell.
    #[must_use]
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.sh.wake.poll()
    }

    /// When [`Self::handle_timeout`] is wanted for what a call may wait for.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sh.timers.next()
    }

    /// When [`Self::handle_timeout`] is wanted for what no call waits for: a thread that sleeps in
    /// a call need not be woken.
    #[must_use]
    #[inline]
    pub fn poll_housekeeping(&self) -> Option<Instant> {
        self.sh.timers.next_housekeeping()
    }
}

impl Connection {
    /// Moves on whatever can. Answers first, then data, then what goes behind data, and a credit
    /// update only if nothing else carries the credits.
    fn pump(&mut self, now: Instant) {
        self.pumped = now;
        if !self.sh.life.is_open() {
            return;
        }
        self.sh.credits.set_awaited(self.tx.awaited());
        self.rx.pump(&mut self.sh, now);
        self.sh.flush_control();
        self.tx.pump(&mut self.sh, now);
        self.sh.flush_resize(now);
        self.flush_disconn();
        self.flush_move();
        self.sh.flush_nudge();
        self.sh.flush_update();
        self.watch_unsent(now);
        self.watch_memory(now);
        self.finish_close();
    }

    /// A send that may go either way goes the way that was measured to be faster. Says whether
    /// there was a choice.
    fn choose(&mut self, now: Instant, req: &mut SendRequest) -> bool {
        let ZcopyThreshold::Bytes(threshold) = self.sh.config.zcopy_threshold else {
            return false;
        };
        let free = req.copy_reason.is_none() && !req.nonblocking && req.len >= threshold;
        let Some(choices) = self.sh.choices.as_mut().filter(|_| free) else {
            return false;
        };
        let config = &self.sh.config;
        let held = config
            .send_buffer_len
            .saturating_add(config.recv_buffer_total);
        req.copy_reason = choices.choose(now, req, held);
        true
    }

    /// TCP_USER_TIMEOUT. Not called when it is off, since most connections do without it.
    fn watch_unsent(&mut self, now: Instant) {
        if self.sh.config.user_timeout.is_some() {
            let stats = &self.sh.stats;
            let taken = stats.tx_bytes_bcopy + stats.tx_bytes_inline + stats.tx_bytes_zcopy;
            let unsent = self.tx.unsent_len();
            self.sh.watch_unsent(now, unsent, taken);
        }
    }

    /// The peer's advert is open.
    #[cfg(test)]
    pub(crate) fn advert_open(&self) -> bool {
        self.rx.advert_open()
    }

    /// Turns of the protocol that were taken.
    #[cfg(test)]
    pub(crate) fn marks(&self) -> impl Iterator<Item = crate::mark::Mark> + '_ {
        self.sh.marks.iter().copied()
    }

    /// A fresh engine in `stage`.
    fn new(config: Config, stage: state::Stage) -> Self {
        let config = config.within_bounds();
        Self {
            tx: Tx::new(),
            rx: Rx::new(config.recv_buffers_initial, config.recv_buffers_max),
            pumped: Instant::from_nanos(0),
            sh: Shared::new(config, stage),
        }
    }

    /// Starts a connection. Gives out [`Action::PostRecv`] for the first receives, then
    /// [`Action::Connect`].
    #[must_use]
    pub fn connect(
        _now: Instant,
        config: Config,
        local_port: u16,
        src: Option<IpAddr>,
        dst: Option<IpAddr>,
    ) -> Self {
        let mut connection = Self::new(config, state::Stage::Connecting);
        connection.say_hello(local_port, src, dst, None);
        connection
    }

    /// Answers a connection request whose private data is `hello`. Gives out
    /// [`Action::PostRecv`] for the first receives, then [`Action::Accept`].
    ///
    /// # Errors
    /// The request cannot be accepted; it is to be rejected.
    pub fn accept(_now: Instant, config: Config, hello: &[u8]) -> Result<Self, Refusal> {
        let mut connection = Self::new(config, state::Stage::Accepting);
        connection.hear_hello(hello)?;
        Ok(connection)
    }
}
