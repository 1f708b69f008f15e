//! What a call has shown to its peer is out of reach when the call has returned, and for ever.
//! `cargo xtask keys` runs this once more with the provider's cell check switched off, and then
//! the cases must fail.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sdp_core::Instant;
use sdp_socket::{Builder, Context, Runtime, SdpBuffer, SdpStream, WaitWord, ZcopyThreshold};
use sdp_verbs::{ArmToken, CompletionQueue, RemoteAddr, Rkey, Wake, WcStatus};
use sdp_wire::{Body, HEAD_LEN_MAX, Head};

use common::child::{Child, play, say};
use common::net::{Net, Stream};
use common::pattern::Pattern;
use common::raw::{RawEnd, RawSide};
use common::script::{Script, Seat};
use common::sdp::{Sdp, host};
use common::watch::{actor, doing, on_threads, watched};

/// Bytes of a send.
const LEN: usize = 64 << 10;
const PATTERN: Pattern = Pattern(90);
/// What is put where a send's bytes were, and nobody may see.
const SECRET: u8 = 0xee;

/// The other process of one of these tests.
#[test]
fn child() {
    play(|role| match role {
        "panic" => panic_while_exposed(),
        other => panic!("no role {other:?}"),
    });
}

/// A stream whose sends are shown to a raw peer, and that peer.
fn connected(cancel_wait: Duration) -> (SdpStream, RawSide, RawEnd) {
    let listener = Builder::new()
        .zcopy_threshold(ZcopyThreshold::Bytes(4_096))
        .rendezvous_wait(Duration::MAX)
        .cancel_wait(cancel_wait)
        .bind("127.0.0.1:0")
        .expect("bind");
    let side = RawSide::new();
    let end = side.connected(listener.local_addr().expect("an address"));
    let (stream, _) = listener.accept().expect("accept");
    (stream, side, end)
}

/// A key the raw peer was given, and for what.
#[derive(Clone, Copy)]
struct Given {
    key: (Rkey, RemoteAddr),
    len: usize,
    inline: usize,
}

/// The next message of the kind, which takes a while if others come first.
fn hear_advert(side: &RawSide, end: &RawEnd) -> Given {
    loop {
        let bytes = end.hear(side).expect("a message");
        let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
        let head = head.expect("a good message");
        if let Body::SrcAvail(advert) = head.body {
            return Given {
                key: (Rkey(advert.rkey.0), RemoteAddr(advert.addr.0)),
                len: advert.len as usize,
                inline: head.payload_len as usize,
            };
        }
    }
}

fn hear_cancel(side: &RawSide, end: &RawEnd) {
    loop {
        let bytes = end.hear(side).expect("a message");
        let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
        if head.expect("a good message").body == Body::SrcAvailCancel {
            return;
        }
    }
}

/// Takes `total` bytes the way a good reader does; the last key used for it.
fn take(side: &RawSide, end: &mut RawEnd, mut at: u64, total: usize) -> Given {
    let stop = at + total as u64;
    loop {
        let given = hear_advert(side, end);
        let (status, bytes) = end.read(side, given.key, given.len);
        assert_eq!(status, WcStatus::Success);
        PATTERN.check(at, &bytes);
        let len = u32::try_from(given.len - given.inline).expect("an advert");
        end.say(Body::RdmaRdCompl { len }, &[]);
        at += given.len as u64;
        if at >= stop {
            return given;
        }
    }
}

/// The key opens nothing.
fn locked_out(side: &RawSide, end: &RawEnd, given: Given) {
    let (status, bytes) = end.read(side, given.key, given.len);
    assert_eq!(status, WcStatus::RemoteAccess, "first byte {:#x}", bytes[0]);
}

/// One large send from `buf` that a raw peer takes; afterwards the memory is the caller's.
fn send_and_try_again(buf: &mut [u8]) {
    let (stream, side, mut end) = connected(Duration::from_secs(1));
    PATTERN.fill(0, buf);
    let mut given = None;
    on_threads(vec![
        actor("writer", || {
            doing("a large send");
            stream.put(buf);
        }),
        actor("raw peer", || given = Some(take(&side, &mut end, 0, LEN))),
    ]);
    buf.fill(SECRET);
    locked_out(&side, &end, given.expect("an advert"));
}

/// Both calls are over: the send has returned because the reader has what it wanted.
#[test]
fn after_send_returned() {
    watched(|| {
        send_and_try_again(&mut vec![0; LEN]);
        send_and_try_again(&mut SdpBuffer::new(LEN).expect("memory"));
    });
}

/// The reader's receive ended first, and it comes back before the send has returned: its key may
/// serve until then, and shows the bytes sent, nothing else.
#[test]
fn after_recv_returned() {
    watched(|| {
        let (stream, side, mut end) = connected(Duration::from_secs(1));
        let mut buf = SdpBuffer::new(LEN).expect("memory");
        PATTERN.fill(0, &mut buf);
        on_threads(vec![
            actor("writer", || {
                doing("a large send");
                stream.put(&buf);
                buf.fill(SECRET);
            }),
            actor("raw peer", || {
                let given = take(&side, &mut end, 0, LEN);
                loop {
                    let (status, bytes) = end.read(&side, given.key, given.len);
                    if status != WcStatus::Success {
                        assert_eq!(status, WcStatus::RemoteAccess);
                        break;
                    }
                    PATTERN.check((LEN - given.len) as u64, &bytes);
                }
            }),
        ]);
    });
}

/// A send ran out of time, and its peer answered the cancel.
#[test]
fn after_a_time_out() {
    watched(|| {
        let (stream, side, mut end) = connected(Duration::from_secs(20));
        let mut buf = SdpBuffer::new(LEN).expect("memory");
        PATTERN.fill(0, &mut buf);
        stream
            .set_write_timeout(Some(Duration::from_millis(50)))
            .expect("set_write_timeout");
        let mut given = None;
        on_threads(vec![
            actor("writer", || {
                doing("a send that runs out of time");
                assert!(stream.write(&buf).is_ok_and(|n| n > 0), "a part is sent");
                buf.fill(SECRET);
            }),
            actor("raw peer", || {
                given = Some(hear_advert(&side, &end));
                hear_cancel(&side, &end);
                end.say(Body::SendSm, &[]);
            }),
        ]);
        locked_out(&side, &end, given.expect("an advert"));
    });
}

/// A send ran out of time, and its peer did not even answer the cancel: the connection is gone,
/// and the key opens nothing on another one that is in good health.
#[test]
fn unanswered_cancel() {
    watched(|| {
        let (stream, side, end) = connected(Duration::from_millis(50));
        let mut buf = SdpBuffer::new(LEN).expect("memory");
        PATTERN.fill(0, &mut buf);
        stream
            .set_write_timeout(Some(Duration::from_millis(50)))
            .expect("set_write_timeout");
        let mut given = None;
        on_threads(vec![
            actor("writer", || {
                doing("a send that runs out of time");
                // Whether bytes beside the advert count as sent is not what matters here.
                let _counted = stream.write(&buf);
                buf.fill(SECRET);
            }),
            actor("raw peer", || given = Some(hear_advert(&side, &end))),
        ]);
        let given = given.expect("an advert");
        let (status, bytes) = end.read(&side, given.key, given.len);
        assert_ne!(status, WcStatus::Success, "first byte {:#x}", bytes[0]);
        let (_stream, other_side, other) = connected(Duration::from_secs(1));
        locked_out(&other_side, &other, given);
    });
}

/// The buffer has gone back to the system, and another one serves the next send, with the place
/// of the old key in the table.
#[test]
fn after_the_buffer_was_freed_and_used_again() {
    watched(|| {
        let (stream, side, mut end) = connected(Duration::from_secs(1));
        let mut buf = SdpBuffer::new(LEN).expect("memory");
        PATTERN.fill(0, &mut buf);
        let mut old = None;
        on_threads(vec![
            actor("writer", || stream.put(&buf)),
            actor("raw peer", || old = Some(take(&side, &mut end, 0, LEN))),
        ]);
        drop(buf);
        let mut next = SdpBuffer::new(LEN).expect("memory");
        PATTERN.fill(LEN as u64, &mut next);
        on_threads(vec![
            actor("writer", || {
                // Its own bytes may be read by the new key, no others by the old one; the peer
                // breaks the connection by trying.
                let _counted = stream.write(&next);
            }),
            actor("raw peer", || {
                let new = hear_advert(&side, &end);
                let old = old.expect("an advert");
                assert_ne!(new.key.0, old.key.0, "the same key again");
                locked_out(&side, &end, old);
            }),
        ]);
    });
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
