//! Receiving.

use std::io::{self, ErrorKind, IoSliceMut};
use std::time::Duration;

use sdp_socket::{RecvFlags, SdpBuffer, SdpStream};
use sdp_verbs::sim::Fault;

use super::Stall;
use crate::plan::{ABSENT_MIN, How, Op};

/// Bytes around memory that is received into.
const GUARD: usize = 16;
const GUARD_BYTE: u8 = 0xC7;

impl Stall {
    pub(super) fn receive_all(&self, stream: &SdpStream) {
        for op in &self.own().recvs {
            if self.quits() {
                return;
            }
            match op {
                Op::Sleep(time) => self.lets_wait(*time),
                Op::Recv(len, how) => {
                    if !self.receive(stream, *len, *how) {
                        return;
                    }
                }
                Op::Send(..) | Op::Urgent(_) | Op::Move => {}
            }
        }
        while !self.quits() && self.receive(stream, self.own().last_recv_len, How::Plain) {}
    }

    /// Receives nothing for a time.
    fn lets_wait(&self, time: u64) {
        self.fabric.happened(match time {
            ABSENT_MIN.. => Fault::ReaderAbsent,
            _ => Fault::ReaderSlow,
        });
        self.sleep(time);
    }

    /// One receive call. False: there will be no more.
    fn receive(&self, stream: &SdpStream, len: usize, how: How) -> bool {
        let limit = match how {
            How::Limited(limit) => Some(limit),
            _ => None,
        };
        if let Err(error) = stream.set_read_timeout(limit.map(Duration::from_nanos)) {
            self.violation(format!("options: a read time-out: {error}"));
        }
        self.receiving(len);
        let began = self.now();
        let flags = RecvFlags {
            nonblocking: how == How::Nonblocking,
            peek: how == How::Peek,
            wait_all: how == How::WaitAll,
        };
        let registered = match how {
            How::Registered => SdpBuffer::with_context(&self.context, len).ok(),
            _ => None,
        };
        let goes_on = if let Some(mut buffer) = registered {
            let memory = &mut buffer[..len];
            let result = stream.recv_with(&mut [IoSliceMut::new(memory)], flags);
            let goes_on = self.received(result, memory, how);
            self.is_own_again(memory);
            goes_on
        } else {
            let mut whole = vec![GUARD_BYTE; len + 2 * GUARD];
            let memory = &mut whole[GUARD..GUARD + len];
            let cut = if how == How::Vectored { len / 3 } else { len };
            let (first, second) = memory.split_at_mut(cut);
            let mut all = [first, second].map(IoSliceMut::new);
            let result = stream.recv_with(&mut all, flags);
            let goes_on = self.received(result, memory, how);
            self.is_own_again(memory);
            self.check_guard(&whole);
            goes_on
        };
        if goes_on {
            self.look_at_mark(stream);
        }
        self.receiving(0);
        self.in_time("receive", began, limit);
        goes_on
    }

    /// A receive with so much room begins, or has ended.
    fn receiving(&self, room: usize) {
        let mut book = self.book.borrow_mut();
        let way = &mut book.ways[1 - self.side];
        way.receiving = room as u64;
        self.bench.judge().receives(self.side, room, way.received);
    }

    fn check_guard(&self, whole: &[u8]) {
        let (front, back) = (&whole[..GUARD], &whole[whole.len() - GUARD..]);
        if front.iter().chain(back).any(|byte| *byte != GUARD_BYTE) {
            self.violation(format!(
                "memory: a receive of side {} wrote beside its memory",
                self.side
            ));
        }
    }

    fn received(&self, result: io::Result<usize>, memory: &[u8], how: How) -> bool {
        let mut book = self.book.borrow_mut();
        book.calls += 1;
        let (side, len) = (self.side, memory.len());
        let count = match result {
            Ok(count) => count,
            Err(error) => {
                let may = match error.kind() {
                    ErrorKind::WouldBlock => matches!(how, How::Nonblocking | How::Limited(_)),
                    ErrorKind::Interrupted => self.own().signal_every != 0,
                    _ => false,
                };
                if !may {
                    let text = book.note_error(side, "receiving", &error);
                    book.ways[1 - side].recv_error = Some(text);
                }
                self.fabric
                    .note("receive failed", side as u64, [len as u64, 0]);
                return may;
            }
        };
        self.fabric
            .note("received", side as u64, [len as u64, count as u64]);
        if count > len {
            book.violation(format!(
                "counts: a receive of {len} by side {side} gave {count}"
            ));
            return false;
        }
        book.check_bytes(side, &memory[..count], how == How::Peek);
        if how == How::Peek {
            // A look at the end leaves an urgent byte before it, which a receive passes over.
            return true;
        }
        if count == 0 {
            book.ways[1 - side].ended = true;
        }
        count > 0
    }

    /// At the mark the urgent byte is there to be received out of band, once.
    fn look_at_mark(&self, stream: &SdpStream) {
        if !stream.at_mark().unwrap_or(false) {
            return;
        }
        let found = stream.recv_urgent();
        if !self.book.borrow().ways[1 - self.side]
            .urgents
            .may_find(&found)
        {
            self.violation(format!("mark: side {} found {found:?} there", self.side));
        }
    }
}
