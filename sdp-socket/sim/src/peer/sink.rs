//! The receiving half of a peer: reading adverts, or not, and offering memory.

use std::collections::VecDeque;

use sdp_verbs::Access;
use sdp_wire::{Body, Flags, RemoteAddr, Rkey, SinkAvail, SrcAvail};

use super::Talk;
use super::link::{RECV_LEN, Shown};
use crate::judge::Mode;

/// Length of memory that is offered: more than any receive.
const OFFER_LEN: usize = 30_000;
const _: () = assert!(OFFER_LEN > RECV_LEN, "an offer takes any message");

/// An advert of the other side's.
#[derive(Clone, Copy, Debug)]
struct Advert {
    rkey: u32,
    /// Its next byte, and bytes from there on.
    addr: u64,
    rest: usize,
    refused: bool,
}

/// Memory that is offered.
#[derive(Debug)]
struct Offer {
    memory: Shown,
}

/// The receiving half.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) mode: Mode,
    open: VecDeque<Advert>,
    /// A program wants bytes from this time on.
    wanted_at: u64,
    /// The READ under way: its name, memory and length.
    reading: Option<(u64, Shown, usize)>,
    /// Bytes read and not reported.
    unreported: u32,
    cancelled: bool,
    /// Bytes of refused adverts that come as Data, before any other is read.
    owed: usize,
    /// MSeq of the SendSm that asked for them.
    owed_since: u32,
    offers: VecDeque<Offer>,
    /// SinkAvailCancel has been sent.
    cancelling: bool,
    non_discards: u32,
}

impl Sink {
    pub(super) fn is_advertised(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn offers_out(&self) -> usize {
        self.offers.len()
    }

    /// When it has something to do in any case.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        (!self.open.is_empty()).then_some(self.wanted_at)
    }
}

impl Talk {
    /// A message with payload uses up the oldest offer, if one is out.
    pub(super) fn sink_paid(&mut self, len: usize) {
        self.sink.owed = self.sink.owed.saturating_sub(len);
        match self.sink.offers.pop_front() {
            Some(offer) => self.link.hide(offer.memory),
            None => self.sink.non_discards = self.sink.non_discards.wrapping_add(1),
        }
        if self.sink.offers.is_empty() {
            self.sink.cancelling = false;
        }
    }

    pub(super) fn sink_advertised(&mut self, advert: SrcAvail, inline: u32, mseq_ack: u32) {
        let discarded = !self.sink.offers.is_empty();
        if inline > 0 {
            self.sink_paid(inline as usize);
        }
        if discarded {
            return;
        }
        if mseq_ack >= self.sink.owed_since {
            self.sink.owed = 0;
        }
        let refused = !self.habits.reads || self.rarely(self.habits.refuses);
        if self.sink.open.is_empty() {
            let later = self.rng.below(self.habits.read_after + 1);
            self.sink.wanted_at = self.now() + later;
        }
        self.sink.open.push_back(Advert {
            rkey: advert.rkey.0,
            addr: advert.addr.0 + u64::from(inline),
            rest: (advert.len - inline) as usize,
            refused,
        });
    }

    pub(super) fn sink_cancelled(&mut self, mseq: u32) {
        if !self.sink.open.is_empty() {
            self.sink.cancelled = true;
            if self.habits.holds_ack {
                self.link.hold = Some(mseq);
            }
        }
    }

    pub(super) fn sink_written(&mut self, len: u32) {
        let Some(offer) = self.sink.offers.pop_front() else {
            return self.violation("RdmaWrCompl without an offer");
        };
        let len = len as usize;
        if len > OFFER_LEN {
            self.violation("RdmaWrCompl beyond the offer");
        } else {
            let bytes = offer.memory.read(0, len);
            self.deliver(&bytes);
        }
        self.link.hide(offer.memory);
        if self.sink.offers.is_empty() {
            self.sink.cancelling = false;
        }
    }

    pub(super) fn sink_cancel_answered(&mut self) {
        if !self.sink.cancelling {
            self.violation("SinkCancelAck that nobody waits for");
        }
        self.sink_forgets();
    }

    /// The offers are void.
    pub(super) fn sink_forgets(&mut self) {
        self.sink.cancelling = false;
        for offer in std::mem::take(&mut self.sink.offers) {
            self.link.hide(offer.memory);
        }
    }

    /// A READ or a WRITE has ended.
    pub(super) fn moved(&mut self, work: u64) {
        let Some((_, memory, len)) = self.sink.reading.take_if(|(own, ..)| *own == work) else {
            return self.source_wrote();
        };
        let bytes = memory.read(0, len);
        self.deliver(&bytes);
        self.link.hide(memory);
        self.sink.unreported += u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(front) = self.sink.open.front_mut() {
            front.addr += len as u64;
            front.rest -= len;
        }
    }

    pub(super) fn act_sink(&mut self) {
        while self.act_on_advert() {}
        self.offer();
        let out = !self.sink.offers.is_empty() && !self.sink.cancelling;
        if out && self.habits.talks && self.rarely(4) {
            self.sink.cancelling = self.link.say(Body::SinkAvailCancel, Flags::empty(), &[]);
        }
    }

    /// Does the next thing about the oldest advert. False: nothing now.
    fn act_on_advert(&mut self) -> bool {
        let now = self.now();
        let Some(front) = self.sink.open.front().copied() else {
            return false;
        };
        if self.sink.reading.is_some() {
            return false;
        }
        if self.sink.unreported > 0 {
            return self.report(front.rest == 0);
        }
        if self.sink.cancelled {
            return self.answer_cancel();
        }
        if self.sink.owed > 0 {
            return false;
        }
        if front.refused {
            if self.link.say(Body::SendSm, Flags::empty(), &[]) {
                self.sink.owed = front.rest;
                self.sink.owed_since = self.link.said();
                self.sink.open.pop_front();
                return true;
            }
            return false;
        }
        if self.sink.wanted_at > now {
            return false;
        }
        let len = front.rest.min(self.habits.read_max);
        let read = self.link.memory(len).and_then(|memory| {
            let work = self.link.read(&memory, len, (front.rkey, front.addr))?;
            Some((work, memory, len))
        });
        match read {
            Some(read) => self.sink.reading = Some(read),
            None if self.habits.hears_refusals => {
                if let Some(front) = self.sink.open.front_mut() {
                    front.refused = true;
                    return true;
                }
            }
            // It can only try again.
            None => self.sink.wanted_at = now + 1_000_000,
        }
        false
    }

    fn report(&mut self, last: bool) -> bool {
        let flags = match self.habits.pipelines {
            true => Flags::REQ_PIPE,
            false => Flags::empty(),
        };
        // The answer to a cancel that comes too late for SendSm confirms it.
        let ends = last && self.sink.open.len() == 1;
        let held = self.link.hold;
        if ends {
            self.link.hold = None;
        }
        let len = self.sink.unreported;
        if !self.link.say(Body::RdmaRdCompl { len }, flags, &[]) {
            self.link.hold = held;
            return false;
        }
        self.sink.unreported = 0;
        if last {
            self.sink.open.pop_front();
        }
        if ends {
            self.sink.cancelled = false;
        }
        true
    }

    /// One SendSm for all that is left.
    fn answer_cancel(&mut self) -> bool {
        let held = self.link.hold.take();
        if !self.link.say(Body::SendSm, Flags::empty(), &[]) {
            self.link.hold = held;
            return false;
        }
        self.sink.open.clear();
        self.sink.cancelled = false;
        true
    }

    /// Offers memory, if that is legal and a habit.
    fn offer(&mut self) {
        let sink = &self.sink;
        let legal = sink.mode == Mode::Pipelined
            && sink.open.is_empty()
            && !sink.cancelling
            && !self.heard_fin;
        let room = self.link.peer_adverts.min(self.habits.offers);
        if !legal || sink.offers.len() >= room || self.rng.coin() {
            return;
        }
        let Some(mut memory) = self.link.memory(OFFER_LEN) else {
            return;
        };
        if !self.link.show(&mut memory, OFFER_LEN, Access::REMOTE_WRITE) {
            return self.link.hide(memory);
        }
        let body = Body::SinkAvail(SinkAvail {
            len: u32::try_from(OFFER_LEN).unwrap_or(u32::MAX),
            rkey: Rkey(memory.rkey.map_or(0, |rkey| rkey.0)),
            addr: RemoteAddr(memory.addr()),
            non_discards: self.sink.non_discards,
        });
        if self.link.say(body, Flags::empty(), &[]) {
            self.sink.offers.push_back(Offer { memory });
        } else {
            self.link.hide(memory);
        }
    }
}
