//! The event word: how a publisher learns, for one load, that nobody sleeps.
//!
//! Bit 0 says that somebody is about to sleep; the rest counts events seen by sleepers. A sleeper
//! arms, looks once more for work, and sleeps while the word is what arming made it. A publisher
//! publishes, looks at bit 0, and only if it is set counts up (which clears it) and wakes. Both
//! sides put a full fence between their store and their load, so at least one sees the other.

use crate::sync::{Ordering, SleepWord, fence};

/// Somebody is about to sleep.
const ARMED: u32 = 1;

/// Rounds a publisher fights for the word. An honest word settles in a few; a scribbled one may
/// never.
const SIGNAL_TRIES: u32 = 16;

/// Announces a sleeper. Sleep only while the word equals what is returned.
pub(crate) fn arm(word: &impl SleepWord) -> u32 {
    let token = word.fetch_or(ARMED, Ordering::SeqCst) | ARMED;
    fence(Ordering::SeqCst);
    token
}

/// Whether anybody armed since the last signal; the same fence is needed before.
pub(crate) fn is_armed(word: &impl SleepWord) -> bool {
    word.load(Ordering::Relaxed) & ARMED != 0
}

/// Wakes whoever armed since the last signal. The caller has published before and has put
/// `fence(SeqCst)` between. Returns whether there was anybody.
pub(crate) fn signal(word: &impl SleepWord) -> bool {
    for _ in 0..SIGNAL_TRIES {
        let value = word.load(Ordering::Relaxed);
        if value & ARMED == 0 {
            return false;
        }
        if word.replace(value, value.wrapping_add(1)) {
            word.wake_all();
            return true;
        }
    }
    false
}

/// As [`signal`], whatever became of the arm: a peer that took it may have been killed before it
/// woke anybody.
fn signal_any(word: &impl SleepWord) {
    for _ in 0..SIGNAL_TRIES {
        let value = word.load(Ordering::Relaxed);
        if word.replace(value, (value | ARMED).wrapping_add(1)) {
            break;
        }
    }
    word.wake_all();
}

/// Announces a sleeper that several parties can wake: this process through `own`, each link's peer
/// through its word. Returns what our word is, and the sum of the others: words only count up, so the sum
/// is the same only if nothing happened.
pub(crate) fn arm_all<'a, W: SleepWord + 'a>(
    own: &impl SleepWord,
    links: impl Iterator<Item = &'a W>,
) -> (u32, u32) {
    // Ours first: see `signal_all`.
    let token = arm(own);
    let links = links.fold(0_u32, |sum, link| sum.wrapping_add(arm(link)));
    (token, links)
}

/// Both in one number. Ours is not added to the others, which peers may set to anything: our events must
/// show whatever they do.
pub(crate) fn token((own, links): (u32, u32)) -> u64 {
    u64::from(own) << 32 | u64::from(links)
}

/// Tells an event of this process to sleepers, whichever of the words they sleep on. The caller
/// has published before and has put `fence(SeqCst)` between.
///
/// Peers signal only their link's word, and arming arms ours first: where ours is not armed,
/// nobody sleeps, or the event that took our arm is about to wake him. That is an event of this
/// process, which ends its work; a peer may be killed or stopped in the midst of its own, so it is
/// never relied on to have woken somebody.
pub(crate) fn signal_all<'a, W: SleepWord + 'a>(
    own: &impl SleepWord,
    links: impl Iterator<Item = &'a W>,
) {
    if signal(own) {
        links.for_each(signal_any);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::Words;
    use crate::sync::model::{LoomSleepWord, LoomWords};
    use loom::thread;
    use std::sync::Arc;

    /// Would deadlock, which loom reports, if a publication could slip between look and sleep.
    #[test]
    fn a_sleeper_never_misses_a_publication() {
        loom::model(|| {
            let word = Arc::new(LoomSleepWord::new());
            let data = LoomWords::new(1);
            let publisher = {
                let (word, data) = (Arc::clone(&word), data.clone());
                thread::spawn(move || {
                    data.store(0, 1, Ordering::Release);
                    fence(Ordering::SeqCst);
                    signal(&*word);
                })
            };
            while data.load(0, Ordering::Acquire) == 0 {
                let token = arm(&*word);
                if data.load(0, Ordering::Acquire) != 0 {
                    break;
                }
                word.sleep(token);
            }
            publisher.join().unwrap();
        });
    }

    #[test]
    fn two_publishers_wake_one_sleeper_for_both() {
        loom::model(|| {
            let word = Arc::new(LoomSleepWord::new());
            let data = LoomWords::new(2);
            let publishers: Vec<_> = (0..2)
                .map(|at| {
                    let (word, data) = (Arc::clone(&word), data.clone());
                    thread::spawn(move || {
                        data.store(at, 1, Ordering::Release);
                        fence(Ordering::SeqCst);
                        signal(&*word);
                    })
                })
                .collect();
            let both = || (0..2).all(|at| data.load(at, Ordering::Acquire) != 0);
            while !both() {
                let token = arm(&*word);
                if both() {
                    break;
                }
                word.sleep(token);
            }
            for publisher in publishers {
                publisher.join().unwrap();
            }
        });
    }

    /// A peer that is killed between taking the arm and waking wakes nobody. The event of its death
    /// does.
    #[test]
    fn a_peer_killed_while_it_signals_takes_no_wake_up_with_it() {
        loom::model(|| {
            let own = Arc::new(LoomSleepWord::new());
            let link = Arc::new(LoomSleepWord::new());
            let dead = LoomWords::new(1);
            let killed = {
                let (own, link, dead) = (Arc::clone(&own), Arc::clone(&link), dead.clone());
                thread::spawn(move || {
                    let value = link.load(Ordering::Relaxed);
                    if value & ARMED != 0 {
                        link.replace(value, value.wrapping_add(1));
                    }
                    dead.store(0, 1, Ordering::Release);
                    fence(Ordering::SeqCst);
                    signal_all(&*own, std::iter::once(&*link));
                })
            };
            while dead.load(0, Ordering::Acquire) == 0 {
                let token = arm_all(&*own, std::iter::once(&*link));
                if dead.load(0, Ordering::Acquire) != 0 {
                    break;
                }
                let seen = link.load(Ordering::Acquire);
                if (own.load(Ordering::Acquire), seen) == token {
                    link.sleep(seen);
                }
            }
            killed.join().unwrap();
        });
    }

    /// A sleeper on its link's word alone hears both its peer and its own process.
    #[test]
    fn local_events_reach_a_sleeper_on_the_links_word() {
        loom::model(|| {
            let own = Arc::new(LoomSleepWord::new());
            let link = Arc::new(LoomSleepWord::new());
            let data = LoomWords::new(2);
            let peer = {
                let (link, data) = (Arc::clone(&link), data.clone());
                thread::spawn(move || {
                    data.store(0, 1, Ordering::Release);
                    fence(Ordering::SeqCst);
                    signal(&*link);
                })
            };
            let local = {
                let (own, link, data) = (Arc::clone(&own), Arc::clone(&link), data.clone());
                thread::spawn(move || {
                    data.store(1, 1, Ordering::Release);
                    fence(Ordering::SeqCst);
                    signal_all(&*own, std::iter::once(&*link));
                })
            };
            let both = || (0..2).all(|at| data.load(at, Ordering::Acquire) != 0);
            while !both() {
                let token = arm_all(&*own, std::iter::once(&*link));
                if both() {
                    break;
                }
                let seen = link.load(Ordering::Acquire);
                if (own.load(Ordering::Acquire), seen) == token {
                    link.sleep(seen);
                }
            }
            peer.join().unwrap();
            local.join().unwrap();
        });
    }
}
