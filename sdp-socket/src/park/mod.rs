//! Time, sleeping and waking: the only place of this crate that knows threads and clocks.
//!
//! Everything above is written once, for threads and for a script that runs both ends on one
//! thread: see [`Runtime`].

mod alarm;
mod eventcount;
mod exit;
mod fork;
pub mod inside;
mod signals;
mod sleeper;
mod spin;
mod stat_socket;
mod threads;
mod turn;
mod unwind;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use sdp_core::Instant;
use sdp_verbs::{ArmToken, CompletionQueue, Wake};

pub(crate) use alarm::{Alarm, NEVER};
pub(crate) use eventcount::EventCount;
pub(crate) use exit::{at_exit, say_at_exit};
pub(crate) use fork::{GENERATIONS_MAX, Own, generation};
pub use signals::signals_restart;
pub(crate) use sleeper::{Place, sleep_at};
pub use sleeper::{cancel_sleep, list_anew, list_sleeper, poll_asleep, watch_sleepers};
pub use spin::SpinPolicy;
pub(crate) use spin::{Spinner, pass_moment};
pub(crate) use threads::ThreadRuntime;
pub(crate) use turn::Turn;
pub(crate) use unwind::AbortOnUnwind;

use crate::context::Context;

/// Clock, sleep, wake and the progress loop of one [`Context`].
pub trait Runtime: Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;

    /// Sleeps until `cq` has an event since `token`, or until a time, or a signal.
    ///
    /// # Errors
    /// The system refused to wait.
    fn wait_cq(
        &self,
        cq: &dyn CompletionQueue,
        token: ArmToken,
        until: Option<Instant>,
    ) -> io::Result<Wake>;

    /// Sleeps until `word` has moved on from `seen`, or until a time, or a signal.
    ///
    /// # Errors
    /// The system refused to wait.
    fn wait_word(&self, word: &WaitWord, seen: u32, until: Option<Instant>) -> io::Result<Wake>;

    /// Sees to it that [`Context::progress`] is called whenever there is something for it to do.
    ///
    /// # Errors
    /// No thread could be started.
    fn start_progress(&self, context: &Arc<Context>) -> io::Result<()>;

    /// Makes the progress loop look at its timers again, soon.
    fn kick_progress(&self);

    /// Whether a waiting thread may spin before it sleeps.
    fn may_spin(&self) -> bool;

    /// The present thread has copied so many bytes between a call's memory and private memory.
    /// Copies that fill or empty message buffers are known to the provider, these to nobody else:
    /// where time is virtual they are made to cost some.
    fn copied(&self, _len: usize) {}

    /// A number that nobody can guess, if secrets matter here.
    ///
    /// # Errors
    /// The system has none.
    fn random(&self) -> io::Result<u64> {
        getrandom::u64().map_err(|error| io::Error::other(format!("no random numbers: {error}")))
    }
}

/// A word that waiters of this process sleep on; a clone is the same word.
#[derive(Clone, Debug, Default)]
pub struct WaitWord(Arc<EventCount>);

impl WaitWord {
    /// Its present value; take it before looking at the state waited for.
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.0.seen()
    }

    /// Moves it on and wakes the sleepers.
    pub fn signal(&self) {
        self.0.signal();
    }

    pub(crate) fn count(&self) -> &EventCount {
        &self.0
    }
}
