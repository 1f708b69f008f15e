//! Read ZCopy, sink side (clause §4.4): the reads from the peer's adverts.

use crate::action::{Action, ReadInto};
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::event::Completion;
use crate::ids::{MemId, RecvId, WorkId};
use crate::mark::Mark;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::Rx;
use super::adverts::{Piece, Stop};

/// Where a read's bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Call(u32),
    Mem(MemId, usize),
}

/// An RDMA READ outstanding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) work: WorkId,
    advert: u32,
    len: u32,
    target: Target,
    /// It was not posted; told before those in front of it had ended.
    unposted: Option<Completion>,
}

impl Read {
    fn len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// It was told that it was not posted.
    pub(super) const fn is_answered(&self) -> bool {
        self.unposted.is_some()
    }

    /// The private memory it writes to.
    pub(super) const fn mem(&self) -> Option<MemId> {
        match self.target {
            Target::Mem(mem, _) => Some(mem),
            Target::Call(_) => None,
        }
    }
}

impl Rx {
    /// One more read may be posted.
    pub(super) fn can_read(&self, sh: &Shared) -> bool {
        let depth = usize::try_from(sh.config.read_depth).unwrap_or(usize::MAX);
        self.reads.len() < depth.max(1) && sh.out.has_slot()
    }

    /// Posts reads straight into the head call's memory, if that is worth it and nothing is ahead
    /// of them. Says whether any is under way.
    pub(super) fn read_direct(&mut self, sh: &mut Shared, id: RecvId) -> bool {
        let Some((_, call)) = self.calls.head() else {
            return false;
        };
        let rest = self.adverts.rest();
        let worth = call.rest() >= sh.config.read_direct_min.min(rest);
        let may_wait = !call.req.nonblocking || sh.config.read_nonblocking;
        let allowed = !call.req.peek && call.req.copy_reason.is_none();
        if rest == 0 || !worth || !may_wait || !allowed || self.held() > 0 {
            return false;
        }
        while self.can_read(sh) {
            let Some(call) = self.calls.head_mut() else {
                break;
            };
            let len = u32::try_from(call.segment_rest()).unwrap_or(u32::MAX);
            let Some(piece) = self.adverts.take(len.min(sh.config.advert_len_max.max(1))) else {
                break;
            };
            let at = call.got + call.reading;
            call.reading += usize::try_from(piece.len).unwrap_or(usize::MAX);
            let into = ReadInto::Call { call: id, at };
            self.post_read(sh, piece, into, Target::Call(id.0));
        }
        self.calls.head().is_some_and(|(_, call)| call.reading > 0)
    }

    /// Posts a read of at most `len_max` bytes into private memory. Gives the number.
    pub(super) fn read_into_mem(&mut self, sh: &mut Shared, len_max: u32) -> Option<usize> {
        let piece = self.adverts.take(len_max)?;
        let len = usize::try_from(piece.len).unwrap_or(usize::MAX);
        let room = self.chunks.reserve(len, sh.chunk_len());
        self.reading_ahead += len;
        let into = ReadInto::Mem {
            mem: room.mem,
            at: room.at,
            capacity: room.capacity,
        };
        self.post_read(sh, piece, into, Target::Mem(room.mem, room.at));
        Some(len)
    }

    fn post_read(&mut self, sh: &mut Shared, piece: Piece, into: ReadInto, target: Target) {
        let Piece {
            advert,
            rkey,
            remote,
            len,
        } = piece;
        let work = sh.out.push_signalled(|work| Action::RdmaRead {
            work,
            remote,
            rkey,
            into,
            len,
        });
        if self.reads.back().is_some_and(|last| last.advert != advert) {
            sh.reached(Mark::ReadsAcrossAdverts);
        }
        if mutant!(ReadReportedEarly) {
            self.adverts.on_read(advert, len, self.adverts.moved_at);
        }
        self.reads.push_back(Read {
            work,
            advert,
            len,
            target,
            unposted: None,
        });
    }

    /// A work request has ended. Says whether it was a read.
    ///
    /// # Errors
    /// A failure that ends the connection.
    pub(crate) fn on_completion(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        work: WorkId,
        result: Completion,
    ) -> Result<bool, ConnectionError> {
        let Some(place) = self.reads.iter().position(|read| read.work == work) else {
            return Ok(false);
        };
        if let Some(read) = self.reads.get_mut(place).filter(|_| place > 0) {
            // Those that were posted complete in order, so this one was not. Its turn comes.
            read.unposted = Some(result);
            return Ok(true);
        }
        self.on_first_read(sh, now, result)?;
        while let Some(result) = self.reads.front().and_then(|read| read.unposted) {
            self.on_first_read(sh, now, result)?;
        }
        Ok(true)
    }

    /// The oldest read has ended.
    fn on_first_read(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        result: Completion,
    ) -> Result<(), ConnectionError> {
        let Some(read) = self.reads.pop_front() else {
            return Ok(());
        };
        sh.wake.recv = true;
        // Bytes behind a failed read are read again, so that there is no hole.
        let good = result == Completion::Success;
        let early = mutant!(ReadReportedEarly);
        if good && (early || self.adverts.on_read(read.advert, read.len, now)) {
            self.on_read(sh, &read);
        } else {
            self.forget_read(sh, &read);
        }
        if sh.life.is_over() {
            if sh.life.app_closed {
                self.let_go(sh);
            }
            return Ok(());
        }
        if let Some(error) = self.on_read_failed(sh, now, &read, result) {
            return Err(error);
        }
        if self.reads.is_empty() {
            self.adverts.on_quiet();
        }
        Ok(())
    }

    /// A read was good and all before it were.
    fn on_read(&mut self, sh: &mut Shared, read: &Read) {
        match read.target {
            Target::Call(id) => {
                sh.stats.rx_bytes_zcopy += u64::from(read.len);
                if let Some(call) = self.calls.get_mut(id) {
                    call.reading -= read.len();
                    call.got += read.len();
                }
            }
            Target::Mem(mem, at) => {
                sh.stats.rx_bytes_read_ahead += u64::from(read.len);
                self.reading_ahead -= read.len();
                self.queue.push_mem(mem, at, read.len());
            }
        }
    }

    /// A read did not, or must not, count.
    pub(super) fn forget_read(&mut self, sh: &mut Shared, read: &Read) {
        match read.target {
            Target::Call(id) => {
                if let Some(call) = self.calls.get_mut(id) {
                    call.reading -= read.len();
                }
            }
            Target::Mem(mem, _) => {
                self.reading_ahead -= read.len();
                self.release(sh, mem, read.len());
            }
        }
    }

    fn on_read_failed(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        read: &Read,
        result: Completion,
    ) -> Option<ConnectionError> {
        match result {
            Completion::Success => None,
            Completion::RemoteFault if sh.is_version_1() => {
                // Such a peer takes SendSm for the answer to a cancel only: it would wait for ever.
                Some(ConnectionError::PeerMisbehaved(
                    "§4.4 row 2: the advertised memory cannot be read",
                ))
            }
            Completion::NoMemory if sh.is_version_1() => {
                // It cannot be asked to send the bytes: they are read when there is memory again.
                self.adverts.on_failed(Stop::Rewind);
                if let Target::Call(id) = read.target
                    && let Some(call) = self.calls.get_mut(id)
                {
                    call.req.copy_reason = Some(CopyReason::BindFailed);
                }
                self.paused = true;
                sh.timers.set_once(Timer::Retry, now, crate::RETRY_WAIT);
                None
            }
            Completion::RemoteFault | Completion::NoMemory => {
                self.adverts.on_failed(Stop::Refused);
                None
            }
            Completion::LocalFault => {
                self.adverts.on_failed(Stop::Rewind);
                match read.target {
                    Target::Call(id) => {
                        if let Some(call) = self.calls.get_mut(id) {
                            call.fault = true;
                        }
                    }
                    Target::Mem(..) => {
                        self.paused = true;
                        sh.timers.set_once(Timer::Retry, now, crate::RETRY_WAIT);
                    }
                }
                None
            }
            Completion::RemoteAccess => Some(ConnectionError::MemoryGone("§4.4 row 2")),
            Completion::Flushed => Some(ConnectionError::Reset),
            Completion::Unanswered => Some(ConnectionError::SILENT),
            Completion::TransportFailed(why) => Some(ConnectionError::Transport(why)),
        }
    }
}
