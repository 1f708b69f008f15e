//! What an instance of the host provider is opened with.

/// Options of [`HostProvider::open_with`](super::HostProvider::open_with).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HostOptions {
    /// Also connect with processes of other users. Both sides must allow it. Registered memory
    /// and keys are never shown to them: bytes travel through the link only.
    pub other_users: bool,
}

impl HostOptions {
    /// The same, with other users allowed or not.
    #[must_use]
    pub fn other_users(mut self, allowed: bool) -> Self {
        self.other_users = allowed;
        self
    }
}
