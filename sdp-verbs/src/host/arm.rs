//! The arm of a queue pair's channel: which events its owner wants to be told of, and how.
//!
//! A word in the owner's memory. The owner arms, then looks once more for what was published before;
//! the peer publishes, then looks at the arm. Both put a full fence between, so one of them sees the
//! other. The peer takes the arm when it acts on it.
//!
//! A peer may be interrupted after it has published, and look at an arm that was made much later, when
//! its message has long been received. A doorbell for that does no harm; a token would be a false IN. So
//! who arms for tokens says how much it has taken by then.

use crate::host::notice::Notice;
use crate::sync::{Ordering, Words};

/// The channel wants no event.
pub(crate) const NONE: u8 = 0;
/// The channel wants an event for anything.
pub(crate) const ANY: u8 = 1;
/// The channel wants an event for what is solicited.
pub(crate) const SOLICITED: u8 = 2;
/// The channel wants an event for anything but what is quiet and payload, for which it wants a token
/// (`token.rs`). The peer that puts the token makes it [`SOLICITED`], with [`PUT`].
pub(crate) const TOKEN: u8 = 3;
/// Above the arm, whatever becomes of that: a token has been put, or is just being put, since the
/// owner armed for one.
const PUT: u64 = 1 << 8;
/// Above both, of an arm for tokens: how many entries of the ring the owner has taken before it armed, as
/// far as there is room.
const TAKEN_SHIFT: u32 = 16;

fn word(arm: u8, taken: u64) -> u64 {
    let taken = if arm == TOKEN { taken } else { 0 };
    u64::from(arm) | taken << TAKEN_SHIFT
}

/// Rounds a peer fights for the word. An honest owner changes it with each call of its program's; one
/// that scribbles may never stop.
const TRIES: u32 = 16;

/// What the peer of an armed channel has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    /// Ring the doorbell.
    Doorbell,
    /// Put a token.
    Token,
}

/// The word, in somebody's memory.
pub(crate) struct Arm<W> {
    words: W,
    at: usize,
}

impl<W: Words> Arm<W> {
    /// Word `at` of `words`.
    pub(crate) fn new(words: W, at: usize) -> Self {
        Self { words, at }
    }

    /// Owner, who has taken that many entries: arms for something else than tokens before, or takes the
    /// request back.
    pub(crate) fn set(&self, arm: u8, taken: u64) {
        self.words
            .store(self.at, word(arm, taken), Ordering::Release);
    }

    /// Owner, after it has armed for tokens: arms anew. True if the peer has put one, or is about to.
    pub(crate) fn replace_token(&self, arm: u8, taken: u64) -> bool {
        let before = self.words.swap(self.at, word(arm, taken), Ordering::AcqRel);
        before & PUT != 0
    }

    /// Peer: whether the channel wants this event, of which the last payload is entry `last`, counted from
    /// one.
    pub(crate) fn wants(&self, notice: Notice, last: u64) -> bool {
        let arm = self.words.load(self.at, Ordering::Relaxed);
        call_for(arm, notice, last).is_some()
    }

    /// Peer: what the channel wants for this event; the request is taken. Who has no socket for tokens
    /// puts none.
    pub(crate) fn take(&self, notice: Notice, last: u64, has_socket: bool) -> Option<Call> {
        for _ in 0..TRIES {
            let arm = self.words.load(self.at, Ordering::Relaxed);
            let call = match call_for(arm, notice, last)? {
                Call::Token if !has_socket => Call::Doorbell,
                call => call,
            };
            let next = match call {
                Call::Doorbell => u64::from(NONE) | arm & PUT,
                Call::Token => u64::from(SOLICITED) | PUT,
            };
            if self.replace(arm, next) {
                return Some(call);
            }
        }
        // One ring too many does no harm.
        Some(Call::Doorbell)
    }

    /// Peer: the token cannot be put, so it is the doorbell after all. Where the owner has armed
    /// again, it looks for itself.
    pub(crate) fn withdraw_token(&self) {
        // A doorbell may have been rung since.
        for arm in [SOLICITED, NONE] {
            self.replace(u64::from(arm) | PUT, NONE.into());
        }
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        self.words.replace(self.at, old, new, Ordering::AcqRel)
    }
}

/// What a channel that is armed so wants for an event.
fn call_for(arm: u64, notice: Notice, last: u64) -> Option<Call> {
    let [kind, ..] = arm.to_le_bytes();
    match (kind, notice) {
        (ANY, _) | (SOLICITED | TOKEN, Notice::Solicited) | (TOKEN, Notice::Other) => {
            Some(Call::Doorbell)
        }
        // Both counts have lost their first bits, and are never far apart.
        (TOKEN, Notice::Payload)
            if (arm >> TAKEN_SHIFT).wrapping_sub(last) << TAKEN_SHIFT >> 63 == 0 =>
        {
            None
        }
        (TOKEN, Notice::Payload) => Some(Call::Token),
        _ => None,
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::fence;
    use crate::sync::model::LoomWords;
    use loom::thread;

    const ARM: usize = 0;
    const RING: usize = 1;
    const TOKENS: usize = 2;
    const RINGS: usize = 3;

    /// Whatever the peer publishes while the owner arms, looks and arms anew: what the owner has not
    /// seen in the end it was told of, and it has counted every token.
    #[test]
    fn no_message_is_missed_and_every_token_is_counted() {
        loom::model(|| {
            let words = LoomWords::new(4);
            let peer = {
                let words = words.clone();
                thread::spawn(move || {
                    for message in 1..=2 {
                        words.store(RING, message, Ordering::Release);
                        fence(Ordering::SeqCst);
                        let arm = Arm::new(words.clone(), ARM);
                        let at = match arm.take(Notice::Payload, message, true) {
                            Some(Call::Token) => TOKENS,
                            Some(Call::Doorbell) => RINGS,
                            None => continue,
                        };
                        words.store(at, words.load(at, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                })
            };
            let arm = Arm::new(words.clone(), ARM);
            let mut counted = 0;
            arm.set(TOKEN, 0);
            fence(Ordering::SeqCst);
            let mut seen = words.load(RING, Ordering::Acquire);
            if seen != 0 {
                counted += u64::from(arm.replace_token(TOKEN, seen));
                let taken = seen;
                fence(Ordering::SeqCst);
                seen = words.load(RING, Ordering::Acquire);
                if seen == taken {
                    // Nothing is left, so what is put from here on is put for what comes.
                    let early = words.load(ARM, Ordering::Relaxed) & PUT != 0;
                    assert!(
                        !early || words.load(RING, Ordering::Acquire) > taken,
                        "a false IN"
                    );
                }
            }
            peer.join().unwrap();
            let last = arm.replace_token(NONE, 0);
            assert!(seen == 2 || last, "message {} was missed", seen + 1);
            counted += u64::from(last);
            assert_eq!(counted, words.load(TOKENS, Ordering::Relaxed));
            assert_eq!(words.load(RINGS, Ordering::Relaxed), 0);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A token is put for what the owner has not taken when it armed, wherever the counts stand, and for
    /// nothing else.
    #[test]
    fn nothing_that_was_taken_is_told_of() {
        for taken in [0, 1, 1000, (1 << 48) - 1, 1 << 48, u64::MAX - 5] {
            let arm = word(TOKEN, taken);
            let call = |last| call_for(arm, Notice::Payload, last);
            assert_eq!(call(taken), None, "{taken}");
            assert_eq!(call(taken.wrapping_sub(3)), None, "{taken}");
            assert_eq!(call(taken.wrapping_add(1)), Some(Call::Token), "{taken}");
            assert_eq!(call_for(arm, Notice::Quiet, taken.wrapping_add(1)), None);
            assert_eq!(call_for(arm, Notice::Other, taken), Some(Call::Doorbell));
        }
        assert_eq!(
            call_for(word(ANY, 7), Notice::Payload, 1),
            Some(Call::Doorbell)
        );
        assert_eq!(
            call_for(u64::from(SOLICITED) | PUT, Notice::Payload, 9),
            None
        );
    }
}
