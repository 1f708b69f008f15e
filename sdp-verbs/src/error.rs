//! Why a verb failed: what, where, and what to do about it.

use std::io;

/// A verb other than posting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbsError {
    /// The provider has no such operation; its capability bit is clear.
    #[error("provider {provider} does not support {op}")]
    Unsupported {
        /// The provider's name.
        provider: &'static str,
        /// The operation.
        op: &'static str,
    },
    /// The machine lacks what the provider needs.
    #[error("provider {provider} is not available: {reason}")]
    Unavailable {
        /// The provider's name.
        provider: &'static str,
        /// What is missing and how to supply it.
        reason: String,
    },
    /// A limit of the system or of the provider was met.
    #[error("{what}: limit reached ({limit}); {remedy}")]
    Limit {
        /// What could not be had.
        what: &'static str,
        /// The limit's name and value.
        limit: String,
        /// How to raise it.
        remedy: &'static str,
    },
    /// A system call failed.
    #[error("{op}: {source}")]
    Os {
        /// What was being done.
        op: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The peer or a stranger broke the provider's own rules.
    #[error("{what}: {rule}")]
    Protocol {
        /// Where.
        what: &'static str,
        /// The broken rule.
        rule: String,
    },
    /// The call does not fit the object's state.
    #[error("{op} called in state {state}")]
    State {
        /// The operation.
        op: &'static str,
        /// The state it met.
        state: &'static str,
    },
    /// An argument is out of its range.
    #[error("{what}: {reason}")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl VerbsError {
    /// Wraps a system error with what was being done.
    pub fn os(op: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Os {
            op,
            source: source.into(),
        }
    }

    /// The same error once more, for another who waited for the same thing. A system error keeps
    /// its code; text of its own, which none of ours has, is lost.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::Unsupported { provider, op } => Self::Unsupported { provider, op },
            Self::Unavailable { provider, reason } => Self::Unavailable {
                provider,
                reason: reason.clone(),
            },
            Self::Limit {
                what,
                limit,
                remedy,
            } => Self::Limit {
                what,
                limit: limit.clone(),
                remedy,
            },
            Self::Os { op, source } => Self::Os {
                op,
                source: match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => source.kind().into(),
                },
            },
            Self::Protocol { what, rule } => Self::Protocol {
                what,
                rule: rule.clone(),
            },
            Self::State { op, state } => Self::State { op, state },
            Self::Argument { what, reason } => Self::Argument {
                what,
                reason: reason.clone(),
            },
        }
    }

    /// The errno that says the same as nearly as errno can.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Unsupported { .. } => libc::EOPNOTSUPP,
            Self::Unavailable { .. } => libc::ENODEV,
            Self::Limit { .. } => libc::ENOMEM,
            Self::Os { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Self::Protocol { .. } => libc::EPROTO,
            Self::State { .. } | Self::Argument { .. } => libc::EINVAL,
        }
    }
}

/// A work request was not accepted. Nothing was posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The queue has no free entry; wait for completions.
    #[error("queue full")]
    QueueFull,
    /// No memory for a message may be registered; some may be had later.
    #[error("no memory for a message")]
    NoMemory,
    /// The queue pair is not connected or is in error.
    #[error("queue pair is not in a state to post")]
    WrongState,
    /// The operation's capability bit is clear.
    #[error("operation not supported by this provider")]
    Unsupported,
    /// A local key does not cover the memory named.
    #[error("local key does not cover the memory")]
    LocalProtection,
    /// More bytes or elements than the limits allow.
    #[error("request exceeds a length or element limit")]
    TooLarge,
}
