//! Bytes count, not messages: unread bytes are moved out of receive buffers when nobody reads
//! them and the peer is running out of credits. A program that polls is in no call when that happens:
//! who has read within `rendezvous_wait`, or 2 ms, reads, and what is moved for it is copied once more
//! for nothing.

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::action::{Action, CopyJob, CopyWhat};
use crate::connection::Shared;
use crate::ids::{JobId, MemId};
use crate::time::Instant;
use crate::timer::Timer;

use super::Rx;

/// Credits, and receives posted, below which buffers are emptied: the peer cannot send payload.
const CREDITS_MIN: u32 = 3;
/// How long a reader is waited for at most: a sender may wait for one for ever (`rendezvous_wait`),
/// what fits SO_RCVBUF may not.
const READ_ON: Duration = Duration::from_millis(2);
/// Copies asked for at a time.
const JOBS_MAX: usize = 4;

/// A run of bytes on its way to private memory.
#[derive(Clone, Copy, Debug)]
struct Move {
    job: JobId,
    mem: MemId,
    at: usize,
    len: usize,
}

/// The emptying of buffers.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    moves: Vec<Move>,
    /// Goes on until enough receives are posted again.
    active: bool,
    /// Bytes were taken since the last look.
    pub(super) was_read: bool,
    /// When the last were taken, as the next look found.
    read_at: Option<Instant>,
}

impl Compaction {
    pub(super) fn is_running(&self) -> bool {
        !self.moves.is_empty()
    }
}

impl Rx {
    /// Starts copies if there is need.
    pub(super) fn compact(&mut self, sh: &mut Shared, now: Instant) {
        if mem::take(&mut self.compaction.was_read) {
            self.compaction.read_at = Some(now);
        }
        if sh.suspend.empties_buffers() {
            return self.empty_buffers(sh);
        }
        if self.queue.buffers() == 0 || self.buffers.is_full(sh, self.held()) {
            self.compaction.active = false;
            return;
        }
        let poor = sh.credits.known() < CREDITS_MIN || sh.credits.posted() < CREDITS_MIN;
        if !poor && !self.compaction.active {
            return;
        }
        if self.is_full(sh) || self.paused || (self.has_reader() && !self.waits_at_mark()) {
            return;
        }
        if !self.compaction.active && self.is_read(sh, now) {
            return;
        }
        self.compaction.active = true;
        self.start_moves(sh);
    }

    /// Somebody has read a moment ago, and a look is taken later whether it goes on.
    fn is_read(&self, sh: &mut Shared, now: Instant) -> bool {
        let wait = sh.config.rendezvous_wait.min(READ_ON);
        let read = self
            .compaction
            .read_at
            .is_some_and(|at| now.since(at) < wait);
        if read {
            sh.timers.set_once(Timer::Unread, now, wait);
        }
        read
    }

    /// Enough is unread. But a peer that is asked to move needs a credit to answer with, and it may
    /// take one to ask.
    pub(super) fn is_full(&self, sh: &Shared) -> bool {
        let moves = sh.suspend.is_asking() || sh.asks_by_last_credit();
        self.held() >= sh.recv_buffer_total() && !moves
    }

    /// Every buffer is emptied, whoever waits, but for the one that a caller copies from.
    fn empty_buffers(&mut self, sh: &mut Shared) {
        let copying = self.calls.head().is_some_and(|(_, call)| call.is_copying());
        if !copying && !self.paused {
            self.start_moves(sh);
        }
    }

    fn start_moves(&mut self, sh: &mut Shared) {
        while self.compaction.moves.len() < JOBS_MAX {
            let Some((index, buf, offset, len)) = self.queue.movable() else {
                return;
            };
            let room = self.chunks.reserve(len, sh.chunk_len());
            let job = sh.next_job();
            self.queue.move_begins(index, job);
            self.compaction.moves.push(Move {
                job,
                mem: room.mem,
                at: room.at,
                len,
            });
            sh.out.push(Action::Copy(CopyJob {
                id: job,
                what: CopyWhat::Compact {
                    buf,
                    offset,
                    len: u32::try_from(len).unwrap_or(u32::MAX),
                    mem: room.mem,
                    at: room.at,
                    capacity: room.capacity,
                },
            }));
        }
    }

    /// A copy has ended.
    pub(crate) fn on_copied(&mut self, sh: &mut Shared, now: Instant, job: JobId, ok: bool) {
        if !ok {
            self.paused = true;
            sh.timers.set_once(Timer::Retry, now, crate::RETRY_WAIT);
        }
        self.end_move(sh, job, ok);
        if sh.life.is_over() && sh.life.app_closed {
            self.let_go(sh);
        }
    }

    /// The bytes of `job` lie in private memory now, or stay where they were.
    pub(super) fn end_move(&mut self, sh: &mut Shared, job: JobId, ok: bool) {
        let moves = &mut self.compaction.moves;
        let Some(index) = moves.iter().position(|running| running.job == job) else {
            return;
        };
        let Move { mem, at, len, .. } = moves.swap_remove(index);
        let to = ok.then_some((mem, at));
        let freed = self.queue.move_ends(job, to);
        match (ok, freed) {
            (true, Some((buf, _))) => self.buffers.put(buf),
            _ => self.release(sh, mem, len),
        }
        self.drop_moved_urgent(sh);
        sh.wake.recv = true;
    }
}
