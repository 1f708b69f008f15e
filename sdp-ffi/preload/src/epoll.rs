//! epoll(7). What a program registers is its descriptor; what the kernel is given is what tells of
//! SDP, with the same event. So waiting is the kernel's alone.
//!
//! A descriptor that is registered before it is connected or listens is registered itself, as the
//! kernel's sockets are, and moved when it is. A listener of both protocols is registered twice;
//! under EPOLLONESHOT, where one event must be the only one, as a set of its two.
//!
//! Programs delete a descriptor and add it again where others modify it: redis-benchmark does so twice
//! for each request. What was registered in its place is kept for the next time.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Mutex;
use std::{fs, io, mem};

use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, c_int, epoll_event};
use rustix::event::epoll;
use sdp::posix::Failure;
use sdp_socket::{Readiness, hidden};

use crate::boundary::{checked, interpose, ours};
use crate::entry::{Target, lock};
use crate::real;

/// Where a socket is registered.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<List>);

/// Its registrations, and what was one before.
#[derive(Debug, Default)]
struct List {
    watches: Vec<Watch>,
    /// In no set. For the next registration.
    spare: Option<Beside>,
}

/// What is registered in the place of the program's descriptor, or beside it.
#[derive(Debug)]
struct Beside {
    fd: OwnedFd,
    /// What it is a duplicate of; none if it is a set of two.
    of: Option<Readiness>,
}

/// One registration.
#[derive(Debug)]
struct Watch {
    epoll: c_int,
    /// The number by which the program registered it.
    fd: c_int,
    event: epoll_event,
    /// Whether the kernel's descriptor is registered.
    kernels: bool,
    /// What else is.
    beside: Option<Beside>,
}

interpose! {
    raw fn epoll_ctl(epoll: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
        let ours = ours("epoll_ctl", fd, |entry| {
            // SAFETY: our caller's promise.
            let event = unsafe { event.as_ref() }.copied();
            if op != EPOLL_CTL_DEL {
                entry.await_callers(fd);
                if event.is_some_and(|event| event.events & libc::EPOLLIN.cast_unsigned() != 0) {
                    entry.ask();
                }
            }
            let target = || entry.target(fd, event.is_some_and(is_for_edges));
            entry.watches.control(epoll, op, fd, event, target)
        });
        // SAFETY: what our caller promised to the C library's function.
        ours.unwrap_or_else(|| unsafe { real::epoll_ctl(epoll, op, fd, event) })
    }
}

/// The kernel's epoll_ctl(2).
fn kernel(epoll: c_int, op: c_int, fd: c_int, mut event: epoll_event) -> Result<(), Failure> {
    // SAFETY: the event is ours.
    checked(unsafe { real::epoll_ctl(epoll, op, fd, &raw mut event) }).map(|_| ())
}

const NO_EVENT: epoll_event = epoll_event { events: 0, u64: 0 };

/// Two registrations would be two events.
fn is_oneshot(event: epoll_event) -> bool {
    event.events & libc::EPOLLONESHOT.cast_unsigned() != 0
}

/// Needs each arrival: by EPOLLET, or because it waits for the end only, however much there is to read.
fn is_for_edges(event: epoll_event) -> bool {
    let data = (libc::EPOLLIN | libc::EPOLLOUT).cast_unsigned();
    event.events & libc::EPOLLET.cast_unsigned() != 0 || event.events & data == 0
}

impl Watches {
    pub(crate) fn any_for_edges(&self) -> bool {
        let list = lock(&self.0);
        list.watches.iter().any(|watch| is_for_edges(watch.event))
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).watches.is_empty()
    }

    /// What a child's copy of a socket that spoke no SDP has: the same registrations.
    pub(crate) fn inherit(&self, parents: &Self) {
        let Ok(theirs) = parents.0.try_lock() else {
            return;
        };
        let theirs = theirs.watches.iter();
        let kernels = theirs.filter(|watch| watch.beside.is_none());
        lock(&self.0).watches.extend(kernels.map(|watch| Watch {
            epoll: watch.epoll,
            fd: watch.fd,
            event: watch.event,
            kernels: watch.kernels,
            beside: None,
        }));
    }

    /// Carries out epoll_ctl(2). `target` is asked for under the lock: a socket that is connected
    /// meanwhile finds the registration.
    fn control(
        &self,
        epoll: c_int,
        op: c_int,
        fd: c_int,
        event: Option<epoll_event>,
        target: impl FnOnce() -> Result<Target, Failure>,
    ) -> Result<Option<c_int>, Failure> {
        let mut list = lock(&self.0);
        let List { watches, spare } = &mut *list;
        let place = watches
            .iter()
            .position(|watch| (watch.epoll, watch.fd) == (epoll, fd));
        match (op, event) {
            (EPOLL_CTL_ADD, Some(event)) => match place {
                Some(at) if watches[at].is_live() => {
                    return Err(Failure::new(libc::EEXIST, "the set has it already"));
                }
                // The set has been closed since, and this one has its number.
                Some(at) => watches[at] = Watch::add(epoll, fd, event, &target()?, spare)?,
                None => watches.push(Watch::add(epoll, fd, event, &target()?, spare)?),
            },
            (EPOLL_CTL_MOD, Some(event)) => match place {
                Some(at) => watches[at].modify(event, &target()?, spare)?,
                None => return Ok(None),
            },
            (EPOLL_CTL_DEL, _) => match place {
                Some(at) => *spare = watches.remove(at).delete()?,
                None => return Ok(None),
            },
            _ => return Ok(None),
        }
        Ok(Some(0))
    }

    /// The socket is connected, or listens: what tells of it is another descriptor now.
    ///
    /// # Errors
    /// Without descriptors. Then all is as it was.
    pub(crate) fn retarget(&self, target: &Target) -> Result<(), Failure> {
        let mut list = lock(&self.0);
        let List { watches, spare } = &mut *list;
        watches.retain(Watch::is_live);
        let mut moves = Vec::new();
        for (at, watch) in watches.iter().enumerate() {
            if watch.is_right(target) {
                continue;
            }
            let moved = match watch.is_spent() {
                // Nothing is to come of it before it is modified, which moves it.
                Ok(true) => continue,
                Ok(false) => watch.moved(watch.event, target, spare),
                Err(failure) => Err(failure),
            };
            match moved {
                Ok(moved) => moves.push((at, moved)),
                Err(failure) => {
                    for (at, moved) in &moves {
                        moved.let_go(&watches[*at]);
                    }
                    return Err(failure);
                }
            }
        }
        for (at, moved) in moves {
            mem::replace(&mut watches[at], moved).let_go(&watches[at]);
        }
        Ok(())
    }

    /// The socket is closed. The kernel does by itself what is to be done about its own descriptor.
    pub(crate) fn forget_all(&self) {
        for watch in mem::take(&mut *lock(&self.0)).watches {
            if let Some(beside) = &watch.beside {
                // A set that has been closed since has forgotten it.
                let _ = kernel(watch.epoll, EPOLL_CTL_DEL, beside.fd.as_raw_fd(), NO_EVENT);
            }
        }
    }
}

/// Whether the kernel's descriptor is to be registered, and whether another is.
fn shape(event: epoll_event, target: &Target) -> (bool, bool) {
    match target {
        Target::Kernels => (true, false),
        Target::Sdp(_) => (false, true),
        Target::Both(_) => (!is_oneshot(event), true),
    }
}

/// What is no event, but how events are told. Of a registration for one event that has come, these
/// are left.
const HOW: u32 =
    (libc::EPOLLONESHOT | libc::EPOLLET | libc::EPOLLWAKEUP | libc::EPOLLEXCLUSIVE).cast_unsigned();

/// The events that a set has for a descriptor, by what the kernel says of the set.
fn events_of(set: &str, fd: c_int) -> Option<u32> {
    let mut words = set.lines().map(str::split_whitespace);
    words.find_map(|mut words| {
        let names = (words.next()?, words.next()?.parse(), words.next()?);
        if names != ("tfd:", Ok(fd), "events:") {
            return None;
        }
        u32::from_str_radix(words.next()?, 16).ok()
    })
}

impl Watch {
    fn add(
        epoll: c_int,
        fd: c_int,
        event: epoll_event,
        target: &Target,
        spare: &mut Option<Beside>,
    ) -> Result<Self, Failure> {
        let nowhere = Self {
            epoll,
            fd,
            event,
            kernels: false,
            beside: None,
        };
        nowhere.moved(event, target, spare)
    }

    /// Adds what `target` needs and this registration has not; the rest of this one is still there.
    fn moved(
        &self,
        event: epoll_event,
        target: &Target,
        spare: &mut Option<Beside>,
    ) -> Result<Self, Failure> {
        let (epoll, fd) = (self.epoll, self.fd);
        let (kernels, _) = shape(event, target);
        let beside = match target {
            Target::Kernels => None,
            Target::Both(readiness) if !kernels => Some(set_of_two(fd, readiness)?),
            Target::Sdp(readiness) | Target::Both(readiness) => Some(duplicate(readiness, spare)?),
        };
        let adds_kernels = kernels && !self.kernels;
        if adds_kernels {
            kernel(epoll, EPOLL_CTL_ADD, fd, event)?;
        }
        let added = beside.as_ref().map_or(Ok(()), |it| {
            kernel(epoll, EPOLL_CTL_ADD, it.fd.as_raw_fd(), event)
        });
        if let Err(failure) = added {
            if adds_kernels {
                kernel(epoll, EPOLL_CTL_DEL, fd, NO_EVENT)?;
            }
            return Err(failure);
        }
        Ok(Self {
            epoll,
            fd,
            event,
            kernels,
            beside,
        })
    }

    /// Deletes what this registration has and `other`, which stays, has not.
    fn let_go(&self, other: &Self) {
        // A set that has been closed since has forgotten both.
        if self.kernels && !other.kernels {
            let _ = kernel(self.epoll, EPOLL_CTL_DEL, self.fd, NO_EVENT);
        }
        if let Some(beside) = &self.beside {
            let _ = kernel(self.epoll, EPOLL_CTL_DEL, beside.fd.as_raw_fd(), NO_EVENT);
        }
    }

    /// Whether the set still has it. One that has been closed since may have left its number to
    /// another, to which nothing is to be added.
    fn is_live(&self) -> bool {
        let known = self.beside.as_ref().map_or(self.fd, |it| it.fd.as_raw_fd());
        match kernel(self.epoll, EPOLL_CTL_ADD, known, self.event) {
            Ok(()) => {
                // It has just been added.
                let _ = kernel(self.epoll, EPOLL_CTL_DEL, known, NO_EVENT);
                false
            }
            Err(failure) => failure.errno == libc::EEXIST,
        }
    }

    /// Whether it was for one event, and that has come.
    ///
    /// # Errors
    /// `EMFILE` and the like: the kernel says so in a file.
    fn is_spent(&self) -> Result<bool, Failure> {
        if !is_oneshot(self.event) {
            return Ok(false);
        }
        let known = self.beside.as_ref().map_or(self.fd, |it| it.fd.as_raw_fd());
        match fs::read_to_string(format!("/proc/self/fdinfo/{}", self.epoll)) {
            Ok(set) => Ok(events_of(&set, known).is_some_and(|events| events & !HOW == 0)),
            // Without /proc nobody can tell.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the kernel's descriptor alone is registered, and is to be.
    fn is_right(&self, target: &Target) -> bool {
        matches!(target, Target::Kernels) && self.kernels && self.beside.is_none()
    }

    fn modify(
        &mut self,
        event: epoll_event,
        target: &Target,
        spare: &mut Option<Beside>,
    ) -> Result<(), Failure> {
        let (kernels, beside) = shape(event, target);
        if (self.kernels, self.beside.is_some()) != (kernels, beside) {
            let moved = self.moved(event, target, spare)?;
            if self.kernels && moved.kernels {
                kernel(self.epoll, EPOLL_CTL_MOD, self.fd, event)?;
            }
            mem::replace(self, moved).let_go(self);
            return Ok(());
        }
        if self.kernels {
            kernel(self.epoll, EPOLL_CTL_MOD, self.fd, event)?;
        }
        if let Some(beside) = &self.beside {
            kernel(self.epoll, EPOLL_CTL_MOD, beside.fd.as_raw_fd(), event)?;
        }
        self.event = event;
        Ok(())
    }

    /// What may serve again is given back.
    fn delete(self) -> Result<Option<Beside>, Failure> {
        let own = match self.kernels {
            true => kernel(self.epoll, EPOLL_CTL_DEL, self.fd, NO_EVENT),
            false => Ok(()),
        };
        if let Some(beside) = &self.beside {
            kernel(self.epoll, EPOLL_CTL_DEL, beside.fd.as_raw_fd(), NO_EVENT)?;
        }
        own.map(|()| self.beside.filter(|it| it.of.is_some()))
    }
}

/// Each registration has a number of its own, as epoll knows things by their numbers.
fn duplicate(readiness: &Readiness, spare: &mut Option<Beside>) -> Result<Beside, Failure> {
    // Both exist, so one number is one descriptor.
    let same = |of: &Readiness| of.as_raw_fd() == readiness.as_raw_fd();
    if let Some(kept) = spare.take_if(|it| it.of.as_ref().is_some_and(same)) {
        return Ok(kept);
    }
    let fd = hidden::duplicate(readiness)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(readiness, 0).map_err(io::Error::from))?;
    let of = Some(readiness.clone());
    Ok(Beside { fd, of })
}

/// A set in which either of a listener's descriptors is an event.
fn set_of_two(fd: c_int, readiness: &impl AsFd) -> Result<Beside, Failure> {
    let failed = |error: rustix::io::Errno| Failure::from(io::Error::from(error));
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
    let set = hidden::hide(set);
    let data = epoll::EventData::new_ptr(ptr::null_mut());
    for one in [crate::entry::borrowed(fd), readiness.as_fd()] {
        epoll::add(&set, one, data, epoll::EventFlags::IN).map_err(failed)?;
    }
    Ok(Beside { fd: set, of: None })
}
