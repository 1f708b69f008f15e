//! The strict witness: watches what both sides say to their adapters, and names the section of the
//! protocol that one of them breaks.
//!
//! It knows the protocol from its rules, not from the engine: what a side may send follows from
//! what it has posted, what it has sent, and what it has taken out of its completion queue. Each
//! side is a [`End`]; the halves of an end have files of their own.

mod coverage;
mod legal;
mod life;
mod moving;
mod sink;
mod source;
mod urgent;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sdp_verbs::sim::{Passing, Watcher};
use sdp_verbs::{QpNum, RemoteAddr, Rkey, WcOpcode, WcStatus};
use sdp_wire::{Body, Carrier, Head, Hello, HelloAck, ModeChange};

pub(crate) use coverage::Coverage;
pub(crate) use legal::{Case, LEGAL};
use life::Life;
pub(crate) use life::{ABORT, CLOSE, SHUTDOWN};
use moving::Move;
use sink::Sink;
use source::Source;
use urgent::Urgent;

/// Sections kept of one run: the first says what went wrong.
const BROKEN_MAX: usize = 4;

/// What a side breaks that has accepted and sends too soon, where that matters.
const EARLY: &str = "RFC 5044 §7.1: the accepting side sends before it has heard anything";

/// How a half moves its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mode {
    Buffered,
    #[default]
    Combined,
    Pipelined,
}

/// What breaks a rule: section and words.
type Verdict = Result<(), &'static str>;

/// `Err(rule)` unless it holds.
fn must(holds: bool, rule: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(rule) }
}

/// An advertised piece of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) rkey: u32,
    pub(crate) addr: u64,
    pub(crate) len: u32,
}

impl Memory {
    /// Whether `len` bytes at `remote` by `rkey` lie within.
    fn holds(&self, rkey: Rkey, remote: RemoteAddr, len: usize) -> bool {
        let end = self.addr + u64::from(self.len);
        self.rkey == rkey.0 && self.addr <= remote.0 && remote.0 + len as u64 <= end
    }
}

/// A request to change the length of receive buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Resize {
    /// Own, not answered: its MSeq.
    asked: Option<u32>,
    /// The peer's, not answered.
    owed: bool,
}

/// One side, as the rules see it.
#[derive(Debug, Default)]
pub(crate) struct End {
    accepts: bool,
    /// Its Hello or HelloAck: receives announced, adverts it takes at once.
    adverts_max: u16,
    /// Lengths of the receives it has posted, in order: message n meets the nth.
    recv_lens: Vec<usize>,
    /// MSeq of the last message sent, and of the last one taken.
    sent: u32,
    taken: u32,
    /// Last MSeqAck sent and taken.
    own_ack: u32,
    acked: u32,
    /// The last MSeq that the peer may use, by the last message sent.
    told: u32,
    /// The last MSeq it may use itself, by anything it was ever told.
    granted: u32,
    said_fin: bool,
    heard_fin: bool,
    down: bool,
    source: Source,
    sink: Sink,
    resize: Resize,
    moves: Move,
    urgent: Urgent,
}

/// Both sides, and what they broke.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Both sides on their first queue pairs, on their second ones, and so on.
    rounds: Vec<[End; 2]>,
    /// The queue pairs of the conversation, in order.
    qps: [Vec<QpNum>; 2],
    lives: [Life; 2],
    /// Messages sent, by kind.
    said: [BTreeMap<&'static str, u64>; 2],
    /// Whether a side looks at one completion at a time, so that what it knows is known.
    exact: [bool; 2],
    /// Sides whose doings are judged.
    judged: [bool; 2],
    /// Whoever has accepted sends nothing before it hears something.
    caller_first: bool,
    broken: Vec<String>,
    pub(crate) coverage: Coverage,
}

/// A judge that the fabric and the programs share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bench(Arc<Mutex<Judge>>);

impl Bench {
    /// `exact`: see [`Judge::exact`]. `judged`: sides that keep to every rule. `caller_first`: see
    /// [`Judge::caller_first`].
    pub(crate) fn new(
        exact: [bool; 2],
        judged: [bool; 2],
        room: [usize; 2],
        caller_first: bool,
    ) -> Self {
        let mut judge = Judge {
            exact,
            judged,
            caller_first,
            ..Judge::default()
        };
        let mut ends = [End::default(), End::default()];
        ends[1].accepts = true;
        for (end, room) in ends.iter_mut().zip(room) {
            end.sink.room = room as u64;
        }
        judge.rounds.push(ends);
        Self(Arc::new(Mutex::new(judge)))
    }

    pub(crate) fn judge(&self) -> MutexGuard<'_, Judge> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program of a side does something to its connection.
    pub(crate) fn while_acting<T>(
        &self,
        side: usize,
        name: &'static str,
        act: impl FnOnce() -> T,
    ) -> T {
        self.judge().lives[side].begins(name);
        let done = act();
        let mut judge = self.judge();
        let step = judge.lives[side].has_done(name);
        judge.reached(side, step);
        done
    }

    /// What has just ended the connection of a side was this.
    pub(crate) fn was_ended_by(&self, side: usize, name: &'static str) {
        let mut judge = self.judge();
        let step = judge.lives[side].blamed(name);
        judge.reached(side, step);
    }
}

impl Watcher for Bench {
    fn passes(&mut self, node: usize, qp: Option<QpNum>, what: Passing<'_>) {
        self.judge().passes(node, qp, what);
    }
}

impl Judge {
    /// Sections that were broken.
    pub(crate) fn broken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.broken)
    }

    /// A receive call of `side` begins, with so much room; or it has ended, with `total` bytes
    /// received by all so far.
    pub(crate) fn receives(&mut self, side: usize, room: usize, total: u64) {
        let round = self.last_round(side);
        let sink = &mut self.rounds[round][side].sink;
        sink.receiving = room as u64;
        sink.received = total;
    }

    /// Messages of a kind that a side has sent.
    pub(crate) fn has_said(&self, side: usize, message: &'static str) -> u64 {
        let said = &self.said[side];
        said.get(message).copied().unwrap_or_default()
    }

    fn reached(&mut self, side: usize, step: Option<Case>) {
        if let Some(case) = step.filter(|_| self.judged[side]) {
            self.coverage.reached(case);
        }
    }

    fn rule(&mut self, side: usize, verdict: Verdict) {
        if let Err(rule) = verdict
            && self.judged[side]
            && self.broken.len() < BROKEN_MAX
        {
            self.broken.push(format!("strict: side {side}: {rule}"));
        }
    }

    /// As [`rule`](Self::rule), for what a side decides by what it knows.
    fn decision(&mut self, side: usize, verdict: Verdict) {
        if self.exact[side] {
            self.rule(side, verdict);
        }
    }

    fn passes(&mut self, side: usize, qp: Option<QpNum>, what: Passing<'_>) {
        if side >= self.qps.len() {
            return;
        }
        // Private data have no queue pair: they are those of the last one made.
        let round = match qp {
            Some(qp) => self.round_of(side, qp),
            None => Some(self.last_round(side)),
        };
        let Some(round) = round else {
            // A second connection would be another conversation.
            return;
        };
        if let Passing::Send { .. } | Passing::Read { .. } | Passing::Write { .. } = what {
            let end = &self.rounds[round][side];
            let may = !(self.caller_first && end.accepts && end.taken == 0);
            self.rule(side, must(may, EARLY));
        }
        let end = &mut self.rounds[round][side];
        match what {
            Passing::PrivateData(bytes) => self.introduced((round, side), bytes),
            Passing::Receive { len } => end.recv_lens.push(len),
            Passing::Send { bytes, .. } => self.sends((round, side), bytes),
            Passing::Message { head, len } => self.takes((round, side), head, len),
            Passing::Read { remote, rkey, len } => {
                let verdict = end.sink.on_read(rkey, remote, len);
                self.decision(side, verdict);
            }
            Passing::Write { remote, rkey, len } if len > 0 => {
                let verdict = end.source.on_write(rkey, remote, len);
                self.decision(side, verdict);
            }
            Passing::Done {
                opcode: WcOpcode::Read,
                status,
            } => end.sink.on_read_done(status == WcStatus::Success),
            Passing::Confirmed => {
                // The connecting side has no other way into its conversation.
                let accepts = end.accepts;
                let step = self.lives[side].confirmed();
                self.reached(side, step.filter(|_| accepts));
            }
            Passing::Down => {
                end.down = true;
                if !end.moves.has_left() {
                    let step = self.lives[side].falls();
                    self.reached(side, step);
                }
            }
            _ => {}
        }
    }

    /// Which of its queue pairs a side made last, by number.
    fn last_round(&self, side: usize) -> usize {
        self.qps[side].len().saturating_sub(1)
    }

    /// Which of its queue pairs this is, by number: a new one, if the last one has been left.
    fn round_of(&mut self, side: usize, qp: QpNum) -> Option<usize> {
        if let Some(known) = self.qps[side].iter().position(|other| *other == qp) {
            return Some(known);
        }
        let round = self.qps[side].len();
        if let Some(last) = round.checked_sub(1) {
            let next = self.rounds[last][side].next()?;
            if self.rounds.len() == round {
                self.rounds.push([End::default(), End::default()]);
            }
            let end = &mut self.rounds[round][side];
            *end = End {
                // The peer may have introduced itself before.
                granted: end.granted,
                ..next
            };
        }
        self.qps[side].push(qp);
        Some(round)
    }

    fn introduced(&mut self, (round, side): (usize, usize), bytes: &[u8]) {
        let (bufs, adverts_max) = match HelloAck::decode(bytes) {
            Ok(ack) => (ack.bufs, u16::from(ack.adverts_max)),
            Err(_) => match Hello::decode(bytes, Carrier::Whole) {
                Ok(hello) => (hello.bufs, hello.adverts_max),
                Err(_) => return self.rule(side, Err("§1.4: neither Hello nor HelloAck")),
            },
        };
        let before = round.checked_sub(1).map(|last| &self.rounds[last][side]);
        let verdict = must(
            sdp_wire::resuming(bytes) == before.and_then(|end| end.moves.id()),
            "§2.8: a handshake does not name the connection that it resumes",
        );
        self.rule(side, verdict);
        let posted = self.rounds[round][side].recv_lens.len();
        let verdict = must(
            bufs >= 3 && usize::from(bufs) <= posted,
            "§2.1: fewer receives than announced, or than three",
        );
        self.rule(side, verdict);
        let ends = &mut self.rounds[round];
        ends[side].adverts_max = adverts_max;
        ends[side].told = u32::from(bufs);
        ends[1 - side].granted = u32::from(bufs);
    }

    fn sends(&mut self, (round, side): (usize, usize), bytes: &[u8]) {
        let head = match Head::decode(bytes, bytes.len()) {
            Ok(head) => head,
            Err(_) => return self.rule(side, Err("§1: a malformed message")),
        };
        let peer = &self.rounds[round][1 - side];
        let place = (head.mseq as usize).wrapping_sub(1);
        let (meets, peer_adverts) = (peer.recv_lens.get(place).copied(), peer.adverts_max);
        let verdict = self.rounds[round][side].may_send(&head, meets);
        self.rule(side, verdict);
        *self.said[side].entry(head.mid().name()).or_default() += 1;
        match head.body {
            Body::AbortConn => self.lives[side].aborts(),
            Body::SuspCommAck => self.lives[side].leaves(),
            _ => {}
        }
        let end = &mut self.rounds[round][side];
        end.sent = head.mseq;
        end.own_ack = head.mseq_ack;
        end.told = head.mseq_ack + u32::from(head.bufs);
        let verdict = end.says(&head, peer_adverts);
        self.decision(side, verdict);
    }

    fn takes(&mut self, (round, side): (usize, usize), head: &[u8], len: usize) {
        let Ok(head) = Head::decode(head, len) else {
            return;
        };
        if self.judged[side] {
            self.coverage.note(&self.rounds[round][side], &head);
        }
        let end = &mut self.rounds[round][side];
        end.taken = head.mseq;
        end.acked = head.mseq_ack;
        end.granted = end.granted.max(head.mseq_ack + u32::from(head.bufs));
        end.hears(&head);
        // What comes behind SuspCommAck on the old queue pair changes nothing.
        let (left, said_fin) = (end.moves.has_answered(), end.said_fin);
        if !left {
            let step = self.lives[side].hears(&head, said_fin);
            self.reached(side, step);
        }
    }
}

impl End {
    /// Numbers, credits and lengths: what every message must keep.
    fn may_send(&self, head: &Head, meets: Option<usize>) -> Verdict {
        must(
            head.mseq == self.sent + 1,
            "§3.1: MSeq does not follow the last one",
        )?;
        let credits = self.granted.saturating_sub(self.sent);
        let limit = head.mseq_ack + u32::from(head.bufs);
        must(credits > 0, "§3.1: a message without a credit")?;
        must(
            head.payload_len == 0 || credits >= 3,
            "§3.2: payload with fewer than three credits",
        )?;
        must(
            credits >= 2 || limit > self.told,
            "§3.2: the last credit for a message that brings none",
        )?;
        must(
            limit as usize <= self.recv_lens.len(),
            "§3.1: more receives promised than were posted",
        )?;
        must(
            self.own_ack <= head.mseq_ack && head.mseq_ack <= self.taken,
            "§1.3: MSeqAck went back, or is of a message that has not come",
        )?;
        must(
            meets.is_none_or(|len| head.len() as usize <= len),
            "§3.3: a message longer than the receive that it meets",
        )?;
        must(
            !self.said_fin || head.payload_len == 0,
            "§2.3: payload after DisConn",
        )
    }

    /// Whether a message may be said now, and what it changes.
    fn says(&mut self, head: &Head, peer_adverts: u16) -> Verdict {
        self.moves(head)?;
        let answers = self.sink.says(head, self.own_recv_len())?;
        must(
            answers
                || self
                    .sink
                    .cancelled
                    .is_none_or(|cancel| head.mseq_ack < cancel),
            "§4.8 step 4: MSeqAck confirms a cancel that is not answered",
        )?;
        let taken = self.sink.offers.len();
        let room = usize::from(peer_adverts).saturating_sub(taken);
        self.source.says(head, room)?;
        self.urgent.says(head)?;
        match head.body {
            Body::DisConn => {
                must(!self.said_fin, "§2.3: a second DisConn")?;
                self.said_fin = true;
            }
            Body::AbortConn => must(self.said_fin, "§2.4: AbortConn before DisConn")?,
            Body::ChRcvBuf { .. } => {
                let first = self.resize.asked.replace(head.mseq).is_none();
                must(
                    first,
                    "§3.4: a second ChRcvBuf before the first was answered",
                )?;
            }
            Body::ChRcvBufAck { size } => {
                let owed = std::mem::take(&mut self.resize.owed);
                must(owed, "§3.4: ChRcvBufAck without ChRcvBuf")?;
                let ahead = self.recv_lens.get(self.taken as usize..).unwrap_or(&[]);
                let short = |len: &usize| *len < size as usize;
                must(
                    !ahead.iter().any(short),
                    "§3.4: ChRcvBufAck before the shorter receives are used up",
                )?;
            }
            Body::SinkAvail(_) => must(!self.heard_fin, "§2.3 step 4: SinkAvail after DisConn")?,
            _ => {}
        }
        Ok(())
    }

    fn own_recv_len(&self) -> usize {
        self.recv_lens.last().copied().unwrap_or(0)
    }

    /// What a message that was taken changes.
    fn hears(&mut self, head: &Head) {
        self.moves.hears(head, self.accepts);
        self.source.hears(head, self.said_fin);
        self.sink.hears(head);
        self.urgent.hears(head);
        match head.body {
            Body::DisConn => self.heard_fin = true,
            Body::ChRcvBuf { .. } => {
                let crossed = self.resize.asked.is_some_and(|asked| head.mseq_ack < asked);
                // Of two that cross, the one of the connecting side is disregarded.
                self.resize.owed = !(crossed && self.accepts);
                if crossed && !self.accepts {
                    self.resize.asked = None;
                }
            }
            Body::ChRcvBufAck { .. } => self.resize.asked = None,
            Body::ModeChange(ModeChange::SendCombined) => self.source.mode = Mode::Combined,
            _ => {}
        }
    }
}
