//! Receive calls.

use crate::call::{EndCall, RecvRequest, RecvStep};
use crate::connection::Shared;
use crate::error::CallError;
use crate::ids::RecvId;
use crate::stats::CopyReason;
use crate::time::Instant;

use super::Rx;

/// A receive call in progress.
#[derive(Debug)]
pub(super) struct RecvCall {
    pub(super) req: RecvRequest,
    /// Bytes with which it may return without waiting for more: SO_RCVLOWAT, or all.
    pub(super) enough: usize,
    /// Bytes delivered.
    pub(super) got: usize,
    /// Bytes that RDMA READs under way will deliver.
    pub(super) reading: usize,
    /// The copy the caller is making.
    copying: Option<usize>,
    end: Option<EndCall>,
    /// Keys of this call's memory that are alive.
    pub(super) keys: usize,
    /// Its memory cannot be offered to the peer, for this reason.
    pub(super) sink_failed: Option<CopyReason>,
    /// Looking: bytes of the queue passed over, which is an urgent one at most.
    pub(super) passed: usize,
    /// It found nothing when it looked.
    pub(super) waited: bool,
    /// The caller's memory could not be written.
    pub(super) fault: bool,
}

impl RecvCall {
    /// Takes bytes out of the stream, now or when some come.
    pub(super) const fn is_reader(&self) -> bool {
        !self.req.peek || self.copying.is_some()
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) const fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Bytes wanted that nothing is on its way to.
    pub(super) const fn rest(&self) -> usize {
        self.req.len - self.got - self.reading
    }

    /// Bytes from the next wanted one to the end of its contiguous piece of memory.
    pub(super) fn segment_rest(&self) -> usize {
        let pos = self.got + self.reading;
        let ends = &self.req.segment_ends;
        let end = ends.iter().copied().find(|end| *end > pos);
        end.unwrap_or(self.req.len).min(self.req.len) - pos
    }

    /// What it has will do.
    pub(super) const fn has_enough(&self) -> bool {
        self.got >= self.enough
    }

    /// The count so far, or `error` if there is none.
    fn count_or(&self, error: CallError) -> RecvStep {
        RecvStep::Done(match self.got {
            0 => Err(error),
            got => Ok(got),
        })
    }

    /// Nothing more can be had without waiting for the peer.
    fn give_up(&self) -> Option<RecvStep> {
        if let Some(why) = self.end {
            return Some(self.count_or(why.error()));
        }
        if self.req.nonblocking {
            return Some(self.count_or(CallError::WouldBlock));
        }
        self.has_enough().then_some(RecvStep::Done(Ok(self.got)))
    }
}

impl Rx {
    /// Takes a turn for a receive.
    pub(crate) fn start(&mut self, sh: &Shared, req: RecvRequest) -> RecvId {
        let enough = if req.wait_all {
            req.len
        } else {
            sh.config.recv_low_water.min(req.len)
        };
        let call = RecvCall {
            enough,
            got: 0,
            reading: 0,
            copying: None,
            end: None,
            keys: 0,
            sink_failed: None,
            passed: 0,
            waited: false,
            fault: false,
            req,
        };
        RecvId(self.calls.push(call))
    }

    /// What call `id` needs next.
    pub(crate) fn step(&mut self, sh: &mut Shared, now: Instant, id: RecvId) -> RecvStep {
        let step = if self.calls.is_head(id.0) {
            self.step_head(sh, id)
        } else {
            self.step_waiting(id)
        };
        if let RecvStep::Done(_) = step {
            self.forget(sh, now, id);
        }
        step
    }

    fn forget(&mut self, sh: &mut Shared, now: Instant, id: RecvId) {
        let removed = self.calls.remove(id.0);
        assert!(
            removed.is_none_or(|call| call.reading == 0 && (call.keys == 0 || sh.out.error_set())),
            "a call ends with a read into its memory under way or a key of it alive"
        );
        if !self.calls.is_empty() {
            sh.wake.recv = true;
        }
        self.set_ahead_timer(sh, now);
    }

    /// A call behind others: it can only end.
    fn step_waiting(&mut self, id: RecvId) -> RecvStep {
        match self.calls.get_mut(id.0) {
            None => RecvStep::Done(Err(CallError::NotConnected)),
            Some(call) => match call.end {
                Some(why) => RecvStep::Done(Err(why.error())),
                None if call.req.nonblocking => RecvStep::Done(Err(CallError::WouldBlock)),
                None => RecvStep::Wait,
            },
        }
    }

    fn step_head(&mut self, sh: &mut Shared, id: RecvId) -> RecvStep {
        let Some(call) = self.calls.head_mut() else {
            return RecvStep::Wait;
        };
        if call.copying.is_some() || call.reading > 0 {
            return RecvStep::Wait;
        }
        // What the peer may still write to is left alone.
        if call.keys > 0 && !sh.out.error_set() {
            return RecvStep::Wait;
        }
        if call.fault {
            return call.count_or(CallError::Fault);
        }
        if call.got == call.req.len {
            return RecvStep::Done(Ok(call.got));
        }
        let from = if call.req.peek {
            call.got + call.passed
        } else {
            0
        };
        let to_mark = self.urgent.mark().and_then(|mark| mark.checked_sub(from));
        if to_mark == Some(0) {
            if call.got > 0 {
                return RecvStep::Done(Ok(call.got));
            }
            if !sh.config.oob_inline && call.passed == 0 {
                return self.step_at_urgent(sh, id);
            }
        }
        match self.queue.run_at(from) {
            Some(Ok((from, len))) => {
                let upto = to_mark.filter(|len| *len > 0).unwrap_or(len);
                let (at, len) = (call.got, len.min(call.rest()).min(upto));
                call.copying = Some(len);
                return RecvStep::Copy { from, at, len };
            }
            // It is being moved to private memory, which takes no longer than a copy.
            Some(Err(())) => return RecvStep::Wait,
            None => {}
        }
        self.step_dry(sh, id)
    }

    /// The call begins at an urgent byte, which is not for it. While there is nothing behind it, not
    /// even the end, the byte stays for a receive out of band.
    fn step_at_urgent(&mut self, sh: &mut Shared, id: RecvId) -> RecvStep {
        if self.queue.is_front_moving() {
            return RecvStep::Wait;
        }
        let ended = sh.life.peer_fin || sh.life.is_over();
        if self.queue.len() == 1 && !self.adverts.has_unread() && !ended {
            return self.step_dry(sh, id);
        }
        match self.calls.head_mut() {
            Some(call) if call.req.peek => call.passed = 1,
            _ => self.pass_urgent(sh),
        }
        self.step_head(sh, id)
    }

    /// All that was received has been delivered.
    fn step_dry(&mut self, sh: &mut Shared, id: RecvId) -> RecvStep {
        let ended = sh.life.peer_fin && self.adverts.is_empty();
        let Some(call) = self.calls.head_mut() else {
            return RecvStep::Wait;
        };
        if sh.life.is_over() && call.got == 0 && self.reading_ahead == 0 {
            return RecvStep::Done(sh.life.call_error(Ok(0)));
        }
        let over = sh.life.is_over() || sh.life.rx_shut || ended;
        if over && self.reading_ahead == 0 {
            return RecvStep::Done(Ok(call.got));
        }
        let ended = call.end.is_some();
        if !ended && !over && self.adverts.has_unread() {
            self.step_advert(sh, id)
        } else if let Some(done) = call.give_up() {
            done
        } else {
            call.waited |= call.got == 0;
            self.offer(sh);
            RecvStep::Wait
        }
    }

    /// The peer offers bytes to be read.
    fn step_advert(&mut self, sh: &mut Shared, id: RecvId) -> RecvStep {
        if self.read_direct(sh, id) {
            return RecvStep::Wait;
        }
        let held = self.held();
        let Some(call) = self.calls.head_mut() else {
            return RecvStep::Wait;
        };
        // What has bytes does not wait for a read-ahead.
        if call.has_enough() {
            return RecvStep::Done(Ok(call.got));
        }
        let got = call.got;
        let nonblocking = call.req.nonblocking && !sh.config.read_nonblocking;
        let full = call.req.peek && held >= sh.recv_buffer_total();
        let reason = if call.req.peek {
            CopyReason::Peek
        } else {
            CopyReason::SmallReceive
        };
        if full && got > 0 {
            return RecvStep::Done(Ok(got));
        }
        if self.reading_ahead == 0 {
            self.read_ahead(sh, reason);
        }
        match self.calls.head_mut() {
            Some(call) if nonblocking => call.count_or(CallError::WouldBlock),
            _ => RecvStep::Wait,
        }
    }

    /// The caller has copied.
    pub(crate) fn copied(&mut self, sh: &mut Shared, id: RecvId, len: usize) {
        let Some(call) = self.calls.get_mut(id.0) else {
            return;
        };
        let asked = call.copying.take().unwrap_or(0);
        assert!(len <= asked, "more copied than there was");
        call.got += len;
        call.fault |= len < asked;
        if !call.req.peek {
            self.take(sh, len);
        }
        if sh.life.is_over() && sh.life.app_closed {
            self.let_go(sh);
        }
    }

    /// Bytes delivered to call `id` so far.
    pub(crate) fn delivered(&self, id: RecvId) -> usize {
        self.calls.get(id.0).map_or(0, |call| call.got)
    }

    /// Call `id` must end.
    pub(crate) fn end(&mut self, sh: &mut Shared, now: Instant, id: RecvId, why: EndCall) {
        let head = self.calls.is_head(id.0);
        if let Some(call) = self.calls.get_mut(id.0) {
            call.end.get_or_insert(why);
            if head {
                self.cancel_sink(sh, now);
            }
        }
    }
}
