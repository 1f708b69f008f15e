//! A connection that this process and children of its fork use together.
//!
//! By TCP it would be one socket of them all: what any of them writes goes out, in the order of the
//! writes, and what comes goes to whoever reads. Here the stream is this process's, and each child has
//! a pair of Unix sockets to it ([`fork`](crate::fork)). So
//!
//! * what a child writes is sent as soon as it is seen, and before anything that this process sends
//!   after it (`go_first`),
//! * a child that reads, or waits to, says so once, by a socket that the fork left it (`ask`). From
//!   then on what comes is the child's too: a thread passes on what this process does not take itself.
//!
//! What a child executes knows nothing of that. It may write; and what has a connection for its standard
//! input is taken to read it, by the child that made it so. One thread of the process waits for all
//! children, and each connection that is really shared has one for each direction.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libc::{c_int, c_void};
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send};
use sdp::posix::Failure;
use sdp_socket::{hidden, poll_asleep, signals_restart};

use crate::entry::{Entry, Target, lock};
use crate::fork::{Children, Kept, children, has_hung_up};
use crate::log::{Level, say};
use crate::relay::{await_hang_up, in_thread, report_end, shut};
use crate::{boundary, report};

/// What is carried at once.
const PIECE_LEN: usize = 64 * 1024;
/// So long poll(2) waits at once.
const POLL_MAX: Duration = Duration::from_secs(3600);

/// A child's end of a connection that is shared with it.
pub(crate) struct Shared {
    pub(crate) kept: Kept,
    /// Held while bytes go from the child to the stream. Nobody waits meanwhile.
    moving: Mutex<()>,
    /// The child reads.
    reads: AtomicBool,
    threads: AtomicUsize,
    /// Bytes have been lost, which the peer is to know.
    broken: AtomicBool,
}

/// Has the process wait for what its children do with a connection that it has, too.
///
/// # Errors
/// Without descriptors, or without a thread: then children wait until this process has closed it.
pub(crate) fn watch(children: &mut Children, end: &impl AsFd) -> Result<(), Errno> {
    if children.watched.is_none() {
        let set = hidden::hide(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        // It is never closed in this process.
        let ours = crate::entry::borrowed(set.as_raw_fd());
        in_thread("sdp-children", move || wait_for_children(ours)).map_err(|_| Errno::AGAIN)?;
        children.watched = Some(set);
    }
    let Some(set) = &children.watched else {
        return Ok(());
    };
    let number = u64::try_from(end.as_fd().as_raw_fd()).unwrap_or(0);
    epoll::add(
        set,
        end,
        epoll::EventData::new_u64(number),
        epoll::EventFlags::IN,
    )
}

fn wait_for_children(set: BorrowedFd<'_>) {
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match epoll::wait(set, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                return say(Level::Error, || {
                    format!("nobody waits for children: {error}")
                });
            }
        }
        let mut children = children();
        for event in &events {
            let number = c_int::try_from(event.data.u64()).unwrap_or(-1);
            children.heard(number);
        }
    }
}

impl Children {
    /// Something has come by the end of that number.
    fn heard(&mut self, number: c_int) {
        let is_end = |kept: &Kept| kept.end.as_raw_fd() == number;
        let asked = |kept: &Kept| kept.asked.clone().filter(|it| it.as_raw_fd() == number);
        if let Some(at) = self.kept.iter().position(is_end) {
            match crate::fork::is_over(&self.kept[at].end) {
                true => drop(self.kept.remove(at)),
                false => self.share(at),
            }
            return;
        }
        let all = self
            .kept
            .iter()
            .chain(self.shared.iter().map(|it| &it.kept));
        let mut all = all.filter_map(asked);
        let Some(asked) = all.next() else {
            return;
        };
        let mut place = [0; size_of::<u32>()];
        match recv(&*asked, &mut place[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => self.forget(&*asked),
            Ok(_) => self.reads(&asked, u32::from_ne_bytes(place)),
            Err(_) => {}
        }
    }

    /// Nothing more is to be heard of an end.
    pub(crate) fn forget(&self, end: &impl AsFd) {
        if let Some(set) = &self.watched {
            // One that is not there is what we want.
            let _ = epoll::delete(set, end);
        }
    }

    /// A child reads the connection that was at this place when it was made.
    fn reads(&mut self, asked: &Arc<OwnedFd>, place: u32) {
        let is_its = |kept: &Kept| kept.asked.as_ref().is_some_and(|it| Arc::ptr_eq(it, asked));
        self.begin_to_read(|kept| is_its(kept) && kept.place == place);
    }

    /// What comes of that connection is the child's, too.
    pub(crate) fn begin_to_read(&mut self, is_it: impl Fn(&Kept) -> bool) {
        if let Some(at) = self.kept.iter().position(&is_it) {
            self.share(at);
        }
        if let Some(shared) = self.shared.iter().find(|it| is_it(&it.kept)) {
            shared.begin_to_read();
        }
    }

    /// A child's end is used beside this process's own connection.
    fn share(&mut self, at: usize) {
        let kept = self.kept.remove(at);
        self.forget(&kept.end);
        let shared = Arc::new(Shared {
            kept,
            moving: Mutex::default(),
            reads: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        });
        if shared.begin(Shared::up) {
            self.shared.push(shared);
        }
    }

    /// The last number of a connection is closed that children go on with, of whom one has used it before.
    /// False: none has.
    pub(crate) fn leave_shared(&mut self, entry: &Arc<Entry>) -> bool {
        if !self.shared.iter().any(|it| it.is_of(entry)) {
            return false;
        }
        while let Some(at) = self
            .kept
            .iter()
            .position(|it| Arc::ptr_eq(&it.entry, entry))
        {
            self.share(at);
        }
        entry.set_left();
        let its: Vec<_> = self.shared.iter().filter(|it| it.is_of(entry)).collect();
        if let Some(last) = its.last()
            && !its.iter().any(|it| it.reads.load(Ordering::Relaxed))
        {
            last.begin_to_read();
        }
        true
    }
}

/// What came of an attempt to move what a child has written.
enum Moved {
    Some(usize),
    /// The child has written nothing.
    Nothing,
    /// The child writes no more.
    End,
    /// The stream has no room.
    Full,
}

/// How long a call waits until there is room for what children have written.
#[derive(Clone, Copy)]
pub(crate) enum Waits {
    Not,
    Until(Instant),
    Ever,
}

impl Waits {
    /// Those of a call that waits, by the socket's SO_SNDTIMEO.
    ///
    /// # Errors
    /// `EBADF` if the socket has been closed.
    pub(crate) fn as_set(entry: &Entry) -> Result<Self, Failure> {
        let time = entry.socket()?.write_timeout();
        // A time that the clock cannot tell never comes.
        let until = time.and_then(|time| Instant::now().checked_add(time));
        Ok(until.map_or(Self::Ever, Self::Until))
    }
}

fn no_room() -> Failure {
    let words = "what a child has written goes first, and has no room yet";
    Failure::new(libc::EAGAIN, words)
}

/// Before this process sends: what its children have written before goes first.
///
/// # Errors
/// `EAGAIN` if that has no room and this call does not wait, or no longer; room is shown later. `EINTR` as
/// of any call that waits.
pub(crate) fn go_first(entry: &Entry, waits: Waits) -> Result<(), Failure> {
    let mut children = children();
    let is_of = |kept: &Kept| std::ptr::eq(&*kept.entry, entry);
    let written = |kept: &Kept| rustix::io::ioctl_fionread(&kept.end).is_ok_and(|len| len > 0);
    while let Some(at) = children.kept.iter().position(|it| is_of(it) && written(it)) {
        children.share(at);
    }
    let shared = children.shared.iter().filter(|it| is_of(&it.kept));
    let shared: Vec<Arc<Shared>> = shared.cloned().collect();
    if shared.is_empty() && !children.kept.iter().any(is_of) {
        entry.set_shared(false);
    }
    drop(children);
    for one in shared {
        one.go_first(waits)?;
    }
    Ok(())
}

impl Shared {
    fn is_of(&self, entry: &Arc<Entry>) -> bool {
        Arc::ptr_eq(&self.kept.entry, entry)
    }

    /// Whether the thread runs; without one the child is cut off.
    fn begin(self: &Arc<Self>, what: fn(&Self)) -> bool {
        self.threads.fetch_add(1, Ordering::AcqRel);
        let shared = Arc::clone(self);
        let started = in_thread("sdp-shared", move || {
            what(&shared);
            shared.end();
        });
        if let Err(error) = &started {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            say(Level::Error, || {
                format!("a child is without its connection: {error}")
            });
            report::lost(1);
            shut(&self.kept.end, Shutdown::Both);
        }
        started.is_ok()
    }

    fn begin_to_read(self: &Arc<Self>) {
        if !self.reads.swap(true, Ordering::Relaxed) {
            self.begin(Self::down);
        }
    }

    /// The last thread of it.
    fn end(self: &Arc<Self>) {
        if self.threads.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let entry = &self.kept.entry;
        let is_me = |it: &Arc<Self>| Arc::ptr_eq(it, self);
        let is_broken = self.broken.load(Ordering::Relaxed);
        let mut ours = children();
        if entry.is_left() && ours.shared.iter().all(|it| is_me(it) || !it.is_of(entry)) {
            // A close may take its time, in which there are other forks: their children find the number here
            // until the descriptor is closed. Nobody joins, as the program has no number any more.
            drop(ours);
            report_end(entry, is_broken);
            children().shared.retain(|it| !is_me(it));
            return;
        }
        ours.shared.retain(|it| !is_me(it));
        if is_broken {
            // Still under the lock, without which the program might close the connection before.
            say(Level::Error, || {
                "a child has ended without reading what was given to it: it is lost".to_owned()
            });
            sdp::sdp_shutdown(entry.handle(), libc::SHUT_RDWR);
        }
    }

    /// From the child to the peer.
    fn up(&self) {
        loop {
            self.wait_for(&mut [PollFd::new(&self.kept.end, PollFlags::IN)]);
            match self.move_up() {
                Ok(Moved::End) => break,
                Ok(Moved::Some(_) | Moved::Nothing) | Err(Errno::INTR) => {}
                Ok(Moved::Full) if self.wait_for_room(None).is_ok() => {}
                // The peer takes no more: the child's next write fails, as it would by TCP.
                Ok(Moved::Full) | Err(Errno::PIPE) => {
                    shut(&self.kept.end, Shutdown::Read);
                    break;
                }
                // It has gone, and has not read all that was there for it.
                Err(_) => {
                    self.broken.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        if !has_hung_up(&self.kept.end) {
            sdp::sdp_shutdown(self.kept.entry.handle(), libc::SHUT_WR);
            await_hang_up(&self.kept.end);
        }
    }

    /// What the child has written before now.
    fn go_first(&self, waits: Waits) -> Result<(), Failure> {
        let none_under_way = lock(&self.moving);
        // What is written meanwhile may as well come later.
        let due = rustix::io::ioctl_fionread(&self.kept.end).unwrap_or(0);
        drop(none_under_way);
        let mut gone = 0;
        while gone < due {
            match self.move_up() {
                Ok(Moved::Some(len)) => gone += u64::try_from(len).unwrap_or(u64::MAX),
                Ok(Moved::Full) => match waits {
                    Waits::Not => return Err(no_room()),
                    Waits::Until(deadline) => self.wait_for_room(Some(deadline))?,
                    Waits::Ever => self.wait_for_room(None)?,
                },
                Err(Errno::INTR) => {}
                // Its thread was faster, and finds what else there is to find.
                _ => break,
            }
        }
        Ok(())
    }

    /// One piece, if there is one and it has room. What has none stays with the child, whose thread sees
    /// it there.
    fn move_up(&self) -> Result<Moved, Errno> {
        let mut piece = vec![0; PIECE_LEN];
        let _one_at_a_time = lock(&self.moving);
        let look = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let len = match recv(&self.kept.end, &mut *piece, look) {
            Ok((_, 0)) => return Ok(Moved::End),
            Ok((_, len)) => len.min(PIECE_LEN),
            Err(Errno::AGAIN) => return Ok(Moved::Nothing),
            Err(error) => return Err(error),
        };
        let (at, handle) = (piece.as_ptr().cast::<c_void>(), self.kept.entry.handle());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the memory is as long.
        let sent = unsafe { sdp::sdp_send(handle, at, len, flags) };
        let Ok(sent) = usize::try_from(sent) else {
            return match boundary::errno() {
                libc::EINTR => Err(Errno::INTR),
                libc::EAGAIN => Ok(Moved::Full),
                _ => Err(Errno::PIPE),
            };
        };
        report::sent(u64::try_from(sent).unwrap_or(0));
        let mut taken = 0;
        while taken < sent {
            match recv(&self.kept.end, &mut piece[taken..sent], RecvFlags::DONTWAIT) {
                Ok((_, len)) if len > 0 => taken += len,
                Err(Errno::INTR) => {}
                // They are there: they have been looked at, and nobody else takes any.
                _ => return Err(Errno::PIPE),
            }
        }
        Ok(Moved::Some(sent))
    }

    /// Sleeps until the stream has room, or has ended.
    ///
    /// # Errors
    /// `EAGAIN` at the deadline; `EINTR` if a signal handler ends this, which every one does where there is a
    /// deadline; others if there is nothing to wait on.
    fn wait_for_room(&self, deadline: Option<Instant>) -> Result<(), Failure> {
        let entry = &self.kept.entry;
        let stream = match entry.target(-1, entry.watches.any_for_edges())? {
            Target::Sdp(stream) => stream,
            _ => return Err(Failure::new(libc::EPIPE, "the stream has ended")),
        };
        let fds = [PollFd::new(&stream, PollFlags::OUT)];
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // One that is longer than poll(2) knows how to wait is waited for in parts.
            let left = left.map(|left| Timespec::try_from(left.min(POLL_MAX)).unwrap_or_default());
            match poll_asleep(&fds, left.as_ref()) {
                Ok(shown) if shown.iter().any(|shown| !shown.is_empty()) => return Ok(()),
                Ok(_) if deadline.is_some_and(|at| at <= Instant::now()) => return Err(no_room()),
                Ok(_) => {}
                Err(Errno::INTR) if deadline.is_none() && signals_restart() => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
    }

    /// From the peer to the child.
    fn down(&self) {
        let mut piece = vec![0; PIECE_LEN];
        let at = piece.as_mut_ptr().cast::<c_void>();
        while self.wait_for_bytes().is_some() && !has_hung_up(&self.kept.end) {
            let handle = self.kept.entry.handle();
            // SAFETY: the memory is as long.
            let got = unsafe { sdp::sdp_recv(handle, at, PIECE_LEN, libc::MSG_DONTWAIT) };
            match usize::try_from(got) {
                Ok(0) => return shut(&self.kept.end, Shutdown::Write),
                Ok(len) => {
                    if !self.give(&piece[..len]) {
                        return;
                    }
                }
                // This process was faster.
                Err(_) if matches!(boundary::errno(), libc::EAGAIN | libc::EINTR) => {}
                Err(_) => return shut(&self.kept.end, Shutdown::Both),
            }
        }
    }

    /// Whether the child has taken them.
    fn give(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match send(&self.kept.end, bytes, SendFlags::NOSIGNAL) {
                Ok(len) => bytes = &bytes[len..],
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.broken.store(true, Ordering::Relaxed);
                    return false;
                }
            }
        }
        true
    }

    /// Sleeps until the stream has something to read, or the child has gone. `None`: it never will.
    fn wait_for_bytes(&self) -> Option<()> {
        let entry = &self.kept.entry;
        let target = entry.target(-1, entry.watches.any_for_edges()).ok()?;
        let Target::Sdp(stream) = target else {
            return None;
        };
        let end = PollFd::new(&self.kept.end, PollFlags::empty());
        self.wait_for(&mut [PollFd::new(&stream, PollFlags::IN), end]);
        Some(())
    }

    fn wait_for(&self, fds: &mut [PollFd<'_>]) {
        while let Err(Errno::INTR) = rustix::event::poll(fds, None) {}
    }
}

/// What a child of a fork needs to say that it reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asks {
    /// The socket's number and what the kernel knows it by: a program may have closed it.
    pub(crate) by: c_int,
    pub(crate) inode: u64,
    pub(crate) place: u32,
}

impl Asks {
    /// Says so. The parent may have gone, or have closed the connection: then there is nobody to be told.
    pub(crate) fn ask(&mut self) {
        let asks = mem::take(self);
        if asks.inode == 0 {
            return;
        }
        let by = crate::entry::borrowed(asks.by);
        if rustix::fs::fstat(by).is_ok_and(|stat| stat.st_ino == asks.inode) {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = send(by, &asks.place.to_ne_bytes(), flags);
        }
    }
}
