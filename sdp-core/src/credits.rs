//! Credits: how many messages each side may send (clauses §3.1 and §3.2).
//!
//! A message's `Bufs` and `MSeqAck` together name the last MSeq that its sender can take, so what
//! the peer may send is one number, the *limit*, and nothing is lost when a message is skipped.

use sdp_wire::Body;

/// Credits needed before a message with payload may go.
const PAYLOAD_MIN: u32 = 3;
/// Credits needed before a message without payload may go, unless it brings the peer new ones.
const CONTROL_MIN: u32 = 2;
/// With so many buffers a peer has half of them to offer when its last credits for payload are not used.
const SPARE_MIN: u32 = 2 * PAYLOAD_MIN;

/// What a received message changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gain {
    /// This side may send more than before.
    pub(crate) credits: bool,
    /// The peer has confirmed messages it had not confirmed before.
    pub(crate) acks: bool,
}

/// Both directions' credits and sequence numbers.
#[derive(Debug)]
pub(crate) struct Credits {
    /// MSeq of the next message to be queued.
    next_mseq: u32,
    /// MSeq of the last message handed to the driver.
    sent_mseq: u32,
    /// Last MSeqAck of the peer.
    acked_mseq: u32,
    /// Messages that may still be queued.
    available: u32,
    /// The most there ever were of buffers of this length.
    most: u32,
    /// As many as there were when the last ones came.
    refreshed: u32,
    /// MSeq of the last message received.
    recv_mseq: u32,
    /// Receives posted now.
    posted: u32,
    /// Of these, those that the driver has not seen: it may have no memory for them.
    unsure: u32,
    /// Adverts of which the peer has to answer the cancel. It confirms nothing until then (§4.8), so
    /// no credit comes back.
    awaited: u32,
    /// The driver has posted some of them since this was last asked.
    settled: bool,
    /// The limit named by the last message handed to the driver.
    told: u32,
    /// The highest limit ever named: what the peer must not exceed.
    told_max: u32,
    /// MSeq of a SrcAvailCancel that is not finished: MSeqAck stays below it (§4.8 step 4).
    hold: Option<u32>,
    /// Refusals (SendSm) and adverts queued and not yet handed out, and the last message received when the
    /// first of them was queued: MSeqAck does not pass it, so that none of them is taken for the
    /// answer to a later cancel, or to have been sent in knowledge of a later refusal.
    refusals: (u32, u32),
    /// The last message received was an empty Data.
    last_was_update: bool,
    /// Nothing may be sent, whatever there is.
    muted: bool,
}

/// `a - b` on the circle of sequence numbers.
pub(crate) const fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

impl Credits {
    /// `posted` receives are announced in the Hello or HelloAck, which have MSeq 0.
    pub(crate) const fn new(posted: u32) -> Self {
        Self {
            next_mseq: 1,
            sent_mseq: 0,
            acked_mseq: 0,
            available: 0,
            most: 0,
            refreshed: 0,
            recv_mseq: 0,
            posted,
            unsure: 0,
            awaited: 0,
            settled: false,
            told: posted,
            told_max: posted,
            hold: None,
            refusals: (0, 0),
            last_was_update: false,
            muted: false,
        }
    }

    /// Nothing may be sent until the opposite is said.
    pub(crate) const fn mute(&mut self, muted: bool) {
        self.muted = muted;
    }

    pub(crate) const fn is_muted(&self) -> bool {
        self.muted
    }

    /// The peer's Hello or HelloAck announced `bufs`.
    pub(crate) fn start(&mut self, bufs: u16) {
        self.available = u32::from(bufs);
        self.most = self.available;
    }

    /// Takes in the base header of a received message.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_receive(
        &mut self,
        head: &sdp_wire::Head,
        is_update: bool,
    ) -> Result<Gain, &'static str> {
        if head.mseq != self.recv_mseq.wrapping_add(1) {
            return Err("§3.1: MSeq does not follow the last one");
        }
        let left = distance(self.told_max, head.mseq);
        if left < 0 {
            return Err("§3.1: a message without a credit");
        }
        if head.payload_len > 0 && left + 1 < PAYLOAD_MIN.cast_signed() {
            return Err("§3.2: payload with fewer than three credits");
        }
        let acks = distance(head.mseq_ack, self.acked_mseq);
        if acks < 0 {
            return Err("§3.1: MSeqAck went back");
        }
        if distance(head.mseq_ack, self.sent_mseq) > 0 {
            return Err("§3.1: MSeqAck of a message not sent");
        }
        let (count, seen) = self.refusals;
        if count > 0 && seen == self.recv_mseq && head.body == Body::Data {
            // Data is nothing that the queued message must not seem to know of, and it would bring
            // the peer less if it did not confirm it.
            self.refusals.1 = head.mseq;
        }
        self.recv_mseq = head.mseq;
        self.acked_mseq = head.mseq_ack;
        self.posted = self.posted.saturating_sub(1);
        self.last_was_update = is_update;
        let in_flight = self.next_mseq.wrapping_sub(1).wrapping_sub(head.mseq_ack);
        let before = self.available;
        self.available = u32::from(head.bufs).saturating_sub(in_flight);
        self.most = self.most.max(self.available);
        let credits = self.available > before;
        if credits {
            self.refreshed = self.available;
        }
        Ok(Gain {
            credits,
            acks: acks > 0,
        })
    }

    /// Messages that may be queued.
    pub(crate) const fn available(&self) -> u32 {
        self.available
    }

    /// Payload may go.
    pub(crate) fn payload_allowed(&self) -> bool {
        let enough = self.available >= PAYLOAD_MIN
            || (mutant!(CreditReserveDropped) && self.available > 0)
            || (mutant!(ReservedCreditSpent) && self.available == 2);
        enough && !self.muted
    }

    /// The peer's buffers have another length from now on, and another number.
    pub(crate) fn on_resized(&mut self) {
        self.most = self.available;
    }

    /// Fewer than half of the credits are left.
    pub(crate) const fn is_scarce(&self) -> bool {
        self.available < self.most / 2
    }

    /// Once another message has gone, no payload may: the peer may hold bytes that nobody reads,
    /// and buffers that could be emptied.
    pub(crate) const fn is_last_call(&self) -> bool {
        self.available <= PAYLOAD_MIN
    }

    /// Others will come although this one is not used: from a peer that reads, by its rule for updates.
    pub(crate) const fn is_last_call_spare(&self) -> bool {
        self.is_last_call() && self.refreshed >= SPARE_MIN
    }

    /// A message without payload may go. While the peer answers a cancel, the report of each advert
    /// but the first may leave it without a credit for the next one, until an update brings one.
    pub(crate) const fn control_allowed(&self) -> bool {
        self.is_allowed(self.awaited.saturating_sub(1))
    }

    /// A message without payload that leaves `kept` credits may go, beside the one that is always
    /// left. With the last credit it must bring the peer some for certain, and what it would bring is
    /// brought by a message that is queued before it.
    const fn is_allowed(&self, kept: u32) -> bool {
        let first = self.next_mseq == self.sent_mseq.wrapping_add(1);
        let certain = self.gain() > self.unsure;
        // A cancel is answered by a report and a SendSm.
        let answer = if self.hold.is_some() { 1 } else { 0 };
        let kept = if kept > answer { kept } else { answer };
        let enough = self.available >= CONTROL_MIN + kept;
        (enough || (self.available == 1 && first && certain)) && !self.muted
    }

    /// A report that a cancel waits for may go, or its answer: the `last`. That ends the hold on
    /// MSeqAck, and so it brings the peer what no message before it can: the last credit is for it.
    pub(crate) fn answer_allowed(&self, last: bool) -> bool {
        let first = self.next_mseq == self.sent_mseq.wrapping_add(1);
        let brought = distance(self.released().wrapping_add(self.posted), self.told);
        let certain = brought > self.unsure.cast_signed();
        let brings = last && (!first || certain);
        (self.available >= CONTROL_MIN || (self.available == 1 && brings)) && !self.muted
    }

    /// Spends a credit and numbers the message.
    pub(crate) fn take(&mut self) -> u32 {
        assert!(self.available > 0, "a message was queued without a credit");
        assert!(!self.muted, "a message was queued before any may be sent");
        self.available -= 1;
        let mseq = self.next_mseq;
        self.next_mseq = mseq.wrapping_add(1);
        mseq
    }

    /// `Bufs` and `MSeqAck` of message `mseq`, which is handed to the driver now.
    pub(crate) fn stamp(&mut self, mseq: u32) -> (u16, u32) {
        debug_assert_eq!(mseq, self.sent_mseq.wrapping_add(1), "stamped out of order");
        self.sent_mseq = mseq;
        self.told = self.limit();
        if distance(self.told, self.told_max) > 0 {
            self.told_max = self.told;
        }
        let bufs = u16::try_from(self.posted).unwrap_or(u16::MAX);
        (bufs, self.ack())
    }

    const fn ack(&self) -> u32 {
        let held = match self.hold {
            Some(cancel) => cancel.wrapping_sub(1),
            None => self.recv_mseq,
        };
        let (count, seen) = self.refusals;
        if count > 0 && distance(seen, held) < 0 {
            seen
        } else {
            held
        }
    }

    /// MSeqAck when the cancel is answered.
    const fn released(&self) -> u32 {
        let (count, seen) = self.refusals;
        match self.hold {
            Some(cancel) if count > 0 && distance(cancel, seen) > 0 => cancel,
            _ if count > 0 => seen,
            _ => self.recv_mseq,
        }
    }

    const fn limit(&self) -> u32 {
        self.ack().wrapping_add(self.posted)
    }

    /// Credits the next message would bring the peer.
    const fn gain(&self) -> u32 {
        let gain = distance(self.limit(), self.told);
        if gain > 0 { gain.unsigned_abs() } else { 0 }
    }

    /// Credits the peer has, by the last message sent.
    pub(crate) const fn known(&self) -> u32 {
        let known = distance(self.told, self.recv_mseq);
        if known > 0 { known.unsigned_abs() } else { 0 }
    }

    /// An empty Data should go for the sake of credits alone.
    ///
    /// An update spends a credit of the peer's, which then owes one itself. Two sides that can
    /// offer only two buffers each would answer each other's updates for ever; so an update is
    /// answered only if it brings more than the one credit it cost, or this side is rich enough
    /// for the exchange to end. While the peer has a cancel to answer, the last updates are kept for
    /// the moment at which it cannot.
    pub(crate) fn update_due(&self) -> bool {
        let gain = self.gain();
        if gain == 0 || !self.is_allowed(0) {
            return false;
        }
        let half = self.posted / 2;
        let rich = self.awaited == 0 || self.available > CONTROL_MIN + self.awaited;
        if gain >= CONTROL_MIN && gain >= half && rich {
            return true;
        }
        let poor = self.known() < CONTROL_MIN;
        poor && (gain >= CONTROL_MIN || !self.last_was_update || self.payload_allowed())
    }

    /// The peer has the cancel of `adverts` to answer.
    pub(crate) const fn set_awaited(&mut self, adverts: u32) {
        self.awaited = adverts;
    }

    /// A receive is to be posted.
    pub(crate) fn on_posted(&mut self) {
        self.posted += 1;
        self.unsure += 1;
    }

    /// The driver posts a receive now, or refuses it before it asks for more.
    pub(crate) fn on_receive_handed_out(&mut self) {
        self.unsure = self.unsure.saturating_sub(1);
        self.settled = true;
    }

    /// The driver has seen to all receives.
    pub(crate) const fn all_posted(&self) -> bool {
        self.unsure == 0
    }

    /// Whether a message that had to wait for receives to be posted may go now.
    pub(crate) fn has_settled(&mut self) -> bool {
        let settled = core::mem::take(&mut self.settled);
        let answers = self.hold.is_some() && self.answer_allowed(true);
        settled && self.available == 1 && (self.control_allowed() || answers)
    }

    /// A receive could not be posted after all.
    pub(crate) fn on_unposted(&mut self) {
        self.posted = self.posted.saturating_sub(1);
    }

    /// Messages received that MSeqAck does not confirm yet.
    pub(crate) const fn held_back(&self) -> u32 {
        self.recv_mseq.wrapping_sub(self.ack())
    }

    /// Receives posted.
    pub(crate) const fn posted(&self) -> u32 {
        self.posted
    }

    /// MSeqAck stays below the message just received until [`Self::release_ack`].
    pub(crate) fn hold_ack(&mut self) {
        if self.hold.is_none() && !mutant!(AckNotHeldBack) {
            self.hold = Some(self.recv_mseq);
        }
    }

    /// The cancel is finished: its answer is handed out now. What is queued behind the answer was
    /// queued when the cancel had come, so it may confirm as much.
    pub(crate) fn release_ack(&mut self) {
        if let Some(cancel) = self.hold.take()
            && distance(cancel, self.refusals.1) > 0
        {
            self.refusals.1 = cancel;
        }
    }

    /// A refusal or an advert is queued: MSeqAck stays where it is until it has been handed out.
    pub(crate) fn hold_refusal(&mut self) {
        if self.refusals.0 == 0 {
            self.refusals.1 = self.ack();
        }
        self.refusals.0 += 1;
    }

    /// A refusal has been handed out.
    pub(crate) fn release_refusal(&mut self) {
        self.refusals.0 -= 1;
    }

    /// The peer has confirmed message `mseq`.
    pub(crate) const fn is_acked(&self, mseq: u32) -> bool {
        distance(self.acked_mseq, mseq) >= 0
    }
}

#[cfg(test)]
mod tests;
