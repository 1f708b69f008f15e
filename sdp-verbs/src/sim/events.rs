//! News of ids, and the channels that tell of them.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Channel, ChannelKey, SimChannel, Told};
use super::cm::{IdKey, SimId};
use super::watch::Passing;
use super::world::World;
use crate::cm::{CmEvent, CmEventKind, CmToken, EventChannel, RejectReason};
use crate::error::VerbsError;

/// What an id has to tell.
#[derive(Debug)]
pub(super) enum News {
    Resolved,
    Failed(VerbsError),
    Request {
        child: IdKey,
        private_data: Vec<u8>,
    },
    Response {
        private_data: Vec<u8>,
    },
    Rejected {
        reason: RejectReason,
        private_data: Vec<u8>,
    },
    Established,
    Disconnected,
}

impl Told for (IdKey, News) {
    fn channels(world: &mut World) -> &mut BTreeMap<ChannelKey, Channel<Self>> {
        &mut world.events
    }

    /// A request that nobody will see is turned down.
    fn discard(&self, world: &mut World) {
        if let News::Request { child, .. } = self.1 {
            world.drop_id(child);
        }
    }
}

impl World {
    /// Queues an event of an id. News for ids that are gone, or channels that are, go with them.
    pub(super) fn tell_id(&mut self, channel: ChannelKey, id: IdKey, news: News) {
        if let Some(channel) = self.events.get_mut(&channel) {
            channel.push((id, news));
            self.stir();
        }
    }

    /// Discards the news of an id that is going away.
    pub(super) fn discard_news(&mut self, channel: ChannelKey, id: IdKey) {
        let channel = self.events.get_mut(&channel);
        let gone = channel.map_or_else(VecDeque::new, |channel| {
            channel.extract(|(who, _)| *who == id)
        });
        for news in gone {
            news.discard(self);
        }
    }
}

/// An event channel.
pub(super) type SimEventChannel = SimChannel<(IdKey, News)>;

impl EventChannel for SimEventChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.signal()
    }

    fn poll(&self) -> Option<CmEvent> {
        let (id, news) = self.pop()?;
        if matches!(news, News::Response { .. } | News::Established) {
            let show = |world: &mut World| {
                let qp = world.ids.get(&id).and_then(|id| id.qp);
                world.show(self.node, qp, Passing::Confirmed);
            };
            self.fabric.with(show);
        }
        let kind = match news {
            News::Resolved => CmEventKind::Resolved,
            News::Failed(error) => CmEventKind::Failed(error),
            News::Request {
                child,
                private_data,
            } => CmEventKind::ConnectRequest {
                id: Arc::new(SimId::new(&self.fabric, self.node, child)),
                private_data,
            },
            News::Response { private_data } => CmEventKind::ConnectResponse { private_data },
            News::Rejected {
                reason,
                private_data,
            } => CmEventKind::Rejected {
                reason,
                private_data,
            },
            News::Established => CmEventKind::Established,
            News::Disconnected => CmEventKind::Disconnected,
        };
        Some(CmEvent {
            id: CmToken(id),
            kind,
        })
    }

    fn next_timeout(&self) -> Option<Duration> {
        None
    }
}
