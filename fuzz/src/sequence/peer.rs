//! What the peer sends, in order or not.

use sdp_core::{BufferId, Received};
use sdp_wire::{
    Body, Flags, HEAD_LEN_MAX, Head, ModeChange, RemoteAddr, Rkey, ServiceId, SinkAvail, SrcAvail,
};

use super::{BUFS, Bytes, World};

impl World {
    /// A message that may be in order or not.
    pub(super) fn peer(&mut self, input: &mut Bytes<'_>) {
        let Some(buf) = self.posted.pop_front() else {
            return;
        };
        let (kind, manner) = (input.u8(), input.u8());
        let body = body(kind, input);
        let mut payload_len = match body {
            Body::Data | Body::SrcAvail(_) | Body::SinkAvail(_) => input.len() % 8_000,
            _ => 0,
        };
        if manner & 0xe0 == 0xe0 {
            payload_len = input.len();
        }
        if manner & 1 == 0 {
            self.seen = self.sent;
        }
        let bufs = match manner >> 1 & 3 {
            0 => 3,
            1 | 2 => BUFS,
            _ => input.u16() % 100,
        };
        let head = Head {
            flags: if manner & 8 == 0 {
                Flags::empty()
            } else {
                Flags::from_bits_truncate(input.u8())
            },
            bufs,
            mseq: if manner & 0xf0 == 0x90 {
                input.u32()
            } else {
                self.mseq
            },
            mseq_ack: if manner & 0xf0 == 0xa0 {
                input.u32()
            } else {
                self.seen
            },
            body,
            payload_len: payload_len & 0x7fff_ffff,
        };
        let mut bytes = [0; HEAD_LEN_MAX];
        head.encode(&mut bytes);
        let invalidated = (manner & 0xf0 == 0xb0).then(|| Rkey(0x700 + u32::from(input.u8() & 3)));
        self.receive(buf, &bytes, head.len() as usize, invalidated);
    }

    pub(super) fn garbage(&mut self, input: &mut Bytes<'_>) {
        let Some(buf) = self.posted.pop_front() else {
            return;
        };
        let mut bytes = [0; HEAD_LEN_MAX];
        let len = usize::from(input.u8()) % 48;
        for byte in bytes.iter_mut().take(len) {
            *byte = input.u8();
        }
        self.receive(buf, &bytes, len, None);
    }

    fn receive(&mut self, buf: BufferId, bytes: &[u8], len: usize, invalidated: Option<Rkey>) {
        // Only what the engine takes gives credits; what it refuses ends the connection.
        if let Ok(head) = Head::decode(bytes, len) {
            self.mseq = self.mseq.wrapping_add(1);
            self.limit = head.mseq_ack.wrapping_add(u32::from(head.bufs));
        }
        self.hears();
        let message = Received {
            head: bytes,
            len,
            invalidated,
        };
        self.conn.handle_recv(self.instant(), buf, message);
    }
}

fn body(kind: u8, input: &mut Bytes<'_>) -> Body {
    let advert = |input: &mut Bytes<'_>| SrcAvail {
        len: input.len() % 100_000 + 1,
        rkey: Rkey(input.u32()),
        addr: RemoteAddr(u64::from(input.u16()) << 12),
    };
    match kind % 24 {
        0 => Body::DisConn,
        1 => Body::AbortConn,
        2 => Body::SendSm,
        3 => Body::RdmaWrCompl { len: input.len() },
        4..=6 => Body::RdmaRdCompl { len: input.len() },
        7 => Body::ModeChange(ModeChange::ALL[usize::from(input.u8()) % 4]),
        8 | 9 => Body::SrcAvailCancel,
        10 => Body::SinkAvailCancel,
        11 => Body::SinkCancelAck,
        12 => Body::ChRcvBuf { size: input.len() },
        13 => Body::ChRcvBufAck { size: input.len() },
        14 => Body::SuspComm {
            service_id: ServiceId::from_raw(u64::from(input.u32())),
        },
        15 => Body::SuspCommAck,
        16 => {
            let SrcAvail { len, rkey, addr } = advert(input);
            // Mostly the number that makes the offer a good one.
            let non_discards = match input.u8() {
                0..=199 => 0,
                _ => input.len(),
            };
            Body::SinkAvail(SinkAvail {
                len,
                rkey,
                addr,
                non_discards,
            })
        }
        17..=19 => Body::SrcAvail(advert(input)),
        _ => Body::Data,
    }
}
