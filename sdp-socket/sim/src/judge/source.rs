//! A sending half: its adverts, and the offers in its hand (§4.4 to §4.10).

use std::collections::VecDeque;

use sdp_verbs::{RemoteAddr, Rkey};
use sdp_wire::{Body, Head, ModeChange, SinkAvail};

use super::{Memory, Mode, Verdict, must};

/// A SrcAvail that is not finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advert {
    /// Bytes that the peer has not taken.
    rest: u32,
}

/// What one side knows of the half that it sends on.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) mode: Mode,
    pub(super) open: VecDeque<Advert>,
    /// MSeq of a SrcAvailCancel that is not processed.
    pub(super) cancel: Option<u32>,
    pub(super) offers: VecDeque<Memory>,
    /// An offer has come since the half is Pipelined.
    pub(super) offered: bool,
    /// PotentialNonDiscards, and what it was when Pipelined mode was left.
    unmatched: u32,
    unmatched_then: u32,
    /// The peer has taken its offers back and waits for SinkCancelAck.
    owes_ack: bool,
    /// Bytes written since the last RdmaWrCompl.
    written: u64,
    /// Bytes of a refused advert that must go as Data.
    owed: u64,
}

impl Source {
    /// Whether a message may be said, and what it changes. `room`: adverts that the peer takes.
    pub(super) fn says(&mut self, head: &Head, room: usize) -> Verdict {
        if head.payload_len > 0 {
            must(
                self.open.is_empty(),
                "§4.4 row 3: payload while a source advert is open",
            )?;
        }
        match head.body {
            Body::Data if head.payload_len > 0 => {
                self.owed = self.owed.saturating_sub(u64::from(head.payload_len));
                self.pays()
            }
            Body::SinkAvail(_) if head.payload_len > 0 => self.pays(),
            Body::SrcAvail(advert) => {
                self.advertises(advert.len, head.payload_len, room)?;
                if head.payload_len > 0 {
                    self.pays()?;
                }
                let rest = advert.len - head.payload_len;
                self.open.push_back(Advert { rest });
                Ok(())
            }
            Body::SrcAvailCancel => {
                must(
                    !self.open.is_empty() && self.cancel.is_none(),
                    "§4.8 step 1: SrcAvailCancel with nothing open, or a second one",
                )?;
                self.cancel = Some(head.mseq);
                Ok(())
            }
            Body::RdmaWrCompl { len } => {
                let written = std::mem::take(&mut self.written);
                must(
                    self.offers.pop_front().is_some(),
                    "§4.5 row 4: RdmaWrCompl without an offer",
                )?;
                must(
                    written == u64::from(len),
                    "§4.5 row 4: RdmaWrCompl of other bytes than were written",
                )
            }
            Body::SinkCancelAck => must(
                std::mem::take(&mut self.owes_ack),
                "§4.9 step 2: SinkCancelAck that nobody waits for",
            ),
            Body::ModeChange(change) => self.changes(change),
            Body::DisConn => {
                self.offers.clear();
                must(
                    self.open.is_empty() && self.owed == 0,
                    "§2.3 step 1: DisConn before everything accepted is out",
                )
            }
            _ => Ok(()),
        }
    }

    fn advertises(&self, len: u32, inline: u32, room: usize) -> Verdict {
        must(
            self.cancel.is_none(),
            "§4.8 step 1: SrcAvail before the cancel was processed",
        )?;
        must(
            self.offers.is_empty(),
            "§4.7: SrcAvail with an offer in hand",
        )?;
        must(
            self.owed == 0,
            "§4.4 row 10: SrcAvail before the refused bytes went as Data",
        )?;
        must(
            self.open.len() < room.max(1),
            "§4.2: more adverts than MaxAdverts",
        )?;
        match self.mode {
            Mode::Buffered => Err("§4.2: SrcAvail in Buffered mode"),
            Mode::Combined => must(
                self.open.is_empty() && 0 < inline && inline < len,
                "§4.2: a second SrcAvail in Combined mode, or one with no payload or nothing else",
            ),
            Mode::Pipelined => must(inline == 0, "§4.2: SrcAvail with payload in Pipelined mode"),
        }
    }

    /// A message with payload: it uses up an offer, or is one that did not (§4.6).
    fn pays(&mut self) -> Verdict {
        if self.offers.pop_front().is_none() {
            self.unmatched = self.unmatched.wrapping_add(1);
        }
        must(
            !self.owes_ack,
            "§4.9 step 2: payload before the SinkCancelAck that is owed",
        )
    }

    fn changes(&mut self, change: ModeChange) -> Verdict {
        let (from, to) = match change {
            ModeChange::RecvBuffered => (Mode::Combined, Mode::Buffered),
            ModeChange::RecvCombined => (Mode::Pipelined, Mode::Combined),
            ModeChange::RecvPipelined => (Mode::Combined, Mode::Pipelined),
            // It is about the other half.
            ModeChange::SendCombined => return Ok(()),
        };
        let was = std::mem::replace(&mut self.mode, to);
        must(was == from, "§4.10: a change of mode that is not allowed")?;
        if to == Mode::Combined {
            self.offers.clear();
            self.offered = false;
            self.unmatched_then = self.unmatched;
            // Adverts that stay open would be taken for those of Combined mode.
            return must(
                self.open.len() <= 1,
                "§4.10: Pipelined left with several adverts open",
            );
        }
        let closed = self.open.is_empty() || to == Mode::Pipelined;
        must(closed, "§4.10: Buffered with an advert open")
    }

    /// An RDMA WRITE is posted.
    pub(super) fn on_write(&mut self, rkey: Rkey, remote: RemoteAddr, len: usize) -> Verdict {
        self.written += len as u64;
        let target = self.offers.front();
        must(
            target.is_some_and(|offer| offer.holds(rkey, remote, len)),
            "§4.5 row 3: RDMA WRITE beside the oldest offer",
        )
    }

    /// What a message that was taken changes.
    pub(super) fn hears(&mut self, head: &Head, said_fin: bool) {
        match head.body {
            Body::RdmaRdCompl { len } => {
                if let Some(front) = self.open.front_mut() {
                    front.rest = front.rest.saturating_sub(len);
                    if front.rest == 0 {
                        self.open.pop_front();
                    }
                }
            }
            Body::SendSm => {
                let answer = self.cancel.is_some_and(|cancel| head.mseq_ack >= cancel);
                if answer {
                    self.open.clear();
                } else if let Some(front) = self.open.pop_front() {
                    self.owed += u64::from(front.rest);
                }
            }
            Body::SinkAvail(offer) => self.is_offered(offer, said_fin),
            Body::SinkAvailCancel if !self.offers.is_empty() => {
                self.offers.clear();
                self.owes_ack = true;
            }
            _ => {}
        }
        if self.open.is_empty() {
            self.cancel = None;
        }
    }

    fn is_offered(&mut self, offer: SinkAvail, said_fin: bool) {
        if self.mode != Mode::Pipelined {
            if offer.non_discards != self.unmatched_then {
                self.unmatched_then = self.unmatched_then.wrapping_sub(1);
                self.unmatched = self.unmatched.wrapping_sub(1);
            }
        } else if offer.non_discards != self.unmatched {
            self.unmatched = self.unmatched.wrapping_sub(1);
        } else if !said_fin {
            self.offers.push_back(Memory {
                rkey: offer.rkey.0,
                addr: offer.addr.0,
                len: offer.len,
            });
            self.offered = true;
            // Write beats read (§4.7).
            self.open.clear();
        }
    }
}
