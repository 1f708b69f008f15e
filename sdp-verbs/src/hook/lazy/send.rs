//! The send queue of a lazy queue pair: requests held back, under way, and settled.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::PostError;
use crate::memory::Block;
use crate::qp::QueuePair;
use crate::types::{QpNum, RemoteAddr, Rkey, Sge, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WcStatus, WorkCompletion};

/// A request kept for later.
#[derive(Debug)]
pub(super) enum OwnedOp {
    Inline(Vec<u8>, Option<Rkey>),
    Buf(Arc<Block>, usize, Option<Rkey>),
    Sges(SmallVec<[Sge; 4]>, Option<Rkey>),
    Read(SmallVec<[Sge; 4]>, RemoteAddr, Rkey),
    Write(SmallVec<[Sge; 4]>, RemoteAddr, Rkey),
    LocalInv(Rkey),
}

impl OwnedOp {
    /// Takes a request over. A reserved buffer must be one of ours.
    pub(super) fn new(op: SendOp<'_>) -> Result<Self, PostError> {
        Ok(match op {
            SendOp::Send { data, invalidate } => match data {
                SendData::Inline(bytes) => Self::Inline(bytes.to_vec(), invalidate),
                SendData::Buf { buf, len } => {
                    let block = Arc::clone(buf.keep()).downcast::<Block>();
                    let block = block.map_err(|_| PostError::LocalProtection)?;
                    if len > buf.mem().len() {
                        return Err(PostError::TooLarge);
                    }
                    Self::Buf(block, len, invalidate)
                }
                SendData::Sges(sges) => Self::Sges(SmallVec::from_slice(sges), invalidate),
            },
            SendOp::Read {
                local,
                remote,
                rkey,
            } => Self::Read(SmallVec::from_slice(local), remote, rkey),
            SendOp::Write {
                local,
                remote,
                rkey,
            } => Self::Write(SmallVec::from_slice(local), remote, rkey),
            SendOp::LocalInv { rkey } => Self::LocalInv(rkey),
        })
    }

    fn opcode(&self) -> WcOpcode {
        match self {
            Self::Inline(..) | Self::Buf(..) | Self::Sges(..) => WcOpcode::Send,
            Self::Read(..) => WcOpcode::Read,
            Self::Write(..) => WcOpcode::Write,
            Self::LocalInv(_) => WcOpcode::LocalInv,
        }
    }

    /// Bytes of the message, if it is one.
    fn message_len(&self) -> usize {
        match self {
            Self::Inline(bytes, _) => bytes.len(),
            Self::Buf(_, len, _) => *len,
            Self::Sges(sges, _) => sges.iter().map(|sge| sge.len).sum(),
            Self::Read(..) | Self::Write(..) | Self::LocalInv(_) => 0,
        }
    }

    /// Posts it below.
    fn post(&self, qp: &dyn QueuePair, wr_id: WrId, flags: SendFlags) -> Result<(), PostError> {
        let send = |data, invalidate: &Option<Rkey>| SendOp::Send {
            data,
            invalidate: *invalidate,
        };
        // Only here are the bytes of a reserved buffer taken.
        let taken;
        let op = match self {
            Self::Inline(bytes, invalidate) => send(SendData::Inline(bytes), invalidate),
            Self::Buf(block, len, invalidate) => {
                taken = block.bytes(*len);
                send(SendData::Inline(&taken), invalidate)
            }
            Self::Sges(sges, invalidate) => send(SendData::Sges(sges), invalidate),
            Self::Read(local, remote, rkey) => SendOp::Read {
                local,
                remote: *remote,
                rkey: *rkey,
            },
            Self::Write(local, remote, rkey) => SendOp::Write {
                local,
                remote: *remote,
                rkey: *rkey,
            },
            Self::LocalInv(rkey) => SendOp::LocalInv { rkey: *rkey },
        };
        qp.post_send(SendWr { wr_id, op, flags })
    }
}

#[derive(Debug)]
enum Stage {
    /// Not posted below yet.
    Held(OwnedOp),
    /// Posted below.
    Forwarded,
    /// Completed below, not handed out yet.
    Settled { status: WcStatus, byte_len: usize },
}

#[derive(Debug)]
struct Entry {
    wr_id: WrId,
    opcode: WcOpcode,
    flags: SendFlags,
    stage: Stage,
}

/// What became of forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Forwarded {
    /// As much as was asked for, or as there was.
    Done,
    /// The queue pair below is in error: what was held is flushed.
    Broken,
    /// A request was refused for what it asks. It has failed, and the queue pair below must be
    /// put into error.
    Refused,
}

/// Guarded by its queue pair's lock.
#[derive(Debug)]
pub(super) struct SendQueue {
    capacity: usize,
    entries: VecDeque<Entry>,
    /// Id of the first entry; ids below are consecutive, so an id is a place in the queue.
    first_id: u64,
    held: usize,
    in_flight: usize,
    failed: bool,
}

impl SendQueue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: VecDeque::new(),
            first_id: 0,
            held: 0,
            in_flight: 0,
            failed: false,
        }
    }

    /// Bytes of the messages held.
    pub(super) fn held_len(&self) -> usize {
        let held = self.entries.iter().map(|entry| match &entry.stage {
            Stage::Held(op) => op.message_len(),
            Stage::Forwarded | Stage::Settled { .. } => 0,
        });
        held.sum()
    }

    /// Whether a request may be posted.
    pub(super) fn check_room(&self) -> Result<(), PostError> {
        if self.failed {
            Err(PostError::WrongState)
        } else if self.entries.len() >= self.capacity {
            Err(PostError::QueueFull)
        } else {
            Ok(())
        }
    }

    /// Requests posted below whose completion has not come.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn next_id(&self) -> WrId {
        WrId(self.first_id + self.entries.len() as u64)
    }

    /// Keeps a request for later.
    pub(super) fn hold(&mut self, wr_id: WrId, flags: SendFlags, op: OwnedOp) {
        self.held += 1;
        self.entries.push_back(Entry {
            wr_id,
            opcode: op.opcode(),
            flags,
            stage: Stage::Held(op),
        });
    }

    /// Posts a request below at once. Refused, it leaves no trace.
    pub(super) fn pass<T>(
        &mut self,
        wr_id: WrId,
        flags: SendFlags,
        opcode: WcOpcode,
        post: impl FnOnce(WrId, SendFlags) -> Result<T, PostError>,
    ) -> Result<T, PostError> {
        let done = post(self.next_id(), flags | SendFlags::SIGNALED)?;
        self.in_flight += 1;
        self.entries.push_back(Entry {
            wr_id,
            opcode,
            flags,
            stage: Stage::Forwarded,
        });
        Ok(done)
    }

    /// As [`pass`](Self::pass), for a request kept whole.
    pub(super) fn pass_op(
        &mut self,
        qp: &dyn QueuePair,
        wr_id: WrId,
        flags: SendFlags,
        op: &OwnedOp,
    ) -> Result<(), PostError> {
        let opcode = op.opcode();
        self.pass(wr_id, flags, opcode, |id, flags| op.post(qp, id, flags))
    }

    /// Posts up to `count` held requests below, oldest first.
    pub(super) fn forward(&mut self, qp: &dyn QueuePair, count: usize) -> Forwarded {
        let mut left = count.min(self.held);
        let mut refusal = None;
        for (id, entry) in (self.first_id..).zip(&mut self.entries) {
            if left == 0 {
                break;
            }
            let Stage::Held(op) = &entry.stage else {
                continue;
            };
            if let Err(error) = op.post(qp, WrId(id), entry.flags | SendFlags::SIGNALED) {
                refusal = Some((error, entry));
                break;
            }
            entry.stage = Stage::Forwarded;
            self.in_flight += 1;
            self.held -= 1;
            left -= 1;
        }
        match refusal {
            None | Some((PostError::QueueFull | PostError::NoMemory, _)) => Forwarded::Done,
            Some((PostError::WrongState, _)) => {
                self.fail();
                Forwarded::Broken
            }
            // What a provider finds at posting, an adapter finds when it gets there.
            Some((
                PostError::LocalProtection | PostError::TooLarge | PostError::Unsupported,
                entry,
            )) => {
                entry.stage = Stage::Settled {
                    status: WcStatus::LocalProtection,
                    byte_len: 0,
                };
                self.fail();
                Forwarded::Refused
            }
        }
    }

    /// The queue pair is in error: what is still held will not be posted.
    pub(super) fn fail(&mut self) {
        self.failed = true;
        for entry in &mut self.entries {
            if matches!(entry.stage, Stage::Held(_)) {
                entry.stage = Stage::Settled {
                    status: WcStatus::Flushed,
                    byte_len: 0,
                };
            }
        }
        self.held = 0;
    }

    /// Takes a completion from below. False if no such request is under way.
    pub(super) fn settle(&mut self, wc: &WorkCompletion) -> bool {
        let place = wc.wr_id.0.checked_sub(self.first_id);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let entry = place.and_then(|place| self.entries.get_mut(place));
        let Some(entry) = entry.filter(|entry| matches!(entry.stage, Stage::Forwarded)) else {
            return false;
        };
        entry.stage = Stage::Settled {
            status: wc.status,
            byte_len: wc.byte_len,
        };
        self.in_flight -= 1;
        if wc.status.breaks() {
            self.fail();
        }
        true
    }

    /// How many entries at the front may be handed out: up to the last one that says something.
    fn releasable(&self) -> usize {
        let mut count = 0;
        for (place, entry) in self.entries.iter().enumerate() {
            let Stage::Settled { status, .. } = entry.stage else {
                break;
            };
            if entry.flags.contains(SendFlags::SIGNALED) || status != WcStatus::Success {
                count = place + 1;
            }
        }
        count
    }

    /// Whether a poll would move something on.
    pub(super) fn holds(&self) -> bool {
        self.held > 0 || self.releasable() > 0
    }

    /// Hands out what has settled, in the order posted.
    pub(super) fn release(&mut self, qp: QpNum, out: &mut VecDeque<WorkCompletion>) {
        let count = self.releasable();
        for entry in self.entries.drain(..count) {
            self.first_id += 1;
            let Stage::Settled { status, byte_len } = entry.stage else {
                continue;
            };
            if entry.flags.contains(SendFlags::SIGNALED) || status != WcStatus::Success {
                out.push_back(WorkCompletion {
                    wr_id: entry.wr_id,
                    status,
                    opcode: entry.opcode,
                    byte_len,
                    invalidated: None,
                    qp,
                });
            }
        }
    }
}
