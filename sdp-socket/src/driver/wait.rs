//! Waiting inside a call: spin, then lead or follow.

use std::io;
use std::sync::atomic::Ordering;

use sdp_core::{EndCall, Instant};
use sdp_verbs::{ArmFor, Wake};

use super::{Conn, NEVER};
use crate::park::{AbortOnUnwind, Spinner, WaitWord};

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
            // One of them must poll now.
            conn.signal_all();
        } else if last {
            conn.settle();
        }
    }
}

impl Conn {
    /// Enters a call.
    pub(super) fn enter(&self) -> Caller<'_> {
        self.callers.fetch_add(1, Ordering::SeqCst);
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
        loop {
            self.pump();
            if word.seen() != seen {
                return None;
            }
            if deadline.is_some_and(|t| t <= self.context.now()) {
                return Some(EndCall::TimedOut);
            }
            if !self.context.runtime().may_spin() || !spinner.spin() {
                break;
            }
        }
        let until = earliest(deadline, self.next_timeout());
        let slept = if self.turn.try_enter() {
            let slept = self.lead(word, seen, until);
            while !self.turn.leave() {
                self.pump_held();
            }
            slept
        } else {
            self.follow(word, seen, until)
        };
        self.tick();
        match slept {
            Ok(Wake::Interrupted) => Some(EndCall::Interrupted),
            Ok(_) => None,
            Err(error) => {
                tracing::error!("cannot sleep: {error}");
                None
            }
        }
    }

    /// Sleeps on the completion queue. The caller has the turn.
    fn lead(&self, word: &WaitWord, seen: u32, until: Option<Instant>) -> io::Result<Wake> {
        let token = self.cq.arm(ArmFor::Waiter);
        if self.pump_held() != 0 || word.seen() != seen {
            return Ok(Wake::Event);
        }
        let wake = self.context.runtime().wait_cq(&*self.cq, token, until)?;
        self.pump_held();
        Ok(wake)
    }

    /// Sleeps on the word; the leader, when it leaves, wakes us to take over.
    fn follow(&self, word: &WaitWord, seen: u32, until: Option<Instant>) -> io::Result<Wake> {
        self.followers.fetch_add(1, Ordering::SeqCst);
        // Announced; only if there still is a leader may we sleep.
        let slept = if self.turn.try_enter() {
            while !self.turn.leave() {
                self.pump_held();
            }
            Ok(Wake::Event)
        } else {
            self.context.runtime().wait_word(word, seen, until)
        };
        self.followers.fetch_sub(1, Ordering::SeqCst);
        slept
    }

    fn next_timeout(&self) -> Option<Instant> {
        let at = self.timeout.load(Ordering::Relaxed);
        (at != NEVER).then(|| Instant::from_nanos(at))
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
