//! Requests held back: Soft-RoCE carries a bind out again when it repeats what is in front of it.
//!
//! rxe keeps no note of a bind that is done (Linux 6.1, rxe_req.c). A bind behind a SEND that is lost is
//! met a second time, `rxe_bind_mw` finds the window bound, and the queue pair stands still: what is at
//! its head is neither answered nor repeated, and nothing ever completes. So there a bind waits, and
//! what follows waits behind it, until the peer has answered everything before. Behind a LOCAL_INV it
//! need not: rxe carries that out when it is at the head of the queue, and only then goes on.

use std::sync::Arc;

use super::RdmaQp;
use super::send::{Entry, Kind, SendQueue};
use super::wr::Prepared;
use crate::error::PostError;
use crate::rdma::window::WindowCore;
use crate::types::WrId;
use crate::wr::WcStatus;

/// A request to be posted.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) wr: Prepared<'a>,
    pub(super) entry: Entry,
    /// Of a bind.
    pub(super) window: Option<Arc<WindowCore>>,
}

/// One that is posted later than its caller believes.
pub(super) type Held = Request<'static>;

impl Request<'_> {
    pub(super) fn is_bind(&self) -> bool {
        self.entry.kind.is_bind()
    }

    fn into_owned(self) -> Held {
        Request {
            wr: self.wr.into_owned(),
            entry: self.entry,
            window: self.window,
        }
    }
}

/// What has become of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Posted {
    Now,
    Later,
}

impl RdmaQp {
    /// Posts a request, or holds it back. The caller has taken a place in the completion queue.
    pub(super) fn post_or_hold(
        &self,
        queue: &mut SendQueue,
        mut request: Request<'_>,
    ) -> Result<Posted, PostError> {
        let waits = self.device.repeats_binds && request.is_bind() && queue.may_repeat();
        if !waits && !queue.holds() {
            let posted = self.post_prepared(queue, &mut request.wr, request.entry);
            return posted.map(|()| Posted::Now).map_err(|(error, _)| error);
        }
        if waits {
            self.ask_for_end(queue)?;
        }
        queue.hold(request.into_owned());
        Ok(Posted::Later)
    }

    /// Sees to it that the device will tell when everything posted has ended: by a request of ours, of
    /// which there is never more than one, since nothing is posted behind it before it has ended.
    fn ask_for_end(&self, queue: &mut SendQueue) -> Result<(), PostError> {
        if queue.ends_aloud() {
            return Ok(());
        }
        if !self.cq.take_place() {
            return Err(PostError::QueueFull);
        }
        let mut wr = Prepared::marker(self.device.transport);
        let entry = Entry::new(WrId(0), Kind::Barrier, true);
        let posted = self.post_prepared(queue, &mut wr, entry);
        posted.map_err(|(error, _)| {
            self.cq.free_places(1);
            error
        })
    }

    /// Posts what was held back, as far as it may go. True: something has ended without.
    pub(super) fn release(&self) -> bool {
        let mut ended = false;
        while let Some(window) = self.next_held() {
            let failed = self.release_one(window.as_deref());
            if failed == Some(WcStatus::LocalProtection) {
                // As the device does with a request that fails.
                self.fail();
            }
            ended |= failed.is_some();
        }
        ended
    }

    /// The window of the oldest one held back, if it has one; or `None`, if it may not go yet.
    fn next_held(&self) -> Option<Option<Arc<WindowCore>>> {
        let asked = {
            let mut queue = self.send_queue();
            match queue.first_held() {
                Some(held) => return Some(held.window.clone()),
                None if queue.holds() => self.ask_for_end(&mut queue),
                None => Ok(()),
            }
        };
        if asked.is_err() {
            // Nobody will tell of the end of what is outstanding, nor of this one's.
            self.fail();
            self.cq.flush_later(self.number);
        }
        None
    }

    /// Posts the oldest one; or it has ended without, so.
    fn release_one(&self, window: Option<&WindowCore>) -> Option<WcStatus> {
        // In the order in which a bind takes them.
        let mut state = window.map(WindowCore::state);
        let mut queue = self.send_queue();
        let Held { mut wr, entry, .. } = queue.take_held()?;
        let is_dead = match (entry.kind, &state) {
            // Its memory has been given back meanwhile.
            (Kind::Bind { rkey }, Some(state)) => !state.is_bound(rkey),
            _ => false,
        };
        let (status, entry) = if self.ready().is_err() {
            (WcStatus::Flushed, entry)
        } else if is_dead {
            (WcStatus::LocalProtection, entry)
        } else {
            let kind = entry.kind;
            match self.post_prepared(&mut queue, &mut wr, entry) {
                Ok(()) => {
                    if let (Kind::Bind { rkey }, Some(state)) = (kind, &mut state) {
                        state.set_posted(rkey);
                    }
                    return None;
                }
                Err((_, entry)) => (WcStatus::LocalProtection, entry),
            }
        };
        queue.push_ended(entry, status);
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdma::device::Transport;

    const BIND: Kind = Kind::Bind { rkey: 0x100 };

    fn held(number: u64, kind: Kind) -> Held {
        Request {
            wr: Prepared::marker(Transport::Ib),
            entry: Entry::new(WrId(number), kind, true),
            window: None,
        }
    }

    fn post(queue: &mut SendQueue, number: u64, kind: Kind, signaled: bool) {
        queue.push(Entry::new(WrId(number), kind, signaled), signaled);
    }

    /// A bind goes when everything that could be repeated has ended; what is behind it goes with it,
    /// up to the next bind.
    #[test]
    fn a_bind_waits_for_what_may_be_repeated() {
        let mut queue = SendQueue::new(16);
        post(&mut queue, 0, Kind::LocalInv { rkey: 0x200 }, true);
        assert!(!queue.may_repeat() && queue.ends_aloud());
        post(&mut queue, 1, Kind::Send, false);
        assert!(queue.may_repeat() && !queue.ends_aloud());
        queue.hold(held(2, BIND));
        queue.hold(held(3, Kind::Send));
        queue.hold(held(4, BIND));
        assert_eq!(queue.len(), 5);
        assert!(queue.first_held().is_none());
        post(&mut queue, 5, Kind::Barrier, true);
        assert!(queue.ends_aloud());
        queue.complete(2, WcStatus::Success);
        queue.complete(0, WcStatus::Success);
        while queue.take_ended().is_some() {}
        for number in [2, 3] {
            assert!(queue.first_held().is_some());
            let held = queue.take_held().unwrap();
            assert_eq!(held.entry.wr_id, WrId(number));
            queue.push(held.entry, true);
        }
        assert!(queue.first_held().is_none() && queue.holds());
    }

    /// Nothing in front of a LOCAL_INV is repeated once what is behind it has begun.
    #[test]
    fn a_bind_behind_a_local_inv_goes_at_once() {
        let mut queue = SendQueue::new(16);
        post(&mut queue, 0, Kind::Send, false);
        post(&mut queue, 1, Kind::LocalInv { rkey: 0x200 }, true);
        assert!(!queue.may_repeat());
        post(&mut queue, 2, Kind::Send, false);
        assert!(queue.may_repeat());
    }

    /// What the device never had ends behind what it has.
    #[test]
    fn what_was_never_posted_ends_in_its_turn() {
        let mut queue = SendQueue::new(4);
        post(&mut queue, 0, Kind::Send, true);
        queue.push_ended(
            Entry::new(WrId(1), Kind::Send, true),
            WcStatus::LocalProtection,
        );
        assert!(queue.take_ended().is_none());
        queue.complete(0, WcStatus::Flushed);
        // What has ended is not repeated: the next bind does not wait for it.
        assert!(!queue.may_repeat());
        let ended = std::iter::from_fn(|| queue.take_ended()).map(|(_, status)| status);
        let expected = [WcStatus::Flushed, WcStatus::LocalProtection];
        assert_eq!(ended.collect::<Vec<_>>(), expected);
    }

    /// The caller's bytes are the caller's again.
    #[test]
    fn held_bytes_are_a_copy() {
        let mut bytes = *b"message";
        let mut wr = Prepared::marker(Transport::Ib);
        wr.set_inline(&bytes);
        let mut wr = wr.into_owned();
        bytes.fill(0);
        let raw = wr.finish(0, true);
        // SAFETY: a request that lives as long as `wr`.
        let list = unsafe { (*raw).sg_list };
        // SAFETY: its one element lies beside it.
        let sge = unsafe { *list };
        let place = std::ptr::with_exposed_provenance::<u8>(usize::try_from(sge.addr).unwrap());
        // SAFETY: so many bytes that `wr` owns.
        let sent = unsafe { std::slice::from_raw_parts(place, sge.length as usize) };
        assert_eq!((sent, &bytes), (&b"message"[..], &[0; 7]));
    }
}
