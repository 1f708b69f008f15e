//! How queue pairs end: in error, or when their last words are out.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::sim::qp::State;
use crate::sim::request::Stage;
use crate::sim::watch::Passing;
use crate::sim::world::{Event, World};
use crate::types::QpNum;
use crate::wr::WcStatus;

impl World {
    /// A queue pair breaks for no fault of anybody's: its oldest request fails.
    pub(super) fn break_qp(&mut self, num: QpNum) {
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        if qp.state == State::Error {
            return;
        }
        if !qp.requests.is_empty() {
            self.report_first(num, WcStatus::RetryExceeded, 0);
        }
        self.fail_qp(num);
    }

    /// Into the error state: keys die, everything is flushed, the peer's requests are lost.
    pub(in crate::sim) fn fail_qp(&mut self, num: QpNum) {
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        if std::mem::replace(&mut qp.state, State::Error) == State::Error {
            return;
        }
        let (peer, id, draining) = (qp.peer, qp.id, qp.draining);
        let unseen = qp.opening.take().map_or_else(VecDeque::new, |o| o.unseen);
        let count = qp.requests.len();
        let receives = std::mem::take(&mut qp.receives);
        let stalled = std::mem::take(&mut qp.stalled);
        let now = self.now();
        self.trace
            .note(now, "queue pair in error", u64::from(num.0), [0, 0]);
        let node = self.qps[&num].node;
        self.show(node, Some(num), Passing::Down);
        self.regions.kill_all(num);
        for _ in 0..count {
            let status = match self.qps[&num].requests.front().map(|r| r.stage) {
                // It was carried out, though one before it was not reported yet.
                Some(Stage::Done { status, .. }) if status != WcStatus::Success => status,
                _ => WcStatus::Flushed,
            };
            self.report_first(num, status, 0);
        }
        for receive in &receives {
            receive.buf.posted.store(false, Ordering::Relaxed);
            self.received(num, receive, WcStatus::Flushed, 0, None, false);
        }
        for packet in stalled.iter().chain(&unseen) {
            self.give_up(packet, WcStatus::RetryExceeded);
        }
        if let Some(peer) = peer.and_then(|peer| self.qps.get_mut(&peer)) {
            // What waits for a receive will not be sent again.
            let before = peer.stalled.len();
            peer.stalled.retain(|packet| packet.from != num);
            peer.deaf |= peer.stalled.len() != before;
            // What nobody has looked at is lost with the connection.
            if let Some(opening) = &mut peer.opening {
                peer.deaf |= !std::mem::take(&mut opening.unseen).is_empty();
            }
        }
        if draining {
            self.say_goodbye(id);
        }
    }

    /// Ends a draining queue pair whose last words are out.
    pub(super) fn drained_if_empty(&mut self, num: QpNum) {
        let over = self
            .qps
            .get(&num)
            .is_some_and(|qp| qp.draining && qp.is_drained());
        if over {
            self.drained(num);
        }
    }

    /// A draining queue pair ends, whatever is left.
    pub(in crate::sim) fn drained(&mut self, num: QpNum) {
        if !self.qps.get(&num).is_some_and(|qp| qp.draining) {
            return;
        }
        self.fail_qp(num);
        if self.qps.get(&num).is_some_and(|qp| qp.dropped) {
            self.qps.remove(&num);
        }
    }

    /// Lets a queue pair send what was posted, then ends it.
    pub(in crate::sim) fn drain(&mut self, num: QpNum) {
        const DRAIN_MAX: u64 = 5_000_000_000;
        if let Some(qp) = self.qps.get_mut(&num) {
            qp.draining = true;
        }
        self.after(DRAIN_MAX, Event::DrainOver(num));
        self.drained_if_empty(num);
    }
}
