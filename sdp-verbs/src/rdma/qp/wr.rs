//! Requests in the words of verbs.h.

use std::borrow::Cow;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use smallvec::SmallVec;

use super::RdmaQp;
use super::message::Reserved;
use super::send::Kind;
use crate::caps::Caps;
use crate::error::PostError;
use crate::memory::{ForeignSlice, Keep, SendBuf};
use crate::mr::Binding;
use crate::rdma::device::Transport;
use crate::rdma::region::RdmaRegion;
use crate::rdma::sys;
use crate::types::{Access, RemoteAddr, Rkey, Sge};
use crate::wr::{SendData, SendFlags, SendOp, WcStatus};

/// A request, complete but for its number; its elements lie beside it.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    wr: RawWr,
    sges: SmallVec<[RawSge; 2]>,
    /// What the device copies while it is posted: the first element.
    inline: Cow<'a, [u8]>,
}

struct RawWr(sys::ibv_send_wr);

#[derive(Clone, Copy)]
#[repr(transparent)]
struct RawSge(sys::ibv_sge);

impl std::fmt::Debug for RawWr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "opcode {}", self.0.opcode)
    }
}

impl std::fmt::Debug for RawSge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}+{}", self.0.addr, self.0.length)
    }
}

/// A range of memory as an element.
pub(super) fn element(mem: &ForeignSlice, lkey: u32) -> sys::ibv_sge {
    sys::ibv_sge {
        addr: mem.as_ptr().expose_provenance() as u64,
        length: u32::try_from(mem.len()).expect("messages are shorter than 4 GiB"),
        lkey,
    }
}

impl<'a> Prepared<'a> {
    fn new(opcode: sys::ibv_wr_opcode, flags: SendFlags) -> Self {
        // SAFETY: numbers and null pointers, for which zeros are valid.
        let mut wr: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        wr.opcode = opcode;
        if flags.contains(SendFlags::SOLICITED) {
            wr.send_flags |= sys::IBV_SEND_SOLICITED;
        }
        if flags.contains(SendFlags::FENCE) {
            wr.send_flags |= sys::IBV_SEND_FENCE;
        }
        Self {
            wr: RawWr(wr),
            sges: SmallVec::new(),
            inline: Cow::Borrowed(&[]),
        }
    }

    /// An empty request whose completion shows that the peer has everything before it: a write,
    /// which InfiniBand acknowledges, or on iWARP, where a write completes when TCP has it, a read.
    pub(super) fn marker(transport: Transport) -> Self {
        Self::new(
            match transport {
                Transport::Ib => sys::IBV_WR_RDMA_WRITE,
                Transport::Iwarp => sys::IBV_WR_RDMA_READ,
            },
            SendFlags::empty(),
        )
    }

    pub(super) fn bind(
        mw: NonNull<sys::ibv_mw>,
        rkey: u32,
        region: &RdmaRegion,
        binding: &Binding,
        flags: SendFlags,
    ) -> Self {
        let mut access = 0;
        if binding.access.contains(Access::REMOTE_READ) {
            access |= sys::IBV_ACCESS_REMOTE_READ;
        }
        if binding.access.contains(Access::REMOTE_WRITE) {
            access |= sys::IBV_ACCESS_REMOTE_WRITE;
        }
        let mut this = Self::new(sys::IBV_WR_BIND_MW, flags);
        this.wr.0.__bindgen_anon_2.bind_mw = sys::ibv_send_wr__bindgen_ty_4__bindgen_ty_1 {
            mw: mw.as_ptr(),
            rkey,
            bind_info: sys::ibv_mw_bind_info {
                mr: region.mr(),
                addr: binding.addr.as_ptr().expose_provenance() as u64,
                length: binding.len as u64,
                mw_access_flags: access,
            },
        };
        this
    }

    fn set_remote(&mut self, remote: RemoteAddr, rkey: Rkey) {
        self.wr.0.wr.rdma = sys::ibv_send_wr__bindgen_ty_2__bindgen_ty_1 {
            remote_addr: remote.0,
            rkey: rkey.0,
        };
    }

    /// The device copies the bytes while the request is posted.
    pub(super) fn set_inline(&mut self, bytes: &'a [u8]) {
        self.wr.0.send_flags |= sys::IBV_SEND_INLINE;
        self.add(sys::ibv_sge {
            addr: bytes.as_ptr().expose_provenance() as u64,
            length: u32::try_from(bytes.len()).expect("inline bytes are few"),
            lkey: 0,
        });
        self.inline = Cow::Borrowed(bytes);
    }

    fn add(&mut self, sge: sys::ibv_sge) {
        self.sges.push(RawSge(sge));
    }

    /// The same, to be posted when the caller has its bytes back.
    pub(super) fn into_owned(self) -> Prepared<'static> {
        let Self {
            wr,
            mut sges,
            inline,
        } = self;
        let inline: Cow<'static, [u8]> = Cow::Owned(inline.into_owned());
        if !inline.is_empty() {
            sges[0].0.addr = inline.as_ptr().expose_provenance() as u64;
        }
        Prepared { wr, sges, inline }
    }

    /// The request with its number, ready to be posted.
    pub(super) fn finish(&mut self, number: u64, signaled: bool) -> *mut sys::ibv_send_wr {
        let wr = &mut self.wr.0;
        wr.wr_id = number;
        if signaled {
            wr.send_flags |= sys::IBV_SEND_SIGNALED;
        }
        wr.num_sge = libc::c_int::try_from(self.sges.len()).expect("elements were counted");
        wr.sg_list = if self.sges.is_empty() {
            ptr::null_mut()
        } else {
            self.sges.as_mut_ptr().cast()
        };
        wr
    }
}

/// A request as posted: it, what it is, and the memory that must stay until it has completed.
pub(super) type Parts<'a> = (Prepared<'a>, Kind, Option<Keep>);

/// Turns an operation into a request of this queue pair.
pub(super) fn prepare<'a>(
    qp: &RdmaQp,
    op: SendOp<'a>,
    flags: SendFlags,
) -> Result<Parts<'a>, PostError> {
    match op {
        SendOp::Send { data, invalidate } => message(qp, data, invalidate, flags),
        SendOp::Read {
            local,
            remote,
            rkey,
        } => {
            let mut wr = Prepared::new(sys::IBV_WR_RDMA_READ, flags);
            wr.set_remote(remote, rkey);
            let len = gather(qp, &mut wr, local, qp.device.limits.rdma_len_max)?;
            Ok((wr, Kind::Read { len }, None))
        }
        SendOp::Write {
            local,
            remote,
            rkey,
        } => {
            let mut wr = Prepared::new(sys::IBV_WR_RDMA_WRITE, flags);
            wr.set_remote(remote, rkey);
            gather(qp, &mut wr, local, qp.device.limits.rdma_len_max)?;
            Ok((wr, Kind::Write, None))
        }
        SendOp::LocalInv { rkey } => {
            let mut wr = Prepared::new(sys::IBV_WR_LOCAL_INV, flags);
            wr.wr.0.__bindgen_anon_1.invalidate_rkey = rkey.0;
            Ok((wr, Kind::LocalInv { rkey: rkey.0 }, None))
        }
    }
}

fn message<'a>(
    qp: &RdmaQp,
    data: SendData<'a>,
    invalidate: Option<Rkey>,
    flags: SendFlags,
) -> Result<Parts<'a>, PostError> {
    let mut wr = match invalidate {
        None => Prepared::new(sys::IBV_WR_SEND, flags),
        Some(_) if !qp.device.caps.contains(Caps::SEND_WITH_INV) => {
            return Err(PostError::Unsupported);
        }
        Some(rkey) => {
            let mut wr = Prepared::new(sys::IBV_WR_SEND_WITH_INV, flags);
            wr.wr.0.__bindgen_anon_1.invalidate_rkey = rkey.0;
            wr
        }
    };
    let max = qp.device.limits.recv_len_max;
    let keep = match data {
        SendData::Inline(bytes) if bytes.len() > max => return Err(PostError::TooLarge),
        SendData::Inline(bytes) => inline(qp, &mut wr, bytes)?,
        SendData::Buf { buf, len } => Some(reserved(qp, &mut wr, &buf, len)?),
        SendData::Sges(sges) => {
            gather(qp, &mut wr, sges, max)?;
            None
        }
    };
    Ok((wr, Kind::Send, keep))
}

/// Bytes that are the caller's again when the request has been posted: copied by the device if
/// they are few, else by us.
fn inline<'a>(
    qp: &RdmaQp,
    wr: &mut Prepared<'a>,
    bytes: &'a [u8],
) -> Result<Option<Keep>, PostError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() <= qp.device.limits.inline_max {
        wr.set_inline(bytes);
        return Ok(None);
    }
    let copy = qp.messages.reserve(bytes.len())?;
    copy.mem().write(0, bytes);
    wr.add(element(&copy.mem(), copy.lkey()));
    Ok(Some(Arc::new(copy)))
}

fn reserved(
    qp: &RdmaQp,
    wr: &mut Prepared<'_>,
    buf: &SendBuf,
    len: usize,
) -> Result<Keep, PostError> {
    let keep = Arc::clone(buf.keep());
    let reserved = Arc::clone(&keep)
        .downcast::<Reserved>()
        .map_err(|_| PostError::LocalProtection)?;
    reserved.take(qp.number, len)?;
    if len > 0 {
        let mem = reserved.mem().slice(0, len).ok_or(PostError::TooLarge)?;
        wr.add(element(&mem, reserved.lkey()));
        if len <= qp.device.limits.inline_max {
            // It need not be fetched from memory, where that costs the device a round trip.
            wr.wr.0.send_flags |= sys::IBV_SEND_INLINE;
        }
    }
    Ok(keep)
}

/// Adds registered memory; returns how many bytes.
fn gather(
    qp: &RdmaQp,
    wr: &mut Prepared<'_>,
    sges: &[Sge],
    max: usize,
) -> Result<usize, PostError> {
    if sges.len() > qp.device.limits.sge_max {
        return Err(PostError::TooLarge);
    }
    let mut total = 0usize;
    for sge in sges {
        total = total
            .checked_add(sge.len)
            .filter(|total| *total <= max)
            .ok_or(PostError::TooLarge)?;
        // An element of no bytes means 2 GiB to some devices.
        if sge.len > 0 {
            wr.add(sys::ibv_sge {
                addr: sge.addr.expose_provenance() as u64,
                length: u32::try_from(sge.len).map_err(|_| PostError::TooLarge)?,
                lkey: sge.lkey.0,
            });
        }
    }
    Ok(total)
}

/// A device's status.
pub(super) fn status_of(status: sys::ibv_wc_status, is_recv: bool) -> WcStatus {
    match status {
        sys::IBV_WC_SUCCESS => WcStatus::Success,
        // Receives of ours are well formed; rxe calls one that is too short this.
        sys::IBV_WC_LOC_QP_OP_ERR if is_recv => WcStatus::LocalLength,
        sys::IBV_WC_LOC_LEN_ERR => WcStatus::LocalLength,
        sys::IBV_WC_LOC_QP_OP_ERR
        | sys::IBV_WC_LOC_PROT_ERR
        | sys::IBV_WC_LOC_ACCESS_ERR
        | sys::IBV_WC_MW_BIND_ERR => WcStatus::LocalProtection,
        sys::IBV_WC_WR_FLUSH_ERR => WcStatus::Flushed,
        sys::IBV_WC_REM_ACCESS_ERR => WcStatus::RemoteAccess,
        sys::IBV_WC_RNR_RETRY_EXC_ERR => WcStatus::RnrRetryExceeded,
        sys::IBV_WC_RETRY_EXC_ERR | sys::IBV_WC_RESP_TIMEOUT_ERR => WcStatus::RetryExceeded,
        // Among them: the peer found the request invalid, or its device failed.
        _ => WcStatus::RemoteOperation,
    }
}
