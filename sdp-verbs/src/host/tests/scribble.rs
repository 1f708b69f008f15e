//! A peer that scribbles over the link's memory between any two steps: the body of the fuzz target
//! `host_link`, and the replay of its corpus.

use std::sync::Arc;

use super::rig::*;
use crate::cq::CompChannel;
use crate::host::layout::{IN_WORDS, RECV_WORDS};
use crate::host::words::MappedWords;
use crate::memory::RecvBuf;
use crate::qp::QueuePair;
use crate::sync::{Ordering, Words};
use crate::types::{Access, RemoteAddr, Rkey, WrId};
use crate::wr::{SendOp, WcOpcode, WcStatus};

/// Bytes of a victim's region, none of which the peer may change.
const SECRET_LEN: usize = 64;
/// Steps of one execution.
const STEPS_MAX: usize = 200;
/// Receives that the victim posts, and the size of each.
const RECVS: u64 = 6;
const RECV_LEN: usize = 32;

/// Takes numbers from the input; zeros behind its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn u64(&mut self) -> u64 {
        (0..8).fold(0, |sum, _| sum << 8 | u64::from(self.u8()))
    }

    /// Mostly what rings hold: small numbers in either half.
    fn word(&mut self) -> u64 {
        match self.u8() {
            0..=99 => u64::from(self.u8()),
            100..=199 => u64::from(self.u8()) << 32 | u64::from(self.u8()),
            200..=209 => u64::MAX - u64::from(self.u8()),
            _ => self.u64(),
        }
    }
}

/// Words that the peer of `victim` can write, and how many they are.
fn foreign_words(victim: &End) -> [(MappedWords, usize); 3] {
    let base = victim.link.pool().base_map();
    let count = base.len() / 8;
    let whole = MappedWords::new(&base, 0, count).expect("the base chunk");
    let (inbound, in_log) = victim.qp.block().in_ring();
    let (receives, recv_log) = victim.qp.block().recv_ring();
    [
        (whole, count),
        (inbound, IN_WORDS << in_log),
        (receives, RECV_WORDS << recv_log),
    ]
}

/// One execution.
///
/// # Panics
/// If the victim does anything it must not.
pub(in crate::host) fn run(bytes: &[u8]) {
    let mut input = Bytes(bytes);
    let (peer, victim) = pair();
    let bufs: Vec<RecvBuf> = (0..RECVS).map(|n| victim.recv(n, RECV_LEN)).collect();
    let secret = victim.owned(&[7; SECRET_LEN]);
    let shown = victim.bind(&secret, SECRET_LEN, Access::REMOTE_READ);
    let words = foreign_words(&victim);
    let mut posted = RECVS;
    let mut received = 0;
    for _ in 0..STEPS_MAX {
        if input.0.is_empty() {
            break;
        }
        match input.u8() % 12 {
            0..=6 => scribble(&words, &mut input),
            7 => {
                // Refusals are as good as successes here.
                let _ = peer.qp.post_send(signaled(1, send_op(b"x", None)));
                peer.drain_bounded();
            }
            8 => {
                let remote = RemoteAddr(shown.addr.0.wrapping_add(input.word()));
                let rkey = Rkey(shown.rkey.0.wrapping_add(u32::from(input.u8() & 3)));
                let read = SendOp::Read {
                    local: &[],
                    remote,
                    rkey,
                };
                let _ = peer.qp.post_send(signaled(2, read));
                peer.drain_bounded();
            }
            9 => {
                let buf = &bufs[usize::from(input.u8()) % bufs.len()];
                posted += u64::from(victim.qp.post_recv(WrId(99), buf).is_ok());
            }
            10 => {
                let _ = victim.qp.post_send(signaled(3, send_op(b"y", None)));
            }
            _ => received += look(&victim),
        }
    }
    received += look(&victim);
    assert!(received <= posted, "{received} receives of {posted} posted");
    victim.qp.set_error();
    peer.qp.set_error();
    victim.drain_bounded();
    assert!(victim.qp.reserve_send(1).is_err(), "in error");
    assert_eq!(bytes_of(&secret, SECRET_LEN), [7; SECRET_LEN]);
    lives_on(&victim.plane);
}

fn scribble(words: &[(MappedWords, usize)], input: &mut Bytes<'_>) {
    let (words, count) = &words[usize::from(input.u8()) % words.len()];
    let at = (usize::from(input.u8()) << 8 | usize::from(input.u8())) % count;
    words.store(at, input.word(), Ordering::Release);
}

/// Polls the victim; how many receives succeeded, none of them longer than it can be.
fn look(victim: &End) -> u64 {
    let mut received = 0;
    for _ in 0..8 {
        for wc in victim.poll_some(4) {
            if wc.opcode == WcOpcode::Recv && wc.status == WcStatus::Success {
                assert!(wc.byte_len <= RECV_LEN, "{wc:?}");
                received += 1;
            }
        }
    }
    CompChannel::poll(&*victim.channel);
    received
}

/// The instance still serves another peer.
fn lives_on(plane: &Arc<crate::host::plane::Plane>) {
    let other = crate::host::plane::Plane::new().expect("another instance");
    let [_ours, _theirs] = link_again(plane, &other);
}

/// Every input that was worth keeping.
#[cfg(test)]
#[test]
fn the_corpus_finds_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/host_link");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        let path = entry.expect("an entry").path();
        run(&std::fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0, "{folder} is empty");
}
