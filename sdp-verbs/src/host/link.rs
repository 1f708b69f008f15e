//! One side of a link: all queue pairs between two provider instances.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock, Weak};

use super::bell;
use super::cells::CHECKED;
use super::channel::HostChannel;
use super::cq::HostCq;
use super::keys::PeerKeys;
use super::layout::{BASE_PENDING, BASE_PROBE, BASE_READY, HEADER_WORDS, Probe, QPS_MAX};
use super::plane::{ControlOut, LocalSide, PeerHello, PeerIdentity, Plane, PlaneMsg};
use super::pool::{CHUNKS_MAX, LocalPool};
use super::qp::HostQp;
use super::region::RegionInner;
use super::shm::{self, Mapping, SEALS_OWNED, SEALS_SHARED};
use super::token;
use super::words::MappedWords;
use super::xmem;
use crate::error::VerbsError;
use crate::hidden;
use crate::own::own;
use crate::qp::QpAttr;
use crate::sync::{Words, fence};

/// Regions of a peer's mapped at once; the system allows 65,530 mappings in all.
const PEER_REGIONS_MAX: usize = if cfg!(test) { 64 } else { 16_384 };

/// Why a link ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LinkEnd {
    /// The peer process died or closed the control socket.
    PeerGone,
    /// The peer broke a rule, named here.
    Protocol(String),
    /// We closed an idle link.
    Idle,
}

/// What of the peer's memory we can read.
#[derive(Debug)]
struct PeerMemory {
    pid: i32,
    keys: Option<PeerKeys>,
    /// Where its key table lies, and what it is named: what a probe looks for.
    table_addr: u64,
    tag: u128,
    /// Whether `process_vm_readv` works, as far as it has been tried.
    heap: OnceLock<Probe>,
}

#[derive(Debug, Default)]
struct QpSlots {
    slots: Vec<Weak<HostQp>>,
    free: Vec<u16>,
}

/// One side of a link. Thread-safe.
#[derive(Debug)]
pub(crate) struct PeerLink {
    plane: Arc<Plane>,
    id: u64,
    peer: PeerIdentity,
    out: Arc<dyn ControlOut>,
    pool: Arc<LocalPool>,
    base: MappedWords,
    peer_base: MappedWords,
    peer_chunks: RwLock<Vec<Arc<Mapping>>>,
    memory: PeerMemory,
    /// Closed when the link ends.
    bells: RwLock<Option<Bells>>,
    qps: Mutex<QpSlots>,
    /// The peer knows tokens.
    tokens: bool,
    shown: Mutex<HashSet<u32>>,
    peer_regions: RwLock<HashMap<u32, Arc<Mapping>>>,
    /// A chunk or region was looked for that had not come.
    lacking: AtomicBool,
    dead: AtomicBool,
    warned: AtomicBool,
}

#[derive(Debug)]
struct Bells {
    own: OwnedFd,
    peer: OwnedFd,
}

impl PeerLink {
    /// Builds the data plane of a link from both halves of the handshake.
    ///
    /// # Errors
    /// [`VerbsError::Protocol`] if a descriptor of the peer's is not what it should be.
    pub(crate) fn new(
        side: LocalSide,
        peer: PeerIdentity,
        hello: PeerHello,
        out: Arc<dyn ControlOut>,
    ) -> Result<Arc<Self>, VerbsError> {
        let (plane, doorbell, pool) = side.into_parts();
        let facts = hello.facts;
        let base_map = map_chunk(&hello.base, facts.base_len)?;
        let peer_base = header_of(&base_map).ok_or_else(|| VerbsError::Protocol {
            what: "base chunk of the peer",
            rule: format!("{} bytes are too few", facts.base_len),
        })?;
        bell::check_doorbell(hello.doorbell.as_fd())?;
        let keys = match &hello.key_table {
            None => None,
            Some(fd) => Some(PeerKeys::new(
                fd,
                facts.tag,
                facts.key_table_addr,
                facts.key_table_len,
            )?),
        };
        let heap = OnceLock::new();
        let refused = match keys {
            None => Some(libc::EACCES),
            Some(_) if peer.pid <= 0 => Some(libc::ESRCH),
            Some(_) => None,
        };
        if let Some(errno) = refused {
            let probe = Probe::Refused(errno);
            peer_base.store(BASE_PROBE, probe.to_word(), Ordering::Release);
            heap.get_or_init(|| probe);
        }
        let base = header_of(&pool.base_map()).expect("our own base chunk has a header");
        pool.announce_to(Arc::clone(&out));
        let link = Arc::new(Self {
            id: plane.next_link(),
            plane,
            peer,
            out,
            pool,
            base,
            peer_base,
            peer_chunks: RwLock::new(vec![base_map]),
            memory: PeerMemory {
                pid: peer.pid,
                keys,
                table_addr: facts.key_table_addr,
                tag: facts.tag,
                heap,
            },
            bells: RwLock::new(Some(Bells {
                own: doorbell,
                peer: hidden::hide(hello.doorbell),
            })),
            qps: Mutex::default(),
            tokens: hello.tokens,
            shown: Mutex::default(),
            peer_regions: RwLock::default(),
            lacking: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        });
        link.plane.add_link(&link)?;
        Ok(link)
    }

    /// Its number in the instance.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The instance it belongs to.
    pub(crate) fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Our shared memory on it.
    pub(crate) fn pool(&self) -> &Arc<LocalPool> {
        &self.pool
    }

    /// Whether it has ended. What the peer published before may still be in the rings.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// A `Chunk` message of the peer's. After an error call [`broken`](Self::broken).
    ///
    /// # Errors
    /// [`VerbsError::Protocol`], or what mapping says.
    pub(crate) fn attach_chunk(&self, id: u32, fd: OwnedFd, len: u64) -> Result<(), VerbsError> {
        let map = map_chunk(&fd, len)?;
        let mut chunks = self
            .peer_chunks
            .write()
            .expect("nothing panics under this lock");
        if usize::try_from(id).ok() != Some(chunks.len()) || chunks.len() >= CHUNKS_MAX {
            return Err(VerbsError::Protocol {
                what: "chunk of the peer",
                rule: format!("it is number {id}, expected {}", chunks.len()),
            });
        }
        chunks.push(map);
        drop(chunks);
        self.wake_the_lacking();
        Ok(())
    }

    /// A `Region` message of the peer's. After an error call [`broken`](Self::broken).
    ///
    /// # Errors
    /// [`VerbsError::Protocol`], or what mapping says.
    pub(crate) fn attach_region(&self, id: u32, fd: OwnedFd, len: u64) -> Result<(), VerbsError> {
        let what = "region of the peer";
        shm::verify(fd.as_fd(), what, len, SEALS_OWNED, true)?;
        let len = map_len(what, len)?;
        let map = Arc::new(Mapping::read_only(fd.as_fd(), len)?);
        let mut regions = self
            .peer_regions
            .write()
            .expect("nothing panics under this lock");
        if regions.len() >= PEER_REGIONS_MAX {
            return Err(VerbsError::Protocol {
                what,
                rule: format!("more than {PEER_REGIONS_MAX} at once"),
            });
        }
        if regions.insert(id, map).is_some() {
            return Err(VerbsError::Protocol {
                what,
                rule: format!("number {id} is in use"),
            });
        }
        drop(regions);
        self.wake_the_lacking();
        Ok(())
    }

    /// A `RegionGone` message of the peer's. After an error call [`broken`](Self::broken).
    ///
    /// # Errors
    /// [`VerbsError::Protocol`].
    pub(crate) fn detach_region(&self, id: u32) -> Result<(), VerbsError> {
        let mut regions = self
            .peer_regions
            .write()
            .expect("nothing panics under this lock");
        match regions.remove(&id) {
            Some(_) => Ok(()),
            None => Err(VerbsError::Protocol {
                what: "region of the peer",
                rule: format!("number {id} is not mapped"),
            }),
        }
    }

    /// A `TokenSocket` message of the peer's. After an error call [`broken`](Self::broken).
    ///
    /// # Errors
    /// [`VerbsError::Protocol`].
    pub(crate) fn attach_token_socket(
        &self,
        (index, qp): (u16, u32),
        socket: OwnedFd,
    ) -> Result<(), VerbsError> {
        token::check(socket.as_fd())?;
        if !self.may_share_tokens() {
            return Ok(());
        }
        let found = self
            .qps()
            .slots
            .get(usize::from(index))
            .and_then(Weak::upgrade);
        // The connection may have ended since.
        if let Some(found) = found.filter(|found| found.number() == qp) {
            found.keep_token_socket(socket);
        }
        Ok(())
    }

    /// Lends the peer a socket to put tokens into, for its queue pair at `place`.
    ///
    /// # Errors
    /// [`VerbsError::Unsupported`] if the peer knows no tokens or is another user's; the control
    /// socket's.
    pub(crate) fn lend_token_socket(
        &self,
        (index, qp): (u16, u32),
        socket: BorrowedFd<'_>,
    ) -> Result<(), VerbsError> {
        if !self.may_share_tokens() {
            return Err(VerbsError::Unsupported {
                provider: "host",
                op: "lending a token socket to a peer of layout version 1.1 or of another user",
            });
        }
        self.out
            .send(PlaneMsg::TokenSocket { index, qp }, &[socket])
    }

    /// Whether sockets for tokens are lent and taken. Not where another user could show our program
    /// what is not there, or have us speak as ourselves to whomever its socket leads to.
    fn may_share_tokens(&self) -> bool {
        self.tokens && self.is_own_user()
    }

    /// A queue pair on this link, not yet connected.
    ///
    /// # Errors
    /// [`VerbsError::Argument`] if the completion queue is not of this instance or a size is zero,
    /// [`VerbsError::Limit`], [`VerbsError::State`] if the link has ended.
    pub(crate) fn create_qp(self: &Arc<Self>, attr: &QpAttr) -> Result<Arc<HostQp>, VerbsError> {
        if self.is_dead() {
            return Err(VerbsError::State {
                op: "create_qp",
                state: "link ended",
            });
        }
        let cq = own(
            Arc::clone(&attr.cq) as _,
            "completion queue",
            |cq: &HostCq| cq.belongs_to(&self.plane),
        )?;
        let mut slots = self.qps();
        let index = match slots.free.pop() {
            Some(index) => index,
            None => {
                let index = u16::try_from(slots.slots.len()).map_err(|_| VerbsError::Limit {
                    what: "queue pairs of a link",
                    limit: QPS_MAX.to_string(),
                    remedy: "close some connections",
                })?;
                slots.slots.push(Weak::new());
                index
            }
        };
        drop(slots);
        let made = HostQp::create(self, &cq, attr, index);
        let mut slots = self.qps();
        match &made {
            Ok(qp) => slots.slots[usize::from(index)] = Arc::downgrade(qp),
            Err(_) => slots.free.push(index),
        }
        made
    }

    /// A queue pair is gone.
    pub(crate) fn remove_qp(&self, index: u16) {
        let mut slots = self.qps();
        slots.slots[usize::from(index)] = Weak::new();
        slots.free.push(index);
    }

    /// Queue pairs that exist on this link; an idle link has none.
    pub(crate) fn qp_count(&self) -> usize {
        let slots = self.qps();
        slots.slots.len() - slots.free.len()
    }

    /// The peer died or the link is unusable. Every queue pair delivers what the peer had
    /// published, then flushes; waiters and channels are woken. Harmless if repeated.
    pub(crate) fn broken(&self, end: LinkEnd) {
        if self.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        if let LinkEnd::Protocol(rule) = &end {
            tracing::warn!(peer = self.peer.pid, %rule, "host link broken by the peer");
        }
        self.close_bells();
        self.pool.close();
        self.wake_all();
    }

    fn close_bells(&self) {
        let bells = self
            .bells
            .write()
            .expect("nothing panics under this lock")
            .take();
        if let Some(bells) = bells {
            for channel in self.plane.channels() {
                channel.forget(bells.own.as_fd());
            }
        }
        self.plane.remove_link(self.id);
    }

    fn qps(&self) -> MutexGuard<'_, QpSlots> {
        self.qps.lock().expect("nothing panics under this lock")
    }

    /// Looks, and looks again after a note that something was lacking: what came in between is
    /// found, what comes later wakes.
    fn find_or_lack<T>(&self, find: impl Fn() -> Option<T>) -> Option<T> {
        find().or_else(|| {
            self.lacking.store(true, Ordering::SeqCst);
            find()
        })
    }

    /// Something of the peer's has come: if any queue pair lacked something, all look again.
    /// Otherwise nobody does, so that the memory of many connections costs nothing for each.
    fn wake_the_lacking(&self) {
        if self.lacking.swap(false, Ordering::SeqCst) {
            self.wake_all();
        }
    }

    /// Makes every queue pair look again at what it may now be able to do.
    fn wake_all(&self) {
        let qps: Vec<_> = self.qps().slots.iter().filter_map(Weak::upgrade).collect();
        for qp in qps {
            qp.cq().event(true);
        }
    }

    /// Registers our doorbell with a channel, unless the link has ended.
    pub(crate) fn ring_into(&self, channel: &HostChannel) -> Result<(), VerbsError> {
        let bells = self.bells.read().expect("nothing panics under this lock");
        match &*bells {
            Some(bells) => channel.hear(self.id, bells.own.as_fd()),
            None => Ok(()),
        }
    }

    /// Tells the peer's channels that its queue pair has an event.
    pub(crate) fn ring_peer(&self, ready: u16) {
        let (word, bit) = (usize::from(ready / 64), ready % 64);
        self.peer_base
            .fetch_or(BASE_READY + word, 1 << bit, Ordering::AcqRel);
        if self.peer_base.swap(BASE_PENDING, 1, Ordering::SeqCst) == 0 {
            let bells = self.bells.read().expect("nothing panics under this lock");
            if let Some(bells) = &*bells {
                bell::ring_doorbell(bells.peer.as_fd());
            }
        }
    }

    /// Our doorbell rang: hands the events to the queues they belong to.
    pub(crate) fn answer_doorbell(&self) {
        {
            let bells = self.bells.read().expect("nothing panics under this lock");
            let Some(bells) = &*bells else { return };
            bell::silence_doorbell(bells.own.as_fd());
        }
        self.base.swap(BASE_PENDING, 0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let count = self.qps().slots.len();
        for word in 0..count.div_ceil(64) {
            let mut bits = self.base.swap(BASE_READY + word, 0, Ordering::AcqRel);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let index = word * 64 + bit as usize;
                let qp = self.qps().slots.get(index).and_then(Weak::upgrade);
                if let Some(qp) = qp {
                    qp.cq().doorbell();
                }
            }
        }
    }

    /// A chunk of the peer's, once its message has come.
    pub(crate) fn peer_chunk(&self, id: u32) -> Option<Arc<Mapping>> {
        let id = usize::try_from(id).ok()?;
        self.find_or_lack(|| {
            let chunks = self
                .peer_chunks
                .read()
                .expect("nothing panics under this lock");
            chunks.get(id).map(Arc::clone)
        })
    }

    /// A region of the peer's, while it is mapped.
    pub(crate) fn peer_region(&self, id: u32) -> Option<Arc<Mapping>> {
        self.find_or_lack(|| {
            let regions = self
                .peer_regions
                .read()
                .expect("nothing panics under this lock");
            regions.get(&id).map(Arc::clone)
        })
    }

    /// The peer's keys, if it shows them to us.
    pub(crate) fn peer_keys(&self) -> Option<&PeerKeys> {
        self.memory.keys.as_ref()
    }

    /// Whether the process image that showed us its memory is there no more. What we have mapped of
    /// it stays readable, and its keys look alive: nobody has killed them.
    pub(crate) fn is_deserted(&self) -> bool {
        // Who is in our own process is there as long as we are.
        let own = rustix::process::getpid().as_raw_pid() == self.peer.pid;
        CHECKED && !own && (self.is_dead() || self.out.is_deserted())
    }

    /// The peer's process, if the kernel reads its memory for us. The first call tries, and tells
    /// the peer: processes that only share registered memory never ask the kernel.
    pub(crate) fn readable_pid(&self) -> Option<i32> {
        let PeerMemory { pid, tag, .. } = self.memory;
        let probe = self.memory.heap.get_or_init(|| {
            let probe = match xmem::probe(pid, self.memory.table_addr, tag) {
                Ok(()) => Probe::Reachable,
                Err(errno) => Probe::Refused(errno),
            };
            self.peer_base
                .store(BASE_PROBE, probe.to_word(), Ordering::Release);
            probe
        });
        (*probe == Probe::Reachable).then_some(pid)
    }

    /// Whether the peer can reach memory of ours that is not shown to it as a region. Before it
    /// has tried, the answer is yes: a read that then fails leaves the queue pair as it was.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn heap_reachable(&self) -> Result<(), String> {
        match Probe::from_word(self.base.load(BASE_PROBE, Ordering::Acquire)) {
            Probe::Reachable | Probe::Unknown => Ok(()),
            Probe::Refused(errno) => Err(xmem::reason(errno)),
        }
    }

    /// Whether the peer runs as our user. No other is shown registered memory.
    pub(crate) fn is_own_user(&self) -> bool {
        self.peer.uid == rustix::process::geteuid().as_raw()
    }

    /// Passes a region of ours to the peer, if it was not before. Heap needs no passing.
    ///
    /// # Errors
    /// The control socket's; [`VerbsError::Limit`] if the peer has as many as it takes.
    pub(crate) fn show_region(&self, region: &RegionInner) -> Result<(), VerbsError> {
        let Some(fd) = region.fd() else { return Ok(()) };
        let mut shown = self.shown.lock().expect("nothing panics under this lock");
        if shown.contains(&region.id()) {
            return Ok(());
        }
        if shown.len() >= PEER_REGIONS_MAX {
            return Err(VerbsError::Limit {
                what: "registered memory shown to one peer",
                limit: format!("{PEER_REGIONS_MAX} regions"),
                remedy: "register fewer and larger ones",
            });
        }
        let msg = PlaneMsg::Region {
            id: region.id(),
            len: region.len() as u64,
        };
        self.out.send(msg, &[fd])?;
        shown.insert(region.id());
        Ok(())
    }

    /// Tells the peer that a region of ours is gone, if it was shown.
    pub(crate) fn hide_region(&self, id: u32) {
        let mut shown = self.shown.lock().expect("nothing panics under this lock");
        if shown.remove(&id)
            && let Err(error) = self.out.send(PlaneMsg::RegionGone { id }, &[])
        {
            // The peer keeps a mapping of memory that no key names: it costs memory, no more.
            tracing::debug!(%error, region = id, "could not tell the peer of a region's end");
        }
    }

    /// Logs, once per link, a rule that the peer broke on one of its queue pairs.
    pub(crate) fn warn(&self, qp: u32, rule: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                peer = self.peer.pid,
                qp = format_args!("{qp:#x}"),
                rule,
                "host peer broke a rule of the shared rings"
            );
        }
    }
}

impl Drop for PeerLink {
    fn drop(&mut self) {
        self.close_bells();
        self.pool.close();
    }
}

fn header_of(map: &Arc<Mapping>) -> Option<MappedWords> {
    MappedWords::new(map, 0, HEADER_WORDS)
}

fn map_len(what: &'static str, len: u64) -> Result<usize, VerbsError> {
    usize::try_from(len)
        .ok()
        .filter(|len| len.is_multiple_of(shm::PAGE_LEN))
        .ok_or_else(|| VerbsError::Protocol {
            what,
            rule: format!("{len} bytes are not whole pages of this machine"),
        })
}

fn map_chunk(fd: &OwnedFd, len: u64) -> Result<Arc<Mapping>, VerbsError> {
    let what = "chunk of the peer";
    shm::verify(fd.as_fd(), what, len, SEALS_SHARED, true)?;
    let len = map_len(what, len)?;
    Ok(Arc::new(Mapping::read_write(fd.as_fd(), len)?))
}
