//! What has been published for a peer, by how much it matters to one that is not polling.

use crate::wr::SendFlags;

/// The least first; of several at once the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Notice {
    /// What nobody waits for who does not want to be told of anything.
    Quiet,
    /// A message for its program, nothing else.
    Payload,
    /// Anything that is not solicited.
    Other,
    /// Something solicited, or an end.
    Solicited,
}

impl Notice {
    /// Of a message sent with these flags.
    pub(crate) fn of(flags: SendFlags) -> Self {
        if flags.contains(SendFlags::SOLICITED) {
            Self::Solicited
        } else if flags.contains(SendFlags::PAYLOAD) {
            Self::Payload
        } else if flags.contains(SendFlags::QUIET) {
            Self::Quiet
        } else {
            Self::Other
        }
    }
}
