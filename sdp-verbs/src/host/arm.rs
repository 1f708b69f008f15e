//! The arm of a queue pair's channel: which events its owner wants to be told of, and how.
//!
//! A word in the owner's memory. The owner arms, then looks once more for what was published before;
//! the peer publishes, then looks at the arm. Both put a full fence between, so one of them sees the
//! other. The peer takes the arm when it acts on it.

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

    /// Owner: arms for something else than tokens before, or takes the request back.
    pub(crate) fn set(&self, arm: u8) {
        self.words.store(self.at, arm.into(), Ordering::Release);
    }

    /// Owner, after it has armed for tokens: arms anew. True if the peer has put one, or is about to.
    pub(crate) fn replace_token(&self, arm: u8) -> bool {
        self.words.swap(self.at, arm.into(), Ordering::AcqRel) & PUT != 0
    }

    /// Peer: whether the channel wants this event.
    pub(crate) fn wants(&self, notice: Notice) -> bool {
        call_for(self.words.load(self.at, Ordering::Relaxed), notice).is_some()
    }

    /// Peer: what the channel wants for this event; the request is taken. Who has no socket for tokens
    /// puts none.
    pub(crate) fn take(&self, notice: Notice, has_socket: bool) -> Option<Call> {
        for _ in 0..TRIES {
            let arm = self.words.load(self.at, Ordering::Relaxed);
            let call = match call_for(arm, notice)? {
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
fn call_for(arm: u64, notice: Notice) -> Option<Call> {
    match (u8::try_from(arm & !PUT).ok()?, notice) {
        (ANY, _) | (SOLICITED | TOKEN, Notice::Solicited) | (TOKEN, Notice::Other) => {
            Some(Call::Doorbell)
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
                        let at = match Arm::new(words.clone(), ARM).take(Notice::Payload, true) {
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
            arm.set(TOKEN);
            fence(Ordering::SeqCst);
            let mut seen = words.load(RING, Ordering::Acquire);
            if seen != 0 {
                counted += u64::from(arm.replace_token(TOKEN));
                fence(Ordering::SeqCst);
                seen = words.load(RING, Ordering::Acquire);
            }
            peer.join().unwrap();
            let last = arm.replace_token(NONE);
            assert!(seen == 2 || last, "message {} was missed", seen + 1);
            counted += u64::from(last);
            assert_eq!(counted, words.load(TOKENS, Ordering::Relaxed));
            assert_eq!(words.load(RINGS, Ordering::Relaxed), 0);
        });
    }
}
