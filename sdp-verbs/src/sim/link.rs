//! The sending half of a machine's link: who has it next.

use std::collections::{BTreeMap, VecDeque};

use super::adapter::Packet;
use super::clock::Nanos;
use super::options::{Timing, time_of, wide};
use super::world::{Event, NodeKey, World};
use crate::types::QpNum;

/// What leaves with its last byte.
#[derive(Debug)]
pub(super) enum Leaving {
    /// A request.
    Request(Packet),
    /// The bytes that this request reads.
    Response(Packet),
}

/// Bytes that still have to leave.
#[derive(Debug)]
struct Piece {
    left: u64,
    leaving: Leaving,
}

/// The sending half of a link.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Until when it is busy, where one message goes after the other.
    free: Nanos,
    /// What queue pairs have to send, each in order, where they take turns.
    queues: BTreeMap<QpNum, VecDeque<Piece>>,
    /// Whose turn is next.
    ring: VecDeque<QpNum>,
    /// A turn is being taken.
    busy: bool,
}

/// How long bytes take, with what is around them.
fn time_on_link(timing: &Timing, len: u64) -> Nanos {
    let packets = len.div_ceil(timing.mtu.max(1)).max(1);
    let on_link = time_of(len + packets * timing.packet_overhead, timing.link_rate);
    on_link.max(time_of(len, timing.dma_rate))
}

impl World {
    /// Puts `len` bytes of queue pair `num` on the link of a machine.
    pub(super) fn transmit(&mut self, node: NodeKey, num: QpNum, len: usize, leaving: Leaving) {
        let (now, len) = (self.now(), wide(len));
        let link = &mut self.nodes[node].link;
        if self.timing.turn == 0 {
            link.free = link.free.max(now) + time_on_link(&self.timing, len);
            let at = link.free;
            return match leaving {
                Leaving::Request(packet) => self.departs(packet, at),
                Leaving::Response(packet) => self.at(at, Event::Respond(packet)),
            };
        }
        let queue = link.queues.entry(num).or_default();
        if queue.is_empty() {
            link.ring.push_back(num);
        }
        queue.push_back(Piece { left: len, leaving });
        if !link.busy {
            self.take_turn(node);
        }
    }

    /// The next queue pair has the link, for one turn.
    fn take_turn(&mut self, node: NodeKey) {
        let link = &mut self.nodes[node].link;
        let piece = link
            .ring
            .front()
            .and_then(|num| link.queues.get(num)?.front());
        link.busy = piece.is_some();
        if let Some(piece) = piece {
            let len = piece.left.min(self.timing.turn);
            let time = time_on_link(&self.timing, len);
            self.after(time, Event::TurnOver(node));
        }
    }

    /// A turn is over: what has left with its last byte is on its way.
    pub(super) fn turn_over(&mut self, node: NodeKey) {
        let turn = self.timing.turn;
        let link = &mut self.nodes[node].link;
        let Some(num) = link.ring.pop_front() else {
            return;
        };
        let mut gone = None;
        if let Some(queue) = link.queues.get_mut(&num) {
            if let Some(piece) = queue.front_mut() {
                piece.left = piece.left.saturating_sub(turn);
                if piece.left == 0 {
                    gone = queue.pop_front();
                }
            }
            if queue.is_empty() {
                link.queues.remove(&num);
            } else {
                link.ring.push_back(num);
            }
        }
        self.take_turn(node);
        let now = self.now();
        match gone.map(|piece| piece.leaving) {
            Some(Leaving::Request(packet)) => self.departs(packet, now),
            Some(Leaving::Response(packet)) => self.respond(packet),
            None => {}
        }
    }
}
