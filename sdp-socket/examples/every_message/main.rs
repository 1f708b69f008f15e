//! Two ends that send every message there is, both ways, captured: what `cargo xtask
//! capture-check` lets tshark read.
//!
//! `every_message DIR` writes `roce.pcapng`, `infiniband.pcapng` (the same in the framing of
//! InfiniBand) and `log.json`, what the ends have sent by their own account. The ends speak verbs
//! and follow a script, not the protocol's state rules: each kind of message is sent many times,
//! with other values each time.

mod end;
mod log;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use sdp_verbs::hook::capture::Framing;
use sdp_verbs::hook::{Capture, CaptureFile, CaptureOptions};
use sdp_verbs::host::HostProvider;
use sdp_verbs::{Provider, RemoteAddr, Rkey};
use sdp_wire::{Body, Flags, Head, ModeChange, ServiceId, SinkAvail, SrcAvail};

use end::Pair;
use log::Log;

/// How often each kind is sent, by each end.
const ROUNDS: u32 = 12;
/// Most payload of a message here.
const PAYLOAD_MAX: u32 = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .ok_or("usage: every_message DIR")?;
    let folder = Path::new(&folder);
    let mut log = Log::default();
    let connector = captured(
        captured(host()?, folder, Framing::RoceV2)?,
        folder,
        Framing::Infiniband,
    )?;
    let mut pair = Pair::connect(connector, host()?, &mut log)?;
    let mut numbers = Numbers(0x5d9);
    for round in 0..ROUNDS {
        for kind in 0..KINDS {
            for from in 0..2 {
                let (flags, body, payload_len) = message(kind, round, &mut numbers);
                pair.say(from, flags, body, payload_len, &mut numbers, &mut log)?;
            }
        }
        pair.transfer(&mut numbers, &mut log)?;
    }
    pair.disconnect();
    log.write(&folder.join("log.json"))?;
    Ok(())
}

fn host() -> Result<Arc<dyn Provider>, Box<dyn Error>> {
    Ok(Arc::new(HostProvider::open()?))
}

fn captured(
    inner: Arc<dyn Provider>,
    folder: &Path,
    framing: Framing,
) -> Result<Arc<dyn Provider>, Box<dyn Error>> {
    let name = match framing {
        Framing::RoceV2 => "roce.pcapng",
        Framing::Infiniband => "infiniband.pcapng",
    };
    let options = CaptureOptions {
        payload_max: usize::MAX,
        service_id: |port| ServiceId::from_port(port).raw(),
        framing,
        ..CaptureOptions::default()
    };
    let file = CaptureFile::create(&folder.join(name), options)?;
    Ok(Arc::new(Capture::new(inner, &Arc::new(file))))
}

/// Values that differ from message to message: a linear congruence, the same in every run.
#[derive(Debug)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }

    fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    fn long(&mut self) -> u64 {
        u64::from(self.next()) << 32 | u64::from(self.next())
    }
}

/// Kinds of messages that are no part of the handshake.
const KINDS: u32 = 16;

/// The `kind`th kind of message.
fn message(kind: u32, round: u32, n: &mut Numbers) -> (Flags, Body, u32) {
    let pend = if round.is_multiple_of(3) {
        Flags::OOB_PEND
    } else {
        Flags::empty()
    };
    let pipe = if round.is_multiple_of(2) {
        Flags::REQ_PIPE
    } else {
        Flags::empty()
    };
    let payload = 1 + n.below(PAYLOAD_MAX);
    let inline = if round.is_multiple_of(2) { payload } else { 0 };
    let size = 37 + n.below(1 << 20);
    let advert = SrcAvail {
        len: payload + n.below(1 << 30),
        rkey: sdp_wire::Rkey(n.next()),
        addr: sdp_wire::RemoteAddr(n.long() >> 16),
    };
    match kind {
        0 => (pend, Body::SendSm, 0),
        1 => (pipe, Body::RdmaWrCompl { len: n.next() }, 0),
        2 => (pipe, Body::RdmaRdCompl { len: n.next() }, 0),
        3 => (
            pend,
            Body::ModeChange(ModeChange::ALL[round as usize % 4]),
            0,
        ),
        4 => (pend, Body::SrcAvailCancel, 0),
        5 => (pend, Body::SinkAvailCancel, 0),
        6 => (pend, Body::SinkCancelAck, 0),
        7 => (pend, Body::ChRcvBuf { size }, 0),
        8 => (pend, Body::ChRcvBufAck { size }, 0),
        9 => {
            let port = u16::try_from(n.below(1 << 16)).unwrap_or(0);
            let service_id = ServiceId::from_port(port);
            (pend, Body::SuspComm { service_id }, 0)
        }
        10 => (pend, Body::SuspCommAck, 0),
        // With bytes inline in Combined mode, without in Pipelined.
        11 => (pend, Body::SrcAvail(advert), inline),
        12 => {
            let sink = SinkAvail {
                len: advert.len,
                rkey: advert.rkey,
                addr: advert.addr,
                non_discards: n.next(),
            };
            (pend, Body::SinkAvail(sink), payload - inline)
        }
        13 => match round % 4 {
            0 => (Flags::OOB_PRES | Flags::OOB_PEND, Body::Data, payload),
            1 => (Flags::OOB_PRES, Body::Data, payload),
            // A credit update.
            2 => (Flags::empty(), Body::Data, 0),
            _ => (Flags::empty(), Body::Data, payload),
        },
        14 => (Flags::empty(), Body::DisConn, 0),
        _ => (Flags::empty(), Body::AbortConn, 0),
    }
}

/// What a transfer names.
#[derive(Clone, Copy, Debug)]
struct Target {
    addr: RemoteAddr,
    rkey: Rkey,
    len: usize,
}

/// The head of a message.
fn head(flags: Flags, body: Body, payload_len: u32, mseq: u32, n: &mut Numbers) -> Head {
    Head {
        flags,
        bufs: u16::try_from(n.below(1 << 16)).unwrap_or(0),
        mseq,
        mseq_ack: n.next(),
        body,
        payload_len,
    }
}
