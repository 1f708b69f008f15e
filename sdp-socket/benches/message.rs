//! What a message costs through the whole stack, both ends in one thread: nobody spins or sleeps, so it is
//! the work alone, and instruction counters see the same in every run.
//!
//! `one_way_*` sends by one connection and receives by the other, in turns, which is half a round trip without
//! the wait for another processor. `burst_64B` is a message of 32 that were sent before the first is received.

use std::io::{Read, Write};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sdp_socket::{Builder, Context, SdpStream};
use sdp_verbs::host::HostProvider;

/// Messages of a burst.
const BURST: usize = 32;

/// Two ends of a connection, each with an instance of its own, as two processes have.
fn connect() -> (SdpStream, SdpStream) {
    let end = || {
        let provider = HostProvider::open().expect("an instance");
        Builder::new().context(&Context::threaded(Arc::new(provider)).expect("a context"))
    };
    let listener = end().bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let client = end().connect(addr).expect("a connection");
    let (server, _) = listener.accept().expect("the other end");
    (client, server)
}

fn pass(from: &mut SdpStream, to: &mut SdpStream, message: &mut [u8]) {
    from.write_all(message).expect("room");
    to.read_exact(message).expect("the message");
}

fn one_way(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_way");
    for (name, len) in [("64B", 64), ("4KiB", 4 << 10), ("32KiB", 32 << 10)] {
        let (mut a, mut b) = connect();
        let mut message = vec![7; len];
        group.throughput(Throughput::Bytes(2 * len as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                pass(&mut a, &mut b, &mut message);
                pass(&mut b, &mut a, &mut message);
            });
        });
    }
    group.finish();
}

fn burst(c: &mut Criterion) {
    let (mut a, mut b) = connect();
    let mut message = [7; 64];
    let mut group = c.benchmark_group("burst");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("64B", |bencher| {
        bencher.iter(|| {
            for _ in 0..BURST {
                a.write_all(&message).expect("room");
            }
            for _ in 0..BURST {
                b.read_exact(&mut message).expect("the message");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, one_way, burst);
criterion_main!(benches);
