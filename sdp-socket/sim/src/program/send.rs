//! Sending.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use sdp_socket::{SdpBuffer, SdpStream, SendFlags};

use super::Stall;
use crate::judge::SHUTDOWN;
use crate::oracle::{URGENT, fill_pattern};
use crate::plan::{How, Op, Weather};

/// Nanoseconds before an urgent send that could not be made is made again.
const TRY_AGAIN_AFTER: u64 = 500_000_000;

impl Stall {
    pub(super) fn send_all(&self, stream: &SdpStream, ops: &[Op]) {
        for op in ops {
            if self.quits() {
                return;
            }
            match op {
                Op::Sleep(time) => self.sleep(*time),
                Op::Send(len, how) => {
                    if !self.send(stream, *len, *how) {
                        return;
                    }
                }
                Op::Urgent(len) => {
                    if !self.send_urgent(stream, *len) {
                        return;
                    }
                }
                Op::Recv(..) | Op::Move => {}
            }
        }
        let left = {
            let mut book = self.book.borrow_mut();
            let way = &mut book.ways[self.side];
            way.senders -= 1;
            way.senders
        };
        if left == 0 {
            let shut = || stream.shutdown(Shutdown::Write);
            if let Err(error) = self.bench.while_acting(self.side, SHUTDOWN, shut) {
                self.note_send_error(&error);
            }
        }
    }

    /// A send with an urgent byte at its end. False: there will be no more.
    fn send_urgent(&self, stream: &SdpStream, len: usize) -> bool {
        loop {
            match self.try_send_urgent(stream, len) {
                Ok(()) => return true,
                // The write time-out is the other threads', too.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) =>
                {
                    self.sleep(TRY_AGAIN_AFTER);
                }
                Err(error) => {
                    self.note_send_error(&error);
                    return false;
                }
            }
        }
    }

    fn try_send_urgent(&self, stream: &SdpStream, len: usize) -> io::Result<()> {
        let mut memory = vec![0; len];
        let (plain, last) = memory.split_at_mut(len.saturating_sub(1));
        last.fill(URGENT);
        let plain_len = plain.len();
        let id = {
            let way = &mut self.book.borrow_mut().ways[self.side];
            way.urgents.begun += 1;
            way.begin(plain_len)
        };
        fill_pattern(self.side, id, 0, plain);
        let sent = stream.send_urgent(&memory);
        self.is_own_again(&mut memory);
        self.book.borrow_mut().calls += 1;
        let count = *sent.as_ref().unwrap_or(&0);
        if count > len || (sent.is_ok() && count == 0) {
            self.violation(format!(
                "counts: {count} bytes of {len}, the last one urgent"
            ));
        }
        self.note_count(id, count.min(plain_len), plain_len);
        let urgents = &mut self.book.borrow_mut().ways[self.side].urgents;
        if count == len {
            urgents.accepted += 1;
        } else if self.plan.weather != Weather::Stormy {
            // It ended before the urgent byte.
            urgents.begun -= 1;
        }
        sent.map(|_| ())
    }

    pub(super) fn note_send_error(&self, error: &io::Error) {
        let mut book = self.book.borrow_mut();
        let text = book.note_error(self.side, "sending", error);
        book.ways[self.side].send_error = Some(text);
    }

    /// One send call. False: there will be no more.
    fn send(&self, stream: &SdpStream, len: usize, how: How) -> bool {
        let limit = match how {
            How::Limited(limit) => Some(limit),
            _ => None,
        };
        if let Err(error) = stream.set_write_timeout(limit.map(Duration::from_nanos)) {
            self.violation(format!("options: a write time-out: {error}"));
        }
        let began = self.now();
        let nonblocking = how == How::Nonblocking;
        let flags = SendFlags { nonblocking };
        let registered = match how {
            How::Registered => SdpBuffer::with_context(&self.context, len).ok(),
            _ => None,
        };
        // From here to the call nobody else runs: calls take their turns in this order.
        let id = self.book.borrow_mut().ways[self.side].begin(len);
        let result = if let Some(mut buffer) = registered {
            fill_pattern(self.side, id, 0, &mut buffer[..len]);
            let result = stream.send_with(&[IoSlice::new(&buffer[..len])], flags);
            self.is_own_again(&mut buffer[..len]);
            result
        } else {
            let mut memory = vec![0; len];
            fill_pattern(self.side, id, 0, &mut memory);
            let cuts = match how {
                How::Vectored => [len / 3, len / 2],
                _ => [len, len],
            };
            let (first, rest) = memory.split_at(cuts[0]);
            let (second, third) = rest.split_at(cuts[1] - cuts[0]);
            let all = [first, second, third].map(IoSlice::new);
            let result = stream.send_with(&all, flags);
            self.is_own_again(&mut memory);
            result
        };
        self.in_time("send", began, limit);
        self.sent(result, id, len, how)
    }

    fn sent(&self, result: io::Result<usize>, id: u64, len: usize, how: How) -> bool {
        self.book.borrow_mut().calls += 1;
        let (bounded, signals) = (
            matches!(how, How::Nonblocking | How::Limited(_)),
            self.own().signal_every != 0,
        );
        let count = match result {
            Ok(count) => count,
            Err(error) => {
                let may = match error.kind() {
                    ErrorKind::WouldBlock => bounded,
                    ErrorKind::Interrupted => signals,
                    _ => false,
                };
                if !may {
                    self.note_send_error(&error);
                }
                let who = self.side as u64;
                self.fabric.note("send failed", who, [len as u64, 0]);
                self.note_count(id, 0, len);
                return may;
            }
        };
        self.fabric
            .note("sent", self.side as u64, [len as u64, count as u64]);
        let sound = self.plan.weather != Weather::Stormy;
        if count > len || (sound && !bounded && !signals && count != len) {
            self.violation(format!(
                "counts: a send of {len} by side {} ({how:?}) returned {count}",
                self.side
            ));
        }
        self.note_count(id, count, len);
        self.book.borrow_mut().check_room(&self.plan, self.side);
        true
    }

    /// A send of `len` has returned `count`. If the connection broke, more may arrive.
    fn note_count(&self, id: u64, count: usize, len: usize) {
        let most = match self.plan.weather {
            Weather::Stormy => len,
            _ => count,
        };
        let mut book = self.book.borrow_mut();
        if let Err(wrong) = book.ways[self.side].returned(id, count, most) {
            book.violation(wrong);
        }
    }
}
