//! A connection on its way to another queue pair (§2.8).

use sdp_wire::{Body, Head, ServiceId};

use super::{End, Verdict, must};

/// What one side has said and heard of a move.
#[derive(Debug, Default)]
pub(super) struct Move {
    /// MSeq of its SuspComm.
    said: Option<u32>,
    /// The peer's SuspComm counts.
    heard: bool,
    said_ack: bool,
    heard_ack: bool,
    /// Of the SuspComm that counts.
    id: Option<ServiceId>,
}

impl Move {
    /// Which connection the next handshake resumes.
    pub(super) const fn id(&self) -> Option<ServiceId> {
        self.id
    }

    /// It has asked, and waits for the answer.
    pub(super) const fn asks(&self) -> bool {
        self.said.is_some() && !self.heard_ack
    }

    /// It is asked, and has not answered.
    pub(super) const fn is_asked(&self) -> bool {
        self.heard && !self.said_ack
    }

    /// It has answered.
    pub(super) const fn has_answered(&self) -> bool {
        self.said_ack
    }

    /// The queue pair has been left.
    pub(super) const fn has_left(&self) -> bool {
        self.said_ack || self.heard_ack
    }

    /// What a message that was taken changes.
    pub(super) fn hears(&mut self, head: &Head, accepts: bool) {
        match head.body {
            // Of two that cross, the one of the connecting side is disregarded.
            Body::SuspComm { service_id } if !(self.said.is_some() && accepts) => {
                self.said = None;
                self.heard = true;
                self.id = Some(service_id);
            }
            Body::SuspCommAck => self.heard_ack = true,
            _ => {}
        }
    }
}

impl End {
    /// Whether a message may be said in view of a move, and what it changes.
    pub(super) fn moves(&mut self, head: &Head) -> Verdict {
        let accepts = self.accepts;
        let moves = &mut self.moves;
        must(!moves.has_left(), "§2.8: a message after SuspCommAck")?;
        let begins = head.payload_len > 0
            || matches!(
                head.body,
                Body::SrcAvail(_)
                    | Body::SinkAvail(_)
                    | Body::ModeChange(_)
                    | Body::ChRcvBuf { .. }
                    | Body::DisConn
            );
        must(
            !begins || !(moves.asks() || moves.heard),
            "§2.8: something new after SuspComm",
        )?;
        let own = self.source.open.is_empty() && self.sink.offers.is_empty();
        match head.body {
            Body::SuspComm { service_id } => {
                let first = moves.said.is_none() && !moves.heard;
                // Who takes several completions at once may have decided on it before it heard of
                // the peer's: then the two cross, as they do in `hears`.
                if accepts || !moves.heard {
                    moves.said = Some(head.mseq);
                    moves.heard = false;
                    moves.id = Some(service_id);
                }
                must(first, "§2.8: a second SuspComm")?;
                must(own, "§2.8: SuspComm with something open")
            }
            Body::SuspCommAck => {
                moves.said_ack = true;
                must(moves.heard, "§2.8: SuspCommAck without SuspComm")?;
                let peers = self.sink.open.is_empty() && self.sink.reads.is_empty();
                must(own && peers, "§2.8: SuspCommAck with something open")
            }
            _ => Ok(()),
        }
    }

    /// This side as it begins on its next queue pair. `None`: it has not left this one.
    pub(super) fn next(&self) -> Option<Self> {
        let moves = &self.moves;
        moves.has_left().then(|| Self {
            // Who has asked is called.
            accepts: moves.heard_ack,
            said_fin: self.said_fin,
            heard_fin: self.heard_fin,
            sink: self.sink.next(),
            urgent: self.urgent.clone(),
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use sdp_wire::Flags;

    use super::*;

    fn head(body: Body) -> Head {
        Head {
            flags: Flags::empty(),
            bufs: 3,
            mseq: 1,
            mseq_ack: 0,
            body,
            payload_len: 0,
        }
    }

    /// A side that takes several completions at once was told of the peer's SuspComm before it
    /// posted its own, which it had decided on before: the connecting side's was taken to count.
    #[test]
    fn of_two_that_cross_the_accepting_sides_counts() {
        let (own, peers) = (ServiceId::from_port(1), ServiceId::from_port(2));
        let susp_comm = |service_id| head(Body::SuspComm { service_id });
        for (accepts, counts) in [(false, peers), (true, own)] {
            let mut end = End {
                accepts,
                ..End::default()
            };
            end.moves.hears(&susp_comm(peers), accepts);
            let verdict = end.moves(&susp_comm(own));
            assert_eq!(
                verdict,
                Err("§2.8: a second SuspComm"),
                "but it looked once"
            );
            assert_eq!(end.moves.id(), Some(counts));
            // The other way round nothing is broken, and the same one counts.
            let mut end = End {
                accepts,
                ..End::default()
            };
            assert_eq!(end.moves(&susp_comm(own)), Ok(()));
            end.moves.hears(&susp_comm(peers), accepts);
            assert_eq!(end.moves.id(), Some(counts));
        }
    }
}
