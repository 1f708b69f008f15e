//! Read ZCopy, sink side (clause §4.4): the peer's advert, the reads from it, and its end.

use sdp_wire::{RemoteAddr, Rkey, SrcAvail};

use crate::action::{Action, ReadInto};
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::event::Completion;
use crate::ids::{MemId, RecvId, WorkId};
use crate::time::Instant;
use crate::timer::Timer;

use super::Rx;

/// Why no more is read from an advert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// The peer has cancelled it (§4.8).
    Cancelled,
    /// Its memory cannot be read; the peer is to send the bytes (§4.4 row 9).
    Refused,
    /// Our memory could not be written; reading starts again where it failed.
    Rewind,
}

/// The peer's open advert.
#[derive(Debug)]
pub(super) struct SinkAdvert {
    rkey: Rkey,
    addr: RemoteAddr,
    len: u32,
    /// Offset of the first byte that no read has been posted for.
    next: u32,
    /// Offset of the first byte that has not been read.
    done: u32,
    pub(super) stop: Option<Stop>,
    /// A read has failed; those behind it do not count.
    broken: bool,
    /// Nobody receives: read ahead as far as memory goes.
    pub(super) eager: bool,
    /// Arrival, or last movement.
    pub(super) moved_at: Instant,
}

impl SinkAdvert {
    pub(super) fn new(advert: SrcAvail, inline: u32, now: Instant) -> Self {
        Self {
            rkey: advert.rkey,
            addr: advert.addr,
            len: advert.len,
            next: inline,
            done: inline,
            stop: None,
            broken: false,
            eager: false,
            moved_at: now,
        }
    }

    /// Bytes that no read has been posted for.
    pub(super) fn rest(&self) -> usize {
        match self.stop {
            None => usize::try_from(self.len - self.next).unwrap_or(usize::MAX),
            Some(_) => 0,
        }
    }
}

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
    len: u32,
    target: Target,
}

impl Read {
    fn len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
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
    pub(super) fn read_direct(&mut self, sh: &mut Shared, now: Instant, id: RecvId) -> bool {
        let Some((_, call)) = self.calls.head() else {
            return false;
        };
        let rest = self.advert.as_ref().map_or(0, SinkAdvert::rest);
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
            let advert_rest = self.advert.as_ref().map_or(0, SinkAdvert::rest);
            let len = call.segment_rest().min(advert_rest);
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let len = len.min(sh.config.advert_len_max.max(1));
            if len == 0 {
                break;
            }
            let at = call.got + call.reading;
            call.reading += usize::try_from(len).unwrap_or(usize::MAX);
            let into = ReadInto::Call { call: id, at };
            self.post_read(sh, now, len, into, Target::Call(id.0));
        }
        self.calls.head().is_some_and(|(_, call)| call.reading > 0)
    }

    /// Posts a read of `len` bytes into private memory.
    pub(super) fn read_into_mem(&mut self, sh: &mut Shared, now: Instant, len: u32) {
        let wide = usize::try_from(len).unwrap_or(usize::MAX);
        let room = self.chunks.reserve(wide, sh.chunk_len());
        self.reading_ahead += wide;
        let into = ReadInto::Mem {
            mem: room.mem,
            at: room.at,
            capacity: room.capacity,
        };
        self.post_read(sh, now, len, into, Target::Mem(room.mem, room.at));
    }

    fn post_read(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        len: u32,
        into: ReadInto,
        target: Target,
    ) {
        let Some(advert) = &mut self.advert else {
            return;
        };
        let remote = RemoteAddr(advert.addr.0 + u64::from(advert.next));
        let rkey = advert.rkey;
        advert.next += len;
        advert.moved_at = now;
        let work = sh.out.push_signalled(|work| Action::RdmaRead {
            work,
            remote,
            rkey,
            into,
            len,
        });
        self.reads.push_back(Read { work, len, target });
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
        if self.reads.front().is_none_or(|read| read.work != work) {
            return Ok(false);
        }
        let Some(read) = self.reads.pop_front() else {
            return Ok(false);
        };
        sh.wake.recv = true;
        let good = result == Completion::Success;
        match &mut self.advert {
            // Bytes behind a failed read are read again, so that there is no hole.
            Some(advert) if good && !advert.broken => {
                advert.done += read.len;
                advert.moved_at = now;
                self.on_read(sh, &read);
            }
            _ => self.forget_read(sh, &read),
        }
        if sh.life.is_over() {
            if sh.life.app_closed {
                self.let_go(sh);
            }
            return Ok(true);
        }
        if let Some(error) = self.on_read_failed(sh, now, &read, result) {
            return Err(error);
        }
        self.finish_advert(sh);
        Ok(true)
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
        let Some(advert) = &self.advert else {
            return;
        };
        let may_invalidate =
            sh.config.invalidate_cap && sh.peer.is_some_and(|peer| peer.invalidate_cap);
        let finished = advert.done == advert.len;
        let invalidate = (finished && may_invalidate).then_some(advert.rkey);
        sh.control.report_read(read.len, invalidate);
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
        let advert = self.advert.as_mut()?;
        advert.broken |= result != Completion::Success;
        match result {
            Completion::Success => None,
            Completion::RemoteFault => {
                advert.stop.get_or_insert(Stop::Refused);
                None
            }
            Completion::LocalFault => {
                advert.stop.get_or_insert(Stop::Rewind);
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
            Completion::RemoteAccess => Some(ConnectionError::PeerMisbehaved(
                "§4.4 row 2: the advertised memory is out of reach",
            )),
            Completion::Flushed => Some(ConnectionError::Reset),
            Completion::TransportFailed(why) => Some(ConnectionError::Transport(why)),
        }
    }

    /// The peer takes its advert back (§4.8 steps 2 to 4).
    pub(crate) fn on_cancel(&mut self, sh: &mut Shared) {
        let Some(advert) = &mut self.advert else {
            return;
        };
        // A refusal under way is answered as such: the peer then owes the rest as Data.
        if advert.stop != Some(Stop::Refused) {
            advert.stop = Some(Stop::Cancelled);
            sh.credits.hold_ack();
        }
        self.finish_advert(sh);
    }

    /// Ends the advert if all of it was read, or if it was stopped and no read is under way.
    fn finish_advert(&mut self, sh: &mut Shared) {
        let Some(advert) = &mut self.advert else {
            return;
        };
        let complete = advert.done == advert.len;
        if !complete && (advert.stop.is_none() || !self.reads.is_empty()) {
            return;
        }
        let stop = advert.stop;
        if !complete && stop == Some(Stop::Rewind) {
            advert.stop = None;
            advert.broken = false;
            advert.next = advert.done;
            return;
        }
        if !complete {
            sh.control.send_sm();
        }
        if stop == Some(Stop::Cancelled) {
            sh.control.answers_cancel();
        }
        self.advert = None;
        self.trim(sh);
        sh.wake.recv = true;
    }
}
