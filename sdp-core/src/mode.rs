//! The flow mode of each half (clauses §4.2 and §4.10).

use sdp_wire::ModeChange;

use crate::error::ConnectionError;

/// How one half of the connection moves its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlowMode {
    /// Data only.
    Buffered,
    /// Data, or one source advert at a time.
    Combined,
}

/// The modes of both halves.
#[derive(Debug)]
pub(crate) struct Modes {
    /// Of the half this side sends on. This side, as the source, is its master in Combined and
    /// never leaves it.
    pub(crate) tx: FlowMode,
    /// Of the half this side receives on.
    pub(crate) rx: FlowMode,
}

impl Modes {
    pub(crate) const fn new() -> Self {
        Self {
            tx: FlowMode::Combined,
            rx: FlowMode::Combined,
        }
    }

    /// The peer's ModeChange. `advert_open`: one of its source adverts is not finished.
    ///
    /// # Errors
    /// The rule it breaks, or what this side does not speak.
    pub(crate) fn on_change(
        &mut self,
        change: ModeChange,
        advert_open: bool,
    ) -> Result<(), ConnectionError> {
        match (change, self.rx) {
            (ModeChange::RecvBuffered, FlowMode::Combined) if advert_open => {
                Err(ConnectionError::PeerMisbehaved(
                    "§4.10: change to Buffered with a source advert open",
                ))
            }
            (ModeChange::RecvBuffered, FlowMode::Combined) => {
                self.rx = FlowMode::Buffered;
                Ok(())
            }
            (ModeChange::RecvPipelined, FlowMode::Combined) => Err(
                ConnectionError::PeerIncompatible("§4.10: Pipelined mode is not spoken here"),
            ),
            (ModeChange::RecvPipelined, FlowMode::Buffered) => Err(
                ConnectionError::PeerMisbehaved("§4.10: change from Buffered to Pipelined"),
            ),
            (ModeChange::RecvBuffered, FlowMode::Buffered) => Err(ConnectionError::PeerMisbehaved(
                "§4.10: change to the current mode (Buffered)",
            )),
            // To Combined the source may only go back from Pipelined, which was never entered.
            (ModeChange::RecvCombined, _) => Err(ConnectionError::PeerMisbehaved(
                "§4.10: change to Combined by the source, not from Pipelined",
            )),
            (ModeChange::SendCombined, _) => match self.tx {
                FlowMode::Buffered => {
                    self.tx = FlowMode::Combined;
                    Ok(())
                }
                FlowMode::Combined => Err(ConnectionError::PeerMisbehaved(
                    "§4.10: change to the current mode (Combined)",
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every change from every mode, with and without an open advert.
    #[test]
    fn the_table_of_mode_changes() {
        use ConnectionError::{PeerIncompatible as I, PeerMisbehaved as M};
        let mut rows = alloc::vec::Vec::new();
        for rx in [FlowMode::Combined, FlowMode::Buffered] {
            for change in ModeChange::ALL {
                for open in [false, true] {
                    let mut modes = Modes::new();
                    modes.rx = rx;
                    let verdict = match modes.on_change(change, open) {
                        Ok(()) => 'y',
                        Err(M(_)) => 'm',
                        Err(I(_)) => 'i',
                        Err(_) => '?',
                    };
                    rows.push(verdict);
                }
            }
        }
        let table: alloc::string::String = rows.into_iter().collect();
        // Per change (to Buffered, to Combined, to Pipelined, sender to Combined): closed, open.
        assert_eq!(table, "ymmmiimm mmmmmmmm".replace(' ', ""));
    }
}
