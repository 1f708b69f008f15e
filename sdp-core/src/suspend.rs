//! Moving the connection to another queue pair: SuspComm and SuspCommAck (clause §2.8).
//!
//! Who wants to move finishes what it has open, sends SuspComm and nothing of its own any more. The
//! peer does the same and says so by SuspCommAck, its last message. Then nothing is under way in
//! either direction, so what goes with the connection is the stream alone: bytes not yet sent, bytes
//! not yet read, urgent places, and which halves have ended. Everything else begins anew with the
//! Hello of the new queue pair, by which the peer calls back at the service ID of SuspComm.

use sdp_wire::{Body, ServiceId};

use crate::connection::Shared;
use crate::credits::distance;
use crate::error::ConnectionError;
use crate::ids::WorkId;
use crate::outbox::{HoldEnd, Outgoing};

/// How far the move is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// There is none.
    Still,
    /// This side wants to move: what it has open is being finished.
    Wanted(ServiceId),
    /// SuspComm has gone, with this MSeq.
    Asked { id: ServiceId, mseq: u32 },
    /// The peer has answered: what it sent is taken out of the receive buffers.
    Answered(ServiceId),
    /// The peer wants to move: what this side has open is being finished.
    Answering(ServiceId),
    /// SuspCommAck has gone, and nothing may follow it.
    Acked { id: ServiceId, work: WorkId },
    /// The old queue pair is done with.
    Left(Role),
}

/// Who calls whom on the new queue pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The peer calls this side, and names this.
    Called(ServiceId),
    /// This side calls the peer there.
    Caller(ServiceId),
}

/// The move to another queue pair.
#[derive(Debug)]
pub(crate) struct Suspend {
    step: Step,
    /// A move of this side's that had to make way for one of the peer's: it comes after that.
    postponed: Option<ServiceId>,
    /// Moves of this side's that are complete.
    done: u64,
}

impl Suspend {
    pub(crate) const fn new() -> Self {
        Self {
            step: Step::Still,
            postponed: None,
            done: 0,
        }
    }

    pub(crate) const fn step(&self) -> Step {
        self.step
    }

    pub(crate) fn set(&mut self, step: Step) {
        self.step = step;
    }

    /// Nothing new is begun.
    pub(crate) fn is_on(&self) -> bool {
        self.step != Step::Still
    }

    /// Nothing at all is sent.
    pub(crate) const fn is_silent(&self) -> bool {
        matches!(
            self.step,
            Step::Answered(_) | Step::Acked { .. } | Step::Left(_)
        )
    }

    /// What becomes of the old queue pair does not matter any more.
    pub(crate) const fn has_left(&self) -> bool {
        matches!(self.step, Step::Answered(_) | Step::Left(_))
    }

    /// The peer's last byte on this queue pair has come: receive buffers are emptied.
    pub(crate) const fn empties_buffers(&self) -> bool {
        matches!(self.step, Step::Answered(_) | Step::Answering(_))
    }

    /// The peer is to answer, for which it needs a credit.
    pub(crate) const fn is_asking(&self) -> bool {
        matches!(self.step, Step::Asked { .. })
    }

    /// A move of this side's is under way, or is to come.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.postponed.is_some()
            || matches!(
                self.step,
                Step::Wanted(_)
                    | Step::Asked { .. }
                    | Step::Answered(_)
                    | Step::Left(Role::Called(_))
            )
    }

    /// Which connection this side's Hello resumes.
    pub(crate) const fn calls(&self) -> Option<ServiceId> {
        match self.step {
            Step::Left(Role::Caller(id)) => Some(id),
            _ => None,
        }
    }

    /// The peer may not begin anything either: it has asked for the move.
    pub(crate) const fn is_asked(&self) -> bool {
        matches!(self.step, Step::Answering(_) | Step::Acked { .. })
    }

    pub(crate) const fn done(&self) -> u64 {
        self.done
    }

    /// A move of this side's is to come when the one of the peer's is over.
    pub(crate) fn postpone(&mut self, id: ServiceId) {
        self.postponed = Some(id);
    }

    /// What this side wants is not to be.
    pub(crate) fn give_up(&mut self) {
        self.postponed = None;
        if let Step::Wanted(_) = self.step {
            self.step = Step::Still;
        }
    }

    /// The connection is on its new queue pair. Gives what is to be asked for now.
    pub(crate) fn on_resumed(&mut self) -> Option<ServiceId> {
        self.done += u64::from(matches!(self.step, Step::Left(Role::Called(_))));
        self.step = Step::Still;
        self.postponed.take()
    }

    /// The peer's SuspComm, which has seen our messages up to `mseq_ack`. `accepting`: this side
    /// accepted the connection, and of two requests that cross its own counts. Says whether the
    /// peer's does.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_susp_comm(
        &mut self,
        id: ServiceId,
        mseq_ack: u32,
        accepting: bool,
    ) -> Result<bool, ConnectionError> {
        let misbehaved = |rule| Err(ConnectionError::PeerMisbehaved(rule));
        if id.resume_port().is_none() {
            return misbehaved("§2.8: SuspComm without a port");
        }
        match self.step {
            Step::Still => {}
            Step::Wanted(own) => self.postponed = Some(own),
            Step::Asked { mseq, .. } if distance(mseq_ack, mseq) >= 0 => {
                return misbehaved("§2.8: SuspComm instead of an answer to SuspComm");
            }
            Step::Asked { .. } if accepting => return Ok(false),
            Step::Asked { id, .. } => self.postponed = Some(id),
            Step::Answering(_) | Step::Acked { .. } => {
                return misbehaved("§2.8: a second SuspComm before the first was answered");
            }
            // It crosses nothing, for the peer has answered.
            Step::Answered(_) | Step::Left(_) => {
                return misbehaved("§2.8: a message after SuspCommAck");
            }
        }
        self.step = Step::Answering(id);
        Ok(true)
    }

    /// The peer's answer.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_susp_comm_ack(&mut self) -> Result<(), ConnectionError> {
        let Step::Asked { id, .. } = self.step else {
            return Err(ConnectionError::PeerMisbehaved(
                "§2.8: SuspCommAck without SuspComm",
            ));
        };
        self.step = Step::Answered(id);
        Ok(())
    }
}

impl Shared {
    /// SuspComm is to go by the last credit, and only can if it brings the peer one (§3.2).
    pub(crate) const fn asks_by_last_credit(&self) -> bool {
        matches!(self.suspend.step, Step::Wanted(_)) && self.credits.available() == 1
    }

    /// Sends SuspComm or SuspCommAck, for which this side is ready.
    pub(crate) fn flush_suspend(&mut self) {
        match self.suspend.step {
            Step::Wanted(id) if self.can_control() => {
                let body = Body::SuspComm { service_id: id };
                // It must not seem to know of one of the peer's that comes before it leaves.
                self.credits.hold_refusal();
                let (mseq, _) = self.send(Outgoing {
                    hold: HoldEnd::After,
                    ..Outgoing::control(body)
                });
                self.suspend.step = Step::Asked { id, mseq };
            }
            Step::Answering(id) if self.can_control() => {
                let (_, work) = self.send(Outgoing {
                    signalled: true,
                    ..Outgoing::control(Body::SuspCommAck)
                });
                if let Some(work) = work {
                    self.suspend.step = Step::Acked { id, work };
                }
            }
            _ => {}
        }
    }
}
