//! Attributes of a queue pair in the states of its handshake: those that the connection manager has
//! negotiated, and those that are ours.

use crate::rdma::sys;

/// How long a peer whose message met no receive waits before it tries again: code 12 is 0.64 ms.
const RNR_TIMER: u8 = 12;

/// Times a packet is sent again before a silent peer is given up. Not 7: rxe takes that for
/// "without end".
pub(in crate::rdma) const RETRY_COUNT: u8 = 6;

/// Sets what is ours for the state that `attr` names, and returns the mask with it. `read_depth` is
/// what the device can have: READs of ours under way, and of the peer's.
///
/// The connection manager gives the peer's own numbers of READs (ib_cm, `cm_req_handler` and
/// `cm_rep_handler`), and a device refuses more than it can have (mlx5: EINVAL). A peer that may
/// start more is told so by our answer, in which librdmacm takes the same minimum (`rdma_accept`).
pub(super) fn complete(
    attr: &mut sys::ibv_qp_attr,
    mut mask: i32,
    rnr_retry: u8,
    read_depth: (u8, u8),
) -> i32 {
    let mut set = |flag: sys::ibv_qp_attr_mask| {
        mask |= i32::try_from(flag).expect("flags are small");
    };
    match attr.qp_state {
        sys::IBV_QPS_INIT => {
            attr.qp_access_flags = sys::IBV_ACCESS_LOCAL_WRITE
                | sys::IBV_ACCESS_REMOTE_READ
                | sys::IBV_ACCESS_REMOTE_WRITE;
            set(sys::IBV_QP_ACCESS_FLAGS);
        }
        sys::IBV_QPS_RTR => {
            attr.min_rnr_timer = RNR_TIMER;
            set(sys::IBV_QP_MIN_RNR_TIMER);
            attr.max_dest_rd_atomic = attr.max_dest_rd_atomic.min(read_depth.1);
        }
        sys::IBV_QPS_RTS => {
            attr.rnr_retry = rnr_retry;
            set(sys::IBV_QP_RNR_RETRY);
            attr.retry_cnt = RETRY_COUNT;
            set(sys::IBV_QP_RETRY_CNT);
            attr.max_rd_atomic = attr.max_rd_atomic.min(read_depth.0);
        }
        _ => {}
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entering(state: sys::ibv_qp_state, depth: u8) -> sys::ibv_qp_attr {
        // SAFETY: plain numbers, for which zeros are valid.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = state;
        attr.max_rd_atomic = depth;
        attr.max_dest_rd_atomic = depth;
        attr
    }

    /// A peer whose device can have more READs under way than ours does not keep our queue pair from
    /// being made, and one that can have fewer is not asked for more.
    #[test]
    fn reads_are_bounded_by_both_devices() {
        for (theirs, ours) in [(16, 4), (4, 4), (2, 2), (255, 4)] {
            let mut attr = entering(sys::IBV_QPS_RTR, theirs);
            complete(&mut attr, 0, 7, (9, 4));
            assert_eq!(attr.max_dest_rd_atomic, ours);
            let mut attr = entering(sys::IBV_QPS_RTS, theirs);
            complete(&mut attr, 0, 7, (4, 9));
            assert_eq!(attr.max_rd_atomic, ours);
        }
    }

    /// What is set is said to be set, beside what was.
    #[test]
    fn the_mask_names_what_is_ours() {
        let mask = |state| {
            let mask = complete(&mut entering(state, 1), 1 << 30, 7, (1, 1));
            u32::try_from(mask).unwrap()
        };
        let rts = mask(sys::IBV_QPS_RTS);
        assert_eq!(rts, 1 << 30 | sys::IBV_QP_RNR_RETRY | sys::IBV_QP_RETRY_CNT);
        assert_eq!(mask(sys::IBV_QPS_INIT), 1 << 30 | sys::IBV_QP_ACCESS_FLAGS);
        assert_eq!(mask(sys::IBV_QPS_RTR), 1 << 30 | sys::IBV_QP_MIN_RNR_TIMER);
    }
}
