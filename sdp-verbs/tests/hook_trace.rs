//! `hook::Trace` counts what crossed the boundary, no more and no less.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, mpsc};

use sdp_verbs::Provider;
use sdp_verbs::conformance::role;
use sdp_verbs::hook::{Trace, TraceCounters};
use sdp_verbs::host::HostProvider;

/// Runs a case between two traced instances and gives what each side counted.
fn counted(case: &str) -> (TraceCounters, TraceCounters) {
    let open = || {
        Arc::new(Trace::new(Arc::new(
            HostProvider::open().expect("the provider"),
        )))
    };
    let (active, passive) = (open(), open());
    let sides: [Arc<dyn Provider>; 2] = [active.clone(), passive.clone()];
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let [here, there] = &sides;
        let listening = scope.spawn(move || {
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            role::passive(there, address, case, |addr| {
                tell.send(addr).expect("somebody to tell")
            })
        });
        let addr = told.recv().expect("an address");
        role::active(here, addr, case).expect("the connecting side");
        listening
            .join()
            .expect("the listening thread")
            .expect("the listening side");
    });
    (active.counters(), passive.counters())
}

/// Each side sends 500 messages of 4 bytes.
#[test]
fn sends_and_receives() {
    for counters in <[_; 2]>::from(counted("echo")) {
        assert_eq!(
            (counters.send_count, counters.send_bytes),
            (500, 2000),
            "{counters:?}"
        );
        assert_eq!(
            (counters.recv_count, counters.recv_bytes),
            (500, 2000),
            "{counters:?}"
        );
        assert_eq!(
            counters.read_posted_count + counters.write_posted_count,
            0,
            "{counters:?}"
        );
        assert_eq!(counters.invalidated_count, 0, "{counters:?}");
        // Eight receives are posted before the connection, and one again for each message.
        assert_eq!(counters.post_recv_count, 508, "{counters:?}");
        assert_eq!(counters.refused_count, 0, "{counters:?}");
    }
}

/// The connector reads 150,000 bytes 20 times, then once through a dead key.
#[test]
fn reads_count_when_they_succeed() {
    let (reader, owner) = counted("read_what_the_message_names");
    assert_eq!(
        (reader.read_count, reader.read_bytes),
        (20, 3_000_000),
        "{reader:?}"
    );
    assert_eq!(
        (reader.read_posted_count, reader.remote_access_count),
        (21, 1),
        "{reader:?}"
    );
    assert_eq!((owner.read_count, owner.read_bytes), (0, 0), "{owner:?}");
    assert_eq!(
        (owner.bind_count, owner.local_inv_count),
        (21, 1),
        "{owner:?}"
    );
    assert_eq!((owner.register_count, reader.register_count), (1, 1));
}

/// The connector writes 150,000 bytes 20 times.
#[test]
fn writes_count_when_they_succeed() {
    let (writer, target) = counted("write_before_the_message");
    assert_eq!(
        (writer.write_count, writer.write_bytes),
        (20, 3_000_000),
        "{writer:?}"
    );
    assert_eq!(writer.write_posted_count, 20, "{writer:?}");
    assert_eq!(
        (target.write_count, target.read_count),
        (0, 0),
        "{target:?}"
    );
}

/// The connector invalidates 20 keys of the listener's.
#[test]
fn invalidations_count_at_both_ends() {
    let (active, passive) = counted("invalidated_by_the_answer");
    assert_eq!(
        (active.send_inv_count, active.invalidated_count),
        (20, 0),
        "{active:?}"
    );
    assert_eq!(
        (passive.send_inv_count, passive.invalidated_count),
        (0, 20),
        "{passive:?}"
    );
}

/// What is left posted at the end is flushed, and counted as that.
#[test]
fn flushes_count() {
    let (_, passive) = counted("end_behind_the_data");
    assert_eq!(
        (passive.recv_count, passive.flushed_count),
        (6, 2),
        "{passive:?}"
    );
}
