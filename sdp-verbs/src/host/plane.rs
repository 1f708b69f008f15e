//! The data plane of one provider instance, and what it exchanges with the control plane.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use super::bell::new_doorbell;
use super::channel::HostChannel;
use super::keys::{KeyTable, TABLE_LEN};
use super::link::PeerLink;
use super::pool::LocalPool;
use super::region::Regions;
use crate::error::VerbsError;

/// Numbers of the handshake that the data plane supplies and reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HelloFacts {
    /// Random name of this provider instance.
    pub(crate) tag: u128,
    /// Address of the key table in its owner's memory, for reads that prove themselves.
    pub(crate) key_table_addr: u64,
    /// Bytes of the key table.
    pub(crate) key_table_len: u64,
    /// Bytes of the base chunk.
    pub(crate) base_len: u64,
}

/// Who the peer is, as the kernel says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PeerIdentity {
    /// Process id in our pid namespace; 0 if it has none there.
    pub(crate) pid: i32,
    /// Its user; only a peer of our own user is shown registered memory.
    pub(crate) uid: u32,
}

/// What the peer's handshake carried. Control checks the number of descriptors; the data plane
/// checks what they are.
#[derive(Debug)]
pub(crate) struct PeerHello {
    /// Its numbers.
    pub(crate) facts: HelloFacts,
    /// A doorbell that wakes the peer's channels.
    pub(crate) doorbell: OwnedFd,
    /// The peer's base chunk.
    pub(crate) base: OwnedFd,
    /// The peer's key table, if it showed it to us.
    pub(crate) key_table: Option<OwnedFd>,
    /// It knows tokens.
    pub(crate) tokens: bool,
}

/// A message of the data plane on the control socket. It must arrive in order with all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlaneMsg {
    /// One descriptor: a new chunk of ours.
    Chunk { id: u32, len: u64 },
    /// One descriptor: registered memory of ours.
    Region { id: u32, len: u64 },
    /// No descriptor: a region is gone, unmap it.
    RegionGone { id: u32 },
    /// One descriptor: where the peer may put tokens for its queue pair `qp`, the one at `index`.
    TokenSocket { index: u16, qp: u32 },
}

/// The control socket, as the data plane sees it.
pub(crate) trait ControlOut: fmt::Debug + Send + Sync {
    /// Sends a message; the descriptors stay the caller's. Must not block, and must not call back
    /// into the data plane: the caller holds locks.
    ///
    /// # Errors
    /// The link is broken or its socket full.
    fn send(&self, msg: PlaneMsg, fds: &[BorrowedFd<'_>]) -> Result<(), VerbsError>;

    /// Whether the peer has ended or become another program, as the kernel knows it now: events
    /// of that may still wait to be taken.
    fn is_deserted(&self) -> bool;
}

/// What links and channels need of each other.
#[derive(Debug, Default)]
struct Bells {
    links: HashMap<u64, Weak<PeerLink>>,
    channels: Vec<Weak<HostChannel>>,
}

/// The data plane of one provider instance.
pub(crate) struct Plane {
    tag: u128,
    keys: Arc<KeyTable>,
    regions: Regions,
    bells: RwLock<Bells>,
    last_qp: AtomicU32,
    last_link: AtomicU64,
    /// Peers' sockets that are kept to put tokens into.
    token_sockets: Arc<AtomicU64>,
    /// Serialises link set-up against channel set-up, so that each channel hears each link.
    setup: Mutex<()>,
}

/// Its name only: everything of an instance holds it.
impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plane({:#x})", self.tag)
    }
}

impl Plane {
    /// A new instance with its own tag and key table.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] or [`VerbsError::Unavailable`].
    pub(crate) fn new() -> Result<Arc<Self>, VerbsError> {
        let mut tag = [0; 16];
        getrandom::fill(&mut tag).map_err(|e| VerbsError::Unavailable {
            provider: "host",
            reason: format!("no random numbers: {e}"),
        })?;
        let tag = u128::from_ne_bytes(tag);
        Ok(Arc::new(Self {
            tag,
            keys: Arc::new(KeyTable::new(tag)?),
            regions: Regions::default(),
            bells: RwLock::default(),
            last_qp: AtomicU32::new(0),
            last_link: AtomicU64::new(0),
            token_sockets: Arc::default(),
            setup: Mutex::default(),
        }))
    }

    /// Our name in handshakes.
    pub(crate) fn tag(&self) -> u128 {
        self.tag
    }

    /// Our remote keys.
    pub(crate) fn keys(&self) -> &Arc<KeyTable> {
        &self.keys
    }

    /// Our registered memory.
    pub(crate) fn regions(&self) -> &Regions {
        &self.regions
    }

    /// How many sockets of peers are kept to put tokens into.
    pub(crate) fn token_sockets(&self) -> &Arc<AtomicU64> {
        &self.token_sockets
    }

    /// Makes our half of a link: its doorbell and base chunk.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] when out of descriptors or memory.
    pub(crate) fn open_side(self: &Arc<Self>) -> Result<LocalSide, VerbsError> {
        let (doorbell, peers_end) = new_doorbell()?;
        let (pool, base) = LocalPool::new()?;
        Ok(LocalSide {
            plane: Arc::clone(self),
            doorbell,
            peers_end,
            base,
            pool: Arc::new(pool),
        })
    }

    /// A number for a queue pair that none had before (it wraps after 2^32).
    pub(crate) fn next_qp(&self) -> u32 {
        self.last_qp.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// A number for a link; 0 is never one.
    pub(crate) fn next_link(&self) -> u64 {
        self.last_link.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes every channel hear a new link's doorbell.
    pub(crate) fn add_link(&self, link: &Arc<PeerLink>) -> Result<(), VerbsError> {
        let _setup = self.setup.lock().expect("nothing panics under this lock");
        for channel in self.channels() {
            link.ring_into(&channel)?;
        }
        let mut bells = self.bells.write().expect("nothing panics under this lock");
        bells.links.insert(link.id(), Arc::downgrade(link));
        Ok(())
    }

    /// Makes a new channel hear every link's doorbell.
    pub(crate) fn add_channel(&self, channel: &Arc<HostChannel>) -> Result<(), VerbsError> {
        let _setup = self.setup.lock().expect("nothing panics under this lock");
        for link in self.links() {
            link.ring_into(channel)?;
        }
        let mut bells = self.bells.write().expect("nothing panics under this lock");
        bells.channels.retain(|c| c.strong_count() > 0);
        bells.channels.push(Arc::downgrade(channel));
        Ok(())
    }

    /// Forgets a link. It was taken out of the channels before.
    pub(crate) fn remove_link(&self, id: u64) {
        let mut bells = self.bells.write().expect("nothing panics under this lock");
        bells.links.remove(&id);
    }

    /// Channels alive now.
    pub(crate) fn channels(&self) -> Vec<Arc<HostChannel>> {
        let bells = self.bells.read().expect("nothing panics under this lock");
        bells.channels.iter().filter_map(Weak::upgrade).collect()
    }

    /// The link of this number.
    pub(crate) fn link(&self, id: u64) -> Option<Arc<PeerLink>> {
        let bells = self.bells.read().expect("nothing panics under this lock");
        bells.links.get(&id)?.upgrade()
    }

    fn links(&self) -> Vec<Arc<PeerLink>> {
        let bells = self.bells.read().expect("nothing panics under this lock");
        bells.links.values().filter_map(Weak::upgrade).collect()
    }

    /// A region of ours was deregistered: peers that mapped it unmap it.
    pub(crate) fn region_gone(&self, id: u32) {
        for link in self.links() {
            link.hide_region(id);
        }
    }
}

/// Our half of a link that is being made.
#[derive(Debug)]
pub(crate) struct LocalSide {
    plane: Arc<Plane>,
    doorbell: OwnedFd,
    /// The end of the doorbell that is the peer's.
    peers_end: OwnedFd,
    base: OwnedFd,
    pool: Arc<LocalPool>,
}

impl LocalSide {
    /// What to put into the handshake message.
    pub(crate) fn facts(&self) -> HelloFacts {
        HelloFacts {
            tag: self.plane.tag,
            key_table_addr: self.plane.keys.addr(),
            key_table_len: TABLE_LEN as u64,
            base_len: self.pool.base_len(),
        }
    }

    /// To be passed to the peer.
    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.peers_end.as_fd()
    }

    /// To be passed to the peer.
    pub(crate) fn base(&self) -> BorrowedFd<'_> {
        self.base.as_fd()
    }

    /// To be passed to the peer if it runs as our own user.
    pub(crate) fn key_table(&self) -> BorrowedFd<'_> {
        self.plane.keys.fd()
    }

    /// Taken apart by the link.
    pub(crate) fn into_parts(self) -> (Arc<Plane>, OwnedFd, Arc<LocalPool>) {
        (self.plane, self.doorbell, self.pool)
    }
}
