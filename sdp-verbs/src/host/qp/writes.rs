//! WRITEs: the peer is asked to fetch, under a key of ours that lives until it has.

use std::sync::Arc;

use smallvec::SmallVec;

use super::HostQp;
use super::entry::Op;
use super::tx::{Progress, Tx};
use crate::host::cells::Cell;
use crate::host::keys::LiveKey;
use crate::host::layout::{Inbound, WRITES_MAX, WriteRequest, WriteStatus};
use crate::host::notice::Notice;
use crate::host::region::RegionInner;
use crate::types::{Access, Rkey};
use crate::wr::WcStatus;

impl Tx {
    /// Hands the WRITE at `at` to the peer, if there is room. True if it is started, or has failed.
    pub(super) fn start_write(&mut self, qp: &HostQp, at: usize, made: &mut Progress) -> bool {
        let Op::Write {
            local,
            remote,
            rkey,
            ..
        } = &self.queue[at].op
        else {
            return false;
        };
        let pieces = local.len().max(1) as u64;
        if self.writes_started - self.writes_done + pieces > WRITES_MAX as u64 {
            return false;
        }
        let (local, rkey) = (local.clone(), *rkey);
        let mut to = remote.0;
        let mut bound: SmallVec<[Rkey; 1]> = SmallVec::new();
        let mut requests: SmallVec<[WriteRequest; 1]> = SmallVec::new();
        for n in 0..pieces {
            let request = match local.get(usize::try_from(n).unwrap_or(usize::MAX)) {
                None => WriteRequest {
                    n: self.writes_started + n,
                    len: 0,
                    from: (Rkey(0), 0),
                    to: (Rkey(0), 0),
                },
                Some(sge) => {
                    let from = sge.ptr.addr() as u64;
                    let Some(key) = qp.open_for_read(&sge.region, from, sge.len) else {
                        qp.kill_keys(&bound);
                        self.queue[at].status = Some(WcStatus::LocalProtection);
                        return true;
                    };
                    bound.push(key);
                    let request = WriteRequest {
                        n: self.writes_started + n,
                        len: sge.len as u64,
                        from: (key, from),
                        to: (rkey, to),
                    };
                    to = to.wrapping_add(sge.len as u64);
                    request
                }
            };
            requests.push(request);
        }
        self.writes_started += pieces;
        let last = self.writes_started;
        if let Op::Write { keys, end, .. } = &mut self.queue[at].op {
            *keys = bound;
            *end = last;
        }
        for request in requests {
            self.publish(Inbound::Write(request), Notice::Solicited, made);
        }
        true
    }

    /// Looks what became of the writes the peer was asked for.
    pub(super) fn collect_writes(&mut self, qp: &HostQp) {
        while self.writes_done < self.writes_started {
            let Some(status) = qp.block().write_status(self.writes_done) else {
                return;
            };
            self.writes_done += 1;
            let done = self.writes_done;
            let entry = self
                .queue
                .iter_mut()
                .take(self.started)
                .find(|e| matches!(e.op, Op::Write { end, .. } if end >= done));
            let Some(entry) = entry else { continue };
            let Op::Write { end, keys, .. } = &mut entry.op else {
                continue;
            };
            let last = *end == done;
            if last || status != WriteStatus::Done {
                qp.kill_keys(keys);
                keys.clear();
            }
            match status {
                WriteStatus::Done if last => {
                    entry.status.get_or_insert(WcStatus::Success);
                }
                WriteStatus::Done => {}
                WriteStatus::Access => entry.status = Some(WcStatus::RemoteAccess),
                WriteStatus::Failed => entry.status = Some(WcStatus::RemoteOperation),
            }
        }
    }
}

impl HostQp {
    /// A key of ours that lets the peer fetch a piece of a WRITE.
    fn open_for_read(&self, region: &Arc<RegionInner>, addr: u64, len: usize) -> Option<Rkey> {
        let shown = self.show(region, addr).ok()?;
        let cell = Cell {
            addr,
            len: len as u64,
            access: Access::REMOTE_READ.bits(),
            region: shown,
            qp: self.number(),
        };
        let live = LiveKey {
            cell,
            region: Arc::clone(region),
        };
        self.link().plane().keys().bind(live).ok()
    }

    pub(super) fn kill_keys(&self, keys: &[Rkey]) {
        for rkey in keys {
            self.link().plane().keys().kill(*rkey, Some(self.number()));
        }
    }
}
