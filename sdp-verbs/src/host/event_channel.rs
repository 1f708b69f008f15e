//! Where connection management events wait for the program.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::epoll;

use super::bell::{new_bell, new_epoll, ring, silence};
use super::cm::Cm;
use crate::cm::{CmEvent, CmToken, EventChannel};
use crate::error::VerbsError;

/// The events of one channel. Its lock is taken after that of [`Cm`] and nothing is called under
/// it.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    /// Readable while the queue is not empty.
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<CmEvent>,
    closed: bool,
}

impl Inbox {
    fn new() -> Result<Arc<Self>, VerbsError> {
        Ok(Arc::new(Self {
            queue: Mutex::default(),
            bell: new_bell()?,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event; gives it back if nobody will ever read it.
    pub(super) fn push(&self, event: CmEvent) -> Result<(), CmEvent> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(event);
        }
        if queue.events.is_empty() {
            ring(self.bell.as_fd());
        }
        queue.events.push_back(event);
        Ok(())
    }

    fn pop(&self) -> Option<CmEvent> {
        let mut queue = self.lock();
        let event = queue.events.pop_front()?;
        if queue.events.is_empty() {
            silence(self.bell.as_fd());
        }
        Some(event)
    }

    /// Takes out what concerns an id that is gone. The caller drops the events where no lock is
    /// held: they may hold ids.
    pub(super) fn purge(&self, id: CmToken) -> VecDeque<CmEvent> {
        let mut queue = self.lock();
        if !queue.events.iter().any(|e| e.id == id) {
            return VecDeque::new();
        }
        let (gone, kept) = queue.events.drain(..).partition(|e| e.id == id);
        queue.events = kept;
        if queue.events.is_empty() {
            silence(self.bell.as_fd());
        }
        gone
    }

    fn close(&self) -> VecDeque<CmEvent> {
        let mut queue = self.lock();
        queue.closed = true;
        std::mem::take(&mut queue.events)
    }
}

/// A channel for connection management events. Whoever polls any channel of an instance does the
/// background work of the whole instance.
#[derive(Debug)]
pub(super) struct HostEventChannel {
    cm: Arc<Cm>,
    inbox: Arc<Inbox>,
    /// Holds the inbox's bell and the instance's epoll.
    epoll: OwnedFd,
}

impl HostEventChannel {
    /// A channel of `cm`, whose own epoll is `work`.
    pub(super) fn new(cm: Arc<Cm>, work: BorrowedFd<'_>) -> Result<Self, VerbsError> {
        let inbox = Inbox::new()?;
        let epoll = new_epoll()?;
        for source in [inbox.bell.as_fd(), work] {
            epoll::add(
                &epoll,
                source,
                epoll::EventData::new_u64(0),
                epoll::EventFlags::IN,
            )
            .map_err(|e| VerbsError::os("epoll_ctl of an event channel", e))?;
        }
        Ok(Self { cm, inbox, epoll })
    }

    /// The instance it belongs to.
    pub(super) fn cm(&self) -> &Arc<Cm> {
        &self.cm
    }

    /// Where its events wait.
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }
}

impl EventChannel for HostEventChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn poll(&self) -> Option<CmEvent> {
        if let Some(event) = self.inbox.pop() {
            return Some(event);
        }
        self.cm.work();
        self.inbox.pop()
    }

    fn next_timeout(&self) -> Option<Duration> {
        self.cm.next_timeout()
    }
}

impl Drop for HostEventChannel {
    fn drop(&mut self) {
        // Requests nobody has seen are rejected by dropping their ids here, outside the lock.
        drop(self.inbox.close());
    }
}
