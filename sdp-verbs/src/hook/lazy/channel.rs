//! A completion channel that also fires for work that is held back.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, epoll};

use crate::cq::{CompChannel, CqToken};
use crate::error::VerbsError;

/// See [`Lazy`](super::Lazy). Its descriptor is an epoll over the wrapped channel's and one of its
/// own.
#[derive(Debug)]
pub(super) struct LazyChannel {
    inner: Arc<dyn CompChannel>,
    both: OwnedFd,
    own: OwnedFd,
    /// Queues to be polled although nothing has completed. `own` is readable if not empty; it is
    /// written and cleared under this lock.
    due: Mutex<VecDeque<CqToken>>,
}

impl LazyChannel {
    pub(super) fn new(inner: Arc<dyn CompChannel>) -> Result<Self, VerbsError> {
        let failed = |error| VerbsError::os("creating a lazy completion channel", error);
        let own = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(failed)?;
        let both = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        for fd in [own.as_fd(), inner.fd()] {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&both, fd, data, epoll::EventFlags::IN).map_err(failed)?;
        }
        Ok(Self {
            inner,
            both,
            own,
            due: Mutex::new(VecDeque::new()),
        })
    }

    pub(super) fn inner(&self) -> &Arc<dyn CompChannel> {
        &self.inner
    }

    /// Raises an event for a queue.
    pub(super) fn fire(&self, token: CqToken) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if due.contains(&token) {
            return;
        }
        due.push_back(token);
        if let Err(error) = rustix::io::write(&self.own, &1u64.to_ne_bytes()) {
            // Only a counter at its maximum can refuse, and then the descriptor is readable.
            tracing::warn!(%error, "lazy completion channel: eventfd not written");
        }
    }
}

impl CompChannel for LazyChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }

    fn poll(&self) -> Option<CqToken> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = due.pop_front() {
            return Some(token);
        }
        match rustix::io::read(&self.own, &mut [0u8; 8]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => {
                tracing::warn!(%error, "lazy completion channel: eventfd not cleared");
            }
        }
        drop(due);
        self.inner.poll()
    }

    fn poll_known(&self) -> Option<CqToken> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.pop_front().or_else(|| self.inner.poll_known())
    }
}
