//! One large send, in virtual time, so that the figures are exact: what several adverts at once
//! gain, and how it gets on where little memory may be registered.

use std::cell::Cell;
use std::io::{IoSliceMut, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sdp_socket::{Builder, Context, RecvFlags, Stats, ZcopyThreshold};
use sdp_verbs::Provider;
use sdp_verbs::sim::{Drive, Fabric, Fault, FaultCounts, Faults, SimOptions, SimProvider, Timing};

use crate::actor::{Actor, wait};
use crate::program::ADDRESS;
use crate::stage::{Seat, Stage};

const MIB: usize = 1 << 20;
/// Bytes of the one send.
const LEN: usize = 64 * MIB;

/// An adapter of 20 Gb/s, and 30 µs for each registration, beside the pages' own cost.
fn timing() -> Timing {
    Timing {
        link_rate: 2_500_000_000,
        register: (30_000, 200),
        ..Timing::default()
    }
}

/// Sends [`LEN`] bytes in one call to a reader that asks for as many, with room for `send_buffer`
/// bytes of open adverts. How long it took, what the sender's engine says, and what happened.
fn send_once(send_buffer: usize, options: &SimOptions) -> (Duration, Stats, FaultCounts) {
    let fabric = Fabric::new(1, Drive::Stepped, timing(), Faults::default());
    let machines = [0, 1].map(|_| {
        let node = fabric.node(*options);
        let seat = Seat::new(Arc::clone(&node), 0);
        let context = Context::new(
            Arc::clone(&node) as Arc<dyn Provider>,
            Arc::clone(&seat) as _,
        );
        (node, seat, context.expect("a context"))
    });
    let seats = machines
        .iter()
        .map(|(_, seat, _)| Arc::clone(seat))
        .collect();
    let mut stage = Stage::new(Arc::clone(&fabric), 1, seats);
    let [sender, reader] = machines.map(|(node, _, context)| {
        let builder = Builder::new()
            .context(&context)
            .send_buffer_size(send_buffer)
            .zcopy_threshold(ZcopyThreshold::Bytes(64 << 10))
            .rendezvous_wait(Duration::MAX);
        (node, builder)
    });
    let (listening, connected) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let result = Rc::new(Cell::new(None));
    let actors = [
        Actor::new("reader".to_owned(), 1, {
            let (listening, connected) = (Rc::clone(&listening), Rc::clone(&connected));
            move || read_all(&reader.1, &listening, &connected)
        }),
        Actor::new("sender".to_owned(), 0, {
            let result = Rc::clone(&result);
            move || result.set(Some(write_all(&sender, &listening, &connected)))
        }),
    ];
    stage.wings().borrow_mut().extend(actors);
    stage.run().expect("both programs end");
    let (time, stats) = result.take().expect("the sender has ended");
    (time, stats, fabric.fault_counts())
}

fn read_all(builder: &Builder, listening: &Cell<bool>, connected: &Cell<bool>) {
    let listener = builder.bind(SocketAddr::from(ADDRESS)).expect("a listener");
    listening.set(true);
    let (stream, _) = listener.accept().expect("a connection");
    let mut buf = vec![0; LEN];
    connected.set(true);
    let all = RecvFlags {
        // One call for all of it: a second one would offer its memory to be written into.
        wait_all: true,
        ..RecvFlags::default()
    };
    let got = stream.recv_with(&mut [IoSliceMut::new(&mut buf)], all);
    assert_eq!(got.expect("all bytes"), LEN);
    assert!(buf == bytes(), "other bytes than were sent");
}

/// What is sent: of a period that no chunk's length is a multiple of.
fn bytes() -> Vec<u8> {
    let period: Vec<u8> = (0..251).collect();
    let mut bytes = period.repeat(LEN / period.len() + 1);
    bytes.truncate(LEN);
    bytes
}

fn write_all(
    (node, builder): &(Arc<SimProvider>, Builder),
    listening: &Cell<bool>,
    connected: &Cell<bool>,
) -> (Duration, Stats) {
    let nanos = || u64::try_from(node.now().as_nanos()).expect("a short run");
    wait("the listener", None, nanos, || listening.get());
    let mut stream = builder
        .connect(SocketAddr::from(ADDRESS))
        .expect("a connection");
    wait("the reader", None, nanos, || connected.get());
    let bytes = bytes();
    let start = node.now();
    stream.write_all(&bytes).expect("all bytes");
    (node.now() - start, stream.stats())
}

/// While one chunk is read, the next ones are registered, advertised and reported.
#[test]
fn several_adverts_are_faster_than_one() {
    let rate = |time: Duration| LEN as f64 / time.as_secs_f64() / 1e9;
    let options = SimOptions::default();
    let (one, stats, _) = send_once(MIB, &options);
    assert_eq!(stats.tx_adverts_open_max, 1, "{stats:?}");
    assert_eq!(stats.tx_bytes_written, 0, "{stats:?}");
    let (several, stats, _) = send_once(4 * MIB, &options);
    assert!(stats.tx_adverts_open_max >= 2, "{stats:?}");
    let gain = rate(several) / rate(one);
    println!(
        "one advert {:.3} GB/s, up to {} adverts {:.3} GB/s: {gain:.2} x",
        rate(one),
        stats.tx_adverts_open_max,
        rate(several),
    );
    assert!(gain >= 1.15, "{gain}");
}

/// A call may lend the adapter half of what may be registered, and is copied where it would need
/// more: its own message buffers, and the peer's, would be refused otherwise, again and again.
#[test]
fn a_large_call_leaves_memory_for_message_buffers() {
    let max = 3 * MIB;
    let mut options = SimOptions {
        registered_max: max,
        ..SimOptions::default()
    };
    options.limits.registered_max = max;
    let (time, stats, faults) = send_once(4 * MIB, &options);
    println!("{time:?}");
    assert_eq!(faults.of(Fault::RegisteredExhausted), 0);
    assert!(stats.tx_bytes_zcopy >= MIB as u64 / 2, "{stats:?}");
}
