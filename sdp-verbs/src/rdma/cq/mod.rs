//! Completion queues.

mod channel;
mod signal;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

pub(super) use channel::RdmaChannel;

use super::device::Device;
use super::fd::{self, Bell};
use super::qp::RdmaQp;
use super::returned::{check, made};
use super::sys;
use crate::caps::Caps;
use crate::cq::{ArmFor, ArmToken, CompletionQueue, CqToken, Wake};
use crate::error::VerbsError;
use crate::wr::WorkCompletion;

/// Completions taken from the device at once.
const BATCH: usize = 16;

/// Places beyond what was asked for: each queue pair has requests of its own, when its connection
/// ends and where a bind waits.
const DEPTH_EXTRA: u32 = 16;

/// What the device has been asked to tell and has not told yet, in rising order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Asked {
    Nothing,
    Solicited,
    Anything,
}

/// What the channel was asked to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arm {
    Nothing,
    Anything,
    Solicited,
}

/// The channel's view of a queue.
#[derive(Debug)]
struct ChannelArm {
    arm: Arm,
    /// The channel's epoll set looks at our descriptor.
    watched: bool,
}

/// A completion queue, with a completion channel of its own.
#[derive(Debug)]
pub(super) struct RdmaCq {
    me: Weak<Self>,
    device: Arc<Device>,
    cq: NonNull<sys::ibv_cq>,
    events: NonNull<sys::ibv_comp_channel>,
    channel: Arc<RdmaChannel>,
    token: CqToken,
    /// Names us in the channel's epoll set; a queue may die while its event is on its way.
    key: u64,
    /// Places, and how many may yet be filled: requests posted and not polled for.
    depth: usize,
    used: AtomicUsize,
    /// Of those, requests of queue pairs that are gone. Their completions may be in the queue, or
    /// never come.
    orphans: AtomicUsize,
    /// One as a rule, so that they are searched for in turn.
    members: Mutex<Vec<(u32, Weak<RdmaQp>)>>,
    /// Held by the thread inside `poll`: completions that did not fit its caller's room.
    polling: Mutex<VecDeque<WorkCompletion>>,
    /// Queue pairs in error whose requests end when the device has said everything.
    flushing: Mutex<Vec<u32>>,
    /// There are some.
    flushes: AtomicBool,
    /// What the device was asked for: asking again would be one more system call on some. Held while
    /// it is asked, so that who finds it asked may rely on that.
    asked: Mutex<Asked>,
    /// Counts events, and wakes.
    happened: AtomicU32,
    /// Threads in `wait`.
    waiters: AtomicU32,
    wakes: Bell,
    channel_arm: Mutex<ChannelArm>,
}

// SAFETY: the library's queue and channel may be used from any thread: polling is behind our own
// lock, arming and getting events behind the library's.
unsafe impl Send for RdmaCq {}
// SAFETY: as above.
unsafe impl Sync for RdmaCq {}

static KEYS: AtomicU64 = AtomicU64::new(1);

impl RdmaCq {
    /// A queue with room for `depth` requests under way.
    pub(super) fn new(
        device: &Arc<Device>,
        depth: u32,
        channel: &Arc<RdmaChannel>,
        token: CqToken,
    ) -> Result<Arc<Self>, VerbsError> {
        let max = device.cq_depth_max();
        if depth > max {
            return Err(VerbsError::Limit {
                what: "depth of a completion queue",
                limit: max.to_string(),
                remedy: "use more queues",
            });
        }
        let wanted = depth.max(1).saturating_add(DEPTH_EXTRA).min(max);
        let wakes = Bell::new(true)?;
        // SAFETY: an open context.
        let events = unsafe { device.lib.ibv_create_comp_channel(device.context()) };
        let events = Events {
            device,
            events: made("ibv_create_comp_channel", events)?,
        };
        // SAFETY: open while `events` is there.
        fd::set_nonblocking(unsafe { fd::borrow(events.fd()) })?;
        let cqe = libc::c_int::try_from(wanted).expect("bounded by the device's own limit");
        // SAFETY: an open context and a channel of it.
        let cq = unsafe {
            device.lib.ibv_create_cq(
                device.context(),
                cqe,
                ptr::null_mut(),
                events.events.as_ptr(),
                device.next_vector(),
            )
        };
        let cq = made("ibv_create_cq", cq)?;
        // SAFETY: a queue just made.
        let depth = unsafe { (*cq.as_ptr()).cqe };
        let this = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            device: Arc::clone(device),
            cq,
            events: events.keep(),
            channel: Arc::clone(channel),
            token,
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            depth: usize::try_from(depth).unwrap_or(0),
            used: AtomicUsize::new(0),
            orphans: AtomicUsize::new(0),
            members: Mutex::default(),
            polling: Mutex::default(),
            flushing: Mutex::default(),
            flushes: AtomicBool::new(false),
            asked: Mutex::new(Asked::Nothing),
            happened: AtomicU32::new(0),
            waiters: AtomicU32::new(0),
            wakes,
            channel_arm: Mutex::new(ChannelArm {
                arm: Arm::Nothing,
                watched: false,
            }),
        });
        channel.add(this.key, &this.me);
        Ok(this)
    }

    pub(super) fn belongs_to(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_cq {
        self.cq.as_ptr()
    }

    fn members(&self) -> MutexGuard<'_, Vec<(u32, Weak<RdmaQp>)>> {
        self.members.lock().expect("nothing panics under this lock")
    }

    /// A queue pair completes here from now on.
    pub(super) fn add_qp(&self, number: u32, qp: &Arc<RdmaQp>) {
        self.members().push((number, Arc::downgrade(qp)));
    }

    /// A queue pair is gone; `outstanding` of its requests were not polled for.
    pub(super) fn remove_qp(&self, number: u32, outstanding: usize) {
        self.members().retain(|(known, _)| *known != number);
        self.orphans.fetch_add(outstanding, Ordering::AcqRel);
    }

    /// Takes a place for the completion of a request about to be posted.
    pub(super) fn take_place(&self) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                (used < self.depth).then_some(used + 1)
            });
        taken.is_ok()
    }

    /// Gives places back.
    pub(super) fn free_places(&self, count: usize) {
        let before = self.used.fetch_sub(count, Ordering::AcqRel);
        debug_assert!(before >= count, "{count} places of {before}");
    }

    fn take_raw(&self, raw: &mut [MaybeUninit<sys::ibv_wc>; BATCH], count: usize) -> usize {
        let count = libc::c_int::try_from(count.min(BATCH)).unwrap_or(0);
        let place = raw.as_mut_ptr().cast();
        // SAFETY: the driver's own function; `raw` has room for as many.
        let taken = unsafe { (self.device.ops.poll_cq)(self.raw(), count, place) };
        usize::try_from(taken).unwrap_or_else(|_| {
            tracing::error!(token = ?self.token, "polling a completion queue gave {taken}");
            0
        })
    }

    fn member(&self, number: u32) -> Option<Arc<RdmaQp>> {
        let members = self.members();
        let found = members.iter().find(|(known, _)| *known == number);
        found.and_then(|(_, qp)| qp.upgrade())
    }

    /// Hands a completion to its queue pair. One of a queue pair that is gone goes nowhere.
    fn sort(&self, wc: &sys::ibv_wc, out: &mut VecDeque<WorkCompletion>) {
        if let Some(qp) = self.member(wc.qp_num) {
            qp.complete(wc, out);
            return;
        }
        let orphan = |n: usize| n.checked_sub(1);
        if self
            .orphans
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, orphan)
            .is_ok()
        {
            self.free_places(1);
        }
    }

    /// A queue pair is in error, and its device will not flush all of its requests.
    pub(super) fn flush_later(&self, number: u32) {
        self.flushing
            .lock()
            .expect("nothing panics under this lock")
            .push(number);
        self.flushes.store(true, Ordering::Release);
        self.tell(0);
    }

    /// The device's queue was found empty: ends what it will not end.
    fn flush(&self, out: &mut VecDeque<WorkCompletion>) {
        self.flushes.store(false, Ordering::Relaxed);
        let flushing = std::mem::take(
            &mut *self
                .flushing
                .lock()
                .expect("nothing panics under this lock"),
        );
        for number in flushing {
            if let Some(qp) = self.member(number) {
                qp.flush(out);
            }
        }
    }

    /// The queue was found empty: what has not completed of queue pairs that are gone never will.
    fn forget_orphans(&self, seen: usize) {
        if seen > 0 {
            self.orphans.fetch_sub(seen, Ordering::AcqRel);
            self.free_places(seen);
        }
    }

    /// Asks the device for an event at the next completion, unless it will tell of it anyway.
    ///
    /// An event that somebody has taken and not told of yet is no such promise, though it may look
    /// like one here: who sees it so has looked at `happened` before, and finds it changed.
    fn request_event(&self, solicited: bool) {
        let solicited = solicited && self.device.caps.contains(Caps::SOLICITED);
        let wanted = if solicited {
            Asked::Solicited
        } else {
            Asked::Anything
        };
        let mut asked = self.asked();
        if *asked >= wanted {
            return;
        }
        // SAFETY: the driver's own function for its queue.
        let returned =
            unsafe { (self.device.ops.req_notify_cq)(self.raw(), libc::c_int::from(solicited)) };
        match check("ibv_req_notify_cq", returned) {
            Ok(()) => *asked = wanted,
            Err(error) => tracing::error!(token = ?self.token, "{error}"),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("nothing panics under this lock")
    }

    fn events_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a channel that lives as long as this value.
        let fd = unsafe { (*self.events.as_ptr()).fd };
        // SAFETY: as above.
        unsafe { fd::borrow(fd) }
    }

    /// Takes one event of the device's, if there is one. Where there are more, the descriptor stays
    /// readable.
    fn take_event(&self) -> bool {
        let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: our channel; both places are valid for the write.
        let returned = unsafe {
            self.device
                .lib
                .ibv_get_cq_event(self.events.as_ptr(), &raw mut cq, &raw mut context)
        };
        if returned != 0 {
            return false;
        }
        // SAFETY: the event is of our queue, the only one of its channel.
        unsafe { self.device.lib.ibv_ack_cq_events(self.raw(), 1) };
        *self.asked() = Asked::Nothing;
        true
    }

    /// Takes an event of the device's and tells whom it concerns. `asking`, 0 or 1, is how many of
    /// the waiters ask, and need no bell.
    fn answer_event(&self, asking: u32) {
        if self.take_event() {
            self.tell(asking);
        }
    }

    /// Something has happened: tells whoever has armed.
    fn tell(&self, asking: u32) {
        self.tell_waiters(asking);
        let mut channel = self.channel_arm();
        if channel.arm != Arm::Nothing {
            channel.arm = Arm::Nothing;
            drop(channel);
            self.channel.push(&self.me);
        }
    }

    fn tell_waiters(&self, asking: u32) {
        self.happened.fetch_add(1, Ordering::SeqCst);
        let waiters = self.waiters.load(Ordering::SeqCst);
        if waiters > asking {
            self.wakes.ring(waiters);
        }
    }

    fn channel_arm(&self) -> MutexGuard<'_, ChannelArm> {
        self.channel_arm
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn arm_channel(&self, arm: Arm) {
        let mut channel = self.channel_arm();
        channel.arm = arm;
        if channel.watched {
            return;
        }
        match self.channel.watch(self.key, self.events_fd()) {
            Ok(()) => channel.watched = true,
            Err(error) => {
                tracing::error!(token = ?self.token, "{error}");
                // What cannot be watched is looked at again and again instead.
                channel.arm = Arm::Nothing;
                self.channel.push(&self.me);
            }
        }
    }

    /// The channel found our descriptor readable.
    fn seen_by_channel(&self) {
        self.answer_event(0);
        self.look_away();
    }

    /// If nobody wants to be told by the channel, it stops looking, until it is armed again:
    /// otherwise each event for a waiter would wake it as well.
    fn look_away(&self) {
        let mut channel = self.channel_arm();
        if channel.arm == Arm::Nothing && channel.watched {
            channel.watched = false;
            self.channel.look_away(self.events_fd());
        }
    }

    /// Sleeps until the device or a wake of ours has something, or for `left`.
    fn sleep(&self, left: Option<Duration>) -> Result<usize, Errno> {
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let events = self.events_fd();
        let mut fds = [
            PollFd::from_borrowed_fd(events, PollFlags::IN),
            PollFd::new(&self.wakes, PollFlags::IN),
        ];
        let ready = rustix::event::poll(&mut fds, left.as_ref())?;
        if fds[1].revents().contains(PollFlags::IN) {
            self.wakes.answer();
        }
        if !fds[0].revents().is_empty() {
            self.answer_event(1);
        }
        Ok(ready)
    }
}

impl CompletionQueue for RdmaCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let Ok(mut ready) = self.polling.try_lock() else {
            return 0;
        };
        while ready.len() < out.len() {
            let orphans = self.orphans.load(Ordering::Acquire);
            let in_error = self.flushes.load(Ordering::Acquire);
            let mut raw = [const { MaybeUninit::uninit() }; BATCH];
            let room = (out.len() - ready.len()).min(BATCH);
            let taken = self.take_raw(&mut raw, room);
            if taken == 0 {
                self.forget_orphans(orphans);
                if in_error {
                    self.flush(&mut ready);
                }
                break;
            }
            for wc in &raw[..taken] {
                // SAFETY: the driver has filled in as many as it says.
                let wc = unsafe { wc.assume_init_ref() };
                self.sort(wc, &mut ready);
            }
            if taken < room {
                // The device's queue was emptied.
                break;
            }
        }
        let mut count = 0;
        while count < out.len()
            && let Some(wc) = ready.pop_front()
        {
            out[count] = wc;
            count += 1;
        }
        count
    }

    fn arm(&self, who: ArmFor) -> ArmToken {
        let token = ArmToken(self.happened.load(Ordering::SeqCst).into());
        match who {
            ArmFor::Waiter => {
                self.look_away();
                self.request_event(false);
            }
            ArmFor::Channel | ArmFor::Token => {
                self.arm_channel(Arm::Anything);
                self.request_event(false);
            }
            ArmFor::ChannelSolicited => {
                self.arm_channel(Arm::Solicited);
                self.request_event(true);
            }
        }
        token
    }

    fn disarm_channel(&self) {
        self.channel_arm().arm = Arm::Nothing;
    }

    fn wait(&self, token: ArmToken, timeout: Option<Duration>) -> io::Result<Wake> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Most sleep once, and need not look at the clock for it again.
        let mut whole = timeout;
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let woken = loop {
            if u64::from(self.happened.load(Ordering::SeqCst)) != token.0 {
                break Ok(Wake::Event);
            }
            let rest = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match self.sleep(whole.take().or_else(rest)) {
                Ok(0) => break Ok(Wake::TimedOut),
                Ok(_) => {}
                // A wait without limit is one that signal handlers with SA_RESTART do not end.
                Err(Errno::INTR) if timeout.is_none() && signal::all_restart() => {}
                Err(Errno::INTR) => break Ok(Wake::Interrupted),
                Err(error) => break Err(error.into()),
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        woken
    }

    fn wake(&self) {
        self.tell_waiters(0);
    }
}

impl Drop for RdmaCq {
    fn drop(&mut self) {
        self.channel.remove(self.key);
        let channel = self.channel_arm();
        if channel.watched {
            self.channel.look_away(self.events_fd());
        }
        drop(channel);
        // SAFETY: queue pairs hold their queue, so none is left; every event was acknowledged.
        let returned = unsafe { self.device.lib.ibv_destroy_cq(self.raw()) };
        if let Err(error) = check("ibv_destroy_cq", returned) {
            tracing::error!(token = ?self.token, "{error}");
        }
        // SAFETY: its only queue is gone.
        let returned = unsafe {
            self.device
                .lib
                .ibv_destroy_comp_channel(self.events.as_ptr())
        };
        if let Err(error) = check("ibv_destroy_comp_channel", returned) {
            tracing::error!(token = ?self.token, "{error}");
        }
    }
}

/// A completion channel that is given back if nothing comes of its queue.
struct Events<'a> {
    device: &'a Device,
    events: NonNull<sys::ibv_comp_channel>,
}

impl Events<'_> {
    fn fd(&self) -> libc::c_int {
        // SAFETY: a channel just made.
        unsafe { (*self.events.as_ptr()).fd }
    }

    /// It has an owner now.
    fn keep(self) -> NonNull<sys::ibv_comp_channel> {
        let events = self.events;
        std::mem::forget(self);
        events
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // SAFETY: made just before, without a queue.
        let returned = unsafe {
            self.device
                .lib
                .ibv_destroy_comp_channel(self.events.as_ptr())
        };
        if let Err(error) = check("ibv_destroy_comp_channel", returned) {
            tracing::error!("{error}");
        }
    }
}
