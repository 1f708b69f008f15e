//! A peer that sends anything at any time, an adapter that fails at will, and a program that does
//! anything in any order: no panic, no endless loop, nothing posted after the end, and every call
//! ends with the connection.

use std::collections::VecDeque;
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;
use sdp_wire::{Body, ModeChange, RemoteAddr, Rkey, ServiceId, SinkAvail, SrcAvail};

use super::util::lone::{Lone, rkey};
use crate::{
    Action, CmInput, Completion, Config, EndCall, KeyId, ReadInto, RecvId, RecvRequest, RecvStep,
    SendId, SendStep, WorkId, ZcopyThreshold,
};

/// A step of the play: what, and a number to choose with.
type Beat = (u8, u32);

fn body(n: u32) -> Body {
    let small = n >> 8;
    let advert = SrcAvail {
        len: small % 100_000 + 1,
        rkey: Rkey(n),
        addr: RemoteAddr(u64::from(n)),
    };
    match n % 24 {
        0 => Body::DisConn,
        1 => Body::AbortConn,
        2 => Body::SendSm,
        3 => Body::RdmaWrCompl { len: small },
        4..=6 => Body::RdmaRdCompl {
            len: small % 20_000,
        },
        7 => Body::ModeChange(ModeChange::ALL[small as usize % 4]),
        8 | 9 => Body::SrcAvailCancel,
        10 => Body::SinkAvailCancel,
        11 => Body::SinkCancelAck,
        12 => Body::ChRcvBuf { size: small },
        13 => Body::ChRcvBufAck { size: small },
        14 => Body::SuspComm {
            service_id: ServiceId::from_raw(u64::from(n)),
        },
        15 => Body::SuspCommAck,
        16 => Body::SinkAvail(SinkAvail {
            len: advert.len,
            rkey: advert.rkey,
            addr: advert.addr,
            non_discards: n,
        }),
        17..=19 => Body::SrcAvail(advert),
        _ => Body::Data,
    }
}

/// One play.
#[derive(Debug)]
struct Play {
    lone: Lone,
    sends: Vec<SendId>,
    recvs: Vec<RecvId>,
    works: Vec<(WorkId, Option<ReadInto>)>,
    /// Death has been seen, and all that was posted before.
    over: bool,
    /// Bytes of the engine's open adverts not yet reported.
    adverts: VecDeque<u32>,
    /// This peer has made its sending half Pipelined.
    pipelined: bool,
    /// The peer's own advert is open.
    own: bool,
    /// The last message of the engine's.
    unseen: u32,
    /// The last MSeq it was given a credit for.
    limit: u32,
}

impl Play {
    /// A message that fits what this peer knows: a rude one would end most plays early.
    fn fitting(&mut self, n: u32) -> (Body, u32) {
        let payload = if n.is_multiple_of(7) {
            n % 7_000
        } else {
            n % 100
        };
        match (n % 8, self.adverts.front().copied()) {
            (0..=2, Some(rest)) => {
                let len = if n.is_multiple_of(5) {
                    rest
                } else {
                    n % (rest + 1)
                };
                self.adverts.pop_front();
                if len < rest {
                    self.adverts.push_front(rest - len);
                }
                (Body::RdmaRdCompl { len }, 0)
            }
            (3, Some(_)) => {
                self.adverts.pop_front();
                (Body::SendSm, 0)
            }
            (4, _) if self.own => (Body::SrcAvailCancel, 0),
            (4, _) if !self.pipelined => {
                self.pipelined = true;
                (Body::ModeChange(ModeChange::RecvPipelined), 0)
            }
            (4..=6, _) if self.pipelined => {
                let (len, rkey) = (n % 90_000 + 200, Rkey(n));
                let addr = RemoteAddr(u64::from(n));
                (Body::SrcAvail(SrcAvail { len, rkey, addr }), 0)
            }
            (4..=6, _) if !self.own && self.limit >= self.lone.mseq + 2 => {
                self.own = true;
                let (len, rkey) = (n % 90_000 + 200, Rkey(n));
                let addr = RemoteAddr(u64::from(n));
                (
                    Body::SrcAvail(SrcAvail { len, rkey, addr }),
                    payload % 150 + 1,
                )
            }
            (7, _) => (Body::ChRcvBuf { size: 4_096 }, 0),
            _ if self.own || self.limit < self.lone.mseq + 2 => (Body::Data, 0),
            _ => (Body::Data, payload),
        }
    }

    fn beat(&mut self, (kind, n): Beat) {
        match kind % 16 {
            0..=4 => self.message(n),
            5 => self.garbage(n),
            6 | 7 => self.complete(n),
            8 => {
                let (id, step) = self.lone.send(n as usize % 40_000);
                self.sends.push(id);
                self.settle_send(id, step, n);
            }
            9 => {
                let id = self.start_recv(n);
                self.recvs.push(id);
            }
            10 | 11 => self.poll_all(n),
            12 => self.lone.pass(u64::from(n) % 2_000_000),
            13 => self.end_one(n),
            14 => self.manage(n),
            _ => self.finish(n),
        }
        self.look();
    }

    fn message(&mut self, n: u32) {
        let rude = n.is_multiple_of(61);
        if self.lone.posted.is_empty() || (!rude && self.lone.mseq > self.limit) {
            return;
        }
        if n.is_multiple_of(3) {
            self.lone.seen = self.unseen;
        }
        self.lone.bufs = [8, 8, 8, 3, 20][n as usize % 5];
        let (body, payload) = if rude {
            (body(n), n % 3_000)
        } else {
            self.fitting(n >> 3)
        };
        let mut head = self.lone.next_head(body, payload);
        match n % 597 {
            0 => head.mseq = n,
            1 => head.mseq_ack = n,
            _ => self.lone.mseq = self.lone.mseq.wrapping_add(1),
        }
        if !head.body.takes_payload() && !n.is_multiple_of(89) {
            head.payload_len = 0;
        }
        let invalidated = match n % 331 {
            0 => Some(Rkey(n)),
            1..=3 => Some(rkey(KeyId(1 + n % 3))),
            _ => None,
        };
        self.lone.peer_head(head, invalidated);
    }

    /// What the engine has sent tells the peer what it may send.
    fn learn(&mut self) {
        for (head, _) in self.lone.sent.drain(..).collect::<Vec<_>>() {
            if let Body::SrcAvail(advert) = head.body {
                self.adverts.push_back(advert.len - head.payload_len);
            }
            if head.body == Body::SrcAvailCancel {
                self.adverts.truncate(1);
            }
            self.unseen = head.mseq;
            self.limit = self.limit.max(head.mseq_ack + u32::from(head.bufs));
        }
        self.own = self.lone.conn.advert_open();
    }

    fn garbage(&mut self, n: u32) {
        if !self.lone.posted.is_empty() && n.is_multiple_of(13) {
            let bytes = n.to_be_bytes().repeat(10);
            let len = n as usize % 40;
            self.lone.peer_bytes(&bytes[..len.min(36)], len, None);
        }
    }

    fn complete(&mut self, n: u32) {
        if self.works.is_empty() {
            return;
        }
        let (work, read) = self.works.remove(0);
        let result = match n % 211 {
            0 => Completion::TransportFailed("retries ran out"),
            1 => Completion::Flushed,
            2 if read.is_some() => Completion::RemoteAccess,
            3 | 4 if read.is_some() => Completion::RemoteFault,
            5 if read.is_some() => Completion::LocalFault,
            _ => Completion::Success,
        };
        self.lone.complete(work, result);
    }

    fn start_recv(&mut self, n: u32) -> RecvId {
        let len = (n >> 4) as usize % 60_000;
        let request = RecvRequest {
            len,
            segment_ends: [len / 2, len].into_iter().collect(),
            nonblocking: n.is_multiple_of(5),
            peek: n.is_multiple_of(7),
            wait_all: n.is_multiple_of(3),
            copy_reason: None,
        };
        self.lone.conn.recv_start(self.lone.instant(), request)
    }

    /// Carries a send on until it waits or ends.
    fn settle_send(&mut self, id: SendId, mut step: SendStep, n: u32) {
        for _ in 0..1_000 {
            match step {
                SendStep::Copy { len, to, .. } => {
                    let now = self.lone.instant();
                    match n % 50 {
                        0 => self.lone.conn.send_copy_failed(now, id, to),
                        1 => self.lone.conn.send_copied(now, id, len / 2, to),
                        _ => self.lone.conn.send_copied(now, id, len, to),
                    }
                    self.lone.drain();
                }
                SendStep::Wait => return,
                SendStep::Done(_) => return self.sends.retain(|other| *other != id),
            }
            step = self.lone.poll_send(id);
        }
        panic!("a send copies for ever");
    }

    fn settle_recv(&mut self, id: RecvId, n: u32) {
        for _ in 0..1_000 {
            match self.lone.poll_recv(id) {
                RecvStep::Copy { len, .. } => {
                    let len = if n.is_multiple_of(41) { len / 2 } else { len };
                    self.lone.conn.recv_copied(self.lone.instant(), id, len);
                    self.lone.drain();
                }
                RecvStep::Wait => return,
                RecvStep::Done(_) => return self.recvs.retain(|other| *other != id),
            }
        }
        panic!("a receive copies for ever");
    }

    fn poll_all(&mut self, n: u32) {
        for id in self.sends.clone() {
            let step = self.lone.poll_send(id);
            self.settle_send(id, step, n);
        }
        for id in self.recvs.clone() {
            self.settle_recv(id, n);
        }
    }

    fn end_one(&mut self, n: u32) {
        let now = self.lone.instant();
        if let Some(id) = self.sends.get(n as usize % 4) {
            self.lone.conn.send_end(now, *id, EndCall::TimedOut);
        }
        if let Some(id) = self.recvs.get(n as usize % 4) {
            self.lone.conn.recv_end(now, *id, EndCall::Interrupted);
        }
        self.lone.drain();
    }

    fn manage(&mut self, n: u32) {
        let now = self.lone.instant();
        match n % 40 {
            0 => self.lone.conn.handle_cm(now, CmInput::Disconnected),
            1 => self.lone.conn.handle_cm(now, CmInput::Established),
            2 => self.lone.conn.handle_cm(now, CmInput::Response(&[1, 2, 3])),
            3 => self.lone.conn.shutdown_send(now),
            4 => self.lone.conn.shutdown_recv(now),
            5 => self.lone.conn.set_recv_buffer_total(n as usize % 1_000_000),
            6 => self.lone.conn.set_send_buffer_len(n as usize % 1_000_000),
            8 | 9 => self.lone.conn.set_memory_scarce(now, n.is_multiple_of(2)),
            7 if !self.lone.posted.is_empty() => {
                let buf = self.lone.posted.remove(0);
                self.lone.conn.handle_recv_flushed(now, buf);
            }
            _ => {}
        }
        self.lone.drain();
    }

    fn finish(&mut self, n: u32) {
        let now = self.lone.instant();
        match n % 60 {
            0 => self.lone.conn.close(now, None),
            1 => self
                .lone
                .conn
                .close(now, Some(core::time::Duration::from_micros(10))),
            2 => self.lone.conn.abort(now),
            _ => {}
        }
        self.lone.drain();
    }

    /// Takes in what the engine did.
    fn look(&mut self) {
        if self.over {
            let posts = self.lone.actions.iter().any(|action| {
                matches!(
                    action,
                    Action::RdmaRead { .. }
                        | Action::RdmaWrite { .. }
                        | Action::InvalidateKey { .. }
                )
            });
            assert!(!posts && self.lone.sent.is_empty(), "posted after the end");
        }
        self.learn();
        for action in self.lone.actions.drain(..) {
            match action {
                Action::RdmaRead { work, into, .. } => self.works.push((work, Some(into))),
                Action::RdmaWrite { work, .. } | Action::InvalidateKey { work, .. } => {
                    self.works.push((work, None))
                }
                _ => {}
            }
        }
        self.works
            .extend(self.lone.works.drain(..).map(|work| (work, None)));
        self.works.sort_by_key(|(work, _)| work.0);
        if self.lone.conn.is_closed() && !self.over {
            self.over = true;
            self.lone.sent.clear();
        }
        while self.lone.conn.poll_event().is_some() {}
    }

    /// After the end, with all work flushed, no call is left waiting.
    fn end(&mut self) {
        self.lone.conn.abort(self.lone.instant());
        self.lone.drain();
        for _ in 0..3 {
            self.lone.pass(1_000_000_000_000);
            self.look();
            for (work, _) in core::mem::take(&mut self.works) {
                self.lone.complete(work, Completion::Flushed);
            }
        }
        assert!(self.lone.conn.is_closed());
        for _ in 0..4 {
            self.poll_all(3);
        }
        assert!(
            self.sends.is_empty() && self.recvs.is_empty(),
            "a call waits for ever: {self:?}"
        );
        assert_eq!(self.lone.conn.poll_timeout(), None);
    }
}

fn play(config: Config, confirmed: bool, beats: Vec<Beat>) {
    let lone = if confirmed {
        Lone::new(config)
    } else {
        Lone::accepted(config)
    };
    let mut play = Play {
        lone,
        sends: Vec::new(),
        recvs: Vec::new(),
        works: Vec::new(),
        over: false,
        adverts: VecDeque::new(),
        pipelined: false,
        own: false,
        unseen: 0,
        limit: 4,
    };
    play.look();
    for beat in beats {
        play.beat(beat);
    }
    play.end();
}

proptest! {
    #![proptest_config(super::random::cases())]

    #[test]
    fn anything_goes(
        beats in vec(any::<Beat>(), 0..250),
        confirmed in any::<bool>(),
        max in 4..12_u16,
    ) {
        let config = Config {
            zcopy_threshold: ZcopyThreshold::Bytes(4_000),
            send_buffer_len: 20_000,
            recv_buffer_total: 50_000,
            recv_buffer_len: 8_000,
            recv_buffers_max: max,
            read_ahead_len: 10_000,
            send_slots: 16,
            ..Config::default()
        };
        play(config, confirmed, beats);
    }
}
