//! Completion queues.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{ChannelKey, SimCompChannel};
use super::fabric::Fabric;
use super::faults::Fault;
use super::processors::Work;
use super::watch::Passing;
use super::world::{Event, NodeKey, World};
use crate::cq::{ArmFor, ArmToken, CompletionQueue, CqToken, Wake};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

/// Names a completion queue.
pub(super) type CqKey = u64;

/// A completion, with what its polling frees.
#[derive(Debug)]
pub(super) struct Cqe {
    pub(super) wc: WorkCompletion,
    /// Of a send request: its number in its queue.
    pub(super) seq: Option<u64>,
    pub(super) solicited: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Armed {
    No,
    All,
    Solicited,
}

/// A completion queue on the fabric.
#[derive(Debug)]
pub(super) struct Queue {
    node: NodeKey,
    channel: ChannelKey,
    token: CqToken,
    depth: usize,
    ready: VecDeque<Cqe>,
    /// Not visible yet.
    late: usize,
    events: u32,
    armed: Armed,
}

impl World {
    /// The adapter reports a completion. It shows a little later, and in the order of `floor`.
    pub(super) fn complete(&mut self, queue: CqKey, cqe: Cqe, floor: u64) -> u64 {
        let mut at = self.now() + self.timing.completion;
        if self.dice.fires(Fault::LateCompletion) {
            at += self.dice.lateness();
        }
        let at = at.max(floor);
        if let Some(known) = self.queues.get_mut(&queue) {
            known.late += 1;
            let (held, depth) = (known.late + known.ready.len(), known.depth);
            if held > depth {
                self.violation(format!(
                    "a completion queue of {depth} holds {held} completions"
                ));
            }
            self.at(at, Event::Complete(queue, cqe));
        }
        at
    }

    pub(super) fn show_completion(&mut self, queue: CqKey, cqe: Cqe) {
        let now = self.now();
        let wc = &cqe.wc;
        let about = [
            (wc.opcode as u64) << 8 | wc.status as u64,
            super::options::wide(wc.byte_len),
        ];
        self.trace
            .note(now, "completion", u64::from(wc.qp.0), about);
        self.trace
            .line(|| format!("{now:>13}   {:?} {:?}", cqe.wc.opcode, cqe.wc.status));
        let Some(queue) = self.queues.get_mut(&queue) else {
            return;
        };
        queue.late -= 1;
        queue.events = queue.events.wrapping_add(1);
        let tells = match queue.armed {
            Armed::No => false,
            Armed::All => true,
            Armed::Solicited => cqe.solicited || cqe.wc.status != WcStatus::Success,
        };
        queue.ready.push_back(cqe);
        if tells {
            queue.armed = Armed::No;
            let (channel, token) = (queue.channel, queue.token);
            self.tell_channel(channel, token);
        }
        self.stir();
    }

    /// Shows a completion that a program has taken.
    fn show_taken(&mut self, node: NodeKey, wc: &WorkCompletion) {
        if self.watcher.is_none() {
            return;
        }
        let came = wc.opcode == WcOpcode::Recv && wc.status == WcStatus::Success;
        let qp = self.qps.get_mut(&wc.qp).filter(|_| came);
        match qp.and_then(|qp| qp.untold.pop_front()) {
            Some((head, len)) => {
                let message = Passing::Message { head: &head, len };
                self.show(node, Some(wc.qp), message);
            }
            None => {
                let (opcode, status) = (wc.opcode, wc.status);
                self.show(node, Some(wc.qp), Passing::Done { opcode, status });
            }
        }
    }

    fn poll_queue(&mut self, key: CqKey, out: &mut [WorkCompletion]) -> usize {
        let Some(queue) = self.queues.get_mut(&key) else {
            return 0;
        };
        let node = queue.node;
        let max = out.len().min(self.nodes[node].options.poll_max);
        let count = max.min(queue.ready.len());
        let taken: Vec<Cqe> = queue.ready.drain(..count).collect();
        for (slot, cqe) in out.iter_mut().zip(taken) {
            *slot = cqe.wc;
            if let (Some(seq), Some(qp)) = (cqe.seq, self.qps.get_mut(&cqe.wc.qp)) {
                qp.reaped(seq);
            }
            self.show_taken(node, &cqe.wc);
        }
        let cost = self.timing.poll * (1 + super::options::wide(count));
        if count > 0 {
            self.charge(node, Work::Poll, cost);
        }
        count
    }
}

/// See [`CompletionQueue`].
#[derive(Debug)]
pub(super) struct SimCq {
    fabric: Arc<Fabric>,
    pub(super) node: NodeKey,
    pub(super) key: CqKey,
    _channel: Arc<SimCompChannel>,
}

impl SimCq {
    pub(super) fn new(
        fabric: &Arc<Fabric>,
        depth: u32,
        channel: Arc<SimCompChannel>,
        token: CqToken,
    ) -> Self {
        let node = channel.node;
        let key = fabric.with(|world| {
            let key = world.new_key();
            let queue = Queue {
                node,
                channel: channel.key,
                token,
                depth: usize::try_from(depth).unwrap_or(usize::MAX),
                ready: VecDeque::new(),
                late: 0,
                events: 0,
                armed: Armed::No,
            };
            world.queues.insert(key, queue);
            key
        });
        Self {
            fabric: Arc::clone(fabric),
            node,
            key,
            _channel: channel,
        }
    }

    pub(super) fn is_on(&self, fabric: &Arc<Fabric>, node: NodeKey) -> bool {
        Arc::ptr_eq(&self.fabric, fabric) && self.node == node
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut Queue) -> T) -> T {
        self.fabric.with(|world| {
            let queue = world.queues.get_mut(&self.key);
            edit(queue.expect("a queue stays until its handle is dropped"))
        })
    }
}

impl Drop for SimCq {
    fn drop(&mut self) {
        let queue = self.fabric.with(|world| world.queues.remove(&self.key));
        drop(queue);
    }
}

impl CompletionQueue for SimCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        self.fabric.catch_up(self.node);
        self.fabric.with(|world| world.poll_queue(self.key, out))
    }

    fn arm(&self, who: ArmFor) -> ArmToken {
        self.edit(|queue| {
            match (who, queue.armed) {
                (ArmFor::Waiter, _) | (ArmFor::ChannelSolicited, Armed::All) => {}
                (ArmFor::Channel | ArmFor::Token, _) => queue.armed = Armed::All,
                (ArmFor::ChannelSolicited, _) => queue.armed = Armed::Solicited,
            }
            ArmToken(queue.events.into())
        })
    }

    fn disarm_channel(&self) {
        self.edit(|queue| queue.armed = Armed::No);
    }

    fn wait(&self, token: ArmToken, timeout: Option<Duration>) -> io::Result<Wake> {
        let look = |world: &mut World| {
            let queue = world.queues.get(&self.key);
            queue
                .is_none_or(|queue| u64::from(queue.events) != token.0)
                .then_some(())
        };
        let woken = self.fabric.sleep_until(timeout, look);
        Ok(woken.map_or(Wake::TimedOut, |()| Wake::Event))
    }

    fn wake(&self) {
        self.fabric.with(|world| {
            if let Some(queue) = world.queues.get_mut(&self.key) {
                queue.events = queue.events.wrapping_add(1);
            }
            world.stir();
        });
    }
}
