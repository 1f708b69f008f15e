//! A peer, an adapter and a program that do anything, in any order, around a live engine.
//!
//! What must hold whatever they do: no panic; no input that keeps the engine busy for ever; every
//! message it sends decodes, is numbered without a gap and has a credit; nothing is posted after
//! the end; and after the end every call ends.

use std::collections::VecDeque;
use std::time::Duration;

use sdp_core::{
    Action, Adaptive, BufferId, CallId, CmInput, Completion, Config, Connection, CopyReason, Event,
    Instant, Keepalive, RecvId, SendId, WorkId, ZcopyThreshold,
};
use sdp_wire::{
    Carrier, HELLO_ACK_LEN, HELLO_LEN, Head, Hello, HelloAck, HelloForm, RemoteAddr, Rkey,
    ServiceId, Version,
};

#[path = "sequence/calls.rs"]
mod calls;
#[path = "input.rs"]
mod input;
#[path = "sequence/moving.rs"]
mod moving;
#[path = "sequence/opening.rs"]
mod opening;
#[path = "sequence/peer.rs"]
mod peer;

use input::Bytes;
use opening::Opening;

/// Actions that follow from one input. More means that they never end.
const ACTIONS_MAX: usize = 10_000;
/// Steps of one execution.
const STEPS_MAX: usize = 400;
/// Receive buffers that this peer says it has, in its Hello.
const BUFS: u16 = 8;
/// Where the engine's side listens when it moves.
const PORT: ServiceId = ServiceId::resuming_at(7, 1 << 32);

impl Bytes<'_> {
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// Mostly small, sometimes anything.
    fn len(&mut self) -> u32 {
        match self.u8() {
            0..=99 => u32::from(self.u8()),
            100..=249 => u32::from(self.u16()),
            _ => self.u32(),
        }
    }

    fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }
}

/// The engine, and what its surroundings remember.
struct World {
    conn: Connection,
    now: u64,
    posted: VecDeque<BufferId>,
    works: VecDeque<WorkId>,
    sends: Vec<SendId>,
    recvs: Vec<RecvId>,
    /// Length of the caller's memory of each send.
    lens: Vec<(CallId, usize)>,
    /// What the peer sends next, and the last of the engine's it has seen.
    mseq: u32,
    seen: u32,
    /// The engine's last message.
    sent: u32,
    /// The highest number the engine has a credit for.
    limit: u32,
    in_error: bool,
    closed: bool,
    opening: Opening,
    /// The engine has left its queue pair, and calls the peer there if it does that.
    left: Option<Option<ServiceId>>,
    /// What the program's side refuses the next time it is asked for.
    refuses: Refusals,
}

/// Once for each request that can fail.
#[derive(Default)]
struct Refusals {
    buffer: bool,
    key: bool,
    registration: bool,
    memory: bool,
}

impl Refusals {
    fn next(&mut self, kind: u8) {
        let refused = match kind & 3 {
            0 => &mut self.buffer,
            1 => &mut self.key,
            2 => &mut self.registration,
            _ => &mut self.memory,
        };
        *refused = true;
    }
}

/// One execution.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Bytes::new(bytes);
    let Some(mut world) = World::new(&mut input) else {
        return;
    };
    input.steps(STEPS_MAX, |input| world.step(input));
    world.end();
}

fn config(input: &mut Bytes<'_>) -> Config {
    let choice = input.u8();
    Config {
        zcopy_threshold: match choice & 3 {
            0 => ZcopyThreshold::Off,
            1 => ZcopyThreshold::Bytes(100),
            _ => ZcopyThreshold::Bytes(4_000),
        },
        send_buffer_len: 20_000,
        recv_buffer_total: 50_000,
        recv_buffer_len: 8_000,
        recv_buffers_max: 4 + u16::from(choice >> 2 & 7),
        read_ahead_len: 10_000,
        send_slots: 16,
        nodelay: choice & 32 != 0,
        read_nonblocking: choice & 64 != 0,
        ..Config::default()
    }
}

fn hello(adverts_max: u16) -> Hello {
    Hello {
        bufs: BUFS,
        version: Version::V2_2,
        form: HelloForm::Whole,
        invalidate_cap: true,
        adverts_max,
        desired_remote_recv_size: 4096,
        local_recv_size: 4096,
        local_port: 1,
        src: None,
        dst: None,
    }
}

impl World {
    /// An engine on either side, whose handshake is over or not.
    fn new(input: &mut Bytes<'_>) -> Option<Self> {
        let mut config = config(input);
        let now = Instant::from_nanos(0);
        let (kind, choice) = (input.u8(), input.u8());
        let adverts_max = 1 + (choice & 7);
        config.caller_first = opening::is_caller_first(choice);
        let opening = Opening::new(config.caller_first, kind & 1 == 0);
        let mut bufs = BUFS;
        let conn = if kind & 1 == 0 {
            let mut bytes = [0; HELLO_LEN];
            hello(adverts_max.into()).encode(&mut bytes);
            if kind & 14 == 2 {
                bytes[usize::from(input.u8()) % HELLO_LEN] = input.u8();
            }
            bufs = Hello::decode(&bytes, Carrier::Whole).ok()?.bufs;
            Connection::accept(now, config, &bytes).ok()?
        } else {
            Connection::connect(now, config, 1, None, None)
        };
        let mut world = Self {
            conn,
            now: 0,
            posted: VecDeque::new(),
            works: VecDeque::new(),
            sends: Vec::new(),
            recvs: Vec::new(),
            lens: Vec::new(),
            mseq: 1,
            seen: 0,
            sent: 0,
            limit: u32::from(bufs),
            in_error: false,
            closed: false,
            opening,
            left: None,
            refuses: Refusals::default(),
        };
        world.drain();
        if kind & 1 == 0 && kind & 16 == 0 {
            world.conn.handle_cm(world.instant(), CmInput::Established);
        } else if kind & 1 == 1 && kind & 16 == 0 {
            let mut bytes = [0; HELLO_ACK_LEN];
            let ack = HelloAck {
                bufs: BUFS,
                version: Version::V2_2,
                adverts_max,
                actual_recv_size: 4096,
                invalidate_cap: true,
            };
            ack.encode(&mut bytes);
            world
                .conn
                .handle_cm(world.instant(), CmInput::Response(&bytes));
        }
        world.drain();
        Some(world)
    }

    fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn step(&mut self, input: &mut Bytes<'_>) {
        match input.u8() % 20 {
            0..=7 => self.peer(input),
            8 => self.garbage(input),
            9 | 10 => self.complete(input),
            11 | 12 => self.start_send(input),
            13 | 14 => self.start_recv(input),
            15 | 16 => self.poll_calls(input),
            17 => self.pass(u64::from(input.u8()) << (input.u8() % 32)),
            18 => self.end_call(input),
            _ => self.manage(input),
        }
        self.drain();
    }

    /// Carries out what the engine asks for, and checks what may be checked of it.
    fn drain(&mut self) {
        let mut count = 0;
        while let Some(action) = self.conn.poll_action() {
            count += 1;
            assert!(
                count < ACTIONS_MAX,
                "actions without end, the last: {action:?}"
            );
            self.carry_out(action);
        }
        while let Some(event) = self.conn.poll_event() {
            self.closed |= matches!(event, Event::Closed(_));
        }
    }

    fn carry_out(&mut self, action: Action) {
        let posts = matches!(
            action,
            Action::PostSend(_)
                | Action::PostRecv { .. }
                | Action::RdmaRead { .. }
                | Action::RdmaWrite { .. }
                | Action::Probe { .. }
                | Action::Knock { .. }
        );
        assert!(
            !(posts && (self.in_error || self.closed)),
            "after the end: {action:?}"
        );
        self.check_opening(&action);
        match action {
            Action::PostRecv { buf, .. } => self.post_recv(buf),
            Action::PostSend(send) => {
                let total = send.head_len + send.payload.byte_len() as usize;
                let head = Head::decode(&send.head, total).expect("a message in good order");
                self.sent = self.sent.wrapping_add(1);
                assert_eq!(head.mseq, self.sent, "numbers without a gap");
                let ahead = self.limit.wrapping_sub(head.mseq).cast_signed();
                assert!(ahead >= 0, "{head} without a credit");
                self.works.extend(send.work);
            }
            Action::RdmaRead { work, len, .. } => {
                assert!(len > 0);
                self.works.push_back(work);
            }
            Action::RdmaWrite {
                work,
                call,
                at,
                len,
                ..
            } => {
                assert!(len > 0);
                self.check_range(CallId::Send(call), at, len as usize);
                self.works.push_back(work);
            }
            Action::Register { call, at, len } => {
                self.check_range(CallId::Send(call), at, len);
                let refused = take(&mut self.refuses.registration);
                let result = (!refused).then_some(()).ok_or(CopyReason::BindFailed);
                self.conn.handle_registered(self.instant(), call, result);
            }
            Action::InvalidateKey { work, .. }
            | Action::Probe { work }
            | Action::Knock { work } => {
                self.works.push_back(work);
            }
            Action::BindKey { key, call, at, len } => {
                self.check_range(call, at, len as usize);
                let found = (Rkey(0x700 + key.0), RemoteAddr(0x1000));
                let refused = take(&mut self.refuses.key);
                let result = (!refused).then_some(found).ok_or(CopyReason::BindFailed);
                self.conn.handle_bound(self.instant(), key, result);
            }
            Action::Copy(job) => {
                let ok = !take(&mut self.refuses.memory);
                self.conn.handle_copied(self.instant(), job.id, ok);
            }
            Action::SetError => self.in_error = true,
            Action::Leave { call } => self.left = Some(call),
            _ => {}
        }
    }

    fn post_recv(&mut self, buf: BufferId) {
        if take(&mut self.refuses.buffer) {
            self.conn.buffer_unavailable(self.instant(), buf);
            return;
        }
        assert!(!self.posted.contains(&buf), "{buf:?} is posted twice");
        self.posted.push_back(buf);
    }

    /// Memory that the engine names is that of a call in progress.
    fn check_range(&self, call: CallId, at: usize, len: usize) {
        let memory = self.lens.iter().find(|(id, _)| *id == call);
        let (_, whole) = memory.expect("memory of a call in progress");
        assert!(len > 0 && at + len <= *whole, "beyond the caller's memory");
    }

    fn complete(&mut self, input: &mut Bytes<'_>) {
        let Some(work) = self.works.pop_front() else {
            return;
        };
        let result = match input.u8() {
            0 => Completion::TransportFailed("retries ran out"),
            1 => Completion::Flushed,
            2 => Completion::RemoteAccess,
            3 => Completion::RemoteFault,
            4 => Completion::LocalFault,
            _ => Completion::Success,
        };
        self.conn.handle_completion(self.instant(), work, result);
    }

    fn pass(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(nanos);
        self.conn.handle_timeout(self.instant());
        self.drain();
    }

    fn manage(&mut self, input: &mut Bytes<'_>) {
        let now = self.instant();
        match input.u8() % 24 {
            0 => self.conn.handle_cm(now, CmInput::Disconnected),
            1 => self.conn.handle_cm(now, CmInput::Established),
            2 => self.conn.handle_cm(now, CmInput::Response(&[1, 2, 3])),
            3 => self
                .conn
                .handle_cm(now, CmInput::Unreachable { errno: 110 }),
            4 => self.conn.shutdown_send(now),
            5 => self.conn.shutdown_recv(now),
            6 => self.conn.set_recv_buffer_total(input.len() as usize),
            7 => self.conn.set_send_buffer_len(input.len() as usize),
            8 => self.conn.set_nodelay(input.flag()),
            9 => self.conn.close(now, None),
            10 => self.conn.close(now, Some(Duration::from_micros(10))),
            11 => self.conn.abort(now),
            12 => {
                if let Some(buf) = self.posted.pop_front() {
                    self.conn.handle_recv_flushed(now, buf);
                }
            }
            13 => self.refuses.next(input.u8()),
            14 | 15 => self.set(input),
            16 => {
                let _ = self.conn.send_urgent(now, input.len() as usize % 5_000);
            }
            17 => self.conn.set_oob_inline(input.flag()),
            18 => {
                let _ = self.conn.recv_urgent(input.flag());
            }
            19 => {
                let _ = self.conn.suspend(now, PORT);
            }
            20 => moving::resume(self, input),
            _ => self.poll_calls(input),
        }
    }

    /// An option of the program's.
    fn set(&mut self, input: &mut Bytes<'_>) {
        let (kind, now) = (input.u8(), self.instant());
        let on = kind & 0x80 == 0;
        let time = |input: &mut Bytes<'_>| Duration::from_nanos(1 << (input.u8() % 40));
        match kind % 5 {
            0 => {
                let keepalive = Keepalive {
                    idle: time(input),
                    interval: time(input),
                    count: u32::from(input.u8()),
                };
                self.conn.set_keepalive(now, on.then_some(keepalive));
            }
            1 => {
                let limit = time(input);
                self.conn.set_user_timeout(now, on.then_some(limit));
            }
            2 => self.conn.set_threshold(if on {
                ZcopyThreshold::Bytes(input.len() as usize)
            } else {
                ZcopyThreshold::Off
            }),
            3 => {
                let adaptive = Adaptive {
                    registered: kind & 0x40 == 0,
                    heap: kind & 0x20 == 0,
                };
                self.conn.set_adaptive(on.then_some(adaptive));
            }
            _ => self.conn.set_recv_low_water(input.len() as usize),
        }
    }

    /// Work that is out comes back.
    fn flush(&mut self) {
        while let Some(work) = self.works.pop_front() {
            self.conn
                .handle_completion(self.instant(), work, Completion::Flushed);
            self.drain();
        }
    }

    /// After the end, with all work flushed, no call is left waiting.
    fn end(&mut self) {
        self.conn.abort(self.instant());
        self.drain();
        for _ in 0..3 {
            self.pass(1_000_000_000_000);
            self.flush();
        }
        assert!(self.conn.is_closed(), "aborted, and not closed");
        for _ in 0..4 {
            self.poll_calls(&mut Bytes::new(&[0xff]));
        }
        assert!(
            self.sends.is_empty() && self.recvs.is_empty(),
            "a call waits for ever"
        );
        assert_eq!(self.conn.poll_timeout(), None);
    }
}

fn take(flag: &mut bool) -> bool {
    std::mem::take(flag)
}
