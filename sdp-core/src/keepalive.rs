//! Finding out that the peer is gone although nothing of the stream moves (clause §2.6), and
//! giving up bytes that it does not take (TCP_USER_TIMEOUT).

use core::time::Duration;

use crate::action::Action;
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::ids::WorkId;
use crate::time::Instant;
use crate::timer::Timer;

/// When an idle peer is asked for a sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// After so long without anything from it (TCP_KEEPIDLE).
    pub idle: Duration,
    /// How long to wait for the answer before it counts as missed (TCP_KEEPINTVL).
    pub interval: Duration,
    /// After so many missed answers the connection has timed out (TCP_KEEPCNT).
    pub count: u32,
}

const UNANSWERED: ConnectionError =
    ConnectionError::TimedOut("the peer gave no sign of life (keepalive)");
const UNTAKEN: ConnectionError =
    ConnectionError::TimedOut("the peer took no byte for TCP_USER_TIMEOUT");

/// The probe under way. The adapter repeats it by itself: one is enough.
#[derive(Clone, Copy, Debug)]
struct Probe {
    work: WorkId,
    /// When it was posted, or heard of the peer since.
    from: Instant,
    missed: u32,
}

/// What is known of the peer's being there.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    heard_at: Instant,
    probe: Option<Probe>,
    /// Unsent bytes wait since then; the second is what had been taken then.
    untaken: Option<(Instant, u64)>,
}

impl Liveness {
    /// Something came from the peer, or its adapter confirmed something.
    pub(crate) const fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// A work request has ended. Says whether it was the probe.
    pub(crate) fn on_completion(&mut self, work: WorkId) -> bool {
        let mine = self.probe.is_some_and(|probe| probe.work == work);
        if mine {
            self.probe = None;
        }
        mine
    }

    /// What a failed probe means.
    pub(crate) const fn unanswered() -> ConnectionError {
        UNANSWERED
    }
}

impl Shared {
    /// The connection is there, or keepalive was switched on, off or over.
    pub(crate) fn start_keepalive(&mut self, now: Instant) {
        match self.config.keepalive {
            Some(keepalive) if self.life.is_open() => {
                let from = match &self.liveness.probe {
                    Some(probe) => probe.from + keepalive.interval,
                    None => self.liveness.heard_at + keepalive.idle,
                };
                self.timers.set(Timer::Keepalive, from.max(now));
            }
            _ => self.timers.clear(Timer::Keepalive),
        }
    }

    /// The time of the next look has come.
    ///
    /// # Errors
    /// The peer is taken for dead.
    pub(crate) fn on_keepalive(&mut self, now: Instant) -> Result<(), ConnectionError> {
        let Some(keepalive) = self.config.keepalive else {
            return Ok(());
        };
        let heard_at = self.liveness.heard_at;
        if let Some(probe) = &mut self.liveness.probe {
            if heard_at > probe.from {
                probe.from = heard_at;
                probe.missed = 0;
            } else {
                probe.missed += 1;
                let given_up = match self.config.user_timeout {
                    Some(limit) => heard_at + limit <= now,
                    None => probe.missed >= keepalive.count,
                };
                if given_up {
                    return Err(UNANSWERED);
                }
            }
            self.timers.set(Timer::Keepalive, now + keepalive.interval);
            return Ok(());
        }
        if heard_at + keepalive.idle > now {
            let at = heard_at + keepalive.idle;
            self.timers.set(Timer::Keepalive, at);
            return Ok(());
        }
        if self.out.has_slot() && !self.credits.is_muted() {
            let work = self.out.push_signalled(|work| Action::Probe { work });
            self.stats.probes += 1;
            self.liveness.probe = Some(Probe {
                work,
                from: now,
                missed: 0,
            });
        }
        self.timers.set(Timer::Keepalive, now + keepalive.interval);
        Ok(())
    }

    /// `unsent` bytes wait for the peer to take them, or to give credits for them; `taken` have
    /// gone so far.
    pub(crate) fn watch_unsent(&mut self, now: Instant, unsent: usize, taken: u64) {
        let Some(limit) = self.config.user_timeout else {
            return;
        };
        if unsent == 0 {
            self.liveness.untaken = None;
            self.timers.clear(Timer::UserTimeout);
        } else if self.liveness.untaken.is_none_or(|(_, then)| then != taken) {
            self.liveness.untaken = Some((now, taken));
            self.timers.set(Timer::UserTimeout, now + limit);
        }
    }

    /// TCP_USER_TIMEOUT has another value from now on.
    pub(crate) fn restart_user_timeout(&mut self) {
        self.liveness.untaken = None;
        self.timers.clear(Timer::UserTimeout);
    }

    /// What it means that [`Timer::UserTimeout`] has run out.
    pub(crate) const fn untaken() -> ConnectionError {
        UNTAKEN
    }
}
