//! Registered memory, windows over it, and the keys to both.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use super::fabric::Fabric;
use super::faults::Fault;
use super::options::wide;
use super::processors::Work;
use super::world::{NodeKey, World};
use crate::error::{PostError, VerbsError};
use crate::memory::{Block, ForeignSlice};
use crate::mr::{Binding, MemoryRegion, MemoryWindow};
use crate::types::{Access, Lkey, QpNum, RemoteAddr, Rkey, Sge};

/// Registered memory of a machine.
#[derive(Debug)]
struct Region {
    node: NodeKey,
    mem: ForeignSlice,
    access: Access,
    /// The provider's own memory.
    own: bool,
}

/// A key that a peer may hold.
#[derive(Debug)]
struct Key {
    node: NodeKey,
    /// The queue pair it is bound on; none for a region's own key.
    qp: Option<QpNum>,
    lkey: Lkey,
    mem: ForeignSlice,
    access: Access,
    /// The bind has been carried out.
    bound: bool,
}

/// All registered memory and all live keys.
#[derive(Debug, Default)]
pub(super) struct Regions {
    regions: BTreeMap<u32, Region>,
    keys: BTreeMap<u32, Key>,
}

/// Why memory cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoAccess;

/// The part of `mem` that is `addr..addr + len`.
fn part(mem: &ForeignSlice, addr: u64, len: usize) -> Result<ForeignSlice, NoAccess> {
    let start = wide(mem.as_ptr().addr());
    let offset = addr.checked_sub(start).ok_or(NoAccess)?;
    let offset = usize::try_from(offset).map_err(|_| NoAccess)?;
    mem.slice(offset, len).ok_or(NoAccess)
}

impl Regions {
    /// Memory of this machine that a request names.
    pub(super) fn local(
        &self,
        node: NodeKey,
        sge: &Sge,
        access: Access,
    ) -> Result<ForeignSlice, NoAccess> {
        let region = self.regions.get(&sge.lkey.0).ok_or(NoAccess)?;
        if region.node != node || !region.access.contains(access) {
            return Err(NoAccess);
        }
        part(&region.mem, wide(sge.addr.addr()), sge.len)
    }

    /// Memory that a peer names by key, arriving on queue pair `on`.
    pub(super) fn remote(
        &self,
        node: NodeKey,
        on: QpNum,
        rkey: Rkey,
        addr: RemoteAddr,
        len: usize,
        access: Access,
    ) -> Result<ForeignSlice, NoAccess> {
        let key = self.keys.get(&rkey.0).ok_or(NoAccess)?;
        let on_it = key.qp.is_none_or(|qp| qp == on);
        let alive = self.regions.contains_key(&key.lkey.0);
        if key.node != node || !on_it || !key.bound || !key.access.contains(access) || !alive {
            return Err(NoAccess);
        }
        part(&key.mem, addr.0, len)
    }

    /// A bind is carried out. False: its key has died meanwhile.
    pub(super) fn bound(&mut self, rkey: Rkey) -> bool {
        let key = self.keys.get_mut(&rkey.0);
        key.map(|key| key.bound = true).is_some()
    }

    /// Kills a key that is bound on `qp`. False: it is not.
    pub(super) fn kill(&mut self, qp: QpNum, rkey: Rkey) -> bool {
        let key = self.keys.get(&rkey.0);
        let found = key.is_some_and(|key| key.qp == Some(qp) && key.bound);
        if found {
            self.keys.remove(&rkey.0);
        }
        found
    }

    /// Kills every key of a queue pair.
    pub(super) fn kill_all(&mut self, qp: QpNum) {
        self.keys.retain(|_, key| key.qp != Some(qp));
    }

    /// Regions and keys.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.regions.len(), self.keys.len())
    }

    /// A bind was refused after all.
    pub(super) fn forget(&mut self, rkey: Rkey) {
        self.keys.remove(&rkey.0);
    }

    fn is_alive(&self, rkey: Rkey) -> bool {
        self.keys.contains_key(&rkey.0)
    }
}

impl World {
    fn fresh_key(&mut self) -> u32 {
        loop {
            // Zero and the highest ones are left for those who want a key that is none.
            let key = u32::try_from(self.rng.between(1, 0xFFFF_0000)).unwrap_or(1);
            let known = &self.regions;
            if !known.regions.contains_key(&key) && !known.keys.contains_key(&key) {
                return key;
            }
        }
    }

    fn add_region(
        &mut self,
        node: NodeKey,
        mem: ForeignSlice,
        access: Access,
        own: bool,
    ) -> Result<(Lkey, Option<Rkey>), VerbsError> {
        let limit = self.nodes[node].options.registered_max;
        let (each, page) = self.timing.register;
        let pages = wide(mem.len().div_ceil(4096));
        self.charge(node, Work::Register, each + page * pages);
        let failed = self.dice.fires(Fault::RegisterFails);
        let total = self.nodes[node].registered.saturating_add(mem.len());
        if total > limit {
            self.dice.happened(Fault::RegisteredExhausted);
        }
        if failed || total > limit {
            return Err(VerbsError::Limit {
                what: "registering memory",
                limit: format!("{limit} bytes"),
                remedy: "register less at a time",
            });
        }
        self.nodes[node].registered = total;
        let lkey = self.fresh_key();
        let region = Region {
            node,
            mem,
            access,
            own,
        };
        self.regions.regions.insert(lkey, region);
        let remote = access & (Access::REMOTE_READ | Access::REMOTE_WRITE);
        let rkey = (!remote.is_empty()).then(|| {
            let rkey = self.fresh_key();
            let key = Key {
                node,
                qp: None,
                lkey: Lkey(lkey),
                mem,
                access: remote,
                bound: true,
            };
            self.regions.keys.insert(rkey, key);
            Rkey(rkey)
        });
        let now = self.now();
        let about = [wide(mem.len()), u64::from(access.bits())];
        self.trace.note(now, "register", wide(node), about);
        Ok((Lkey(lkey), rkey))
    }

    fn remove_region(&mut self, lkey: Lkey, rkey: Option<Rkey>) {
        let Some(region) = self.regions.regions.remove(&lkey.0) else {
            return;
        };
        if let Some(rkey) = rkey {
            self.regions.keys.remove(&rkey.0);
        }
        let (each, page) = self.timing.deregister;
        let pages = wide(region.mem.len().div_ceil(4096));
        self.charge(region.node, Work::Register, each + page * pages);
        let node = &mut self.nodes[region.node];
        node.registered = node.registered.saturating_sub(region.mem.len());
        if self.regions.keys.values().any(|key| key.lkey == lkey) {
            self.violation(format!(
                "a region of {} bytes was deregistered under a live key",
                region.mem.len()
            ));
        }
        let used = self.qps.values().find(|qp| qp.uses(lkey));
        if let Some(num) = used.map(|qp| qp.num) {
            self.violation(format!(
                "a region of {} bytes was deregistered under a request of {num:?}",
                region.mem.len()
            ));
        }
        let (now, len) = (self.now(), wide(region.mem.len()));
        self.trace
            .note(now, "deregister", wide(region.node), [len, 0]);
    }

    /// Prepares a bind: the key is there, and opens nothing before the bind is carried out.
    pub(super) fn prepare_bind(
        &mut self,
        node: NodeKey,
        qp: QpNum,
        binding: &Binding,
        heap_allowed: bool,
    ) -> Result<Rkey, PostError> {
        let region = self.regions.regions.get(&binding.lkey.0);
        let region = region.filter(|region| region.node == node);
        let region = region.ok_or(PostError::LocalProtection)?;
        if !region.own && !heap_allowed {
            return Err(PostError::Unsupported);
        }
        if binding.len == 0 || !region.access.contains(Access::MW_BIND) {
            return Err(PostError::LocalProtection);
        }
        let writes = binding.access.contains(Access::REMOTE_WRITE);
        if writes && !region.access.contains(Access::LOCAL_WRITE) {
            return Err(PostError::LocalProtection);
        }
        let addr = wide(binding.addr.as_ptr().addr());
        let mem =
            part(&region.mem, addr, binding.len).map_err(|NoAccess| PostError::LocalProtection)?;
        let rkey = self.fresh_key();
        let key = Key {
            node,
            qp: Some(qp),
            lkey: binding.lkey,
            mem,
            access: binding.access,
            bound: false,
        };
        self.regions.keys.insert(rkey, key);
        Ok(Rkey(rkey))
    }
}

impl Fabric {
    /// What a peer can still reach of `addr..addr + len`, in words, or nothing.
    #[must_use]
    pub fn exposed(&self, addr: *const u8, len: usize) -> Option<String> {
        let start = addr.addr();
        self.with(|world| {
            let overlaps = |key: &&Key| {
                let from = key.mem.as_ptr().addr();
                from < start + len && start < from + key.mem.len()
            };
            let key = world.regions.keys.values().find(overlaps)?;
            let (len, qp) = (key.mem.len(), key.qp);
            Some(format!("a live key of {qp:?} shows {len} bytes of it"))
        })
    }
}

/// See [`MemoryRegion`].
#[derive(Debug)]
pub(super) struct SimRegion {
    fabric: Arc<Fabric>,
    mem: ForeignSlice,
    access: Access,
    lkey: Lkey,
    rkey: Option<Rkey>,
    _own: Option<Block>,
}

impl SimRegion {
    /// Registers memory that its owner keeps as long as the region.
    pub(super) fn over(
        fabric: &Arc<Fabric>,
        node: NodeKey,
        mem: ForeignSlice,
        access: Access,
    ) -> Result<Self, VerbsError> {
        let (lkey, rkey) = fabric.with(|world| world.add_region(node, mem, access, false))?;
        Ok(Self {
            fabric: Arc::clone(fabric),
            mem,
            access,
            lkey,
            rkey,
            _own: None,
        })
    }

    /// Registers memory of its own.
    pub(super) fn allocate(
        fabric: &Arc<Fabric>,
        node: NodeKey,
        len: usize,
    ) -> Result<Self, VerbsError> {
        let block = Block::pages(len);
        let access = Access::LOCAL_WRITE | Access::MW_BIND;
        let mem = *block.mem();
        let (lkey, rkey) = fabric.with(|world| world.add_region(node, mem, access, true))?;
        Ok(Self {
            fabric: Arc::clone(fabric),
            mem,
            access,
            lkey,
            rkey,
            _own: Some(block),
        })
    }
}

impl Drop for SimRegion {
    fn drop(&mut self) {
        self.fabric
            .with(|world| world.remove_region(self.lkey, self.rkey));
    }
}

impl MemoryRegion for SimRegion {
    fn addr(&self) -> NonNull<u8> {
        self.mem.ptr()
    }

    fn len(&self) -> usize {
        self.mem.len()
    }

    fn lkey(&self) -> Lkey {
        self.lkey
    }

    fn rkey(&self) -> Option<Rkey> {
        self.rkey
    }

    fn access(&self) -> Access {
        self.access
    }
}

/// See [`MemoryWindow`].
#[derive(Debug)]
pub(super) struct SimWindow {
    fabric: Arc<Fabric>,
    node: NodeKey,
    key: Mutex<Option<Rkey>>,
}

impl SimWindow {
    pub(super) fn new(fabric: &Arc<Fabric>, node: NodeKey) -> Self {
        Self {
            fabric: Arc::clone(fabric),
            node,
            key: Mutex::new(None),
        }
    }

    pub(super) fn is_on(&self, fabric: &Arc<Fabric>, node: NodeKey) -> bool {
        Arc::ptr_eq(&self.fabric, fabric) && self.node == node
    }

    fn last(&self) -> Option<Rkey> {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key in force.
    pub(super) fn live(&self, world: &World) -> Option<Rkey> {
        self.last().filter(|key| world.regions.is_alive(*key))
    }

    pub(super) fn set(&self, rkey: Rkey) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(rkey);
    }
}

impl Drop for SimWindow {
    fn drop(&mut self) {
        if let Some(key) = self.last() {
            self.fabric.with(|world| world.regions.keys.remove(&key.0));
        }
    }
}

impl MemoryWindow for SimWindow {
    fn rkey(&self) -> Option<Rkey> {
        self.fabric.with(|world| self.live(world))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
