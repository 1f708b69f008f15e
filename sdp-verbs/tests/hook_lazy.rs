//! `hook::Lazy` dawdles: what these tests see happen late, host alone does at once.

#![expect(
    clippy::unwrap_used,
    reason = "a set-up that fails has failed the test"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sdp_verbs::hook::Lazy;
use sdp_verbs::host::HostProvider;
use sdp_verbs::{
    Access, ArmFor, BindRequest, Caps, CmEventKind, CmId, CompChannel, CompletionQueue, CqToken,
    EventChannel, ForeignSlice, MemoryRegion, PostError, Provider, QpAttr, QpNum, QueuePair,
    SendData, SendFlags, SendOp, SendWr, Sge, VerbsError, WcOpcode, WcStatus, WorkCompletion, WrId,
};

const NOTHING: WorkCompletion = WorkCompletion {
    wr_id: WrId(0),
    status: WcStatus::Success,
    opcode: WcOpcode::Recv,
    byte_len: 0,
    invalidated: None,
    qp: QpNum(0),
};

/// One end, and what it needs to live.
struct End {
    provider: Arc<dyn Provider>,
    events: Arc<dyn EventChannel>,
    comp: Arc<dyn CompChannel>,
    cq: Arc<dyn CompletionQueue>,
    id: Arc<dyn CmId>,
    qp: Option<Arc<dyn QueuePair>>,
    seen: RefCell<VecDeque<CmEventKind>>,
}

impl End {
    fn new(provider: Arc<dyn Provider>) -> Self {
        let events = provider.create_event_channel().unwrap();
        let comp = provider.create_comp_channel().unwrap();
        let cq = provider.create_cq(64, &comp, CqToken(1)).unwrap();
        let id = provider.create_id(&events).unwrap();
        Self {
            provider,
            events,
            comp,
            cq,
            id,
            qp: None,
            seen: RefCell::default(),
        }
    }

    fn qp(&self) -> &dyn QueuePair {
        &**self.qp.as_ref().expect("a queue pair")
    }

    fn create_qp(&mut self) {
        let qp = self.id.create_qp(&QpAttr {
            cq: Arc::clone(&self.cq),
            send_wr_max: 8,
            recv_wr_max: 8,
            rnr_retry: 7,
            silence_max: None,
        });
        self.qp = Some(qp.unwrap());
    }

    fn send(&self, number: u64, data: SendData<'_>, flags: SendFlags) -> Result<(), PostError> {
        let op = SendOp::Send {
            data,
            invalidate: None,
        };
        self.qp().post_send(SendWr {
            wr_id: WrId(number),
            op,
            flags,
        })
    }

    /// The next event of this end, while the other one is served too.
    fn event(&self, other: &Self) -> CmEventKind {
        until(|| {
            for end in [self, other] {
                end.seen
                    .borrow_mut()
                    .extend(end.events.poll().map(|event| event.kind));
            }
            self.seen.borrow_mut().pop_front()
        })
    }

    fn poll(&self) -> Option<WorkCompletion> {
        let mut out = [NOTHING];
        (self.cq.poll(&mut out) == 1).then_some(out[0])
    }
}

/// Looks again until something is found, for no longer than anything may take.
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "nothing came");
        std::thread::yield_now();
    }
}

/// A connection between a lazy sender and a receiver that is as given.
fn connect(receiver: Arc<dyn Provider>) -> (End, End) {
    let lazy = Lazy::new(Arc::new(HostProvider::open().unwrap())).seeded(3);
    let (mut sender, mut receiver) = (End::new(Arc::new(lazy)), End::new(receiver));
    let listener = receiver.provider.create_id(&receiver.events).unwrap();
    let request = BindRequest {
        addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        only_v6: false,
        reuse_port: false,
    };
    listener.bind(request).unwrap();
    listener.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    sender.id.resolve(addr, Duration::from_secs(5)).unwrap();
    let resolved = sender.event(&receiver);
    assert!(matches!(resolved, CmEventKind::Resolved), "{resolved:?}");
    sender.create_qp();
    sender.id.connect(b"").unwrap();
    let request = receiver.event(&sender);
    let CmEventKind::ConnectRequest { id, .. } = request else {
        panic!("{request:?}");
    };
    receiver.id = id;
    receiver.create_qp();
    receiver.id.accept(b"").unwrap();
    let accepted = sender.event(&receiver);
    assert!(
        matches!(accepted, CmEventKind::ConnectResponse { .. }),
        "{accepted:?}"
    );
    sender.id.establish().unwrap();
    let established = receiver.event(&sender);
    assert!(
        matches!(established, CmEventKind::Established),
        "{established:?}"
    );
    (sender, receiver)
}

fn host() -> Arc<dyn Provider> {
    Arc::new(HostProvider::open().unwrap())
}

fn names(region: &dyn MemoryRegion) -> ForeignSlice {
    // SAFETY: the caller keeps the region, and nobody makes references into it.
    unsafe { ForeignSlice::new(region.addr(), region.len()) }
}

/// The first request of a connection is let out at once; this one gets it out of the way.
fn warm_up(sender: &End, receiver: &End) {
    let buf = receiver.qp().alloc_recv(16).unwrap();
    receiver.qp().post_recv(WrId(1000), &buf).unwrap();
    sender
        .send(1000, SendData::Inline(b"first"), SendFlags::SIGNALED)
        .unwrap();
    until(|| sender.poll());
    assert_eq!(until(|| receiver.poll()).byte_len, 5);
}

#[test]
fn a_send_takes_its_bytes_when_polled() {
    let (sender, receiver) = connect(host());
    warm_up(&sender, &receiver);
    let buf = receiver.qp().alloc_recv(64).unwrap();
    receiver.qp().post_recv(WrId(1), &buf).unwrap();
    let region = sender.provider.alloc_registered(4096).unwrap();
    let mem = names(&*region);
    mem.write(0, b"too early");
    let sge = Sge {
        addr: region.addr().as_ptr(),
        len: 9,
        lkey: region.lkey(),
    };
    sender
        .send(2, SendData::Sges(&[sge]), SendFlags::SIGNALED)
        .unwrap();
    // Nothing gets out while nobody polls the sender.
    assert!((0..1000).all(|_| receiver.poll().is_none()));
    mem.write(0, b"just now.");
    assert_eq!(until(|| sender.poll()).wr_id, WrId(2));
    assert_eq!(until(|| receiver.poll()).byte_len, 9);
    let mut got = [0; 9];
    buf.mem().read(0, &mut got);
    assert_eq!(&got, b"just now.");
}

#[test]
fn unsignalled_requests_keep_their_places() {
    let (sender, receiver) = connect(host());
    let bufs: Vec<_> = (0..8)
        .map(|_| receiver.qp().alloc_recv(16).unwrap())
        .collect();
    for (number, buf) in (0..).zip(&bufs) {
        receiver.qp().post_recv(WrId(number), buf).unwrap();
    }
    for number in 0..8 {
        sender
            .send(number, SendData::Inline(b"x"), SendFlags::empty())
            .unwrap();
    }
    for number in 0..8 {
        let wc = until(|| {
            assert!(sender.poll().is_none(), "an unsignalled request completed");
            receiver.poll()
        });
        assert_eq!((wc.wr_id, wc.status), (WrId(number), WcStatus::Success));
    }
    // All have been delivered, and still the queue is full.
    let full = sender.send(8, SendData::Inline(b"x"), SendFlags::SIGNALED);
    assert_eq!(full, Err(PostError::QueueFull));
}

#[test]
fn received_bytes_appear_with_the_completion() {
    let lazy = Lazy::new(Arc::new(HostProvider::open().unwrap())).seeded(9);
    let (sender, receiver) = connect(Arc::new(lazy));
    warm_up(&sender, &receiver);
    let buf = receiver.qp().alloc_recv(5).unwrap();
    buf.mem().write(0, b"mine.");
    receiver.qp().post_recv(WrId(1), &buf).unwrap();
    sender
        .send(2, SendData::Inline(b"yours"), SendFlags::SIGNALED)
        .unwrap();
    until(|| sender.poll());
    let mut got = [0; 5];
    buf.mem().read(0, &mut got);
    assert!(
        &got != b"mine." && &got != b"yours",
        "a posted buffer shows {got:?}"
    );
    until(|| receiver.poll());
    buf.mem().read(0, &mut got);
    assert_eq!(&got, b"yours");
}

#[test]
fn held_work_rings_an_armed_channel() {
    let (sender, receiver) = connect(host());
    warm_up(&sender, &receiver);
    while sender.comp.poll().is_some() {}
    let buf = receiver.qp().alloc_recv(16).unwrap();
    receiver.qp().post_recv(WrId(1), &buf).unwrap();
    sender.cq.arm(ArmFor::ChannelSolicited);
    assert_eq!(sender.comp.poll(), None);
    sender
        .send(1, SendData::Inline(b"out"), SendFlags::empty())
        .unwrap();
    // A progress thread that does what the channel says gets it out.
    until(|| {
        while sender.comp.poll().is_some() {
            sender.cq.arm(ArmFor::ChannelSolicited);
            sender.poll();
        }
        receiver.poll()
    });
}

#[test]
fn a_capability_that_is_off_is_unsupported() {
    let off = Caps::MEMORY_WINDOW | Caps::RDMA_READ;
    let lazy = Lazy::new(host()).without(off);
    assert_eq!(lazy.caps(), host().caps() - off - Caps::TOKENS);
    assert!(matches!(
        lazy.alloc_window(),
        Err(VerbsError::Unsupported { .. })
    ));
    let lazy = Lazy::new(host()).without(Caps::REMOTE_MR);
    let mut heap = vec![0u8; 4096];
    let addr = NonNull::new(heap.as_mut_ptr()).unwrap();
    // SAFETY: the call is refused, so nothing is ever done with the memory.
    let region = unsafe { lazy.register(addr, 4096, Access::REMOTE_READ) };
    assert!(
        matches!(region, Err(VerbsError::Unsupported { .. })),
        "{region:?}"
    );
}
