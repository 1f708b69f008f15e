//! Connection management of the host provider.
//!
//! One lock per instance guards all of it ([`State`]). It is held for bounded work only: never
//! while waiting, and never while an event or an id is dropped, for those take it themselves.
//! Under it may be taken: an inbox's lock, an outbox's lock, and the data plane's locks.
//!
//! No thread is started. Whoever polls an event channel does the work of the whole instance.

mod connection;
mod dial;
mod guest;
mod id;
mod link;
mod listener;
mod state;
mod timer;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::process::Pid;

use self::id::HostCmId;
use self::state::{Source, State};
use super::bell::{new_bell, new_epoll, ring, silence};
use super::event_channel::HostEventChannel;
use super::options::HostOptions;
use super::plane::Plane;
use crate::cm::{CmId, EventChannel};
use crate::error::VerbsError;
use crate::own::own;

/// Descriptors looked at in one round of work.
const ROUND_MAX: usize = 64;

/// Connection management of one provider instance.
#[derive(Debug)]
pub(crate) struct Cm {
    env: Env,
    state: Mutex<State>,
}

/// What stays the same while the instance lives.
#[derive(Debug)]
struct Env {
    plane: Arc<Plane>,
    options: HostOptions,
    /// Everything the instance listens to.
    epoll: Arc<OwnedFd>,
    /// In `epoll`; rung when a thread has set an earlier timer than the poller knows.
    bell: OwnedFd,
    /// The process that opened the instance: its forked children have no part in it.
    owner: Pid,
    this: Weak<Cm>,
}

impl Cm {
    /// For one instance.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] when out of descriptors.
    pub(crate) fn new(plane: Arc<Plane>, options: HostOptions) -> Result<Arc<Self>, VerbsError> {
        let epoll = Arc::new(new_epoll()?);
        let bell = new_bell()?;
        let mut state = State::new(plane.tag());
        let token = state.watch(Source::Bell);
        epoll::add(
            &*epoll,
            &bell,
            epoll::EventData::new_u64(token),
            epoll::EventFlags::IN,
        )
        .map_err(|e| VerbsError::os("epoll_ctl of a host provider", e))?;
        Ok(Arc::new_cyclic(|this| Self {
            env: Env {
                plane,
                options,
                epoll,
                bell,
                owner: rustix::process::getpid(),
                this: Weak::clone(this),
            },
            state: Mutex::new(state),
        }))
    }

    /// See [`Provider::create_event_channel`](crate::Provider::create_event_channel).
    pub(crate) fn create_event_channel(
        self: &Arc<Self>,
    ) -> Result<Arc<dyn EventChannel>, VerbsError> {
        let work = self.env.epoll.as_fd();
        Ok(Arc::new(HostEventChannel::new(Arc::clone(self), work)?))
    }

    /// See [`Provider::create_id`](crate::Provider::create_id).
    pub(crate) fn create_id(
        self: &Arc<Self>,
        channel: &Arc<dyn EventChannel>,
    ) -> Result<Arc<dyn CmId>, VerbsError> {
        let channel = own(
            Arc::clone(channel) as _,
            "event channel",
            |channel: &HostEventChannel| Arc::ptr_eq(channel.cm(), self),
        )?;
        let token = self.enter("create_id", |_, state| Ok(state.new_id(channel.inbox())))?;
        Ok(Arc::new(HostCmId::new(Arc::clone(self), token)))
    }

    /// Runs `op` under the lock.
    ///
    /// # Errors
    /// Those of `op`; [`VerbsError::State`] in a forked child, whose parent owns the instance.
    fn enter<T>(
        &self,
        name: &'static str,
        op: impl FnOnce(&Env, &mut State) -> Result<T, VerbsError>,
    ) -> Result<T, VerbsError> {
        if !self.is_owner() {
            return Err(VerbsError::State {
                op: name,
                state: "inherited by fork",
            });
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.timers.next();
        let result = op(&self.env, &mut state);
        let earlier = match (before, state.timers.next()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new < old,
        };
        let trash = state.take_trash();
        drop(state);
        drop(trash);
        if earlier {
            ring(self.env.bell.as_fd());
        }
        result
    }

    /// Whether this process opened the instance. In a forked child nothing may be locked, sent
    /// or taken out of the epoll set, all of which the parent still uses.
    fn is_owner(&self) -> bool {
        rustix::process::getpid() == self.env.owner
    }

    /// Does what has to be done. Never blocks.
    pub(super) fn work(&self) {
        if !self.is_owner() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut events = Vec::with_capacity(ROUND_MAX);
        // It fails only by a signal, and then nothing is lost: the descriptor stays readable.
        let found = epoll::wait(
            &*self.env.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&now),
        );
        if found.is_ok() {
            for event in &events {
                self.dispatch(&mut state, event);
            }
        }
        let now = Instant::now();
        while let Some(due) = state.timers.take_due(now) {
            state.on_due(&self.env, due);
        }
        let trash = state.take_trash();
        drop(state);
        drop(trash);
    }

    fn dispatch(&self, state: &mut State, event: &epoll::Event) {
        let flags = event.flags;
        // What is gone since the kernel reported it is not found any more.
        match state.source(event.data.u64()) {
            None => {}
            Some(Source::Bell) => silence(self.env.bell.as_fd()),
            Some(Source::Listener(id)) => state.on_callers(&self.env, id),
            Some(Source::Guest(guest)) => state.on_guest(&self.env, guest),
            Some(Source::Dial(dst)) => state.on_dial(&self.env, dst),
            Some(Source::Link(link)) => {
                if flags.contains(epoll::EventFlags::OUT) {
                    state.on_link_writable(link);
                }
                state.on_link_readable(&self.env, link);
            }
            Some(Source::Process(link)) => state.on_peer_ended(&self.env, link),
        }
    }

    /// When [`work`](Self::work) must be called although nothing is readable.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        if !self.is_owner() {
            return None;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = state.timers.next()?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests;
