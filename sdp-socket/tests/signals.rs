//! A signal handler that runs during a blocking call ends it, or does not, exactly as with TCP:
//! EINTR × SA_RESTART × time-out, the same body over both.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use common::net::{Listener, Net, Stream, would_block};
use common::pattern::Pattern;
use common::sdp::Sdp;
use common::tcp::Tcp;
use common::watch::{actor, doing, watched, watched_for};

/// How often the handler has run.
static RUN: AtomicUsize = AtomicUsize::new(0);

/// Longer than any of this takes.
const LONG: Duration = Duration::from_secs(20);
const PATTERN: Pattern = Pattern(80);
/// SO_SNDBUF and SO_RCVBUF.
const BUFFER: usize = 32 << 10;
/// More than all buffers hold.
const LARGE: usize = 3 << 20;

extern "C" fn count(_signal: libc::c_int) {
    RUN.fetch_add(1, Ordering::SeqCst);
}

/// Installs the handler for SIGUSR1, the only one of this program.
fn handle(restart: bool) {
    let handler: extern "C" fn(libc::c_int) = count;
    // SAFETY: the type is plain numbers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
    // SAFETY: the handler only counts, which is allowed at any moment, and stays for ever.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0, "sigaction");
}

/// How a call went that a signal came into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// It failed with EINTR.
    Interrupted,
    /// It gave the count so far, less than it was to do.
    Part,
    /// It went on.
    WentOn,
}

/// The calls that wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Call {
    Receive,
    /// All of several bytes, of which some are there.
    ReceiveRest,
    /// Without room for a byte.
    Send,
    /// More than there is room for.
    SendMuch,
    Accept,
}

const CALLS: [Call; 5] = [
    Call::Receive,
    Call::ReceiveRest,
    Call::Send,
    Call::SendMuch,
    Call::Accept,
];

/// Makes `call`, sends the calling thread a signal when it sleeps in it, then lets what the call
/// waits for happen. `None`: it did not wait. A call that sleeps again after the signal may be
/// about to end for so long: `patience`.
fn outcome<N: Net>(
    net: &N,
    call: Call,
    timeout: Option<Duration>,
    patience: Duration,
) -> Option<Outcome> {
    let net = net.sized(BUFFER);
    let (listener, addr) = net.listen();
    let (client, server) = net.pair();
    client.set_read_timeout(timeout).expect("set_read_timeout");
    client
        .set_write_timeout(timeout)
        .expect("set_write_timeout");
    let taken = prepare(&net, call, &client, &server);
    let caller = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let mut result = Ok(0);
    let interrupted = std::sync::OnceLock::new();
    let len = if call == Call::SendMuch { LARGE } else { 1 };
    let bytes = PATTERN.bytes(taken as u64, len);
    net.all(vec![
        actor("caller", || {
            // SAFETY: it only names the calling thread.
            caller.store(unsafe { libc::pthread_self() }, Ordering::SeqCst);
            doing(format!("{call:?} with a time-out of {timeout:?}"));
            result = match call {
                Call::Receive => client.read(&mut [0; 10]),
                Call::ReceiveRest => client.read_waitall(&mut [0; 10]),
                Call::Send | Call::SendMuch => client.write(&bytes),
                Call::Accept => listener.accept().map(|_| 0),
            };
            over.store(true, Ordering::SeqCst);
        }),
        actor("signaller", || {
            while caller.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            if call == Call::SendMuch {
                until_full(&net, &client, &server);
            }
            net.until_others_wait();
            if over.load(Ordering::SeqCst) {
                interrupted.set(true).expect("once");
                return;
            }
            let before = RUN.load(Ordering::SeqCst);
            let thread = caller.load(Ordering::SeqCst);
            // SAFETY: the thread is there: the call does not end before we let it, but for the
            // signal.
            let sent = unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            assert_eq!(sent, 0, "pthread_kill");
            doing("waiting for the handler");
            while RUN.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
            net.until_others_wait();
            let asleep = std::time::Instant::now();
            // What it has shown to the peer it takes back first, and sleeps until that is answered.
            let patience = match call {
                Call::SendMuch => LONG,
                _ => patience,
            };
            while !over.load(Ordering::SeqCst) && asleep.elapsed() < patience {
                std::thread::yield_now();
            }
            interrupted.set(over.load(Ordering::SeqCst)).expect("once");
            release(&net, call, &server, taken + len, addr, &over);
        }),
    ]);
    let interrupted = interrupted.into_inner().expect("set above");
    judge(call, result, interrupted)
}

/// Waits until a send has done what it can, and nothing has moved for a while.
fn until_full<S: Stream>(net: &impl Net<Stream = S>, client: &S, server: &S) {
    let lengths = || {
        let unread = server.recv_queue_len().expect("SIOCINQ");
        (unread, client.send_queue_len().expect("SIOCOUTQ"))
    };
    let mut last = (lengths(), net.now());
    net.until("full buffers", || {
        let now = lengths();
        if now != last.0 {
            last = (now, net.now());
        }
        let still = net.now() - last.1 > Duration::from_millis(50);
        (now.0 >= BUFFER && still).then_some(())
    });
}

/// Brings the connection into the state in which `call` waits; gives the bytes sent.
fn prepare<S: Stream>(net: &impl Net<Stream = S>, call: Call, client: &S, server: &S) -> usize {
    let mut taken = 0;
    match call {
        Call::ReceiveRest => {
            server.put(b"some");
            net.until("some bytes", || {
                (client.recv_queue_len().expect("SIOCINQ") == 4).then_some(())
            });
        }
        Call::Send => {
            client.set_nonblocking(true).expect("set_nonblocking");
            // Until there has been no room for a while: what was taken may still be moved on.
            let mut full_since = net.now();
            net.until("no room", || {
                let wrote = client.write(&PATTERN.bytes(taken as u64, 1_000));
                if !would_block(&wrote) {
                    taken += wrote.expect("write");
                    full_since = net.now();
                }
                (net.now() - full_since > Duration::from_millis(100)).then_some(())
            });
            client.set_nonblocking(false).expect("set_nonblocking");
        }
        Call::Receive | Call::SendMuch | Call::Accept => {}
    }
    taken
}

/// Lets happen what `call` waits for.
fn release<N: Net>(
    net: &N,
    call: Call,
    server: &N::Stream,
    sent: usize,
    addr: std::net::SocketAddr,
    over: &AtomicBool,
) {
    if over.load(Ordering::SeqCst) {
        return;
    }
    match call {
        Call::Receive => server.put(b"data"),
        Call::ReceiveRest => server.put(b"others"),
        Call::Send | Call::SendMuch => server.get_pattern(PATTERN, 0, sent, 100_000),
        Call::Accept => drop(net.connect(addr).expect("connect")),
    }
}

fn judge(call: Call, result: io::Result<usize>, interrupted: bool) -> Option<Outcome> {
    let whole = match call {
        Call::Receive => 4,
        Call::ReceiveRest => 10,
        Call::Send => 1,
        Call::SendMuch => LARGE,
        Call::Accept => 0,
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            assert!(interrupted, "{call:?}: EINTR long after the signal");
            Some(Outcome::Interrupted)
        }
        Err(error) => panic!("{call:?}: {error}"),
        Ok(count) if count == whole => (!interrupted).then_some(Outcome::WentOn),
        Ok(count) => {
            assert!(interrupted, "{call:?}: {count} of {whole}");
            Some(Outcome::Part)
        }
    }
}

fn matrix(net: &impl Net, patience: Duration) -> Vec<(Call, bool, Option<Duration>, Outcome)> {
    let mut matrix = Vec::new();
    for restart in [false, true] {
        handle(restart);
        for call in CALLS {
            for timeout in [None, Some(LONG)] {
                // TCP finds room for a byte in full buffers now and then.
                let mut tries = (0..10).filter_map(|_| outcome(net, call, timeout, patience));
                let outcome = tries.next().expect("a call that waits");
                matrix.push((call, restart, timeout, outcome));
            }
        }
    }
    matrix
}

/// A handler is the whole process's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where everything is done late, a call that ends waits for its peer before it does.
#[test]
#[ignore = "20 s: asked for by name"]
fn as_with_tcp_though_late_in_full() {
    let limit = Duration::from_secs(120);
    watched_for(limit, || {
        let _alone = ONE_AT_A_TIME.lock();
        let tcp = matrix(&Tcp::new(), Duration::ZERO);
        let late = Sdp::lazy(1);
        let ours = matrix(&late, Duration::from_secs(3));
        for (ours, theirs) in ours.iter().zip(&tcp) {
            assert_eq!(ours, theirs, "TCP on the right");
        }
    });
}

#[test]
fn as_with_tcp() {
    watched(|| {
        let _alone = ONE_AT_A_TIME.lock();
        let tcp = matrix(&Tcp::new(), Duration::ZERO);
        for outcome in [Outcome::Interrupted, Outcome::Part, Outcome::WentOn] {
            assert!(
                tcp.iter().any(|row| row.3 == outcome),
                "no {outcome:?} in {tcp:?}"
            );
        }
        let shared = Sdp::shared();
        let shown = shared.with(|b| b.zcopy_threshold(sdp_socket::ZcopyThreshold::Bytes(16 << 10)));
        for (name, net) in [("copied", &shared), ("shown", &shown)] {
            for (ours, theirs) in matrix(net, Duration::ZERO).iter().zip(&tcp) {
                assert_eq!(ours, theirs, "{name}; TCP on the right");
            }
        }
    });
}
