//! Listeners: their names, their callers, their backlog.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};

use super::Env;
use super::state::{Phase, Source, State};
use super::timer::Due;
use crate::cm::BindRequest;
use crate::error::VerbsError;
use crate::hidden;
use crate::host::message::Message;
use crate::host::names::{Name, SHARED_SLOTS, Scope};
use crate::host::{control, descriptor};

/// Callers taken in one round, so that no flood keeps connections waiting.
const CALLERS_MAX: usize = 64;
/// How long a listener that ran out of descriptors pauses.
const PAUSE: Duration = Duration::from_millis(20);
/// Callers the kernel queues at least, whatever the backlog: one link carries many requests, and
/// the backlog counts requests.
const QUEUE_MIN: u32 = 64;
/// Most of them; the kernel cuts it to its own limit (net.core.somaxconn).
const QUEUE_MAX: u32 = 1 << 15;

/// What a listening id holds.
#[derive(Debug)]
pub(super) struct Listener {
    /// The abstract socket that has the name.
    socket: OwnedFd,
    watch: u64,
    name: Name,
    /// The address it was bound to.
    pub(super) addr: SocketAddr,
    /// Requests that may wait unanswered.
    backlog: usize,
    /// Ids of those that do.
    pending: HashSet<u64>,
    /// The last caller could not be taken, and that has been said.
    starved: bool,
}

impl Listener {
    /// Takes a request in.
    ///
    /// # Errors
    /// The backlog is full.
    pub(super) fn admit(&mut self, id: u64) -> Result<(), BacklogFull> {
        if self.pending.len() >= self.backlog {
            return Err(BacklogFull);
        }
        self.pending.insert(id);
        Ok(())
    }
}

/// As many requests as the backlog allows wait for an answer.
#[derive(Debug)]
pub(super) struct BacklogFull;

impl State {
    /// Makes a bound id listen, or changes a listener's backlog.
    ///
    /// # Errors
    /// As [`CmId::listen`](crate::CmId::listen).
    pub(super) fn listen(&mut self, env: &Env, token: u64, backlog: u32) -> Result<(), VerbsError> {
        // As listen(2): a backlog of zero still takes one.
        let limit = usize::try_from(backlog.max(1)).unwrap_or(usize::MAX);
        let id = self.id("listen", token)?;
        let state = id.phase.name();
        let (addr, request) = match (&mut id.phase, &id.bound) {
            (Phase::New, Some(bound)) => (bound.addr, bound.request),
            (Phase::New, None) => {
                return Err(VerbsError::State {
                    op: "listen",
                    state: "not bound",
                });
            }
            (Phase::Listening(listener), _) => {
                listener.backlog = limit;
                return Ok(());
            }
            _ => {
                return Err(VerbsError::State {
                    op: "listen",
                    state,
                });
            }
        };
        let (socket, name) = claim(addr, request)?;
        let queue = i32::try_from(backlog.clamp(QUEUE_MIN, QUEUE_MAX)).unwrap_or(i32::MAX);
        rustix::net::listen(&socket, queue).map_err(|e| VerbsError::os("listen", e))?;
        let watch = self.watch(Source::Listener(token));
        let data = epoll::EventData::new_u64(watch);
        if let Err(e) = epoll::add(&*env.epoll, &socket, data, epoll::EventFlags::IN) {
            self.unwatch(watch);
            return Err(VerbsError::os("epoll_ctl of a listener", e));
        }
        self.listeners.insert(name, token);
        self.id("listen", token)?.phase = Phase::Listening(Listener {
            socket,
            watch,
            name,
            addr,
            backlog: limit,
            pending: HashSet::new(),
            starved: false,
        });
        Ok(())
    }

    /// A listener ends. Whoever reached it through a link that lives on hears of it before the
    /// name is free, so that no cached way leads to the wrong process.
    pub(super) fn unlisten(&mut self, env: &Env, listener: &Listener) {
        self.listeners.remove(&listener.name);
        self.unwatch(listener.watch);
        // Taking a descriptor out of the set fails only if it is not in it.
        let _ = epoll::delete(&*env.epoll, &listener.socket);
        for link in self.links.values() {
            link.out.post(&Message::Unlisten(listener.name));
        }
        // Also refuses callers where a forked child holds the socket open; fails only if done.
        let _ = rustix::net::shutdown(&listener.socket, Shutdown::Both);
    }

    /// A request has been answered, or its connector is gone.
    pub(super) fn answered(&mut self, listener: u64, id: u64) {
        if let Some(listener) = self.listener(listener) {
            listener.pending.remove(&id);
        }
    }

    /// The listener of an id.
    pub(super) fn listener(&mut self, token: u64) -> Option<&mut Listener> {
        match self.ids.get_mut(&token).map(|id| &mut id.phase) {
            Some(Phase::Listening(listener)) => Some(listener),
            _ => None,
        }
    }

    /// Somebody calls a listener.
    pub(super) fn on_callers(&mut self, env: &Env, token: u64) {
        for _ in 0..CALLERS_MAX {
            let Some(listener) = self.listener(token) else {
                return;
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&listener.socket, flags) {
                Ok(socket) => {
                    listener.starved = false;
                    self.welcome(env, hidden::hide(socket));
                }
                Err(Errno::AGAIN) => return,
                // One caller's trouble is not the listener's.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    if !std::mem::replace(&mut listener.starved, true) {
                        let error = descriptor::failed("accept", error);
                        tracing::warn!(%error, "host listener: pauses, it cannot accept");
                    }
                    self.pause(env, token);
                    return;
                }
            }
        }
    }

    /// Stops listening to callers for a moment: out of descriptors, the listener would be
    /// readable all the time.
    fn pause(&mut self, env: &Env, token: u64) {
        if self.heed(env, token, epoll::EventFlags::empty()) {
            self.timers
                .set(Due::Listener(token), Instant::now() + PAUSE);
        }
    }

    /// The moment is over.
    pub(super) fn reopen(&mut self, env: &Env, token: u64) {
        self.heed(env, token, epoll::EventFlags::IN);
    }

    fn heed(&mut self, env: &Env, token: u64, flags: epoll::EventFlags) -> bool {
        let Some(listener) = self.listener(token) else {
            return false;
        };
        let data = epoll::EventData::new_u64(listener.watch);
        match epoll::modify(&*env.epoll, &listener.socket, data, flags) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "host listener: epoll_ctl failed");
                false
            }
        }
    }
}

/// A socket that has the name of a listener.
fn claim(addr: SocketAddr, request: BindRequest) -> Result<(OwnedFd, Name), VerbsError> {
    let socket = control::open()?;
    let scope = Scope::of_listener(addr, request.only_v6);
    let slots = if request.reuse_port {
        1..=SHARED_SLOTS
    } else {
        0..=0
    };
    for slot in slots {
        let name = Name {
            scope,
            port: addr.port(),
            slot,
        };
        match rustix::net::bind(&socket, &name.socket_addr()?) {
            Ok(()) => return Ok((socket, name)),
            Err(Errno::ADDRINUSE) => {}
            Err(e) => return Err(VerbsError::os("naming a host listener", e)),
        }
    }
    // The port is ours, so this is somebody who holds the name and not the port.
    Err(VerbsError::os(
        "listen: another process holds the abstract socket name of this address",
        Errno::ADDRINUSE,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ports;

    #[test]
    fn a_name_is_claimed_once_and_shared_ones_until_the_slots_are_full() {
        let mut request = BindRequest {
            addr: "127.0.0.1:0".parse().unwrap(),
            only_v6: false,
            reuse_port: false,
        };
        let (_port, addr) = ports::reserve(request).unwrap();
        let (_alone, name) = claim(addr, request).unwrap();
        assert_eq!(name.slot, 0);
        assert_eq!(claim(addr, request).unwrap_err().errno(), libc::EADDRINUSE);
        request.reuse_port = true;
        let shared: Vec<_> = (0..SHARED_SLOTS)
            .map(|_| claim(addr, request).unwrap())
            .collect();
        let error = claim(addr, request).unwrap_err();
        assert_eq!(error.errno(), libc::EADDRINUSE);
        assert!(error.to_string().contains("name"), "{error}");
        drop(shared);
        assert_eq!(claim(addr, request).unwrap().1.slot, 1);
    }
}
