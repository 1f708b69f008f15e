//! How a connection ends (clauses §2.3 to §2.5).

use core::time::Duration;

use sdp_wire::Body;

use crate::action::Action;
use crate::error::ConnectionError;
use crate::ids::{BufferId, WorkId};
use crate::outbox::Outgoing;
use crate::suspend::Step;
use crate::time::Instant;
use crate::timer::Timer;

use super::state::{Fin, Stage};
use super::{Connection, Shared};

/// What a connection is called whose beginning never came.
const UNHEARD: ConnectionError =
    ConnectionError::TimedOut("the peer that connected did not send its first message");

/// What is done to the transport when the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Teardown {
    /// There is nothing to be torn down.
    None,
    /// The request or response is turned down.
    Reject,
    /// Both sides have said goodbye.
    Disconnect,
    /// Everything stops, and every key dies.
    Error,
}

impl Connection {
    /// The connection ends, here and now. Idempotent.
    pub(super) fn die(&mut self, reason: Option<ConnectionError>, teardown: Teardown) {
        if self.sh.life.stage == Stage::Dead {
            return;
        }
        self.sh.life.stage = Stage::Dead;
        self.sh.life.error = reason;
        self.drop_queued();
        match teardown {
            Teardown::None => {}
            Teardown::Reject => self.sh.out.push(Action::Reject(crate::PrivateData::new())),
            Teardown::Disconnect => self.sh.out.push(Action::Disconnect),
            Teardown::Error => {
                self.sh.out.push(Action::SetError);
                self.sh.out.push(Action::Disconnect);
            }
        }
        self.sh.wake.closed = Some(reason);
    }

    /// Nothing queued goes out any more; what it would have used is given back.
    fn drop_queued(&mut self) {
        self.sh.timers.clear_all();
        self.sh.control.clear();
        let purged = self.sh.out.purge();
        self.sh.keys.clear();
        self.tx.on_over(&mut self.sh, &purged.jobs, &purged.writes);
        self.rx.on_over(&mut self.sh, &purged.reads, &purged.jobs);
    }

    /// The connection fails.
    pub(super) fn fail(&mut self, error: ConnectionError) {
        self.die(Some(error), Teardown::Error);
    }

    /// The transport is gone. If the peer has said goodbye and nothing of ours is missing, that
    /// is how a graceful close looks from the slower side (§2.3 step 6).
    pub(super) fn on_transport_end(&mut self, why: ConnectionError) {
        if let Stage::Aborting(_) = self.sh.life.stage {
            return self.finish_abort();
        }
        if self.sh.suspend.has_left() && !self.sh.life.is_recalling() {
            return;
        }
        self.end_gracefully_or(why);
    }

    /// The connection ends for want of a transport. If the peer has said goodbye and nothing of
    /// ours is missing, gracefully.
    pub(super) fn end_gracefully_or(&mut self, why: ConnectionError) {
        let life = &self.sh.life;
        let said = matches!(life.fin, Fin::Posted(_) | Fin::Done);
        let complete = said || (self.tx.is_drained() && life.is_up());
        let graceful = life.peer_fin && complete && !self.rx.advert_open();
        self.die((!graceful).then_some(why), Teardown::Error);
    }

    /// No more sends.
    pub(super) fn on_shutdown_send(&mut self, now: Instant) {
        if self.sh.life.fin == Fin::Open {
            self.sh.life.fin = Fin::Wanted;
            self.tx.shut(&mut self.sh, now);
        }
    }

    /// The application lets go.
    pub(super) fn on_close(&mut self, now: Instant, linger: Option<Duration>) {
        self.sh.life.app_closed = true;
        self.sh.life.rx_shut = true;
        self.rx.shut(&mut self.sh, now);
        if self.sh.life.is_over() {
            self.rx.let_go(&mut self.sh);
            return;
        }
        let unread = self.rx.has_unread(&self.sh);
        if unread || linger == Some(Duration::ZERO) || self.sh.life.is_handshake() {
            return self.on_abort(now, ConnectionError::LocallyAborted);
        }
        self.on_shutdown_send(now);
        match linger {
            Some(linger) => self.sh.timers.set(Timer::Linger, now + linger),
            None => self.set_close_timer(now),
        }
    }

    fn set_close_timer(&mut self, now: Instant) {
        let at = now + self.sh.config.close_wait;
        self.sh.timers.set(Timer::CloseWait, at);
    }

    /// Something moved: a close that has no other limit may go on.
    pub(super) fn touch(&mut self, now: Instant) {
        self.sh.liveness.heard(now);
        if self.sh.timers.is_set(Timer::CloseWait) {
            self.set_close_timer(now);
        }
    }

    /// This side ends the connection. AbortConn goes first if DisConn has gone: the peer would
    /// otherwise take what it sees for a graceful close (§2.4).
    pub(super) fn on_abort(&mut self, now: Instant, why: ConnectionError) {
        if self.sh.life.is_over() {
            return;
        }
        let said = matches!(self.sh.life.fin, Fin::Posted(_) | Fin::Done);
        if !said || !self.sh.life.is_open() || !self.sh.can_control() {
            return self.fail(why);
        }
        self.drop_unsent();
        self.sh.life.error = Some(why);
        self.sh.life.aborting = Some(why);
        let (_, work) = self.sh.send(Outgoing {
            signalled: true,
            ..Outgoing::control(Body::AbortConn)
        });
        self.sh.life.stage = Stage::Aborting(work);
        let at = now + self.sh.config.cancel_wait;
        self.sh.timers.set(Timer::CloseWait, at);
    }

    /// Answers owed are dropped; messages queued have their numbers and go.
    fn drop_unsent(&mut self) {
        self.sh.timers.clear_all();
        self.sh.control.clear();
        self.sh.wake.recv = true;
        self.sh.wake.send = true;
    }

    /// AbortConn has gone, or will not.
    fn finish_abort(&mut self) {
        let told = self.sh.life.error.is_none();
        let why = self.sh.life.aborting;
        self.die(why, Teardown::Error);
        if told {
            self.sh.life.error = None;
        }
    }

    /// DisConn goes behind everything this side has accepted (§2.3 steps 1 and 2).
    pub(super) fn flush_disconn(&mut self) {
        if self.sh.life.fin != Fin::Wanted {
            return;
        }
        let drained = self.tx.is_drained() || mutant!(DisConnBeforeData);
        let ready = drained && self.sh.keys.is_quiet();
        let last = mutant!(DisConnWithLastCredit) && self.sh.credits.available() == 1;
        let moving = self.sh.suspend.is_on();
        if ready && !moving && (self.sh.can_control() || last) {
            self.tx.drop_offers();
            let (_, work) = self.sh.send(Outgoing {
                signalled: true,
                ..Outgoing::control(Body::DisConn)
            });
            self.sh.life.fin = Fin::Posted(work);
        }
    }

    /// Whoever has both sent and received DisConn tears the connection down (§2.3 step 5).
    pub(super) fn finish_close(&mut self) {
        // Once both know of a move, both go.
        let stays = matches!(self.sh.suspend.step(), Step::Still | Step::Wanted(_));
        // After a move the peer's DisConn may be of another queue pair, and proves nothing of this one.
        let heard = !self.sh.opening.is_unheard() && !self.sh.credits.is_muted();
        let said = self.sh.life.fin == Fin::Done && self.sh.life.peer_fin && stays && heard;
        if said && self.sh.keys.is_quiet() && self.sh.sinks_out == 0 {
            self.die(None, Teardown::Disconnect);
        }
    }

    /// The peer's DisConn.
    pub(super) fn on_disconn(&mut self, buf: BufferId) -> Result<(), ConnectionError> {
        self.rx.on_control(&self.sh, buf);
        if self.rx.advert_open() {
            return Shared::misbehaved("§2.3 step 1: DisConn with a source advert open");
        }
        self.sh.life.peer_fin = true;
        self.rx.forget_sink(&mut self.sh);
        self.sh.wake.recv = true;
        Ok(())
    }

    /// The peer's AbortConn.
    pub(super) fn on_abort_conn(&mut self, buf: BufferId) -> Result<(), ConnectionError> {
        self.rx.on_control(&self.sh, buf);
        if !self.sh.life.peer_fin {
            return Shared::misbehaved("§2.4: AbortConn before DisConn");
        }
        Err(ConnectionError::Reset)
    }

    /// Says whether `work` was one of the two messages that end a connection.
    pub(super) fn on_close_completion(&mut self, work: WorkId, good: bool) -> bool {
        if self.sh.life.stage == Stage::Aborting(Some(work)) {
            self.finish_abort();
            return true;
        }
        if self.sh.life.fin == Fin::Posted(Some(work)) && good {
            self.sh.life.fin = Fin::Done;
            return true;
        }
        false
    }

    /// Deadlines.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        for timer in crate::timer::TIMERS {
            if !self.sh.timers.take_expired(timer, now) {
                continue;
            }
            match timer {
                Timer::TxStall => self.tx.on_stall(&mut self.sh, now),
                // The peer does not answer: the memory is got back by force (policy 4).
                Timer::Cancel | Timer::SinkCancel => self.fail(ConnectionError::Reset),
                Timer::RxAhead => self.rx.on_unread(),
                Timer::Linger => self.on_abort(
                    now,
                    ConnectionError::TimedOut("the linger time of the close ran out"),
                ),
                Timer::CloseWait => match self.sh.life.stage {
                    Stage::Aborting(_) => self.finish_abort(),
                    _ => {
                        self.on_abort(now, ConnectionError::TimedOut("the close made no progress"))
                    }
                },
                Timer::Coalesce => self.tx.hurry(&mut self.sh, now),
                Timer::Idle => {
                    let quiet = self.tx.is_quiet();
                    self.sh.on_idle(now, quiet);
                }
                // The old queue pair is not worth a look any more.
                Timer::Keepalive if self.sh.suspend.is_silent() => {}
                Timer::Keepalive => {
                    if let Err(error) = self.sh.on_keepalive(now) {
                        self.fail(error);
                    }
                }
                Timer::Opening if self.sh.suspend.is_silent() => {}
                Timer::Opening if self.sh.credits.is_muted() => self.fail(UNHEARD),
                Timer::Opening => self.sh.on_opening(now),
                // The visit itself is what was asked for.
                Timer::Scarce | Timer::Unread => {}
                Timer::Move => self.on_move_timeout(now),
                Timer::UserTimeout => self.on_abort(now, Shared::untaken()),
                Timer::Retry => {
                    self.tx.on_retry(&mut self.sh);
                    self.rx.on_retry();
                    self.sh.wake.recv = true;
                }
            }
        }
    }
}
