//! Urgent bytes, as the half that sends them must announce and carry them (§4.11).

use std::collections::VecDeque;

use sdp_wire::{Body, Flags, Head};

use super::{Verdict, must};

/// Bytes between the start of the message with OOB_PEND and the urgent byte, at most.
const REACH: u64 = 65_535;

/// What one side has said of urgent bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Urgent {
    /// Bytes that have left by any mechanism. Those of an advert have when they are reported.
    gone: u64,
    /// Where the messages with OOB_PEND began whose urgent byte has not left.
    announced: VecDeque<u64>,
}

impl Urgent {
    /// A message is said.
    pub(super) fn says(&mut self, head: &Head) -> Verdict {
        if let Body::RdmaWrCompl { len } = head.body {
            self.gone += u64::from(len);
        }
        if head.flags.contains(Flags::OOB_PEND) {
            self.announced.push_back(self.gone);
        }
        self.gone += u64::from(head.payload_len);
        if head.flags.contains(Flags::OOB_PRES) {
            must(
                head.body == Body::Data && head.payload_len > 0,
                "§4.11: an urgent byte that is not the last of a Data",
            )?;
            let Some(start) = self.announced.pop_front() else {
                return Err("§4.11: an urgent byte that was not announced");
            };
            must(
                self.gone - 1 - start <= REACH,
                "§4.11: an urgent byte too far behind its announcement",
            )?;
        }
        must(
            head.body != Body::DisConn || self.announced.is_empty(),
            "§4.11: DisConn before the urgent byte that was announced",
        )
    }

    /// A message has come.
    pub(super) fn hears(&mut self, head: &Head) {
        if let Body::RdmaRdCompl { len } = head.body {
            self.gone += u64::from(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(flags: Flags, payload_len: u32) -> Head {
        Head {
            flags,
            bufs: 3,
            mseq: 1,
            mseq_ack: 0,
            body: Body::Data,
            payload_len,
        }
    }

    #[test]
    fn an_urgent_byte_is_announced_once_and_near_enough() {
        let (pend, pres) = (Flags::OOB_PEND, Flags::OOB_PRES);
        let says = |heads: &[Head]| {
            let mut urgent = Urgent::default();
            heads.iter().try_for_each(|head| urgent.says(head))
        };
        let plain = Flags::empty();
        assert!(says(&[data(pend | pres, 10)]).is_ok());
        assert!(says(&[data(pend, 0), data(plain, 65_535), data(pres, 1)]).is_ok());
        assert!(says(&[data(pend, 0), data(plain, 65_536), data(pres, 1)]).is_err());
        assert!(says(&[data(pres, 1)]).is_err());
        assert!(says(&[data(pend | pres, 0)]).is_err());
        let end = Head {
            body: Body::DisConn,
            ..data(plain, 0)
        };
        assert!(says(&[data(pend, 0), end]).is_err());
    }
}
