//! A receiving half: the peer's adverts, and the offers made to it (§4.4 to §4.9).

use std::collections::VecDeque;

use sdp_verbs::{RemoteAddr, Rkey};
use sdp_wire::{Body, Head, ModeChange};

use super::{Memory, Mode, Verdict, must};

/// A SrcAvail of the peer's that is not finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advert {
    memory: Memory,
    inline: u32,
    /// Bytes read, and bytes reported.
    read: u32,
    reported: u32,
    /// Bytes behind the inline ones up to the last one that was asked for.
    asked: u32,
}

impl Advert {
    const fn rest(&self) -> u32 {
        self.memory.len - self.inline - self.reported
    }

    /// Notes a READ of `len` bytes at `remote`.
    fn ask(&mut self, remote: RemoteAddr, len: u32) {
        let end = remote.0 + u64::from(len) - self.memory.addr;
        let end = u32::try_from(end).unwrap_or(u32::MAX);
        self.asked = self.asked.max(end.saturating_sub(self.inline));
    }
}

/// What one side knows of the half that it receives on.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) mode: Mode,
    pub(super) open: VecDeque<Advert>,
    /// MSeq of the peer's SrcAvailCancel that is not answered.
    pub(super) cancelled: Option<u32>,
    /// READs under way: keys, addresses, lengths.
    pub(super) reads: VecDeque<(Rkey, RemoteAddr, u32)>,
    pub(super) offers: VecDeque<Memory>,
    cancelling: bool,
    non_discards: u32,
    /// Bytes of a refused advert that come as Data.
    owed: u64,
    /// SO_RCVBUF.
    pub(super) room: u64,
    /// Bytes that have come, those of adverts that are still open apart.
    settled: u64,
    /// Bytes that programs have received, and the room of the call in progress.
    pub(super) received: u64,
    pub(super) receiving: u64,
}

impl Sink {
    /// Whether a message may be said, and what it changes. `Ok(true)`: it answers a cancel.
    pub(super) fn says(&mut self, head: &Head, recv_len: usize) -> Result<bool, &'static str> {
        match head.body {
            Body::RdmaRdCompl { len } => self.reports(len),
            Body::SendSm => self.gives_back(head.mseq_ack),
            Body::SinkAvail(offer) => {
                must(
                    self.mode == Mode::Pipelined,
                    "§4.2: SinkAvail though the half is not Pipelined",
                )?;
                must(
                    self.open.is_empty(),
                    "§4.7: SinkAvail with a source advert open",
                )?;
                must(
                    offer.len as usize > recv_len,
                    "§4.5 row 1: SinkAvail of no more than a receive",
                )?;
                must(
                    offer.non_discards == self.non_discards,
                    "§4.6: NonDiscards is not what came without an offer",
                )?;
                must(
                    !self.cancelling,
                    "§4.9 step 1: SinkAvail before the cancel was processed",
                )?;
                self.offers.push_back(Memory {
                    rkey: offer.rkey.0,
                    addr: offer.addr.0,
                    len: offer.len,
                });
                Ok(false)
            }
            Body::SinkAvailCancel => {
                let first = !std::mem::replace(&mut self.cancelling, true);
                must(
                    first && !self.offers.is_empty(),
                    "§4.9 step 1: SinkAvailCancel with no offer out, or a second one",
                )?;
                Ok(false)
            }
            Body::ModeChange(ModeChange::SendCombined) => {
                let was = std::mem::replace(&mut self.mode, Mode::Combined);
                must(
                    was == Mode::Buffered,
                    "§4.10: called back from a mode that is not Buffered",
                )?;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn reports(&mut self, len: u32) -> Result<bool, &'static str> {
        let Some(front) = self.open.front_mut() else {
            return Err("§4.4 row 7: RdmaRdCompl without an open source advert");
        };
        front.reported += len;
        must(
            front.reported <= front.read,
            "§4.4 row 6: RdmaRdCompl of bytes that were not read",
        )?;
        must(
            self.owed == 0,
            "§4.4 row 11: RdmaRdCompl before the refused bytes came",
        )?;
        if front.rest() > 0 {
            return Ok(false);
        }
        self.settled += u64::from(front.reported);
        self.open.pop_front();
        Ok(self.open.is_empty() && self.cancelled.take().is_some())
    }

    fn gives_back(&mut self, mseq_ack: u32) -> Result<bool, &'static str> {
        let Some(front) = self.open.pop_front() else {
            return Err("§4.4 row 9: SendSm without an open source advert");
        };
        self.settled += u64::from(front.reported);
        must(
            self.reads.is_empty(),
            "§4.8 step 3: SendSm before the READs under way have ended",
        )?;
        if let Some(cancel) = self.cancelled.take() {
            self.open.clear();
            must(
                mseq_ack >= cancel,
                "§4.8 step 5: the answer to a cancel that does not confirm it",
            )?;
            return Ok(true);
        }
        self.owed += u64::from(front.rest());
        Ok(false)
    }

    /// An RDMA READ is posted.
    pub(super) fn on_read(&mut self, rkey: Rkey, remote: RemoteAddr, len: usize) -> Verdict {
        let short = u32::try_from(len).unwrap_or(u32::MAX);
        self.reads.push_back((rkey, remote, short));
        must(
            self.cancelled.is_none(),
            "§4.8 step 3: a READ after the cancel",
        )?;
        let advert = self
            .open
            .iter_mut()
            .find(|a| a.memory.holds(rkey, remote, len));
        let Some(advert) = advert else {
            return Err("§4.4 row 2: a READ beside the open adverts");
        };
        advert.ask(remote, short);
        let asked: u64 = self.open.iter().map(|a| u64::from(a.asked)).sum();
        must(
            self.settled + asked <= self.received + self.receiving + self.room,
            "§4.12: read ahead past SO_RCVBUF",
        )
    }

    pub(super) fn on_read_done(&mut self, good: bool) {
        let Some((rkey, remote, len)) = self.reads.pop_front() else {
            return;
        };
        let holds = |advert: &&mut Advert| advert.memory.holds(rkey, remote, len as usize);
        if let Some(advert) = self.open.iter_mut().find(holds).filter(|_| good) {
            advert.read += len;
        }
        if self.reads.is_empty() {
            // Bytes behind a READ that could not be posted may be asked for again.
            self.open.iter_mut().for_each(|a| a.asked = a.reported);
        }
    }

    /// The half on its next queue pair: the bytes that have come go along.
    pub(super) fn next(&self) -> Self {
        Self {
            room: self.room,
            settled: self.settled,
            received: self.received,
            receiving: self.receiving,
            ..Self::default()
        }
    }

    /// What a message that was taken changes.
    pub(super) fn hears(&mut self, head: &Head) {
        if head.payload_len > 0 {
            self.is_paid(head);
        }
        match head.body {
            Body::SrcAvail(advert) if self.offers.is_empty() => {
                self.owed = 0;
                self.open.push_back(Advert {
                    memory: Memory {
                        rkey: advert.rkey.0,
                        addr: advert.addr.0,
                        len: advert.len,
                    },
                    inline: head.payload_len,
                    read: 0,
                    reported: 0,
                    asked: 0,
                });
            }
            Body::SrcAvailCancel if !self.open.is_empty() => self.cancelled = Some(head.mseq),
            Body::RdmaWrCompl { len } => {
                self.settled += u64::from(len);
                self.offers.pop_front();
            }
            Body::SinkCancelAck => self.offers.clear(),
            Body::DisConn => self.offers.clear(),
            Body::ModeChange(ModeChange::RecvBuffered) => self.mode = Mode::Buffered,
            Body::ModeChange(ModeChange::RecvPipelined) => self.mode = Mode::Pipelined,
            Body::ModeChange(ModeChange::RecvCombined) => {
                self.mode = Mode::Combined;
                self.offers.clear();
            }
            _ => {}
        }
        if self.offers.is_empty() {
            self.cancelling = false;
        }
    }

    fn is_paid(&mut self, head: &Head) {
        let len = u64::from(head.payload_len);
        self.settled += len;
        if matches!(head.body, Body::Data) {
            self.owed = self.owed.saturating_sub(len);
        }
        if self.offers.pop_front().is_none() {
            self.non_discards = self.non_discards.wrapping_add(1);
        }
    }
}
