//! Devices that one program has opened together.
//!
//! The connection manager's listener on every address is on every device. A request that comes by a
//! device other than the listener's belongs to the instance of that one, and is told there.

use std::sync::{Arc, Mutex, Weak};

use super::cm::RdmaEvents;
use super::sys;

/// Their event channels, oldest first.
#[derive(Debug, Default)]
pub(super) struct Group {
    channels: Mutex<Vec<Weak<RdmaEvents>>>,
}

impl Group {
    pub(super) fn add(&self, channel: &Arc<RdmaEvents>) {
        let mut channels = self
            .channels
            .lock()
            .expect("nothing panics under this lock");
        channels.retain(|channel| channel.strong_count() > 0);
        channels.push(Arc::downgrade(channel));
    }

    /// A channel of the device that a context belongs to.
    pub(super) fn channel_of(&self, context: *mut sys::ibv_context) -> Option<Arc<RdmaEvents>> {
        let channels = self
            .channels
            .lock()
            .expect("nothing panics under this lock");
        let mut all = channels.iter().filter_map(Weak::upgrade);
        all.find(|channel| channel.is_of(context))
    }
}
