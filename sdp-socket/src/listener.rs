//! Listening sockets.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use sdp_core::{Connection, Instant};
use sdp_verbs::{CmId, CmToken, Wake};

use crate::bound::{Hold, Holds, SdpBound};
use crate::builder::Builder;
use crate::context::Context;
use crate::driver::{Conn, config};
use crate::error;
use crate::options::Options;
use crate::park::{Own, Place, WaitWord, sleep_at};
use crate::ready::{Level, Readiness, ReadyPair};
use crate::stream::SdpStream;
use crate::sync::lock;

/// Connections that wait to be accepted, at most; as std's `TcpListener`.
pub(crate) const BACKLOG: u32 = 128;

/// Callers that may wait for room in a backlog, however small it is, as with TCP's queue of
/// half-open connections.
const UNANSWERED_MIN: u32 = 1024;

/// How long a handshake that an accept has begun may keep it.
const HANDSHAKE_WAIT: Duration = Duration::from_millis(10);

/// A peer's request to connect, where it came, and its private data.
type Request = (Arc<Context>, Arc<dyn CmId>, Vec<u8>);

/// A listening endpoint, on one provider or several, and its accept queue. Handshakes are completed
/// by the progress loops, so a connect succeeds without an accept, as with TCP.
#[derive(Debug)]
pub(crate) struct Listening {
    /// The first one is that by which threads wait here.
    ends: Holds,
    options: Options,
    only_v6: bool,
    backlog: AtomicU32,
    queue: Mutex<VecDeque<Arc<Conn>>>,
    /// Requests that came while the backlog was full: their callers wait, as TCP's do.
    waiting: Mutex<VecDeque<Request>>,
    /// The descriptor to wait on, once the program has asked for it, and how many have come.
    ready: Mutex<(Option<ReadyPair>, u64)>,
    /// Handshakes under way and connections in the queue.
    pending: AtomicUsize,
    word: WaitWord,
    nonblocking: AtomicBool,
    /// Requests are answered when somebody accepts, one at a time, and wait until then.
    answers_late: AtomicBool,
    /// Somebody has accepted. Set under the lock of those that wait.
    has_accepted: AtomicBool,
    /// No connection is taken any more.
    shut: AtomicBool,
    /// Connections that the program has taken.
    accepted: AtomicU64,
    me: Weak<Self>,
}

/// What a listener has done and has waiting, for a report.
#[derive(Debug)]
pub(crate) struct ListenerAccount {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) providers: Vec<&'static str>,
    pub(crate) backlog: u32,
    /// Connections that wait to be accepted.
    pub(crate) queued: usize,
    /// Peers that wait for room among them.
    pub(crate) waiting: usize,
    pub(crate) accepted: u64,
}

impl Listening {
    fn open(
        bound: SdpBound,
        backlog: u32,
        options: Options,
        answers_late: bool,
    ) -> io::Result<Arc<Self>> {
        let only_v6 = bound.only_v6();
        let ends = bound.into_holds()?;
        // As listen(2): a backlog of zero still takes one.
        let backlog = backlog.max(1);
        let listening = Arc::new_cyclic(|me| Self {
            ends,
            options,
            only_v6,
            backlog: AtomicU32::new(backlog),
            queue: Mutex::default(),
            waiting: Mutex::default(),
            ready: Mutex::default(),
            pending: AtomicUsize::new(0),
            word: WaitWord::default(),
            nonblocking: AtomicBool::new(false),
            answers_late: AtomicBool::new(answers_late),
            has_accepted: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            me: Weak::clone(me),
        });
        // Before it listens: a request may come at once.
        for end in &listening.ends {
            for context in end.contexts() {
                context.add_listening(end.id.token(), &listening);
            }
        }
        listening.listen()?;
        Ok(listening)
    }

    /// Listens at every end, or tells them of another backlog.
    fn listen(&self) -> io::Result<()> {
        let unanswered_max = unanswered_max(self.backlog.load(Ordering::Relaxed));
        for (number, end) in self.ends.iter().enumerate() {
            match end.id.listen(unanswered_max).map_err(error::verbs_error) {
                Ok(()) => {}
                Err(error) if number == 0 => return Err(error),
                // Among others: the ports of iWARP are TCP's, where the first one has taken it.
                Err(error) => {
                    let name = end.context.provider().name();
                    tracing::warn!("no listener on {name}: {error}; SDP_PROVIDER={name} is one");
                }
            }
        }
        Ok(())
    }

    /// The end by whose clock and threads others wait.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.ends[0].context
    }

    pub(crate) fn account(&self) -> ListenerAccount {
        let name = |end: &Hold| end.context.provider().name();
        ListenerAccount {
            local: self.ends[0].id.local_addr(),
            providers: self.ends.iter().map(name).collect(),
            backlog: self.backlog.load(Ordering::Relaxed),
            queued: lock(&self.queue).len(),
            waiting: lock(&self.waiting).len(),
            accepted: self.accepted.load(Ordering::Relaxed),
        }
    }

    fn backlog(&self) -> usize {
        usize::try_from(self.backlog.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// A peer asks to connect.
    pub(crate) fn request(&self, at: &Context, id: Arc<dyn CmId>, private_data: Vec<u8>) {
        let mut contexts = self.ends.iter().flat_map(Hold::contexts);
        let here = contexts.find(|context| std::ptr::eq(&***context, at));
        let context = Arc::clone(here.expect("a context of this one"));
        lock(&self.waiting).push_back((context, id, private_data));
        self.admit();
        if self.answers_late() {
            self.show_ready(1);
            self.word.signal();
        }
    }

    /// A request that has not been answered is none any more. If nobody has ever accepted, whoever waits
    /// here leaves that to others, who are reached by other means: nobody else is to wait in vain.
    pub(crate) fn withdrawn(&self, id: CmToken) {
        let mut waiting = lock(&self.waiting);
        let before = waiting.len();
        waiting.retain(|(_, request, _)| request.token() != id);
        if waiting.len() == before || !self.answers_late() {
            return;
        }
        if !self.has_accepted.load(Ordering::Relaxed) {
            self.shut.store(true, Ordering::Release);
        }
        drop(waiting);
        self.admit();
        self.show_ready(0);
    }

    fn answers_late(&self) -> bool {
        self.answers_late.load(Ordering::Acquire)
    }

    /// Answers one request, for somebody who accepts, if none is being answered.
    fn admit_one(&self) -> bool {
        while self.answers_late() && self.pending.load(Ordering::Relaxed) == 0 {
            let Some((context, id, private_data)) = lock(&self.waiting).pop_front() else {
                return false;
            };
            self.pending.fetch_add(1, Ordering::Relaxed);
            let is_taken = self.take(&context, id, &private_data);
            if !is_taken {
                self.pending.fetch_sub(1, Ordering::Relaxed);
            }
            self.show_ready(0);
            if is_taken {
                return true;
            }
        }
        false
    }

    /// Answers requests while the backlog has room.
    fn admit(&self) {
        while let Some((context, id, private_data)) = self.next_request() {
            if self.shut.load(Ordering::Acquire) {
                turn_down(&*id, "the listener has been shut down", &[]);
            } else if self.take(&context, id, &private_data) {
                continue;
            }
            self.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The next request, counted as pending.
    fn next_request(&self) -> Option<Request> {
        let mut waiting = lock(&self.waiting);
        let has_room = !self.answers_late()
            && self.pending.load(Ordering::Relaxed) < self.backlog()
            || self.shut.load(Ordering::Acquire);
        let next = waiting.pop_front_if(|_| has_room)?;
        self.pending.fetch_add(1, Ordering::Relaxed);
        Some(next)
    }

    /// Takes a request in. False: it has been turned down.
    fn take(&self, context: &Arc<Context>, id: Arc<dyn CmId>, private_data: &[u8]) -> bool {
        let options = self.options.inherited();
        let config = config(context, &options);
        let engine = match Connection::accept(context.now(), config.clone(), private_data) {
            Ok(engine) => engine,
            Err(refusal) => {
                turn_down(&*id, &refusal.error.to_string(), &refusal.private_data);
                return false;
            }
        };
        let this = Weak::clone(&self.me);
        let settled = move |conn: &Arc<Conn>| match this.upgrade() {
            Some(listening) => listening.settled(conn),
            None => conn.with_engine(|engine, now| engine.abort(now)),
        };
        let opened = Conn::open(
            context,
            Arc::clone(&id),
            options,
            engine,
            &config,
            Box::new(settled),
        );
        if let Err(error) = &opened {
            turn_down(&*id, &error.to_string(), &[]);
        }
        opened.is_ok()
    }

    fn settled(&self, conn: &Arc<Conn>) {
        // A connection that has ended since it was made is still accepted if it is complete: its
        // bytes and its error are the program's to see.
        if conn.is_connected() {
            lock(&self.queue).push_back(Arc::clone(conn));
            if self.shut.load(Ordering::Acquire) {
                // Nobody takes it any more: who shut the listener may have been through with the queue.
                self.reset_queue();
            }
            self.show_ready(1);
            self.word.signal();
        } else {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            self.admit();
            if self.answers_late() {
                // Who accepts may answer another.
                self.show_ready(1);
            }
            self.word.signal();
        }
    }

    /// Somebody has come: an accept gives a connection, or answers a request.
    fn has_come(&self) -> bool {
        let answers = self.answers_late() && self.pending.load(Ordering::Relaxed) == 0;
        !lock(&self.queue).is_empty() || answers && !lock(&self.waiting).is_empty()
    }

    /// Brings the program's descriptor, if it has one, in line with the queue.
    fn show_ready(&self, arrived: u64) {
        let mut guard = lock(&self.ready);
        let (ready, arrivals) = &mut *guard;
        *arrivals += arrived;
        // The queue is looked at under the descriptor's lock: the last to look is right.
        let readable = self.has_come();
        let level = Level {
            readable,
            arrivals: *arrivals,
            full: true,
            ..Level::default()
        };
        if let Some(Err(error)) = ready.as_mut().map(|ready| ready.show(level, 0)) {
            tracing::error!("the readiness descriptor of a listener: {error}");
        }
    }

    fn readiness(&self) -> io::Result<Readiness> {
        let made = {
            let mut guard = lock(&self.ready);
            match &guard.0 {
                Some(ready) => return Ok(ready.descriptor()),
                None => guard.0.insert(ReadyPair::new()?).descriptor(),
            }
        };
        self.show_ready(0);
        Ok(made)
    }

    fn pop(&self) -> Option<Arc<Conn>> {
        let conn = lock(&self.queue).pop_front()?;
        self.show_ready(0);
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.admit();
        if self.answers_late() {
            // Another who accepts may answer the next one.
            self.show_ready(0);
            self.word.signal();
        }
        Some(conn)
    }

    /// Waits at most until `deadline`.
    fn accept(&self, deadline: Option<Instant>) -> io::Result<Arc<Conn>> {
        loop {
            let seen = self.word.seen();
            if self.shut.load(Ordering::Acquire) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the listener has been shut down",
                ));
            }
            if let Some(conn) = self.pop() {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                return Ok(conn);
            }
            if self.admit_one() {
                // Who has been answered should not find that something else was accepted.
                self.see_through(HANDSHAKE_WAIT)?;
                continue;
            }
            let late = deadline.is_some_and(|at| at <= self.context().now());
            if late || self.nonblocking.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let runtime = self.context().runtime();
            let sleep = || runtime.wait_word(&self.word, seen, deadline);
            if sleep_at(|| Place::Word(self.word.clone()), sleep)? == Wake::Interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }
}

impl Listening {
    /// Waits until the first of the handshakes under way is over, or not: a caller sits in its connect, so
    /// that is a matter of moments.
    fn see_through(&self, time: Duration) -> io::Result<()> {
        let end = self.context().now() + time;
        loop {
            let seen = self.word.seen();
            let is_over =
                !lock(&self.queue).is_empty() || self.pending.load(Ordering::Relaxed) == 0;
            if is_over || self.context().now() >= end {
                return Ok(());
            }
            let runtime = self.context().runtime();
            let sleep = || runtime.wait_word(&self.word, seen, Some(end));
            if sleep_at(|| Place::Word(self.word.clone()), sleep)? == Wake::Interrupted {
                return Ok(());
            }
        }
    }

    /// Resets what has not been accepted.
    fn reset_queue(&self) {
        self.admit();
        while let Some(conn) = self.pop() {
            conn.with_engine(|engine, now| engine.abort(now));
            conn.close();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shut.store(true, Ordering::Release);
        for end in &self.ends {
            for context in end.contexts() {
                context.remove_listening(end.id.token());
            }
        }
        self.reset_queue();
    }
}

/// How many requests the provider keeps for a listener until they are answered; it turns down the
/// rest.
fn unanswered_max(backlog: u32) -> u32 {
    backlog.saturating_mul(2).max(UNANSWERED_MIN)
}

fn turn_down(id: &dyn CmId, why: &str, private_data: &[u8]) {
    tracing::warn!(peer = ?id.peer_addr(), "connection turned down: {why}");
    if let Err(error) = id.reject(private_data) {
        tracing::warn!("reject: {error}");
    }
}

/// A socket that listens for connections, as [`std::net::TcpListener`].
///
/// Dropping it stops listening; connections that were not accepted are reset.
#[derive(Debug)]
pub struct SdpListener {
    listening: Own<Arc<Listening>>,
    /// Kept once it was asked for.
    readiness: OnceLock<Readiness>,
}

impl SdpListener {
    fn listening(&self) -> io::Result<&Arc<Listening>> {
        self.listening.get()
    }

    /// Listens on the first of the addresses that can be bound. Port 0 takes an ephemeral port.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`.
    pub fn bind(addr: impl std::net::ToSocketAddrs) -> io::Result<Self> {
        Builder::new().bind(addr)
    }

    fn of(listening: Arc<Listening>) -> io::Result<Self> {
        Ok(Self {
            listening: Own::new(listening)?,
            readiness: OnceLock::new(),
        })
    }

    pub(crate) fn open(
        bound: SdpBound,
        backlog: u32,
        options: Options,
        answers_late: bool,
    ) -> io::Result<Self> {
        Self::of(Listening::open(bound, backlog, options, answers_late)?)
    }

    /// Says that this process accepts, of a listener made by [`Builder::listen_and_answer_late`];
    /// `at_once`: from here on requests are answered as they come, and one that is there gets a moment to
    /// become a connection. False: a caller has given up before, and it has been shut down.
    ///
    /// # Errors
    /// None on a listener; the system refused to wait.
    pub fn begin_to_accept(&self, at_once: bool) -> io::Result<bool> {
        let listening = self.listening()?;
        {
            // Whoever gives up is heard before this or not at all.
            let _waiting = lock(&listening.waiting);
            listening.has_accepted.store(true, Ordering::Relaxed);
            if listening.shut.load(Ordering::Acquire) {
                return Ok(false);
            }
        }
        if at_once && listening.answers_late.swap(false, Ordering::AcqRel) {
            listening.admit();
            listening.see_through(HANDSHAKE_WAIT)?;
            listening.show_ready(0);
        }
        Ok(true)
    }

    /// Waits until an accept that does not wait gives a connection, or no request is being answered any
    /// more, for that long at most. Of a listener that answers at once there is nothing to wait for.
    ///
    /// # Errors
    /// The system refused to wait.
    pub fn await_answered(&self, time: Duration) -> io::Result<()> {
        let listening = self.listening()?;
        match listening.answers_late() {
            true => listening.see_through(time),
            false => Ok(()),
        }
    }

    /// Changes how many connections may wait to be accepted, as a second `listen(2)` does.
    ///
    /// # Errors
    /// None on a listener.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        let listening = self.listening()?;
        listening.backlog.store(backlog.max(1), Ordering::Relaxed);
        listening.listen()?;
        listening.admit();
        Ok(())
    }

    /// Stops listening for good: threads in [`accept`](Self::accept) return `InvalidInput`,
    /// connections that were not accepted are reset, new ones are turned down.
    pub fn shutdown(&self) {
        let Ok(listening) = self.listening() else {
            return;
        };
        listening.shut.store(true, Ordering::Release);
        listening.reset_queue();
        listening.word.signal();
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// `WouldBlock` if non-blocking and none is there; `Interrupted` by a signal.
    pub fn accept(&self) -> io::Result<(SdpStream, SocketAddr)> {
        self.accept_until(None)
    }

    /// Waits for a connection, for a limited time.
    ///
    /// # Errors
    /// As [`accept`](Self::accept); `WouldBlock` when the time has passed.
    pub fn accept_timeout(&self, time: Duration) -> io::Result<(SdpStream, SocketAddr)> {
        self.accept_until(Some(self.listening()?.context().now() + time))
    }

    fn accept_until(&self, deadline: Option<Instant>) -> io::Result<(SdpStream, SocketAddr)> {
        let conn = self.listening()?.accept(deadline)?;
        let peer = conn.peer_addr().unwrap_or_else(|| self.unknown_peer());
        Ok((SdpStream::from_conn(conn)?, peer))
    }

    fn unknown_peer(&self) -> SocketAddr {
        match self.local_addr() {
            Ok(SocketAddr::V6(_)) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
            _ => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// None on a listener that was bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listening()?.ends[0]
            .id
            .local_addr()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Whether an accept would return at once.
    ///
    /// # Errors
    /// None.
    pub fn has_pending(&self) -> io::Result<bool> {
        let listening = self.listening()?;
        Ok(listening.shut.load(Ordering::Acquire) || listening.has_come())
    }

    /// Accepts connections one after the other, without end.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Makes [`accept`](Self::accept) return at once.
    ///
    /// # Errors
    /// None.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.listening()?
            .nonblocking
            .store(nonblocking, Ordering::Relaxed);
        self.listening()?.word.signal();
        Ok(())
    }

    /// A descriptor for poll, select and epoll: IN while a connection waits to be accepted.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.kept_readiness().cloned()
    }

    fn kept_readiness(&self) -> io::Result<&Readiness> {
        let listening = self.listening()?;
        if let Some(kept) = self.readiness.get() {
            return Ok(kept);
        }
        // Whoever else makes one gets the same.
        let made = listening.readiness()?;
        Ok(self.readiness.get_or_init(|| made))
    }

    /// Another handle to the same listener.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        Self::of(Arc::clone(self.listening()?))
    }

    /// Whether it takes IPv6 connections only.
    ///
    /// # Errors
    /// None.
    pub fn only_v6(&self) -> io::Result<bool> {
        Ok(self.listening()?.only_v6)
    }
}

/// The descriptor of [`SdpListener::readiness`].
///
/// # Panics
/// If it cannot be made: out of descriptors, or a listener inherited by a forked child. Where that
/// is to be handled, call [`SdpListener::readiness`] first.
impl AsFd for SdpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kept_readiness()
            .expect("no readiness descriptor")
            .as_fd()
    }
}

/// As [`AsFd`].
impl AsRawFd for SdpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Iterator over accepted connections. See [`SdpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a SdpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<SdpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::{ErrorKind, Read};

    use super::*;

    /// A handshake that is through when the listener has just been shut down: the peer is told, and nothing
    /// is kept that nobody takes.
    #[test]
    fn a_connection_that_comes_behind_the_shutdown_is_reset() {
        let listener = SdpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = SdpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let listening = listener.listening().unwrap();
        let conn = stream.conn().unwrap();
        let conn = conn.context.conn(conn.token).unwrap();
        listener.shutdown();
        // As if that one had only now been through.
        listening.pending.fetch_add(1, Ordering::Relaxed);
        listening.settled(&conn);
        assert!(lock(&listening.queue).is_empty());
        assert_eq!(listening.pending.load(Ordering::Relaxed), 0);
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
