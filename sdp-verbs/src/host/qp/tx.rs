//! The sending half of a queue pair: requests in order.
//!
//! Requests start strictly in the order posted and complete in it. A SEND at the head starts and
//! completes inside `post_send`; what cannot start at once (no receive at the peer, a READ, which
//! only `poll` carries out) waits, and everything behind it too, so a fence is always implied. A
//! WRITE that has been handed to the peer does not stop SENDs and WRITEs behind it from starting:
//! the peer carries them out in ring order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::buf::{self, HeapBuf, Message, PeerSlot};
use super::connection::{Broken, Connection};
use super::entry::{self, Entry, Op, SendHead};
use super::remote::Remote;
use super::{HostQp, LocalSge};
use crate::host::layout::Inbound;
use crate::host::notice::Notice;
use crate::memory::ForeignSlice;
use crate::types::{RemoteAddr, Rkey};
use crate::wr::{SendFlags, WcOpcode, WcStatus};

/// How long one of the tries counted by `rnr_retry` lasts.
const RNR_TRY: Duration = Duration::from_millis(10);

/// The value of `rnr_retry` that means: without end.
pub(super) const RNR_FOREVER: u8 = 7;

/// Where a queue pair is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Init,
    Ready,
    /// The end marker is queued or out: nothing more may be posted.
    Ending,
    Error,
}

/// What came of a round of [`Tx::progress`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Something was published for the peer.
    pub(super) published: Option<Notice>,
    /// Entries of the ring up to the last payload published.
    pub(super) last_payload: u64,
    /// A completion was queued.
    pub(super) completed: bool,
    /// A request failed, and the queue pair with it.
    pub(super) failed: bool,
    /// A READ waits for `poll`.
    pub(super) wants_poll: bool,
    /// The end marker has gone out.
    pub(super) ended: bool,
}

impl Progress {
    /// The polling thread need not be told of what it is about to see.
    pub(super) fn seen_by_poll(self) -> Self {
        Self {
            completed: false,
            wants_poll: false,
            ..self
        }
    }

    fn publish(&mut self, notice: Notice, entry: u64) {
        self.published = self.published.max(Some(notice));
        if notice == Notice::Payload {
            self.last_payload = entry;
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Tx {
    pub(super) state: State,
    connection: Option<Connection>,
    pub(super) queue: VecDeque<Entry>,
    /// Requests at the front that have been started.
    pub(super) started: usize,
    /// The request at the front is being carried out by a thread in `poll`.
    executing: bool,
    pub(super) writes_started: u64,
    pub(super) writes_done: u64,
    rnr_deadline: Option<Instant>,
}

impl Tx {
    pub(super) fn new() -> Self {
        Self {
            state: State::Init,
            connection: None,
            queue: VecDeque::new(),
            started: 0,
            executing: false,
            writes_started: 0,
            writes_done: 0,
            rnr_deadline: None,
        }
    }

    /// Bytes of the messages that are not out.
    pub(super) fn queued_len(&self) -> usize {
        let waiting = self.queue.iter().filter(|entry| entry.status.is_none());
        waiting
            .map(|entry| match entry.op {
                Op::Send { len, .. } => len,
                _ => 0,
            })
            .sum()
    }

    /// Connected.
    pub(super) fn connect(&mut self, remote: Arc<Remote>) {
        self.connection = Some(Connection::new(remote));
        self.state = State::Ready;
    }

    /// The peer's half, while connected.
    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        self.connection.as_ref().map(|c| &c.remote)
    }

    /// When waiting for a receive ends in failure.
    pub(super) fn rnr_deadline(&self) -> Option<Instant> {
        self.rnr_deadline
    }

    /// Whether messages wait that have no slot. Then nobody else may take one: the queue's head
    /// could starve.
    fn waits_for_slot(&self) -> bool {
        self.queue
            .range(self.started..)
            .any(|e| matches!(&e.op, Op::Send { message, .. } if message.private().is_some()))
    }

    /// The peer's next posted receive, for a message of `len` bytes. `None` if there is none, or
    /// if an earlier message needs it.
    pub(super) fn take_slot(&mut self, qp: &HostQp) -> Result<Option<PeerSlot>, Broken> {
        if self.waits_for_slot() {
            return Ok(None);
        }
        match &mut self.connection {
            Some(connection) => connection.take_slot(qp),
            None => Ok(None),
        }
    }

    /// A message that can go out at once: copied straight into the peer's receive, published,
    /// completed. `None` if it has to wait its turn.
    pub(super) fn send_now(
        &mut self,
        qp: &HostQp,
        head: SendHead,
        len: usize,
        copy: impl Fn(&ForeignSlice),
    ) -> Result<Option<Progress>, Broken> {
        let (true, Some(connection)) = (self.queue.is_empty(), &mut self.connection) else {
            return Ok(None);
        };
        let found = connection.find_slot(qp)?;
        let Some(found) = found.filter(|found| len <= found.mem.len()) else {
            return Ok(None);
        };
        copy(&found.mem);
        connection.take_found();
        let solicited = head.flags.contains(SendFlags::SOLICITED);
        let entry = Inbound::Send {
            slot: found.number,
            len: len as u64,
            solicited,
            invalidate: head.invalidate,
        };
        connection.ring.push(&entry.to_words());
        connection.prefetch();
        let completed = head.flags.contains(SendFlags::SIGNALED);
        if completed {
            qp.count_send();
            qp.complete_send(head.wr_id, WcStatus::Success, WcOpcode::Send, 0);
        }
        Ok(Some(Progress {
            published: Some(Notice::of(head.flags)),
            last_payload: connection.ring.published(),
            completed,
            ..Progress::default()
        }))
    }

    /// A slot that was taken is not needed.
    pub(super) fn return_slot(&mut self, slot: PeerSlot) {
        if let Some(connection) = &mut self.connection {
            connection.returned.push(slot);
        }
    }

    /// Starts what can start, completes what is done.
    pub(super) fn progress(&mut self, qp: &HostQp) -> Result<Progress, Broken> {
        let mut made = Progress::default();
        if matches!(self.state, State::Init | State::Error) || self.queue.is_empty() {
            return Ok(made);
        }
        self.collect_writes(qp);
        loop {
            self.start(qp, &mut made)?;
            if !self.complete(qp, &mut made) || made.failed {
                break;
            }
        }
        // Only what is at the very front can be a READ that is ready to be carried out.
        made.wants_poll = !self.executing
            && matches!(self.queue.front(), Some(e) if matches!(e.op, Op::Read { .. }) && e.status.is_none());
        Ok(made)
    }

    fn start(&mut self, qp: &HostQp, made: &mut Progress) -> Result<(), Broken> {
        while self.started < self.queue.len() {
            if self
                .queue
                .iter()
                .take(self.started)
                .any(|e| failed(e.status))
            {
                return Ok(());
            }
            let at = self.started;
            let go = match &self.queue[at].op {
                Op::Send { .. } => self.start_send(qp, at, made)?,
                Op::Write { .. } => self.start_write(qp, at, made),
                Op::Read { .. } => false,
                Op::LocalInv { rkey } => {
                    let killed = qp.link().plane().keys().kill(*rkey, Some(qp.number()));
                    self.queue[at].status = Some(if killed {
                        WcStatus::Success
                    } else {
                        WcStatus::LocalProtection
                    });
                    true
                }
                Op::Bind => {
                    self.queue[at].status = Some(WcStatus::Success);
                    true
                }
                Op::End => {
                    self.publish(Inbound::End, Notice::Solicited, made);
                    made.ended = true;
                    self.queue[at].status = Some(WcStatus::Success);
                    true
                }
            };
            if !go {
                return Ok(());
            }
            self.started += 1;
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, entry: Inbound, notice: Notice, made: &mut Progress) {
        if let Some(connection) = &mut self.connection {
            connection.ring.push(&entry.to_words());
            made.publish(notice, connection.ring.published());
        }
    }

    fn start_send(&mut self, qp: &HostQp, at: usize, made: &mut Progress) -> Result<bool, Broken> {
        let needs_slot = match &self.queue[at].op {
            Op::Send { message, .. } => message.private().is_some(),
            _ => false,
        };
        if needs_slot && !self.fill_slot(qp, at)? {
            return Ok(self.give_up_waiting(qp, at));
        }
        self.rnr_deadline = None;
        let flags = self.queue[at].flags;
        let Op::Send {
            message,
            len,
            invalidate,
        } = &self.queue[at].op
        else {
            return Ok(false);
        };
        let entry = match message {
            Message::Slot(slot) => Inbound::Send {
                slot: slot.number,
                len: *len as u64,
                solicited: flags.contains(SendFlags::SOLICITED),
                invalidate: *invalidate,
            },
            Message::Overrun(slot) => Inbound::Overrun { slot: slot.number },
            Message::Heap(_) | Message::Reserved(_) => return Ok(false),
        };
        let overrun = matches!(entry, Inbound::Overrun { .. });
        let notice = if overrun {
            Notice::Solicited
        } else {
            Notice::of(flags)
        };
        self.publish(entry, notice, made);
        self.queue[at].status = Some(if overrun {
            WcStatus::RemoteOperation
        } else {
            WcStatus::Success
        });
        Ok(true)
    }

    /// Finds a receive for the private message at `at` and copies it there.
    fn fill_slot(&mut self, qp: &HostQp, at: usize) -> Result<bool, Broken> {
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        let taken = match connection.take_slot(qp)? {
            Some(slot) => Some(slot),
            None => self.steal_slot(at),
        };
        let Some(slot) = taken else { return Ok(false) };
        if let Op::Send { message, len, .. } = &mut self.queue[at].op
            && let Some(private) = message.private()
        {
            *message = place(slot, &private, *len);
        }
        Ok(true)
    }

    /// A later message lies in a slot already, and the peer may be waiting for just this one:
    /// swap, so that the order holds.
    fn steal_slot(&mut self, at: usize) -> Option<PeerSlot> {
        for entry in self.queue.iter_mut().skip(at + 1) {
            if let Op::Send { message, len, .. } = &mut entry.op
                && let Message::Slot(slot) = message
            {
                let heap = HeapBuf::new(*len);
                buf::copy(&heap.mem(), &slot.mem, *len);
                let slot = slot.clone();
                *message = Message::Heap(heap);
                return Some(slot);
            }
        }
        None
    }

    /// No receive: waits for one, unless that has lasted long enough. True if given up.
    fn give_up_waiting(&mut self, qp: &HostQp, at: usize) -> bool {
        let retry = qp.rnr_retry();
        if retry >= RNR_FOREVER {
            return false;
        }
        let deadline = *self
            .rnr_deadline
            .get_or_insert_with(|| Instant::now() + RNR_TRY * u32::from(retry));
        if Instant::now() < deadline {
            return false;
        }
        self.queue[at].status = Some(WcStatus::RnrRetryExceeded);
        true
    }

    /// Completes done requests from the front. True if any was.
    fn complete(&mut self, qp: &HostQp, made: &mut Progress) -> bool {
        let mut any = false;
        while let Some(status) = self.queue.front().and_then(|e| e.status) {
            let Some(entry) = self.queue.pop_front() else {
                break;
            };
            self.started = self.started.saturating_sub(1);
            any = true;
            made.completed |= entry::report(qp, &entry, status);
            if status.breaks() {
                made.failed = true;
                break;
            }
        }
        any
    }

    /// Takes the READ at the front to carry it out; [`finish_read`](Self::finish_read) follows.
    pub(super) fn take_read(&mut self) -> Option<(SmallVec<[LocalSge; 1]>, RemoteAddr, Rkey)> {
        if self.executing || !matches!(self.state, State::Ready | State::Ending) {
            return None;
        }
        match self.queue.front() {
            Some(Entry {
                op:
                    Op::Read {
                        local,
                        remote,
                        rkey,
                    },
                status: None,
                ..
            }) => {
                self.executing = true;
                Some((local.clone(), *remote, *rkey))
            }
            _ => None,
        }
    }

    /// The READ at the front has been carried out, or must be tried again (`None`).
    pub(super) fn finish_read(&mut self, status: Option<WcStatus>, len: usize) {
        self.executing = false;
        if let Some(entry) = self.queue.front_mut()
            && let Some(status) = status
        {
            entry.status = Some(status);
            if status == WcStatus::Success {
                entry.byte_len = len;
            }
            self.started = self.started.max(1);
        }
    }

    /// Flushes everything; the first request that was not done ends with `first`. A READ that is
    /// being carried out stays, and what is behind it, until its thread calls this again: its
    /// memory is not free before.
    pub(super) fn flush(&mut self, qp: &HostQp, first: WcStatus) {
        self.state = State::Error;
        self.rnr_deadline = None;
        if self.executing {
            return;
        }
        let mut next = first;
        while let Some(entry) = self.queue.pop_front() {
            if let Op::Write { keys, .. } = &entry.op {
                qp.kill_keys(keys);
            }
            entry::report(qp, &entry, next);
            next = WcStatus::Flushed;
        }
        self.started = 0;
        self.connection = None;
    }
}

fn failed(status: Option<WcStatus>) -> bool {
    status.is_some_and(WcStatus::breaks)
}

/// Puts a private message into a slot, or marks that it does not fit.
pub(super) fn place(slot: PeerSlot, private: &ForeignSlice, len: usize) -> Message {
    if len > slot.mem.len() {
        return Message::Overrun(slot);
    }
    buf::copy(&slot.mem, private, len);
    Message::Slot(slot)
}
