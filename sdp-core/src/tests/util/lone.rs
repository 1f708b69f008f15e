//! One engine against a scripted peer: every message the peer sends is made by hand.

use std::collections::BTreeSet;
use std::vec::Vec;

use sdp_wire::{
    Body, Flags, HEAD_LEN_MAX, HELLO_LEN, Head, Hello, HelloAck, HelloForm, Mid, RemoteAddr, Rkey,
    SrcAvail, Version,
};

use crate::connection::Connection;
use crate::{
    Action, BufferId, CallError, CmInput, Completion, Config, ConnectionError, CopyTarget, Event,
    Instant, KeyId, ReadInto, Received, RecvId, RecvRequest, RecvStep, SendId, SendRequest,
    SendStep, WorkId,
};

/// An accepted connection, and what its peer knows.
#[derive(Debug)]
pub(in crate::tests) struct Lone {
    pub(in crate::tests) conn: Connection,
    pub(in crate::tests) now: u64,
    /// Messages the engine has posted and the test has not looked at.
    pub(in crate::tests) sent: Vec<(Head, Option<Rkey>)>,
    /// Numbers of those that wake the peer.
    pub(in crate::tests) solicited: Vec<u32>,
    /// Other actions, likewise.
    pub(in crate::tests) actions: Vec<Action>,
    pub(in crate::tests) posted: Vec<BufferId>,
    /// Receives that have memory, posted or not.
    allocated: BTreeSet<BufferId>,
    /// Receives posted so far.
    pub(in crate::tests) posted_count: u32,
    /// Lengths of the receives posted, likewise.
    pub(in crate::tests) posted_lens: Vec<u32>,
    pub(in crate::tests) last_work: Option<WorkId>,
    /// Signalled messages.
    pub(in crate::tests) works: Vec<WorkId>,
    /// Next MSeq of the peer, the last of the engine's it has received, and its Bufs.
    pub(in crate::tests) mseq: u32,
    pub(in crate::tests) seen: u32,
    pub(in crate::tests) bufs: u16,
    /// Keys are made when the test says so, not at once.
    pub(in crate::tests) late_keys: bool,
    /// There is memory for receives of this length at most.
    pub(in crate::tests) recv_len_max: u32,
    /// The receives for which there was none.
    pub(in crate::tests) refused: Vec<BufferId>,
}

/// A Hello such as any peer sends.
pub(in crate::tests) fn hello() -> Hello {
    Hello {
        bufs: 8,
        version: Version::V2_2,
        form: HelloForm::Whole,
        invalidate_cap: true,
        adverts_max: 4,
        desired_remote_recv_size: 4096,
        local_recv_size: 4096,
        local_port: 1,
        src: None,
        dst: None,
    }
}

/// A HelloAck such as any peer sends.
pub(in crate::tests) const HELLO_ACK: HelloAck = HelloAck {
    bufs: 8,
    version: Version::V2_2,
    adverts_max: 4,
    actual_recv_size: 4096,
    invalidate_cap: false,
};

impl Lone {
    /// Accepted, and confirmed.
    pub(in crate::tests) fn new(config: Config) -> Self {
        Self::called_by(&hello(), config)
    }

    /// As [`Self::new`], with a peer of its own kind.
    pub(in crate::tests) fn called_by(peer: &Hello, config: Config) -> Self {
        let mut lone = Self::accepted_from(peer, config);
        lone.conn.handle_cm(lone.instant(), CmInput::Established);
        lone.drain();
        lone.actions.clear();
        lone
    }

    /// Accepted, not yet confirmed.
    pub(in crate::tests) fn accepted(config: Config) -> Self {
        Self::accepted_from(&hello(), config)
    }

    fn accepted_from(peer: &Hello, config: Config) -> Self {
        let mut bytes = [0; HELLO_LEN];
        peer.encode(&mut bytes);
        let conn = Connection::accept(Instant::from_nanos(0), config, &bytes).unwrap();
        let mut lone = Self {
            conn,
            now: 0,
            sent: Vec::new(),
            solicited: Vec::new(),
            actions: Vec::new(),
            posted: Vec::new(),
            allocated: BTreeSet::new(),
            posted_count: 0,
            posted_lens: Vec::new(),
            last_work: None,
            works: Vec::new(),
            mseq: 1,
            seen: 0,
            bufs: 8,
            late_keys: false,
            recv_len_max: u32::MAX,
            refused: Vec::new(),
        };
        lone.drain();
        lone
    }

    /// There is a new queue pair, and the engine has just been told.
    pub(in crate::tests) fn begin_anew(&mut self) {
        self.sent.clear();
        self.posted.clear();
        self.allocated.clear();
        self.posted_count = 0;
        (self.mseq, self.seen) = (1, 0);
        self.drain();
    }

    pub(in crate::tests) fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    pub(in crate::tests) fn drain(&mut self) {
        while let Some(action) = self.conn.poll_action() {
            match action {
                Action::PostSend(send) => {
                    let total = send.head_len + send.payload.byte_len() as usize;
                    let head = Head::decode(&send.head, total).unwrap();
                    // Where nothing waits for a receive, each one told of must be there already.
                    let used = self.mseq.wrapping_sub(1);
                    let told = used.wrapping_add(u32::from(head.bufs));
                    assert!(
                        told <= self.posted_count,
                        "{head:?} tells of too many receives"
                    );
                    if send.solicited {
                        self.solicited.push(head.mseq);
                    }
                    self.last_work = send.work.or(self.last_work);
                    self.works.extend(send.work);
                    self.sent.push((head, send.invalidate));
                }
                Action::PostRecv { buf, len } if len > self.recv_len_max => {
                    self.refused.push(buf);
                    self.conn.buffer_unavailable(self.instant(), buf);
                }
                Action::PostRecv { buf, len } => {
                    self.posted_count += 1;
                    self.allocated.insert(buf);
                    self.posted.push(buf);
                    self.posted_lens.push(len);
                }
                Action::BindKey { key, .. } => {
                    if !self.late_keys {
                        self.make_key(key);
                    }
                    self.actions.push(action);
                }
                Action::Register { call, .. } => {
                    self.conn.handle_registered(self.instant(), call, Ok(()));
                }
                Action::Copy(job) => self.conn.handle_copied(self.instant(), job.id, true),
                Action::FreeRecv(buf) => {
                    let idle = !self.posted.contains(&buf);
                    assert!(idle, "{buf:?} is given back while it is posted");
                    let had = self.allocated.remove(&buf);
                    assert!(had, "{buf:?} is given back and had no memory");
                    self.actions.push(action);
                }
                Action::KeepUrgent { buf, .. } => {
                    let filled = self.allocated.contains(&buf) && !self.posted.contains(&buf);
                    assert!(filled, "{buf:?} holds no message any more");
                    self.actions.push(action);
                }
                other => self.actions.push(other),
            }
        }
    }

    /// The peer has received all that was sent, and forgets what it was.
    pub(in crate::tests) fn see_all(&mut self) -> Vec<Mid> {
        let mids = self.sent.iter().map(|(head, _)| head.mid()).collect();
        if let Some((head, _)) = self.sent.last() {
            self.seen = head.mseq;
        }
        self.sent.clear();
        mids
    }

    /// The last message of kind `mid` that the engine sent.
    pub(in crate::tests) fn find(&self, mid: Mid) -> Head {
        let found = self.sent.iter().rev().find(|(head, _)| head.mid() == mid);
        found
            .unwrap_or_else(|| panic!("no {mid} in {:?}", self.sent))
            .0
    }

    pub(in crate::tests) fn mids(&self) -> Vec<Mid> {
        self.sent.iter().map(|(head, _)| head.mid()).collect()
    }

    /// The peer sends `body` with `payload_len` bytes of payload.
    pub(in crate::tests) fn peer(&mut self, body: Body, payload_len: u32) {
        self.peer_invalidating(body, payload_len, None);
    }

    pub(in crate::tests) fn peer_invalidating(
        &mut self,
        body: Body,
        payload_len: u32,
        invalidated: Option<Rkey>,
    ) {
        let head = self.next_head(body, payload_len);
        self.mseq += 1;
        self.peer_head(head, invalidated);
    }

    pub(in crate::tests) fn next_head(&self, body: Body, payload_len: u32) -> Head {
        Head {
            flags: Flags::empty(),
            bufs: self.bufs,
            mseq: self.mseq,
            mseq_ack: self.seen,
            body,
            payload_len,
        }
    }

    pub(in crate::tests) fn peer_head(&mut self, head: Head, invalidated: Option<Rkey>) {
        let mut bytes = [0; HEAD_LEN_MAX];
        head.encode(&mut bytes);
        self.peer_bytes(&bytes, head.len() as usize, invalidated);
    }

    /// As [`Self::peer`], and no action is carried out yet.
    pub(in crate::tests) fn peer_queued(&mut self, body: Body, payload_len: u32) {
        let head = self.next_head(body, payload_len);
        self.peer_head_queued(head);
    }

    /// As [`Self::peer_queued`], Data whose last byte is urgent. Gives the buffer it came into.
    pub(in crate::tests) fn peer_urgent_queued(&mut self, payload_len: u32) -> BufferId {
        let buf = self.posted[0];
        let flags = Flags::OOB_PRES | Flags::OOB_PEND;
        let head = self.next_head(Body::Data, payload_len);
        self.peer_head_queued(Head { flags, ..head });
        buf
    }

    fn peer_head_queued(&mut self, head: Head) {
        self.mseq += 1;
        let mut bytes = [0; HEAD_LEN_MAX];
        head.encode(&mut bytes);
        self.take(&bytes, head.len() as usize, None);
    }

    pub(in crate::tests) fn peer_bytes(
        &mut self,
        bytes: &[u8],
        len: usize,
        invalidated: Option<Rkey>,
    ) {
        self.take(bytes, len, invalidated);
        self.drain();
    }

    fn take(&mut self, bytes: &[u8], len: usize, invalidated: Option<Rkey>) {
        let buf = self.posted.remove(0);
        let message = Received {
            head: bytes,
            len,
            invalidated,
        };
        self.conn.handle_recv(self.instant(), buf, message);
    }

    /// The peer advertises.
    pub(in crate::tests) fn peer_advertises(&mut self, len: u32, inline: u32) {
        let advert = SrcAvail {
            len,
            rkey: Rkey(77),
            addr: RemoteAddr(0x5000),
        };
        self.peer(Body::SrcAvail(advert), inline);
    }

    fn make_key(&mut self, key: KeyId) {
        let found = (rkey(key), RemoteAddr(0x1000));
        self.conn.handle_bound(self.instant(), key, Ok(found));
    }

    /// Makes the key that was asked for last.
    pub(in crate::tests) fn make_late_key(&mut self) {
        let keys = self.actions.iter().rev();
        let asked = keys.into_iter().find_map(|action| match action {
            Action::BindKey { key, .. } => Some(*key),
            _ => None,
        });
        self.make_key(asked.expect("no key was asked for"));
        self.drain();
    }

    /// Kills the keys that are to be killed.
    pub(in crate::tests) fn kill_keys(&mut self) {
        let is_kill = |action: &Action| matches!(action, Action::InvalidateKey { .. });
        while let Some(index) = self.actions.iter().position(is_kill) {
            if let Action::InvalidateKey { work, .. } = self.actions.remove(index) {
                self.complete(work, Completion::Success);
            }
        }
    }

    pub(in crate::tests) fn complete(&mut self, work: WorkId, result: Completion) {
        self.conn.handle_completion(self.instant(), work, result);
        self.drain();
    }

    pub(in crate::tests) fn unposted(&mut self, work: WorkId, result: Completion) {
        self.conn.handle_unposted(self.instant(), work, result);
        self.drain();
    }

    /// The reads posted and not looked at: work, target, length.
    pub(in crate::tests) fn take_reads(&mut self) -> Vec<(WorkId, ReadInto, u32)> {
        let mut reads = Vec::new();
        self.actions.retain(|action| match action {
            Action::RdmaRead {
                work, into, len, ..
            } => {
                reads.push((*work, *into, *len));
                false
            }
            _ => true,
        });
        reads
    }

    /// The writes posted and not looked at: work, remote address, length.
    pub(in crate::tests) fn take_writes(&mut self) -> Vec<(WorkId, u64, u32)> {
        let mut writes = Vec::new();
        self.actions.retain(|action| match action {
            Action::RdmaWrite {
                work, remote, len, ..
            } => {
                writes.push((*work, remote.0, *len));
                false
            }
            _ => true,
        });
        writes
    }

    pub(in crate::tests) fn pass(&mut self, time: u64) {
        self.now += time;
        self.conn.handle_timeout(self.instant());
        self.drain();
    }

    /// Starts a send of `len` bytes of advertisable memory and polls it once.
    pub(in crate::tests) fn send(&mut self, len: usize) -> (SendId, SendStep) {
        let request = SendRequest {
            len,
            segment_ends: [len].into_iter().collect(),
            nonblocking: false,
            urgent: false,
            registered: false,
            copy_reason: None,
        };
        let id = self.conn.send_start(self.instant(), request);
        (id, self.poll_send(id))
    }

    pub(in crate::tests) fn poll_send(&mut self, id: SendId) -> SendStep {
        let step = self.conn.send_poll(self.instant(), id);
        self.drain();
        step
    }

    /// Does the copies the call asks for, until it asks for something else.
    pub(in crate::tests) fn copy_out(&mut self, id: SendId) -> (SendStep, usize) {
        let mut copied = 0;
        loop {
            match self.poll_send(id) {
                SendStep::Copy { len, to, .. } => {
                    copied += len;
                    self.send_copied(id, len, to);
                }
                other => return (other, copied),
            }
        }
    }

    /// Sends `len` bytes by copies, none of which has to wait.
    pub(in crate::tests) fn send_all(&mut self, len: usize) {
        let (id, mut step) = self.send(len);
        while let SendStep::Copy { len, to, .. } = step {
            self.send_copied(id, len, to);
            step = self.poll_send(id);
        }
        assert_eq!(step, SendStep::Done(Ok(len)));
    }

    pub(in crate::tests) fn send_copied(&mut self, id: SendId, len: usize, to: CopyTarget) {
        self.conn.send_copied(self.instant(), id, len, to);
        self.drain();
    }

    pub(in crate::tests) fn recv(&mut self, len: usize) -> (RecvId, RecvStep) {
        let request = RecvRequest {
            len,
            segment_ends: [len].into_iter().collect(),
            nonblocking: false,
            peek: false,
            wait_all: false,
            copy_reason: None,
        };
        let id = self.conn.recv_start(self.instant(), request);
        (id, self.poll_recv(id))
    }

    pub(in crate::tests) fn poll_recv(&mut self, id: RecvId) -> RecvStep {
        let step = self.conn.recv_poll(self.instant(), id);
        self.drain();
        step
    }

    /// Receives what is there, by copies.
    pub(in crate::tests) fn copy_in(&mut self, id: RecvId) -> RecvStep {
        loop {
            match self.poll_recv(id) {
                RecvStep::Copy { len, .. } => {
                    self.conn.recv_copied(self.instant(), id, len);
                    self.drain();
                }
                other => return other,
            }
        }
    }

    /// Receives `len` bytes that are there, by copies.
    pub(in crate::tests) fn recv_all(&mut self, len: usize) {
        let (id, mut step) = self.recv(len);
        while let RecvStep::Copy { len, .. } = step {
            self.conn.recv_copied(self.instant(), id, len);
            self.drain();
            step = self.poll_recv(id);
        }
        assert_eq!(step, RecvStep::Done(Ok(len)));
    }

    /// Why the connection has ended, as told by the event.
    pub(in crate::tests) fn closed(&mut self) -> Option<Option<ConnectionError>> {
        let mut closed = None;
        while let Some(event) = self.conn.poll_event() {
            if let Event::Closed(why) = event {
                closed = Some(why);
            }
        }
        closed
    }

    /// The rule the peer has broken.
    pub(in crate::tests) fn broken_rule(&mut self) -> &'static str {
        match self.closed() {
            Some(Some(ConnectionError::PeerMisbehaved(rule))) => rule,
            other => panic!("not a broken rule: {other:?}"),
        }
    }

    pub(in crate::tests) fn is_alive(&self) -> bool {
        !self.conn.is_closed()
    }
}

/// The key the driver made for `key`.
pub(in crate::tests) fn rkey(key: KeyId) -> Rkey {
    Rkey(0x700 + key.0)
}

/// Of a call whose connection failed.
pub(in crate::tests) fn failed(error: ConnectionError) -> Result<usize, CallError> {
    Err(CallError::Connection(error))
}
