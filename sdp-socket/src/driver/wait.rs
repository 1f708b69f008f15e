//! Waiting inside a call: spin, then lead or follow.

use std::io;
use std::sync::atomic::Ordering;

use sdp_core::{EndCall, Instant};
use sdp_verbs::{ArmFor, Wake};

use super::{Conn, NEVER};
use crate::park::{AbortOnUnwind, SpinPolicy, Spinner, WaitWord};

/// A thread in a call on a connection. When the last one leaves, the progress loop takes over.
pub(super) struct Caller<'a> {
    conn: &'a Conn,
    _guard: AbortOnUnwind,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let conn = self.conn;
        let last = conn.callers.fetch_sub(1, Ordering::SeqCst) == 1;
        if conn.followers.load(Ordering::SeqCst) != 0 {
            // One of them must lead now.
            conn.notify_all();
        } else if last {
            conn.settle();
        }
    }
}

impl Conn {
    /// Enters a call.
    pub(super) fn enter(&self) -> Caller<'_> {
        if self.callers.fetch_add(1, Ordering::SeqCst) == 0 {
            // This thread looks for itself: completions need not cost the peer a system call.
            self.cq.disarm_channel();
        }
        Caller {
            conn: self,
            _guard: AbortOnUnwind::new(),
        }
    }

    /// Waits until `word` has moved on from `seen`. `Some`: the call must end, for that reason.
    pub(super) fn wait(
        &self,
        word: &WaitWord,
        seen: u32,
        deadline: Option<Instant>,
        spinner: &mut Spinner,
    ) -> Option<EndCall> {
        let may_spin = self.context.runtime().may_spin();
        loop {
            self.pump_if_free();
            if word.seen() != seen {
                spinner.restart();
                return None;
            }
            if deadline.is_some_and(|t| t <= self.context.now()) {
                self.tick();
                return Some(EndCall::TimedOut);
            }
            if !may_spin || !spinner.spin() {
                break;
            }
        }
        let alone = self
            .leading
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        let slept = if alone {
            let slept = self.lead(word, seen, deadline);
            self.leading.store(false, Ordering::SeqCst);
            slept
        } else {
            self.follow(word, seen, deadline)
        };
        self.pump();
        self.tick();
        if word.seen() != seen {
            spinner.restart();
            if alone && self.followers.load(Ordering::SeqCst) != 0 {
                // What comes next may take long: another one shall lead.
                self.notify_all();
            }
            return None;
        }
        match slept {
            Ok(Wake::Interrupted) => Some(EndCall::Interrupted),
            Ok(_) => None,
            Err(error) => {
                tracing::error!("cannot sleep: {error}");
                Some(EndCall::Interrupted)
            }
        }
    }

    /// Waits until everything accepted, and the end of it, has left this process.
    pub(crate) fn wait_flushed(&self, deadline: Instant) {
        let _caller = self.enter();
        let mut spinner = Spinner::new(SpinPolicy::Never);
        loop {
            let seen = self.tx.seen();
            if self.is_closed() || self.lock().engine.has_sent_all() {
                return;
            }
            if let Some(EndCall::TimedOut) = self.wait(&self.tx, seen, Some(deadline), &mut spinner)
            {
                tracing::warn!(token = ?self.token, "exit without delivering all that was written");
                return;
            }
        }
    }

    /// Sleeps on the completion queue.
    fn lead(&self, word: &WaitWord, seen: u32, deadline: Option<Instant>) -> io::Result<Wake> {
        let token = self.cq.arm(ArmFor::Waiter);
        // If somebody else has the turn it looks again, after the arming; what it finds for us
        // moves the word and, since we lead, wakes us.
        self.pump();
        if word.seen() != seen {
            return Ok(Wake::Event);
        }
        self.context
            .runtime()
            .wait_cq(&*self.cq, token, self.earlier_timeout(deadline))
    }

    /// Sleeps on the word, if somebody leads; the leader, when it leaves, wakes us to take over.
    fn follow(&self, word: &WaitWord, seen: u32, deadline: Option<Instant>) -> io::Result<Wake> {
        self.followers.fetch_add(1, Ordering::SeqCst);
        let slept = if self.leading.load(Ordering::SeqCst) {
            let until = self.earlier_timeout(deadline);
            self.context.runtime().wait_word(word, seen, until)
        } else {
            Ok(Wake::Event)
        };
        self.followers.fetch_sub(1, Ordering::SeqCst);
        slept
    }

    fn earlier_timeout(&self, deadline: Option<Instant>) -> Option<Instant> {
        let at = self.timeout.load(Ordering::SeqCst);
        let timeout = (at != NEVER).then(|| Instant::from_nanos(at));
        match (deadline, timeout) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
