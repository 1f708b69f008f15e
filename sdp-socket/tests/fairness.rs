//! No connection, however much comes for it, keeps the progress loop from the others. Counted, not
//! timed: the test plays the loop itself, and looks what each round has done.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant as Clock};

use sdp_core::Instant;
use sdp_socket::{
    Builder, Context, Runtime, SdpBuffer, SdpListener, SdpStream, WaitWord, ZcopyThreshold,
};
use sdp_verbs::hook::Trace;
use sdp_verbs::host::HostProvider;
use sdp_verbs::{ArmToken, CompletionQueue, Wake};

/// Sent to the connection that nobody reads.
const LEN: usize = 4 << 20;
/// What a round fetches for one connection at most. It visits it for its event and for its timer;
/// a visit begins no fetch after 256 KiB, and the last one may have as much again.
const ROUND_BYTES: u64 = 2 * 2 * (256 << 10);
/// Rounds are played for so long at most.
const LIMIT: Duration = Duration::from_secs(60);

/// Nobody sleeps here, and no progress loop runs but the test's.
#[derive(Debug)]
struct ByHand(Clock);

impl Runtime for ByHand {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).expect("a short test"))
    }

    fn wait_cq(
        &self,
        _: &dyn CompletionQueue,
        _: ArmToken,
        _: Option<Instant>,
    ) -> io::Result<Wake> {
        panic!("a call sleeps")
    }

    fn wait_word(&self, _: &WaitWord, _: u32, _: Option<Instant>) -> io::Result<Wake> {
        panic!("a call sleeps")
    }

    fn start_progress(&self, _: &Arc<Context>) -> io::Result<()> {
        Ok(())
    }

    fn kick_progress(&self) {}

    fn may_spin(&self) -> bool {
        false
    }
}

/// Plays rounds until `done` gives something.
fn until<T>(context: &Context, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Clock::now() + LIMIT;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Clock::now() < end, "{what} does not come");
        context.progress();
        thread::yield_now();
    }
}

fn accept(context: &Context, listener: &SdpListener) -> SdpStream {
    let stream = until(context, "a connection", || match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("accept: {error}"),
    });
    stream.set_nonblocking(true).expect("set_nonblocking");
    stream
}

#[test]
fn a_busy_connection_gets_its_portion_of_a_round() {
    let host = Arc::new(HostProvider::open().expect("the host provider"));
    let trace = Arc::new(Trace::new(host));
    let runtime = Arc::new(ByHand(Clock::now()));
    let context = Context::new(Arc::clone(&trace) as _, runtime).expect("a context");
    let listener = Builder::new().context(&context).bind("127.0.0.1:0");
    let listener = listener.expect("bind");
    listener.set_nonblocking(true).expect("set_nonblocking");
    let addr = listener.local_addr().expect("local_addr");

    let peer = thread::spawn(move || {
        let shown = Builder::new().zcopy_threshold(ZcopyThreshold::Bytes(4096));
        // It waits for its reader, however late.
        let shown = shown.rendezvous_wait(LIMIT);
        let (busy, other) = (shown.connect(addr), SdpStream::connect(addr));
        let (mut busy, mut other) = (busy.expect("connect"), other.expect("connect"));
        other.write_all(b"x").expect("write");
        let mut bytes = SdpBuffer::new(LEN).expect("memory");
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at % 251).expect("below 251");
        }
        busy.write_all(&bytes).expect("write");
    });
    let (mut busy, mut other) = (accept(&context, &listener), accept(&context, &listener));

    // Nobody reads, so the loop reads ahead. Counted below the engine, since asking a stream for
    // its counters is a call, which moves it on.
    let read_ahead = || trace.counters().read_bytes;
    let end = Clock::now() + LIMIT;
    let mut had = 0;
    while had < LEN as u64 / 2 {
        assert!(Clock::now() < end, "{had} bytes are read ahead and no more");
        context.progress();
        let has = read_ahead();
        assert!(
            has - had <= ROUND_BYTES,
            "{} bytes of one connection in one round",
            has - had
        );
        had = has;
        thread::yield_now();
    }

    let mut byte = [0];
    until(&context, "the other's byte", || other.read(&mut byte).ok());
    assert_eq!(&byte, b"x");
    let mut got = Vec::new();
    let mut buf = vec![0; 64 << 10];
    until(&context, "the rest", || match busy.read(&mut buf) {
        Ok(0) => Some(()),
        Ok(count) => {
            got.extend_from_slice(&buf[..count]);
            None
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("read: {error}"),
    });
    assert_eq!(got.len(), LEN);
    assert!(
        got.iter()
            .enumerate()
            .all(|(at, byte)| usize::from(*byte) == at % 251)
    );
    peer.join().expect("the peer");
}
