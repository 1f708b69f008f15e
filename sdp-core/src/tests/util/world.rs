//! Two sides, a wire between them, and virtual time.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;
use std::vec::Vec;

use sdp_wire::{HEAD_LEN_MAX, HELLO_LEN, Head, RemoteAddr, Rkey, ServiceId};

use super::Rng;
use super::app::App;
use super::nic::Nic;
use crate::connection::Connection;
use crate::{
    Action, CallId, CmInput, Completion, Config, CopyReason, CopyWhat, Instant, JobId, KeyId,
    Phase, PostSend, ReadInto, Received, SendId, WorkId,
};

/// How the world behaves.
#[derive(Clone, Debug)]
pub(in crate::tests) struct Laws {
    /// One way, nanoseconds.
    pub(in crate::tests) latency: u64,
    /// Added to everything, at random, up to this.
    pub(in crate::tests) jitter: u64,
    /// How long a copy takes, and the making of a key.
    pub(in crate::tests) copy: u64,
    pub(in crate::tests) seed: u64,
    /// The confirmation of the handshake is lost.
    pub(in crate::tests) lose_rtu: bool,
    /// Of 100 requests for memory, keys and reads, so many fail.
    pub(in crate::tests) trouble: u64,
}

impl Default for Laws {
    fn default() -> Self {
        Self {
            latency: 1_000,
            jitter: 0,
            copy: 0,
            seed: 1,
            lose_rtu: false,
            trouble: 0,
        }
    }
}

/// A read on its way.
#[derive(Debug)]
struct ReadJob {
    rkey: Rkey,
    remote: RemoteAddr,
    into: ReadInto,
    len: u32,
}

/// A write on its way.
#[derive(Debug)]
struct WriteJob {
    call: SendId,
    at: usize,
    remote: RemoteAddr,
    rkey: Rkey,
    len: u32,
    /// Once the sending side is in error: what its adapter had taken.
    bytes: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Happening {
    Land(WriteJob),
    Arrive {
        bytes: Vec<u8>,
        invalidate: Option<Rkey>,
    },
    Complete {
        work: WorkId,
        read: Option<ReadJob>,
        kill: Option<KeyId>,
        flushed: bool,
    },
    Copied(JobId, CopyWhat),
    Bind {
        key: KeyId,
        call: CallId,
        at: usize,
        len: u32,
    },
    Response(Vec<u8>),
    Established,
    Disconnected,
    /// There is a way to the peer's port: this side calls on a new queue pair.
    Path,
    /// The peer calls on a new queue pair, and the old one is down.
    Call(Vec<u8>),
    Refused,
    Task(usize),
    Timeout,
}

/// Two connected sides.
#[derive(Debug)]
pub(in crate::tests) struct World {
    pub(in crate::tests) now: u64,
    pub(in crate::tests) nics: Vec<Nic>,
    pub(in crate::tests) apps: Vec<App>,
    laws: Laws,
    rng: Rng,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// At which side, and what; what comes from the other one belongs to a queue pair of it.
    happenings: Vec<Option<(usize, u32, Happening)>>,
    /// Work of each side that a flush must end.
    outstanding: [Vec<(WorkId, Option<ReadInto>)>; 2],
    order: u64,
    /// This side is stopped: nothing happens at it.
    stopped: [bool; 2],
    /// Timers asked for, so that none is asked for twice.
    timers: [Option<u64>; 2],
}

impl World {
    /// Side 0 calls side 1.
    pub(in crate::tests) fn new(configs: [Config; 2], laws: Laws) -> Self {
        let [a, b] = configs;
        let now = Instant::from_nanos(0);
        let calling = Connection::connect(now, a, 4711, None, None);
        let mut nics = std::vec![Nic::new(calling)];
        // The request travels at once: the rest of the handshake takes its time.
        let mut hello = None;
        while let Some(action) = nics[0].conn.poll_action() {
            if let Some(Action::Connect(data)) = nics[0].act(action) {
                hello = Some(data);
            }
        }
        let hello = hello.expect("no Hello");
        assert!(hello.len() <= HELLO_LEN);
        let accepting = Connection::accept(now, b, &hello).expect("Hello refused");
        nics.push(Nic::new(accepting));
        let mut world = Self {
            now: 0,
            nics,
            apps: std::vec![App::default(), App::default()],
            rng: Rng::new(laws.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            laws,
            heap: BinaryHeap::new(),
            happenings: Vec::new(),
            outstanding: [Vec::new(), Vec::new()],
            order: 0,
            stopped: [false, false],
            timers: [None, None],
        };
        world.drain(1);
        world
    }

    /// Two sides with the same settings, the handshake over.
    pub(in crate::tests) fn connected(config: &Config) -> Self {
        Self::connected_with([config.clone(), config.clone()], Laws::default())
    }

    pub(in crate::tests) fn connected_with(configs: [Config; 2], laws: Laws) -> Self {
        let mut world = Self::new(configs, laws);
        world.run_until(|world| world.nics.iter().all(|nic| nic.conn.is_connected()));
        world
    }

    pub(in crate::tests) fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn at(&mut self, time: u64, side: usize, what: Happening) {
        let index = self.happenings.len();
        let pair = self.nics.get(1 - side).map_or(0, |nic| nic.pair);
        self.happenings.push(Some((side, pair, what)));
        self.order += 1;
        self.heap.push(Reverse((time, self.order, index)));
    }

    fn jittered(&mut self, delay: u64) -> u64 {
        self.now + delay + self.rng.below(self.laws.jitter + 1)
    }

    /// Time for task `task` of `side` to go on.
    pub(in crate::tests) fn schedule_task(&mut self, side: usize, task: usize, delay: u64) {
        let time = self.now + delay;
        self.at(time, side, Happening::Task(task));
    }

    /// Something is to go wrong.
    pub(in crate::tests) fn trouble(&mut self) -> bool {
        self.laws.trouble > 0 && self.rng.below(100) < self.laws.trouble
    }

    pub(in crate::tests) fn copy_delay(&mut self) -> u64 {
        if self.laws.copy == 0 {
            0
        } else {
            1 + self.rng.below(self.laws.copy)
        }
    }

    /// Carries out all that `side` wants done, and hears what it tells.
    pub(in crate::tests) fn drain(&mut self, side: usize) {
        if self.trouble() {
            let (now, scarce) = (self.instant(), self.rng.below(2) == 0);
            self.nics[side].conn.set_memory_scarce(now, scarce);
        }
        while let Some(action) = self.nics[side].conn.poll_action() {
            if let Action::PostRecv { buf, len } = action
                && self.nics[side].buf_lens.get(&buf) != Some(&(len as usize))
                && !matches!(
                    self.nics[side].conn.phase(),
                    Phase::Handshake | Phase::Moving
                )
                && self.trouble()
            {
                let now = self.instant();
                self.nics[side].conn.buffer_unavailable(now, buf);
            } else if let Some(action) = self.nics[side].act(action) {
                self.carry_out(side, action);
            }
        }
        while let Some(event) = self.nics[side].conn.poll_event() {
            self.nics[side].events.push(event.clone());
            App::on_event(self, side, &event);
        }
        let conn = &self.nics[side].conn;
        let wanted = [conn.poll_timeout(), conn.poll_housekeeping()];
        let wanted = wanted.into_iter().flatten().min().map(Instant::as_nanos);
        if let Some(at) = wanted
            && self.timers[side].is_none_or(|set| at < set)
        {
            let at = at.max(self.now);
            self.timers[side] = Some(at);
            self.at(at, side, Happening::Timeout);
        }
    }

    fn carry_out(&mut self, side: usize, action: Action) {
        let peer = 1 - side;
        match action {
            Action::Accept(data) => {
                let time = self.jittered(self.laws.latency);
                self.at(time, peer, Happening::Response(data.to_vec()));
            }
            Action::Establish => {
                if !self.laws.lose_rtu {
                    let time = self.jittered(self.laws.latency);
                    self.at(time, peer, Happening::Established);
                }
            }
            Action::Disconnect => {
                self.nics[side].disconnected = true;
                let time = self
                    .jittered(self.laws.latency)
                    .max(self.nics[side].last_arrival);
                self.at(time, peer, Happening::Disconnected);
                self.flush(side);
            }
            Action::Leave { call } => self.leave(side, call),
            Action::Connect(data) => {
                let time = self.jittered(self.laws.latency);
                self.at(time, peer, Happening::Call(data.to_vec()));
            }
            Action::SetError => {
                self.nics[side].kill_all_keys();
                self.flush(side);
            }
            Action::PostSend(send) => self.post_send(side, &send),
            Action::InvalidateKey { key, work } => {
                let time = self.jittered(100);
                self.complete(side, work, time, None, Some(key));
            }
            Action::Copy(job) => {
                self.nics[side].copy_count += 1;
                let delay = self.copy_delay();
                self.at(self.now + delay, side, Happening::Copied(job.id, job.what));
            }
            Action::Probe { work } => {
                let time = self.jittered(2 * self.laws.latency);
                self.complete(side, work, time, None, None);
            }
            other => self.carry_out_rdma(side, other),
        }
    }

    /// Actions of RDMA READ and WRITE.
    fn carry_out_rdma(&mut self, side: usize, action: Action) {
        let now = self.instant();
        match action {
            Action::RdmaRead {
                work,
                remote,
                rkey,
                into,
                len,
            } => {
                assert!(len > 0);
                self.nics[side].reads.push((into, len));
                if let ReadInto::Mem { mem, capacity, .. } = into {
                    self.nics[side].mem(mem, capacity);
                }
                let time = self.jittered(2 * self.laws.latency);
                let read = ReadJob {
                    rkey,
                    remote,
                    into,
                    len,
                };
                self.complete(side, work, time, Some(read), None);
            }
            Action::RdmaWrite {
                work,
                call,
                at,
                remote,
                rkey,
                len,
            } => {
                assert!(len > 0);
                let arrival = self.arrival(side);
                if !self.nics[side].in_error {
                    let job = WriteJob {
                        call,
                        at,
                        remote,
                        rkey,
                        len,
                        bytes: None,
                    };
                    self.at(arrival, 1 - side, Happening::Land(job));
                }
                self.complete(side, work, arrival + self.laws.latency, None, None);
            }
            Action::Register { call, at, len } => {
                let registered = if self.trouble() {
                    Err(CopyReason::BindFailed)
                } else {
                    self.nics[side].register(call, at, len);
                    Ok(())
                };
                self.nics[side]
                    .conn
                    .handle_registered(now, call, registered);
            }
            Action::BindKey { key, call, at, len } => match self.copy_delay() {
                0 => self.bind(side, key, call, at, len),
                delay => {
                    let time = self.now + delay;
                    self.at(time, side, Happening::Bind { key, call, at, len });
                }
            },
            other => panic!("unexpected {other:?}"),
        }
    }

    fn bind(&mut self, side: usize, key: KeyId, call: CallId, at: usize, len: u32) {
        let bound = if self.nics[side].in_error || self.trouble() {
            Err(CopyReason::BindFailed)
        } else {
            Ok(self.nics[side].bind(key, call, at, len))
        };
        let now = self.instant();
        self.nics[side].conn.handle_bound(now, key, bound);
    }

    /// When what `side` posts now reaches the other side: in order.
    fn arrival(&mut self, side: usize) -> u64 {
        let arrival = self.jittered(self.laws.latency);
        let arrival = arrival.max(self.nics[side].last_arrival);
        self.nics[side].last_arrival = arrival;
        arrival
    }

    /// A write lands: its bytes are taken as late as verbs allow.
    fn land(&mut self, side: usize, job: &WriteJob) {
        if self.nics[side].in_error {
            return;
        }
        let bytes = match &job.bytes {
            Some(bytes) => bytes.clone(),
            None => self.nics[1 - side].local(job.call, job.at, job.len),
        };
        self.nics[side].remote_write(job.rkey, job.remote, &bytes);
    }

    fn post_send(&mut self, side: usize, send: &PostSend) {
        self.nics[side].log.push((self.now, send.clone()));
        let bytes = self.nics[side].gather(send);
        let head = Head::decode(&send.head, bytes.len()).expect("a message of ours is in order");
        assert!(
            self.nics[side].in_error || usize::from(head.bufs) <= self.nics[side].posted.len(),
            "more receives promised than posted (§3.1): {head:?}"
        );
        let arrival = self.arrival(side);
        if !self.nics[side].in_error {
            let invalidate = send.invalidate;
            let arrive = Happening::Arrive { bytes, invalidate };
            self.at(arrival, 1 - side, arrive);
        }
        if let Some(work) = send.work {
            self.complete(side, work, arrival + self.laws.latency, None, None);
        }
    }

    /// Work completes in order.
    fn complete(
        &mut self,
        side: usize,
        work: WorkId,
        time: u64,
        read: Option<ReadJob>,
        kill: Option<KeyId>,
    ) {
        let flushed = self.nics[side].in_error;
        let time = time.max(self.nics[side].last_completion);
        self.nics[side].last_completion = time;
        if !flushed {
            let into = read.as_ref().map(|read| read.into);
            self.outstanding[side].push((work, into));
        }
        self.at(
            time,
            side,
            Happening::Complete {
                work,
                read,
                kill,
                flushed,
            },
        );
    }

    /// The queue pair of `side` is in error: what was posted comes back.
    fn flush(&mut self, side: usize) {
        if core::mem::replace(&mut self.nics[side].in_error, true) {
            return;
        }
        // What is on the wire arrives, and in order: messages behind a write prove that it did.
        for happening in self.happenings.iter_mut().flatten() {
            if let (to, _, Happening::Land(job)) = happening
                && *to != side
            {
                job.bytes = Some(self.nics[side].local(job.call, job.at, job.len));
            }
        }
        let work: Vec<_> = self.outstanding[side].drain(..).collect();
        for (work, _) in work {
            let done = Happening::Complete {
                work,
                read: None,
                kill: None,
                flushed: true,
            };
            self.at(self.now, side, done);
        }
    }

    /// Lets the next thing happen. `false`: nothing will ever happen again.
    pub(in crate::tests) fn step(&mut self) -> bool {
        let Some(Reverse((time, _, index))) = self.heap.pop() else {
            return false;
        };
        assert!(time >= self.now);
        self.now = time;
        let Some((side, pair, what)) = self.happenings[index].take() else {
            return true;
        };
        let is_stale = match what {
            Happening::Arrive { .. }
            | Happening::Response(_)
            | Happening::Established
            | Happening::Disconnected => pair != self.nics[side].pair,
            _ => false,
        };
        if !self.stopped[side] && !is_stale {
            self.happen(side, what);
            self.drain(side);
        }
        true
    }

    /// Nothing reaches `side` any more, and it does nothing.
    pub(in crate::tests) fn cut(&mut self, side: usize) {
        self.stopped[side] = true;
    }

    fn happen(&mut self, side: usize, what: Happening) {
        let now = self.instant();
        match what {
            Happening::Land(job) => self.land(side, &job),
            Happening::Arrive { bytes, invalidate } => self.arrive(side, &bytes, invalidate),
            Happening::Complete {
                work,
                read,
                kill,
                flushed,
            } => {
                self.finish_work(side, work, read, kill, flushed);
            }
            Happening::Bind { key, call, at, len } => self.bind(side, key, call, at, len),
            Happening::Copied(job, what) => {
                let ok = !self.trouble();
                if ok {
                    self.do_copy(side, what);
                }
                self.nics[side].conn.handle_copied(now, job, ok);
            }
            Happening::Response(data) => {
                self.nics[side]
                    .conn
                    .handle_cm(now, CmInput::Response(&data));
            }
            Happening::Established => self.nics[side].conn.handle_cm(now, CmInput::Established),
            Happening::Disconnected => {
                self.flush(side);
                self.nics[side].conn.handle_cm(now, CmInput::Disconnected);
            }
            Happening::Path => self.call(side),
            Happening::Call(data) => self.be_called(side, data),
            Happening::Refused => {
                let refused = CmInput::Rejected {
                    private_data: &[],
                    reason: "nobody is there",
                };
                self.nics[side].conn.handle_cm(now, refused);
            }
            Happening::Task(task) => App::go_on(self, side, task),
            // An earlier one was wanted later on, and then the next.
            Happening::Timeout if self.timers[side] != Some(self.now) => {}
            Happening::Timeout => {
                self.timers[side] = None;
                self.nics[side].conn.handle_timeout(now);
            }
        }
    }

    fn arrive(&mut self, side: usize, bytes: &[u8], invalidate: Option<Rkey>) {
        if self.nics[side].in_error {
            return;
        }
        let now = self.instant();
        let nic = &mut self.nics[side];
        let buf = nic
            .posted
            .pop_front()
            .expect("a message without a posted receive: credits are wrong");
        assert!(bytes.len() <= nic.buf_lens[&buf], "a message too long");
        if let Some(rkey) = invalidate {
            nic.invalidate(rkey);
        }
        nic.bufs.insert(buf, bytes.to_vec());
        let message = Received {
            head: &bytes[..bytes.len().min(HEAD_LEN_MAX)],
            len: bytes.len(),
            invalidated: invalidate,
        };
        nic.conn.handle_recv(now, buf, message);
    }

    fn finish_work(
        &mut self,
        side: usize,
        work: WorkId,
        read: Option<ReadJob>,
        kill: Option<KeyId>,
        flushed: bool,
    ) {
        let now = self.instant();
        if !flushed {
            let waiting = &mut self.outstanding[side];
            let Some(index) = waiting.iter().position(|(other, _)| *other == work) else {
                // It was flushed before it could complete.
                return;
            };
            waiting.remove(index);
        }
        if flushed {
            let nic = &mut self.nics[side];
            return nic.conn.handle_completion(now, work, Completion::Flushed);
        }
        if let Some(read) = read {
            if self.nics[1 - side].in_error {
                let gone = Completion::TransportFailed("the peer is gone");
                return self.nics[side].conn.handle_completion(now, work, gone);
            }
            if self.trouble() {
                let fault = match read.into {
                    ReadInto::Mem { .. } if self.trouble() => Completion::LocalFault,
                    _ => Completion::RemoteFault,
                };
                return self.nics[side].conn.handle_completion(now, work, fault);
            }
            // The bytes are taken as late as verbs allow.
            let bytes = self.nics[1 - side].remote_read(read.rkey, read.remote, read.len);
            self.nics[side].scatter(read.into, &bytes);
        }
        if let Some(key) = kill {
            let key = self.nics[side].keys.get_mut(&key).expect("unknown key");
            assert!(key.alive, "a dead key is killed");
            key.alive = false;
        }
        self.nics[side]
            .conn
            .handle_completion(now, work, Completion::Success);
    }

    fn do_copy(&mut self, side: usize, what: CopyWhat) {
        let nic = &mut self.nics[side];
        match what {
            CopyWhat::Stage { grant, len } => {
                let rest = nic.private.split_off(len as usize);
                let bytes = core::mem::replace(&mut nic.private, rest).into();
                assert!(nic.grants.insert(grant, bytes).is_none());
            }
            CopyWhat::Unstage { grant, len } => {
                // It is gone if the connection ended meanwhile.
                if let Some(bytes) = nic.grants.remove(&grant) {
                    assert_eq!(bytes.len(), len as usize);
                    bytes
                        .into_iter()
                        .rev()
                        .for_each(|b| nic.private.push_front(b));
                }
            }
            CopyWhat::Compact {
                buf,
                offset,
                len,
                mem,
                at,
                capacity,
            } => {
                assert!(!nic.posted.contains(&buf), "compaction of a posted buffer");
                let bytes = nic.bufs[&buf][offset as usize..][..len as usize].to_vec();
                nic.mem(mem, capacity)[at..][..len as usize].copy_from_slice(&bytes);
            }
        }
    }

    /// The queue pair of `side` is done with.
    fn leave(&mut self, side: usize, call: Option<ServiceId>) {
        assert!(self.nics[side].keys.values().all(|key| !key.alive));
        assert!(self.nics[side].grants.is_empty(), "a message left behind");
        self.nics[side].left = true;
        if call.is_some() {
            let gone = self.jittered(self.laws.latency);
            let gone = gone.max(self.nics[side].last_arrival);
            self.at(gone, 1 - side, Happening::Disconnected);
            self.flush(side);
            let time = self.jittered(2 * self.laws.latency);
            self.at(time, side, Happening::Path);
        } else if let Some(data) = self.nics[side].call.take() {
            self.be_called(side, data);
        }
    }

    /// `side` has a way to the other one.
    fn call(&mut self, side: usize) {
        if self.nics[side].conn.is_closed() {
            return;
        }
        self.nics[side].begin_anew();
        let now = self.instant();
        self.nics[side].conn.handle_path(now, 4711, None, None);
    }

    /// The other side calls `side`, which answers when it has left its old queue pair.
    fn be_called(&mut self, side: usize, data: Vec<u8>) {
        let nic = &mut self.nics[side];
        if nic.conn.is_closed() {
            let time = self.jittered(self.laws.latency);
            return self.at(time, 1 - side, Happening::Refused);
        }
        if !nic.left {
            nic.call = Some(data);
            return;
        }
        if !nic.in_error {
            // What comes back of the old one comes first.
            self.flush(side);
            return self.at(self.now, side, Happening::Call(data));
        }
        let now = self.instant();
        let nic = &mut self.nics[side];
        nic.begin_anew();
        nic.conn
            .handle_call(now, &data)
            .expect("the peer is who it is");
    }

    /// Runs until `done`.
    ///
    /// # Panics
    /// If nothing happens any more before, or if it takes too long.
    pub(in crate::tests) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..4_000_000 {
            if done(self) {
                return;
            }
            if !self.step() {
                panic!("nothing happens any more: {}", self.picture());
            }
        }
        panic!("no end: {}", self.picture());
    }

    /// Runs until nothing happens any more.
    pub(in crate::tests) fn run(&mut self) {
        for _ in 0..4_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("no end: {}", self.picture());
    }

    /// What a failing test shows.
    pub(in crate::tests) fn picture(&self) -> std::string::String {
        use core::fmt::Write;
        let mut out = std::format!("now {} ", self.now);
        for side in 0..2 {
            let nic = &self.nics[side];
            write!(
                out,
                "\nside {side}: {:?} unread {} unsent {} posted {} tasks {:?}\n  {:?}",
                nic.conn.phase(),
                nic.conn.readable_len(),
                nic.conn.unsent_len(),
                nic.posted.len(),
                self.apps[side],
                nic.conn,
            )
            .unwrap();
        }
        out
    }
}
