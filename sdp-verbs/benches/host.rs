//! The host provider between two threads that poll: what a message and a byte cost.
//!
//! `one_way_64B` is half a round trip. `stream_32KiB` is a copy into the peer's receive by one
//! thread and the receives reposted by the other; `read_*` are READs by one thread alone.

use std::hint::spin_loop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sdp_verbs::host::HostProvider;
use sdp_verbs::{
    Access, BindRequest, Binding, CmEventKind, CmId, CompletionQueue, CqToken, EventChannel,
    MemoryRegion, Provider, QpAttr, QueuePair, RecvBuf, RemoteAddr, Rkey, SendData, SendFlags,
    SendOp, SendWr, Sge, WcOpcode, WcStatus, WorkCompletion, WrId,
};

/// Receives posted on each queue pair.
const DEPTH: u64 = 16;
/// Bytes of a receive.
const SLOT: usize = 32 << 10;
/// Bytes of a READ.
const READ: usize = 1 << 20;

/// One end of a connection.
struct End {
    provider: HostProvider,
    id: Arc<dyn CmId>,
    qp: Arc<dyn QueuePair>,
    cq: Arc<dyn CompletionQueue>,
    bufs: Vec<RecvBuf>,
}

fn end(provider: HostProvider, id: Arc<dyn CmId>) -> End {
    let channel = provider.create_comp_channel().expect("a channel");
    let cq = provider
        .create_cq(256, &channel, CqToken(0))
        .expect("a queue");
    let attr = QpAttr {
        cq: Arc::clone(&cq),
        send_wr_max: 64,
        recv_wr_max: 64,
        rnr_retry: 7,
        silence_max: None,
    };
    let qp = id.create_qp(&attr).expect("a queue pair");
    let bufs: Vec<_> = (0..DEPTH)
        .map(|n| {
            let buf = qp.alloc_recv(SLOT).expect("memory");
            qp.post_recv(WrId(n), &buf).expect("room");
            buf
        })
        .collect();
    End {
        provider,
        id,
        qp,
        cq,
        bufs,
    }
}

/// Connects two instances, all in this thread.
fn connect() -> (End, End) {
    let open = || HostProvider::open().expect("an instance");
    let (active, passive) = (open(), open());
    let events = [&active, &passive].map(|p| p.create_event_channel().expect("a channel"));
    let listener = passive.create_id(&events[1]).expect("an id");
    let addr = "127.0.0.1:0".parse().expect("an address");
    let request = BindRequest {
        addr,
        only_v6: false,
        reuse_port: false,
    };
    listener.bind(request).expect("a port");
    listener.listen(1).expect("a backlog");
    let dst = listener.local_addr().expect("an address");
    let caller = active.create_id(&events[0]).expect("an id");
    caller.resolve(dst, Duration::from_secs(5)).expect("a way");
    let mut ends = (None, None);
    let mut providers = (Some(active), Some(passive));
    loop {
        match next(&events) {
            CmEventKind::Resolved => {
                let provider = providers.0.take().expect("resolved once");
                let made = end(provider, Arc::clone(&caller));
                made.id.connect(b"").expect("a request");
                ends.0 = Some(made);
            }
            CmEventKind::ConnectRequest { id, .. } => {
                let provider = providers.1.take().expect("called once");
                let made = end(provider, id);
                made.id.accept(b"").expect("an answer");
                ends.1 = Some(made);
            }
            CmEventKind::ConnectResponse { .. } => caller.establish().expect("a connection"),
            CmEventKind::Established => break,
            other => panic!("{other:?}"),
        }
    }
    // The channels may go: nothing of the connection's set-up is left to do.
    (ends.0.expect("active"), ends.1.expect("passive"))
}

fn next(events: &[Arc<dyn EventChannel>; 2]) -> CmEventKind {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(event) = events.iter().find_map(|channel| channel.poll()) {
            return event.kind;
        }
        assert!(Instant::now() < end, "connection management is stuck");
    }
}

fn blank() -> WorkCompletion {
    WorkCompletion {
        wr_id: WrId(0),
        status: WcStatus::Flushed,
        opcode: WcOpcode::Recv,
        byte_len: 0,
        invalidated: None,
        qp: sdp_verbs::QpNum(0),
    }
}

impl End {
    fn send(&self, data: SendData<'_>) {
        let op = SendOp::Send {
            data,
            invalidate: None,
        };
        let wr = SendWr {
            wr_id: WrId(0),
            op,
            flags: SendFlags::empty(),
        };
        self.qp.post_send(wr).expect("room");
    }

    /// Receives what has come and posts the receives again. Returns how many.
    fn receive(&self, out: &mut [WorkCompletion]) -> usize {
        let count = self.cq.poll(out);
        for wc in &out[..count] {
            self.repost(wc);
        }
        count
    }

    /// Posts a completed receive again.
    fn repost(&self, wc: &WorkCompletion) {
        assert_eq!((wc.status, wc.opcode), (WcStatus::Success, WcOpcode::Recv));
        let slot = usize::try_from(wc.wr_id.0).expect("small");
        self.qp.post_recv(wc.wr_id, &self.bufs[slot]).expect("room");
    }

    /// Spins for one message, which is not posted again; `None` if `stop` is set.
    fn spin_one(&self, stop: &AtomicBool) -> Option<WorkCompletion> {
        let mut out = [blank()];
        while self.cq.poll(&mut out) == 0 {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            spin_loop();
        }
        Some(out[0])
    }

    /// Spins for messages; true once `count` have come, false if `stop` is set.
    fn spin(&self, mut count: usize, stop: &AtomicBool) -> bool {
        let mut out = [blank(); 16];
        while count > 0 {
            let got = self.receive(&mut out[..count.min(16)]);
            count -= got;
            if got == 0 {
                if stop.load(Ordering::Relaxed) {
                    return false;
                }
                spin_loop();
            }
        }
        true
    }
}

/// Half a round trip of one word between two threads: the marker that says how near each other
/// the two processors are while the rest is measured.
fn marker(criterion: &mut Criterion) {
    let word = AtomicU64::new(0);
    let wait_for = |value| {
        while word.load(Ordering::Acquire) != value {
            spin_loop();
        }
    };
    criterion.bench_function("marker_word", |bench| {
        bench.iter_custom(|rounds| {
            word.store(0, Ordering::Relaxed);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for round in 0..rounds {
                        wait_for(2 * round + 1);
                        word.store(2 * round + 2, Ordering::Release);
                    }
                });
                let start = Instant::now();
                for round in 0..rounds {
                    word.store(2 * round + 1, Ordering::Release);
                    wait_for(2 * round + 2);
                }
                start.elapsed() / 2
            })
        });
    });
}

fn latency(criterion: &mut Criterion) {
    let (near, far) = connect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(wc) = far.spin_one(&stop) {
                far.send(SendData::Inline(&[0; 64]));
                far.repost(&wc);
            }
        });
        criterion.bench_function("one_way_64B", |bench| {
            bench.iter_custom(|rounds| {
                let start = Instant::now();
                let mut last = None;
                for _ in 0..rounds {
                    near.send(SendData::Inline(&[0; 64]));
                    if let Some(wc) = last.take() {
                        near.repost(&wc);
                    }
                    last = near.spin_one(&stop);
                }
                let took = start.elapsed() / 2;
                if let Some(wc) = last {
                    near.repost(&wc);
                }
                took
            });
        });
        stop.store(true, Ordering::Relaxed);
    });
}

fn stream(criterion: &mut Criterion) {
    let (near, far) = connect();
    let stop = AtomicBool::new(false);
    let bytes = vec![7u8; SLOT];
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Bytes(SLOT as u64));
    std::thread::scope(|scope| {
        // Every DEPTH messages are answered by one, so that they never wait for receives.
        scope.spawn(|| {
            while far.spin(8, &stop) {
                far.send(SendData::Inline(&[]));
            }
        });
        group.bench_function("stream_32KiB", |bench| {
            bench.iter_custom(|rounds| {
                let start = Instant::now();
                let mut open = 0;
                for round in 0..rounds.next_multiple_of(8) {
                    if round % 8 == 0 && open == 2 {
                        near.spin(1, &stop);
                        open -= 1;
                    }
                    let buf = near.qp.reserve_send(SLOT).expect("room");
                    buf.mem().write(0, &bytes);
                    near.send(SendData::Buf { buf, len: SLOT });
                    open += u32::from(round % 8 == 7);
                }
                for _ in 0..open {
                    near.spin(1, &stop);
                }
                start.elapsed()
            });
        });
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
}

fn bind(end: &End, region: &dyn MemoryRegion) -> (RemoteAddr, Rkey) {
    let window = end.provider.alloc_window().expect("a window");
    let binding = Binding {
        lkey: region.lkey(),
        addr: region.addr(),
        len: READ,
        access: Access::REMOTE_READ,
    };
    let rkey = end
        .qp
        .bind(WrId(0), SendFlags::empty(), &*window, binding)
        .expect("a key");
    // The key lives as long as the process measures.
    std::mem::forget(window);
    (RemoteAddr(region.addr().as_ptr().addr() as u64), rkey)
}

fn read(criterion: &mut Criterion) {
    let (near, far) = connect();
    let into = near.provider.alloc_registered(READ).expect("memory");
    let owned = far.provider.alloc_registered(READ).expect("memory");
    let mut heap = vec![1u8; READ];
    let addr = NonNull::new(heap.as_mut_ptr()).expect("not null");
    // SAFETY: `heap` outlives the region and is not touched meanwhile.
    let heap_region = unsafe { far.provider.register(addr, READ, Access::MW_BIND) };
    let heap_region = heap_region.expect("a region");
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(READ as u64));
    for (name, region) in [("registered_1MiB", &owned), ("heap_1MiB", &heap_region)] {
        let (remote, rkey) = bind(&far, &**region);
        let local = [Sge {
            addr: into.addr().as_ptr(),
            len: READ,
            lkey: into.lkey(),
        }];
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let op = SendOp::Read {
                    local: &local,
                    remote,
                    rkey,
                };
                let wr = SendWr {
                    wr_id: WrId(0),
                    op,
                    flags: SendFlags::SIGNALED,
                };
                near.qp.post_send(wr).expect("room");
                let mut out = [blank()];
                while near.cq.poll(&mut out) == 0 {}
                assert_eq!(out[0].status, WcStatus::Success);
            });
        });
    }
    group.finish();
}

fn post_and_poll(criterion: &mut Criterion) {
    let (near, far) = connect();
    let mut out = [blank()];
    criterion.bench_function("send_and_receive_64B_one_thread", |bench| {
        bench.iter(|| {
            near.send(SendData::Inline(&[0; 64]));
            while far.receive(&mut out) == 0 {}
        });
    });
    criterion.bench_function("empty_poll", |bench| bench.iter(|| near.cq.poll(&mut out)));
}

criterion_group!(benches, marker, latency, stream, read, post_and_poll);
criterion_main!(benches);
