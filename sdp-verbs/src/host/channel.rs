//! Completion channels: one descriptor for the events of many queues.
//!
//! The descriptor is an epoll set of the channel's own eventfd (events raised in this process) and
//! the doorbells of all links (events raised by peers). A doorbell wakes every channel; whichever
//! answers it first sorts the events to the channels they belong to.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::bell::{new_bell, new_epoll, ring, silence};
use super::cq::HostCq;
use super::plane::Plane;
use crate::cq::{CompChannel, CqToken};
use crate::error::VerbsError;

/// The name of the channel's own eventfd in its epoll set; links count from 1.
const OWN: u64 = 0;

/// Doorbells answered by one system call.
const BATCH: usize = 16;
/// Calls for them in one go, so that no peers, however they ring, keep a thread for ever. What is left keeps
/// the descriptor readable.
const BATCHES_MAX: usize = 4;

/// A completion channel.
#[derive(Debug)]
pub(crate) struct HostChannel {
    plane: Arc<Plane>,
    epoll: OwnedFd,
    bell: OwnedFd,
    queue: Mutex<Queue>,
}

/// Events that nobody has taken.
#[derive(Debug, Default)]
struct Queue {
    cqs: VecDeque<Weak<HostCq>>,
    /// A thread answers doorbells, and will look here when it has.
    answering: bool,
}

impl HostChannel {
    /// A channel that hears every link of the instance.
    pub(crate) fn new(plane: &Arc<Plane>) -> Result<Arc<Self>, VerbsError> {
        let (epoll, bell) = (new_epoll()?, new_bell()?);
        epoll::add(&epoll, &bell, EventData::new_u64(OWN), EventFlags::IN)
            .map_err(|e| VerbsError::os("epoll_ctl", e))?;
        let channel = Arc::new(Self {
            plane: Arc::clone(plane),
            epoll,
            bell,
            queue: Mutex::default(),
        });
        plane.add_channel(&channel)?;
        Ok(channel)
    }

    /// Whether it is of this instance.
    pub(crate) fn belongs_to(&self, plane: &Arc<Plane>) -> bool {
        Arc::ptr_eq(&self.plane, plane)
    }

    /// Listens to a link's doorbell.
    pub(crate) fn hear(&self, link: u64, doorbell: BorrowedFd<'_>) -> Result<(), VerbsError> {
        epoll::add(
            &self.epoll,
            doorbell,
            EventData::new_u64(link),
            EventFlags::IN,
        )
        .map_err(|e| VerbsError::os("epoll_ctl", e))
    }

    /// Stops listening. Must be done before our descriptor is closed: a forked child holds another
    /// of the same open file, which would keep the registration alive.
    pub(crate) fn forget(&self, doorbell: BorrowedFd<'_>) {
        // It was never heard if this channel is younger than the link's end.
        let forgotten = epoll::delete(&self.epoll, doorbell);
        debug_assert!(matches!(forgotten, Ok(()) | Err(Errno::NOENT)));
    }

    /// Queues an event. The queue's own mark says that it is queued.
    pub(crate) fn push(&self, cq: Weak<HostCq>) {
        let mut queue = self.queue();
        let first = queue.cqs.is_empty() && !queue.answering;
        queue.cqs.push_back(cq);
        drop(queue);
        if first {
            ring(self.bell.as_fd());
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics under this lock")
    }

    /// The first event after doorbells were answered. For those behind it nobody has rung.
    fn pop_answered(&self) -> Option<CqToken> {
        let mut queue = self.queue();
        queue.answering = false;
        let first = queue.pop();
        let more = !queue.cqs.is_empty();
        drop(queue);
        if more {
            ring(self.bell.as_fd());
        }
        first
    }

    /// Answers what has rung. True if there may be more.
    fn answer(&self) -> bool {
        let mut events = Vec::with_capacity(BATCH);
        let none = Timespec::default();
        if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&none)).is_err() {
            // EINTR only: the descriptor stays readable and the caller comes again.
            return false;
        }
        for event in &events {
            match event.data.u64() {
                OWN => silence(self.bell.as_fd()),
                link => {
                    if let Some(link) = self.plane.link(link) {
                        link.answer_doorbell();
                    }
                }
            }
        }
        events.len() == BATCH
    }
}

impl Queue {
    fn pop(&mut self) -> Option<CqToken> {
        loop {
            // A queue that is gone has nothing to say.
            if let Some(cq) = self.cqs.pop_front()?.upgrade() {
                cq.event_taken();
                return Some(cq.token());
            }
        }
    }
}

impl CompChannel for HostChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn poll(&self) -> Option<CqToken> {
        let mut queue = self.queue();
        if let Some(token) = queue.pop() {
            return Some(token);
        }
        queue.answering = true;
        drop(queue);
        for _ in 0..BATCHES_MAX {
            if !self.answer() {
                break;
            }
        }
        self.pop_answered()
    }

    fn poll_known(&self) -> Option<CqToken> {
        self.queue().pop()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::host::bell::{new_doorbell, ring_doorbell};

    /// Doorbells that are never silent, as many as are answered at once: the thread that answers them gets on,
    /// and the descriptor says that there are more.
    #[test]
    fn doorbells_that_ring_for_ever_keep_nobody() {
        let channel = HostChannel::new(&Plane::new().unwrap()).unwrap();
        let bells: Vec<_> = (0..BATCH).map(|_| new_doorbell().unwrap()).collect();
        for (link, (own, peers)) in (1..).zip(&bells) {
            // A link that is not there silences none.
            channel.hear(link, own.as_fd()).unwrap();
            ring_doorbell(peers.as_fd());
        }
        let (say, hear) = mpsc::channel();
        let of_thread = Arc::clone(&channel);
        thread::spawn(move || say.send(of_thread.poll()).unwrap());
        let none = hear.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(none.is_none());
        let mut events = Vec::with_capacity(1);
        let ready = epoll::wait(
            channel.fd(),
            spare_capacity(&mut events),
            Some(&Timespec::default()),
        );
        assert_eq!(ready, Ok(1));
    }
}
