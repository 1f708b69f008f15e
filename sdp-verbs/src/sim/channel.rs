//! Channels: queues of tokens or events, with a descriptor that is readable while there are any.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;

use super::fabric::Fabric;
use super::world::{NodeKey, World};
use crate::cq::{CompChannel, CqToken};
use crate::error::VerbsError;

/// Names a channel of either kind.
pub(super) type ChannelKey = u64;

/// What channels tell of.
pub(super) trait Told: Debug + Send + Sized + 'static {
    /// The channels of the fabric that tell of it.
    fn channels(world: &mut World) -> &mut BTreeMap<ChannelKey, Channel<Self>>;

    /// Nobody will take it any more.
    fn discard(&self, world: &mut World);
}

impl Told for CqToken {
    fn channels(world: &mut World) -> &mut BTreeMap<ChannelKey, Channel<Self>> {
        &mut world.completions
    }

    fn discard(&self, _: &mut World) {}
}

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

/// A channel on the fabric.
#[derive(Debug)]
pub(super) struct Channel<T> {
    node: NodeKey,
    queue: VecDeque<T>,
    signal: Signal,
}

impl<T> Channel<T> {
    pub(super) fn push(&mut self, told: T) {
        self.queue.push_back(told);
        self.signal.raise();
    }

    fn pop(&mut self) -> Option<T> {
        let told = self.queue.pop_front();
        if self.queue.is_empty() {
            self.signal.clear();
        }
        told
    }

    /// Takes out what fits.
    pub(super) fn extract(&mut self, fits: impl Fn(&T) -> bool) -> VecDeque<T> {
        let (gone, kept) = self.queue.drain(..).partition(fits);
        self.queue = kept;
        gone
    }
}

impl World {
    /// Raises the event of a completion queue.
    pub(super) fn tell_channel(&mut self, channel: ChannelKey, token: CqToken) {
        let Some(channel) = self.completions.get_mut(&channel) else {
            return;
        };
        let node = channel.node;
        if !channel.queue.contains(&token) {
            channel.push(token);
        }
        let (now, cost) = (self.now(), self.timing.interrupt);
        self.nodes[node].processors.interrupt(now, cost);
        self.stir();
    }

    /// Whether a channel of a machine has anything to tell.
    pub(super) fn has_events(&self, node: NodeKey) -> bool {
        fn tells<T>(channel: &Channel<T>, node: NodeKey) -> bool {
            channel.node == node && !channel.queue.is_empty()
        }
        self.completions.values().any(|c| tells(c, node))
            || self.events.values().any(|c| tells(c, node))
    }
}

/// The handle of a channel.
#[derive(Debug)]
pub(super) struct SimChannel<T: Told> {
    pub(super) fabric: Arc<Fabric>,
    pub(super) node: NodeKey,
    pub(super) key: ChannelKey,
    fd: Arc<OwnedFd>,
    tells: PhantomData<T>,
}

impl<T: Told> SimChannel<T> {
    pub(super) fn open(fabric: &Arc<Fabric>, node: NodeKey) -> Result<Self, VerbsError> {
        let (signal, fd) = Signal::new()?;
        let key = fabric.with(|world| {
            let key = world.new_key();
            let channel = Channel {
                node,
                queue: VecDeque::new(),
                signal,
            };
            T::channels(world).insert(key, channel);
            key
        });
        Ok(Self {
            fabric: Arc::clone(fabric),
            node,
            key,
            fd,
            tells: PhantomData,
        })
    }

    pub(super) fn is_on(&self, fabric: &Arc<Fabric>, node: NodeKey) -> bool {
        Arc::ptr_eq(&self.fabric, fabric) && self.node == node
    }

    /// A descriptor that is readable while there is something to tell.
    pub(super) fn signal(&self) -> BorrowedFd<'_> {
        self.fabric.with(|world| {
            if let Some(channel) = T::channels(world).get_mut(&self.key) {
                channel.signal.ask(!channel.queue.is_empty());
            }
        });
        self.fd.as_fd()
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.fabric
            .with(|world| T::channels(world).get_mut(&self.key)?.pop())
    }
}

impl<T: Told> Drop for SimChannel<T> {
    fn drop(&mut self) {
        let channel = self.fabric.with(|world| {
            let channel = T::channels(world).remove(&self.key);
            for told in channel.iter().flat_map(|channel| &channel.queue) {
                told.discard(world);
            }
            channel
        });
        // Its descriptor is closed outside the lock.
        drop(channel);
    }
}

/// A completion channel.
pub(super) type SimCompChannel = SimChannel<CqToken>;

impl CompChannel for SimCompChannel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.signal()
    }

    fn poll(&self) -> Option<CqToken> {
        self.pop()
    }
}
