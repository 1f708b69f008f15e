//! A connection on its way to another queue pair (clause §2.8): what is finished on the old one, and
//! how it goes on on the new one. See [`crate::suspend`].

use core::net::IpAddr;

use sdp_wire::ServiceId;

use crate::action::Action;
use crate::credits::Credits;
use crate::error::{CallError, ConnectionError};
use crate::ids::WorkId;
use crate::keepalive::Liveness;
use crate::mark::Mark;
use crate::mode::Modes;
use crate::opening::Opening;
use crate::resize::Resize;
use crate::suspend::{Role, Step};
use crate::time::Instant;
use crate::timer::Timer;

use super::handshake::Refusal;
use super::state::{Fin, Stage};
use super::{Connection, Shared};

/// What a move of the peer's is called when it takes too long.
const TOO_LONG: ConnectionError =
    ConnectionError::TimedOut("the move to another queue pair was not completed");

impl Connection {
    /// This side wants the connection moved.
    pub(super) fn on_suspend(&mut self, now: Instant, id: ServiceId) -> Result<(), CallError> {
        if self.sh.life.is_over() || self.sh.life.is_handshake() {
            return Err(CallError::NotConnected);
        }
        if self.sh.suspend.is_wanted() {
            return Err(CallError::WouldBlock);
        }
        if self.sh.suspend.is_on() {
            self.sh.suspend.postpone(id);
        } else {
            self.sh.suspend.set(Step::Wanted(id));
            self.quiesce(now);
        }
        Ok(())
    }

    /// What is open is taken back, and nothing new is begun.
    fn quiesce(&mut self, now: Instant) {
        self.tx.quiesce(&mut self.sh, now);
        self.rx.cancel_sink(&mut self.sh, now);
        let at = now + self.sh.config.move_wait;
        self.sh.timers.set(Timer::Move, at);
    }

    /// The peer's SuspComm.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(super) fn on_susp_comm(
        &mut self,
        now: Instant,
        id: ServiceId,
        mseq_ack: u32,
    ) -> Result<(), ConnectionError> {
        let accepting = self.sh.resize.is_accepting();
        if self.sh.suspend.on_susp_comm(id, mseq_ack, accepting)? {
            if self.rx.advert_open() {
                return Shared::misbehaved("§2.8: SuspComm with a source advert open");
            }
            self.quiesce(now);
        }
        Ok(())
    }

    /// The peer's SuspCommAck.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(super) fn on_susp_comm_ack(&mut self) -> Result<(), ConnectionError> {
        self.sh.suspend.on_susp_comm_ack()?;
        if self.rx.advert_open() || self.rx.is_reading() {
            return Shared::misbehaved("§2.8: SuspCommAck with a source advert open");
        }
        Ok(())
    }

    /// Goes on with a move, as far as what is under way allows.
    pub(super) fn flush_move(&mut self) {
        let sh = &self.sh;
        if !sh.suspend.is_on() {
            return;
        }
        let still = self.tx.is_still() && sh.keys.is_quiet() && sh.sinks_out == 0;
        match sh.suspend.step() {
            Step::Wanted(_) if still => self.sh.flush_suspend(),
            Step::Answering(_) if still && !sh.control.sink_cancel_ack && self.rx.is_empty() => {
                self.sh.flush_suspend();
            }
            Step::Answered(id) if self.rx.is_empty() => self.leave(Role::Called(id)),
            _ => {}
        }
    }

    /// The peer has everything, SuspCommAck included. Says whether `work` was that.
    pub(super) fn on_move_completion(&mut self, work: WorkId, good: bool) -> bool {
        let open = self.sh.life.stage == Stage::Open;
        match self.sh.suspend.step() {
            Step::Acked { id, work: ack } if ack == work && good && open => {
                self.leave(Role::Caller(id));
                true
            }
            _ => false,
        }
    }

    fn leave(&mut self, role: Role) {
        let sh = &mut self.sh;
        debug_assert!(sh.sources_out == 0 && sh.sinks_out == 0 && sh.keys.is_quiet());
        sh.suspend.set(Step::Left(role));
        sh.life.stage = Stage::Moving;
        sh.life.fin = match sh.life.fin {
            // It came before the last message, which has arrived.
            Fin::Posted(_) => Fin::Done,
            fin => fin,
        };
        sh.control.clear();
        sh.timers.clear(Timer::Idle);
        sh.timers.clear(Timer::Keepalive);
        sh.timers.clear(Timer::Opening);
        sh.out.leave();
        sh.out.push(Action::Leave {
            call: match role {
                Role::Caller(id) => Some(id),
                Role::Called(_) => None,
            },
        });
    }

    /// Everything that is of the queue pair, and not of the stream, begins anew.
    fn begin_anew(&mut self, accepting: bool) {
        let sh = &mut self.sh;
        let (initial, max) = (sh.config.recv_buffers_initial, sh.config.recv_buffers_max);
        sh.credits = Credits::new(u32::from(initial));
        sh.modes = Modes::new();
        sh.resize = Resize::new(
            accepting,
            sh.config.recv_buffer_len_initial,
            sh.config.recv_buffer_len,
        );
        sh.liveness = Liveness::default();
        sh.opening = Opening::default();
        sh.out.begin_anew();
        self.rx.begin_anew(initial, max);
        self.tx.begin_anew();
    }

    /// The new queue pair is there, and this side calls.
    pub(super) fn on_calling(&mut self, port: u16, src: Option<IpAddr>, dst: Option<IpAddr>) {
        let (Stage::Moving, Step::Left(Role::Caller(id))) =
            (self.sh.life.stage, self.sh.suspend.step())
        else {
            return;
        };
        self.begin_anew(false);
        self.sh.life.stage = Stage::Recalling;
        self.say_hello(port, src, dst, Some(id));
    }

    /// Somebody calls at the service ID that this side has named.
    pub(super) fn on_called(&mut self, hello: &[u8]) -> Result<(), Refusal> {
        let refuse = |why| Err(Refusal::of(ConnectionError::PeerIncompatible(why)));
        let (Stage::Moving, Step::Left(Role::Called(id))) =
            (self.sh.life.stage, self.sh.suspend.step())
        else {
            return refuse("§2.8: nothing is to be resumed here now");
        };
        if sdp_wire::resuming(hello) != Some(id) {
            return refuse("§2.8: Hello does not name the connection that is to be resumed");
        }
        let hello = self.decode_hello(hello)?;
        if self
            .sh
            .peer
            .is_some_and(|peer| peer.version != hello.version)
        {
            return refuse("§2.8: Hello is of another version than the first");
        }
        self.begin_anew(true);
        self.sh.life.stage = Stage::Reaccepting;
        self.answer_hello(&hello, Some(id));
        Ok(())
    }

    /// Both sides may send on the new queue pair.
    pub(super) fn on_resumed(&mut self, now: Instant) {
        self.sh.timers.clear(Timer::Move);
        self.sh.wake.send = true;
        self.sh.wake.recv = true;
        if matches!(self.sh.suspend.step(), Step::Left(Role::Called(_))) {
            self.sh.reached(Mark::Moved);
        }
        // Should the confirmation be lost, the first message is one; there may be no other soon.
        let calls = self.sh.suspend.calls().is_some();
        if let Some(id) = self.sh.suspend.on_resumed() {
            self.sh.reached(Mark::MovesCrossed);
            self.sh.suspend.set(Step::Wanted(id));
            self.quiesce(now);
        }
        if calls && !self.sh.config.caller_first {
            self.sh.send_update(true);
        }
    }

    /// The move has taken too long. While the peer does not know of it nothing is lost.
    pub(super) fn on_move_timeout(&mut self, now: Instant) {
        if let Step::Wanted(_) = self.sh.suspend.step() {
            self.sh.suspend.give_up();
            self.sh.wake.send = true;
            self.sh.wake.recv = true;
        } else {
            self.on_abort(now, TOO_LONG);
        }
    }
}
