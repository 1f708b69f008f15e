//! ChRcvBuf: the length of receive buffers (clause §3.4), in both roles.
//!
//! The side that sends payload asks: for longer buffers when its messages were full, for the first
//! length again when it has been idle. The other side decides, and answers when the peer may rely
//! on it.

use core::time::Duration;

use sdp_wire::{BSDH_LEN, Body};

use crate::connection::Shared;
use crate::credits::distance;
use crate::error::ConnectionError;
use crate::outbox::{HoldEnd, Outgoing};
use crate::time::Instant;
use crate::timer::Timer;

/// Full messages after which longer buffers are worth asking for.
const FULL_MESSAGES: u32 = 4;

/// A request of ours, not yet answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ask {
    mseq: u32,
    size: u32,
    /// The length in force before.
    before: u32,
}

impl Ask {
    const fn is_larger(&self) -> bool {
        self.size > self.before
    }
}

/// The answer that is owed to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owed {
    Nothing,
    /// At once.
    Now,
    /// When so many receives of the old length have been used up.
    After(u32),
}

/// What a request of the peer's means for the receives posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    None,
    /// Each holds so many times as much as before: as many fewer do.
    Grown(u32),
    /// Little memory is wanted from now on.
    Shrunk,
}

/// The length of receive buffers on both sides.
#[derive(Debug)]
pub(crate) struct Resize {
    /// This side accepted the connection: crossing requests of the peer's do not count.
    accepting: bool,
    /// Receives posted from now on have this length, header included.
    own_len: u32,
    own_min: u32,
    own_max: u32,
    /// The length before the one that the answer owed will name.
    own_before: u32,
    owed: Owed,
    ask: Option<Ask>,
    /// The peer has said no; it is never asked again in this direction.
    refused_larger: bool,
    refused_smaller: bool,
    /// The peer's length at the beginning.
    first_len: u32,
    /// Full messages sent since the peer's buffers were last known to be idle.
    full: u32,
    /// Payload went out and the idle time has not been begun anew.
    active: bool,
    idle_from: Instant,
    /// Empty messages to be sent, to use up receives of the old length at an idle peer.
    drain: u32,
}

impl Resize {
    /// Receives have `len` bytes at first, and up to `max` if the peer asks for it.
    pub(crate) const fn new(accepting: bool, len: u32, max: u32) -> Self {
        Self {
            accepting,
            own_len: len,
            own_min: len,
            own_max: max,
            own_before: len,
            owed: Owed::Nothing,
            ask: None,
            refused_larger: false,
            refused_smaller: false,
            first_len: 0,
            full: 0,
            active: false,
            idle_from: Instant::from_nanos(0),
            drain: 0,
        }
    }

    /// Length of receives posted from now on.
    pub(crate) const fn own_len(&self) -> u32 {
        self.own_len
    }

    /// The peer's Hello names the length it would like; it is granted as far as it may be.
    pub(crate) fn start(&mut self, wanted: u32) {
        self.own_len = wanted.clamp(self.own_min, self.own_max);
    }

    /// The peer's receives have `len` bytes at the beginning.
    pub(crate) const fn peer_starts(&mut self, len: u32) {
        self.first_len = len;
    }

    /// A message came, into the oldest receive posted.
    pub(crate) const fn on_message(&mut self) {
        if let Owed::After(old) = &mut self.owed {
            *old = old.saturating_sub(1);
        }
    }

    /// Of the receives posted only `posted` are left.
    pub(crate) fn on_unposted(&mut self, posted: u32) {
        if let Owed::After(old) = &mut self.owed {
            *old = posted.min(*old);
        }
    }

    /// There is no memory for a receive of the length that the peer has asked for. It does not rely
    /// on it before the answer, so the length stays what it was. Says whether there was a change.
    pub(crate) fn give_growth_up(&mut self) -> bool {
        let grows = matches!(self.owed, Owed::After(_));
        if grows {
            self.own_len = self.own_before;
            self.owed = Owed::Now;
        }
        grows
    }

    /// The peer asks for `size`, having seen our messages up to `mseq_ack`. `posted` receives are
    /// posted. Its request is disregarded if it crosses one of ours and it made the connection; it
    /// disregards ours if it accepted it. While memory is `scarce` no longer ones are granted.
    ///
    /// # Errors
    /// The rule it breaks.
    fn on_request(
        &mut self,
        size: u32,
        mseq_ack: u32,
        posted: u32,
        scarce: bool,
    ) -> Result<Change, ConnectionError> {
        if self.owed != Owed::Nothing {
            return Err(ConnectionError::PeerMisbehaved(
                "§3.4: a second ChRcvBuf before the first was answered",
            ));
        }
        if self
            .ask
            .is_some_and(|ask| self.accepting && distance(mseq_ack, ask.mseq) < 0)
        {
            return Ok(Change::None);
        }
        if size > self.own_len {
            let own_max = if scarce { self.own_len } else { self.own_max };
            let len = size.min(own_max).max(self.own_len);
            // Receives of the old length come first, and what came into them was sent before.
            if len == self.own_len {
                self.owed = Owed::Now;
                return Ok(Change::None);
            }
            self.owed = Owed::After(posted.saturating_sub(u32::from(mutant!(ResizeInForceEarly))));
            let times = len / self.own_len;
            self.own_before = self.own_len;
            self.own_len = len;
            return Ok(Change::Grown(times));
        }
        self.owed = Owed::Now;
        let len = size.max(self.own_min).min(self.own_len);
        let shrunk = len < self.own_len;
        self.own_len = len;
        Ok(if shrunk { Change::Shrunk } else { Change::None })
    }

    /// The length the peer has to go back to because it disregards our request.
    fn withdraw(&mut self, mseq_ack: u32) -> Option<u32> {
        let crossed = |ask: &Ask| !self.accepting && distance(mseq_ack, ask.mseq) < 0;
        let ask = self.ask.filter(crossed)?;
        self.ask = None;
        self.full = 0;
        Some(ask.before)
    }

    /// The peer answers: the length now in force.
    ///
    /// # Errors
    /// The rule it breaks.
    fn on_ack(&mut self, size: u32, credits: u32) -> Result<u32, ConnectionError> {
        let Some(ask) = self.ask.take() else {
            return Err(ConnectionError::PeerMisbehaved(
                "§3.4: ChRcvBufAck without ChRcvBuf",
            ));
        };
        // Some peers leave the header out of this number, though not out of Hello's.
        let slack = u32::try_from(BSDH_LEN).unwrap_or(u32::MAX);
        let at_least = size.saturating_add(slack);
        self.full = 0;
        if ask.is_larger() {
            if at_least < ask.before {
                return Err(ConnectionError::PeerMisbehaved(
                    "§3.4: ChRcvBufAck of less than before, though more was asked for",
                ));
            }
            self.refused_larger = size <= ask.before;
        } else {
            if at_least < ask.size {
                return Err(ConnectionError::PeerMisbehaved(
                    "§3.4: ChRcvBufAck of less than was asked for",
                ));
            }
            if size > ask.before {
                return Err(ConnectionError::PeerMisbehaved(
                    "§3.4: ChRcvBufAck of more than before, though less was asked for",
                ));
            }
            self.refused_smaller = size == ask.before;
            // Those of the old length that are posted would stay so until something comes.
            self.drain = if self.refused_smaller { 0 } else { credits };
        }
        Ok(size)
    }

    /// Payload of a message that the peer's buffer had no more room for, or of another one.
    pub(crate) const fn on_payload_sent(&mut self, full: bool) {
        self.active = true;
        self.drain = 0;
        if full {
            self.full = self.full.saturating_add(1);
        }
    }

    /// This side accepted the connection.
    pub(crate) const fn is_accepting(&self) -> bool {
        self.accepting
    }

    /// The peer has not answered yet.
    pub(crate) const fn is_asking(&self) -> bool {
        self.ask.is_some()
    }

    /// An answer waits for nothing but credits.
    pub(crate) const fn ack_due(&self) -> bool {
        matches!(self.owed, Owed::Now | Owed::After(0))
    }

    /// The peer is to do something about its buffers although nothing of the stream moves.
    pub(crate) fn is_shrinking(&self) -> bool {
        self.drain > 0 || self.ask.is_some_and(|ask| !ask.is_larger())
    }

    /// The length to ask for now.
    fn wants_larger(&self, peer_len: u32) -> Option<u32> {
        let may = self.ask.is_none() && self.owed == Owed::Nothing && !self.refused_larger;
        let wants = self.full >= FULL_MESSAGES && peer_len < self.own_max;
        (may && wants).then_some(self.own_max)
    }

    /// The length to ask for when nothing has been sent for long.
    fn wants_smaller(&self, peer_len: u32) -> Option<u32> {
        let may = self.ask.is_none() && self.owed == Owed::Nothing && !self.refused_smaller;
        (may && peer_len > self.first_len).then_some(self.first_len)
    }
}

impl Shared {
    /// The peer asks for buffers of another length.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_resize_request(
        &mut self,
        now: Instant,
        size: u32,
        mseq_ack: u32,
    ) -> Result<Change, ConnectionError> {
        let posted = self.credits.posted();
        let change = self
            .resize
            .on_request(size, mseq_ack, posted, self.scarce)?;
        if let Some(len) = self.resize.withdraw(mseq_ack) {
            self.set_peer_len(len);
            self.timers.set_once(Timer::Idle, now, self.idle_wait());
        }
        Ok(change)
    }

    /// The peer answers our request.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_resize_ack(&mut self, size: u32) -> Result<(), ConnectionError> {
        let credits = self.credits.available();
        let len = self.resize.on_ack(size, credits)?;
        self.set_peer_len(len);
        self.credits.on_resized();
        Ok(())
    }

    const fn set_peer_len(&mut self, len: u32) {
        if let Some(peer) = &mut self.peer {
            peer.recv_buffer_len = len;
        }
    }

    /// Answers the peer, once it may rely on the answer.
    pub(crate) fn flush_resize_ack(&mut self) {
        // A larger size is granted when there is memory for it: what is posted decides that.
        if self.resize.ack_due() && self.credits.all_posted() && self.can_control() {
            self.resize.owed = Owed::Nothing;
            let size = self.resize.own_len;
            self.send(Outgoing::control(Body::ChRcvBufAck { size }));
        }
    }

    /// Asks for longer buffers if that is worth it. `now` is when payload went out, if any did.
    pub(crate) fn flush_resize(&mut self, now: Instant) {
        if self.life.tx_shut() {
            self.resize.drain = 0;
            return;
        }
        if core::mem::take(&mut self.resize.active) {
            self.resize.idle_from = now;
            let peer_len = self.peer.map_or(0, |peer| peer.recv_buffer_len);
            if peer_len > self.resize.first_len || self.resize.ask.is_some() {
                self.timers.set_once(Timer::Idle, now, self.idle_wait());
            }
        }
        self.flush_drain();
        let peer_len = self.peer.map_or(0, |peer| peer.recv_buffer_len);
        if let Some(size) = self.resize.wants_larger(peer_len)
            && !self.scarce
            && !self.suspend.is_on()
            && self.can_control()
        {
            self.ask(size, peer_len);
            self.timers.set_once(Timer::Idle, now, self.idle_wait());
        }
    }

    const fn idle_wait(&self) -> Duration {
        self.config.idle_wait
    }

    fn ask(&mut self, size: u32, before: u32) {
        // It must not seem to know of one of the peer's that comes before it leaves.
        self.credits.hold_refusal();
        let (mseq, _) = self.send(Outgoing {
            hold: HoldEnd::After,
            ..Outgoing::control(Body::ChRcvBuf { size })
        });
        self.resize.ask = Some(Ask { mseq, size, before });
    }

    /// Uses up receives of the old length with empty messages. The last one asks an idle peer to
    /// look.
    fn flush_drain(&mut self) {
        while self.resize.drain > 0 && self.can_payload() {
            self.resize.drain -= 1;
            let last = self.resize.drain == 0 || !self.can_payload();
            self.send_update(last);
        }
    }

    /// The idle time has run out. `quiet`: no payload is on its way to the peer or about to be.
    pub(crate) fn on_idle(&mut self, now: Instant, quiet: bool) {
        if self.life.tx_shut() {
            return;
        }
        let until = self.resize.idle_from + self.idle_wait();
        if !quiet || until > now {
            let from = if quiet { self.resize.idle_from } else { now };
            self.timers.set(Timer::Idle, from + self.idle_wait());
            return;
        }
        self.resize.full = 0;
        let peer_len = self.peer.map_or(0, |peer| peer.recv_buffer_len);
        if self.resize.ask.is_some_and(|ask| ask.is_larger()) {
            // It is answered when the old ones are used up; then this begins anew.
            self.resize.drain = self.credits.available();
            self.timers.set(Timer::Idle, now + self.idle_wait());
        } else if let Some(size) = self.resize.wants_smaller(peer_len) {
            if !self.can_payload() {
                self.timers.set(Timer::Idle, now + self.idle_wait());
                return;
            }
            self.ask(size, peer_len);
            self.set_peer_len(size);
            self.send_update(true);
        }
    }
}
