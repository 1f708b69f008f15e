//! The peer's open source adverts, and what this side answers them with (clauses §4.4 and §4.8).
//!
//! Answers wait for credits as facts, not as messages: what was read and not yet reported, that an
//! advert was refused, that all are cancelled. So the wait needs no memory, and reports merge.

use alloc::collections::VecDeque;

use sdp_wire::{Body, Flags, RemoteAddr, Rkey, SrcAvail};

use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::outbox::{HoldEnd, Outgoing};
use crate::time::Instant;

/// One advert of the peer's.
#[derive(Debug)]
pub(super) struct PeerAdvert {
    /// Its name among the open ones.
    pub(super) id: u32,
    pub(super) rkey: Rkey,
    pub(super) addr: RemoteAddr,
    len: u32,
    /// Offset of the first byte that no read has been posted for.
    next: u32,
    /// Offset of the first byte that has not been read.
    done: u32,
    /// Offset of the first byte that was not reported.
    reported: u32,
    /// Its memory cannot be read; the peer is to send the bytes (§4.4 row 9).
    refused: bool,
}

/// A piece of an advert to be read next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) advert: u32,
    pub(super) rkey: Rkey,
    pub(super) remote: RemoteAddr,
    pub(super) len: u32,
}

/// Why reads stop until those under way have ended, and what then becomes of the advert at which
/// they stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Its memory cannot be read.
    Refused,
    /// Our memory could not be written; reading starts again where it failed.
    Rewind,
}

/// Bytes of a refused advert that come as Data, before any byte of the adverts behind it.
#[derive(Clone, Copy, Debug)]
struct Owed {
    len: u64,
    /// MSeq of the SendSm that asked for them.
    mseq: u32,
}

/// The open adverts, oldest first.
#[derive(Debug, Default)]
pub(super) struct Adverts {
    list: VecDeque<PeerAdvert>,
    next_id: u32,
    /// A read has failed; it and those behind it do not count.
    stop: Option<Stop>,
    /// The peer takes all of them back (§4.8).
    cancelled: bool,
    owed: Option<Owed>,
    /// Adverts that may be read from before the oldest of them is reported; one in any case.
    pub(super) begun_max: usize,
    /// Nobody receives: read ahead as far as memory goes.
    pub(super) eager: bool,
    /// Arrival of the first, or last movement.
    pub(super) moved_at: Instant,
}

fn widen(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl Adverts {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The peer takes them back.
    pub(super) const fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// An answer waits for a credit.
    #[inline]
    pub(super) fn owe_answers(&self) -> bool {
        self.cancelled
            || self
                .list
                .front()
                .is_some_and(|advert| advert.refused || advert.done > advert.reported)
    }

    /// Some bytes have not been read.
    pub(super) fn has_unread(&self) -> bool {
        self.list.iter().any(|advert| advert.done < advert.len)
    }

    pub(super) fn push(&mut self, advert: SrcAvail, inline: u32, now: Instant) {
        if self.list.is_empty() {
            self.eager = false;
            self.moved_at = now;
        }
        self.next_id = self.next_id.wrapping_add(1);
        self.list.push_back(PeerAdvert {
            id: self.next_id,
            rkey: advert.rkey,
            addr: advert.addr,
            len: advert.len,
            next: inline,
            done: inline,
            reported: if mutant!(InlineBytesReported) {
                0
            } else {
                inline
            },
            refused: false,
        });
    }

    /// The connection is over.
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.cancelled = false;
        self.owed = None;
    }

    /// No read may be posted now.
    fn is_barred(&self) -> bool {
        let refused = self.list.iter().any(|advert| advert.refused);
        refused || self.cancelled || self.stop.is_some() || self.owed.is_some()
    }

    /// Bytes of a refused advert are still to come as Data.
    pub(super) const fn is_owed(&self) -> bool {
        self.owed.is_some()
    }

    /// Bytes that may be read now.
    pub(super) fn rest(&self) -> usize {
        if self.list.is_empty() || self.is_barred() {
            return 0;
        }
        let rest = |advert: &PeerAdvert| widen(advert.len - advert.next);
        let may_begin = self.list.iter().take(self.begun_max.max(1));
        may_begin.map(rest).sum()
    }

    /// The next bytes to be read, at most `len_max` of them; they count as posted for.
    pub(super) fn take(&mut self, len_max: u32) -> Option<Piece> {
        if self.is_barred() {
            return None;
        }
        let advert = self
            .list
            .iter_mut()
            .take(self.begun_max.max(1))
            .find(|advert| advert.next < advert.len)?;
        let len = (advert.len - advert.next).min(len_max);
        if len == 0 {
            return None;
        }
        let remote = RemoteAddr(advert.addr.0 + u64::from(advert.next));
        advert.next += len;
        Some(Piece {
            advert: advert.id,
            rkey: advert.rkey,
            remote,
            len,
        })
    }

    /// `len` bytes of advert `id` have been read. Says whether they count.
    pub(super) fn on_read(&mut self, id: u32, len: u32, now: Instant) -> bool {
        if self.stop.is_some() {
            return false;
        }
        let Some(advert) = self.list.iter_mut().find(|advert| advert.id == id) else {
            return false;
        };
        advert.done += len;
        self.moved_at = now;
        true
    }

    /// A read has failed.
    pub(super) fn on_failed(&mut self, stop: Stop) {
        self.stop.get_or_insert(stop);
    }

    /// No read is under way any more.
    pub(super) fn on_quiet(&mut self) {
        let Some(stop) = self.stop.take() else {
            return;
        };
        for advert in &mut self.list {
            advert.next = advert.done;
        }
        let mut unread = self.list.iter_mut().filter(|a| a.done < a.len);
        if let (Stop::Refused, Some(advert)) = (stop, unread.next()) {
            advert.refused = true;
        }
    }

    /// The peer takes its adverts back.
    pub(super) fn on_cancel(&mut self, sh: &mut Shared) {
        // Nothing is open: the cancel crossed the last answer, and is ignored (§4.8 step 2).
        if !self.list.is_empty() && !self.cancelled {
            self.cancelled = true;
            sh.credits.hold_ack();
        }
    }

    /// `len` bytes of payload came in a Data.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(super) fn on_data(&mut self, len: u32) -> Result<(), ConnectionError> {
        let owed = self.owed.map_or(0, |owed| owed.len);
        if !self.list.is_empty() && owed < u64::from(len) {
            return Shared::misbehaved("§4.4 row 3: payload while a source advert is open");
        }
        if let Some(owed) = &mut self.owed {
            owed.len = owed.len.saturating_sub(u64::from(len));
            if owed.len == 0 {
                self.owed = None;
            }
        }
        Ok(())
    }

    /// A new advert comes. If its sender knew of the refusal, it has sent all it will of what it
    /// owed: a program that passed bad memory cannot send it at all.
    pub(super) fn forgive(&mut self, sh: &Shared) {
        if self.list.is_empty() && self.owed.is_some_and(|owed| sh.credits.is_acked(owed.mseq)) {
            self.owed = None;
        }
    }

    /// Sends the answers that are owed, as far as credits and slots allow, in the order of the
    /// rules: bytes read, then SendSm (§4.4 row 9), one advert after the other. `quiet`: no read is
    /// under way. `flags`: of the reports.
    pub(super) fn flush(&mut self, sh: &mut Shared, quiet: bool, flags: Flags) {
        while let Some(advert) = self.list.front() {
            let complete = advert.done == advert.len;
            let unreported = advert.done - advert.reported;
            let give_back = quiet && !complete && (self.cancelled || advert.refused);
            if unreported == 0 && !give_back {
                return;
            }
            // When all reads are over a cancel is answered, once for all adverts (§4.8 step 3): by
            // the report that ends the last of them, or behind the reports.
            let last = unreported == 0 || (complete && self.list.len() == 1);
            let may = if self.cancelled && quiet {
                sh.can_answer(last)
            } else {
                sh.can_control()
            };
            if !may {
                return;
            }
            if unreported > 0 {
                self.report(sh, unreported, complete, flags);
            } else if self.cancelled {
                self.list.clear();
                self.cancelled = false;
                if mutant!(CancelAnsweredTwice) {
                    sh.send(Outgoing::control(Body::SendSm));
                }
                sh.send(Outgoing {
                    hold: HoldEnd::Before,
                    ..Outgoing::control(Body::SendSm)
                });
            } else {
                self.refuse(sh);
            }
        }
        debug_assert!(!self.cancelled, "a cancel is finished by the last answer");
    }

    /// Sends RdmaRdCompl for the oldest advert, which ends it if it is complete.
    fn report(&mut self, sh: &mut Shared, len: u32, complete: bool, flags: Flags) {
        let last = complete && self.list.len() == 1;
        let may_invalidate =
            sh.config.invalidate_cap && sh.peer.is_some_and(|peer| peer.invalidate_cap);
        let Some(advert) = self.list.front_mut() else {
            return;
        };
        advert.reported = advert.done;
        let invalidate = (complete && may_invalidate).then_some(advert.rkey);
        let hold = if last && core::mem::take(&mut self.cancelled) {
            HoldEnd::Before
        } else {
            HoldEnd::None
        };
        sh.send(Outgoing {
            flags,
            invalidate,
            hold,
            ..Outgoing::control(Body::RdmaRdCompl { len })
        });
        if complete {
            self.list.pop_front();
        }
    }

    /// Sends SendSm for the oldest advert, unasked.
    fn refuse(&mut self, sh: &mut Shared) {
        let Some(advert) = self.list.pop_front() else {
            return;
        };
        sh.credits.hold_refusal();
        let (mseq, _) = sh.send(Outgoing {
            hold: HoldEnd::After,
            ..Outgoing::control(Body::SendSm)
        });
        let len = u64::from(advert.len - advert.done);
        self.owed = Some(Owed { len, mseq });
    }
}
