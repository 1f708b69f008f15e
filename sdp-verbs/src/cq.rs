//! Completion queues, and the two ways to wait for them: a thread of one's own, or a channel.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::wr::WorkCompletion;

/// The caller's name for a completion queue, reported by its channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CqToken(pub u64);

/// Who is to be told of the next completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArmFor {
    /// A thread about to call [`CompletionQueue::wait`]. Any completion counts.
    Waiter,
    /// The channel; any completion counts.
    Channel,
    /// The channel; only solicited receives, and completions that are not successes, count.
    ChannelSolicited,
    /// The channel; any completion counts but that of a receive of a
    /// [`QUIET`](crate::SendFlags::QUIET) message, or of a
    /// [`PAYLOAD`](crate::SendFlags::PAYLOAD) message, for which the peer puts a token: see
    /// [`QueuePair::lend_token_socket`](crate::QueuePair::lend_token_socket). After one only
    /// solicited receives, and completions that are not successes, count. Where there are no tokens,
    /// as [`Channel`](Self::Channel).
    Token,
}

/// What [`CompletionQueue::arm`] saw; [`CompletionQueue::wait`] returns at once if anything has
/// happened since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArmToken(pub u64);

/// Why a wait ended. It may also end for no reason: look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Something may have happened.
    Event,
    /// The time ran out.
    TimedOut,
    /// A signal handler ran (without `SA_RESTART`, or with a time-out).
    Interrupted,
}

/// A completion queue.
///
/// The rule against lost wake-ups is that of ibverbs: arm, poll until empty, only then wait.
/// Arming is one-shot. The arms are independent: arming the waiter does not disarm the channel.
///
/// `Any` lets a provider find its own type behind the object it is handed.
pub trait CompletionQueue: Any + Debug + Send + Sync {
    /// Moves up to `out.len()` completions into `out`, oldest first, and returns how many. On
    /// providers whose adapter is the CPU this is where transfers are carried out: one call moves
    /// at most one RDMA READ or WRITE. Never blocks. A call that finds another thread inside
    /// returns 0.
    fn poll(&self, out: &mut [WorkCompletion]) -> usize;

    /// Asks for an event at the next completion.
    fn arm(&self, who: ArmFor) -> ArmToken;

    /// Cancels a request for channel events, so that completions cost the peer no system call.
    fn disarm_channel(&self);

    /// Ends an [`ArmFor::Token`], if there is one: until the next arming no token is put, and any
    /// completion counts for the channel. Returns how many tokens peers have put, or are just
    /// putting, since this was asked last.
    fn recall_tokens(&self) -> u32 {
        0
    }

    /// Sleeps until an event since `token`, a [`wake`](Self::wake), the time-out, or a signal.
    /// `None` waits without limit, in a system call that the kernel restarts under `SA_RESTART`.
    ///
    /// # Errors
    /// The system call failed for a reason other than time or a signal.
    fn wait(&self, token: ArmToken, timeout: Option<Duration>) -> io::Result<Wake>;

    /// Ends the waits of this process on this queue, now or, if none is under way, the next one
    /// that began before this call.
    fn wake(&self);
}

/// A source of events for many completion queues, with a descriptor for poll and epoll.
pub trait CompChannel: Any + Debug + Send + Sync {
    /// Readable while [`poll`](Self::poll) has something to return.
    fn fd(&self) -> BorrowedFd<'_>;

    /// The next completion queue that has an event. `None` clears the descriptor's readiness.
    fn poll(&self) -> Option<CqToken>;

    /// As [`poll`](Self::poll), for what need not be asked for: after that has found something. `None`
    /// leaves the descriptor readable if there is more.
    fn poll_known(&self) -> Option<CqToken> {
        self.poll()
    }
}
