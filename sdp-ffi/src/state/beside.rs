//! Sockets that stand beside one of TCP: it holds the port, and takes over where the other side
//! has no SDP.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libc::c_int;
use sdp_socket::Builder;

use super::{Phase, Socket, lock};
use crate::errno::Failure;
use crate::settings::Name;
use crate::stats::SdpStats;

impl Socket {
    /// Opens what listening will need, so that it takes less time when it comes.
    ///
    /// # Errors
    /// As listen(2).
    pub fn prepare(&self) -> Result<(), Failure> {
        Ok(self.builder().open()?)
    }

    /// Takes the local address that a TCP socket is bound to.
    ///
    /// # Errors
    /// As bind(2); `EINVAL` if this socket has an address or that one has none.
    pub fn adopt(&self, holder: BorrowedFd<'_>) -> Result<(), Failure> {
        let mut phase = self.phase()?;
        let (Phase::Fresh | Phase::Spent) = *phase else {
            return Err(Failure::new(libc::EINVAL, "the socket has an address"));
        };
        *phase = Phase::Bound(self.builder().adopt(holder)?);
        Ok(())
    }

    /// Listens, but answers callers only when somebody accepts; [`begin_to_accept`](Self::begin_to_accept)
    /// comes before the first accept.
    ///
    /// # Errors
    /// As listen(2).
    pub fn listen_and_answer_late(&self, backlog: c_int) -> Result<(), Failure> {
        self.listen_by(backlog, Builder::listen_and_answer_late)
    }

    /// Says that this process accepts; `at_once`: from here on callers are answered as they come. False:
    /// a caller has given up before, and nothing comes of the listener any more.
    ///
    /// # Errors
    /// `EINVAL` if it does not listen.
    pub fn begin_to_accept(&self, at_once: bool) -> Result<bool, Failure> {
        let Some(listener) = self.listener() else {
            return Err(Failure::new(libc::EINVAL, "the socket does not listen"));
        };
        Ok(listener.begin_to_accept(at_once)?)
    }

    /// Waits until an accept gives a connection, or no caller is being answered any more, for that long
    /// at most.
    ///
    /// # Errors
    /// `EINVAL` if it does not listen.
    pub fn await_answered(&self, time: Duration) -> Result<(), Failure> {
        let Some(listener) = self.listener() else {
            return Err(Failure::new(libc::EINVAL, "the socket does not listen"));
        };
        Ok(listener.await_answered(time)?)
    }

    /// Lets go of the listener and its address, so that another process may have them. The socket is as
    /// new. A call that is waiting for a connection meanwhile keeps both until it ends.
    ///
    /// # Errors
    /// `EBADF` if it has been closed.
    pub fn unlisten(&self) -> Result<(), Failure> {
        let mut phase = self.phase()?;
        if matches!(*phase, Phase::Listening | Phase::Unlistening) {
            *phase = Phase::Fresh;
            lock(&self.readiness).take();
            let listener = lock(&self.listener).take();
            drop(phase);
            drop(listener);
        }
        Ok(())
    }

    /// Connects, or gives up after `wait`. After a failure the socket is as new.
    ///
    /// # Errors
    /// As connect(2); `ETIMEDOUT` after `wait`.
    pub fn connect_within(&self, addr: SocketAddr, wait: Duration) -> Result<(), Failure> {
        let connecting = {
            let mut phase = self.phase()?;
            let bound = match std::mem::replace(&mut *phase, Phase::Fresh) {
                Phase::Bound(bound) => Some(bound),
                Phase::Fresh | Phase::Spent => None,
                other => {
                    *phase = other;
                    return Err(Failure::new(libc::EISCONN, "it is connected, or listens"));
                }
            };
            let connecting = Arc::new(self.builder().start_connect(addr, bound)?);
            // One of a connect that failed.
            lock(&self.readiness).take();
            *phase = Phase::Connecting(Arc::clone(&connecting));
            connecting
        };
        let in_time = connecting.wait(Some(wait))?;
        let mut phase = self.phase()?;
        if !in_time && matches!(*phase, Phase::Connecting(_)) {
            connecting.cancel();
            *phase = Phase::Fresh;
            let words = format!("no answer within {wait:?}");
            return Err(Failure::new(libc::ETIMEDOUT, words));
        }
        self.connected(&mut phase)
    }

    /// Starts to connect, and has the descriptor to wait on from the beginning, so that it shows the end
    /// whenever that comes.
    ///
    /// # Errors
    /// `EINPROGRESS`, which is what a connect returns that goes on; others as connect(2).
    pub fn connect_unwaited(&self, addr: SocketAddr) -> Result<(), Failure> {
        let mut phase = self.phase()?;
        let started = self.start_connect(&mut phase, addr);
        if let Phase::Connecting(connecting) = &*phase {
            *lock(&self.readiness) = Some(connecting.readiness()?);
        }
        started.map(|_| ())
    }

    /// Somebody waits, for edges or for a level. While nobody has ever waited for edges, a stream whose
    /// descriptor says IN is not looked after before it is read.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn awaited(&self, for_edges: bool) -> Result<(), Failure> {
        let mut edges = lock(&self.edges);
        let wanted = for_edges || *edges == Some(true);
        let Some(stream) = self.stream.get() else {
            // A stream that comes of it shows edges until somebody waits for a level.
            if for_edges {
                *edges = Some(true);
            }
            return Ok(());
        };
        if edges.replace(wanted) != Some(wanted) {
            stream.set_edges(wanted)?;
        }
        Ok(())
    }

    /// Whether it is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase().is_ok() && self.stream.get().is_some()
    }

    /// Whether a connect is under way, or has failed and nobody has been told.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        let phase = self.phase();
        phase.is_ok_and(|phase| matches!(*phase, Phase::Connecting(_) | Phase::Failed(_)))
    }

    /// Whether a connect is under way.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        let phase = self.phase();
        phase.is_ok_and(|phase| matches!(*phase, Phase::Connecting(_)))
    }

    /// Whether an accept would return at once.
    ///
    /// # Errors
    /// `EINVAL` if it does not listen.
    pub fn has_pending(&self) -> Result<bool, Failure> {
        let Some(listener) = self.listener() else {
            return Err(Failure::new(libc::EINVAL, "the socket does not listen"));
        };
        Ok(listener.has_pending()?)
    }

    /// A new socket with the options of this one; `None` if a thread is changing them, which in a
    /// forked child is one that is not there.
    #[must_use]
    pub fn like(&self) -> Option<Self> {
        let settings = self.settings.try_lock().ok()?.clone();
        Some(Self {
            settings: Mutex::new(settings),
            ..Self::new(self.domain, self.family, false)
        })
    }

    /// Sets an option by its numbers.
    ///
    /// # Errors
    /// As setsockopt(2); `ENOPROTOOPT` for one that there is not.
    pub fn set_option_by_number(
        &self,
        level: c_int,
        number: c_int,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        self.set_option(Name::of(level, number)?, bytes)
    }

    /// How long a receive or an accept may wait.
    #[must_use]
    pub fn read_timeout(&self) -> Option<Duration> {
        self.settings().read_timeout
    }

    /// How long a send or a connect may wait.
    #[must_use]
    pub fn write_timeout(&self) -> Option<Duration> {
        self.settings().write_timeout
    }

    /// What the connection has done, if there is one.
    #[must_use]
    pub fn stats(&self) -> Option<SdpStats> {
        let stream = self.stream.get()?;
        Some(SdpStats::from(&stream.stats()))
    }
}
