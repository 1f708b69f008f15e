//! What the engine wants done, in order, and the send work requests it may have outstanding.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use sdp_wire::{Body, Flags, HEAD_LEN_MAX, Head, Rkey};

use crate::action::{Action, Payload, PostSend};
use crate::credits::Credits;
use crate::ids::{BufferId, GrantId, JobId, WorkId};

/// Slots kept free of payload, for control messages, reads and the killing of keys.
const RESERVED_SLOTS: u64 = 4;

/// Send work requests outstanding. The send queue completes in order, so the completion of one
/// signalled request gives back the slots of all before it.
#[derive(Debug)]
struct Slots {
    total: u64,
    posted: u64,
    completed: u64,
    signalled: u64,
    /// Runs of requests behind the last one completed that were never posted: they take no slot.
    /// Posted ones lie between two runs, so there are no more runs than slots.
    unused: VecDeque<(u64, u64)>,
}

impl Slots {
    fn free(&self) -> u64 {
        let unused: u64 = self.unused.iter().map(|(from, to)| to - from + 1).sum();
        let taken = self.posted - self.completed - unused;
        self.total.saturating_sub(taken)
    }

    fn on_completion(&mut self, work: u64) {
        self.completed = self.completed.max(work);
        while let Some((from, to)) = self.unused.front().copied()
            && from <= self.completed + 1
        {
            self.completed = self.completed.max(to);
            self.unused.pop_front();
        }
    }

    fn on_unposted(&mut self, work: u64) {
        if work <= self.completed {
            return;
        }
        if self.signalled == work {
            // It will not tell that those before it have ended: a later one must.
            self.signalled = self.completed;
        }
        match self.unused.back_mut() {
            Some((_, to)) if *to + 1 == work => *to = work,
            _ if work == self.completed + 1 => self.completed = work,
            _ => self.unused.push_back((work, work)),
        }
    }

    fn take(&mut self) {
        assert!(
            self.free() > 0,
            "more send work posted than there are slots"
        );
        self.posted += 1;
    }

    /// With the slot that is taken next a quarter of the queue has not been signalled.
    fn wants_signal(&self) -> bool {
        self.posted + 1 - self.signalled >= self.total / 4
    }

    /// The slot just taken is signalled if it must be, or if a quarter of the queue was not.
    fn signal(&mut self, must: bool) -> Option<WorkId> {
        if !must && self.posted - self.signalled < self.total / 4 {
            return None;
        }
        self.signalled = self.posted;
        Some(WorkId(self.posted))
    }
}

/// Which hold on MSeqAck a message ends, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HoldEnd {
    /// None.
    None,
    /// It answers a SrcAvailCancel, and confirms it.
    Before,
    /// It is a SendSm that nobody asked for, and must not be taken for the answer to a cancel that
    /// came after it was queued; or a SrcAvail, which must not seem to know of a refusal that did; or a
    /// ChRcvBuf or SuspComm, which must not seem to know of one of the peer's that did.
    After,
}

/// A message in the outbox: numbered, and stamped when it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) body: Body,
    pub(crate) flags: Flags,
    pub(crate) payload: Payload,
    /// SEND with invalidate of this key.
    pub(crate) invalidate: Option<Rkey>,
    pub(crate) solicited: bool,
    /// The completion is wanted.
    pub(crate) signalled: bool,
    /// What this message does to the hold on MSeqAck.
    pub(crate) hold: HoldEnd,
}

impl Outgoing {
    /// A message without payload, solicited if its kind is.
    pub(crate) fn control(body: Body) -> Self {
        Self {
            body,
            flags: Flags::empty(),
            payload: Payload::None,
            invalidate: None,
            solicited: body.is_solicited(Flags::empty()),
            signalled: false,
            hold: HoldEnd::None,
        }
    }
}

#[derive(Debug)]
enum Item {
    Act(Action),
    Message {
        out: Outgoing,
        mseq: u32,
        work: Option<WorkId>,
    },
}

/// Work that was queued and will never be posted.
#[derive(Debug, Default)]
pub(crate) struct Purged {
    /// RDMA READs.
    pub(crate) reads: Vec<WorkId>,
    /// RDMA WRITEs.
    pub(crate) writes: Vec<WorkId>,
    /// Copies.
    pub(crate) jobs: Vec<JobId>,
}

/// The queue of actions.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The urgent byte to be kept: the last that came, before its buffer is posted again or given up.
    keep: Option<Action>,
    /// Receives to be posted or given up, before all else: `Bufs` of a message counts them.
    receives: VecDeque<Action>,
    items: VecDeque<Item>,
    /// Messages in `items`.
    messages: usize,
    slots: Slots,
    /// `SetError` has been handed to the driver.
    error_set: bool,
    /// A message or a receive has been handed to the driver since that was last asked.
    given: bool,
}

impl Outbox {
    pub(crate) fn new(send_slots: u32) -> Self {
        Self {
            keep: None,
            receives: VecDeque::with_capacity(16),
            items: VecDeque::with_capacity(64),
            messages: 0,
            slots: Slots {
                total: u64::from(send_slots),
                posted: 0,
                completed: 0,
                signalled: 0,
                unused: VecDeque::new(),
            },
            error_set: false,
            given: false,
        }
    }

    /// Nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.keep.is_none() && self.receives.is_empty() && self.items.is_empty()
    }

    /// A message or a receive has been handed to the driver since this was last asked.
    pub(crate) fn has_given(&mut self) -> bool {
        core::mem::take(&mut self.given)
    }

    /// Queues what takes no slot of the send queue.
    pub(crate) fn push(&mut self, action: Action) {
        self.items.push_back(Item::Act(action));
    }

    /// Queues the keeping of an urgent byte, instead of an older one: only the last is ever asked for,
    /// and when it has come the buffer of the older one may be free.
    pub(crate) fn keep_urgent(&mut self, buf: BufferId, offset: u32) {
        self.keep = Some(Action::KeepUrgent { buf, offset });
    }

    /// Queues the posting of a receive, or the end of one.
    pub(crate) fn push_receive(&mut self, action: Action) {
        self.receives.push_back(action);
    }

    /// Queues an action that takes an unsignalled slot.
    pub(crate) fn push_work(&mut self, action: Action) {
        self.slots.take();
        self.push(action);
    }

    /// Queues an action that takes a signalled slot.
    pub(crate) fn push_signalled(&mut self, action: impl FnOnce(WorkId) -> Action) -> WorkId {
        self.slots.take();
        let work = WorkId(self.slots.posted);
        self.slots.signalled = self.slots.posted;
        self.push(action(work));
        work
    }

    /// Queues a message.
    pub(crate) fn push_message(&mut self, out: Outgoing, mseq: u32) -> Option<WorkId> {
        self.slots.take();
        let work = self.slots.signal(out.signalled);
        self.messages += 1;
        self.items.push_back(Item::Message { out, mseq, work });
        work
    }

    /// The completion of the next message is wanted, whatever it is: a quarter of the queue has gone
    /// without.
    pub(crate) fn next_is_signalled(&self) -> bool {
        self.slots.wants_signal()
    }

    /// Some message is about to go, and will carry credits.
    pub(crate) const fn has_messages(&self) -> bool {
        self.messages > 0
    }

    /// Urgent bytes are to go to private memory, and have not.
    pub(crate) fn has_urgent(&self) -> bool {
        let is_urgent = |item: &Item| matches!(item, Item::Act(Action::SendUrgent { .. }));
        self.items.iter().any(is_urgent)
    }

    /// There is a slot for control work.
    pub(crate) fn has_slot(&self) -> bool {
        self.slots.free() > 0
    }

    /// There are slots for payload: binding, advert and the killing of the key included.
    pub(crate) fn has_payload_slot(&self) -> bool {
        self.slots.free() > RESERVED_SLOTS
    }

    /// A signalled work request has ended, and with it all before it.
    pub(crate) fn on_completion(&mut self, work: WorkId) {
        assert!(work.0 <= self.slots.posted, "completion of work not posted");
        self.slots.on_completion(work.0);
    }

    /// `work` was never posted. Its slot is free, though what was posted earlier may not have
    /// ended. Comes in the order of the numbers.
    pub(crate) fn on_unposted(&mut self, work: WorkId) {
        self.slots.on_unposted(work.0);
    }

    /// The queue pair has been put into error: no key is alive.
    pub(crate) const fn error_set(&self) -> bool {
        self.error_set
    }

    /// The next action. Messages are stamped here, when all receives posted before are known.
    pub(crate) fn poll(&mut self, credits: &mut Credits) -> Option<Action> {
        if let Some(action) = self.keep.take() {
            return Some(action);
        }
        if let Some(action) = self.receives.pop_front() {
            self.given = true;
            if matches!(action, Action::PostRecv { .. }) {
                credits.on_receive_handed_out();
            }
            return Some(action);
        }
        match self.items.pop_front()? {
            Item::Act(action) => {
                self.error_set |= action == Action::SetError;
                Some(action)
            }
            Item::Message { out, mseq, work } => {
                self.messages -= 1;
                self.given = true;
                if out.hold == HoldEnd::Before {
                    credits.release_ack();
                }
                let (bufs, mseq_ack) = credits.stamp(mseq);
                if out.hold == HoldEnd::After {
                    credits.release_refusal();
                }
                let head = Head {
                    flags: out.flags,
                    bufs,
                    mseq,
                    mseq_ack,
                    body: out.body,
                    payload_len: out.payload.byte_len(),
                };
                let mut bytes = [0; HEAD_LEN_MAX];
                let head_len = head.encode(&mut bytes);
                Some(Action::PostSend(PostSend {
                    head: bytes,
                    head_len,
                    payload: out.payload,
                    invalidate: out.invalidate,
                    solicited: out.solicited,
                    update: out.body == Body::Data && out.payload == Payload::None,
                    work,
                }))
            }
        }
    }

    /// The connection ends: nothing queued will be posted. Grants are given back; what must still
    /// be done locally stays.
    pub(crate) fn purge(&mut self) -> Purged {
        let mut purged = Purged::default();
        self.messages = 0;
        self.receives.clear();
        for item in core::mem::take(&mut self.items) {
            match item {
                Item::Message { out, .. } => {
                    if let Payload::Grant { grant, .. } = out.payload {
                        self.push(Action::DropGrant(grant));
                    }
                }
                Item::Act(Action::RdmaRead { work, .. }) => purged.reads.push(work),
                Item::Act(Action::RdmaWrite { work, .. }) => purged.writes.push(work),
                Item::Act(Action::Copy(job)) => purged.jobs.push(job.id),
                Item::Act(
                    action @ (Action::FreeMem(_)
                    | Action::ForgetKey(_)
                    | Action::DropGrant(_)
                    | Action::Establish
                    | Action::Reject(_)),
                ) => self.push(action),
                Item::Act(_) => {}
            }
        }
        purged
    }

    /// The queue pair is left: messages still queued, which are credit updates at most, and
    /// receives are not for the next one.
    pub(crate) fn leave(&mut self) {
        self.messages = 0;
        self.receives.clear();
        self.items.retain(|item| match item {
            Item::Message { out, .. } => {
                debug_assert_eq!(out.payload, Payload::None, "payload left behind");
                false
            }
            Item::Act(_) => true,
        });
    }

    /// A new send queue is empty. Work goes on being numbered where the old one ended.
    pub(crate) fn begin_anew(&mut self) {
        self.slots.completed = self.slots.posted;
        self.slots.signalled = self.slots.posted;
        self.slots.unused.clear();
    }

    /// Gives a message buffer back.
    pub(crate) fn drop_grant(&mut self, grant: GrantId) {
        self.push(Action::DropGrant(grant));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::KeyId;

    fn kill(out: &mut Outbox) -> WorkId {
        let key = KeyId(0);
        out.push_signalled(|work| Action::InvalidateKey { key, work })
    }

    /// What was done without a request gave back the slots of those that were still under way.
    #[test]
    fn only_a_completion_gives_back_the_slots_before_it() {
        let mut out = Outbox::new(16);
        let posted = kill(&mut out);
        let unposted = kill(&mut out);
        out.on_unposted(unposted);
        assert_eq!(out.slots.free(), 15);
        out.on_completion(posted);
        assert_eq!(out.slots.free(), 16);
        let unposted = kill(&mut out);
        let last = kill(&mut out);
        out.on_unposted(unposted);
        assert_eq!(out.slots.free(), 15);
        out.on_completion(last);
        assert_eq!(out.slots.free(), 16);
        let unposted = kill(&mut out);
        out.on_unposted(unposted);
        assert_eq!(out.slots.free(), 16);
    }

    /// Between such requests no message was signalled any more, so nothing gave its slot back.
    #[test]
    fn what_was_never_posted_stands_for_no_completion_of_others() {
        let mut out = Outbox::new(16);
        for mseq in 1..100 {
            let message = Outgoing::control(Body::Data);
            let told = out.push_message(message, mseq);
            let unposted = kill(&mut out);
            out.on_unposted(unposted);
            if let Some(work) = told {
                out.on_completion(work);
            }
        }
        assert!(out.slots.free() >= 8);
    }

    /// Each try of a READ that no memory could be had for took a slot behind a silent message.
    #[test]
    fn what_was_never_posted_takes_no_slot() {
        let mut out = Outbox::new(4);
        out.push_work(Action::DropGrant(GrantId(0)));
        for _ in 0..100 {
            let unposted = kill(&mut out);
            out.on_unposted(unposted);
            assert_eq!(out.slots.free(), 3);
        }
        let last = kill(&mut out);
        let unposted = kill(&mut out);
        out.on_unposted(unposted);
        assert_eq!((out.slots.free(), out.slots.unused.len()), (2, 2));
        out.on_completion(last);
        assert_eq!((out.slots.free(), out.slots.unused.len()), (4, 0));
    }

    /// The urgent byte that came with the end of the connection was read as zero.
    #[test]
    fn an_urgent_byte_is_kept_though_the_connection_ends() {
        let mut out = Outbox::new(4);
        let buf = BufferId(0);
        out.keep_urgent(buf, 16);
        out.purge();
        let keep = Action::KeepUrgent { buf, offset: 16 };
        assert_eq!(out.poll(&mut Credits::new(3)), Some(keep));
    }
}
