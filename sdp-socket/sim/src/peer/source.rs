//! The sending half of a peer: copies, adverts, and writing into offers.

use std::collections::VecDeque;

use sdp_verbs::Access;
use sdp_wire::{Body, Flags, ModeChange, RemoteAddr, Rkey, SinkAvail, SrcAvail};

use super::Talk;
use super::link::Shown;
use crate::judge::{Memory, Mode};
use crate::oracle::fill_pattern;
use crate::plan::Op;

/// Sends from this length on are advertised.
const ADVERT_MIN: usize = 2_000;

/// An advert that is not finished.
#[derive(Clone, Copy, Debug)]
struct Advert {
    /// Where its next byte lies in the send.
    at: usize,
    end: usize,
}

/// A send in progress.
#[derive(Debug)]
struct Call {
    id: u64,
    len: usize,
    /// Bytes handed to some way of moving them.
    pos: usize,
    memory: Option<Shown>,
    bytes: Vec<u8>,
    /// It goes by copies from here on.
    copied: bool,
    /// WRITEs under way.
    writes: usize,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) mode: Mode,
    ops: VecDeque<Op>,
    call: Option<Call>,
    open: VecDeque<Advert>,
    /// Since when the oldest has been waiting.
    opened_at: u64,
    patience: u64,
    /// MSeq of a SrcAvailCancel that is not processed.
    cancel: Option<u32>,
    /// A SrcAvailCancel that crossed a refusal, and has not been seen to be ignored.
    unconfirmed: Option<u32>,
    /// The send goes on from here when no advert is open.
    refused_at: Option<usize>,
    offers: VecDeque<Memory>,
    unmatched: u32,
    unmatched_then: u32,
    /// SinkCancelAck is owed.
    owes_ack: bool,
    /// MSeq of the change from Pipelined, until it is confirmed.
    left: Option<u32>,
    /// The open advert was so when Pipelined was left.
    carried: bool,
    asleep_until: Option<u64>,
}

impl Source {
    pub(super) fn new(ops: Vec<Op>) -> Self {
        Self {
            mode: Mode::Combined,
            ops: ops.into(),
            call: None,
            open: VecDeque::new(),
            opened_at: 0,
            patience: u64::MAX,
            cancel: None,
            unconfirmed: None,
            refused_at: None,
            offers: VecDeque::new(),
            unmatched: 0,
            unmatched_then: 0,
            owes_ack: false,
            left: None,
            carried: false,
            asleep_until: None,
        }
    }

    /// No more sends.
    pub(super) fn stop(&mut self) {
        self.ops.clear();
    }

    /// When it has something to do in any case.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let waits = !self.open.is_empty() && self.cancel.is_none();
        let cancels = waits.then(|| self.opened_at.saturating_add(self.patience));
        [cancels, self.asleep_until].into_iter().flatten().min()
    }

    pub(super) fn acked(&mut self, mseq_ack: u32) {
        let acked = |mseq: &Option<u32>| mseq.is_some_and(|mseq| mseq <= mseq_ack);
        if acked(&self.unconfirmed) {
            self.unconfirmed = None;
        }
        if acked(&self.left) {
            self.left = None;
        }
    }

    /// Nothing of the send in progress is under way.
    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.call.as_ref().is_none_or(|call| call.writes == 0)
    }

    /// The adverts are void from the oldest one's next byte on.
    fn drop_adverts(&mut self) {
        if let Some(front) = self.open.front() {
            self.refused_at.get_or_insert(front.at);
        }
        self.open.clear();
        self.settle();
    }

    /// If no advert is open, the send goes on where it was refused.
    fn settle(&mut self) {
        if !self.open.is_empty() {
            return;
        }
        self.cancel = None;
        self.carried = false;
        if let (Some(at), Some(call)) = (self.refused_at.take(), &mut self.call) {
            call.pos = at;
        }
    }
}

impl Talk {
    pub(super) fn source_read(&mut self, len: u32, flags: Flags) {
        let now = self.now();
        let source = &mut self.source;
        let Some(front) = source.open.front_mut() else {
            return self.violation("RdmaRdCompl without an advert");
        };
        front.at += len as usize;
        source.opened_at = now;
        let (over, too_far) = (front.at == front.end, front.at > front.end);
        if over {
            source.open.pop_front();
            source.settle();
        }
        if too_far {
            self.violation("RdmaRdCompl beyond the advert");
        }
        if flags.contains(Flags::REQ_PIPE) && self.habits.pipelines {
            self.go_pipelined();
        }
    }

    pub(super) fn source_refused(&mut self, mseq_ack: u32) {
        let source = &mut self.source;
        let answer = source.cancel.is_some_and(|cancel| mseq_ack >= cancel);
        if let Some(call) = &mut source.call {
            call.copied = true;
        }
        if answer {
            return source.drop_adverts();
        }
        if !self.habits.hears_refusals {
            // It would wait for ever.
            return self.violation("SendSm that answers no cancel, to a peer that knows no other");
        }
        let cancel = source.cancel;
        let Some(front) = source.open.pop_front() else {
            return self.violation("SendSm without an advert");
        };
        source.refused_at.get_or_insert(front.at);
        if source.open.is_empty() {
            source.unconfirmed = cancel;
            source.settle();
        } else {
            // Those behind it are taken back: their bytes follow the refused ones.
            source.patience = 0;
        }
    }

    pub(super) fn source_offered(&mut self, offer: SinkAvail) {
        let source = &mut self.source;
        if source.mode != Mode::Pipelined {
            if offer.non_discards != source.unmatched_then {
                source.unmatched_then = source.unmatched_then.wrapping_sub(1);
                source.unmatched = source.unmatched.wrapping_sub(1);
            } else if source.carried {
                // Who offered this has discarded what was open then.
                source.drop_adverts();
            }
            return;
        }
        if offer.non_discards != source.unmatched {
            source.unmatched = source.unmatched.wrapping_sub(1);
            return;
        }
        if self.said_fin {
            return;
        }
        source.offers.push_back(Memory {
            rkey: offer.rkey.0,
            addr: offer.addr.0,
            len: offer.len,
        });
        // Write beats read.
        source.drop_adverts();
    }

    pub(super) fn source_unoffered(&mut self) {
        if !self.source.offers.is_empty() {
            self.source.offers.clear();
            self.source.owes_ack = true;
        }
    }

    /// A WRITE has ended.
    pub(super) fn source_wrote(&mut self) {
        if let Some(call) = &mut self.source.call {
            call.writes = call.writes.saturating_sub(1);
        }
    }

    /// A message with payload has been sent.
    fn paid(&mut self) {
        if self.source.offers.pop_front().is_none() {
            self.source.unmatched = self.source.unmatched.wrapping_add(1);
        }
    }

    fn go_pipelined(&mut self) {
        let source = &mut self.source;
        let may = source.mode == Mode::Combined && source.left.is_none() && !self.said_fin;
        if may && self.link.peer_adverts >= 2 {
            let change = Body::ModeChange(ModeChange::RecvPipelined);
            if self.link.say(change, Flags::empty(), &[]) {
                self.source.mode = Mode::Pipelined;
            }
        }
    }

    /// Changes of mode that nothing asks for.
    fn wander(&mut self) {
        let writes = self
            .source
            .call
            .as_ref()
            .is_some_and(|call| call.writes > 0);
        let may = !writes && self.source.left.is_none() && self.source.open.len() < 2;
        if !self.habits.wanders || !may || !self.rarely(12) {
            return;
        }
        let closed = self.source.open.is_empty();
        let (change, to) = match self.source.mode {
            Mode::Pipelined => (ModeChange::RecvCombined, Mode::Combined),
            Mode::Combined if closed && self.rng.coin() => {
                (ModeChange::RecvBuffered, Mode::Buffered)
            }
            // After DisConn it means nothing, and is legal.
            Mode::Combined if closed && self.said_fin => {
                (ModeChange::RecvPipelined, Mode::Pipelined)
            }
            _ => return,
        };
        if self.link.say(Body::ModeChange(change), Flags::empty(), &[]) {
            self.source.mode = to;
            if to == Mode::Combined {
                self.source.offers.clear();
                self.source.unmatched_then = self.source.unmatched;
                self.source.left = Some(self.link.said());
                self.source.carried = !closed;
            }
        }
    }

    pub(super) fn act_source(&mut self) {
        if self.source.owes_ack {
            self.source.owes_ack = !self.link.say(Body::SinkCancelAck, Flags::empty(), &[]);
            if self.source.owes_ack {
                return;
            }
        }
        self.cancel_if_due();
        self.wander();
        if self.habits.pipelines && self.source.ops.len() >= 2 {
            self.go_pipelined();
        }
        while self.finish_call() && self.begin_call() {
            if !self.move_on() {
                return;
            }
        }
        let over = self.source.call.is_none() && self.source.ops.is_empty();
        if over && self.source.asleep_until.is_none() && !self.said_fin {
            self.said_fin = self.link.say(Body::DisConn, Flags::empty(), &[]);
            if self.said_fin {
                self.source.offers.clear();
            }
        }
    }

    fn cancel_if_due(&mut self) {
        let now = self.now();
        let source = &self.source;
        let waits = !source.open.is_empty() && source.cancel.is_none();
        let due = source.opened_at.saturating_add(source.patience) <= now;
        let crossed = self.habits.gives_way && self.sink.is_advertised();
        if waits && (due || crossed) && self.link.say(Body::SrcAvailCancel, Flags::empty(), &[]) {
            self.source.cancel = Some(self.link.said());
        }
    }

    /// Ends the send that is done. False: it is not.
    fn finish_call(&mut self) -> bool {
        let idle = self.source.is_idle();
        let Some(call) = &self.source.call else {
            return true;
        };
        if call.pos < call.len {
            return true;
        }
        if !idle {
            return false;
        }
        let (id, len) = (call.id, call.len);
        if let Some(memory) = self.source.call.take().and_then(|call| call.memory) {
            self.link.hide(memory);
        }
        let mut book = self.own.book.borrow_mut();
        if let Err(wrong) = book.ways[self.own.side].returned(id, len, len) {
            book.violation(wrong);
        }
        true
    }

    /// Begins the next send. False: there is none now.
    fn begin_call(&mut self) -> bool {
        let now = self.now();
        while self.source.call.is_none() {
            if self.source.asleep_until.is_some_and(|until| until > now) {
                return false;
            }
            self.source.asleep_until = None;
            match self.source.ops.pop_front() {
                None => return false,
                Some(Op::Sleep(time)) => self.source.asleep_until = Some(now + time),
                Some(Op::Recv(..) | Op::Urgent(_) | Op::Move) => {}
                Some(Op::Send(len, _)) => {
                    let side = self.own.side;
                    let id = self.own.book.borrow_mut().ways[side].begin(len);
                    let mut bytes = vec![0; len];
                    fill_pattern(side, id, 0, &mut bytes);
                    self.source.call = Some(Call {
                        id,
                        len,
                        pos: 0,
                        memory: self.make_memory(&bytes),
                        bytes,
                        copied: false,
                        writes: 0,
                    });
                }
            }
        }
        true
    }

    /// Memory of a send that may be shown to the other side.
    fn make_memory(&mut self, bytes: &[u8]) -> Option<Shown> {
        if self.habits.adverts_out == 0 || bytes.len() < ADVERT_MIN {
            return None;
        }
        let mut memory = self.link.memory(bytes.len())?;
        memory.write(bytes);
        if self
            .link
            .show(&mut memory, bytes.len(), Access::REMOTE_READ)
        {
            return Some(memory);
        }
        self.link.hide(memory);
        None
    }

    /// Moves the next bytes of the send. False: it must wait.
    fn move_on(&mut self) -> bool {
        let Some(call) = &self.source.call else {
            return true;
        };
        let by_rdma = call.memory.is_some() && !call.copied;
        let offered = !self.source.offers.is_empty();
        if by_rdma && offered && self.source.open.is_empty() {
            return self.write();
        }
        let barred = self.source.mode == Mode::Buffered || self.source.unconfirmed.is_some();
        let short = call.len - call.pos < 2;
        if by_rdma && !offered && !barred && !short {
            return self.advertise();
        }
        if !self.source.open.is_empty() {
            return false;
        }
        self.copy()
    }

    fn copy(&mut self) -> bool {
        let max = self.link.peer_recv_len.saturating_sub(16);
        let Some(call) = &mut self.source.call else {
            return false;
        };
        let end = call.len.min(call.pos + max);
        if !self
            .link
            .say(Body::Data, Flags::empty(), &call.bytes[call.pos..end])
        {
            return false;
        }
        call.pos = end;
        self.paid();
        true
    }

    fn advertise(&mut self) -> bool {
        let now = self.now();
        let pipelined = self.source.mode == Mode::Pipelined;
        let out_max = match pipelined {
            true => self.habits.adverts_out.min(self.link.peer_adverts),
            false => 1,
        };
        let taken = self.sink.offers_out();
        let room = self.link.peer_adverts.saturating_sub(taken);
        let may = self.source.cancel.is_none() && self.source.refused_at.is_none();
        if !may || self.source.open.len() >= out_max.min(room) {
            return false;
        }
        let max = usize::try_from(self.rng.between(2_000, 300_000)).unwrap_or(2_000);
        let Some(Call {
            pos,
            len,
            bytes,
            memory: Some(memory),
            ..
        }) = &mut self.source.call
        else {
            return false;
        };
        let mut end = (*len).min(*pos + max);
        if *len - end < 2 {
            end = *len;
        }
        let inline = match pipelined {
            true => 0,
            false => (self.link.peer_recv_len.saturating_sub(32))
                .min(64)
                .min(end - *pos - 1),
        };
        let body = Body::SrcAvail(SrcAvail {
            len: u32::try_from(end - *pos).unwrap_or(u32::MAX),
            rkey: Rkey(memory.rkey.map_or(0, |rkey| rkey.0)),
            addr: RemoteAddr(memory.addr() + *pos as u64),
        });
        // Three credits, with payload or without, as the first implementation wants.
        let rich = self.link.credits() >= 3;
        if !rich
            || !self
                .link
                .say(body, Flags::empty(), &bytes[*pos..*pos + inline])
        {
            return false;
        }
        let at = *pos + inline;
        *pos = end;
        if self.source.open.is_empty() {
            self.source.opened_at = now;
            self.source.patience = self.habits.patience;
        }
        self.source.open.push_back(Advert { at, end });
        if inline > 0 {
            self.paid();
        }
        true
    }

    /// Writes into the oldest offer, and says so.
    fn write(&mut self) -> bool {
        let Some(offer) = self.source.offers.front().copied() else {
            return false;
        };
        let Some(Call {
            pos,
            len,
            memory: Some(memory),
            writes,
            ..
        }) = &mut self.source.call
        else {
            return false;
        };
        if self.link.credits() < 2 {
            return false;
        }
        let count = (*len - *pos).min(offer.len as usize);
        if self
            .link
            .write(memory, (*pos, count), (offer.rkey, offer.addr))
            .is_none()
        {
            return false;
        }
        *writes += 1;
        *pos += count;
        self.source.offers.pop_front();
        let len = u32::try_from(count).unwrap_or(u32::MAX);
        self.link
            .say(Body::RdmaWrCompl { len }, Flags::empty(), &[])
    }
}
