//! Programs: tasks that do one call after the other, and only go on when they are woken.

use alloc::collections::VecDeque;
use std::vec::Vec;

use sdp_wire::ServiceId;
use smallvec::SmallVec;

use super::op::Op;
use super::pattern;
use super::world::World;
use crate::{
    CallError, CallId, CopyReason, CopySource, CopyTarget, EndCall, Event, RecvId, RecvRequest,
    RecvStep, SendId, SendRequest, SendStep, UrgentRecv,
};

/// What a call gave.
pub(in crate::tests) type Outcome = Result<usize, CallError>;

#[derive(Debug)]
enum Running {
    Idle,
    Sleeping,
    AwaitingUrgent,
    Send(SendId, Option<(usize, usize, CopyTarget)>),
    Recv(RecvId, Option<(CopySource, usize, usize)>),
}

/// One thread of a program.
#[derive(Debug)]
pub(in crate::tests) struct Task {
    ops: VecDeque<Op>,
    running: Running,
    /// When the running call must end, and whether it was told.
    limit: Option<u64>,
    ended_at: Option<u64>,
    peeking: bool,
    /// The bytes of this send are not of the pattern.
    urgent: bool,
    pub(in crate::tests) outcomes: Vec<Outcome>,
    done: bool,
}

/// A program.
#[derive(Debug, Default)]
pub(in crate::tests) struct App {
    pub(in crate::tests) tasks: Vec<Task>,
    /// Bytes of the stream accepted from this program, and delivered to it.
    pub(in crate::tests) accepted: u64,
    pub(in crate::tests) received: u64,
    pub(in crate::tests) eof: bool,
    /// Bytes of urgent sends accepted, and delivered in the stream: those before the urgent byte,
    /// and the urgent ones.
    pub(in crate::tests) urgent_accepted: [u64; 2],
    pub(in crate::tests) urgent_received: [u64; 2],
    /// What each receive that gave bytes gave.
    pub(in crate::tests) returned: Vec<Vec<u8>>,
    /// Bytes of the pattern received when a receive left the stream at the mark.
    pub(in crate::tests) marks: Vec<u64>,
    /// What was received out of band.
    pub(in crate::tests) urgents: Vec<UrgentRecv>,
}

/// Bytes that the pattern does not have: those before an urgent byte, and the urgent byte.
pub(in crate::tests) const LEAD: u8 = 0xfe;
pub(in crate::tests) const URGENT: u8 = 0xff;

/// The bytes of an urgent send.
fn urgent_bytes(lead: usize) -> Vec<u8> {
    let mut bytes = std::vec![LEAD; lead];
    bytes.push(URGENT);
    bytes
}

impl App {
    pub(in crate::tests) fn on_event(world: &mut World, side: usize, event: &Event) {
        for task in 0..world.apps[side].tasks.len() {
            let woken = matches!(
                (&world.apps[side].tasks[task].running, event),
                (Running::Send(_, None), Event::SendReady)
                    | (Running::Recv(_, None), Event::RecvReady)
                    | (Running::AwaitingUrgent, Event::Urgent)
            );
            if woken {
                world.schedule_task(side, task, 0);
            }
        }
    }

    /// Task `index` of `side` does what it can.
    pub(in crate::tests) fn go_on(world: &mut World, side: usize, index: usize) {
        loop {
            let now = world.now;
            let task = &mut world.apps[side].tasks[index];
            if task.limit.is_some_and(|limit| limit <= now) {
                task.limit = None;
                task.ended_at = Some(now);
                end(world, side, index);
            }
            let task = &mut world.apps[side].tasks[index];
            let going = match &mut task.running {
                Running::Sleeping | Running::AwaitingUrgent => {
                    task.running = Running::Idle;
                    true
                }
                Running::Idle => start(world, side, index),
                Running::Send(id, copy) => {
                    let (id, copy) = (*id, copy.take());
                    send_on(world, side, index, id, copy)
                }
                Running::Recv(id, copy) => {
                    let (id, copy) = (*id, copy.take());
                    recv_on(world, side, index, id, copy)
                }
            };
            if !going {
                return;
            }
        }
    }
}

impl App {
    /// An urgent send of `len` bytes has accepted `accepted` of them.
    fn accept_urgent(&mut self, accepted: usize, len: usize) {
        self.urgent_accepted[0] += accepted.min(len - 1) as u64;
        self.urgent_accepted[1] += u64::from(accepted == len);
    }

    /// Bytes that a receive gave: those of urgent sends are told apart by their values, the others
    /// are the next of the pattern.
    fn judge(&mut self, side: usize, bytes: &[u8], peeking: bool) {
        let plain: Vec<u8> = bytes.iter().copied().filter(|byte| *byte < LEAD).collect();
        let expected = pattern(1 - side, self.received, plain.len());
        assert!(plain == expected, "wrong bytes at {}", self.received);
        if peeking {
            return;
        }
        self.received += plain.len() as u64;
        for (place, value) in [LEAD, URGENT].into_iter().enumerate() {
            let count = bytes.iter().filter(|byte| **byte == value).count();
            self.urgent_received[place] += count as u64;
        }
        if !bytes.is_empty() {
            self.returned.push(bytes.to_vec());
        }
    }
}

fn end(world: &mut World, side: usize, index: usize) {
    let now = world.instant();
    let conn = &mut world.nics[side].conn;
    match world.apps[side].tasks[index].running {
        Running::Send(id, ..) => conn.send_end(now, id, EndCall::TimedOut),
        Running::Recv(id, ..) => conn.recv_end(now, id, EndCall::TimedOut),
        _ => {}
    }
    world.drain(side);
}

/// The next operation.
fn start(world: &mut World, side: usize, index: usize) -> bool {
    let now = world.instant();
    let app = &mut world.apps[side];
    let task = &mut app.tasks[index];
    let Some(op) = task.ops.pop_front() else {
        task.done = true;
        return false;
    };
    task.ended_at = None;
    let conn = &mut world.nics[side].conn;
    match op {
        Op::Send { .. } => start_send(world, side, index, op),
        Op::Recv { .. } => start_recv(world, side, index, op),
        Op::RecvToEnd { len } => {
            if !app.eof {
                task.ops.push_front(Op::RecvToEnd { len });
                task.ops.push_front(Op::recv(len));
            }
        }
        Op::Sleep(time) => {
            task.running = Running::Sleeping;
            world.schedule_task(side, index, time);
            return false;
        }
        Op::Urgent { lead } => match conn.send_urgent(now, lead + 1) {
            Ok(false) => task.ops.push_front(Op::UrgentInTurn {
                lead,
                nonblocking: false,
            }),
            Ok(true) => {
                world.nics[side].urgent.extend(urgent_bytes(lead));
                app.accept_urgent(lead + 1, lead + 1);
            }
            Err(_) => {}
        },
        Op::UrgentInTurn { .. } => start_urgent(world, side, index, &op),
        Op::AwaitUrgent => {
            if !conn.has_urgent() {
                task.running = Running::AwaitingUrgent;
                return false;
            }
        }
        Op::RecvUrgent { peek } => {
            let found = conn.recv_urgent(peek);
            if found == UrgentRecv::Byte {
                assert_eq!(world.nics[side].kept, Some(URGENT));
            }
            app.urgents.push(found);
        }
        Op::Inline(inline) => conn.set_oob_inline(inline),
        Op::Move => {
            // One that is under way already is as good.
            let secret = conn.moves_done() << 32 | world.now << 20;
            let id = ServiceId::resuming_at(7, secret);
            if let Err(error) = conn.suspend(now, id) {
                assert!(matches!(
                    error,
                    CallError::WouldBlock | CallError::NotConnected
                ));
            }
        }
        Op::ShutSend => conn.shutdown_send(now),
        Op::ShutRecv => conn.shutdown_recv(now),
        Op::Close(linger) => conn.close(now, linger),
        Op::Abort => conn.abort(now),
    }
    world.drain(side);
    true
}

fn set_limit(world: &mut World, side: usize, index: usize, limit: Option<u64>) {
    if let Some(limit) = limit {
        world.apps[side].tasks[index].limit = Some(world.now + limit);
        world.schedule_task(side, index, limit);
    }
}

/// The ends of the pieces of memory of a call of `len` bytes.
fn ends(pieces: Vec<usize>, len: usize) -> SmallVec<[usize; 2]> {
    if pieces.is_empty() {
        return [len].into_iter().collect();
    }
    pieces.into_iter().collect()
}

fn start_send(world: &mut World, side: usize, index: usize, op: Op) {
    let Op::Send {
        len,
        nonblocking,
        copied,
        pieces,
        time_limit,
    } = op
    else {
        return;
    };
    let request = SendRequest {
        len,
        segment_ends: ends(pieces, len),
        nonblocking,
        urgent: false,
        registered: false,
        copy_reason: copied.then_some(CopyReason::MemoryUnreachable),
    };
    let now = world.instant();
    let id = world.nics[side].conn.send_start(now, request);
    let bytes = pattern(side, world.apps[side].accepted, len);
    world.nics[side].sends.insert(id, bytes);
    world.apps[side].tasks[index].running = Running::Send(id, None);
    set_limit(world, side, index, time_limit);
}

/// An urgent send that takes its turn.
fn start_urgent(world: &mut World, side: usize, index: usize, op: &Op) {
    let Op::UrgentInTurn { lead, nonblocking } = *op else {
        return;
    };
    let request = SendRequest {
        len: lead + 1,
        segment_ends: [lead + 1].into_iter().collect(),
        nonblocking,
        urgent: true,
        registered: false,
        copy_reason: None,
    };
    let now = world.instant();
    let id = world.nics[side].conn.send_start(now, request);
    world.nics[side].sends.insert(id, urgent_bytes(lead));
    let task = &mut world.apps[side].tasks[index];
    task.urgent = true;
    task.running = Running::Send(id, None);
}

fn start_recv(world: &mut World, side: usize, index: usize, op: Op) {
    let Op::Recv {
        len,
        nonblocking,
        peek,
        wait_all,
        pieces,
        time_limit,
    } = op
    else {
        return;
    };
    let request = RecvRequest {
        len,
        segment_ends: ends(pieces, len),
        nonblocking,
        peek,
        wait_all,
        copy_reason: None,
    };
    let now = world.instant();
    let id = world.nics[side].conn.recv_start(now, request);
    world.nics[side].recvs.insert(id, std::vec![0; len]);
    let task = &mut world.apps[side].tasks[index];
    task.peeking = peek;
    task.running = Running::Recv(id, None);
    set_limit(world, side, index, time_limit);
}

fn send_on(
    world: &mut World,
    side: usize,
    index: usize,
    id: SendId,
    copy: Option<(usize, usize, CopyTarget)>,
) -> bool {
    let now = world.instant();
    if let Some((at, len, to)) = copy {
        if world.trouble() {
            world.nics[side].conn.send_copy_failed(now, id, to);
        } else {
            world.nics[side].copy_to(id, at, len, to);
            world.nics[side].conn.send_copied(now, id, len, to);
        }
        world.drain(side);
    }
    let step = world.nics[side].conn.send_poll(now, id);
    world.drain(side);
    match step {
        SendStep::Copy { at, len, to } => {
            let delay = world.copy_delay();
            if let Running::Send(_, copy) = &mut world.apps[side].tasks[index].running {
                *copy = Some((at, len, to));
            }
            if delay == 0 {
                return true;
            }
            world.schedule_task(side, index, delay);
            false
        }
        SendStep::Wait => false,
        SendStep::Done(outcome) => {
            for key in world.nics[side].keys.values() {
                assert!(
                    key.call != CallId::Send(id) || !key.alive,
                    "a send returned with a living key"
                );
            }
            let memory = world.nics[side].sends.remove(&id).unwrap_or_default();
            finish(world, side, index, outcome);
            let app = &mut world.apps[side];
            let urgent = core::mem::take(&mut app.tasks[index].urgent);
            match outcome {
                Ok(len) if urgent => app.accept_urgent(len, memory.len()),
                Ok(len) => app.accepted += len as u64,
                Err(_) => {}
            }
            true
        }
    }
}

fn recv_on(
    world: &mut World,
    side: usize,
    index: usize,
    id: RecvId,
    copy: Option<(CopySource, usize, usize)>,
) -> bool {
    let now = world.instant();
    if let Some((from, at, len)) = copy {
        world.nics[side].copy_from(id, at, len, from);
        world.nics[side].conn.recv_copied(now, id, len);
        world.drain(side);
    }
    let step = world.nics[side].conn.recv_poll(now, id);
    world.drain(side);
    match step {
        RecvStep::Copy { from, at, len } => {
            let delay = world.copy_delay();
            if let Running::Recv(_, copy) = &mut world.apps[side].tasks[index].running {
                *copy = Some((from, at, len));
            }
            if delay == 0 {
                return true;
            }
            world.schedule_task(side, index, delay);
            false
        }
        RecvStep::Wait => false,
        RecvStep::Done(outcome) => {
            for key in world.nics[side].keys.values() {
                assert!(
                    key.call != CallId::Recv(id) || !key.alive,
                    "a receive returned with a living key"
                );
            }
            let bytes = world.nics[side].recvs.remove(&id).unwrap();
            let app = &mut world.apps[side];
            let peeking = app.tasks[index].peeking;
            if let Ok(len) = outcome {
                app.judge(side, &bytes[..len], peeking);
                if !peeking {
                    app.eof |= len == 0 && !bytes.is_empty();
                    if len > 0 && world.nics[side].conn.is_at_mark() {
                        app.marks.push(app.received);
                    }
                }
            }
            if matches!(
                outcome,
                Err(CallError::Connection(_) | CallError::NotConnected)
            ) {
                app.eof = true;
            }
            finish(world, side, index, outcome);
            true
        }
    }
}

fn finish(world: &mut World, side: usize, index: usize, outcome: Outcome) {
    let now = world.now;
    let wait = world.nics[side].conn.config().cancel_wait;
    let task = &mut world.apps[side].tasks[index];
    if let Some(ended) = task.ended_at {
        let limit = ended + u64::try_from(wait.as_nanos()).unwrap() + 1_000_000;
        assert!(
            now <= limit,
            "a call that had to end took {} ns",
            now - ended
        );
    }
    task.limit = None;
    task.running = Running::Idle;
    task.outcomes.push(outcome);
}

impl World {
    /// Adds a thread to the program of `side`, starting now.
    pub(in crate::tests) fn spawn(
        &mut self,
        side: usize,
        ops: impl IntoIterator<Item = Op>,
    ) -> usize {
        let index = self.apps[side].tasks.len();
        self.apps[side].tasks.push(Task {
            ops: ops.into_iter().collect(),
            running: Running::Idle,
            limit: None,
            ended_at: None,
            peeking: false,
            urgent: false,
            outcomes: Vec::new(),
            done: false,
        });
        self.schedule_task(side, index, 0);
        index
    }

    pub(in crate::tests) fn outcomes(&self, side: usize, task: usize) -> &[Outcome] {
        &self.apps[side].tasks[task].outcomes
    }

    pub(in crate::tests) fn is_done(&self, side: usize, task: usize) -> bool {
        self.apps[side].tasks[task].done
    }

    pub(in crate::tests) fn all_done(&self) -> bool {
        self.apps
            .iter()
            .all(|app| app.tasks.iter().all(|task| task.done))
    }

    /// Runs until all tasks are done.
    pub(in crate::tests) fn finish(&mut self) {
        self.run_until(Self::all_done);
    }

    /// Every byte accepted was delivered, both ways.
    pub(in crate::tests) fn assert_delivered(&self) {
        for side in 0..2 {
            assert_eq!(
                self.apps[side].accepted,
                self.apps[1 - side].received,
                "bytes of side {side}: {}",
                self.picture()
            );
            let (sent, got) = (
                self.apps[side].urgent_accepted,
                self.apps[1 - side].urgent_received,
            );
            assert_eq!(
                sent[0],
                got[0],
                "bytes before urgent ones: {}",
                self.picture()
            );
            assert!(got[1] <= sent[1], "urgent bytes: {}", self.picture());
        }
    }
}
