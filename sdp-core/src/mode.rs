//! The flow mode of each half (clauses §4.2 and §4.10).
//!
//! The sending half's master is this side in Combined and Pipelined: it goes Pipelined to have
//! several adverts open, and back when the peer refuses one. Buffered is never entered by itself:
//! it would gain nothing here, and only the peer could end it. The receiving half's master is the
//! peer, except in Buffered: then this side calls it back when a large receive waits.

use sdp_wire::{Body, ModeChange};

use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::mark::Mark;
use crate::outbox::Outgoing;

/// How one half of the connection moves its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlowMode {
    /// Data only.
    Buffered,
    /// Data, or one source advert at a time.
    Combined,
    /// Data, or several adverts, of the source and of the sink.
    Pipelined,
}

/// The modes of both halves.
#[derive(Debug)]
pub(crate) struct Modes {
    /// Of the half this side sends on.
    pub(crate) tx: FlowMode,
    /// Of the half this side receives on.
    pub(crate) rx: FlowMode,
    /// The peer asked for Pipelined on the half this side sends on (REQ_PIPE).
    pub(crate) pipe_asked: bool,
    /// The peer refused an advert, which suggests Combined.
    pub(crate) pipe_declined: bool,
    /// The half this side sends on was Pipelined at some time.
    pub(crate) was_pipelined: bool,
    /// MSeq of the change from Pipelined to Combined; until it is confirmed no other may follow.
    left_pipelined: Option<u32>,
}

impl Modes {
    pub(crate) const fn new() -> Self {
        Self {
            tx: FlowMode::Combined,
            rx: FlowMode::Combined,
            pipe_asked: false,
            pipe_declined: false,
            was_pipelined: false,
            left_pipelined: None,
        }
    }

    /// The peer has hinted at another mode for the half this side sends on.
    pub(crate) const fn has_hints(&self) -> bool {
        self.pipe_asked || self.pipe_declined
    }

    /// The peer's ModeChange. `advert_open`: one of its source adverts is not finished.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_change(
        &mut self,
        change: ModeChange,
        advert_open: bool,
    ) -> Result<(), ConnectionError> {
        let misbehaved = |rule| Err(ConnectionError::PeerMisbehaved(rule));
        match (change, self.rx) {
            (ModeChange::RecvBuffered, FlowMode::Combined) if advert_open => {
                misbehaved("§4.10: change to Buffered with a source advert open")
            }
            (ModeChange::RecvBuffered, FlowMode::Combined) => {
                self.rx = FlowMode::Buffered;
                Ok(())
            }
            (ModeChange::RecvPipelined, FlowMode::Combined) => {
                self.rx = FlowMode::Pipelined;
                Ok(())
            }
            (ModeChange::RecvCombined, FlowMode::Pipelined) => {
                self.rx = FlowMode::Combined;
                Ok(())
            }
            (ModeChange::RecvPipelined, FlowMode::Buffered) => {
                misbehaved("§4.10: change from Buffered to Pipelined")
            }
            (ModeChange::RecvBuffered, FlowMode::Pipelined) => {
                misbehaved("§4.10: change from Pipelined to Buffered")
            }
            (ModeChange::RecvBuffered, FlowMode::Buffered) => {
                misbehaved("§4.10: change to the current mode (Buffered)")
            }
            (ModeChange::RecvPipelined, FlowMode::Pipelined) => {
                misbehaved("§4.10: change to the current mode (Pipelined)")
            }
            (ModeChange::RecvCombined, _) => {
                misbehaved("§4.10: change to Combined by the source, not from Pipelined")
            }
            // This side never enters Buffered, so there is nothing to be called back from.
            (ModeChange::SendCombined, _) => misbehaved(
                "§4.10: change of the sending half's mode to Combined, not from Buffered",
            ),
        }
    }
}

impl Shared {
    /// The half this side sends on is Pipelined, or becomes it now. Towards a peer that takes one
    /// advert only it never does.
    pub(crate) fn enter_pipelined(&mut self) -> bool {
        if self.modes.tx == FlowMode::Pipelined {
            return true;
        }
        let several = self.peer.is_some_and(|peer| peer.adverts_max >= 2);
        if let Some(mseq) = self.modes.left_pipelined
            && self.credits.is_acked(mseq)
        {
            self.modes.left_pipelined = None;
        }
        let barred = self.modes.left_pipelined.is_some() || self.suspend.is_on();
        if !several || barred || !self.can_control() {
            return false;
        }
        self.send(Outgoing::control(Body::ModeChange(
            ModeChange::RecvPipelined,
        )));
        self.modes.tx = FlowMode::Pipelined;
        self.modes.was_pipelined = true;
        self.modes.pipe_asked = false;
        true
    }

    /// A large receive waits on a Buffered half, of which this side is the master: its sender may
    /// advertise again.
    pub(crate) fn call_back(&mut self) {
        let going = self.life.is_open() && !self.life.peer_fin && !self.suspend.is_on();
        if going && self.can_control() {
            self.send(Outgoing::control(Body::ModeChange(
                ModeChange::SendCombined,
            )));
            self.modes.rx = FlowMode::Combined;
        }
    }

    /// A SinkAvail that comes now has crossed the change from Pipelined to Combined.
    pub(crate) fn crosses_leaving(&self) -> bool {
        self.modes
            .left_pipelined
            .is_some_and(|mseq| !self.credits.is_acked(mseq))
    }

    /// Follows what the peer has suggested. Called while no advert of either kind is open on the
    /// half this side sends on, so that nothing has to be discarded. Says whether Pipelined mode
    /// was left.
    pub(crate) fn follow_hints(&mut self) -> bool {
        let leaves = self.modes.pipe_declined && self.modes.tx == FlowMode::Pipelined;
        if leaves {
            if !self.can_control() {
                return false;
            }
            let change = Body::ModeChange(ModeChange::RecvCombined);
            let (mseq, _) = self.send(Outgoing::control(change));
            self.modes.tx = FlowMode::Combined;
            self.modes.left_pipelined = Some(mseq);
            self.reached(Mark::LeftPipelined);
        }
        self.modes.pipe_declined = false;
        if self.modes.pipe_asked {
            self.enter_pipelined();
        }
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every change from every mode, with and without an open advert.
    #[test]
    fn the_table_of_mode_changes() {
        let mut rows = alloc::vec::Vec::new();
        for rx in [FlowMode::Combined, FlowMode::Buffered, FlowMode::Pipelined] {
            for change in ModeChange::ALL {
                for open in [false, true] {
                    let mut modes = Modes::new();
                    modes.rx = rx;
                    let good = modes.on_change(change, open).is_ok();
                    rows.push(if good { 'y' } else { 'm' });
                }
            }
        }
        let table: alloc::string::String = rows.into_iter().collect();
        // Per change (to Buffered, to Combined, to Pipelined, sender to Combined): closed, open.
        assert_eq!(table, "ymmmyymm mmmmmmmm mmyymmmm".replace(' ', ""));
    }
}
