//! The beginning of a connection where only the side that connected may send first
//! ([`Caps::CALLER_FIRST`]), as over Soft-iWARP.

use std::collections::VecDeque;

use super::adapter::Packet;
use super::clock::Nanos;
use super::faults::Fault;
use super::qp::State;
use super::world::World;
use crate::caps::Caps;
use crate::types::QpNum;

/// A side that has accepted, and to which no message has come.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// Something has come.
    begun: bool,
    /// What comes before this time lies there until something comes later.
    deaf_until: Nanos,
    pub(super) unseen: VecDeque<Packet>,
}

impl World {
    /// A side has accepted. Where the other side must send first it may send, by what its adapter
    /// sees. Says whether that is so.
    pub(super) fn begin_opening(&mut self, num: QpNum) -> bool {
        let Some(qp) = self.qps.get_mut(&num) else {
            return false;
        };
        let caps = self.nodes[qp.node].options.caps;
        let first = caps.contains(Caps::CALLER_FIRST) && qp.state == State::ReadyToReceive;
        if first {
            qp.opening = Some(Opening::default());
            qp.state = State::ReadyToSend;
        }
        first
    }

    /// Whether what is sent now comes too early for the side that connected.
    pub(super) fn is_early(&self, num: QpNum) -> bool {
        self.qps.get(&num).is_some_and(|qp| qp.opening.is_some())
    }

    /// What is seen now that `packet` has come, in order.
    pub(super) fn seen(&mut self, packet: Packet) -> VecDeque<Packet> {
        let now = self.now();
        let Some(qp) = self.qps.get_mut(&packet.to) else {
            return [packet].into();
        };
        let Some(opening) = qp.opening.as_mut().filter(|_| qp.state != State::Error) else {
            return [packet].into();
        };
        if !std::mem::replace(&mut opening.begun, true) && self.dice.fires(Fault::Unseen) {
            opening.deaf_until = now + self.dice.deafness();
        }
        let deaf = now < opening.deaf_until;
        if deaf {
            // Those who only look at the transport have it.
            self.acknowledge(&packet);
        }
        let Some(opening) = self.opening(packet.to) else {
            return VecDeque::new();
        };
        opening.unseen.push_back(packet);
        if deaf {
            return VecDeque::new();
        }
        std::mem::take(&mut opening.unseen)
    }

    fn opening(&mut self, num: QpNum) -> Option<&mut Opening> {
        self.qps.get_mut(&num)?.opening.as_mut()
    }

    /// Something came from the side that accepted before it had heard anything: the side that
    /// connected does not understand it, and the connection is over.
    pub(super) fn end_opening(&mut self, packet: &Packet) {
        let Some(id) = self.qps.get(&packet.to).map(|qp| qp.id) else {
            return;
        };
        self.say_goodbye(id);
        self.disconnect_arrives(id);
    }
}
