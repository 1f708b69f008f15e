//! What happens on a connection that no thread is in a call on: the progress loop visits it, the completion
//! channel is armed, and conversations are looked after in their pauses.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sdp_core::Instant;
use sdp_core::connection::Phase;
use sdp_verbs::ArmFor;

use super::pump::fire_timeout;
use super::{Conn, Inner, Portion};
use crate::park::NEVER;
use crate::ready::{Awaits, ReadyPair};

/// Calls that follow each other within this time are taken for a conversation: between two of them
/// the completion queue is not armed. So long a peer that is stuck may have to wait for attention.
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// In a long conversation the progress loop looks less and less often whether it goes on, so often
/// twice the time: at last every 4 ms.
const LOOKS_MAX: u32 = 2;

impl Conn {
    /// Looks after the connection: the progress loop's visit, because it was asked to come or because
    /// the alarm went off.
    pub(crate) fn service(self: &Arc<Self>, mut asked: bool) {
        if self.is_due(self.next_timeout(Ordering::Relaxed)) {
            let mut inner = self.lock();
            let now = self.context.now();
            fire_timeout(&mut inner, now);
            // Whatever it has posted is polled for below, a portion of it.
            asked |= self.finish(inner, now);
        }
        let now = self.context.now();
        let pauses = self.is_pause(now);
        let in_call = self.callers.load(Ordering::SeqCst) != 0;
        let mut portion = Portion::VISIT;
        // A thread in a call polls for itself, and may hold what this would wait for.
        if asked && in_call || pauses && !in_call {
            self.pump_portion(&mut portion);
        }
        if in_call || pauses && !self.is_unfinished(&self.lock()) {
            // In a call this is for the pause behind it: whoever leaves finds it done.
            self.look_on(now, pauses);
        } else {
            self.looks.store(0, Ordering::Relaxed);
            self.settle_portion(&mut portion);
        }
        self.forget_if_over();
    }

    /// A timer of the progress loop, set for `at`, has run out. False: it was replaced since.
    pub(crate) fn take_timer(&self, at: Instant) -> bool {
        // Taken in any case: an alarm that stayed set for time 0 could never be brought forward.
        let taken = self.alarm.take(at.as_nanos());
        // At time 0 there are also visits that no alarm was set for.
        taken || at.as_nanos() == 0
    }

    /// Whether a visit of the progress loop at that time is still wanted.
    pub(crate) fn awaits_visit(&self, at: Instant) -> bool {
        at.as_nanos() == 0 || self.alarm.is_set_for(at.as_nanos())
    }

    /// The last thread has left its call. In the middle of a conversation, the progress loop looks a
    /// little later whether it goes on; arming for every pause would be a system call or two for
    /// every call.
    pub(super) fn rest(&self, now: Instant) {
        let converses = self.is_pause(now);
        self.left.store(now.as_nanos(), Ordering::Relaxed);
        if converses && !self.is_unfinished(&self.lock()) {
            self.look_at(now + self.look_wait());
        } else {
            self.settle();
        }
    }

    /// A call has ended that nobody had to know of. The channel is armed as it was, and what the engine
    /// wants is looked after as if the last thread had left.
    pub(super) fn left_at_once(&self, now: Instant) {
        self.left.store(now.as_nanos(), Ordering::Relaxed);
        if self.is_unfinished(&self.lock()) {
            drop(self.enter());
        } else {
            self.schedule_timeout();
        }
    }

    /// The last call was a moment ago: the next one may follow, and nothing has to be armed yet.
    fn is_pause(&self, now: Instant) -> bool {
        // On the same host arming costs next to nothing.
        let left = Instant::from_nanos(self.left.load(Ordering::Relaxed));
        !self.same_host && now.since(left) < PAUSE_MAX
    }

    /// How long the progress loop waits before it looks whether a conversation goes on.
    fn look_wait(&self) -> Duration {
        PAUSE_MAX * (1 << self.looks.load(Ordering::Relaxed).min(LOOKS_MAX))
    }

    /// The progress loop comes again, if a conversation `goes_on` to look after that.
    fn look_on(&self, now: Instant, goes_on: bool) {
        if goes_on {
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.look_at(now + self.look_wait());
        } else {
            self.looks.store(0, Ordering::Relaxed);
            self.schedule_timeout();
        }
    }

    /// Has the progress loop look here at a time, or when the engine wants it.
    fn look_at(&self, time: Instant) {
        let at = self.next_timeout(Ordering::SeqCst).min(time.as_nanos());
        if self.alarm.bring_forward(at) {
            self.context.schedule(Instant::from_nanos(at), self.token);
        }
    }

    /// Before nobody watches the completion queue: arm the channel for what must not wait until
    /// the next call, look once more, and leave the engine's time-out with the progress loop.
    pub(crate) fn settle(&self) {
        self.settle_portion(&mut { Portion::VISIT });
    }

    fn settle_portion(&self, portion: &mut Portion) {
        self.arm_channel();
        while self.turn.try_enter() {
            let mut n = self.pump_held(portion);
            while !self.turn.leave() {
                n += self.pump_held(portion);
            }
            if portion.is_used_up() {
                // Others want their turn too: come back.
                self.context.schedule(Instant::from_nanos(0), self.token);
                break;
            }
            if n == 0 {
                break;
            }
            self.arm_channel();
        }
        self.schedule_timeout();
    }

    /// Something goes on that needs no call, or is to be shown.
    fn is_unfinished(&self, inner: &Inner) -> bool {
        let shows = |ready: &ReadyPair| ready.awaits() != Awaits::Nothing;
        self.goes_on(inner) || inner.ready.as_ref().is_some_and(shows)
    }

    /// Something goes on that needs no call.
    fn goes_on(&self, inner: &Inner) -> bool {
        match inner.engine.phase() {
            Phase::Open => {
                let engine = &inner.engine;
                inner.works != 0
                    || engine.is_moving()
                    || engine.unsent_len() != 0
                    || engine.owes_answers()
                    || engine.awaits_housekeeping()
            }
            Phase::Closed => inner.receives != 0,
            _ => true,
        }
    }

    /// All events while something is unfinished; else only those that the peer marks as urgent, and
    /// what is to be shown to a program that polls.
    fn arm_channel(&self) {
        let mut inner = self.lock();
        if self.callers.load(Ordering::SeqCst) != 0 {
            // A thread has come into a call since: it looks for itself, and arms when it leaves.
            return;
        }
        // Under the lock, so that an older wish cannot follow a newer one.
        self.cq.arm(self.what_to_arm_for(&mut inner));
        self.channel_armed.store(true, Ordering::Release);
    }

    fn what_to_arm_for(&self, inner: &mut Inner) -> ArmFor {
        if let Some(Err(error)) = inner.ready.as_mut().map(ReadyPair::confirm) {
            tracing::error!(token = ?self.token, "the readiness descriptor: {error}");
        }
        if self.goes_on(inner) {
            return ArmFor::Channel;
        }
        let (Some(ready), Some(pair)) = (&mut inner.ready, &inner.pair) else {
            return ArmFor::ChannelSolicited;
        };
        // Below the low-water mark a message is nothing to be shown; and a token that is late, a false
        // IN, must not have a receive wait.
        let each = inner.engine.config().recv_low_water <= 1 && self.options.nonblocking();
        match ready.awaits() {
            Awaits::Nothing => ArmFor::ChannelSolicited,
            Awaits::Arrivals if each && ready.is_lent_to(&*pair.qp) => ArmFor::Token,
            Awaits::Arrivals | Awaits::Anything => ArmFor::Channel,
        }
    }

    pub(super) fn schedule_timeout(&self) {
        self.look_at(Instant::from_nanos(NEVER));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use sdp_verbs::host::HostProvider;

    use super::Ordering;
    use crate::{Builder, Context};

    /// The progress thread that was about to arm left the channel armed under a thread in a call: every
    /// message of the peer's woke it again, which then found nothing to do.
    #[test]
    fn a_channel_is_not_armed_under_a_thread_in_a_call() {
        let listener = crate::SdpListener::bind("127.0.0.1:0").unwrap();
        let client = crate::SdpStream::connect(listener.local_addr().unwrap()).unwrap();
        let conn = client.conn().unwrap();
        let is_armed = || conn.channel_armed.load(Ordering::SeqCst);
        let caller = conn.enter();
        conn.settle();
        assert!(!is_armed());
        drop(caller);
        assert!(is_armed(), "nobody looks any more");
    }

    /// Each nearer time-out left the later one behind once more in the list of visits, for as long as that
    /// took: hours, with keepalive.
    #[test]
    fn visits_that_were_brought_forward_do_not_pile_up() {
        let listener = crate::SdpListener::bind("127.0.0.1:0").unwrap();
        let client = crate::SdpStream::connect(listener.local_addr().unwrap()).unwrap();
        let conn = client.conn().unwrap();
        let late = conn.context.now() + Duration::from_secs(3600);
        let at = |n| late + Duration::from_nanos(n);
        for n in (0..10_000).rev() {
            conn.look_at(at(n));
        }
        let (count, next) = conn.context.visits();
        assert!(count < 2_000, "{count}");
        assert!(
            next.is_some_and(|next| next <= at(0)),
            "the one that counts"
        );
    }

    /// Whoever visits the engine without a look at what has come takes back the token of a message:
    /// somebody looks, and it is shown again.
    #[test]
    fn a_visit_hides_no_message_that_was_told_of() {
        let end = || {
            let provider = HostProvider::open().unwrap();
            Builder::new().context(&Context::threaded(Arc::new(provider)).unwrap())
        };
        let listener = end().bind("127.0.0.1:0").unwrap();
        let mut client = end().connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let ready = server.readiness().unwrap();
        let is_in = |seconds: i64| {
            let limit = Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            };
            let mut fds = [PollFd::new(&ready, PollFlags::IN)];
            poll(&mut fds, Some(&limit)).unwrap() == 1
        };
        // The peer has to be given the socket: the first few are shown by the progress thread.
        for round in 0..100 {
            client.write_all(b"x").unwrap();
            assert!(is_in(60), "round {round}");
            server.conn().unwrap().with_engine(|_, _| ());
            assert!(is_in(10), "round {round}: hidden");
            assert_eq!(server.read(&mut [0; 2]).unwrap(), 1);
        }
    }
}
