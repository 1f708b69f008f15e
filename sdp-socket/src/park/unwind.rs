//! What happens if a thread panics inside a call.

/// Ends the process if a panic unwinds through a call whose memory may be exposed: returning to
/// the caller would let the peer read, or an adapter write, memory that is no longer the call's.
#[derive(Debug)]
pub(crate) struct AbortOnUnwind {
    /// The call was made by a destructor while another panic unwinds; that one is not ours.
    unwinding_before: bool,
}

impl AbortOnUnwind {
    pub(crate) fn new() -> Self {
        Self {
            unwinding_before: std::thread::panicking(),
        }
    }
}

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        // A second panic during unwinding ends the process anyway.
        if std::thread::panicking() && !self.unwinding_before {
            tracing::error!("panic while memory of a call was exposed: aborting the process");
            std::process::abort();
        }
    }
}
