//! What the thread inside `poll` does for a queue pair.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::connection::Broken;
use super::remote::Remote;
use super::rx::Rx;
use super::transfer::{self, Outcome};
use super::tx::{Progress, State};
use super::{HostQp, LocalSge};
use crate::host::cq::Work;
use crate::host::keys::KeyUse;
use crate::host::layout::{Inbound, WriteRequest, WriteStatus};
use crate::host::notice::Notice;
use crate::host::provider::LIMITS;
use crate::host::xmem::Target;
use crate::types::Rkey;
use crate::wr::{WcStatus, WorkCompletion};

/// Ring entries one poll looks at that give no completion.
const SILENT_MAX: u32 = 64;

/// Why no more is taken from the ring.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// The peer's end marker.
    End,
    /// The peer broke a rule.
    Broken(Broken),
}

const NOT_POSTED: Stop = Stop::Broken(Broken("a message names a receive that is not posted"));

impl HostQp {
    /// One look at both halves, by the thread in `poll`.
    pub(crate) fn poll(&self, out: &mut [WorkCompletion], work: &mut Work) -> usize {
        if self.over.load(Ordering::Acquire) {
            return 0;
        }
        // Looked at before the ring: what the peer published before it died is seen below.
        let peer_over = self.link.is_dead() || self.block().peer_in_error();
        let (filled, drained) = self.poll_rx(out, work);
        self.poll_tx(work);
        if drained && !self.over.load(Ordering::Acquire) {
            if peer_over {
                self.enter_error(WcStatus::RetryExceeded);
            } else if self.closing.load(Ordering::Acquire) && self.tx().queue.is_empty() {
                self.enter_error(WcStatus::Flushed);
            }
        }
        filled
    }

    /// Takes what has come in. Returns completions made, and whether the ring is empty.
    fn poll_rx(&self, out: &mut [WorkCompletion], work: &mut Work) -> (usize, bool) {
        if !self.core.has_inbound() {
            return (0, true);
        }
        let mut filled = 0;
        let mut silent = 0;
        let mut rx = self.core.lock();
        while rx.open {
            let Some(entry) = rx.peek() else {
                break;
            };
            if filled == out.len() || silent == SILENT_MAX {
                work.more = true;
                return (filled, false);
            }
            if let Some(Inbound::Write(request)) = entry {
                let Some(remote) = rx.remote.as_ref().map(Arc::clone) else {
                    return (filled, false);
                };
                drop(rx);
                match self.answer_write(&remote, &request, work) {
                    None => return (filled, false),
                    Some(WriteStatus::Done) => silent += 1,
                    Some(WriteStatus::Access | WriteStatus::Failed) => {
                        // What comes behind says that these bytes are there.
                        self.enter_error(WcStatus::Flushed);
                        return (filled, false);
                    }
                }
                rx = self.core.lock();
                // Only this thread takes from the ring, so it is still the next one.
                self.core.advance(&mut rx);
                continue;
            }
            self.core.advance(&mut rx);
            let taken = self.take_entry(&mut rx, entry);
            if let Ok(wc) = taken
                && wc.status == WcStatus::Success
            {
                out[filled] = wc;
                filled += 1;
                continue;
            }
            drop(rx);
            match taken {
                Ok(wc) => {
                    out[filled] = wc;
                    filled += 1;
                    self.enter_error(WcStatus::Flushed);
                }
                Err(Stop::End) => self.enter_error(WcStatus::Flushed),
                Err(Stop::Broken(broken)) => self.peer_broke(broken),
            }
            return (filled, false);
        }
        (filled, true)
    }

    /// Any entry but a write.
    fn take_entry(&self, rx: &mut Rx, entry: Option<Inbound>) -> Result<WorkCompletion, Stop> {
        match entry {
            Some(Inbound::Send {
                slot,
                len,
                invalidate,
                ..
            }) => self.receive(rx, slot, len, invalidate),
            Some(Inbound::Overrun { slot }) => {
                let received = self.core.complete(rx, slot).ok_or(NOT_POSTED)?;
                Ok(self.recv_completion(received.wr_id, WcStatus::LocalLength))
            }
            Some(Inbound::End) => Err(Stop::End),
            Some(Inbound::Write(_)) | None => Err(Stop::Broken(Broken(
                "an entry of the ring is of no known kind",
            ))),
        }
    }

    /// Carries a peer's write out and reports how that went. `None`: it is not its time yet.
    fn answer_write(
        &self,
        remote: &Remote,
        request: &WriteRequest,
        work: &mut Work,
    ) -> Option<WriteStatus> {
        let moves = request.len > 0;
        if moves && !work.transfer {
            work.more = true;
            return None;
        }
        work.transfer &= !moves;
        // If the region is on its way there is no status, and everything behind waits for it.
        let status = self.carry_out(remote, request).report()?;
        remote.block().report_write(request.n, status);
        self.tell(remote, Notice::Solicited, 0);
        Some(status)
    }

    fn receive(
        &self,
        rx: &mut Rx,
        slot: u32,
        len: u64,
        invalidate: Option<Rkey>,
    ) -> Result<WorkCompletion, Stop> {
        let received = self.core.complete(rx, slot).ok_or(NOT_POSTED)?;
        let byte_len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= received.len)
            .ok_or(Stop::Broken(Broken(
                "a message is longer than the receive it lies in",
            )))?;
        let mut wc = self.recv_completion(received.wr_id, WcStatus::Success);
        if let Some(rkey) = invalidate {
            if self.link.plane().keys().kill(rkey, Some(self.number)) {
                wc.invalidated = Some(rkey);
            } else {
                wc.status = WcStatus::LocalProtection;
                return Ok(wc);
            }
        }
        wc.byte_len = byte_len;
        Ok(wc)
    }

    /// Fetches what the peer wants written into our memory.
    fn carry_out(&self, remote: &Remote, request: &WriteRequest) -> Outcome {
        if request.len == 0 {
            return Outcome::Done;
        }
        let (rkey, to) = request.to;
        let keys = self.link.plane().keys();
        let Some(using) = keys.use_for_write(rkey, self.number, to, request.len) else {
            return Outcome::Access;
        };
        self.fetch_into(&using, remote, request)
    }

    fn fetch_into(&self, using: &KeyUse, remote: &Remote, request: &WriteRequest) -> Outcome {
        let target = usize::try_from(request.len)
            .ok()
            .filter(|len| *len <= LIMITS.rdma_len_max)
            .and_then(|len| {
                let ptr = using.region().pointer(request.to.1, len)?;
                Some(Target { ptr, len })
            });
        let Some(target) = target else {
            return Outcome::Access;
        };
        let (rkey, from) = request.from;
        // SAFETY: the target lies within a region with LOCAL_WRITE (checked when the key was
        // bound), whose contract keeps it valid while the key lives; `using` keeps whoever kills
        // the key waiting until the copy is over.
        unsafe { transfer::fetch(&self.link, remote.qp(), rkey, from, &[target]) }
    }

    fn poll_tx(&self, work: &mut Work) {
        if !self.busy.load(Ordering::Relaxed) {
            return;
        }
        let mut tx = self.tx();
        let progress = tx.progress(self);
        let mut read = None;
        if matches!(&progress, Ok(made) if made.wants_poll && !made.failed) {
            if work.transfer {
                read = tx.take_read();
            } else {
                work.more = true;
            }
        }
        let remote = tx.remote().map(Arc::clone);
        self.settle(tx, progress.map(Progress::seen_by_poll));
        let Some((local, from, rkey)) = read else {
            return;
        };
        work.transfer = false;
        let (status, len) = self.read(remote.as_deref(), &local, from.0, rkey);
        let mut tx = self.tx();
        tx.finish_read(status, len);
        if tx.state == State::Error {
            // It went into error meanwhile; this was what the flush waited for.
            tx.flush(self, status.unwrap_or(WcStatus::Flushed));
            drop(tx);
            self.cq.event(true);
            return;
        }
        let progress = tx.progress(self);
        work.more |= matches!(&progress, Ok(made) if made.wants_poll && status.is_some());
        self.settle(tx, progress.map(Progress::seen_by_poll));
    }

    fn read(
        &self,
        remote: Option<&Remote>,
        local: &[LocalSge],
        from: u64,
        rkey: Rkey,
    ) -> (Option<WcStatus>, usize) {
        let targets: SmallVec<[Target; 4]> = local
            .iter()
            .map(|sge| Target {
                ptr: sge.ptr,
                len: sge.len,
            })
            .collect();
        let len = targets.iter().map(|t| t.len).sum();
        let (Some(remote), false) = (remote, self.link.is_dead()) else {
            return (Some(WcStatus::RetryExceeded), 0);
        };
        // SAFETY: each target was checked against a region with LOCAL_WRITE when it was posted,
        // and `local` keeps that region while the contract of `register` keeps its memory.
        let outcome = unsafe { transfer::fetch(&self.link, remote.qp(), rkey, from, &targets) };
        (outcome.status(), len)
    }
}
