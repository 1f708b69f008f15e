//! Messages of the InfiniBand connection manager.

use std::net::IpAddr;

use super::packet::gid;
use crate::cm::RejectReason;

/// Bytes of a management datagram and of its header.
const MAD_LEN: usize = 256;
const HEADER_LEN: usize = 24;

/// Longest private data of a request, a reply and a rejection.
const REQ_PRIVATE_MAX: usize = 92;
const REP_PRIVATE_MAX: usize = 196;
const REJ_PRIVATE_MAX: usize = 148;

/// What a request says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) comm_id: u32,
    pub(super) service_id: u64,
    pub(super) qpn: u32,
    pub(super) psn: u32,
    /// Address and LID.
    pub(super) from: (IpAddr, u16),
    pub(super) to: (IpAddr, u16),
    pub(super) private_data: &'a [u8],
}

/// Communication ids: the sender's, then the receiver's.
pub(super) type CommIds = (u32, u32);

/// RDMA READs that may be outstanding, both ways; the number is for show.
const READ_DEPTH: u8 = 16;

/// A MAD being written.
struct Mad(Vec<u8>);

impl Mad {
    fn new(attribute: u16, transaction: u64) -> Self {
        let mut bytes = Vec::with_capacity(MAD_LEN);
        // Version 1, class 7 (communication management) version 2, method Send.
        bytes.extend_from_slice(&[1, 7, 2, 3, 0, 0, 0, 0]);
        bytes.extend_from_slice(&transaction.to_be_bytes());
        bytes.extend_from_slice(&attribute.to_be_bytes());
        bytes.resize(HEADER_LEN, 0);
        Self(bytes)
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, value: u32) -> Self {
        self.put(&value.to_be_bytes())
    }

    fn ids(self, (ours, theirs): CommIds) -> Self {
        self.u32(ours).u32(theirs)
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn private(self, data: &[u8], max: usize) -> Vec<u8> {
        let mut bytes = self.put(&data[..data.len().min(max)]).0;
        bytes.resize(MAD_LEN, 0);
        bytes
    }
}

/// ConnectRequest.
pub(super) fn req(transaction: u64, request: &Request<'_>) -> Vec<u8> {
    let depth = u32::from(READ_DEPTH);
    Mad::new(0x10, transaction)
        .u32(request.comm_id)
        .zeros(4)
        .put(&request.service_id.to_be_bytes())
        // No adapter GUID, no queue key.
        .zeros(16)
        .u32(request.qpn << 8 | depth)
        .u32(depth)
        // Remote response time-out 20; reliable connection; end-to-end flow control.
        .u32(20 << 3 | 1)
        // Local response time-out 20, 7 retries.
        .u32(request.psn << 8 | 20 << 3 | 7)
        // Partition; path MTU 4096 and 7 RNR retries; 15 retries of the exchange.
        .put(&[0xff, 0xff, 0x57, 0xf0])
        .put(&request.from.1.to_be_bytes())
        .put(&request.to.1.to_be_bytes())
        .put(&gid(request.from.0))
        .put(&gid(request.to.0))
        // Rate, 64 hops, acknowledgement time-out 14; no alternate path.
        .put(&[0, 0, 0, 2, 0, 64, 0, 14 << 3])
        .zeros(44)
        .private(request.private_data, REQ_PRIVATE_MAX)
}

/// ConnectReply.
pub(super) fn rep(
    transaction: u64,
    ids: CommIds,
    qpn: u32,
    psn: u32,
    private_data: &[u8],
) -> Vec<u8> {
    Mad::new(0x13, transaction)
        .ids(ids)
        .zeros(4)
        .u32(qpn << 8)
        .zeros(4)
        .u32(psn << 8)
        // End-to-end flow control, 7 RNR retries.
        .put(&[READ_DEPTH, READ_DEPTH, 1, 7 << 5])
        .zeros(8)
        .private(private_data, REP_PRIVATE_MAX)
}

/// ReadyToUse.
pub(super) fn rtu(transaction: u64, ids: CommIds) -> Vec<u8> {
    Mad::new(0x14, transaction).ids(ids).private(&[], 0)
}

/// ConnectReject, of a request or of a reply.
pub(super) fn rej(
    transaction: u64,
    ids: CommIds,
    of_reply: bool,
    reason: RejectReason,
    private_data: &[u8],
) -> Vec<u8> {
    let reason: u16 = match reason {
        RejectReason::NoListener => 8,
        RejectReason::Backlog => 3,
        RejectReason::Stale => 10,
        RejectReason::Consumer | RejectReason::NotPermitted | RejectReason::Incompatible => 28,
    };
    Mad::new(0x12, transaction)
        .ids(ids)
        .put(&[u8::from(of_reply) << 6, 0])
        .put(&reason.to_be_bytes())
        .zeros(72)
        .private(private_data, REJ_PRIVATE_MAX)
}

/// DisconnectRequest; `qpn` is the receiver's queue pair.
pub(super) fn dreq(transaction: u64, ids: CommIds, qpn: u32) -> Vec<u8> {
    Mad::new(0x15, transaction)
        .ids(ids)
        .u32(qpn << 8)
        .private(&[], 0)
}

/// DisconnectReply.
pub(super) fn drep(transaction: u64, ids: CommIds) -> Vec<u8> {
    Mad::new(0x16, transaction).ids(ids).private(&[], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields lie where the connection manager's tables put them, and every message is as long as
    /// any other.
    #[test]
    fn layouts() {
        let ip = IpAddr::from([10, 0, 0, 1]);
        let request = Request {
            comm_id: 0x0102_0304,
            service_id: 0x1_1389,
            qpn: 0x05_0607,
            psn: 0x08_090a,
            from: (ip, 1),
            to: (ip, 2),
            private_data: &[0xee; 200],
        };
        let req = req(9, &request);
        assert_eq!(req[8..18], [0, 0, 0, 0, 0, 0, 0, 9, 0, 0x10]);
        assert_eq!(req[24..28], [1, 2, 3, 4]);
        assert_eq!(req[32..40], [0, 0, 0, 0, 0, 1, 0x13, 0x89]);
        assert_eq!(req[56..59], [5, 6, 7]);
        assert_eq!(req[68..71], [8, 9, 10]);
        assert_eq!(req[76..80], [0, 1, 0, 2]);
        assert_eq!(req[163..165], [0, 0xee]);
        let rep = rep(9, (1, 2), 0x05_0607, 3, &[0xee; 196]);
        assert_eq!(rep[24..32], [0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(rep[36..39], [5, 6, 7]);
        assert_eq!(rep[59..61], [0, 0xee]);
        let rej = rej(9, (1, 2), true, RejectReason::Consumer, &[0xee]);
        assert_eq!(rej[32..36], [0x40, 0, 0, 28]);
        assert_eq!(rej[107..109], [0, 0xee]);
        let all = [
            req,
            rep,
            rej,
            rtu(9, (1, 2)),
            dreq(9, (1, 2), 7),
            drep(9, (1, 2)),
        ];
        assert!(all.iter().all(|mad| mad.len() == MAD_LEN));
    }
}
