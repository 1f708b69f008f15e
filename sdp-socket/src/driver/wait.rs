//! Waiting inside a call: spin, then lead or follow.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sdp_core::{EndCall, Instant};
use sdp_verbs::{ArmFor, Wake};

use super::Conn;
use crate::park::{
    AbortOnUnwind, NEVER, Place, SpinPolicy, Spinner, WaitWord, inside, signals_restart, sleep_at,
};

/// A sleep that is timed only so that every signal handler ends it; it just begins again.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// How long a call waits, and what a signal does to it: the rules of the kernel's own sockets. With
/// a time-out, or when it has done a part, a call is ended by every handler; else only by one
/// without SA_RESTART.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    /// The call's time-out.
    pub(super) deadline: Option<Instant>,
    /// Some bytes are done: the call returns their count when it ends.
    pub(super) partly: bool,
}

impl Until {
    fn is_restarted(self) -> bool {
        self.deadline.is_none() && !self.partly
    }
}

/// A thread in a call on a connection. When the last one leaves, the progress loop takes over.
pub(super) struct Caller<'a> {
    conn: &'a Conn,
    /// When it last looked at the clock, if it has.
    time: Cell<Option<Instant>>,
    _guard: AbortOnUnwind,
}

impl Caller<'_> {
    /// The call is about to end; asking the clock once more is not worth it.
    pub(super) fn note_time(&self, now: Instant) {
        self.time.set(Some(now));
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let conn = self.conn;
        let last = conn.callers.fetch_sub(1, Ordering::SeqCst) == 1;
        if conn.followers.load(Ordering::SeqCst) != 0 {
            // One of them must lead now.
            conn.notify_all();
        } else if last {
            let now = self.time.get().unwrap_or_else(|| conn.context.now());
            conn.rest(now);
            conn.forget_if_over();
        }
    }
}

impl Conn {
    /// Enters a call.
    pub(super) fn enter(&self) -> Caller<'_> {
        let first = self.callers.fetch_add(1, Ordering::SeqCst) == 0;
        if first && self.channel_armed.load(Ordering::Acquire) {
            self.channel_armed.store(false, Ordering::Relaxed);
            // This thread looks for itself: completions need not cost the peer a system call.
            self.cq.disarm_channel();
        }
        Caller {
            conn: self,
            time: Cell::new(None),
            _guard: AbortOnUnwind::new(),
        }
    }

    /// Waits until `word` has moved on from `seen`. `Some`: the call must end, for that reason.
    pub(super) fn wait(
        &self,
        word: &WaitWord,
        seen: u32,
        until: Until,
        spinner: &mut Spinner,
    ) -> Option<EndCall> {
        let may_spin = self.context.runtime().may_spin();
        loop {
            if !std::mem::take(&mut spinner.looked) {
                spinner.found_at = self.look_if_free();
            }
            if word.seen() != seen {
                spinner.restart();
                return None;
            }
            if std::mem::take(&mut spinner.interrupted) {
                return Some(EndCall::Interrupted);
            }
            if until.deadline.is_some_and(|t| t <= self.context.now()) {
                self.tick();
                return Some(EndCall::TimedOut);
            }
            if !may_spin || !spinner.spin() {
                break;
            }
            if spinner.needs_breath() {
                spinner.interrupted = self.breathe(word);
            }
        }
        let alone = self
            .leading
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        let outer = inside::sleep_on(self.address());
        let slept = if alone {
            let slept = self.lead(word, seen, until);
            self.leading.store(false, Ordering::SeqCst);
            slept
        } else {
            self.follow(word, seen, until)
        };
        inside::sleep_on(outer);
        spinner.found_at = self.look();
        self.tick();
        // Where the sleep had to be timed for the engine's sake only, TCP's would be restarted.
        spinner.interrupted =
            matches!(slept, Ok(Wake::Interrupted)) && !(until.is_restarted() && signals_restart());
        if word.seen() != seen {
            // Should the call have to wait again, the signal ends it.
            spinner.restart();
            if alone && self.followers.load(Ordering::SeqCst) != 0 {
                // What comes next may take long: another one shall lead.
                self.notify_all();
            }
            return None;
        }
        match slept {
            Ok(_) => std::mem::take(&mut spinner.interrupted).then_some(EndCall::Interrupted),
            Err(error) => {
                tracing::error!("cannot sleep: {error}");
                Some(EndCall::Interrupted)
            }
        }
    }

    /// What a thread that spins would do by sleeping: lets signal handlers run that were put off, and sees
    /// whether it was cancelled. True: that ends the call.
    fn breathe(&self, word: &WaitWord) -> bool {
        let outer = inside::sleep_on(self.address());
        let slept = sleep_at(|| Place::Word(word.clone()), || Ok(Wake::Event));
        inside::sleep_on(outer);
        matches!(slept, Ok(Wake::Interrupted))
    }

    /// Waits until everything accepted, and the end of it, has left this process. False: it has not.
    pub(crate) fn wait_flushed(&self, deadline: Instant) -> bool {
        let _caller = self.enter();
        let mut spinner = Spinner::new(SpinPolicy::Never);
        loop {
            let seen = self.tx.seen();
            if self.is_closed() || self.lock().engine.has_sent_all() {
                return true;
            }
            let until = Until {
                deadline: Some(deadline),
                partly: false,
            };
            if let Some(EndCall::TimedOut) = self.wait(&self.tx, seen, until, &mut spinner) {
                return false;
            }
        }
    }

    /// Sleeps on the completion queue.
    fn lead(&self, word: &WaitWord, seen: u32, until: Until) -> io::Result<Wake> {
        let token = self.cq.arm(ArmFor::Waiter);
        // If somebody else has the turn it looks again, after the arming; what it finds for us
        // moves the word and, since we lead, wakes us.
        self.pump();
        if word.seen() != seen {
            return Ok(Wake::Event);
        }
        let at = self.wake_at(until);
        let sleep = || self.context.runtime().wait_cq(&*self.cq, token, at);
        sleep_at(|| Place::Queue(Arc::clone(&self.cq)), sleep)
    }

    /// Sleeps on the word, if somebody leads; the leader, when it leaves, wakes us to take over.
    fn follow(&self, word: &WaitWord, seen: u32, until: Until) -> io::Result<Wake> {
        self.followers.fetch_add(1, Ordering::SeqCst);
        let slept = if self.leading.load(Ordering::SeqCst) {
            let at = self.wake_at(until);
            let sleep = || self.context.runtime().wait_word(word, seen, at);
            sleep_at(|| Place::Word(word.clone()), sleep)
        } else {
            Ok(Wake::Event)
        };
        self.followers.fetch_sub(1, Ordering::SeqCst);
        slept
    }

    /// By which the connection is known to signal handlers that interrupt a sleep on it.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether this call is a signal handler's that has interrupted a call on this connection: it does
    /// not wait.
    pub(super) fn is_interrupted(&self) -> bool {
        inside::has_interrupted(self.address())
    }

    /// When a sleep ends at the latest. `None` only where a handler with SA_RESTART shall not end
    /// it.
    fn wake_at(&self, until: Until) -> Option<Instant> {
        let at = self.timeout.load(Ordering::SeqCst);
        let timeout = (at != NEVER).then(|| Instant::from_nanos(at));
        let timed = || (!until.is_restarted()).then(|| self.context.now() + SLEEP_MAX);
        let first = [until.deadline, timeout].into_iter().flatten().min();
        first.or_else(timed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::sync::lock;
    use crate::{SdpListener, SdpStream};

    /// What still comes for a closed connection, a call on it may be waiting for.
    #[test]
    fn a_connection_is_looked_after_until_the_last_call_on_it_is_over() {
        let listener = SdpListener::bind("127.0.0.1:0").unwrap();
        let stream = SdpStream::connect(listener.local_addr().unwrap()).unwrap();
        let conn = stream.conn().unwrap();
        let found = || conn.context.conn(conn.token);
        let caller = conn.enter();
        conn.visit_engine(|engine, now| engine.abort(now));
        if let Some(conn) = found() {
            conn.service(true);
        }
        let during = found().is_some();
        // A panic inside a call would end the process.
        drop(caller);
        assert!(conn.is_closed());
        assert!(during, "forgotten during a call");
        assert!(found().is_none(), "kept for ever");
    }

    /// A request that cannot even be sent closes the connection while the progress thread opens it.
    #[test]
    fn whoever_waits_for_the_handshake_hears_of_a_connection_that_is_closed_at_once() {
        let listener = SdpListener::bind("127.0.0.1:0").unwrap();
        let connect = || SdpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (first, second) = (connect(), connect());
        let conn = second.conn().unwrap();
        let conn = conn.context.conn(conn.token).unwrap();
        let (say, heard) = mpsc::channel();
        // Runs on the progress thread.
        *lock(&first.conn().unwrap().on_settled) = Some(Box::new(move |_| {
            *lock(&conn.on_settled) = Some(Box::new(move |_| say.send(()).unwrap()));
            conn.visit_engine(|engine, now| engine.abort(now));
        }));
        first
            .conn()
            .unwrap()
            .context
            .settled(first.conn().unwrap().token);
        heard.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
