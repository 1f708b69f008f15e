//! One send between two machines, in virtual time, so that the figures are exact.

use std::cell::Cell;
use std::io::{IoSliceMut, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sdp_socket::{Builder, Context, RecvFlags, Stats, ZcopyThreshold};
use sdp_verbs::Provider;
use sdp_verbs::sim::{Drive, Fabric, FaultCounts, Faults, SimOptions, SimProvider, Timing};

use crate::actor::{Actor, wait};
use crate::program::ADDRESS;
use crate::stage::{Seat, Stage};

/// A send of so many bytes in one call, to a reader that asks for as many.
#[derive(Clone, Debug)]
pub(crate) struct OneSend {
    pub(crate) len: usize,
    /// Room for open adverts, or for copies.
    pub(crate) send_buffer: usize,
    pub(crate) threshold: ZcopyThreshold,
    pub(crate) options: SimOptions,
    pub(crate) faults: Faults,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) time: Duration,
    /// What the sender's engine says.
    pub(crate) stats: Stats,
    pub(crate) faults: FaultCounts,
}

/// Which programs have come so far.
#[derive(Default)]
struct Progress {
    listening: Cell<bool>,
    connected: Cell<bool>,
    sent: Cell<Option<(Duration, Stats)>>,
}

/// An adapter of 20 Gb/s, and 30 µs for each registration, beside the pages' own cost.
fn timing() -> Timing {
    Timing {
        link_rate: 2_500_000_000,
        register: (30_000, 200),
        ..Timing::default()
    }
}

impl OneSend {
    /// Both programs to their ends.
    ///
    /// # Panics
    /// If they do not come to them, or the bytes are others than were sent.
    pub(crate) fn run(&self) -> Sent {
        let fabric = Fabric::new(1, Drive::Stepped, timing(), self.faults.clone());
        let machines = [0, 1].map(|_| {
            let node = fabric.node(self.options);
            let seat = Seat::new(Arc::clone(&node), 0);
            let provider = Arc::clone(&node) as Arc<dyn Provider>;
            let context = Context::new(provider, Arc::clone(&seat) as _);
            (node, seat, context.expect("a context"))
        });
        let seats = machines.iter().map(|(_, seat, _)| Arc::clone(seat));
        let mut stage = Stage::new(Arc::clone(&fabric), 1, seats.collect());
        let [sender, reader] = machines.map(|(node, _, context)| {
            let builder = Builder::new()
                .context(&context)
                .send_buffer_size(self.send_buffer)
                .zcopy_threshold(self.threshold)
                .rendezvous_wait(Duration::MAX);
            (node, builder)
        });
        let progress = Rc::new(Progress::default());
        let actors = [
            Actor::new("reader".to_owned(), 1, {
                let (progress, len) = (Rc::clone(&progress), self.len);
                move || read_all(&reader.1, len, &progress)
            }),
            Actor::new("sender".to_owned(), 0, {
                let (progress, len) = (Rc::clone(&progress), self.len);
                move || write_all(&sender, len, &progress)
            }),
        ];
        stage.wings().borrow_mut().extend(actors);
        stage.run().expect("both programs end");
        let (time, stats) = progress.sent.take().expect("the sender has ended");
        Sent {
            time,
            stats,
            faults: fabric.fault_counts(),
        }
    }
}

fn read_all(builder: &Builder, len: usize, progress: &Progress) {
    let listener = builder.bind(SocketAddr::from(ADDRESS)).expect("a listener");
    progress.listening.set(true);
    let (stream, _) = listener.accept().expect("a connection");
    let mut buf = vec![0; len];
    progress.connected.set(true);
    let all = RecvFlags {
        // One call for all of it: a second one would offer its memory to be written into.
        wait_all: true,
        ..RecvFlags::default()
    };
    let got = stream.recv_with(&mut [IoSliceMut::new(&mut buf)], all);
    assert_eq!(got.expect("all bytes"), len);
    assert!(buf == bytes(len), "other bytes than were sent");
}

/// What is sent: of a period that no chunk's length is a multiple of.
fn bytes(len: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..251).collect();
    let mut bytes = period.repeat(len / period.len() + 1);
    bytes.truncate(len);
    bytes
}

fn write_all((node, builder): &(Arc<SimProvider>, Builder), len: usize, progress: &Progress) {
    let nanos = || u64::try_from(node.now().as_nanos()).expect("a short run");
    wait("the listener", None, nanos, || progress.listening.get());
    let mut stream = builder
        .connect(SocketAddr::from(ADDRESS))
        .expect("a connection");
    wait("the reader", None, nanos, || progress.connected.get());
    let bytes = bytes(len);
    let start = node.now();
    stream.write_all(&bytes).expect("all bytes");
    let sent = (node.now() - start, stream.stats());
    progress.sent.set(Some(sent));
}
