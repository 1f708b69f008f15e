//! The receiving half: calls taking turns, bytes received, and the peer's adverts.
//!
//! In stream order there are: bytes in receive buffers and private memory (the queue), bytes of
//! the peer's adverts being read, the rest of the adverts. RDMA READs go straight into the memory of
//! the call whose turn it is if nothing is ahead of them, else into private memory.

mod adverts;
mod ahead;
mod at_once;
mod buffers;
mod call;
mod compact;
mod queue;
mod read;
mod sink;
mod urgent;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use sdp_wire::{BSDH_LEN, Flags, SrcAvail};

use crate::action::Action;
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::ids::{BufferId, JobId, MemId, WorkId};
use crate::mark::Mark;
use crate::mode::FlowMode;
use crate::time::Instant;
use crate::turns::Turns;

use adverts::Adverts;
use buffers::Buffers;
use call::RecvCall;
use compact::Compaction;
use queue::{Chunks, Queue, Taken};
use read::Read;
use sink::Offers;
use urgent::Urgent;

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Rx {
    calls: Turns<RecvCall>,
    queue: Queue,
    chunks: Chunks,
    buffers: Buffers,
    adverts: Adverts,
    offers: Offers,
    urgent: Urgent,
    /// RDMA READs outstanding, oldest first.
    reads: VecDeque<Read>,
    /// Bytes of them that go to private memory.
    reading_ahead: usize,
    compaction: Compaction,
    /// Private memory was refused; do not ask for more now.
    paused: bool,
}

impl Rx {
    /// `initial` buffers are posted by the caller.
    pub(crate) fn new(initial: u16, max: u16) -> Self {
        Self {
            calls: Turns::new(),
            queue: Queue::new(),
            chunks: Chunks::default(),
            buffers: Buffers::new(initial, max),
            adverts: Adverts::default(),
            offers: Offers::default(),
            urgent: Urgent::default(),
            reads: VecDeque::new(),
            reading_ahead: 0,
            compaction: Compaction::default(),
            paused: false,
        }
    }

    /// Bytes received and not yet taken, read-ahead under way included.
    fn held(&self) -> usize {
        self.queue.len() + self.reading_ahead
    }

    /// Bytes that a receive gets at once.
    pub(crate) fn readable_len(&self, sh: &Shared) -> usize {
        let adverts = if sh.config.read_nonblocking && !sh.life.is_over() {
            self.adverts.rest()
        } else {
            0
        };
        let queued = self.queued_len(sh);
        if queued < self.queue.len() && !self.at_mark() {
            return queued;
        }
        queued + adverts
    }

    /// The first bytes are on their way to private memory.
    pub(crate) fn is_moving_unread(&self) -> bool {
        self.queue.is_front_moving()
    }

    /// There are bytes that nobody has taken.
    pub(crate) fn has_unread(&self, sh: &Shared) -> bool {
        (self.held() > 0 && !self.is_spent(sh)) || self.adverts.has_unread()
    }

    /// An advert of the peer's is not finished.
    pub(crate) fn advert_open(&self) -> bool {
        !self.adverts.is_empty()
    }

    /// Adverts of the peer's that are not finished.
    pub(crate) fn adverts_open(&self) -> usize {
        self.adverts.len()
    }

    /// A read of the peer's memory is under way.
    pub(crate) fn is_reading(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Nothing of the queue pair's is in use: what was received lies in private memory.
    pub(crate) fn is_empty(&self) -> bool {
        self.adverts.is_empty()
            && self.reads.is_empty()
            && self.queue.buffers() == 0
            && !self.compaction.is_running()
            && !self.offers.is_some()
    }

    /// There is a new queue pair, on which `initial` buffers are posted by the caller.
    pub(crate) fn begin_anew(&mut self, initial: u16, max: u16) {
        debug_assert!(self.is_empty(), "moved with something under way");
        self.buffers = Buffers::new(initial, max);
        self.adverts.clear();
        self.offers.begin_anew();
        self.compaction = Compaction::default();
    }

    /// An answer to an advert waits for a credit.
    #[inline]
    pub(crate) fn owes_answers(&self) -> bool {
        self.adverts.owe_answers()
    }

    /// The peer takes its adverts back.
    pub(crate) fn on_cancel(&mut self, sh: &mut Shared) {
        if self.adverts.len() > 1 {
            sh.reached(Mark::SeveralCancelled);
        }
        if !self.reads.is_empty() {
            sh.reached(Mark::CancelDuringRead);
        }
        self.adverts.on_cancel(sh);
        sh.wake.recv = true;
    }

    /// The application receives no more: a call that waits must end.
    pub(crate) fn shut(&mut self, sh: &mut Shared, now: Instant) {
        self.cancel_sink(sh, now);
        sh.wake.recv = true;
    }

    /// A call is receiving, other than one that only looks.
    fn has_reader(&self) -> bool {
        self.calls.head().is_some_and(|(_, call)| call.is_reader())
    }

    /// A message without payload came in `buf`.
    pub(crate) fn on_control(&mut self, sh: &Shared, buf: BufferId) {
        self.buffers.put(buf);
        if sh.modes.tx == FlowMode::Pipelined {
            // Each of several adverts is answered.
            self.buffers.grow(sh.credits.known());
        }
    }

    /// A Data came (clause §4.3).
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_data(
        &mut self,
        sh: &mut Shared,
        buf: BufferId,
        flags: Flags,
        len: u32,
    ) -> Result<(), ConnectionError> {
        if len == 0 {
            self.buffers.put(buf);
            self.on_nudge();
            return Ok(());
        }
        self.adverts.on_data(len)?;
        self.take_payload(sh, buf, BSDH_LEN, len);
        self.on_urgent_flags(sh, buf, flags, len);
        Ok(())
    }

    /// A SinkAvail came with `len` bytes of payload: a command and room for its reply (clause
    /// §4.5). The payload is of the half this side receives on, the room of the other.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_transaction(
        &mut self,
        sh: &mut Shared,
        buf: BufferId,
        head_len: usize,
        len: u32,
    ) -> Result<(), ConnectionError> {
        if len == 0 {
            self.on_control(sh, buf);
            return Ok(());
        }
        self.adverts.on_data(len)?;
        self.take_payload(sh, buf, head_len, len);
        Ok(())
    }

    /// Payload outside of adverts.
    fn take_payload(&mut self, sh: &mut Shared, buf: BufferId, head_len: usize, len: u32) {
        sh.stats.rx_bytes_bcopy += u64::from(len);
        self.count_payload(sh, len);
        self.on_payload(sh, buf, head_len, len);
    }

    /// A SrcAvail came with `inline` bytes (clause §4.4).
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_src_avail(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        buf: BufferId,
        advert: SrcAvail,
        inline: u32,
    ) -> Result<(), ConnectionError> {
        if self.adverts.is_cancelled() {
            return Shared::misbehaved("§4.8 step 1: SrcAvail before its cancel was answered");
        }
        match sh.modes.rx {
            FlowMode::Buffered => {
                return Shared::misbehaved("§4.2: SrcAvail in Buffered mode");
            }
            FlowMode::Combined if !self.adverts.is_empty() => {
                return Shared::misbehaved("§4.2: a second source advert in Combined mode");
            }
            FlowMode::Combined if inline == 0 => {
                return Shared::misbehaved("§4.2: SrcAvail without payload in Combined mode");
            }
            FlowMode::Combined if inline == advert.len => {
                return Shared::misbehaved("§4.4 row 1: SrcAvail with nothing left to read");
            }
            FlowMode::Pipelined if inline > 0 => {
                return Shared::misbehaved("§4.2: SrcAvail with payload in Pipelined mode");
            }
            FlowMode::Pipelined if self.adverts.len() >= usize::from(sh.config.adverts_max) => {
                return Shared::misbehaved("§4.2: more adverts than MaxAdverts");
            }
            FlowMode::Combined | FlowMode::Pipelined => {}
        }
        if self.offers.is_out() {
            // Its sender will find our offer in its way: write beats read (§4.7).
            debug_assert_eq!(inline, 0, "an offer is out in Pipelined mode only");
            sh.reached(Mark::AdvertDiscarded);
            self.buffers.put(buf);
            return Ok(());
        }
        self.withdraw_sink(sh);
        self.offers.on_large(sh, advert.len);
        self.adverts.forgive(sh);
        self.adverts.push(advert, inline, now);
        sh.stats.rx_bytes_inline += u64::from(inline);
        if inline == 0 {
            self.buffers.put(buf);
            self.buffers.grow(sh.credits.known());
            sh.wake.recv = true;
        } else {
            let head_len = sdp_wire::Body::SrcAvail(advert).head_len();
            self.count_payload(sh, sh.config.recv_buffer_len);
            self.on_payload(sh, buf, head_len, inline);
        }
        Ok(())
    }

    fn on_payload(&mut self, sh: &mut Shared, buf: BufferId, head_len: usize, len: u32) {
        let offset = u32::try_from(head_len).unwrap_or(u32::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.queue.push_buffer(buf, offset, len);
        self.buffers.grow(sh.credits.known());
        sh.wake.recv = true;
    }

    /// Each buffer holds `times` as much from now on.
    pub(crate) fn need_fewer(&mut self, times: u32) {
        self.buffers.need_fewer(times);
    }

    /// The peer needs few buffers from now on.
    pub(crate) fn shrink(&mut self) {
        self.buffers.shrink();
    }

    /// Moves on whatever can.
    pub(crate) fn pump(&mut self, sh: &mut Shared, now: Instant) {
        if !self.adverts.is_empty() {
            self.adverts.begun_max = self.buffers.begun_max(sh);
        }
        self.read_ahead_unread(sh);
        if !self.adverts.is_empty() {
            let flags = self.report_flags(sh);
            let open = self.adverts.len();
            self.adverts.flush(sh, self.reads.is_empty(), flags);
            if self.adverts.len() < open && self.adverts.rest() > 0 {
                // Others may be begun in their place.
                sh.wake.recv = true;
                self.read_ahead_unread(sh);
            }
        }
        self.flush_sink(sh);
        if self.adverts.is_empty() {
            self.trim(sh);
        }
        self.compact(sh, now);
        if !sh.suspend.is_silent() {
            self.buffers.post(sh, self.held());
        }
        self.set_ahead_timer(sh, now);
    }

    /// Takes `len` bytes from the queue.
    pub(crate) fn take(&mut self, sh: &mut Shared, len: usize) {
        self.urgent.on_taken(len);
        self.compaction.was_read = true;
        match self.queue.take(len) {
            Taken::Part => {}
            Taken::Buffer(buf) => self.buffers.put(buf),
            Taken::Mem(mem, len) => self.release(sh, mem, len),
        }
    }

    /// Bytes of private memory are not needed any more. The last piece is kept while an advert is
    /// open, for the next read-ahead.
    fn release(&mut self, sh: &mut Shared, mem: MemId, len: usize) {
        let keep = !self.adverts.is_empty() && !sh.life.is_over();
        if let Some(mem) = self.chunks.release(mem, len, keep) {
            sh.out.push(Action::FreeMem(mem));
        }
    }

    /// Frees pieces of private memory that hold nothing.
    fn trim(&mut self, sh: &mut Shared) {
        while let Some(mem) = self.chunks.trim() {
            sh.out.push(Action::FreeMem(mem));
        }
    }

    /// A receive came back in error, or a buffer will not be posted.
    pub(crate) fn on_unposted(&mut self, sh: &mut Shared, buf: BufferId) {
        self.buffers.on_unposted(sh);
        self.buffers.put(buf);
    }

    /// The driver could not allocate `buf`.
    pub(crate) fn on_unavailable(&mut self, sh: &mut Shared, now: Instant, buf: BufferId) {
        self.buffers.on_unavailable(sh, now, buf);
    }

    /// Memory may be there again.
    pub(crate) fn on_retry(&mut self) {
        self.paused = false;
        self.buffers.on_retry();
    }

    /// The connection is over. What was received stays for its readers. `reads` and `jobs` were
    /// queued and never begun.
    pub(crate) fn on_over(&mut self, sh: &mut Shared, reads: &[WorkId], jobs: &[JobId]) {
        self.adverts.clear();
        self.drop_sink(sh);
        for read in core::mem::take(&mut self.reads) {
            // No completion follows for one that was answered before its turn.
            if reads.contains(&read.work) || read.is_answered() {
                self.forget_read(sh, &read);
            } else {
                self.reads.push_back(read);
            }
        }
        for job in jobs {
            self.end_move(sh, *job, false);
        }
        self.trim(sh);
        sh.wake.recv = true;
        if sh.life.app_closed {
            self.let_go(sh);
        }
    }

    /// The application has let go of what was received: it is freed, but for what a copy or a
    /// read under way still needs.
    pub(crate) fn let_go(&mut self, sh: &mut Shared) {
        let copying = self.calls.head().is_some_and(|(_, call)| call.is_copying());
        if copying || self.compaction.is_running() {
            return;
        }
        self.queue.clear();
        self.urgent.clear();
        let busy: Vec<MemId> = self.reads.iter().filter_map(Read::mem).collect();
        for mem in self.chunks.clear(&busy) {
            sh.out.push(Action::FreeMem(mem));
        }
    }
}
