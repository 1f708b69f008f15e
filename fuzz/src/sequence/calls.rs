//! The program's calls.

use sdp_core::{
    CallId, CopyReason, CopyTarget, EndCall, RecvId, RecvRequest, RecvStep, SendId, SendRequest,
    SendStep,
};

use super::{Bytes, World};

/// Calls of each kind in progress at once.
const CALLS_MAX: usize = 6;

impl World {
    pub(super) fn start_send(&mut self, input: &mut Bytes<'_>) {
        if self.sends.len() >= CALLS_MAX {
            return;
        }
        let len = input.len() as usize % 40_000;
        let request = SendRequest {
            len,
            segment_ends: [len / 3, len].into_iter().collect(),
            nonblocking: input.flag(),
            urgent: len % 7 == 3,
            registered: len & 1 == 1,
            copy_reason: (len & 15 == 15).then_some(CopyReason::MemoryUnreachable),
        };
        let id = self.conn.send_start(self.instant(), request);
        self.sends.push(id);
        self.lens.push((CallId::Send(id), len));
        self.poll_send(id, 0xff);
    }

    pub(super) fn start_recv(&mut self, input: &mut Bytes<'_>) {
        if self.recvs.len() >= CALLS_MAX {
            return;
        }
        let (len, manner) = (input.len() as usize % 60_000, input.u8());
        let request = RecvRequest {
            len,
            segment_ends: [len / 2, len].into_iter().collect(),
            nonblocking: manner & 1 != 0,
            peek: manner & 6 == 6,
            wait_all: manner & 24 == 24,
            copy_reason: (manner & 0xe0 == 0xe0).then_some(CopyReason::MemoryUnreachable),
        };
        let id = self.conn.recv_start(self.instant(), request);
        self.recvs.push(id);
        self.lens.push((CallId::Recv(id), len));
        self.poll_recv(id, 0xff);
    }

    pub(super) fn poll_calls(&mut self, input: &mut Bytes<'_>) {
        let manner = input.u8();
        for id in self.sends.clone() {
            self.poll_send(id, manner);
        }
        for id in self.recvs.clone() {
            self.poll_recv(id, manner);
        }
    }

    /// Carries a send on until it waits or ends.
    fn poll_send(&mut self, id: SendId, manner: u8) {
        for _ in 0..1_000 {
            let step = self.conn.send_poll(self.instant(), id);
            self.drain();
            match step {
                SendStep::Copy { len, to, .. } => self.copied(id, len, to, manner),
                SendStep::Wait => return,
                SendStep::Done(_) => {
                    self.sends.retain(|other| *other != id);
                    self.lens.retain(|(other, _)| *other != CallId::Send(id));
                    return;
                }
            }
            self.drain();
        }
        panic!("a send copies for ever");
    }

    fn copied(&mut self, id: SendId, len: usize, to: CopyTarget, manner: u8) {
        let now = self.instant();
        match manner {
            0 => self.conn.send_copy_failed(now, id, to),
            1 => self.conn.send_copied(now, id, len / 2, to),
            _ => self.conn.send_copied(now, id, len, to),
        }
    }

    fn poll_recv(&mut self, id: RecvId, manner: u8) {
        for _ in 0..1_000 {
            let step = self.conn.recv_poll(self.instant(), id);
            self.drain();
            match step {
                RecvStep::Copy { len, .. } => {
                    let len = if manner == 2 { len / 2 } else { len };
                    self.conn.recv_copied(self.instant(), id, len);
                }
                RecvStep::Wait => return,
                RecvStep::Done(_) => {
                    self.recvs.retain(|other| *other != id);
                    self.lens.retain(|(other, _)| *other != CallId::Recv(id));
                    return;
                }
            }
            self.drain();
        }
        panic!("a receive copies for ever");
    }

    pub(super) fn end_call(&mut self, input: &mut Bytes<'_>) {
        let (at, now) = (usize::from(input.u8()), self.instant());
        let why = if at & 8 == 0 {
            EndCall::TimedOut
        } else {
            EndCall::Interrupted
        };
        if let Some(id) = self.sends.get(at & 3) {
            self.conn.send_end(now, *id, why);
        }
        if let Some(id) = self.recvs.get(at >> 2 & 1) {
            self.conn.recv_end(now, *id, why);
        }
    }
}
