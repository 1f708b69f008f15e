//! A descriptor that poll, select and epoll understand, in every mode they have.
//!
//! It is P, one end of a pair P–Q of Unix stream sockets. The state of P that the kernel reports
//! is made from both ends:
//!
//! | P reports | because |
//! |---|---|
//! | IN | a token byte from Q lies unread in P |
//! | no OUT | P's own send queue is full; Q has not read it |
//! | RDHUP | Q is shut for writing |
//! | HUP | Q is closed, or P is shut for both |
//! | PRI, and IN | an urgent byte from Q lies unread in P (needs Linux 5.15) |
//! | ERR | Q was closed while the *primer*, a byte of P's, lay unread in it |
//!
//! Each arrival gives a new token, so a new edge for EPOLLET; the older tokens are taken back, so
//! P is never without IN while there is something to read, and never keeps more than one for
//! long. What a program itself reads from or writes to P is lost on it: the descriptor is for
//! waiting only.
//!
//! Where nobody waits for edges (`set_edges`), what arrives while P says IN changes nothing, and
//! nobody has to look after the connection until it is read.
//!
//! Where the provider can (`Caps::TOKENS`), the peer has a copy of Q and puts the token itself, once
//! for each time that the connection is left without a call: no thread of this process is woken but
//! the one that polls. Each token put is counted here, before or after it has come: one that the peer
//! is about to put is taken back when it has.
//!
//! The kernel reports an urgent byte as something to read, too. A receive that finds nothing but an
//! urgent byte in the stream leaves it there, so that is an idle turn and no more. While one is
//! shown tokens are only added, since a receive from P would take it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair, sockopt,
};
use sdp_verbs::hidden;

/// No program sees P by its number.
static HIDDEN: AtomicBool = AtomicBool::new(false);

/// From here on the descriptors to wait on are [`hidden`] in this process: for a library that shows none of
/// them to its program.
pub fn hide_descriptors() {
    HIDDEN.store(true, Ordering::Relaxed);
}

use sdp_verbs::{QpNum, QueuePair};

use crate::park::pass_moment;

/// Bytes written at once to make P unwritable.
const FILL_LEN: usize = 2048;

/// The kernel says OUT while what is unread takes a quarter of the send queue at most: of a shorter queue
/// than this [`FILL_LEN`] takes more. Its minimum is about 4.6 KB.
const QUEUE_MAX: usize = 4 * FILL_LEN;

/// How often a receive looks again for a token that a peer is just putting.
const MOMENTS: u32 = 4;

/// Tokens taken back by one system call.
const TAKE_MAX: usize = 64;

/// Such system calls in one go. They take more than an honest peer has put; one that goes on writing
/// keeps nobody.
const TAKES_MAX: usize = 64;

/// A descriptor to wait on, for as long as it exists. See [`SdpStream::readiness`] and
/// [`SdpListener::readiness`].
///
/// [`SdpStream::readiness`]: crate::SdpStream::readiness
/// [`SdpListener::readiness`]: crate::SdpListener::readiness
#[derive(Clone, Debug)]
pub struct Readiness(Arc<OwnedFd>);

impl Readiness {
    /// As the descriptor of a connect that has failed: ERR and HUP, for good.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn of_failure() -> io::Result<Self> {
        let mut pair = ReadyPair::new()?;
        let failed = Level {
            ended: Some(true),
            ..Level::default()
        };
        pair.show(failed, 0)?;
        Ok(pair.descriptor())
    }

    /// The program has been told of the error in which the connection ended: ERR is not reported any
    /// more, as by the kernel's sockets.
    pub fn error_told(&self) {
        // Asking takes it; there is nothing that can fail about it.
        let _ = sockopt::socket_error(&self.0);
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What a socket's state is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Level {
    /// A non-blocking receive, or accept, would return at once.
    pub(crate) readable: bool,
    /// Grows with everything that arrives: an edge.
    pub(crate) arrivals: u64,
    /// A non-blocking send has room for nothing.
    pub(crate) full: bool,
    /// A non-blocking send has room for plenty. Between the two nothing changes.
    pub(crate) roomy: bool,
    /// There is an urgent byte that was not received.
    pub(crate) urgent: bool,
    /// The peer sends no more, or this side has shut down receiving.
    pub(crate) read_closed: bool,
    /// This side has shut down sending.
    pub(crate) write_closed: bool,
    /// The connection has ended; in error if so.
    pub(crate) ended: Option<bool>,
}

/// What somebody has to look after a connection for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaits {
    /// Nothing that comes of itself.
    Nothing,
    /// Bytes for the program, and what the peer marks as urgent.
    Arrivals,
    /// Any message: it may make room for a send.
    Anything,
}

/// Both ends of the pair, and what has been done with them.
#[derive(Debug)]
pub(crate) struct ReadyPair {
    p: Arc<OwnedFd>,
    q: Option<OwnedFd>,
    /// Tokens in P, or on their way there from the peer.
    tokens: usize,
    /// Tokens that the peer should have put and had not when they were looked for.
    late: usize,
    /// Of a token that the peer has taken upon itself it is not known whether it is there.
    unseen: bool,
    /// As it was shown last.
    readable: bool,
    /// The queue pair whose peer was lent Q, and whether it has taken it.
    lent: Option<(QpNum, bool)>,
    urgent: bool,
    filled: bool,
    shut: bool,
    /// P is shut for both: nothing can be written to it.
    hung_up: bool,
    arrivals: u64,
    /// Each arrival is to be an edge.
    edges: bool,
    /// One piece of [`FILL_LEN`] fills P.
    fills_at_once: bool,
}

impl ReadyPair {
    /// A pair that reports OUT.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (p, q) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let q = hidden::hide(q);
        let p = if HIDDEN.load(Ordering::Relaxed) {
            hidden::hide(p)
        } else {
            p
        };
        // The kernel's minimum: a full queue is reached, and left, with few bytes.
        sockopt::set_socket_send_buffer_size(&p, 1)?;
        let fills_at_once = sockopt::socket_send_buffer_size(&p)? < QUEUE_MAX;
        let pair = Self {
            p: Arc::new(p),
            q: Some(q),
            tokens: 0,
            late: 0,
            unseen: false,
            readable: false,
            lent: None,
            urgent: false,
            filled: false,
            shut: false,
            hung_up: false,
            arrivals: 0,
            edges: true,
            fills_at_once,
        };
        pair.prime()?;
        Ok(pair)
    }

    /// The program's end.
    pub(crate) fn descriptor(&self) -> Readiness {
        Readiness(Arc::clone(&self.p))
    }

    /// Whether each arrival is to be an edge; at first it is.
    pub(crate) fn set_edges(&mut self, on: bool) {
        self.edges = on;
    }

    /// What changes what P reports, or must be an edge. The peer asks by itself for what has to be
    /// seen at once, urgent bytes and the end.
    pub(crate) fn awaits(&self) -> Awaits {
        if self.q.is_none() {
            Awaits::Nothing
        } else if self.filled || self.shut || self.urgent {
            Awaits::Anything
        } else if self.edges || self.tokens == 0 {
            Awaits::Arrivals
        } else {
            Awaits::Nothing
        }
    }

    /// Whether the peer of `qp` puts tokens. It is lent Q at the first question.
    pub(crate) fn is_lent_to(&mut self, qp: &dyn QueuePair) -> bool {
        let num = qp.num();
        match (self.lent, &self.q) {
            (Some((to, taken)), Some(_)) if to == num => taken,
            (_, Some(q)) => {
                let lent = qp.lend_token_socket(q.as_fd());
                if let Err(error) = &lent {
                    tracing::debug!(qp = ?num, "the progress thread shows what arrives: {error}");
                }
                self.lent = Some((num, lent.is_ok()));
                lent.is_ok()
            }
            (_, None) => false,
        }
    }

    /// Makes P report `level`, after the peer has put `put` tokens.
    ///
    /// # Errors
    /// A system call failed that cannot fail on a pair nobody tampered with.
    pub(crate) fn show(&mut self, level: Level, put: u32) -> io::Result<()> {
        self.tokens = self.tokens.saturating_add(put as usize);
        self.unseen |= put != 0;
        self.readable = level.readable;
        if self.q.is_none() {
            return Ok(());
        }
        self.show_urgent(level.urgent)?;
        self.show_readable(level, put != 0)?;
        match (level.ended, self.filled) {
            // A send fails at once, which is as good as room.
            (None, true) if level.write_closed && !self.hung_up => self.unfill()?,
            (None, false) if level.full && !level.write_closed => self.fill()?,
            (None, true) if level.roomy && !self.hung_up => self.unfill()?,
            // The end makes room too, a moment later: OUT must not be seen before it.
            _ => {}
        }
        if level.read_closed && !self.shut {
            self.shut = true;
            if let Some(q) = &self.q {
                shutdown(q, Shutdown::Write)?;
            }
        }
        if level.read_closed && level.write_closed && !self.hung_up {
            self.hung_up = true;
            shutdown(&*self.p, Shutdown::Both)?;
        }
        if let Some(in_error) = level.ended {
            if !in_error {
                self.drain_q()?;
            }
            // With the primer unread this is a reset, without it an end.
            self.q = None;
            // A forked child may have a copy of it, and the peer, so that closing is not heard.
            shutdown(&*self.p, Shutdown::Both)?;
        }
        Ok(())
    }

    /// `edge`: there has been one already.
    fn show_readable(&mut self, level: Level, edge: bool) -> io::Result<()> {
        let arrived = level.arrivals != self.arrivals && !edge;
        self.arrivals = level.arrivals;
        // Once Q is shut for writing P reports IN for good.
        if self.shut {
            return Ok(());
        }
        match (level.readable, self.tokens) {
            (true, 0) => self.put_token()?,
            (true, _) if arrived && self.edges => self.put_token()?,
            (false, 1..) if !self.urgent => self.take_all_tokens()?,
            (false, 0) if self.late > 0 && !self.urgent => {
                self.take_tokens(TAKE_MAX)?;
            }
            _ => {}
        }
        if level.readable && !self.unseen {
            self.take_all_but_one()?;
        }
        Ok(())
    }

    /// PRI is shown, or taken back. A kernel that has none for these sockets shows none.
    fn show_urgent(&mut self, urgent: bool) -> io::Result<()> {
        if urgent == self.urgent || self.shut {
            return Ok(());
        }
        self.urgent = urgent;
        if urgent {
            let Some(q) = &self.q else { return Ok(()) };
            let flags = SendFlags::OOB | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            return match send(q, b"u", flags) {
                Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP) => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
        match recv(&*self.p, &mut [0; 1], RecvFlags::OOB | RecvFlags::DONTWAIT) {
            Ok(_) | Err(Errno::AGAIN | Errno::INVAL | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
        // What lies there now is as old as the byte; the next look at the level puts a new token.
        self.take_all_tokens()
    }

    fn put_token(&mut self) -> io::Result<()> {
        let Some(q) = &self.q else { return Ok(()) };
        match send(q, b"r", SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => self.tokens += 1,
            // A queue of the program's own making is full: IN is reported all the same.
            Err(Errno::AGAIN) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Takes whatever lies in P, and for a moment what is just being put there: a peer's message is in
    /// place before its token is. One that is late is a false IN when it comes; should it never come,
    /// nothing waits for it.
    fn take_all_tokens(&mut self) -> io::Result<()> {
        for moment in 0..=MOMENTS {
            for _ in 0..TAKES_MAX {
                if self.take_tokens(TAKE_MAX)? < TAKE_MAX {
                    break;
                }
            }
            if self.tokens == 0 || moment == MOMENTS {
                break;
            }
            pass_moment(moment + 1 == MOMENTS);
        }
        self.late = self.late.saturating_add(std::mem::take(&mut self.tokens));
        self.unseen = false;
        Ok(())
    }

    /// For when the connection is left with bytes that nobody has taken: IN is there, though the peer be
    /// slow to put the token for them.
    ///
    /// # Errors
    /// As [`show`](Self::show).
    pub(crate) fn confirm(&mut self) -> io::Result<()> {
        let looks = self.unseen && self.readable && !self.shut && !self.urgent;
        if !looks || self.q.is_none() {
            return Ok(());
        }
        self.unseen = false;
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let there = match recv(&*self.p, &mut [0; TAKE_MAX], flags) {
            Ok((there, _)) => there.min(self.tokens),
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(e) => return Err(e.into()),
        };
        self.late = self.late.saturating_add(self.tokens - there);
        self.tokens = there;
        if there == 0 {
            self.put_token()?;
        }
        self.take_all_but_one()
    }

    /// Of several tokens one says as much.
    fn take_all_but_one(&mut self) -> io::Result<()> {
        if self.tokens > 1 && !self.urgent {
            self.take_tokens(self.tokens - 1)?;
        }
        Ok(())
    }

    /// Takes up to `count` tokens, [`TAKE_MAX`] at most. Returns how many there were.
    fn take_tokens(&mut self, count: usize) -> io::Result<usize> {
        let mut bytes = [0; TAKE_MAX];
        let len = count.min(TAKE_MAX);
        loop {
            match recv(&*self.p, &mut bytes[..len], RecvFlags::DONTWAIT) {
                Ok((n, _)) => {
                    let late = n.saturating_sub(self.tokens);
                    self.tokens = self.tokens.saturating_sub(n);
                    self.late = self.late.saturating_sub(late);
                    return Ok(n);
                }
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// P's send queue becomes full.
    fn fill(&mut self) -> io::Result<()> {
        self.filled = true;
        loop {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&*self.p, &[0; FILL_LEN], flags) {
                Ok(_) if self.fills_at_once => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn unfill(&mut self) -> io::Result<()> {
        self.filled = false;
        self.drain_q()?;
        self.prime()
    }

    /// One byte of P's lies unread in Q.
    fn prime(&self) -> io::Result<()> {
        send(&*self.p, b"p", SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    fn drain_q(&self) -> io::Result<()> {
        let Some(q) = &self.q else { return Ok(()) };
        let mut bytes = [0; 4 * FILL_LEN];
        loop {
            match recv(q, &mut bytes, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => return Ok(()),
                // There was no more.
                Ok((taken, _)) if taken < bytes.len() => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
