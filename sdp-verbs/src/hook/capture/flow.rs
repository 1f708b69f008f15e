//! One connection as its packets name it, and what it has outstanding.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::file::CaptureFile;
use super::packet::{Bth, Frame, Piece, RDMA_PACKET_MAX, SEND_PACKET_MAX, Station, Way};
use super::{Framing, Shared};
use super::{mad, memory};
use crate::cm::{CmId, RejectReason};
use crate::hook::sge_bytes;
use crate::memory::{ForeignSlice, Keep, RecvBuf};
use crate::types::{QpNum, RemoteAddr, Rkey, Sge, WrId};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

/// Beginning of a message that is shown to whoever tells its head from its payload.
const HEAD_PROBE_LEN: usize = 64;

/// Opcodes of the reliable connection, by a packet's place in its message: first, middle, last,
/// only.
const SEND: [u8; 4] = [0x00, 0x01, 0x02, 0x04];
const SEND_WITH_INVALIDATE: [u8; 4] = [0x00, 0x01, 0x16, 0x17];
const WRITE: [u8; 4] = [0x06, 0x07, 0x08, 0x0a];
const READ_RESPONSE: [u8; 4] = [0x0d, 0x0e, 0x0f, 0x10];
const READ_REQUEST: u8 = 0x0c;

/// Which end of the connection this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Connector,
    Listener,
}

/// One end, as far as it is numbered.
#[derive(Clone, Copy, Debug)]
struct End {
    qpn: u32,
    psn: u32,
    comm_id: u32,
    ip: IpAddr,
}

/// A receive that is posted.
struct Posted {
    mem: ForeignSlice,
    _keep: Keep,
}

/// A READ whose bytes are on their way.
#[derive(Debug)]
struct Reading {
    wr_id: WrId,
    local: SmallVec<[Sge; 2]>,
    psn: u32,
    msn: u32,
}

/// How far disconnecting has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    /// No request has been written.
    Idle,
    Up,
    /// Somebody has asked to disconnect.
    Closing,
    Down,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Flow {
    shared: Arc<Shared>,
    role: Role,
    number: u32,
    state: Mutex<State>,
}

/// Guards the order of the packets too: it is held while a request is posted and written.
pub(super) struct State {
    ours: End,
    theirs: End,
    link: Link,
    /// Requests of ours that the peer has to carry out.
    msn: u32,
    posted: VecDeque<Posted>,
    reading: VecDeque<Reading>,
    reading_max: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("ours", &self.ours)
            .field("theirs", &self.theirs)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// A message of ours, read before it is posted.
#[derive(Debug)]
pub(super) struct Sent {
    opcodes: [u8; 4],
    solicited: bool,
    ext: SmallVec<[u8; 16]>,
    bytes: Vec<u8>,
    len: usize,
}

impl Sent {
    fn packet_max(&self) -> usize {
        match self.opcodes {
            WRITE | READ_RESPONSE => RDMA_PACKET_MAX,
            _ => SEND_PACKET_MAX,
        }
    }
}

/// Whose packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dir {
    Out,
    In,
}

impl Flow {
    pub(super) fn new(shared: &Arc<Shared>, role: Role) -> Self {
        let number = shared.file.next_flow();
        let end = |comm_id, qpn| End {
            qpn,
            psn: 0,
            comm_id,
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let ids = number.wrapping_mul(2);
        Self {
            shared: Arc::clone(shared),
            role,
            number,
            state: Mutex::new(State {
                ours: end(ids.wrapping_add(1), 0),
                // No verb tells the peer's number; this one is not taken by a provider that counts.
                theirs: end(ids.wrapping_add(2), 0x80_0000 | (number & 0x7f_ffff)),
                link: Link::Idle,
                msn: 0,
                posted: VecDeque::new(),
                reading: VecDeque::new(),
                reading_max: 0,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Poisoned by a panic of the provider below, which the panic reports.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> &CaptureFile {
        &self.shared.file
    }

    /// The queue pair has been created.
    pub(super) fn has_qp(&self, num: QpNum, send_wr_max: u32) {
        let mut state = self.lock();
        // Dissectors take everything for 0 and 1 for management datagrams.
        state.ours.qpn = if num.0 < 2 { 0x40_0000 | num.0 } else { num.0 };
        state.reading_max = usize::try_from(send_wr_max).unwrap_or(usize::MAX);
    }

    fn way(&self, state: &State, dir: Dir) -> Way {
        let number = |ours: bool| match (self.role, ours) {
            (Role::Connector, true) | (Role::Listener, false) => 1,
            _ => 2,
        };
        let station = |end: &End, ours| Station {
            ip: end.ip,
            number: number(ours),
        };
        let (ours, theirs) = (station(&state.ours, true), station(&state.theirs, false));
        let (from, to) = match dir {
            Dir::Out => (ours, theirs),
            Dir::In => (theirs, ours),
        };
        let [.., high, low] = self.number.to_be_bytes();
        Way {
            framing: self.file().options().framing,
            from,
            to,
            udp_port: 0xc000 | u16::from_be_bytes([high, low]),
        }
    }

    /// One exchange of the connection manager.
    fn transaction(&self) -> u64 {
        u64::from(self.number) << 8
    }

    fn say(&self, state: &State, dir: Dir, mad: &[u8]) {
        let frame = self.way(state, dir).datagram(mad);
        self.file().write(&[frame]);
    }

    /// A connect request; the id knows both addresses by now.
    pub(super) fn request(&self, state: &mut State, id: &dyn CmId, private_data: &[u8]) {
        let (local, peer) = (id.local_addr(), id.peer_addr());
        let unspecified = state.ours.ip;
        state.ours.ip = local.map_or(unspecified, |addr| addr.ip());
        state.theirs.ip = peer.map_or(unspecified, |addr| addr.ip());
        state.link = Link::Up;
        let (dir, port) = match self.role {
            Role::Connector => (Dir::Out, peer),
            Role::Listener => (Dir::In, local),
        };
        let (from, _) = state.ends(dir);
        let way = self.way(state, dir);
        let lid = |station: Station| match way.framing {
            // What the connection manager of Linux says where there are no LIDs.
            Framing::RoceV2 => 0xffff,
            Framing::Infiniband => u16::from(station.number),
        };
        let mad = mad::req(
            self.transaction(),
            &mad::Request {
                comm_id: from.comm_id,
                service_id: (self.file().options().service_id)(
                    port.map_or(0, |a: SocketAddr| a.port()),
                ),
                qpn: from.qpn,
                psn: from.psn,
                from: (way.from.ip, lid(way.from)),
                to: (way.to.ip, lid(way.to)),
                private_data,
            },
        );
        self.say(state, dir, &mad);
    }

    /// The answer to a request; who answers follows from the role.
    pub(super) fn reply(&self, state: &State, private_data: &[u8]) {
        let dir = match self.role {
            Role::Connector => Dir::In,
            Role::Listener => Dir::Out,
        };
        let (from, to) = state.ends(dir);
        let ids = (from.comm_id, to.comm_id);
        let mad = mad::rep(self.transaction(), ids, from.qpn, from.psn, private_data);
        self.say(state, dir, &mad);
    }

    /// The connector confirms.
    pub(super) fn ready(&self, state: &State) {
        let dir = match self.role {
            Role::Connector => Dir::Out,
            Role::Listener => Dir::In,
        };
        let (from, to) = state.ends(dir);
        let mad = mad::rtu(self.transaction(), (from.comm_id, to.comm_id));
        self.say(state, dir, &mad);
    }

    /// This process turns the peer down.
    pub(super) fn reject(&self, state: &mut State, private_data: &[u8]) {
        self.rejected(state, Dir::Out, RejectReason::Consumer, private_data);
    }

    /// The peer turns this process down.
    pub(super) fn hear_reject(&self, state: &mut State, reason: RejectReason, private: &[u8]) {
        self.rejected(state, Dir::In, reason, private);
    }

    fn rejected(&self, state: &mut State, dir: Dir, reason: RejectReason, private_data: &[u8]) {
        if state.link != Link::Up {
            return;
        }
        state.link = Link::Down;
        let (from, to) = state.ends(dir);
        let ids = (from.comm_id, to.comm_id);
        let of_reply = (self.role == Role::Connector) == (dir == Dir::Out);
        let mad = mad::rej(self.transaction(), ids, of_reply, reason, private_data);
        self.say(state, dir, &mad);
    }

    /// This process ends the connection.
    pub(super) fn disconnect(&self, state: &mut State) {
        self.disconnected(state, Dir::Out);
    }

    /// The peer ends the connection, or answers that it has heard of its end.
    pub(super) fn hear_disconnect(&self, state: &mut State) {
        self.disconnected(state, Dir::In);
    }

    fn disconnected(&self, state: &mut State, dir: Dir) {
        let (from, to) = state.ends(dir);
        let ids = (from.comm_id, to.comm_id);
        let transaction = self.transaction() + 1;
        let mad = match state.link {
            Link::Up => {
                state.link = Link::Closing;
                mad::dreq(transaction, ids, to.qpn)
            }
            Link::Closing => {
                state.link = Link::Down;
                mad::drep(transaction, ids)
            }
            Link::Idle | Link::Down => return,
        };
        self.say(state, dir, &mad);
    }

    /// How much of a message of `len` bytes is kept, of which `head` is the beginning.
    fn kept_len(&self, len: usize, head: &[u8]) -> usize {
        let options = self.file().options();
        let head_len = (options.head_len)(head);
        head_len.saturating_add(options.payload_max).min(len)
    }

    fn cut(&self, mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
        let probe = &bytes[..bytes.len().min(HEAD_PROBE_LEN)];
        let kept = self.kept_len(len, probe);
        bytes.truncate(kept);
        bytes
    }

    /// Bytes of a message that may have to be kept.
    fn read_max(&self) -> usize {
        let max = self.file().options().payload_max;
        max.saturating_add(HEAD_PROBE_LEN)
    }

    /// A SEND of ours that lies in memory of the provider or of the caller.
    pub(super) fn send_from(
        &self,
        mem: &ForeignSlice,
        len: usize,
        invalidate: Option<Rkey>,
    ) -> Sent {
        let len = len.min(mem.len());
        let mut bytes = vec![0; len.min(self.read_max())];
        mem.read(0, &mut bytes);
        self.send(bytes, len, invalidate)
    }

    /// A SEND of ours: `bytes` are at least what is to be kept of it.
    pub(super) fn send(&self, bytes: Vec<u8>, len: usize, invalidate: Option<Rkey>) -> Sent {
        Sent {
            opcodes: match invalidate {
                None => SEND,
                Some(_) => SEND_WITH_INVALIDATE,
            },
            solicited: false,
            ext: invalidate.map_or_else(SmallVec::new, |key| {
                SmallVec::from_slice(&key.0.to_be_bytes())
            }),
            bytes: self.cut(bytes, len),
            len,
        }
    }

    /// As above, out of registered memory.
    pub(super) fn send_gathered(&self, sges: &[Sge], invalidate: Option<Rkey>) -> Sent {
        let bytes = memory::copy(&self.shared.regions, sges, self.read_max());
        self.send(bytes, sge_bytes(sges), invalidate)
    }

    /// A WRITE of ours.
    pub(super) fn write(&self, local: &[Sge], remote: RemoteAddr, rkey: Rkey) -> Sent {
        let len = sge_bytes(local);
        let max = self.file().options().payload_max;
        Sent {
            opcodes: WRITE,
            solicited: false,
            ext: reth(remote, rkey, len),
            bytes: memory::copy(&self.shared.regions, local, max),
            len,
        }
    }

    /// Writes a message of ours that has been posted.
    pub(super) fn sent(&self, state: &mut State, sent: Sent, solicited: bool) {
        state.msn = state.msn.wrapping_add(1);
        let message = Sent { solicited, ..sent };
        self.message(state, Dir::Out, &message);
    }

    /// Writes a READ of ours that has been posted.
    pub(super) fn read(
        &self,
        state: &mut State,
        wr_id: WrId,
        local: SmallVec<[Sge; 2]>,
        remote: RemoteAddr,
        rkey: Rkey,
    ) {
        let len = sge_bytes(&local);
        let psn = state.ours.psn;
        state.ours.psn = psn.wrapping_add(packet_count(len, RDMA_PACKET_MAX));
        state.msn = state.msn.wrapping_add(1);
        let bth = Bth {
            opcode: READ_REQUEST,
            solicited: false,
            qpn: state.theirs.qpn,
            psn,
        };
        let nothing = Piece { bytes: &[], len: 0 };
        let frame = self
            .way(state, Dir::Out)
            .reliable(bth, &reth(remote, rkey, len), nothing);
        self.file().write(&[frame]);
        // An unsignalled READ completes without a word; what is too old to be outstanding did.
        while state.reading.len() >= state.reading_max.max(1) {
            state.reading.pop_front();
        }
        let msn = state.msn;
        state.reading.push_back(Reading {
            wr_id,
            local,
            psn,
            msn,
        });
    }

    /// Notes a receive that has been posted.
    pub(super) fn post_recv(state: &mut State, buf: &RecvBuf) {
        state.posted.push_back(Posted {
            mem: *buf.mem(),
            _keep: Keep::clone(buf.keep()),
        });
    }

    /// A completion, before it is handed out.
    pub(super) fn complete(&self, wc: &WorkCompletion) {
        let mut state = self.lock();
        match wc.opcode {
            WcOpcode::Recv => {
                // Receives complete in the order in which they were posted.
                let Some(posted) = state.posted.pop_front() else {
                    return;
                };
                if wc.status == WcStatus::Success {
                    let message = self.send_from(&posted.mem, wc.byte_len, wc.invalidated);
                    self.message(&mut state, Dir::In, &message);
                }
            }
            WcOpcode::Read => {
                let at = state.reading.iter().position(|r| r.wr_id == wc.wr_id);
                let Some(reading) = at.and_then(|at| state.reading.drain(..=at).next_back()) else {
                    return;
                };
                if wc.status == WcStatus::Success {
                    self.read_response(&state, &reading);
                }
            }
            WcOpcode::Send | WcOpcode::Write | WcOpcode::Bind | WcOpcode::LocalInv => {}
        }
    }

    fn read_response(&self, state: &State, reading: &Reading) {
        let max = self.file().options().payload_max;
        let bytes = memory::copy(&self.shared.regions, &reading.local, max);
        let message = Sent {
            opcodes: READ_RESPONSE,
            solicited: false,
            // AETH: acknowledged, with credits without limit.
            ext: SmallVec::from_slice(&(0x1f00_0000 | reading.msn & 0xff_ffff).to_be_bytes()),
            len: sge_bytes(&reading.local),
            bytes,
        };
        let frames = self.packets(state, Dir::In, &message, reading.psn);
        self.file().write(&frames);
    }

    fn message(&self, state: &mut State, dir: Dir, message: &Sent) {
        let sender = match dir {
            Dir::Out => &mut state.ours,
            Dir::In => &mut state.theirs,
        };
        let psn = sender.psn;
        sender.psn = psn.wrapping_add(packet_count(message.len, message.packet_max()));
        let frames = self.packets(state, dir, message, psn);
        self.file().write(&frames);
    }

    /// The packets of a message, up to the first that is not kept whole.
    fn packets(&self, state: &State, dir: Dir, message: &Sent, psn: u32) -> Vec<Frame> {
        let way = self.way(state, dir);
        let (_, to) = state.ends(dir);
        let [first, middle, last, only] = message.opcodes;
        let mut frames = Vec::new();
        let mut at = 0;
        loop {
            let len = (message.len - at).min(message.packet_max());
            let is_last = at + len == message.len;
            let opcode = match (at == 0, is_last) {
                (true, true) => only,
                (true, false) => first,
                (false, true) => last,
                (false, false) => middle,
            };
            let kept = &message.bytes[at.min(message.bytes.len())..];
            let piece = Piece {
                bytes: &kept[..kept.len().min(len)],
                len,
            };
            let bth = Bth {
                opcode,
                solicited: message.solicited && is_last,
                qpn: to.qpn,
                psn: psn.wrapping_add(u32::try_from(frames.len()).unwrap_or(u32::MAX)),
            };
            let ext: &[u8] = if has_ext(opcode) { &message.ext } else { &[] };
            frames.push(way.reliable(bth, ext, piece));
            if is_last || piece.bytes.len() < len {
                return frames;
            }
            at += len;
        }
    }
}

impl State {
    /// Sender and receiver.
    fn ends(&self, dir: Dir) -> (End, End) {
        match dir {
            Dir::Out => (self.ours, self.theirs),
            Dir::In => (self.theirs, self.ours),
        }
    }
}

/// Whether packets of this kind carry their message's extended header.
fn has_ext(opcode: u8) -> bool {
    matches!(opcode, 0x06 | 0x0a | 0x0d | 0x0f | 0x10 | 0x16 | 0x17)
}

fn packet_count(len: usize, packet_max: usize) -> u32 {
    u32::try_from(len.div_ceil(packet_max).max(1)).unwrap_or(u32::MAX)
}

fn reth(remote: RemoteAddr, rkey: Rkey, len: usize) -> SmallVec<[u8; 16]> {
    let mut out = SmallVec::new();
    out.extend_from_slice(&remote.0.to_be_bytes());
    out.extend_from_slice(&rkey.0.to_be_bytes());
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    out
}
