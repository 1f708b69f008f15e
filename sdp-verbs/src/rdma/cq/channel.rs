//! Completion channels: one descriptor for the events of many queues.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::RdmaCq;
use crate::cq::{CompChannel, CqToken};
use crate::error::VerbsError;
use crate::hidden;
use crate::rdma::device::Device;
use crate::rdma::fd::Bell;

/// The name of the bell in the epoll set; queues count from 1.
const BELL: u64 = 0;

/// Descriptors answered by one system call.
const BATCH: usize = 16;
/// Calls for them in one go. What is left keeps the descriptor readable.
const BATCHES_MAX: usize = 4;

/// An epoll set over the completion channels of its queues, and a bell for what a waiter found.
#[derive(Debug)]
pub(in crate::rdma) struct RdmaChannel {
    device: Arc<Device>,
    epoll: OwnedFd,
    bell: Bell,
    /// Queues that have an event. The bell rings while there are some.
    told: Mutex<VecDeque<Weak<RdmaCq>>>,
    members: Mutex<HashMap<u64, Weak<RdmaCq>>>,
    /// Queues whose descriptors are in the set.
    watched: AtomicUsize,
}

impl RdmaChannel {
    pub(in crate::rdma) fn new(device: &Arc<Device>) -> Result<Arc<Self>, VerbsError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map(hidden::hide)
            .map_err(|e| VerbsError::os("epoll_create", e))?;
        let bell = Bell::new(false)?;
        epoll::add(&epoll, &bell, EventData::new_u64(BELL), EventFlags::IN)
            .map_err(|e| VerbsError::os("epoll_ctl", e))?;
        Ok(Arc::new(Self {
            device: Arc::clone(device),
            epoll,
            bell,
            told: Mutex::default(),
            members: Mutex::default(),
            watched: AtomicUsize::new(0),
        }))
    }

    pub(in crate::rdma) fn belongs_to(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    /// Knows a queue from here on; its descriptor is not watched yet.
    pub(super) fn add(&self, key: u64, cq: &Weak<RdmaCq>) {
        let mut members = self.members.lock().expect("nothing panics under this lock");
        members.insert(key, Weak::clone(cq));
    }

    pub(super) fn remove(&self, key: u64) {
        let mut members = self.members.lock().expect("nothing panics under this lock");
        members.remove(&key);
    }

    /// Begins to look at a queue's descriptor.
    ///
    /// # Errors
    /// Out of memory, or of descriptors that a user may watch.
    pub(super) fn watch(&self, key: u64, events: BorrowedFd<'_>) -> Result<(), VerbsError> {
        epoll::add(&self.epoll, events, EventData::new_u64(key), EventFlags::IN)
            .map_err(|e| VerbsError::os("epoll_ctl", e))?;
        self.watched.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Ends to look at a queue's descriptor. One that stayed in the set without a wish would wake
    /// whoever sleeps on the set all the same: device files do not say what their events are.
    pub(super) fn look_away(&self, events: BorrowedFd<'_>) {
        match epoll::delete(&self.epoll, events) {
            Ok(()) => {
                self.watched.fetch_sub(1, Ordering::SeqCst);
            }
            Err(error) => tracing::error!("epoll_ctl: {error}"),
        }
    }

    /// A queue has an event.
    pub(super) fn push(&self, cq: &Weak<RdmaCq>) {
        let mut told = self.told.lock().expect("nothing panics under this lock");
        if told.iter().any(|known| known.ptr_eq(cq)) {
            return;
        }
        told.push_back(Weak::clone(cq));
        self.bell.ring(1);
    }

    fn pop(&self) -> Option<CqToken> {
        let mut told = self.told.lock().expect("nothing panics under this lock");
        if told.is_empty() {
            return None;
        }
        let found = loop {
            match told.pop_front() {
                // A queue that is gone has nothing to say. Its drop may need this lock.
                Some(cq) => {
                    if let Some(cq) = cq.upgrade() {
                        break Some(cq);
                    }
                }
                None => break None,
            }
        };
        if told.is_empty() {
            self.bell.answer();
        }
        drop(told);
        found.map(|cq| cq.token)
    }

    /// Looks at the descriptors that have something. True if there may be more.
    fn answer(&self) -> bool {
        if self.watched.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut events = Vec::with_capacity(BATCH);
        let none = Timespec::default();
        if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&none)).is_err() {
            // EINTR only: the descriptor stays readable and the caller comes again.
            return false;
        }
        for event in &events {
            let key = event.data.u64();
            let cq = {
                let members = self.members.lock().expect("nothing panics under this lock");
                members.get(&key).and_then(Weak::upgrade)
            };
            if let Some(cq) = cq {
                cq.seen_by_channel();
            }
        }
        events.len() == BATCH
    }
}

impl CompChannel for RdmaChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn poll(&self) -> Option<CqToken> {
        if let Some(token) = self.pop() {
            return Some(token);
        }
        for _ in 0..BATCHES_MAX {
            if !self.answer() {
                break;
            }
        }
        self.pop()
    }
}
