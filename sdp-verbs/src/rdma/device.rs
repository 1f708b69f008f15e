//! One opened device.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::options::RdmaOptions;
use super::qp::OWN_WR_MAX;
use super::region::RdmaRegion;
use super::returned::{check, check_released, made};
use super::sys::{self, Library};
use crate::caps::{Caps, Limits};
use crate::error::VerbsError;
use crate::locked::lockable;
use crate::survey::DeviceTraits;

/// How a device talks to its peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    /// InfiniBand or RoCE.
    Ib,
    /// iWARP: RDMA over TCP.
    Iwarp,
}

/// Functions of the device's driver that verbs.h calls through the context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ops {
    pub(super) poll_cq:
        unsafe extern "C" fn(*mut sys::ibv_cq, libc::c_int, *mut sys::ibv_wc) -> libc::c_int,
    pub(super) req_notify_cq: unsafe extern "C" fn(*mut sys::ibv_cq, libc::c_int) -> libc::c_int,
    pub(super) post_send: unsafe extern "C" fn(
        *mut sys::ibv_qp,
        *mut sys::ibv_send_wr,
        *mut *mut sys::ibv_send_wr,
    ) -> libc::c_int,
    pub(super) post_recv: unsafe extern "C" fn(
        *mut sys::ibv_qp,
        *mut sys::ibv_recv_wr,
        *mut *mut sys::ibv_recv_wr,
    ) -> libc::c_int,
    pub(super) windows: Option<WindowOps>,
}

/// Those for memory windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowOps {
    pub(super) alloc: unsafe extern "C" fn(*mut sys::ibv_pd, sys::ibv_mw_type) -> *mut sys::ibv_mw,
    pub(super) dealloc: unsafe extern "C" fn(*mut sys::ibv_mw) -> libc::c_int,
}

/// A device, and the protection domain in which everything of an instance lives.
pub(super) struct Device {
    pub(super) lib: &'static Library,
    pub(super) name: String,
    pub(super) transport: Transport,
    pub(super) ops: Ops,
    pub(super) caps: Caps,
    pub(super) limits: Limits,
    /// It was asked for by name: connections leave by it, whatever way the system would choose.
    pub(super) named: bool,
    /// The flag of a receive that invalidated a key.
    pub(super) invalidated_flag: libc::c_uint,
    /// A queue pair in error flushes before the call that put it there returns, but not always
    /// everything.
    pub(super) forgets_to_flush: bool,
    /// A bind behind a request that is repeated is carried out again, and fails.
    pub(super) repeats_binds: bool,
    /// READs under way: what we start, and what peers may.
    pub(super) read_depth: (u8, u8),
    /// The same, as much as one queue pair can have.
    pub(super) read_depth_max: (u8, u8),
    context: NonNull<sys::ibv_context>,
    pd: NonNull<sys::ibv_pd>,
    cq_depth_max: u32,
    /// Completion queues made.
    cqs: AtomicUsize,
    regions: Mutex<BTreeMap<u32, Weak<RdmaRegion>>>,
}

// SAFETY: verbs objects may be used from any thread; the library locks what needs locking.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

const UNOPENED: &str = "the RDMA devices cannot be opened";
const UNOPENED_REMEDY: &str = "is a user-space driver of theirs installed (ibverbs-providers), and \
     may this user open /dev/infiniband/uverbs*?";

/// The contexts that the connection manager has opened, at least one; they stay open with it.
fn contexts(lib: &Library) -> Result<Vec<NonNull<sys::ibv_context>>, VerbsError> {
    let mut count = 0;
    // SAFETY: `count` is valid for the write.
    let list = unsafe { lib.rdma_get_devices(&raw mut count) };
    let list = NonNull::new(list).ok_or_else(|| {
        let error = std::io::Error::last_os_error();
        sys::unavailable(format!("{UNOPENED} ({error}): {UNOPENED_REMEDY}"))
    })?;
    let count = usize::try_from(count).unwrap_or(0);
    let read = |at: usize| {
        // SAFETY: the list has `count` entries.
        let entry = unsafe { list.add(at) };
        // SAFETY: as above.
        unsafe { entry.read() }
    };
    // The list is not given back: that would allow the library to close the contexts.
    let contexts: Vec<_> = (0..count).filter_map(|at| NonNull::new(read(at))).collect();
    if contexts.is_empty() {
        // Those that it cannot open it leaves out without a word.
        return Err(sys::unavailable(format!("{UNOPENED}: {UNOPENED_REMEDY}")));
    }
    Ok(contexts)
}

/// Name and transport of a context's device.
fn describe(
    lib: &Library,
    context: NonNull<sys::ibv_context>,
) -> (String, sys::ibv_transport_type) {
    // SAFETY: an open context.
    let device = unsafe { (*context.as_ptr()).device };
    // SAFETY: the device of an open context.
    let name = unsafe { lib.ibv_get_device_name(device) };
    // SAFETY: a string that lives as long as the device.
    let name = unsafe { CStr::from_ptr(name) };
    // SAFETY: as above.
    let transport = unsafe { (*device).transport_type };
    (name.to_string_lossy().into_owned(), transport)
}

/// Whether one of a device's ports has a link.
fn is_active(lib: &Library, context: NonNull<sys::ibv_context>) -> Result<bool, VerbsError> {
    for number in 1..=attributes(lib, context)?.phys_port_cnt {
        if port(lib, context, number)?.state == sys::IBV_PORT_ACTIVE {
            return Ok(true);
        }
    }
    Ok(false)
}

fn attributes(
    lib: &Library,
    context: NonNull<sys::ibv_context>,
) -> Result<sys::ibv_device_attr, VerbsError> {
    // SAFETY: plain numbers and text, for which zeros are valid.
    let mut attr: sys::ibv_device_attr = unsafe { std::mem::zeroed() };
    // SAFETY: an open context; `attr` is valid for the write.
    let returned = unsafe { lib.ibv_query_device(context.as_ptr(), &raw mut attr) };
    check("ibv_query_device", returned)?;
    Ok(attr)
}

/// A port's attributes; ports are counted from 1.
fn port(
    lib: &Library,
    context: NonNull<sys::ibv_context>,
    number: u8,
) -> Result<sys::ibv_port_attr, VerbsError> {
    // SAFETY: plain numbers, for which zeros are valid.
    let mut attr: sys::ibv_port_attr = unsafe { std::mem::zeroed() };
    let old: *mut sys::_compat_ibv_port_attr = ptr::from_mut(&mut attr).cast();
    // SAFETY: the older struct, which the function fills, is the beginning of this one.
    let returned = unsafe { lib.ibv_query_port(context.as_ptr(), number, old) };
    check("ibv_query_port", returned)?;
    Ok(attr)
}

/// Whether a device has memory windows as they are used here, by what the kernel says.
fn promises_windows(attr: &sys::ibv_device_attr) -> bool {
    let windows = sys::IBV_DEVICE_MEM_WINDOW_TYPE_2A | sys::IBV_DEVICE_MEM_WINDOW_TYPE_2B;
    attr.device_cap_flags & windows != 0
}

/// Whether a program can have them. The kernel's word does not say that: bnxt_re promises windows,
/// and its library has no function for them (rdma-core 44, `bnxt_re_cntx_ops`); the one that stands
/// in fails with EOPNOTSUPP (`dummy_ops.c`).
fn gives_windows(ops: WindowOps, pd: NonNull<sys::ibv_pd>) -> bool {
    // SAFETY: the driver's own function, for a protection domain of its device.
    let window = unsafe { (ops.alloc)(pd.as_ptr(), sys::IBV_MW_TYPE_2) };
    let Some(window) = NonNull::new(window) else {
        return false;
    };
    // SAFETY: just made, and nobody else has it.
    let returned = unsafe { (ops.dealloc)(window.as_ptr()) };
    check_released("ibv_dealloc_mw", returned);
    true
}

fn allocate_pd(
    lib: &Library,
    context: NonNull<sys::ibv_context>,
) -> Result<NonNull<sys::ibv_pd>, VerbsError> {
    // SAFETY: an open context.
    let pd = unsafe { lib.ibv_alloc_pd(context.as_ptr()) };
    made("ibv_alloc_pd", pd)
}

/// What a device can do.
fn traits(
    lib: &Library,
    context: NonNull<sys::ibv_context>,
    name: &str,
    transport: sys::ibv_transport_type,
) -> Result<DeviceTraits, VerbsError> {
    let mut windows = false;
    if promises_windows(&attributes(lib, context)?)
        && let Some(ops) = ops(context, name)?.windows
    {
        let pd = allocate_pd(lib, context)?;
        windows = gives_windows(ops, pd);
        // SAFETY: just made, and nothing is in it.
        let returned = unsafe { lib.ibv_dealloc_pd(pd.as_ptr()) };
        check("ibv_dealloc_pd", returned)?;
    }
    Ok(DeviceTraits {
        iwarp: transport == sys::IBV_TRANSPORT_IWARP,
        windows,
    })
}

/// The devices that can be opened, and what they can do.
///
/// # Errors
/// None can; or one does not tell of itself.
pub(super) fn examine(lib: &Library) -> Result<Vec<(String, DeviceTraits)>, VerbsError> {
    let mut found = Vec::new();
    for context in contexts(lib)? {
        let (name, transport) = describe(lib, context);
        let traits = traits(lib, context, &name, transport)?;
        found.push((name, traits));
    }
    Ok(found)
}

/// A device that could be opened.
type Candidate = (NonNull<sys::ibv_context>, String, sys::ibv_transport_type);

/// The devices that the options allow: at least one.
fn candidates(options: &RdmaOptions) -> Result<(&'static Library, Vec<Candidate>), VerbsError> {
    let lib = sys::library()?;
    if let Some(missing) = sys::diagnose(Path::new("/sys"), Path::new("/dev")) {
        return Err(sys::unavailable(missing));
    }
    let wanted = options.wanted();
    let (mut fitting, mut seen) = (Vec::new(), Vec::new());
    for context in contexts(lib)? {
        let (name, transport) = describe(lib, context);
        let fits = match &wanted {
            Some(wanted) => *wanted == name,
            None => is_active(lib, context).unwrap_or_else(|error| {
                tracing::warn!("device {name} does not tell of its ports: {error}");
                false
            }),
        };
        if fits {
            fitting.push((context, name, transport));
        } else {
            seen.push(name);
        }
    }
    if !fitting.is_empty() {
        return Ok((lib, fitting));
    }
    Err(sys::unavailable(match wanted {
        Some(wanted) => format!("no device {wanted:?}: there are {seen:?}"),
        None => format!(
            "no device has an active port ({seen:?}): bring the link, or the network \
             interface under it, up"
        ),
    }))
}

impl Device {
    /// Opens the device that the options name, else the first that has an active port and can be
    /// used: of some the transport is none of ours (EFA, usNIC).
    ///
    /// # Errors
    /// [`VerbsError::Unavailable`], with the remedy; of several devices, the first one's.
    pub(super) fn open(options: &RdmaOptions) -> Result<Arc<Self>, VerbsError> {
        let (lib, candidates) = candidates(options)?;
        let mut failed = None;
        for (context, name, transport) in candidates {
            match Self::new(lib, context, name, transport, options) {
                Ok(device) => return Ok(Arc::new(device)),
                Err(error) => {
                    tracing::warn!("a device is left out: {error}");
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.expect("at least one candidate"))
    }

    /// Opens the device that the options name, else each that has an active port and the transport
    /// of the first one.
    ///
    /// # Errors
    /// As [`open`](Self::open); of several, the first one's.
    pub(super) fn open_all(options: &RdmaOptions) -> Result<Vec<Arc<Self>>, VerbsError> {
        let (lib, candidates) = candidates(options)?;
        let mut devices: Vec<Arc<Self>> = Vec::new();
        let mut failed = None;
        for (context, name, transport) in candidates {
            match Self::new(lib, context, name, transport, options) {
                Ok(device)
                    if devices
                        .first()
                        .is_some_and(|first| first.transport != device.transport) =>
                {
                    let name = &device.name;
                    tracing::warn!("device {name} is left out: SDP_RDMA_DEVICE={name} asks for it");
                }
                Ok(device) => devices.push(Arc::new(device)),
                Err(error) => {
                    tracing::warn!("a device is left out: {error}");
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) if devices.is_empty() => Err(error),
            _ => Ok(devices),
        }
    }

    fn new(
        lib: &'static Library,
        context: NonNull<sys::ibv_context>,
        name: String,
        transport: sys::ibv_transport_type,
        options: &RdmaOptions,
    ) -> Result<Self, VerbsError> {
        let transport = match transport {
            sys::IBV_TRANSPORT_IB => Transport::Ib,
            sys::IBV_TRANSPORT_IWARP => Transport::Iwarp,
            other => {
                let what =
                    format!("device {name} has transport {other}: neither InfiniBand nor iWARP");
                return Err(sys::unavailable(what));
            }
        };
        let attr = attributes(lib, context)?;
        let port = port(lib, context, 1)?;
        let mut ops = ops(context, &name)?;
        let pd = allocate_pd(lib, context)?;
        let wanted = promises_windows(&attr) && !options.without_windows;
        ops.windows = ops
            .windows
            .filter(|windows| wanted && gives_windows(*windows, pd));
        let depth = |n: libc::c_int| u8::try_from(n.clamp(1, READ_DEPTH_MAX)).unwrap_or(1);
        let mut device = Self {
            lib,
            name,
            transport,
            ops,
            caps: caps(transport, &attr, ops.windows.is_some()),
            limits: limits(transport, &attr, &port),
            forgets_to_flush: attr.vendor_id == SIW_VENDOR,
            repeats_binds: attr.vendor_id == RXE_VENDOR,
            named: options.wanted().is_some(),
            invalidated_flag: match attr.vendor_id {
                RXE_VENDOR => RXE_INVALIDATED,
                _ => sys::IBV_WC_WITH_INV,
            },
            read_depth: (depth(attr.max_qp_init_rd_atom), depth(attr.max_qp_rd_atom)),
            read_depth_max: (
                saturated(attr.max_qp_init_rd_atom),
                saturated(attr.max_qp_rd_atom),
            ),
            context,
            pd,
            cq_depth_max: u32::try_from(attr.max_cqe).unwrap_or(0),
            cqs: AtomicUsize::new(0),
            regions: Mutex::default(),
        };
        if attr.vendor_id == SIW_VENDOR {
            step_over_bad_offset(lib, context)?;
        }
        device.limits.inline_max = super::qp::inline_max(&device)?;
        tracing::debug!(
            device = device.name,
            transport = ?device.transport,
            caps = ?device.caps,
            inline = device.limits.inline_max,
            "RDMA device opened"
        );
        Ok(device)
    }

    pub(super) fn context(&self) -> *mut sys::ibv_context {
        self.context.as_ptr()
    }

    pub(super) fn pd(&self) -> *mut sys::ibv_pd {
        self.pd.as_ptr()
    }

    /// Places a completion queue can have.
    pub(super) fn cq_depth_max(&self) -> u32 {
        self.cq_depth_max
    }

    /// The interrupt by which the next completion queue tells of its events. They take turns: one
    /// for all would have all of them answered by one processor.
    pub(super) fn next_vector(&self) -> libc::c_int {
        // SAFETY: an open context.
        let count = unsafe { (*self.context()).num_comp_vectors };
        vector(count, self.cqs.fetch_add(1, Ordering::Relaxed))
    }

    /// Remembers a region by its local key.
    pub(super) fn add_region(&self, lkey: u32, region: Weak<RdmaRegion>) {
        self.regions
            .lock()
            .expect("nothing panics under this lock")
            .insert(lkey, region);
    }

    pub(super) fn remove_region(&self, lkey: u32) {
        self.regions
            .lock()
            .expect("nothing panics under this lock")
            .remove(&lkey);
    }

    /// The region that a local key names.
    pub(super) fn region(&self, lkey: u32) -> Option<Arc<RdmaRegion>> {
        let regions = self.regions.lock().expect("nothing panics under this lock");
        regions.get(&lkey)?.upgrade()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: everything made in it held this device, and is gone.
        let returned = unsafe { self.lib.ibv_dealloc_pd(self.pd.as_ptr()) };
        if let Err(error) = check("ibv_dealloc_pd", returned) {
            tracing::error!(device = self.name, "{error}");
        }
    }
}

/// Soft-RoCE, which hands the kernel's own flag of a receive to programs (seen in Linux 6.1).
const RXE_VENDOR: u32 = 0xFF_FFFF;
const RXE_INVALIDATED: libc::c_uint = sys::IBV_WC_WITH_INV | 1 << 2;

/// Software iWARP. A request that meets a connection about to close stays in its queue for ever
/// (seen in Linux 6.1).
const SIW_VENDOR: u32 = 0x62_6D74;

/// siw's library takes a queue that the kernel would have mapped at this offset for one without a
/// mapping, and refuses it (seen in rdma-core 44): some dozens of queue pairs into a process.
const SIW_BAD_OFFSET: libc::c_int = 0x9_0000;
/// Bytes of a completion in its queues.
const SIW_CQE_LEN: libc::c_int = 32;

/// Makes, once per context, a queue that begins below that offset and ends beyond it. It stays as
/// long as the context, which is never closed.
fn step_over_bad_offset(
    lib: &Library,
    context: NonNull<sys::ibv_context>,
) -> Result<(), VerbsError> {
    static DONE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().expect("nothing panics under this lock");
    let address = context.as_ptr().addr();
    if done.contains(&address) {
        return Ok(());
    }
    let depth = SIW_BAD_OFFSET / SIW_CQE_LEN + 1;
    // SAFETY: an open context; no channel.
    let cq =
        unsafe { lib.ibv_create_cq(context.as_ptr(), depth, ptr::null_mut(), ptr::null_mut(), 0) };
    made("ibv_create_cq", cq)?;
    done.push(address);
    Ok(())
}

/// Of `count` interrupts the one of the completion queue `number`.
fn vector(count: libc::c_int, number: usize) -> libc::c_int {
    let count = usize::try_from(count).unwrap_or(0).max(1);
    libc::c_int::try_from(number % count).expect("less than a count of this type")
}

/// A number of a device's in the words of a handshake, which has one byte for it.
fn saturated(number: libc::c_int) -> u8 {
    u8::try_from(number.clamp(0, 255)).expect("255 at most")
}

/// READs under way on one queue pair at most: as many as the engine ever wants.
const READ_DEPTH_MAX: libc::c_int = 16;

/// Requests in one queue at most.
const WR_MAX: u32 = 1024;

/// Bytes of one receive at most, as of other providers.
const RECV_LEN_MAX: usize = 1 << 20;

/// Bytes of one READ or WRITE at most.
const RDMA_LEN_MAX: usize = 16 << 20;

/// Elements of one request at most: more would make every request larger.
const SGE_MAX: libc::c_int = 16;

/// Private data: what rdma_cm leaves of an InfiniBand request, and what fits its answers. A
/// rejection ends with a byte of ours that says why.
pub(super) const CONNECT_DATA_MAX: usize = 56;
pub(super) const ACCEPT_DATA_MAX: usize = 196;
pub(super) const REJECT_DATA_LEN: usize = 148;

fn limits(transport: Transport, attr: &sys::ibv_device_attr, port: &sys::ibv_port_attr) -> Limits {
    let sges = match transport {
        Transport::Ib if attr.max_sge_rd > 0 => attr.max_sge.min(attr.max_sge_rd),
        Transport::Ib => attr.max_sge,
        // The sink of a read is one element.
        Transport::Iwarp => 1,
    };
    let wr_max = u32::try_from(attr.max_qp_wr)
        .unwrap_or(0)
        .saturating_sub(OWN_WR_MAX);
    let message_max = usize::try_from(port.max_msg_sz).unwrap_or(usize::MAX);
    Limits {
        send_wr_max: wr_max.min(WR_MAX),
        recv_wr_max: wr_max.min(WR_MAX),
        sge_max: usize::try_from(sges.clamp(1, SGE_MAX)).unwrap_or(1),
        rdma_len_max: message_max.min(RDMA_LEN_MAX),
        recv_len_max: message_max.min(RECV_LEN_MAX),
        // Asked of a queue pair once the device is open.
        inline_max: 0,
        read_depth_max: u32::try_from(attr.max_qp_init_rd_atom.clamp(1, READ_DEPTH_MAX))
            .unwrap_or(1),
        connect_data_max: CONNECT_DATA_MAX,
        accept_data_max: ACCEPT_DATA_MAX,
        reject_data_max: REJECT_DATA_LEN - 1,
        registered_max: lockable().map_or(usize::MAX, |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        }),
    }
}

fn caps(transport: Transport, attr: &sys::ibv_device_attr, windows: bool) -> Caps {
    let mut caps = Caps::RDMA_READ | Caps::RDMA_WRITE | Caps::REMOTE_MR;
    if windows {
        caps |= Caps::MEMORY_WINDOW | Caps::HEAP_WINDOW;
        let invalidates = attr.device_cap_flags & sys::IBV_DEVICE_MEM_MGT_EXTENSIONS != 0;
        caps.set(Caps::LOCAL_INV | Caps::SEND_WITH_INV, invalidates);
    }
    match transport {
        Transport::Ib => caps |= Caps::RNR_RETRY | Caps::SOLICITED | Caps::REMOTE_STATUS,
        Transport::Iwarp => caps |= Caps::EXPOSED_SINK | Caps::CALLER_FIRST,
    }
    caps
}

fn ops(context: NonNull<sys::ibv_context>, name: &str) -> Result<Ops, VerbsError> {
    // SAFETY: an open context, whose table is complete and constant.
    let table = unsafe { (*context.as_ptr()).ops };
    let absent = || sys::unavailable(format!("the driver of {name} lacks a basic operation"));
    let windows = match (table.alloc_mw, table.dealloc_mw) {
        (Some(alloc), Some(dealloc)) => Some(WindowOps { alloc, dealloc }),
        _ => None,
    };
    Ok(Ops {
        poll_cq: table.poll_cq.ok_or_else(absent)?,
        req_notify_cq: table.req_notify_cq.ok_or_else(absent)?,
        post_send: table.post_send.ok_or_else(absent)?,
        post_recv: table.post_recv.ok_or_else(absent)?,
        windows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn none(_: *mut sys::ibv_pd, _: sys::ibv_mw_type) -> *mut sys::ibv_mw {
        ptr::null_mut()
    }

    unsafe extern "C" fn one(_: *mut sys::ibv_pd, _: sys::ibv_mw_type) -> *mut sys::ibv_mw {
        NonNull::dangling().as_ptr()
    }

    unsafe extern "C" fn given_back(_: *mut sys::ibv_mw) -> libc::c_int {
        0
    }

    /// A library that has no windows is believed, whatever the kernel promises.
    #[test]
    fn windows_are_tried() {
        let gives = |alloc| {
            let dealloc = given_back;
            gives_windows(WindowOps { alloc, dealloc }, NonNull::dangling())
        };
        assert!(!gives(none));
        assert!(gives(one));
    }

    /// Completion queues share the interrupts evenly, and a device that tells of none has one.
    #[test]
    fn interrupts_take_turns() {
        let vectors: Vec<_> = (0..5).map(|number| vector(2, number)).collect();
        assert_eq!(vectors, [0, 1, 0, 1, 0]);
        assert_eq!(
            (vector(0, 7), vector(-1, 7), vector(1, usize::MAX)),
            (0, 0, 0)
        );
    }
}
