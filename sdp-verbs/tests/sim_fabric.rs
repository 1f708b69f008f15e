//! The simulated fabric by itself: a run repeats, costs are what was asked for, faults come as
//! verbs report them.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sdp_verbs::sim::{Drive, Fabric, Fault, Faults, SimOptions, SimProvider, Timing, Work};
use sdp_verbs::{
    BindRequest, Caps, CmEventKind, CmId, CompletionQueue, CqToken, EventChannel, Provider, QpAttr,
    QpNum, QueuePair, RecvBuf, RemoteAddr, Rkey, SendData, SendFlags, SendOp, SendWr, WcOpcode,
    WcStatus, WorkCompletion, WrId,
};

const RECVS: u64 = 16;

const NOTHING: WorkCompletion = WorkCompletion {
    wr_id: WrId(0),
    status: WcStatus::Success,
    opcode: WcOpcode::Recv,
    byte_len: 0,
    invalidated: None,
    qp: QpNum(0),
};

/// One end of a connection.
struct End {
    cq: Arc<dyn CompletionQueue>,
    qp: Arc<dyn QueuePair>,
    id: Arc<dyn CmId>,
    events: Arc<dyn EventChannel>,
    bufs: Vec<RecvBuf>,
}

struct Pair {
    fabric: Arc<Fabric>,
    nodes: [Arc<SimProvider>; 2],
    ends: [End; 2],
}

fn next_event(fabric: &Fabric, channel: &dyn EventChannel) -> CmEventKind {
    loop {
        if let Some(event) = channel.poll() {
            return event.kind;
        }
        assert!(fabric.step(None), "no event, and nothing under way");
    }
}

fn end(node: &SimProvider, id: Arc<dyn CmId>, events: Arc<dyn EventChannel>, retries: u8) -> End {
    let channel = node.create_comp_channel().unwrap();
    let cq = node.create_cq(64, &channel, CqToken(1)).unwrap();
    let attr = QpAttr {
        cq: Arc::clone(&cq),
        send_wr_max: 16,
        recv_wr_max: 16,
        rnr_retry: retries,
        silence_max: None,
    };
    let qp = id.create_qp(&attr).unwrap();
    let mut bufs = Vec::new();
    for number in 0..RECVS {
        let buf = qp.alloc_recv(64 << 10).unwrap();
        qp.post_recv(WrId(number), &buf).unwrap();
        bufs.push(buf);
    }
    End {
        cq,
        qp,
        id,
        events,
        bufs,
    }
}

impl Pair {
    fn new(seed: u64, timing: Timing, faults: Faults, retries: u8) -> Self {
        Self::answered(seed, timing, retries, Caps::empty()).established(faults)
    }

    /// Both sides' adapters can also do `more`. One side has accepted, and the other does not know yet.
    fn answered(seed: u64, timing: Timing, retries: u8, more: Caps) -> Self {
        let fabric = Fabric::new(seed, Drive::Stepped, timing, Faults::none());
        let mut options = SimOptions::default();
        options.caps |= more;
        let nodes = [(); 2].map(|()| fabric.node(options));
        Self::between(fabric, nodes, 7000, retries)
    }

    /// Another connection between the same machines, by another port.
    fn beside(&self, port: u16) -> Self {
        let (fabric, nodes) = (Arc::clone(&self.fabric), self.nodes.clone());
        Self::between(fabric, nodes, port, 7).established(Faults::none())
    }

    fn between(fabric: Arc<Fabric>, nodes: [Arc<SimProvider>; 2], port: u16, retries: u8) -> Self {
        let [here, there] = [0, 1].map(|side: usize| nodes[side].create_event_channel().unwrap());
        let listener = nodes[1].create_id(&there).unwrap();
        let addr = SocketAddr::from(([10, 0, 0, 2], port));
        let request = BindRequest {
            addr,
            only_v6: false,
            reuse_port: false,
        };
        listener.bind(request).unwrap();
        listener.listen(1).unwrap();
        let id = nodes[0].create_id(&here).unwrap();
        id.resolve(addr, Duration::from_secs(1)).unwrap();
        assert!(matches!(next_event(&fabric, &*here), CmEventKind::Resolved));
        let active = end(&nodes[0], Arc::clone(&id), Arc::clone(&here), retries);
        id.connect(b"hello").unwrap();
        let CmEventKind::ConnectRequest { id: child, .. } = next_event(&fabric, &*there) else {
            panic!("no request");
        };
        let passive = end(&nodes[1], Arc::clone(&child), Arc::clone(&there), retries);
        child.accept(b"welcome").unwrap();
        Self {
            fabric,
            nodes,
            ends: [active, passive],
        }
    }

    fn established(self, faults: Faults) -> Self {
        assert!(matches!(self.event(0), CmEventKind::ConnectResponse { .. }));
        self.ends[0].id.establish().unwrap();
        assert!(matches!(self.event(1), CmEventKind::Established));
        self.fabric.set_faults(faults);
        self
    }

    fn event(&self, side: usize) -> CmEventKind {
        next_event(&self.fabric, &*self.ends[side].events)
    }

    fn post(&self, side: usize, number: u64, op: SendOp<'_>) {
        let wr = SendWr {
            wr_id: WrId(number),
            op,
            flags: SendFlags::SIGNALED,
        };
        self.ends[side].qp.post_send(wr).unwrap();
    }

    fn send(&self, number: u64, bytes: &[u8]) {
        self.send_from(0, number, bytes);
    }

    fn send_from(&self, side: usize, number: u64, bytes: &[u8]) {
        let data = SendData::Inline(bytes);
        let invalidate = None;
        self.post(side, number, SendOp::Send { data, invalidate });
    }

    fn next(&self, side: usize) -> WorkCompletion {
        let mut out = [NOTHING];
        while self.ends[side].cq.poll(&mut out) == 0 {
            assert!(self.fabric.step(None), "nothing under way");
        }
        out[0]
    }
}

fn echo_hash(seed: u64, late: u32) -> u64 {
    let mut faults = Faults::none().with(Fault::LateCompletion, late);
    faults.late_max = 100_000;
    let pair = Pair::new(seed, Timing::default(), faults, 7);
    for number in 0..10 {
        pair.send(number, &[7; 100]);
        assert_eq!(pair.next(0).wr_id, WrId(number));
        let wc = pair.next(1);
        let place = usize::try_from(wc.wr_id.0).unwrap();
        let end = &pair.ends[1];
        end.qp.post_recv(wc.wr_id, &end.bufs[place]).unwrap();
    }
    pair.fabric.trace_hash()
}

#[test]
fn a_seed_repeats_its_run() {
    assert_eq!(echo_hash(3, 500_000), echo_hash(3, 500_000));
    assert_ne!(echo_hash(3, 500_000), echo_hash(4, 500_000));
    assert_ne!(echo_hash(3, 500_000), echo_hash(3, 0));
}

#[test]
fn bytes_take_the_time_that_the_link_needs() {
    let timing = Timing {
        link_rate: 1_000_000,
        packet_overhead: 0,
        ..Timing::default()
    };
    let pair = Pair::new(1, timing, Faults::none(), 7);
    let before = pair.fabric.now();
    for number in 0..10 {
        pair.send(number, &[1; 10_000]);
    }
    for _ in 0..10 {
        assert_eq!(pair.next(1).status, WcStatus::Success);
    }
    // 100,000 bytes at a million bytes in a second.
    let took = pair.fabric.now() - before;
    let fits = Duration::from_millis(100)..Duration::from_millis(102);
    assert!(fits.contains(&took), "{took:?}");
}

/// How long a short message takes beside a long one of another connection, and that one.
fn beside_a_long_one(turn: u64) -> [Duration; 2] {
    let timing = Timing {
        link_rate: 1_000_000,
        packet_overhead: 0,
        turn,
        ..Timing::default()
    };
    let long = Pair::new(1, timing, Faults::none(), 7);
    let short = long.beside(7001);
    let before = long.fabric.now();
    long.send(0, &[1; 60_000]);
    short.send(0, &[2; 100]);
    [&short, &long].map(|pair| {
        let wc = pair.next(1);
        assert_eq!(wc.status, WcStatus::Success);
        pair.fabric.now() - before
    })
}

/// Queue pairs take turns where the adapters do so, which costs the link nothing.
#[test]
fn a_short_message_does_not_wait_for_a_long_one_where_queue_pairs_take_turns() {
    let [short, long] = beside_a_long_one(1_000);
    assert!(short < Duration::from_millis(3), "{short:?}");
    let both = Duration::from_millis(60)..Duration::from_millis(62);
    assert!(both.contains(&long), "{long:?}");
    let [short, _] = beside_a_long_one(0);
    assert!(both.contains(&short), "{short:?}");
}

/// What takes one processor's time leaves the other its own, and all of it is accounted for.
#[test]
fn a_machine_may_have_several_processors() {
    let fabric = Fabric::new(1, Drive::Stepped, Timing::default(), Faults::none());
    let node = fabric.node(SimOptions {
        processors: 2,
        ..SimOptions::default()
    });
    let start = node.now();
    node.work(Duration::from_micros(5));
    node.run_on(1);
    assert_eq!(node.now(), start);
    node.copy(2_000);
    assert_eq!(node.now() - start, Duration::from_micros(1));
    assert_eq!(node.now_on(0) - start, Duration::from_micros(5));
    let busy = node.busy();
    assert_eq!(busy.on(Work::Copy), Duration::from_micros(1));
    assert_eq!(busy.total(), Duration::from_micros(6));
    assert_eq!(node.processors(), 2);
}

#[test]
fn registering_keeps_the_processor_busy() {
    let pair = Pair::new(1, Timing::default(), Faults::none(), 7);
    let node = &pair.nodes[0];
    let before = node.now();
    let region = node.alloc_registered(1 << 20).unwrap();
    let (each, page) = Timing::default().register;
    let cost = Duration::from_nanos(each + page * 256);
    assert_eq!(node.now() - before, cost);
    assert_eq!(pair.nodes[1].now(), pair.fabric.now());
    drop(region);
}

/// The status with which a SEND fails under a fault, and what becomes of the one behind it.
fn failure(fault: Fault, retries: u8) -> WcStatus {
    let faults = Faults::none().with(fault, 1_000_000);
    let pair = Pair::new(1, Timing::default(), faults, retries);
    pair.send(1, b"lost");
    pair.send(2, b"behind");
    let first = pair.next(0);
    assert_eq!(first.wr_id, WrId(1));
    let mut second = pair.next(0);
    while second.opcode == WcOpcode::Recv {
        second = pair.next(0);
    }
    assert_eq!((second.wr_id, second.status), (WrId(2), WcStatus::Flushed));
    assert!(pair.fabric.fault_counts().of(fault) > 0);
    first.status
}

#[test]
fn faults_come_as_verbs_report_them() {
    assert_eq!(failure(Fault::Rnr, 2), WcStatus::RnrRetryExceeded);
    assert_eq!(failure(Fault::RetryExceeded, 7), WcStatus::RetryExceeded);
    assert_eq!(failure(Fault::QpBreak, 7), WcStatus::RetryExceeded);
}

/// What had found no receive was tried again for a queue pair in error; for one that was gone, the
/// message behind it came alone.
#[test]
fn what_a_broken_sender_does_not_repeat_leaves_no_gap() {
    let pair = Pair::new(1, Timing::default(), Faults::none(), 7);
    for number in 0..RECVS {
        pair.send(number, b"takes the receives");
        assert_eq!(pair.next(0).wr_id, WrId(number));
        assert_eq!(pair.next(1).wr_id, WrId(number));
    }
    pair.send(100, b"first");
    pair.send(101, b"second");
    // Both are on the link.
    assert!(pair.fabric.step(None) && pair.fabric.step(None));
    pair.ends[0].qp.set_error();
    while pair.fabric.step(None) {}
    let Pair { fabric, ends, .. } = pair;
    let [sender, receiver] = ends;
    drop(sender);
    for number in 0..2 {
        let buf = &receiver.bufs[number];
        receiver.qp.post_recv(WrId(200), buf).unwrap();
    }
    while fabric.step(None) {}
    let mut out = [NOTHING; 4];
    let count = receiver.cq.poll(&mut out);
    let flushed = |wc: &WorkCompletion| wc.status == WcStatus::Flushed;
    assert!(out[..count].iter().all(flushed), "{out:?}");
}

#[test]
fn a_spared_fault_does_not_happen() {
    let mut faults = Faults::none().with(Fault::RetryExceeded, 1_000_000);
    faults.spared = [0, 1].into();
    let pair = Pair::new(1, Timing::default(), faults, 7);
    for number in 0..3 {
        pair.send(number, b"x");
    }
    assert_eq!(pair.next(0).status, WcStatus::Success);
    assert_eq!(pair.next(0).status, WcStatus::Success);
    assert_eq!(pair.next(0).status, WcStatus::RetryExceeded);
    assert_eq!(pair.fabric.fault_counts().of(Fault::RetryExceeded), 1);
    assert_eq!(pair.fabric.fault_number(), 3);
}

#[test]
fn memory_can_be_exhausted() {
    let fabric = Fabric::new(1, Drive::Stepped, Timing::default(), Faults::none());
    let node = fabric.node(SimOptions {
        registered_max: 10_000,
        ..SimOptions::default()
    });
    let first = node.alloc_registered(8192).unwrap();
    assert!(node.alloc_registered(4096).is_err());
    drop(first);
    assert!(node.alloc_registered(4096).is_ok());
    fabric.set_faults(Faults::none().with(Fault::RegisterFails, 1_000_000));
    assert!(node.alloc_registered(4096).is_err());
    assert!(node.alloc_window().is_err());
}

#[test]
fn where_the_caller_begins_the_other_side_ends_the_connection_if_it_does() {
    let answered = || Pair::answered(1, Timing::default(), 7, Caps::CALLER_FIRST);
    // The other side has read the answer.
    let pair = answered().established(Faults::none());
    pair.send_from(1, 1, b"too soon");
    assert!(matches!(pair.event(0), CmEventKind::Disconnected));
    assert!(matches!(pair.event(1), CmEventKind::Disconnected));
    // It has not.
    let pair = answered();
    pair.send_from(1, 1, b"too soon");
    assert!(matches!(pair.event(0), CmEventKind::Failed(_)));
    assert!(matches!(pair.event(1), CmEventKind::Established));
    assert!(matches!(pair.event(1), CmEventKind::Disconnected));
    // It has said something.
    let pair = answered().established(Faults::none());
    pair.send(1, b"first");
    assert_eq!(pair.next(1).opcode, WcOpcode::Recv);
    pair.send_from(1, 2, b"second");
    assert_eq!(pair.next(1).status, WcStatus::Success);
}

/// The caller's adapter takes what lies there for delivered.
#[test]
fn what_the_caller_sends_may_lie_there_until_something_comes_later() {
    let pair = Pair::answered(1, Timing::default(), 7, Caps::CALLER_FIRST);
    let pair = pair.established(Faults::none().with(Fault::Unseen, 1_000_000));
    pair.send(1, b"first");
    assert_eq!(pair.next(0).status, WcStatus::Success);
    let later = pair.fabric.now() + Duration::from_millis(31);
    pair.fabric.advance_to(later);
    assert_eq!(pair.ends[1].cq.poll(&mut [NOTHING]), 0);
    let (local, remote, rkey) = (&[][..], RemoteAddr(0), Rkey(0));
    pair.post(
        0,
        2,
        SendOp::Write {
            local,
            remote,
            rkey,
        },
    );
    let message = pair.next(1);
    assert_eq!((message.opcode, message.byte_len), (WcOpcode::Recv, 5));
    assert_eq!(pair.fabric.fault_counts().of(Fault::Unseen), 1);
}
