//! Everything on the fabric, behind its lock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::adapter::{Answer, Packet};
use super::channel::{Channel, ChannelKey};
use super::clock::{Clock, Nanos};
use super::cm::{CmTimer, Id, IdKey, Message};
use super::cq::{CqKey, Cqe, Queue};
use super::events::News;
use super::faults::{Dice, Fault, Faults};
use super::link::Link;
use super::options::{SimOptions, Timing, wide};
use super::processors::{Processors, Work};
use super::qp::Qp;
use super::region::Regions;
use super::trace::Trace;
use super::watch::{Passing, Watcher};
use crate::cq::CqToken;
use crate::rng::Rng;
use crate::types::QpNum;

/// Names a machine.
pub(super) type NodeKey = usize;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A send queue looks for what it may start.
    Start(QpNum),
    /// A packet arrives at its responder.
    Arrive(Packet),
    /// A responder looks again at what found no receive.
    Retry(QpNum),
    /// The bytes of a READ leave the responder.
    Respond(Packet),
    /// A queue pair has had its turn on the link of a machine.
    TurnOver(NodeKey),
    /// The requester hears what became of a request.
    Answer(Answer),
    /// A completion becomes visible.
    Complete(CqKey, Cqe),
    /// A message of connection management arrives.
    Cm(Message),
    /// A timer of connection management.
    CmTimer(IdKey, CmTimer),
    /// What a closing queue pair still had to send has taken too long.
    DrainOver(QpNum),
}

/// A machine: its processors, its adapter, its end of the link.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) options: SimOptions,
    pub(super) address: IpAddr,
    pub(super) processors: Processors,
    pub(super) link: Link,
    /// Bytes registered.
    pub(super) registered: usize,
}

#[derive(Debug)]
pub(super) struct World {
    clock: Clock,
    pub(super) timing: Timing,
    pub(super) dice: Dice,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) nodes: Vec<Node>,
    pub(super) queues: BTreeMap<CqKey, Queue>,
    pub(super) qps: BTreeMap<QpNum, Qp>,
    pub(super) ids: BTreeMap<IdKey, Id>,
    /// Who is bound where.
    pub(super) ports: BTreeMap<SocketAddr, Vec<IdKey>>,
    pub(super) completions: BTreeMap<ChannelKey, Channel<CqToken>>,
    pub(super) events: BTreeMap<ChannelKey, Channel<(IdKey, News)>>,
    pub(super) regions: Regions,
    pub(super) violations: Vec<String>,
    pub(super) watcher: Option<Box<dyn Watcher>>,
    next_key: u64,
    next_port: u16,
    moved: bool,
    news: bool,
}

/// Violations kept: one is enough to fail, a few tell more.
const VIOLATIONS_MAX: usize = 16;

const FIRST_PORT: u16 = 32_768;

impl World {
    pub(super) fn new(seed: u64, timing: Timing, faults: Faults) -> Self {
        Self {
            clock: Clock::new(),
            timing,
            dice: Dice::new(seed, faults),
            rng: Rng::new(seed, 0xFB),
            trace: Trace::new(),
            nodes: Vec::new(),
            queues: BTreeMap::new(),
            qps: BTreeMap::new(),
            ids: BTreeMap::new(),
            ports: BTreeMap::new(),
            completions: BTreeMap::new(),
            events: BTreeMap::new(),
            regions: Regions::default(),
            violations: Vec::new(),
            watcher: None,
            next_key: 1,
            next_port: FIRST_PORT,
            moved: false,
            news: false,
        }
    }

    pub(super) fn add_node(&mut self, options: SimOptions) -> NodeKey {
        let number = self.nodes.len();
        let low = u8::try_from(number % 250 + 1).unwrap_or(1);
        let high = u8::try_from(number / 250).unwrap_or(u8::MAX);
        self.nodes.push(Node {
            options,
            address: IpAddr::V4(Ipv4Addr::new(10, 0, high, low)),
            processors: Processors::new(options.processors),
            link: Link::default(),
            registered: 0,
        });
        number
    }

    pub(super) fn now(&self) -> Nanos {
        self.clock.now()
    }

    pub(super) fn next_time(&self) -> Option<Nanos> {
        self.clock.next()
    }

    pub(super) fn at(&mut self, at: Nanos, event: Event) {
        self.clock.at(at, event);
        self.moved = true;
    }

    pub(super) fn after(&mut self, delay: Nanos, event: Event) {
        let at = self.now() + delay;
        self.at(at, event);
    }

    /// Somebody may wait for what has just happened.
    pub(super) fn stir(&mut self) {
        self.moved = true;
        self.news = true;
    }

    /// Whether there has been anything to wait for since this was asked last.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    pub(super) fn new_key(&mut self) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        key
    }

    /// A port that nobody is bound to.
    pub(super) fn new_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.ports.keys().any(|addr| addr.port() == port) {
                return port;
            }
        }
    }

    pub(super) fn violation(&mut self, what: String) {
        let now = self.now();
        self.trace.line(|| format!("{now:>13} VIOLATION {what}"));
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// Shows something to whoever watches.
    pub(super) fn show(&mut self, node: NodeKey, qp: Option<QpNum>, what: Passing<'_>) {
        if let Some(watcher) = &mut self.watcher {
            watcher.passes(node, qp, what);
        }
    }

    /// Objects that are still there.
    pub(super) fn leftovers(&self) -> Option<String> {
        let (regions, keys) = self.regions.count();
        let counts = [
            (self.qps.len(), "queue pairs"),
            (self.ids.len(), "ids"),
            (self.queues.len(), "completion queues"),
            (regions, "regions"),
            (keys, "keys"),
        ];
        let left = counts.iter().filter(|(count, _)| *count > 0);
        let left: Vec<_> = left
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!left.is_empty()).then(|| left.join(", "))
    }

    /// The processor of a machine works for a while. Returns when it is done.
    pub(super) fn charge(&mut self, node: NodeKey, work: Work, cost: Nanos) -> Nanos {
        let now = self.now();
        self.nodes[node].processors.charge(now, work, cost)
    }

    /// As [`charge`](Self::charge), for copying payload.
    pub(super) fn charge_copy(&mut self, node: NodeKey, len: usize) {
        let (now, timing) = (self.now(), &self.timing);
        let (rate, memory_rate) = (timing.copy_rate, timing.memory_rate);
        let processors = &mut self.nodes[node].processors;
        processors.copy(now, wide(len), rate, memory_rate);
    }

    /// The time on the processor of a machine that works now.
    pub(super) fn time_on(&self, node: NodeKey) -> Nanos {
        self.nodes[node].processors.current_until().max(self.now())
    }

    /// Whether an address is one of a machine's own.
    pub(super) fn is_local(&self, node: NodeKey, ip: IpAddr) -> bool {
        ip.is_loopback()
            || ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            || ip == self.nodes[node].address
    }

    /// Whether anything is due soon enough.
    pub(super) fn is_due_within(&self, limit: Nanos) -> bool {
        let limit = self.now().saturating_add(limit);
        self.next_time().is_some_and(|at| at <= limit)
    }

    /// Lets the next thing happen. False: nothing is due, or not soon enough.
    pub(super) fn step(&mut self, within: Option<Nanos>) -> bool {
        let Some(at) = self.next_time() else {
            return false;
        };
        if within.is_some_and(|limit| !self.is_due_within(limit)) {
            return false;
        }
        if self.dice.fires(Fault::ClockJump) {
            let to = at + self.dice.jump();
            self.trace.note(at, "clock jump", 0, [to, 0]);
            self.clock.advance(to);
        }
        if let Some(event) = self.clock.pop(at) {
            self.happen(event);
        }
        true
    }

    pub(super) fn advance_to(&mut self, to: Nanos) {
        while let Some(event) = self.clock.pop(to) {
            self.happen(event);
        }
        self.clock.advance(to);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(qp) => self.start(qp),
            Event::Arrive(packet) => self.arrive(packet),
            Event::Retry(qp) => self.retry(qp),
            Event::Respond(packet) => self.respond(packet),
            Event::TurnOver(node) => self.turn_over(node),
            Event::Answer(answer) => self.answered(answer),
            Event::Complete(queue, cqe) => self.show_completion(queue, cqe),
            Event::Cm(message) => self.cm_arrives(message),
            Event::CmTimer(id, timer) => self.cm_timer(id, timer),
            Event::DrainOver(qp) => self.drained(qp),
        }
    }
}
