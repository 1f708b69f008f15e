//! Carries bytes between a connection by SDP that this process has closed and the children that go
//! on with it.
//!
//! One thread takes what the peer sends, and one for each child what that sends; all of them wait
//! in calls that block. What the peer sends goes to the child that was made last, and if that has
//! gone, to the one before. The stream ends when the last child has closed it, or both directions
//! have ended.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, c_void};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use sdp::posix::Failure;
use sdp_socket::inside;

use crate::entry::Entry;
use crate::fork::{children, has_hung_up};
use crate::log::{Level, say};
use crate::shared::{Waits, go_first};
use crate::{boundary, report, table};

/// What is carried at once: enough not to be copied by SDP.
const PIECE_LEN: usize = 256 * 1024;
const STACK_LEN: usize = 256 * 1024;
/// How long exit waits for what children have left when they ended.
const EXIT_LINGER: Duration = Duration::from_secs(2);

/// A relay has ended.
static ENDED: Condvar = Condvar::new();

/// A connection that children go on with.
pub(crate) struct Relay {
    pub(crate) entry: Arc<Entry>,
    /// This process's ends, the first child's first.
    pub(crate) ends: Vec<OwnedFd>,
    /// Children that may still send.
    sending: AtomicUsize,
    /// Bytes have been lost, which the peer is to know.
    broken: AtomicBool,
}

/// Gives a connection, whose last number this process closes, to the children that have it. False:
/// there are none.
pub(crate) fn pass_on(entry: &Arc<Entry>) -> bool {
    let mut children = children();
    if children.leave_shared(entry) {
        report::passed_on();
        return true;
    }
    let ends = children.take(entry);
    if ends.is_empty() {
        return false;
    }
    let relay = Arc::new(Relay {
        entry: Arc::clone(entry),
        sending: AtomicUsize::new(ends.len()),
        ends,
        broken: AtomicBool::new(false),
    });
    let started = entry
        .socket()
        .and_then(|socket| socket.set_nonblocking(false))
        .and_then(|()| {
            let relay = Arc::clone(&relay);
            Ok(in_thread("sdp-relay", move || relay.run())?)
        });
    if let Err(failure) = started {
        say(Level::Error, || {
            format!("a child is without its connection: {}", failure.message)
        });
        report::lost(1);
        return false;
    }
    report::passed_on();
    children.relays.push(relay);
    true
}

/// No handler of the program's is to run on our threads: they are made with all signals blocked.
pub(crate) fn in_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is ours to fill.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the first set has been filled, and the other is ours to fill.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let spawned = named(name).spawn(|| {
        inside::stay_inside();
        body();
    });
    // SAFETY: the set was filled above; nobody asks for the one before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    spawned.map(|_| ())
}

fn named(name: &str) -> thread::Builder {
    thread::Builder::new()
        .name(name.into())
        .stack_size(STACK_LEN)
}

/// Has exit wait for what children have left. Exit handlers are called last first, so this one is
/// called before that which closes all streams.
pub(crate) fn at_exit() {
    // SAFETY: `finish` is a function, and the library is never unloaded (build.rs).
    let failed = unsafe { libc::atexit(finish) } != 0;
    if failed {
        say(Level::Error, || {
            "no memory for an exit handler: close connections before exit".to_owned()
        });
    }
}

/// The exit handler. What children that have ended have sent is delivered; a child that goes on is
/// not waited for.
extern "C" fn finish() {
    if !table::is_owner() {
        return;
    }
    let until = Instant::now() + EXIT_LINGER;
    let used = children().used();
    if !used.is_empty() {
        // By a thread, as a peer that reads nothing would keep this one for ever.
        let (done, is_done) = mpsc::channel();
        let started = in_thread("sdp-exit", move || {
            for entry in &used {
                if let Err(failure) = go_first(entry, Waits::Ever) {
                    say(Level::Error, || {
                        format!("what a child has written is lost: {}", failure.message)
                    });
                }
            }
            // Nobody waits any more when it has taken too long.
            let _ = done.send(());
        });
        match started {
            // What has not gone by then is lost.
            Ok(()) => drop(is_done.recv_timeout(EXIT_LINGER)),
            Err(error) => say(Level::Error, || {
                format!("what children have written may be lost: {error}")
            }),
        }
    }
    let mut children = children();
    while children.relays.iter().any(|relay| relay.is_ending()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let woken = ENDED.wait_timeout(children, left);
        children = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Relay {
    /// All children have gone.
    fn is_ending(&self) -> bool {
        self.ends.iter().all(has_hung_up)
    }

    fn run(self: Arc<Self>) {
        thread::scope(|scope| {
            let relay = &*self;
            let down = named("sdp-relay").spawn_scoped(scope, || {
                inside::stay_inside();
                relay.down();
            });
            let (last, others) = relay.ends.split_last().expect("there is a child");
            let others = others.iter();
            let ups = others.map(|end| {
                named("sdp-relay").spawn_scoped(scope, || {
                    inside::stay_inside();
                    relay.up(end);
                })
            });
            if let Err(error) = ups.chain([down]).collect::<io::Result<Vec<_>>>() {
                say(Level::Error, || format!("a connection is broken: {error}"));
                relay.break_off();
            }
            relay.up(last);
        });
        report_end(&self.entry, self.broken.load(Ordering::Relaxed));
        // Under the lock, by which a child finds a number here or the descriptor closed.
        let mut children = children();
        children.relays.retain(|relay| !Arc::ptr_eq(relay, &self));
        drop(self);
        drop(children);
        ENDED.notify_all();
    }

    /// From the peer to the children.
    fn down(&self) {
        let mut piece = vec![0; PIECE_LEN];
        loop {
            match self.receive(&mut piece) {
                Ok(0) => return self.shut_ends(Shutdown::Write),
                Ok(len) if self.deliver(&piece[..len]) => {}
                Ok(_) => return self.break_off(),
                // The peer has gone.
                Err(_) => return self.shut_ends(Shutdown::Both),
            }
        }
    }

    /// From a child to the peer.
    fn up(&self, end: &OwnedFd) {
        let mut piece = vec![0; PIECE_LEN];
        loop {
            match recv(end, &mut *piece, RecvFlags::empty()) {
                Ok((_, 0)) => break,
                Ok((_, len)) => {
                    if self.send_all(&piece[..len]).is_err() {
                        // The child's next write fails, as it would by TCP.
                        shut(end, Shutdown::Read);
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                // It has gone, and has not read all that was there for it.
                Err(_) => {
                    self.broken.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        if !has_hung_up(end) {
            self.shut_stream(libc::SHUT_WR);
            await_hang_up(end);
        }
        if self.sending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shut_stream(libc::SHUT_RD);
        }
    }

    /// Gives bytes to the last child that takes them. False: there is none.
    fn deliver(&self, mut bytes: &[u8]) -> bool {
        for end in self.ends.iter().rev() {
            while !bytes.is_empty() {
                match send(end, bytes, SendFlags::NOSIGNAL) {
                    Ok(len) => bytes = &bytes[len..],
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        bytes.is_empty()
    }

    /// Bytes are lost: all ends here, and the peer is told.
    fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.shut_stream(libc::SHUT_RD);
        self.shut_ends(Shutdown::Both);
    }

    fn shut_ends(&self, how: Shutdown) {
        for end in &self.ends {
            shut(end, how);
        }
    }

    /// It fails if the connection has ended: then there is nothing to shut.
    fn shut_stream(&self, how: c_int) {
        sdp::sdp_shutdown(self.entry.handle(), how);
    }

    fn receive(&self, to: &mut [u8]) -> Result<usize, c_int> {
        let at = to.as_mut_ptr().cast::<c_void>();
        // SAFETY: the memory is as long.
        moved(|| unsafe { sdp::sdp_recv(self.entry.handle(), at, to.len(), 0) })
    }

    fn send_all(&self, mut bytes: &[u8]) -> Result<(), c_int> {
        while !bytes.is_empty() {
            let at = bytes.as_ptr().cast::<c_void>();
            let flags = libc::MSG_NOSIGNAL;
            // SAFETY: the memory is as long.
            let sent =
                moved(|| unsafe { sdp::sdp_send(self.entry.handle(), at, bytes.len(), flags) })?;
            report::sent(u64::try_from(sent).unwrap_or(0));
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}

/// The end of a connection that only children had any more; the peer is to know of bytes that are lost.
pub(crate) fn report_end(entry: &Entry, is_broken: bool) {
    if let Some(stats) = entry.last_stats() {
        report::ended(&stats);
    }
    if is_broken && let Err(failure) = reset_at_close(entry) {
        say(Level::Error, || format!("no reset: {}", failure.message));
    }
    sdp::sdp_close(entry.handle());
}

fn reset_at_close(entry: &Entry) -> Result<(), Failure> {
    let mut linger = [0; size_of::<libc::linger>()];
    let (on, _zero_seconds) = linger.split_at_mut(size_of::<c_int>());
    on.copy_from_slice(&1_i32.to_ne_bytes());
    let socket = entry.socket()?;
    socket.set_option_by_number(libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Bytes moved, or the errno. A call is repeated that only a time-out of the program's has ended.
fn moved(mut call: impl FnMut() -> libc::ssize_t) -> Result<usize, c_int> {
    loop {
        if let Ok(len) = usize::try_from(call()) {
            return Ok(len);
        }
        let errno = boundary::errno();
        if !matches!(errno, libc::EAGAIN | libc::EINTR) {
            return Err(errno);
        }
    }
}

/// It fails if the child has gone: then there is nothing to shut.
pub(crate) fn shut(end: &OwnedFd, how: Shutdown) {
    let _ = shutdown(end, how);
}

/// Sleeps until the child has closed its end, or both directions have been shut.
pub(crate) fn await_hang_up(end: &OwnedFd) {
    let mut fds = [PollFd::new(end, PollFlags::empty())];
    while let Err(Errno::INTR) = rustix::event::poll(&mut fds, None) {}
}
