//! Making queue pairs, and what the device says about them only then.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex};

use super::message::Messages;
use super::recv::RecvQueue;
use super::send::OWN_WR_MAX;
use super::send::SendQueue;
use super::{IDLE, RdmaQp};
use crate::error::VerbsError;
use crate::qp::QpAttr;
use crate::rdma::cm::IdCore;
use crate::rdma::cq::RdmaCq;
use crate::rdma::device::Device;
use crate::rdma::returned::{check, made};
use crate::rdma::slab::SlabPool;
use crate::rdma::sys;

/// Inline bytes tried for. Every request of a queue is as long as its longest, and the queue is locked
/// memory: on mlx5 a request of 192 bytes and either 16 bytes for each element or 4 and the
/// inline bytes, in units of 64, and of all requests the next power of two (rdma-core,
/// `mlx5_calc_send_wqe`). So many inline bytes cost nothing beside the elements; the most that mlx5 has
/// would cost each connection 256 KiB instead of 64.
const INLINE_MAX: u32 = 252;

/// Requests of each queue, elements of each request.
#[derive(Clone, Copy)]
struct Size {
    send_wr: u32,
    recv_wr: u32,
    sges: u32,
    inline: u32,
}

fn create(
    device: &Device,
    cq: *mut sys::ibv_cq,
    size: Size,
) -> Result<(NonNull<sys::ibv_qp>, sys::ibv_qp_cap), VerbsError> {
    let mut attr = sys::ibv_qp_init_attr {
        qp_context: ptr::null_mut(),
        send_cq: cq,
        recv_cq: cq,
        srq: ptr::null_mut(),
        cap: sys::ibv_qp_cap {
            max_send_wr: size.send_wr,
            max_recv_wr: size.recv_wr,
            max_send_sge: size.sges,
            max_recv_sge: 1,
            max_inline_data: size.inline,
        },
        qp_type: sys::IBV_QPT_RC,
        sq_sig_all: 0,
    };
    // SAFETY: a protection domain and a queue of this device; `attr` is valid for reading and
    // writing.
    let qp = unsafe { device.lib.ibv_create_qp(device.pd(), &raw mut attr) };
    Ok((made("ibv_create_qp", qp)?, attr.cap))
}

/// The longest message that a device copies while it is posted. Devices tell only by refusing.
pub(in crate::rdma) fn inline_max(device: &Device) -> Result<usize, VerbsError> {
    // SAFETY: an open context; no channel.
    let cq = unsafe {
        device
            .lib
            .ibv_create_cq(device.context(), 4, ptr::null_mut(), ptr::null_mut(), 0)
    };
    let cq = made("ibv_create_cq", cq)?;
    let sges = u32::try_from(device.limits.sge_max).unwrap_or(1);
    let offers = |inline: u32| {
        let size = Size {
            send_wr: 2,
            recv_wr: 2,
            sges,
            inline,
        };
        let (qp, cap) = create(device, cq.as_ptr(), size)?;
        // SAFETY: just made, and nobody else has it.
        let returned = unsafe { device.lib.ibv_destroy_qp(qp.as_ptr()) };
        check("ibv_destroy_qp", returned)?;
        Ok::<_, VerbsError>(cap.max_inline_data.max(inline))
    };
    // What fits when none is asked for, or why no queue pair can be made at all.
    let found = offers(0).map(|known| {
        let (mut known, mut beyond) = (known, INLINE_MAX + 1);
        while known + 1 < beyond {
            let try_for = if beyond > INLINE_MAX && known < INLINE_MAX {
                INLINE_MAX
            } else {
                known + (beyond - known) / 2
            };
            match offers(try_for) {
                Ok(offered) => known = offered,
                Err(_) => beyond = try_for,
            }
        }
        known
    });
    // SAFETY: its queue pairs are gone.
    let returned = unsafe { device.lib.ibv_destroy_cq(cq.as_ptr()) };
    check("ibv_destroy_cq", returned)?;
    Ok(usize::try_from(found?.min(INLINE_MAX)).unwrap_or(0))
}

impl RdmaQp {
    /// Makes the queue pair of an id.
    pub(in crate::rdma) fn new(
        device: &Arc<Device>,
        slabs: &Arc<SlabPool>,
        id: &Arc<IdCore>,
        cq: &Arc<RdmaCq>,
        attr: &QpAttr,
    ) -> Result<Arc<Self>, VerbsError> {
        let size = Size {
            send_wr: attr.send_wr_max + OWN_WR_MAX,
            recv_wr: attr.recv_wr_max,
            sges: u32::try_from(device.limits.sge_max).unwrap_or(1),
            inline: u32::try_from(device.limits.inline_max).unwrap_or(0),
        };
        let (qp, _) = create(device, cq.raw(), size)?;
        // SAFETY: just made.
        let number = unsafe { (*qp.as_ptr()).qp_num };
        let qp = Arc::new(Self {
            device: Arc::clone(device),
            slabs: Arc::clone(slabs),
            qp,
            number,
            cq: Arc::clone(cq),
            id: Arc::clone(id),
            rnr_retry: attr.rnr_retry,
            state: AtomicU8::new(IDLE),
            refused_peer: AtomicBool::new(false),
            lost_device: AtomicBool::new(false),
            send: Mutex::new(SendQueue::new(attr.send_wr_max)),
            recv: Mutex::new(RecvQueue::new(attr.recv_wr_max)),
            messages: Messages::new(number, slabs),
            bound: Mutex::default(),
        });
        cq.add_qp(number, &qp);
        Ok(qp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that mlx5 locks for a queue of so many requests.
    fn mlx5_queue_len(count: u32, sges: u32, inline: u32) -> u32 {
        let request = 192 + (16 * sges).max((4 + inline).next_multiple_of(16));
        (count * request.next_multiple_of(64)).next_power_of_two()
    }

    /// Inline bytes cost no locked memory beside the elements, and one more would.
    #[test]
    fn inline_bytes_are_free() {
        let count = 128 + OWN_WR_MAX;
        let of = |inline| mlx5_queue_len(count, 16, inline);
        assert_eq!((of(0), of(INLINE_MAX)), (64 << 10, 64 << 10));
        assert!(of(INLINE_MAX + 1) > of(INLINE_MAX));
        assert_eq!(of(828), 256 << 10);
    }
}
