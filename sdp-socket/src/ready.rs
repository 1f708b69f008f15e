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
//! | HUP | Q is closed |
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
//! The kernel reports an urgent byte as something to read, too. A receive that finds nothing but an
//! urgent byte in the stream leaves it there, so that is an idle turn and no more. While one is
//! shown tokens are only added, since a receive from P would take it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair, sockopt,
};

/// Bytes written at once to make P unwritable.
const FILL_LEN: usize = 1024;

/// A descriptor to wait on, for as long as it exists. See [`SdpStream::readiness`] and
/// [`SdpListener::readiness`].
///
/// [`SdpStream::readiness`]: crate::SdpStream::readiness
/// [`SdpListener::readiness`]: crate::SdpListener::readiness
#[derive(Clone, Debug)]
pub struct Readiness(Arc<OwnedFd>);

impl Readiness {
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
    /// The connection has ended; in error if so.
    pub(crate) ended: Option<bool>,
}

/// Both ends of the pair, and what has been done with them.
#[derive(Debug)]
pub(crate) struct ReadyPair {
    p: Arc<OwnedFd>,
    q: Option<OwnedFd>,
    token: bool,
    urgent: bool,
    filled: bool,
    shut: bool,
    arrivals: u64,
    /// Each arrival is to be an edge.
    edges: bool,
}

impl ReadyPair {
    /// A pair that reports OUT.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (p, q) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The kernel's minimum: a full queue is reached, and left, with few bytes.
        sockopt::set_socket_send_buffer_size(&p, 1)?;
        let pair = Self {
            p: Arc::new(p),
            q: Some(q),
            token: false,
            urgent: false,
            filled: false,
            shut: false,
            arrivals: 0,
            edges: true,
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

    /// Whether what arrives changes what P reports, or must be an edge. The peer asks by itself for
    /// what has to be seen at once, urgent bytes and the end.
    pub(crate) fn awaits_arrivals(&self) -> bool {
        self.edges || self.filled || self.shut || !self.token
    }

    /// Makes P report `level`.
    ///
    /// # Errors
    /// A system call failed that cannot fail on a pair nobody tampered with.
    pub(crate) fn show(&mut self, level: Level) -> io::Result<()> {
        if self.q.is_none() {
            return Ok(());
        }
        self.show_urgent(level.urgent)?;
        self.show_readable(level)?;
        if level.ended.is_none() && level.full && !self.filled {
            self.fill()?;
        } else if (level.roomy || level.ended.is_some()) && self.filled {
            self.unfill()?;
        }
        if level.read_closed && !self.shut {
            self.shut = true;
            if let Some(q) = &self.q {
                shutdown(q, Shutdown::Write)?;
            }
        }
        if let Some(in_error) = level.ended {
            if !in_error {
                self.drain_q()?;
            }
            if let Some(q) = &self.q {
                // A forked child has a copy of it, so that closing may not be heard.
                shutdown(q, Shutdown::Both)?;
            }
            // With the primer unread this is a reset, without it an end.
            self.q = None;
        }
        Ok(())
    }

    fn show_readable(&mut self, level: Level) -> io::Result<()> {
        let arrived = level.arrivals != self.arrivals;
        self.arrivals = level.arrivals;
        // Once Q is shut for writing P reports IN for good.
        if self.shut {
            return Ok(());
        }
        match (level.readable, self.token) {
            (true, false) => {
                self.put_token()?;
            }
            (true, true) if arrived && self.edges => {
                self.put_token()?;
                if !self.urgent {
                    self.take_tokens(1)?;
                }
            }
            (false, true) if !self.urgent => {
                self.token = false;
                self.take_tokens(usize::MAX)?;
            }
            _ => {}
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
        self.token = false;
        self.take_tokens(usize::MAX)
    }

    fn put_token(&mut self) -> io::Result<()> {
        self.token = true;
        let Some(q) = &self.q else { return Ok(()) };
        match send(q, b"r", SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            // A queue of the program's own making is full: IN is reported all the same.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn take_tokens(&self, count: usize) -> io::Result<()> {
        let mut bytes = [0; 64];
        let len = count.min(bytes.len());
        loop {
            match recv(&*self.p, &mut bytes[..len], RecvFlags::DONTWAIT) {
                Ok((n, _)) if n == len && count > len => {}
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
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
                Ok((0, _)) | Err(Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    const ZERO: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };

    fn state(pair: &ReadyPair) -> PollFlags {
        let all = PollFlags::IN | PollFlags::PRI | PollFlags::OUT | PollFlags::RDHUP;
        let ready = pair.descriptor();
        let mut fds = [PollFd::new(&ready, all)];
        poll(&mut fds, Some(&ZERO)).unwrap();
        fds[0].revents()
    }

    fn shown(pair: &mut ReadyPair, level: Level) -> PollFlags {
        pair.show(level).unwrap();
        state(pair)
    }

    const READABLE: Level = Level {
        readable: true,
        arrivals: 1,
        full: false,
        roomy: true,
        urgent: false,
        read_closed: false,
        ended: None,
    };
    const FULL: Level = Level {
        readable: false,
        full: true,
        roomy: false,
        ..READABLE
    };

    /// Every state a TCP socket can be in has its mask, and leaves it again.
    #[test]
    fn masks() {
        let mut pair = ReadyPair::new().unwrap();
        assert_eq!(state(&pair), PollFlags::OUT);
        assert_eq!(shown(&mut pair, READABLE), PollFlags::IN | PollFlags::OUT);
        assert_eq!(shown(&mut pair, FULL), PollFlags::empty());
        let between = Level {
            full: false,
            ..FULL
        };
        assert_eq!(shown(&mut pair, between), PollFlags::empty());
        assert_eq!(
            shown(
                &mut pair,
                Level {
                    roomy: true,
                    ..between
                }
            ),
            PollFlags::OUT
        );
        let half = Level {
            readable: true,
            read_closed: true,
            ..READABLE
        };
        let open = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
        assert_eq!(shown(&mut pair, half), open);
        let over = Level {
            ended: Some(false),
            ..half
        };
        assert_eq!(shown(&mut pair, over), open | PollFlags::HUP);
    }

    /// An urgent byte is shown by itself and beside tokens, and taken back without a trace. Where
    /// the kernel cannot, everything else is as without it.
    #[test]
    fn urgent_bytes() {
        let mut pair = ReadyPair::new().unwrap();
        let quiet = Level {
            readable: false,
            arrivals: 0,
            ..READABLE
        };
        for before in [quiet, READABLE] {
            shown(&mut pair, before);
            let mask = shown(
                &mut pair,
                Level {
                    urgent: true,
                    ..before
                },
            );
            let open = PollFlags::IN | PollFlags::OUT;
            assert!(mask == open | PollFlags::PRI || mask == state(&pair));
            for arrivals in 5..900 {
                let level = Level {
                    urgent: true,
                    readable: arrivals % 3 > 0,
                    arrivals,
                    ..READABLE
                };
                assert_eq!(shown(&mut pair, level), mask | PollFlags::IN);
            }
            assert_eq!(shown(&mut pair, READABLE), open);
            assert_eq!(shown(&mut pair, quiet), PollFlags::OUT);
        }
    }

    /// A reset is reported as an error, whatever the state before.
    #[test]
    fn reset_is_an_error() {
        for before in [READABLE, FULL] {
            let mut pair = ReadyPair::new().unwrap();
            shown(&mut pair, before);
            let reset = Level {
                readable: true,
                ended: Some(true),
                ..before
            };
            let mask = shown(&mut pair, reset);
            assert!(
                mask.contains(PollFlags::ERR | PollFlags::HUP | PollFlags::IN),
                "{mask:?}"
            );
        }
    }

    /// As in a process whose forked child has a copy of Q.
    #[test]
    fn the_end_shows_though_q_is_open_elsewhere() {
        for in_error in [false, true] {
            let mut pair = ReadyPair::new().unwrap();
            let copy = pair.q.as_ref().unwrap().try_clone().unwrap();
            let ended = Level {
                readable: true,
                ended: Some(in_error),
                ..READABLE
            };
            let mask = shown(&mut pair, ended);
            assert!(mask.contains(PollFlags::HUP | PollFlags::IN), "{mask:?}");
            drop(copy);
        }
    }

    /// Without edges nobody looks after a pair that says IN, unless OUT or the end is to be shown.
    #[test]
    fn what_is_shown_already_is_not_awaited() {
        let mut pair = ReadyPair::new().unwrap();
        pair.set_edges(false);
        assert!(pair.awaits_arrivals(), "nothing is there");
        shown(&mut pair, READABLE);
        assert!(!pair.awaits_arrivals(), "IN is shown");
        let full = Level {
            readable: true,
            ..FULL
        };
        shown(&mut pair, full);
        assert!(pair.awaits_arrivals(), "OUT is to be shown");
        shown(&mut pair, READABLE);
        pair.set_edges(true);
        assert!(pair.awaits_arrivals(), "each arrival is an edge");
    }

    /// Every arrival is an edge although the one before was not taken; no arrival is none.
    #[test]
    fn edges() {
        let mut pair = ReadyPair::new().unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, pair.descriptor(), EventData::new_u64(7), flags).unwrap();
        let edges = || {
            let mut events: Vec<Event> = Vec::with_capacity(4);
            epoll::wait(
                &epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&ZERO),
            )
            .unwrap()
        };
        for arrivals in 1..100 {
            pair.show(Level {
                arrivals,
                ..READABLE
            })
            .unwrap();
            assert_eq!(edges(), 1, "arrival {arrivals}");
            pair.show(Level {
                arrivals,
                ..READABLE
            })
            .unwrap();
            assert_eq!(edges(), 0, "nothing came after {arrivals}");
        }
        assert_eq!(
            shown(&mut pair, FULL),
            PollFlags::empty(),
            "one call takes all tokens"
        );
    }
}
