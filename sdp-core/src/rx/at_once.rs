//! A receive whose bytes are there, in one message, with nothing else going on: no turn is taken. See
//! `tx/at_once.rs`.

use crate::call::{CopySource, FoundAtOnce};
use crate::connection::Shared;

use super::Rx;

impl Rx {
    /// What a receive of up to `len` bytes would return, if it is all in one message: as much as was asked
    /// for, or all that there is.
    pub(crate) fn found_at_once(&self, sh: &Shared, len: usize) -> Option<FoundAtOnce> {
        let plain =
            self.calls.is_empty() && self.adverts.is_empty() && self.urgent.mark().is_none();
        if !plain {
            return None;
        }
        let (source, run) = self.queue.run_at(0)?.ok()?;
        let CopySource::Buffer { buf, offset } = source else {
            return None;
        };
        let found = run.min(len);
        let whole = found == len || found == self.queue.len();
        let enough = sh.config.recv_low_water.min(len);
        (whole && found >= enough).then_some(FoundAtOnce {
            buf,
            offset,
            len: found,
        })
    }
}
