//! Channels: queues of tokens or events, with a descriptor that is readable while there are any.

use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::EventfdFlags;

use super::cm::{IdKey, News, SimId};
use super::fabric::Fabric;
use super::world::{ChannelKey, NodeKey, World};
use crate::cm::{CmEvent, CmEventKind, CmToken, EventChannel};
use crate::cq::{CompChannel, CqToken};
use crate::error::VerbsError;

/// A descriptor that costs system calls only once somebody has asked for it.
#[derive(Debug)]
struct Signal {
    fd: Arc<OwnedFd>,
    asked: bool,
}

impl Signal {
    fn new() -> Result<(Self, Arc<OwnedFd>), VerbsError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = rustix::event::eventfd(0, flags)
            .map_err(|error| VerbsError::os("opening the eventfd of a channel", error))?;
        let fd = Arc::new(fd);
        let own = Arc::clone(&fd);
        Ok((Self { fd, asked: false }, own))
    }

    fn raise(&self) {
        if self.asked
            && let Err(error) = rustix::io::write(&*self.fd, &1u64.to_ne_bytes())
        {
            // Only a counter at its maximum can refuse, and then the descriptor is readable.
            tracing::warn!(%error, "sim channel: eventfd not written");
        }
    }

    fn clear(&self) {
        if !self.asked {
            return;
        }
        match rustix::io::read(&*self.fd, &mut [0u8; 8]) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => tracing::warn!(%error, "sim channel: eventfd not cleared"),
        }
    }

    fn ask(&mut self, pending: bool) {
        if !std::mem::replace(&mut self.asked, true) && pending {
            self.raise();
        }
    }
}

/// Queues that have something to tell.
#[derive(Debug)]
pub(super) struct Completions {
    node: NodeKey,
    tokens: VecDeque<CqToken>,
    signal: Signal,
}

/// News of ids.
#[derive(Debug)]
pub(super) struct Events {
    node: NodeKey,
    news: VecDeque<(IdKey, News)>,
    signal: Signal,
}

impl World {
    /// Raises the event of a completion queue.
    pub(super) fn tell_channel(&mut self, channel: ChannelKey, token: CqToken) {
        let Some(channel) = self.completions.get_mut(&channel) else {
            return;
        };
        let node = channel.node;
        if !channel.tokens.contains(&token) {
            channel.tokens.push_back(token);
            channel.signal.raise();
        }
        let cost = self.timing.interrupt;
        self.charge(node, cost);
        self.stir();
    }

    /// Queues an event of an id. News for ids that are gone, or channels that are, go with them.
    pub(super) fn tell_id(&mut self, channel: ChannelKey, id: IdKey, news: News) {
        if let Some(channel) = self.events.get_mut(&channel) {
            channel.news.push_back((id, news));
            channel.signal.raise();
            self.stir();
        }
    }

    /// Whether a channel of a machine has anything to tell.
    pub(super) fn has_events(&self, node: NodeKey) -> bool {
        let told = |channel: &Completions| channel.node == node && !channel.tokens.is_empty();
        let news = |channel: &Events| channel.node == node && !channel.news.is_empty();
        self.completions.values().any(told) || self.events.values().any(news)
    }

    /// Takes the news of an id that is going away.
    pub(super) fn take_news(&mut self, channel: ChannelKey, id: IdKey) -> Vec<News> {
        let Some(channel) = self.events.get_mut(&channel) else {
            return Vec::new();
        };
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            channel.news.drain(..).partition(|(who, _)| *who == id);
        channel.news = kept;
        gone.into_iter().map(|(_, news)| news).collect()
    }
}

/// See [`CompChannel`].
#[derive(Debug)]
pub(super) struct SimCompChannel {
    fabric: Arc<Fabric>,
    pub(super) node: NodeKey,
    pub(super) key: ChannelKey,
    fd: Arc<OwnedFd>,
}

impl SimCompChannel {
    pub(super) fn open(fabric: &Arc<Fabric>, node: NodeKey) -> Result<Self, VerbsError> {
        let (signal, fd) = Signal::new()?;
        let key = fabric.with(|world| {
            let key = world.new_key();
            let channel = Completions {
                node,
                tokens: VecDeque::new(),
                signal,
            };
            world.completions.insert(key, channel);
            key
        });
        Ok(Self {
            fabric: Arc::clone(fabric),
            node,
            key,
            fd,
        })
    }

    pub(super) fn is_on(&self, fabric: &Arc<Fabric>, node: NodeKey) -> bool {
        Arc::ptr_eq(&self.fabric, fabric) && self.node == node
    }
}

impl Drop for SimCompChannel {
    fn drop(&mut self) {
        let channel = self
            .fabric
            .with(|world| world.completions.remove(&self.key));
        drop(channel);
    }
}

impl CompChannel for SimCompChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fabric.with(|world| {
            if let Some(channel) = world.completions.get_mut(&self.key) {
                channel.signal.ask(!channel.tokens.is_empty());
            }
        });
        self.fd.as_fd()
    }

    fn poll(&self) -> Option<CqToken> {
        self.fabric.with(|world| {
            let channel = world.completions.get_mut(&self.key)?;
            let token = channel.tokens.pop_front();
            if channel.tokens.is_empty() {
                channel.signal.clear();
            }
            token
        })
    }
}

/// See [`EventChannel`].
#[derive(Debug)]
pub(super) struct SimEventChannel {
    fabric: Arc<Fabric>,
    node: NodeKey,
    pub(super) key: ChannelKey,
    fd: Arc<OwnedFd>,
}

impl SimEventChannel {
    pub(super) fn open(fabric: &Arc<Fabric>, node: NodeKey) -> Result<Self, VerbsError> {
        let (signal, fd) = Signal::new()?;
        let key = fabric.with(|world| {
            let key = world.new_key();
            let channel = Events {
                node,
                news: VecDeque::new(),
                signal,
            };
            world.events.insert(key, channel);
            key
        });
        Ok(Self {
            fabric: Arc::clone(fabric),
            node,
            key,
            fd,
        })
    }

    /// The channel of this machine behind a handle.
    pub(super) fn from_dyn(
        channel: &Arc<dyn EventChannel>,
        fabric: &Arc<Fabric>,
        node: NodeKey,
    ) -> Result<ChannelKey, VerbsError> {
        let channel: &dyn Any = &**channel;
        let channel = channel.downcast_ref::<Self>();
        let channel = channel.filter(|c| Arc::ptr_eq(&c.fabric, fabric) && c.node == node);
        let channel = channel.ok_or_else(|| VerbsError::Argument {
            what: "event channel",
            reason: "it is not of this provider instance".to_owned(),
        })?;
        Ok(channel.key)
    }
}

impl Drop for SimEventChannel {
    fn drop(&mut self) {
        let channel = self.fabric.with(|world| {
            let channel = world.events.remove(&self.key);
            for (_, news) in channel.iter().flat_map(|channel| &channel.news) {
                if let News::Request { child, .. } = news {
                    world.drop_id(*child);
                }
            }
            channel
        });
        drop(channel);
    }
}

impl EventChannel for SimEventChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fabric.with(|world| {
            if let Some(channel) = world.events.get_mut(&self.key) {
                channel.signal.ask(!channel.news.is_empty());
            }
        });
        self.fd.as_fd()
    }

    fn poll(&self) -> Option<CmEvent> {
        let (id, news) = self.fabric.with(|world| {
            let channel = world.events.get_mut(&self.key)?;
            let news = channel.news.pop_front();
            if channel.news.is_empty() {
                channel.signal.clear();
            }
            news
        })?;
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
