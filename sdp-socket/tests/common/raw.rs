//! A peer that speaks verbs, and says what it likes.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use sdp_verbs::{
    Access, BindRequest, Caps, CmEvent, CmEventKind, CmId, CompChannel, CompletionQueue, CqToken,
    EventChannel, ForeignSlice, MemoryRegion, PostError, Provider, QpAttr, QpNum, QueuePair,
    RecvBuf, RejectReason, RemoteAddr, Rkey, SendData, SendFlags, SendOp, SendWr, Sge, WcOpcode,
    WcStatus, WorkCompletion, WrId,
};
use sdp_wire::{Body, Carrier, HEAD_LEN_MAX, HELLO_LEN, Head, Hello, HelloAck, HelloForm, Version};

use super::sdp::host;
use super::watch::doing;

/// Receives the raw peer posts.
const RECVS: u16 = 8;
const RECV_LEN: usize = 4096;

/// A provider instance of its own, and its queues.
#[derive(Debug)]
pub(crate) struct RawSide {
    pub(crate) provider: Arc<dyn Provider>,
    events: Arc<dyn EventChannel>,
    comp: Arc<dyn CompChannel>,
}

/// One connection of the raw peer's.
#[derive(Debug)]
pub(crate) struct RawEnd {
    pub(crate) id: Arc<dyn CmId>,
    pub(crate) qp: Arc<dyn QueuePair>,
    cq: Arc<dyn CompletionQueue>,
    recvs: Vec<RecvBuf>,
    /// Number of the next message.
    pub(crate) mseq: u32,
}

/// How a connect request ended.
#[derive(Debug)]
pub(crate) enum Answer {
    Accepted(Vec<u8>),
    Rejected(RejectReason),
}

/// A Hello that is in order.
pub(crate) fn good_hello() -> Hello {
    Hello {
        bufs: RECVS,
        version: Version::V2_2,
        form: HelloForm::Whole,
        invalidate_cap: false,
        adverts_max: 4,
        desired_remote_recv_size: 4096,
        local_recv_size: u32::try_from(RECV_LEN).expect("fits"),
        local_port: 0,
        src: None,
        dst: None,
    }
}

/// Its bytes.
pub(crate) fn hello_bytes(hello: &Hello) -> Vec<u8> {
    let mut bytes = [0; HELLO_LEN];
    let len = hello.encode(&mut bytes);
    bytes[..len].to_vec()
}

/// A HelloAck that is in order.
pub(crate) fn good_ack() -> Vec<u8> {
    let mut bytes = [0; sdp_wire::HELLO_ACK_LEN];
    let ack = HelloAck {
        bufs: RECVS,
        version: Version::V2_2,
        adverts_max: 4,
        actual_recv_size: u32::try_from(RECV_LEN).expect("fits"),
        invalidate_cap: false,
    };
    ack.encode(&mut bytes);
    bytes.to_vec()
}

impl RawSide {
    pub(crate) fn new() -> Self {
        Self::over(host())
    }

    /// Over a provider of another kind.
    pub(crate) fn over(provider: Arc<dyn Provider>) -> Self {
        Self {
            events: provider.create_event_channel().expect("an event channel"),
            comp: provider.create_comp_channel().expect("a channel"),
            provider,
        }
    }

    /// The next event of connection management.
    pub(crate) fn event(&self, what: &str) -> CmEvent {
        doing(format!("the event: {what}"));
        loop {
            if let Some(event) = self.events.poll() {
                return event;
            }
            std::thread::yield_now();
        }
    }

    /// The provider's background work is done by whoever polls its channel.
    fn work(&self) {
        if let Some(event) = self.events.poll() {
            tracing::debug!("meanwhile: {event:?}");
        }
    }

    /// A queue pair for `id`, with receives.
    pub(crate) fn end(&self, id: Arc<dyn CmId>) -> RawEnd {
        let cq = self
            .provider
            .create_cq(256, &self.comp, CqToken(1))
            .expect("a queue");
        let qp = id
            .create_qp(&QpAttr {
                cq: Arc::clone(&cq),
                send_wr_max: 64,
                recv_wr_max: 64,
                rnr_retry: 7,
                silence_max: None,
            })
            .expect("a queue pair");
        let mut recvs = Vec::new();
        for n in 0..RECVS {
            let buf = qp.alloc_recv(RECV_LEN).expect("a buffer");
            qp.post_recv(WrId(u64::from(n)), &buf).expect("a receive");
            recvs.push(buf);
        }
        RawEnd {
            id,
            qp,
            cq,
            recvs,
            mseq: 1,
        }
    }

    /// Asks to connect, with these bytes for a Hello.
    pub(crate) fn connect(&self, addr: SocketAddr, hello: &[u8]) -> (RawEnd, Answer) {
        let id = self.provider.create_id(&self.events).expect("an id");
        id.resolve(addr, Duration::from_secs(20)).expect("resolve");
        match self.event("resolved").kind {
            CmEventKind::Resolved => {}
            other => panic!("{other:?} in place of Resolved"),
        }
        let end = self.end(id);
        end.id.connect(hello).expect("connect");
        let answer = match self.event("an answer to the connect request").kind {
            CmEventKind::ConnectResponse { private_data } => Answer::Accepted(private_data),
            CmEventKind::Rejected { reason, .. } => Answer::Rejected(reason),
            other => panic!("{other:?} in place of an answer"),
        };
        (end, answer)
    }

    /// Connects in good order.
    pub(crate) fn connected(&self, addr: SocketAddr) -> RawEnd {
        let room = self.provider.limits().connect_data_max;
        let form = match Carrier::for_private_len(room) {
            Some(Carrier::Compact) => HelloForm::Compact,
            _ => HelloForm::Whole,
        };
        let hello = Hello {
            form,
            ..good_hello()
        };
        let (mut end, answer) = self.connect(addr, &hello_bytes(&hello));
        let Answer::Accepted(ack) = answer else {
            panic!("a good Hello was answered with {answer:?}");
        };
        HelloAck::decode(&ack).expect("a good HelloAck");
        end.id.establish().expect("establish");
        if self.provider.caps().contains(Caps::CALLER_FIRST) {
            end.speak_first(self);
        }
        end
    }

    /// Listens.
    pub(crate) fn listen(&self) -> (Arc<dyn CmId>, SocketAddr) {
        let id = self.provider.create_id(&self.events).expect("an id");
        id.bind(BindRequest {
            addr: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            only_v6: false,
            reuse_port: false,
        })
        .expect("bind");
        id.listen(8).expect("listen");
        let addr = id.local_addr().expect("an address");
        (id, addr)
    }

    /// Waits for a connect request and makes its end; the Hello is checked.
    pub(crate) fn requested(&self) -> RawEnd {
        match self.event("a connect request").kind {
            CmEventKind::ConnectRequest { id, private_data } => {
                let carrier = Carrier::Whole;
                Hello::decode(&private_data, carrier).expect("a good Hello");
                self.end(id)
            }
            other => panic!("{other:?} in place of a request"),
        }
    }
}

/// Memory of the raw peer's that its peer may read, registered for it.
#[derive(Debug)]
pub(crate) struct Exposed {
    // Gone before the memory is.
    region: Arc<dyn MemoryRegion>,
    memory: Box<[u8]>,
}

impl Exposed {
    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    /// What the peer reads it by.
    pub(crate) fn key(&self) -> (Rkey, RemoteAddr) {
        let rkey = self.region.rkey().expect("a key");
        (rkey, RemoteAddr(self.region.addr().as_ptr() as u64))
    }

    /// Makes every byte `byte`.
    pub(crate) fn fill(&self, byte: u8) {
        // SAFETY: the memory is there as long as this value, and only peers read it.
        let memory = unsafe { ForeignSlice::new(self.region.addr(), self.len()) };
        memory.write(0, &vec![byte; self.len()]);
    }
}

impl RawSide {
    /// Memory of `len` bytes that the peer may read.
    pub(crate) fn expose(&self, len: usize) -> Exposed {
        let mut memory = vec![0; len].into_boxed_slice();
        let addr = NonNull::from(&mut *memory).cast();
        let access = Access::LOCAL_WRITE | Access::REMOTE_READ;
        // SAFETY: the memory outlives the region, and is not used but by its address.
        let region = unsafe { self.provider.register(addr, len, access) };
        Exposed {
            region: region.expect("a region"),
            memory,
        }
    }
}

impl RawEnd {
    /// Sends bytes as one message.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.qp
            .post_send(SendWr {
                wr_id: WrId(1 << 32),
                op: SendOp::Send {
                    data: SendData::Inline(bytes),
                    invalidate: None,
                },
                flags: SendFlags::SIGNALED | SendFlags::SOLICITED,
            })
            .expect("post_send");
    }

    /// Reads the peer's memory into fresh memory of our own: how the work request ended, and the
    /// bytes.
    pub(crate) fn read(
        &self,
        side: &RawSide,
        (rkey, addr): (Rkey, RemoteAddr),
        len: usize,
    ) -> (WcStatus, Vec<u8>) {
        let target = side.provider.alloc_registered(len).expect("memory");
        let local = [Sge {
            addr: target.addr().as_ptr(),
            len,
            lkey: target.lkey(),
        }];
        let op = || SendOp::Read {
            local: &local,
            remote: addr,
            rkey,
        };
        let status = self.carry_out(side, op);
        let mut bytes = vec![0; len];
        // SAFETY: the region is mapped, and nothing writes to it any more.
        let memory = unsafe { ForeignSlice::new(target.addr(), len) };
        memory.read(0, &mut bytes);
        (status, bytes)
    }

    /// Writes memory of our own to the peer's; how the work request ended.
    pub(crate) fn write(
        &self,
        side: &RawSide,
        (rkey, addr): (Rkey, RemoteAddr),
        memory: &Exposed,
    ) -> WcStatus {
        let local = [Sge {
            addr: memory.region.addr().as_ptr(),
            len: memory.len(),
            lkey: memory.region.lkey(),
        }];
        let op = || SendOp::Write {
            local: &local,
            remote: addr,
            rkey,
        };
        self.carry_out(side, op)
    }

    /// Posts a request and waits for its end.
    fn carry_out<'a>(&self, side: &RawSide, op: impl Fn() -> SendOp<'a>) -> WcStatus {
        let wr_id = WrId(2 << 32);
        let request = || SendWr {
            wr_id,
            op: op(),
            flags: SendFlags::SIGNALED,
        };
        doing("a request of the raw peer's");
        let mut is_posted = false;
        loop {
            if !is_posted {
                match self.qp.post_send(request()) {
                    Ok(()) => is_posted = true,
                    // The requests that followed its first message are not all done.
                    Err(PostError::QueueFull) => {}
                    // The peer has ended the connection.
                    Err(PostError::WrongState) => return WcStatus::Flushed,
                    Err(error) => panic!("post_send: {error}"),
                }
            }
            match self.completion() {
                Some(wc) if wc.wr_id == wr_id => return wc.status,
                // A message that came meanwhile is not waited for here.
                Some(_) => {}
                None => {
                    side.work();
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Sends the message before which the peer may send none, and hears the answer. As the adapter may
    /// leave the message lying until something else comes, requests without bytes follow it.
    fn speak_first(&mut self, side: &RawSide) {
        self.say(Body::Data, &[]);
        doing("the answer to the raw peer's first message");
        loop {
            match self.completion() {
                Some(wc) if wc.opcode == WcOpcode::Recv => {
                    let bytes = self.received(&wc).expect("the answer");
                    let head = Head::decode(&bytes, bytes.len()).expect("a good message");
                    assert_eq!((head.body, head.payload_len), (Body::Data, 0));
                    return;
                }
                Some(wc) => assert_eq!(wc.status, WcStatus::Success),
                None => {
                    let knock = SendOp::Write {
                        local: &[],
                        remote: RemoteAddr(0),
                        rkey: Rkey(0),
                    };
                    let (wr_id, flags) = (WrId(3 << 32), SendFlags::SIGNALED);
                    match self.qp.post_send(SendWr {
                        wr_id,
                        op: knock,
                        flags,
                    }) {
                        Ok(()) | Err(PostError::QueueFull) => {}
                        Err(error) => panic!("post_send: {error}"),
                    }
                    side.work();
                    std::thread::yield_now();
                }
            }
        }
    }

    /// A message with the next number.
    pub(crate) fn message(&mut self, body: Body, payload: &[u8]) -> Vec<u8> {
        let head = Head {
            flags: sdp_wire::Flags::empty(),
            bufs: RECVS,
            mseq: self.mseq,
            mseq_ack: 0,
            body,
            payload_len: u32::try_from(payload.len()).expect("short"),
        };
        self.mseq += 1;
        let mut bytes = [0; HEAD_LEN_MAX];
        let len = head.encode(&mut bytes);
        [&bytes[..len], payload].concat()
    }

    /// Sends a message in good order.
    pub(crate) fn say(&mut self, body: Body, payload: &[u8]) {
        let bytes = self.message(body, payload);
        self.send(&bytes);
    }

    fn completion(&self) -> Option<WorkCompletion> {
        let mut wcs = [WorkCompletion {
            wr_id: WrId(0),
            status: WcStatus::Success,
            opcode: WcOpcode::Recv,
            byte_len: 0,
            invalidated: None,
            qp: QpNum(0),
        }];
        (self.cq.poll(&mut wcs) == 1).then(|| wcs[0])
    }

    /// The next message that has come, or how the receive ended.
    pub(crate) fn hear(&self, side: &RawSide) -> Result<Vec<u8>, WcStatus> {
        doing("a message to the raw peer");
        loop {
            let Some(wc) = self.completion() else {
                side.work();
                std::thread::yield_now();
                continue;
            };
            if wc.opcode != WcOpcode::Recv {
                continue;
            }
            return self.received(&wc);
        }
    }

    /// The message that a receive got, or how it ended; its buffer is posted again.
    fn received(&self, wc: &WorkCompletion) -> Result<Vec<u8>, WcStatus> {
        if wc.status != WcStatus::Success {
            return Err(wc.status);
        }
        let index = usize::try_from(wc.wr_id.0).expect("small");
        let mut bytes = vec![0; wc.byte_len];
        self.recvs[index].mem().read(0, &mut bytes);
        // The connection may have been cut meanwhile: the next completions say so.
        if let Err(error) = self.qp.post_recv(wc.wr_id, &self.recvs[index]) {
            assert_eq!(error, PostError::WrongState, "post_recv");
        }
        Ok(bytes)
    }

    /// Waits until the connection is down here: every receive comes back flushed. Returns the
    /// messages that came before.
    pub(crate) fn hear_the_end(&self, side: &RawSide) -> Vec<Head> {
        let mut heads = Vec::new();
        loop {
            match self.hear(side) {
                Ok(bytes) => {
                    let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
                    heads.push(head.expect("a good message"));
                }
                Err(status) => {
                    assert_eq!(status, WcStatus::Flushed);
                    return heads;
                }
            }
        }
    }
}
