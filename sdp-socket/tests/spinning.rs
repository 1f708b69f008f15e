//! A thread that never sleeps lets signal handlers run that were put off, and sees that it was cancelled: its
//! calls end as those of one that sleeps.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::sys::pthread::pthread_self;
use sdp_socket::{
    Builder, SdpStream, SpinPolicy, cancel_sleep, inside, list_sleeper, watch_sleepers,
};

use common::watch::{doing, watched};

/// How often handlers have been let run.
static RUN: AtomicUsize = AtomicUsize::new(0);

/// A stream whose calls spin, and the peer's, which says nothing.
fn spinning() -> (SdpStream, SdpStream) {
    let builder = Builder::new().spin(SpinPolicy::Always);
    let listener = builder.bind("127.0.0.1:0").unwrap();
    let peer = SdpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

#[test]
fn a_handler_that_was_put_off_runs_and_ends_the_call() {
    watched(|| {
        inside::on_leaving(|| {
            RUN.fetch_add(1, Ordering::SeqCst);
            false
        });
        let (mut stream, _peer) = spinning();
        inside::enter_call();
        assert!(inside::put_off(), "a signal comes in a call");
        doing("reading while a handler waits");
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert_eq!(RUN.load(Ordering::SeqCst), 1);
        assert!(!inside::leave_call(), "nothing waits any more");
    });
}

#[test]
fn a_cancelled_thread_ends_its_call() {
    watched(|| {
        watch_sleepers();
        let (mut stream, _peer) = spinning();
        let (say, hear) = mpsc::channel();
        let reader = thread::spawn(move || {
            list_sleeper();
            inside::enter_call();
            inside::let_end(true);
            say.send(pthread_self()).unwrap();
            let read = stream.read(&mut [0]);
            assert!(!inside::leave_call());
            read.unwrap_err().kind()
        });
        doing("cancelling a thread that reads");
        cancel_sleep(hear.recv().unwrap());
        assert_eq!(reader.join().unwrap(), ErrorKind::Interrupted);
    });
}
