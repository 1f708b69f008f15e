//! The flag byte of the base header.

use crate::mid::Mid;

bitflags::bitflags! {
    /// The flags of a message: byte 1. Bits 3 to 7 have no meaning.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Flags: u8 {
        /// The last payload byte of this Data message is urgent.
        const OOB_PRES = 0x01;
        /// An urgent byte is on its way in a later message.
        const OOB_PEND = 0x02;
        /// The sender would like the half in question to become Pipelined.
        const REQ_PIPE = 0x04;
    }
}

impl Flags {
    /// These flags without the ones that mean nothing on a message `mid`.
    ///
    /// REQ_PIPE means something on RdmaRdCompl and RdmaWrCompl only; elsewhere it is zero on send
    /// and ignored on receive, like the bits that have no name. The OOB flags are kept: OOB_PEND
    /// may ride on anything, and OOB_PRES on the wrong message is a violation, not noise.
    #[must_use]
    pub(crate) fn meaningful_on(self, mid: Mid) -> Self {
        let named = self & Self::all();
        match mid {
            Mid::RdmaRdCompl | Mid::RdmaWrCompl => named,
            _ => named - Self::REQ_PIPE,
        }
    }
}
