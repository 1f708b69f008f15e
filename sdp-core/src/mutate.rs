//! Planted bugs: proof that the simulator finds bugs of such kinds.
//!
//! Only a build with `--cfg sdp_mutate` has them (`cargo xtask sim --mutate`), and there at most
//! one is switched on. In every other build `mutant!` is `false`.

/// Whether the planted bug of this name is switched on.
#[cfg(not(sdp_mutate))]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

/// Whether the planted bug of this name is switched on.
#[cfg(sdp_mutate)]
#[doc(hidden)]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutate::Mutant::$name.is_on()
    };
}

#[cfg(sdp_mutate)]
mod planted {
    use core::sync::atomic::{AtomicUsize, Ordering};

    /// The mutant that is switched on, counted from 1.
    static ON: AtomicUsize = AtomicUsize::new(0);

    macro_rules! mutants {
        ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
            /// A planted bug.
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub enum Mutant {
                $($(#[$doc])* $variant,)*
            }

            impl Mutant {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$variant,)*];

                /// Its name.
                #[must_use]
                pub const fn name(self) -> &'static str {
                    match self {
                        $(Self::$variant => $name,)*
                    }
                }
            }
        };
    }

    mutants! {
        /// Payload goes while there is any credit at all.
        CreditReserveDropped = "credit-reserve-dropped",
        /// Payload goes with two credits.
        ReservedCreditSpent = "reserved-credit-spent",
        /// RdmaRdCompl counts the bytes that came inside SrcAvail.
        InlineBytesReported = "inline-bytes-reported",
        /// RdmaRdCompl is sent when the READ is posted.
        ReadReportedEarly = "read-reported-early",
        /// A cancel is answered by two SendSm.
        CancelAnsweredTwice = "cancel-answered-twice",
        /// A SendSm that crossed a cancel is taken for its answer.
        RefusalTakenForAnswer = "refusal-taken-for-answer",
        /// MSeqAck confirms a cancel before its answer leaves.
        AckNotHeldBack = "ack-not-held-back",
        /// A stale SinkAvail does not count down what is unmatched.
        StaleAdvertNotCounted = "stale-advert-not-counted",
        /// Payload does not end the SinkAvail that it used up, but a later one.
        PayloadInWrongSinkAvail = "payload-in-wrong-sink-avail",
        /// Behind a crossing SinkAvail, the advert it discarded counts as read.
        ReadvertSkipsBytes = "readvert-skips-bytes",
        /// An open SrcAvail is forgotten when Pipelined mode is left.
        AdvertLostOnLeaving = "advert-lost-on-leaving",
        /// An urgent send that is long enough is advertised, urgent byte and all.
        UrgentByRdma = "urgent-by-rdma",
        /// ChRcvBufAck goes one receive too early.
        ResizeInForceEarly = "resize-in-force-early",
        /// A send returns while a key of its memory is alive.
        RegionReturnedEarly = "region-returned-early",
        /// A send that timed out leaves the inline bytes out of its count.
        PartialCountWithoutInline = "partial-count-without-inline",
        /// A leader that sleeps is not woken when somebody else finds its event.
        WakeUpLost = "wake-up-lost",
        /// DisConn overtakes data.
        DisConnBeforeData = "disconn-before-data",
        /// DisConn takes the last credit and brings none.
        DisConnWithLastCredit = "disconn-with-last-credit",
        /// A send that ends by its time-out or a signal does not wake the one behind it.
        TurnNotPassedOn = "turn-not-passed-on",
        /// SinkAvailCancel is obeyed and not answered.
        SinkCancelUnanswered = "sink-cancel-unanswered",
        /// Reading ahead does not stop at SO_RCVBUF.
        ReadAheadUnbounded = "read-ahead-unbounded",
        /// The side that accepted sends before it has heard anything, where it must not.
        AcceptorFirst = "acceptor-first",
        /// The side that connected does not knock.
        NeverKnocks = "never-knocks",
    }

    impl Mutant {
        /// Switches it on, in place of any other, for the whole process.
        pub fn switch_on(self) {
            ON.store(self as usize + 1, Ordering::Relaxed);
        }

        /// Whether it is switched on.
        #[must_use]
        pub fn is_on(self) -> bool {
            ON.load(Ordering::Relaxed) == self as usize + 1
        }
    }
}

#[cfg(sdp_mutate)]
pub use planted::Mutant;
