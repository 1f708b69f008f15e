//! What a call has shown to its peer is out of reach when the call has returned, and for ever.
//! `cargo xtask keys` runs this once more with the provider's cell check switched off, and then
//! the cases must fail.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod bodies;
#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sdp_core::Instant;
use sdp_socket::{Context, Runtime, WaitWord};
use sdp_verbs::{ArmToken, CompletionQueue, Wake};

use bodies::keys::Ground;
use common::child::{Child, play, say};
use common::net::{Net, Stream};
use common::pattern::Pattern;
use common::script::{Script, Seat};
use common::sdp::{Sdp, host};
use common::watch::{actor, watched};

/// Bytes of a send.
const LEN: usize = 64 << 10;
const PATTERN: Pattern = Pattern(90);

/// The other process of one of these tests.
#[test]
fn child() {
    play(|role| match role {
        "panic" => panic_while_exposed(),
        other => panic!("no role {other:?}"),
    });
}

macro_rules! mount {
    ($($body:ident),+ $(,)?) => {
        $(
            #[test]
            fn $body() {
                watched(|| bodies::keys::$body(&Ground::host()));
            }
        )+
    };
}

mount! {
    after_send_returned, after_recv_returned, after_a_time_out, unanswered_cancel,
    after_the_buffer_was_freed_and_used_again,
}

/// A runtime that panics where a call waits, once it is told to.
#[derive(Debug)]
struct Panicking {
    seat: Arc<Seat>,
    armed: AtomicBool,
}

impl Panicking {
    fn may_panic(&self) {
        assert!(!self.armed.load(Ordering::Relaxed), "a planted panic");
    }
}

impl Runtime for Panicking {
    fn now(&self) -> Instant {
        self.seat.now()
    }

    fn wait_cq(
        &self,
        cq: &dyn CompletionQueue,
        token: ArmToken,
        until: Option<Instant>,
    ) -> io::Result<Wake> {
        self.may_panic();
        self.seat.wait_cq(cq, token, until)
    }

    fn wait_word(&self, word: &WaitWord, seen: u32, until: Option<Instant>) -> io::Result<Wake> {
        self.may_panic();
        self.seat.wait_word(word, seen, until)
    }

    fn start_progress(&self, context: &Arc<Context>) -> io::Result<()> {
        self.seat.start_progress(context)
    }

    fn kick_progress(&self) {
        self.seat.kick_progress();
    }

    fn may_spin(&self) -> bool {
        false
    }
}

fn panic_while_exposed() {
    let script = Script::new(1);
    let runtime = Arc::new(Panicking {
        seat: script.seat(),
        armed: AtomicBool::new(false),
    });
    let shared: Arc<dyn Runtime> = Arc::<Panicking>::clone(&runtime);
    let client = Context::new(host(), shared).expect("a context");
    let server = Context::new(host(), script.seat()).expect("a context");
    let net = Sdp::scripted_between(&script, &client, &server).rendezvous(4_096);
    let (stream, _server) = net.pair();
    let buf = PATTERN.bytes(0, LEN);
    net.all(vec![actor("writer", || {
        runtime.armed.store(true, Ordering::Relaxed);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stream.write(&buf)));
        say(format!("came back: {}", caught.is_err()));
    })]);
}

/// A panic between exposure and release would hand memory back that the peer can read: the process
/// ends there, whoever catches panics.
#[test]
fn a_panic_while_exposed_ends_the_process() {
    watched(|| {
        let status = Child::start("panic").end();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    });
}
