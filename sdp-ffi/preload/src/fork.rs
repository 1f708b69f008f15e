//! What a forked child has of a connection by SDP: the other end of a pair of Unix sockets, at the
//! number that the connection had.
//!
//! ```text
//!   client ═══SDP═══ parent: stream ── relay ── A ┆ B at N: child, and what it executes
//! ```
//!
//! The pair is made before the fork. The parent keeps A beside its stream, and when it closes its
//! last number of the stream, a relay carries bytes between the two. To the child N is a socket of
//! the kernel's from then on, so it lives through exec.
//!
//! One lock is held from before a fork until after it, so a child finds nothing half done. It
//! closes the ends that are its parent's: an end that a child keeps open by mistake would never be
//! seen to hang up.

use std::collections::HashMap;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, TryLockError};

use libc::{c_int, socklen_t};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::DupFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sdp::posix::{Failure, guard};
use sdp_socket::{hidden, inside};

use crate::boundary::checked;
use crate::entry::{Entry, Phase, lock};
use crate::log::{Level, say};
use crate::relay::{self, Relay};
use crate::shared::{self, Asks, Shared};
use crate::{memory, real, report, table};

/// Everything of this process that has to do with children.
#[derive(Default)]
pub(crate) struct Children {
    /// For the child that is about to be made.
    offers: Vec<Offer>,
    /// Ends of connections that a child has and this process has, too, the oldest first.
    pub(crate) kept: Vec<Kept>,
    /// Those of them that children have used.
    pub(crate) shared: Vec<Arc<Shared>>,
    /// What all of them are waited for by.
    pub(crate) watched: Option<OwnedFd>,
    /// The other ends of connections that a message is about to pass on.
    passing: Vec<OwnedFd>,
    /// By which the child that is about to be made says that it reads: this process's end, and its own.
    asking: Option<(OwnedFd, OwnedFd)>,
    /// Connections that only children have any more.
    pub(crate) relays: Vec<Arc<Relay>>,
}

/// A child's connection that this process has, too, or one that it has passed to another process.
pub(crate) struct Kept {
    pub(crate) entry: Arc<Entry>,
    pub(crate) end: OwnedFd,
    /// By which the child says that it reads, and what it calls the connection.
    pub(crate) asked: Option<Arc<OwnedFd>>,
    pub(crate) place: u32,
}

/// Numbers of a connection, each with its flag FD_CLOEXEC.
type Numbers = Vec<(c_int, bool)>;

/// A connection for a child.
struct Offer {
    entry: Arc<Entry>,
    numbers: Numbers,
    ours: OwnedFd,
    childs: OwnedFd,
}

static CHILDREN: Mutex<Children> = Mutex::new(Children {
    offers: Vec::new(),
    kept: Vec::new(),
    shared: Vec::new(),
    watched: None,
    passing: Vec::new(),
    asking: None,
    relays: Vec::new(),
});

/// The lock, in the hands of the thread that forks; it alone comes back, in the parent and in the
/// child.
static HELD: AtomicPtr<MutexGuard<'static, Children>> = AtomicPtr::new(ptr::null_mut());

/// Of the exit handler.
static REGISTERED: Once = Once::new();

/// Connections that only children have any more, for the report. A signal handler may end the
/// process inside any call of ours: then they are left out.
pub(crate) fn relayed() -> Vec<Arc<Entry>> {
    let children = match CHILDREN.try_lock() {
        Ok(children) => children,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Vec::new(),
    };
    let shared = children.shared.iter().map(|it| &it.kept.entry);
    let shared = shared.filter(|entry| entry.is_left());
    let entries = children.relays.iter().map(|it| &it.entry).chain(shared);
    entries.map(Arc::clone).collect()
}

/// Children, and what they have.
pub(crate) fn children() -> MutexGuard<'static, Children> {
    lock(&CHILDREN)
}

/// Before a fork: a pair for each connection.
pub(crate) extern "C" fn prepare() {
    if !table::is_owner() {
        return;
    }
    guard("fork", || {
        let mut children = children();
        children.sweep();
        for number in table::within(0, c_int::MAX) {
            if let Some(entry) = table::get(number) {
                entry.share(number);
            }
        }
        let connections = connections();
        if !connections.is_empty() {
            let asking = asking();
            children.offers = offers(connections, asking.as_ref().map(|(_, childs)| childs));
            children.asking = asking.ok();
        }
        if !children.offers.is_empty() {
            REGISTERED.call_once(relay::at_exit);
        }
        HELD.store(Box::into_raw(Box::new(children)), Ordering::Release);
        // No handler is to meet the locks while the fork is under way.
        inside::enter_call();
        memory::hold();
        Ok(0)
    });
}

fn held() -> Option<MutexGuard<'static, Children>> {
    let held = HELD.swap(ptr::null_mut(), Ordering::AcqRel);
    if held.is_null() {
        return None;
    }
    // SAFETY: `prepare` has made it from a box, in this thread, and it is taken once.
    Some(*unsafe { Box::from_raw(held) })
}

/// After a fork, in the parent. One that failed has no child: the other ends are closed here, which
/// hangs up.
pub(crate) extern "C" fn in_parent() {
    if !table::is_owner() {
        return;
    }
    guard("fork", || {
        memory::let_go();
        if let Some(mut children) = held() {
            leave_fork();
            let offers = mem::take(&mut children.offers);
            if let Some((asked, _childs)) = children.asking.take() {
                children.keep(offers, Arc::new(asked));
            }
        }
        Ok(0)
    });
}

/// After a fork, in the child. Only system calls and memory of its own: threads of the parent may
/// have held any lock but ours.
pub(crate) fn in_child() {
    memory::let_go();
    let Some(mut children) = held() else { return };
    let parents = mem::take(&mut *children);
    for offer in &parents.offers {
        for &(number, closes_at_exec) in &offer.numbers {
            if table::was(number, &offer.entry) {
                put_at(number, &offer.childs, closes_at_exec);
            }
        }
    }
    let offered = parents.offers.iter();
    let offered = offered.flat_map(|offer| [&offer.ours, &offer.childs]);
    let shared = parents.shared.iter().map(|it| &it.kept);
    let kept = parents.kept.iter().chain(shared);
    let kept = kept.flat_map(|kept| [Some(&kept.end), kept.asked.as_deref()]);
    let relayed = parents.relays.iter().flat_map(|relay| &relay.ends);
    let asking = parents.asking.iter().map(|(asked, _)| asked);
    let others = asking.chain(&parents.watched);
    let others = others.chain(&parents.passing);
    for end in offered.chain(kept.flatten()).chain(relayed).chain(others) {
        // SAFETY: it is this process's copy, which nobody else knows; one that several connections name
        // is closed again, which fails, before anything is opened.
        unsafe { real::close(end.as_raw_fd()) };
    }
    // The parent's memory is not for this process to free.
    mem::forget(parents);
    drop(children);
    leave_fork();
}

/// The fork is over for this process.
fn leave_fork() {
    if inside::leave_call() {
        inside::catch_up();
    }
}

/// The number is the child's end from here on. What fails leaves a socket that is not connected.
fn put_at(number: c_int, end: &OwnedFd, closes_at_exec: bool) {
    let mut flags = DupFlags::empty();
    flags.set(DupFlags::CLOEXEC, closes_at_exec);
    // SAFETY: the number is open, and stays so: it is not closed with this value.
    let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    // It cannot fail: both are open.
    let _ = rustix::io::retry_on_intr(|| rustix::io::dup3(end, &mut number, flags));
}

/// Every connection that the program has.
fn connections() -> Vec<(Arc<Entry>, Numbers)> {
    let mut found: Vec<(Arc<Entry>, Numbers)> = Vec::new();
    let mut places = HashMap::new();
    for number in table::within(0, c_int::MAX) {
        let Some(entry) = table::get(number) else {
            continue;
        };
        if entry.phase() != Phase::Connected {
            continue;
        }
        // SAFETY: the command takes no argument.
        let flags = unsafe { real::fcntl(number, libc::F_GETFD, 0) };
        let closes_at_exec = flags & libc::FD_CLOEXEC != 0;
        let place = *places.entry(Arc::as_ptr(&entry)).or_insert(found.len());
        if place == found.len() {
            found.push((entry, Vec::new()));
        }
        found[place].1.push((number, closes_at_exec));
    }
    found
}

/// A pair for each of them, with the means to say which one is read.
fn offers(found: Vec<(Arc<Entry>, Numbers)>, asking: Result<&OwnedFd, &Failure>) -> Vec<Offer> {
    let count = found.len();
    let mut offers = Vec::with_capacity(count);
    let mut failed = None;
    let asks = asking.map(|by| Asks {
        by: by.as_raw_fd(),
        inode: rustix::fs::fstat(by).map_or(0, |stat| stat.st_ino),
        place: 0,
    });
    for (entry, numbers) in found {
        let pair = match asks {
            Ok(_) => entry.offer().and_then(|()| pair(&entry)),
            Err(failure) => Err(Failure::new(failure.errno, failure.message.clone())),
        };
        match pair {
            Ok((ours, childs)) => {
                entry.set_asks(Asks {
                    place: u32::try_from(offers.len()).unwrap_or(u32::MAX),
                    ..asks.unwrap_or_default()
                });
                offers.push(Offer {
                    entry,
                    numbers,
                    ours,
                    childs,
                });
            }
            Err(failure) => {
                entry.set_offered(false);
                failed = Some(failure);
            }
        }
    }
    if let Some(failure) = failed {
        let lost = count - offers.len();
        report::lost(lost);
        say(Level::Error, || {
            let why = failure.message;
            format!("a child is without {lost} of {count} connections: {why}")
        });
    }
    offers
}

/// A pair by which a child says which connections it reads.
fn asking() -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::SEQPACKET;
    let (ours, childs) =
        socketpair(AddressFamily::UNIX, kind, flags, None).map_err(std::io::Error::from)?;
    Ok((hidden::hide(ours), hidden::hide(childs)))
}

/// A pair for a connection: the parent's end and the child's.
fn pair(entry: &Entry) -> Result<(OwnedFd, OwnedFd), Failure> {
    let failed = |error: rustix::io::Errno| Failure::from(std::io::Error::from(error));
    let flags = SocketFlags::CLOEXEC;
    let (ours, childs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    if entry.is_nonblocking() {
        rustix::io::ioctl_fionbio(&childs, true).map_err(failed)?;
    }
    copy_times(entry, &childs)?;
    // It is there for as long as the child.
    Ok((hidden::hide(ours), childs))
}

/// Calls of the child's wait as long as the parent wanted them to.
fn copy_times(entry: &Entry, childs: &OwnedFd) -> Result<(), Failure> {
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let mut time = MaybeUninit::<libc::timeval>::zeroed();
        let mut len = socklen_t::try_from(size_of_val(&time)).unwrap_or(0);
        let (at, level) = (time.as_mut_ptr().cast(), libc::SOL_SOCKET);
        // SAFETY: the memory is ours, and as long.
        checked(unsafe { sdp::sdp_getsockopt(entry.handle(), level, name, at, &raw mut len) })?;
        // SAFETY: the memory is ours, and as long.
        checked(unsafe { real::setsockopt(childs.as_raw_fd(), level, name, at, len) })?;
    }
    Ok(())
}

impl Children {
    /// Lets go of ends whose child has gone and has left nothing.
    fn sweep(&mut self) {
        self.kept.retain(|kept| !is_over(&kept.end));
    }

    /// The ends of a connection that children have, which this process has no more.
    pub(crate) fn take(&mut self, entry: &Arc<Entry>) -> Vec<OwnedFd> {
        let kept = mem::take(&mut self.kept);
        let (its, others): (Vec<_>, Vec<_>) = kept
            .into_iter()
            .partition(|kept| Arc::ptr_eq(&kept.entry, entry));
        self.kept = others;
        for kept in &its {
            self.forget(&kept.end);
        }
        let ends = its.into_iter().map(|kept| kept.end);
        ends.filter(|end| !is_over(end)).collect()
    }

    /// What the child that has been made has, and this process too.
    fn keep(&mut self, offers: Vec<Offer>, asked: Arc<OwnedFd>) {
        if offers.is_empty() {
            return;
        }
        let mut watched = shared::watch(self, &*asked);
        for (place, offer) in (0..).zip(offers) {
            watched = watched.and_then(|()| shared::watch(self, &offer.ours));
            offer.entry.set_shared(true);
            self.kept.push(Kept {
                entry: offer.entry,
                end: offer.ours,
                asked: Some(Arc::clone(&asked)),
                place,
            });
        }
        if let Err(error) = watched {
            say(Level::Error, || {
                format!("a child waits until its connections are closed here: {error}")
            });
        }
    }

    /// A connection is about to be passed to another process: the numbers of this process's end and of the
    /// other one, which is to be sent.
    ///
    /// # Errors
    /// Without descriptors, or without a thread.
    pub(crate) fn begin_to_pass(&mut self, entry: &Arc<Entry>) -> Result<(c_int, c_int), Failure> {
        let (end, other) = pair(entry)?;
        shared::watch(self, &end).map_err(std::io::Error::from)?;
        let numbers = (end.as_raw_fd(), other.as_raw_fd());
        entry.set_shared(true);
        self.kept.push(Kept {
            entry: Arc::clone(entry),
            end,
            asked: None,
            place: 0,
        });
        self.passing.push(other);
        Ok(numbers)
    }

    /// It has been sent. One that has not is seen to hang up, and let go of.
    pub(crate) fn end_to_pass(&mut self, (end, other): (c_int, c_int), is_sent: bool) {
        self.passing.retain(|it| it.as_raw_fd() != other);
        if is_sent {
            self.begin_to_read(|kept| kept.end.as_raw_fd() == end);
        }
    }

    /// Connections that this process has, into which children may have written.
    pub(crate) fn used(&mut self) -> Vec<Arc<Entry>> {
        self.sweep();
        let shared = self.shared.iter().map(|it| &it.kept);
        let all = self.kept.iter().chain(shared);
        all.map(|kept| Arc::clone(&kept.entry)).collect()
    }
}

/// Whether a child has closed its end.
pub(crate) fn has_hung_up(end: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(end, PollFlags::empty())];
    let now = Timespec::default();
    let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)));
    let gone = PollFlags::HUP | PollFlags::ERR;
    polled.is_ok() && fds[0].revents().intersects(gone)
}

/// Whether nothing comes of an end any more.
pub(crate) fn is_over(end: &OwnedFd) -> bool {
    has_hung_up(end) && rustix::io::ioctl_fionread(end).is_ok_and(|len| len == 0)
}
