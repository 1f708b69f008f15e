//! Peers that are not our stack: state machines of their own at the level of messages, with the
//! ways of the stacks of the field (`sdp-protocol.md` §5), and one that does whatever is legal.
//!
//! They use no line of the engine, so that a misunderstanding of the protocol is not shared. Each
//! is one program: it hears messages, says what its habits want said, and waits.

mod habits;
mod link;
mod sink;
mod source;

use std::net::SocketAddr;
use std::sync::Arc;

use sdp_verbs::Rng;
use sdp_verbs::sim::SimProvider;
use sdp_wire::{Body, Flags, Head, ModeChange};

use crate::actor::Actor;
use crate::cli::Peer;
use crate::judge::Mode;
use crate::oracle::SharedBook;
use crate::plan::{Ending, Plan, Weather};
use habits::Habits;
use link::{Heard, Link};
use sink::Sink;
use source::Source;

/// How long it waits to be called.
const ACCEPT_MAX: u64 = 300_000_000_000;
/// How long it waits for a message: longer than every time-out of our stack. That the other side is
/// gone may never be told, if connection management is lost.
const SILENCE_MAX: u64 = 200_000_000_000;

/// What the program of a peer has.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) side: usize,
    pub(crate) who: Peer,
    pub(crate) address: SocketAddr,
    pub(crate) plan: std::rc::Rc<Plan>,
    pub(crate) book: SharedBook,
    pub(crate) node: Arc<SimProvider>,
}

impl Stranger {
    /// Its program.
    pub(crate) fn actor(self) -> Actor {
        let side = self.side;
        Actor::new(format!("peer {side}"), side, move || self.begin())
    }

    fn begin(self) {
        let mut rng = Rng::new(self.plan.seed, 0x9E);
        let habits = Habits::of(self.who, &mut rng);
        let link = if self.side == 0 {
            let listening = || self.book.borrow().listening;
            let now = || u64::try_from(self.node.now().as_nanos()).unwrap_or(u64::MAX);
            crate::actor::wait("the listener", None, now, listening);
            Link::connect(&self.node, self.address, &habits)
        } else {
            let book = &self.book;
            Link::accept(&self.node, self.address, &habits, || {
                book.borrow_mut().listening = true;
            })
        };
        match link {
            Ok(link) => Talk::new(self, habits, link, rng).go(),
            Err(why) => self.book.borrow_mut().not_connected[self.side] = Some(why),
        }
    }
}

/// A conversation.
struct Talk {
    own: Stranger,
    habits: Habits,
    link: Link,
    rng: Rng,
    source: Source,
    sink: Sink,
    said_fin: bool,
    heard_fin: bool,
    /// A ChRcvBuf of the other side's is to be answered.
    owes_ack: bool,
    /// An own ChRcvBuf is not answered: its MSeq.
    asked: Option<u32>,
}

impl Talk {
    fn new(own: Stranger, habits: Habits, link: Link, rng: Rng) -> Self {
        let ops = own.plan.sides[own.side].sends.clone();
        Self {
            source: Source::new(ops),
            sink: Sink::default(),
            own,
            habits,
            link,
            rng,
            said_fin: false,
            heard_fin: false,
            owes_ack: false,
            asked: None,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.own.node.now().as_nanos()).unwrap_or(u64::MAX)
    }

    /// One chance in so many.
    fn rarely(&mut self, often: u64) -> bool {
        often > 0 && self.rng.below(often) == 0
    }

    fn go(mut self) {
        let cut = self.own.plan.cut.filter(|cut| cut.side == self.own.side);
        let quits_at = cut.map(|cut| (self.now() + cut.when.latest(), cut.how));
        let mut heard_at = self.now();
        loop {
            while let Some(heard) = self.link.poll() {
                heard_at = self.now();
                match heard {
                    Heard::Message(head, payload) => self.hear(&head, &payload),
                    Heard::Moved(work) => self.moved(work),
                }
            }
            let due = quits_at.filter(|(at, _)| *at <= self.now());
            match due.map(|(_, how)| how) {
                Some(Ending::Close | Ending::Abort) => return self.link.abort(),
                Some(Ending::ShutdownWrite) => self.source.stop(),
                Some(Ending::ShutdownRead) | None => {}
            }
            if self.link.down || self.now() >= heard_at + SILENCE_MAX {
                return self.went_down();
            }
            self.act();
            if self.said_fin && self.heard_fin {
                return self.link.disconnect();
            }
            let quits = quits_at.map(|(at, _)| at);
            let silence = Some(heard_at + SILENCE_MAX);
            let own = [quits, silence, self.source.wakes_at(), self.sink.wakes_at()];
            let until = own.into_iter().flatten().filter(|at| *at > self.now());
            self.link.wait(until.min());
        }
    }

    fn went_down(&mut self) {
        self.link.abort();
        if !(self.said_fin && self.heard_fin) {
            let mut book = self.own.book.borrow_mut();
            let way = &mut book.ways[1 - self.own.side];
            way.recv_error = Some("receiving: the connection went down".to_owned());
        }
    }

    /// Bytes of the stream have come.
    fn deliver(&mut self, bytes: &[u8]) {
        self.own
            .book
            .borrow_mut()
            .check_bytes(self.own.side, bytes, false);
    }

    fn violation(&mut self, what: &str) {
        let side = self.own.side;
        let text = format!("peer {side}: {what}");
        self.own.book.borrow_mut().violation(text);
    }

    fn hear(&mut self, head: &Head, payload: &[u8]) {
        if !payload.is_empty() {
            self.deliver(payload);
        }
        match head.body {
            Body::Data if payload.is_empty() => {}
            Body::Data => self.sink_paid(payload.len()),
            Body::SrcAvail(advert) => {
                self.sink_advertised(advert, head.payload_len, head.mseq_ack);
            }
            Body::SrcAvailCancel => self.sink_cancelled(head.mseq),
            Body::RdmaWrCompl { len } => self.sink_written(len),
            Body::SinkCancelAck => self.sink_cancel_answered(),
            Body::RdmaRdCompl { len } => self.source_read(len, head.flags),
            Body::SendSm => self.source_refused(head.mseq_ack),
            Body::SinkAvail(offer) => self.source_offered(offer),
            Body::SinkAvailCancel => self.source_unoffered(),
            Body::ModeChange(change) => self.mode_changed(change),
            Body::ChRcvBuf { .. } => {
                let crossed = self.asked.is_some_and(|asked| head.mseq_ack < asked);
                // Of two that cross, the one of the connecting side is disregarded.
                self.owes_ack = !(crossed && self.own.side == 1);
                if crossed && self.own.side == 0 {
                    self.asked = None;
                }
            }
            Body::ChRcvBufAck { size } => {
                self.asked = None;
                self.link.peer_recv_len = usize::try_from(size).unwrap_or(usize::MAX);
            }
            Body::DisConn => {
                self.heard_fin = true;
                self.own.book.borrow_mut().ways[1 - self.own.side].ended = true;
                self.sink_forgets();
            }
            Body::AbortConn => self.link.abort(),
            Body::SuspComm { .. } | Body::SuspCommAck => {
                self.violation("a message about moving the connection");
            }
        }
        self.source.acked(head.mseq_ack);
    }

    fn mode_changed(&mut self, change: ModeChange) {
        match change {
            ModeChange::RecvBuffered => self.sink.mode = Mode::Buffered,
            ModeChange::RecvPipelined => self.sink.mode = Mode::Pipelined,
            ModeChange::RecvCombined => {
                self.sink.mode = Mode::Combined;
                self.sink_forgets();
            }
            ModeChange::SendCombined => self.source.mode = Mode::Combined,
        }
    }

    /// Says what is to be said, as far as credits go.
    fn act(&mut self) {
        if !self.link.may_send {
            return;
        }
        self.act_sink();
        if self.owes_ack {
            let header = if self.habits.ack_without_header {
                16
            } else {
                0
            };
            let size = u32::try_from(link::RECV_LEN).unwrap_or(u32::MAX) - header;
            let ack = Body::ChRcvBufAck { size };
            self.owes_ack = !self.link.say(ack, Flags::empty(), &[]);
        }
        let first = self.link.said() == 0 && self.rng.coin();
        if first && self.habits.talks && self.rng.coin() {
            self.link.say(Body::Data, Flags::empty(), &[]);
        }
        let asks = self.habits.talks && self.asked.is_none();
        if asks && (first || self.rarely(40)) {
            // Lengths of 37 to some thousands: never below what it must take anyway.
            let size = u32::try_from(self.rng.between(2_000, 20_000)).unwrap_or(2_000);
            let smaller = (size as usize) < self.link.peer_recv_len;
            if self.link.say(Body::ChRcvBuf { size }, Flags::empty(), &[]) {
                self.asked = Some(self.link.said());
                if smaller {
                    self.link.peer_recv_len = size as usize;
                }
            }
        }
        self.act_source();
        if self.said_fin && !self.heard_fin && self.may_abort() {
            self.link.say(Body::AbortConn, Flags::empty(), &[]);
            return;
        }
        if self.link.update_due() || (self.habits.talks && self.rarely(50)) {
            self.link.say(Body::Data, Flags::empty(), &[]);
        }
    }

    fn may_abort(&mut self) -> bool {
        self.own.plan.weather == Weather::Stormy && self.habits.talks && self.rarely(20)
    }
}
