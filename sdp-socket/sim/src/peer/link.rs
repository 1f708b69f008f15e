//! Verbs for a peer that is not our stack: a queue pair, messages with their numbers and credits,
//! and memory that is shown to the other side.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sdp_verbs::sim::SimProvider;
use sdp_verbs::{
    Access, ArmFor, BindRequest, Binding, CmEventKind, CmId, CompChannel, CompletionQueue, CqToken,
    EventChannel, ForeignSlice, MemoryRegion, MemoryWindow, Provider, QpAttr, QpNum, QueuePair,
    RecvBuf, RemoteAddr, Rkey, SendData, SendFlags, SendOp, SendWr, Sge, Wake, WcOpcode, WcStatus,
    WorkCompletion, WrId,
};
use sdp_wire::{
    BSDH_LEN, Body, Carrier, Flags, HEAD_LEN_MAX, HELLO_ACK_LEN, HELLO_LEN, Head, Hello, HelloAck,
    HelloForm,
};

use super::habits::Habits;
use crate::actor::wait;

/// Receives posted.
const RECVS: u16 = 16;
/// Length of each, header included.
pub(super) const RECV_LEN: usize = 4096;
/// Requests in the send queue, at most: messages are bounded by credits, the rest by what is open.
const SEND_WR_MAX: u32 = 1024;

/// Kinds of receive and request, in the upper bits of their names.
const RECV: u64 = 0;
const OTHER: u64 = 1 << 56;

/// What a peer hears.
#[derive(Debug)]
pub(super) enum Heard {
    Message(Head, Vec<u8>),
    /// A READ or WRITE has ended.
    Moved(u64),
}

/// Memory that is registered, and may be shown.
#[derive(Debug)]
pub(super) struct Shown {
    /// Dropped before its region.
    window: Option<Box<dyn MemoryWindow>>,
    region: Arc<dyn MemoryRegion>,
    pub(super) rkey: Option<Rkey>,
}

impl Shown {
    fn slice(&self) -> ForeignSlice {
        // SAFETY: the region is mapped as long as it is there, and this process reads and writes
        // it by copies only.
        unsafe { ForeignSlice::new(self.region.addr(), self.region.len()) }
    }

    pub(super) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.slice().read(at, &mut bytes);
        bytes
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        self.slice().write(0, bytes);
    }

    pub(super) fn addr(&self) -> u64 {
        self.region.addr().as_ptr() as u64
    }

    fn sge(&self, at: usize, len: usize) -> Sge {
        Sge {
            addr: self.region.addr().as_ptr().wrapping_add(at),
            len,
            lkey: self.region.lkey(),
        }
    }
}

/// One connection.
pub(super) struct Link {
    provider: Arc<SimProvider>,
    events: Arc<dyn EventChannel>,
    _comp: Arc<dyn CompChannel>,
    cq: Arc<dyn CompletionQueue>,
    qp: Arc<dyn QueuePair>,
    id: Arc<dyn CmId>,
    _listener: Option<Arc<dyn CmId>>,
    recvs: Vec<RecvBuf>,
    /// Of these, those whose completion has not been polled.
    posted: u16,
    /// Keys that are dying, and their memory, by the request that kills them.
    dying: BTreeMap<u64, Shown>,
    next_work: u64,
    /// MSeq of the next message, and of the last one heard.
    next: u32,
    seen: u32,
    /// The last MSeq that may be used.
    limit: u32,
    /// The last MSeq that the other side was told it may use.
    told: u32,
    /// MSeqAck stays below this one.
    pub(super) hold: Option<u32>,
    /// Length of the other side's receives, and adverts it takes at once.
    pub(super) peer_recv_len: usize,
    pub(super) peer_adverts: usize,
    pub(super) may_send: bool,
    /// Receives have come back in error, or none is left to come back: nothing more will come.
    pub(super) down: bool,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Link {
    fn now(provider: &SimProvider) -> u64 {
        u64::try_from(provider.now().as_nanos()).unwrap_or(u64::MAX)
    }

    fn event(provider: &SimProvider, events: &Arc<dyn EventChannel>) -> CmEventKind {
        loop {
            if let Some(event) = events.poll() {
                return event.kind;
            }
            let now = || Self::now(provider);
            wait("a connection", None, now, || provider.has_events());
        }
    }

    /// Makes an end of the connection: everything but the handshake.
    fn end(
        provider: &Arc<SimProvider>,
        events: Arc<dyn EventChannel>,
        id: Arc<dyn CmId>,
    ) -> Result<Self, String> {
        let comp = provider.create_comp_channel().map_err(text)?;
        let cq = provider.create_cq(4096, &comp, CqToken(1)).map_err(text)?;
        let attr = QpAttr {
            cq: Arc::clone(&cq),
            send_wr_max: SEND_WR_MAX,
            recv_wr_max: u32::from(RECVS),
            rnr_retry: 7,
            silence_max: None,
        };
        let qp = id.create_qp(&attr).map_err(text)?;
        let mut recvs = Vec::new();
        for number in 0..RECVS {
            let buf = qp.alloc_recv(RECV_LEN).map_err(text)?;
            qp.post_recv(WrId(RECV | u64::from(number)), &buf)
                .map_err(text)?;
            recvs.push(buf);
        }
        Ok(Self {
            provider: Arc::clone(provider),
            events,
            _comp: comp,
            cq,
            qp,
            id,
            _listener: None,
            recvs,
            posted: RECVS,
            dying: BTreeMap::new(),
            next_work: OTHER,
            next: 1,
            seen: 0,
            limit: 0,
            told: u32::from(RECVS),
            hold: None,
            peer_recv_len: 0,
            peer_adverts: 0,
            may_send: false,
            down: false,
        })
    }

    /// Connects.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) fn connect(
        provider: &Arc<SimProvider>,
        to: SocketAddr,
        habits: &Habits,
    ) -> Result<Self, String> {
        let events = provider.create_event_channel().map_err(text)?;
        let id = provider.create_id(&events).map_err(text)?;
        id.resolve(to, Duration::from_secs(20)).map_err(text)?;
        match Self::event(provider, &events) {
            CmEventKind::Resolved => {}
            other => return Err(format!("{other:?} in place of an address")),
        }
        let mut link = Self::end(provider, events, id)?;
        let recv_len = u32::try_from(RECV_LEN).unwrap_or(u32::MAX);
        let hello = Hello {
            bufs: RECVS,
            version: habits.version,
            form: HelloForm::Whole,
            invalidate_cap: false,
            adverts_max: habits.adverts_max,
            desired_remote_recv_size: recv_len,
            local_recv_size: recv_len,
            local_port: 1,
            src: None,
            dst: None,
        };
        let mut bytes = [0; HELLO_LEN];
        let len = hello.encode(&mut bytes);
        link.id.connect(&bytes[..len]).map_err(text)?;
        match Self::event(provider, &link.events) {
            CmEventKind::ConnectResponse { private_data } => {
                let ack = HelloAck::decode(&private_data).map_err(text)?;
                link.meet(ack.bufs, ack.actual_recv_size, u16::from(ack.adverts_max));
                link.id.establish().map_err(text)?;
                link.may_send = true;
                Ok(link)
            }
            other => Err(format!("{other:?} in place of a response")),
        }
    }

    /// Listens, calls `listening`, and accepts.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) fn accept(
        provider: &Arc<SimProvider>,
        at: SocketAddr,
        habits: &Habits,
        listening: impl FnOnce(),
    ) -> Result<Self, String> {
        let events = provider.create_event_channel().map_err(text)?;
        let listener = provider.create_id(&events).map_err(text)?;
        let bind = BindRequest {
            addr: at,
            only_v6: false,
            reuse_port: false,
        };
        listener.bind(bind).map_err(text)?;
        listener.listen(1).map_err(text)?;
        listening();
        let limit = Self::now(provider) + super::ACCEPT_MAX;
        let (id, data) = loop {
            match events.poll().map(|event| event.kind) {
                Some(CmEventKind::ConnectRequest { id, private_data }) => break (id, private_data),
                Some(_) => {}
                None => {
                    let now = || Self::now(provider);
                    if !wait("a call", Some(limit), now, || provider.has_events()) {
                        return Err("nobody called".to_owned());
                    }
                }
            }
        };
        let hello = Hello::decode(&data, Carrier::Whole).map_err(text)?;
        let mut link = Self::end(provider, events, id)?;
        link._listener = Some(listener);
        link.meet(hello.bufs, hello.local_recv_size, hello.adverts_max);
        let ack = HelloAck {
            bufs: RECVS,
            version: hello.version,
            adverts_max: u8::try_from(habits.adverts_max).unwrap_or(u8::MAX),
            actual_recv_size: u32::try_from(RECV_LEN).unwrap_or(u32::MAX),
            invalidate_cap: false,
        };
        let mut bytes = [0; HELLO_ACK_LEN];
        ack.encode(&mut bytes);
        link.id.accept(&bytes).map_err(text)?;
        Ok(link)
    }

    fn meet(&mut self, bufs: u16, recv_len: u32, adverts: u16) {
        self.limit = u32::from(bufs);
        self.peer_recv_len = usize::try_from(recv_len).unwrap_or(usize::MAX);
        self.peer_adverts = usize::from(adverts);
    }

    /// Messages that may be sent.
    pub(super) fn credits(&self) -> u32 {
        if self.may_send && !self.down {
            self.limit.saturating_sub(self.next - 1)
        } else {
            0
        }
    }

    /// MSeq of the last message that was said.
    pub(super) const fn said(&self) -> u32 {
        self.next - 1
    }

    fn ack(&self) -> u32 {
        self.hold.map_or(self.seen, |hold| self.seen.min(hold - 1))
    }

    /// The other side is short of credits that can be told.
    pub(super) fn update_due(&self) -> bool {
        let limit = self.ack() + u32::from(RECVS);
        let known = self.told.saturating_sub(self.seen);
        limit > self.told + 1 && known <= u32::from(RECVS) / 2
    }

    /// Sends a message if the credits suffice. Says whether it did.
    pub(super) fn say(&mut self, body: Body, flags: Flags, payload: &[u8]) -> bool {
        let limit = self.ack() + u32::from(RECVS);
        let enough = match self.credits() {
            0 => false,
            1 => payload.is_empty() && limit > self.told,
            2 => payload.is_empty(),
            _ => true,
        };
        if !enough {
            return false;
        }
        let head = Head {
            flags,
            bufs: RECVS,
            mseq: self.next,
            mseq_ack: self.ack(),
            body,
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        };
        let mut bytes = [0; HEAD_LEN_MAX];
        let len = head.encode(&mut bytes);
        let message = [&bytes[..len], payload].concat();
        let flags = match head.is_solicited() {
            true => SendFlags::SIGNALED | SendFlags::SOLICITED,
            false => SendFlags::SIGNALED,
        };
        let data = SendData::Inline(&message);
        let op = SendOp::Send {
            data,
            invalidate: None,
        };
        if self.post(op, flags).is_none() {
            return false;
        }
        self.next += 1;
        self.told = limit;
        true
    }

    fn post(&mut self, op: SendOp<'_>, flags: SendFlags) -> Option<u64> {
        let work = self.next_work;
        self.next_work += 1;
        let wr_id = WrId(work);
        match self.qp.post_send(SendWr { wr_id, op, flags }) {
            Ok(()) => Some(work),
            Err(_) => {
                self.may_send = false;
                None
            }
        }
    }

    /// Reads the other side's memory into the beginning of `into`.
    pub(super) fn read(
        &mut self,
        into: &Shown,
        len: usize,
        (rkey, addr): (u32, u64),
    ) -> Option<u64> {
        let op = SendOp::Read {
            local: &[into.sge(0, len)],
            remote: RemoteAddr(addr),
            rkey: Rkey(rkey),
        };
        self.post(op, SendFlags::SIGNALED)
    }

    /// Writes bytes `at..` of `from` into the other side's memory.
    pub(super) fn write(
        &mut self,
        from: &Shown,
        (at, len): (usize, usize),
        (rkey, addr): (u32, u64),
    ) -> Option<u64> {
        let op = SendOp::Write {
            local: &[from.sge(at, len)],
            remote: RemoteAddr(addr),
            rkey: Rkey(rkey),
        };
        self.post(op, SendFlags::SIGNALED)
    }

    /// Registered memory; none if there is no more.
    pub(super) fn memory(&self, len: usize) -> Option<Shown> {
        let region = self.provider.alloc_registered(len).ok()?;
        Some(Shown {
            window: None,
            region,
            rkey: None,
        })
    }

    /// Gives the other side a key for memory. Says whether that could be done.
    pub(super) fn show(&mut self, memory: &mut Shown, len: usize, access: Access) -> bool {
        let Ok(window) = self.provider.alloc_window() else {
            return false;
        };
        let binding = Binding {
            lkey: memory.region.lkey(),
            addr: memory.region.addr(),
            len,
            access,
        };
        let wr_id = WrId(self.next_work);
        self.next_work += 1;
        match self.qp.bind(wr_id, SendFlags::SIGNALED, &*window, binding) {
            Ok(rkey) => {
                memory.rkey = Some(rkey);
                memory.window = Some(window);
                true
            }
            Err(_) => {
                self.may_send = false;
                false
            }
        }
    }

    /// Memory is not shown any more: its key dies, then it goes.
    pub(super) fn hide(&mut self, memory: Shown) {
        if let Some(rkey) = memory.rkey
            && let Some(work) = self.post(SendOp::LocalInv { rkey }, SendFlags::SIGNALED)
        {
            self.dying.insert(work, memory);
        } else {
            self.dying.insert(u64::MAX - self.next_work, memory);
            self.next_work += 1;
        }
    }

    /// What has come next, if anything.
    pub(super) fn poll(&mut self) -> Option<Heard> {
        loop {
            while let Some(event) = self.events.poll() {
                match event.kind {
                    CmEventKind::Established => self.may_send = true,
                    // What came before is still in the queue; the receives behind it come back.
                    CmEventKind::Disconnected => self.may_send = false,
                    CmEventKind::Failed(_) => self.down = true,
                    _ => {}
                }
            }
            let mut wcs = [WorkCompletion {
                wr_id: WrId(0),
                status: WcStatus::Success,
                opcode: WcOpcode::Recv,
                byte_len: 0,
                invalidated: None,
                qp: QpNum(0),
            }];
            if self.cq.poll(&mut wcs) == 0 {
                return None;
            }
            let [wc] = wcs;
            if wc.status != WcStatus::Success {
                self.may_send = false;
                self.down |= wc.opcode == WcOpcode::Recv;
                continue;
            }
            match wc.opcode {
                WcOpcode::Recv => {
                    self.may_send = true;
                    if let Some(heard) = self.received(&wc) {
                        return Some(heard);
                    }
                }
                WcOpcode::Read | WcOpcode::Write => return Some(Heard::Moved(wc.wr_id.0)),
                WcOpcode::LocalInv => drop(self.dying.remove(&wc.wr_id.0)),
                _ => {}
            }
        }
    }

    fn received(&mut self, wc: &WorkCompletion) -> Option<Heard> {
        let index = usize::try_from(wc.wr_id.0 & !OTHER).ok()?;
        let buf = self.recvs.get(index)?;
        let mut bytes = vec![0; wc.byte_len];
        buf.mem().read(0, &mut bytes);
        if self.qp.post_recv(wc.wr_id, buf).is_err() {
            // It is over; what came before is heard all the same.
            self.may_send = false;
            self.posted -= 1;
            self.down |= self.posted == 0;
        }
        let head = Head::decode(&bytes, bytes.len()).ok()?;
        self.seen = head.mseq;
        self.limit = head.mseq_ack + u32::from(head.bufs);
        let payload = bytes.split_off(head.head_len().max(BSDH_LEN));
        Some(Heard::Message(head, payload))
    }

    /// Waits until something has come, or until a time. What `poll` has not given counts.
    pub(super) fn wait(&self, until: Option<u64>) {
        let token = self.cq.arm(ArmFor::Waiter);
        let came = || {
            let look = self.cq.wait(token, Some(Duration::ZERO));
            !matches!(look, Ok(Wake::TimedOut)) || self.provider.has_events()
        };
        wait("a message", until, || Self::now(&self.provider), came);
    }

    /// Both sides have said goodbye: returns when everything is out and all keys are dead.
    pub(super) fn disconnect(&mut self) {
        self.id.disconnect();
        while !self.down {
            if self.poll().is_none() && !self.down {
                self.wait(None);
            }
        }
    }

    /// Everything stops.
    pub(super) fn abort(&mut self) {
        self.qp.set_error();
        self.id.disconnect();
        self.down = true;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use sdp_verbs::Rng;
    use sdp_verbs::sim::{Drive, Fabric, Faults, SimOptions, Timing};

    use super::*;
    use crate::actor::Actor;
    use crate::cli::Peer;
    use crate::program::ADDRESS;

    /// Two ends of a connection: who called, and who was called.
    fn connected() -> [Link; 2] {
        let fabric = Fabric::new(1, Drive::Eager, Timing::default(), Faults::none());
        let habits = Habits::of(Peer::BcopyOnly, &mut Rng::new(1, 1));
        let ends = Rc::new(RefCell::new([None, None]));
        let nodes = [(); 2].map(|()| fabric.node(SimOptions::default()));
        let mut actors: Vec<_> = nodes
            .into_iter()
            .enumerate()
            .map(|(side, node)| {
                let ends = Rc::clone(&ends);
                Actor::new(format!("peer {side}"), side, move || {
                    let to = ADDRESS.into();
                    let link = match side {
                        0 => Link::connect(&node, to, &habits),
                        _ => Link::accept(&node, to, &habits, || {}),
                    };
                    ends.borrow_mut()[side] = Some(link.expect("a connection"));
                })
            })
            .collect();
        // The listener is there before it is called.
        for side in [1, 0, 1, 0] {
            actors[side].resume();
        }
        ends.take().map(|end| end.expect("an end"))
    }

    /// All receives had been used up when the connection went down, so none came back in error:
    /// the peer waited for one for ever.
    #[test]
    fn a_connection_is_down_though_no_receive_was_left_to_be_flushed() {
        let [mut caller, mut called] = connected();
        assert!(called.poll().is_none());
        let update = |link: &mut Link| link.say(Body::Data, Flags::empty(), &[]);
        for _ in 1..RECVS {
            assert!(update(&mut caller));
        }
        // The last credit is for a message that brings one.
        assert!(update(&mut called));
        assert!(caller.poll().is_some());
        assert!(update(&mut caller));
        caller.abort();
        let heard = Rc::new(RefCell::new(0));
        let count = Rc::clone(&heard);
        let mut end = Actor::new("end".to_owned(), 1, move || {
            while called.poll().is_some() {
                *count.borrow_mut() += 1;
            }
            called.disconnect();
        });
        end.resume();
        assert_eq!(*heard.borrow(), RECVS);
        assert!(end.is_done());
    }
}
