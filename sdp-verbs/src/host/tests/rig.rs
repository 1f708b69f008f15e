//! Two linked instances, and shorthand for what tests do with them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::host::channel::HostChannel;
use crate::host::cq::HostCq;
use crate::host::link::PeerLink;
use crate::host::plane::{ControlOut, LocalSide, PeerHello, PeerIdentity, Plane, PlaneMsg};
use crate::host::qp::HostQp;
use crate::host::region::{HostRegion, HostWindow};
use crate::memory::RecvBuf;
use crate::mr::{Binding, MemoryRegion};
use crate::qp::{QpAttr, QueuePair};
use crate::types::{Access, QpNum, RemoteAddr, Rkey, Sge, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WcStatus, WorkCompletion};

/// Longer than anything here takes, on any machine.
pub(super) const LONG: Duration = Duration::from_secs(30);

/// A message on its way.
type Held = (PlaneMsg, Option<OwnedFd>);

/// A control socket to the link at its other end.
#[derive(Debug, Default)]
pub(super) struct Wire {
    peer: OnceLock<Weak<PeerLink>>,
    /// While set, messages wait here.
    held: Mutex<Option<Vec<Held>>>,
}

impl Wire {
    /// Holds messages back.
    pub(super) fn hold(&self) {
        *self.held.lock().unwrap() = Some(Vec::new());
    }

    /// Delivers what was held, and what follows at once.
    pub(super) fn release(&self) {
        let held = self.held.lock().unwrap().take().unwrap_or_default();
        for (msg, fd) in held {
            self.deliver(msg, fd).unwrap();
        }
    }

    fn deliver(&self, msg: PlaneMsg, fd: Option<OwnedFd>) -> Result<(), VerbsError> {
        let Some(peer) = self.peer.get().and_then(Weak::upgrade) else {
            return Ok(());
        };
        match (msg, fd) {
            (PlaneMsg::Chunk { id, len }, Some(fd)) => peer.attach_chunk(id, fd, len),
            (PlaneMsg::Region { id, len }, Some(fd)) => peer.attach_region(id, fd, len),
            (PlaneMsg::RegionGone { id }, None) => peer.detach_region(id),
            (PlaneMsg::TokenSocket { index, qp }, Some(fd)) => {
                peer.attach_token_socket((index, qp), fd)
            }
            other => panic!("descriptors do not fit {other:?}"),
        }
    }
}

impl ControlOut for Wire {
    fn send(&self, msg: PlaneMsg, fds: &[BorrowedFd<'_>]) -> Result<(), VerbsError> {
        assert!(fds.len() <= 1);
        let fd = fds.first().map(|fd| fd.try_clone_to_owned().unwrap());
        if let Some(held) = &mut *self.held.lock().unwrap() {
            held.push((msg, fd));
            return Ok(());
        }
        self.deliver(msg, fd)
    }

    fn is_deserted(&self) -> bool {
        false
    }
}

/// One end: an instance, its link, a channel, a completion queue and a queue pair.
#[derive(Debug)]
pub(super) struct End {
    pub(super) plane: Arc<Plane>,
    pub(super) link: Arc<PeerLink>,
    pub(super) wire: Arc<Wire>,
    pub(super) channel: Arc<HostChannel>,
    pub(super) cq: Arc<HostCq>,
    pub(super) qp: Arc<HostQp>,
}

pub(super) fn hello(side: &LocalSide) -> PeerHello {
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    PeerHello {
        facts: side.facts(),
        doorbell: own(side.doorbell()),
        base: own(side.base()),
        key_table: Some(own(side.key_table())),
        tokens: true,
    }
}

pub(super) fn me() -> PeerIdentity {
    PeerIdentity {
        pid: std::process::id().cast_signed(),
        uid: rustix::process::geteuid().as_raw(),
    }
}

/// Two new instances, linked.
pub(super) fn link_two(who: PeerIdentity) -> [(Arc<PeerLink>, Arc<Wire>); 2] {
    link_planes(&Plane::new().unwrap(), &Plane::new().unwrap(), who)
}

/// A new link between two instances.
pub(super) fn link_again(a: &Arc<Plane>, b: &Arc<Plane>) -> [(Arc<PeerLink>, Arc<Wire>); 2] {
    link_planes(a, b, me())
}

fn link_planes(
    a: &Arc<Plane>,
    b: &Arc<Plane>,
    who: PeerIdentity,
) -> [(Arc<PeerLink>, Arc<Wire>); 2] {
    let sides = [a.open_side().unwrap(), b.open_side().unwrap()];
    let hellos = [hello(&sides[1]), hello(&sides[0])];
    let wires = [Arc::new(Wire::default()), Arc::new(Wire::default())];
    let mut made = Vec::new();
    for ((side, hello), wire) in sides.into_iter().zip(hellos).zip(&wires) {
        let out: Arc<dyn ControlOut> = Arc::clone(wire) as _;
        made.push(PeerLink::new(side, who, hello, out).unwrap());
    }
    wires[0].peer.set(Arc::downgrade(&made[1])).unwrap();
    wires[1].peer.set(Arc::downgrade(&made[0])).unwrap();
    let [a, b] = <[_; 2]>::try_from(made).unwrap();
    let [wire_a, wire_b] = wires;
    [(a, wire_a), (b, wire_b)]
}

/// Sizes that differ from test to test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) send: u32,
    pub(super) recv: u32,
    pub(super) rnr_retry: u8,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            send: 16,
            recv: 16,
            rnr_retry: 7,
        }
    }
}

impl End {
    fn over(link: Arc<PeerLink>, wire: Arc<Wire>, token: u64, sizes: Sizes) -> Self {
        let plane = Arc::clone(link.plane());
        let channel = HostChannel::new(&plane).unwrap();
        let cq = HostCq::new(&plane, 64, Arc::clone(&channel), CqToken(token));
        let qp = create_qp(&link, &cq, sizes);
        Self {
            plane,
            link,
            wire,
            channel,
            cq,
            qp,
        }
    }

    /// A receive posted.
    pub(super) fn recv(&self, wr_id: u64, len: usize) -> RecvBuf {
        let buf = self.qp.alloc_recv(len).unwrap();
        self.qp.post_recv(WrId(wr_id), &buf).unwrap();
        buf
    }

    /// A signalled SEND of bytes.
    pub(super) fn send(&self, wr_id: u64, bytes: &[u8]) {
        self.post(wr_id, send_op(bytes, None));
    }

    /// A signalled request.
    pub(super) fn post(&self, wr_id: u64, op: SendOp<'_>) {
        self.qp.post_send(signaled(wr_id, op)).unwrap();
    }

    /// Everything that completes without more being done. A poll may carry out a transfer that
    /// gives no completion, so some empty answers in a row mean the end.
    pub(super) fn drain(&self) -> Vec<WorkCompletion> {
        let mut all = Vec::new();
        let mut empty = 0;
        while empty < 4 {
            let some = self.poll_some(4);
            empty = if some.is_empty() { empty + 1 } else { 0 };
            all.extend(some);
        }
        all
    }

    /// Polls, but not for ever: for ends whose peer may keep them busy.
    pub(super) fn drain_bounded(&self) {
        for _ in 0..8 {
            self.poll_some(4);
        }
    }

    /// One poll for up to `count`.
    pub(super) fn poll_some(&self, count: usize) -> Vec<WorkCompletion> {
        let mut out = vec![blank(); count];
        let filled = self.cq.poll(&mut out);
        out.truncate(filled);
        out
    }

    /// The one completion there is.
    pub(super) fn one(&self) -> WorkCompletion {
        let all = self.drain();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    }

    /// Registered memory of ours, filled.
    pub(super) fn owned(&self, bytes: &[u8]) -> HostRegion {
        let region = HostRegion::allocate(&self.plane, bytes.len()).unwrap();
        fill(&region, bytes);
        region
    }

    /// The caller's memory registered; it must outlive the region.
    pub(super) fn heap(&self, memory: &mut [u8], access: Access) -> HostRegion {
        let addr = NonNull::new(memory.as_mut_ptr()).unwrap();
        HostRegion::over_heap(&self.plane, addr, memory.len(), access).unwrap()
    }

    /// A window bound over a whole region.
    pub(super) fn bind(&self, region: &HostRegion, len: usize, access: Access) -> Bound {
        let window = HostWindow::new(&self.plane);
        let binding = Binding {
            lkey: region.lkey(),
            addr: region.addr(),
            len,
            access,
        };
        let unsignaled = SendFlags::empty();
        let rkey = self.qp.bind(WrId(0), unsignaled, &window, binding).unwrap();
        Bound {
            window,
            rkey,
            addr: RemoteAddr(region.addr().as_ptr().addr() as u64),
        }
    }
}

/// A bound window and what a peer needs to know of it.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) window: HostWindow,
    pub(super) rkey: Rkey,
    pub(super) addr: RemoteAddr,
}

/// Writes into a region.
pub(super) fn fill(region: &HostRegion, bytes: &[u8]) {
    assert!(bytes.len() <= region.len());
    // SAFETY: the region is that long, and tests make no references into it.
    unsafe { std::ptr::copy(bytes.as_ptr(), region.addr().as_ptr(), bytes.len()) };
}

/// Reads from a region.
pub(super) fn bytes_of(region: &HostRegion, len: usize) -> Vec<u8> {
    assert!(len <= region.len());
    let mut bytes = vec![0; len];
    // SAFETY: as for `fill`.
    unsafe { std::ptr::copy(region.addr().as_ptr(), bytes.as_mut_ptr(), len) };
    bytes
}

/// A whole region as an element.
pub(super) fn sge(region: &HostRegion, len: usize) -> Sge {
    Sge {
        addr: region.addr().as_ptr(),
        len,
        lkey: region.lkey(),
    }
}

pub(super) fn create_qp(link: &Arc<PeerLink>, cq: &Arc<HostCq>, sizes: Sizes) -> Arc<HostQp> {
    let cq: Arc<dyn CompletionQueue> = Arc::clone(cq) as _;
    let attr = QpAttr {
        cq,
        send_wr_max: sizes.send,
        recv_wr_max: sizes.recv,
        rnr_retry: sizes.rnr_retry,
        silence_max: None,
    };
    link.create_qp(&attr).unwrap()
}

/// Two connected ends.
pub(super) fn pair() -> (End, End) {
    pair_with(Sizes::default())
}

pub(super) fn pair_with(sizes: Sizes) -> (End, End) {
    let (a, b) = unconnected(sizes);
    connect(&a.qp, &b.qp);
    (a, b)
}

/// Two connected ends that take each other for `who`.
pub(super) fn pair_between(who: PeerIdentity) -> (End, End) {
    let [(a, wire_a), (b, wire_b)] = link_two(who);
    let sizes = Sizes::default();
    let ends = (
        End::over(a, wire_a, 1, sizes),
        End::over(b, wire_b, 2, sizes),
    );
    connect(&ends.0.qp, &ends.1.qp);
    ends
}

pub(super) fn unconnected(sizes: Sizes) -> (End, End) {
    let [(a, wire_a), (b, wire_b)] = link_two(me());
    (
        End::over(a, wire_a, 1, sizes),
        End::over(b, wire_b, 2, sizes),
    )
}

pub(super) fn connect(a: &HostQp, b: &HostQp) {
    a.connect_to(&b.descriptor()).unwrap();
    b.connect_to(&a.descriptor()).unwrap();
}

pub(super) fn signaled(wr_id: u64, op: SendOp<'_>) -> SendWr<'_> {
    SendWr {
        wr_id: WrId(wr_id),
        op,
        flags: SendFlags::SIGNALED,
    }
}

pub(super) fn send_op(bytes: &[u8], invalidate: Option<Rkey>) -> SendOp<'_> {
    SendOp::Send {
        data: SendData::Inline(bytes),
        invalidate,
    }
}

pub(super) fn contents(buf: &RecvBuf, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    buf.mem().read(0, &mut bytes);
    bytes
}

pub(super) fn blank() -> WorkCompletion {
    WorkCompletion {
        wr_id: WrId(u64::MAX),
        status: WcStatus::Flushed,
        opcode: WcOpcode::Recv,
        byte_len: 0,
        invalidated: None,
        qp: QpNum(0),
    }
}

/// What tests compare most often.
pub(super) fn brief(all: &[WorkCompletion]) -> Vec<(u64, WcOpcode, WcStatus)> {
    all.iter()
        .map(|wc| (wc.wr_id.0, wc.opcode, wc.status))
        .collect()
}

/// Waits for a descriptor to become readable; false after `LONG`.
pub(super) fn readable(channel: &HostChannel) -> bool {
    ready_within(channel, LONG)
}

/// Whether a descriptor is readable now.
pub(super) fn is_readable(channel: &HostChannel) -> bool {
    ready_within(channel, Duration::ZERO)
}

fn ready_within(channel: &HostChannel, time: Duration) -> bool {
    let fd = channel.fd();
    let mut fds = [rustix::event::PollFd::new(
        &fd,
        rustix::event::PollFlags::IN,
    )];
    let time = rustix::event::Timespec::try_from(time).unwrap();
    rustix::event::poll(&mut fds, Some(&time)).unwrap() > 0
}

/// Calls `step` until it says something, for at most `LONG`.
pub(super) fn until<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(done) = step() {
            return done;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// A thread that does something again and again until this is dropped, also by a failed test.
#[derive(Debug)]
pub(super) struct Poller {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Poller {
    pub(super) fn start(step: impl Fn() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}
