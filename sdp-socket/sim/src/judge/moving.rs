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
                let first = moves.said.replace(head.mseq).is_none() && !moves.heard;
                moves.id = Some(service_id);
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
