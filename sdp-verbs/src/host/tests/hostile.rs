//! A peer that writes what it likes into everything it can write.

use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

use super::rig::*;
use crate::cq::{ArmFor, CompChannel, CompletionQueue};
use crate::error::VerbsError;
use crate::host::layout::{Block, HEADER_LEN, Inbound, PostedSlot, QpPlace, WriteRequest};
use crate::host::link::PeerLink;
use crate::host::plane::{PeerIdentity, Plane};
use crate::host::pool::CHUNKS_MAX;
use crate::host::qp::{HostQp, QpDescriptor};
use crate::host::shm::{self, Mapping, SEALS_OWNED, SEALS_SHARED};
use crate::host::words::MappedWords;
use crate::qp::QueuePair;
use crate::sync::{Ordering, Words};
use crate::types::{Access, RemoteAddr, Rkey, WrId};
use crate::wr::SendFlags as Flags;
use crate::wr::WcOpcode::{Recv, Send};
use crate::wr::WcStatus::{Flushed, RemoteOperation, Success};
use crate::wr::{SendOp, SendWr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use zerocopy::{FromBytes, IntoBytes};

/// The inbound ring of a queue pair, as its peer could write it.
fn forge_inbound(victim: &HostQp, entries: &[[u64; 8]]) {
    let (words, log) = victim.block().in_ring();
    for (n, entry) in (0u64..).zip(entries) {
        let at = usize::try_from(n & ((1 << log) - 1)).unwrap() * 8;
        for (word, value) in entry.iter().enumerate().skip(1) {
            words.store(at + word, *value, Ordering::Relaxed);
        }
        words.store(at, n + 1, Ordering::Release);
    }
}

/// The receive ring of a queue pair, as its owner could write it for its peer.
fn forge_posted(owner: &HostQp, posted: &[PostedSlot]) {
    let (words, _) = owner.block().recv_ring();
    for (n, slot) in (0u64..).zip(posted) {
        let at = usize::try_from(n).unwrap() * 4;
        for (word, value) in slot.to_words().iter().enumerate().skip(1) {
            words.store(at + word, *value, Ordering::Relaxed);
        }
        words.store(at, n + 1, Ordering::Release);
    }
}

#[test]
fn impossible_entries_break_the_queue_pair_only() {
    let send = |slot, len| Inbound::Send {
        slot,
        len,
        solicited: false,
        invalidate: None,
    };
    let cases = [
        ("no such slot", send(7, 1).to_words()),
        ("slot far out", send(u32::MAX, 1).to_words()),
        ("longer than the receive", send(0, 9).to_words()),
        ("much longer", send(0, u64::MAX).to_words()),
        (
            "overrun of nothing",
            Inbound::Overrun { slot: 9 }.to_words(),
        ),
        ("unknown kind", [0, 99, 1, 2, 3, 4, 5, 6]),
        ("all ones", [u64::MAX; 8]),
        ("all zero", [0; 8]),
    ];
    for (what, entry) in cases {
        let (_a, b) = pair();
        let _buf = b.recv(1, 8);
        forge_inbound(&b.qp, &[entry]);
        let all = b.drain();
        assert!(all.iter().all(|wc| wc.status != Success), "{what}: {all:?}");
        assert!(all.len() <= 1, "{what}");
        assert!(b.qp.reserve_send(1).is_err(), "{what}: in error");
        // The link still carries others.
        let others = (
            create_qp(&_a.link, &_a.cq, Sizes::default()),
            create_qp(&b.link, &b.cq, Sizes::default()),
        );
        connect(&others.0, &others.1);
        let buf = others.1.alloc_recv(8).unwrap();
        others.1.post_recv(WrId(5), &buf).unwrap();
        others
            .0
            .post_send(signaled(5, send_op(b"fine", None)))
            .unwrap();
        assert_eq!(brief(&b.drain()), [(5, Recv, Success)], "{what}");
    }
}

#[test]
fn a_receive_cannot_be_completed_twice() {
    let (_a, b) = pair();
    let _buf = b.recv(1, 8);
    let entry = Inbound::Send {
        slot: 0,
        len: 1,
        solicited: false,
        invalidate: None,
    };
    forge_inbound(&b.qp, &[entry.to_words(), entry.to_words()]);
    assert_eq!(brief(&b.drain()), [(1, Recv, Success)]);
    assert!(b.qp.reserve_send(1).is_err());
}

#[test]
fn a_forged_number_of_a_write_is_the_peers_own_affair() {
    let (_a, b) = pair();
    let _buf = b.recv(1, 8);
    let write = |n| {
        Inbound::Write(WriteRequest {
            n,
            len: 0,
            from: (Rkey(0), 0),
            to: (Rkey(0), 0),
        })
    };
    let send = Inbound::Send {
        slot: 0,
        len: 1,
        solicited: false,
        invalidate: None,
    };
    let entries = [write(u64::MAX), write(1 << 60), send].map(Inbound::to_words);
    forge_inbound(&b.qp, &entries);
    assert_eq!(brief(&b.drain()), [(1, Recv, Success)]);
}

#[test]
fn a_forged_write_cannot_reach_what_no_key_names() {
    let (a, b) = pair();
    let target = b.owned(&[7; 64]);
    let read_only = b.bind(&target, 64, Access::REMOTE_READ);
    let short = b.bind(&target, 8, Access::REMOTE_WRITE);
    let source = a.owned(&[1; 4096]);
    let from = a.bind(&source, 4096, Access::REMOTE_READ);
    let write = |rkey, to: u64, len| {
        Inbound::Write(WriteRequest {
            n: 0,
            len,
            from: (from.rkey, from.addr.0),
            to: (rkey, to),
        })
        .to_words()
    };
    let entries = [
        write(read_only.rkey, read_only.addr.0, 8),
        write(short.rkey, short.addr.0, 9),
        write(short.rkey, short.addr.0.wrapping_sub(1), 2),
        write(short.rkey, u64::MAX, u64::MAX),
        write(Rkey(0), short.addr.0, 8),
        write(Rkey(u32::MAX), short.addr.0, 8),
    ];
    forge_inbound(&b.qp, &entries);
    for _ in 0..entries.len() {
        assert!(b.poll_some(8).is_empty());
    }
    assert_eq!(bytes_of(&target, 64), [7; 64]);
}

#[test]
fn forged_receives_are_never_written_to() {
    let good = PostedSlot {
        slot: 0,
        chunk: 0,
        offset: HEADER_LEN as u64,
        len: 64,
    };
    let cases = [
        (
            "beyond the chunk",
            PostedSlot {
                offset: 1 << 40,
                ..good
            },
        ),
        (
            "ends beyond",
            PostedSlot {
                len: 1 << 40,
                ..good
            },
        ),
        (
            "wraps",
            PostedSlot {
                offset: u64::MAX,
                len: 2,
                ..good
            },
        ),
        (
            "impossible chunk",
            PostedSlot {
                chunk: u32::try_from(CHUNKS_MAX).unwrap(),
                ..good
            },
        ),
    ];
    for (what, posted) in cases {
        let (a, b) = pair();
        forge_posted(&b.qp, &[posted]);
        let refused = a.qp.post_send(signaled(1, send_op(b"x", None)));
        assert!(refused.is_err(), "{what}");
        assert!(a.qp.reserve_send(1).is_err(), "{what}: in error");
    }
    let (a, b) = pair();
    forge_posted(&b.qp, &[PostedSlot { chunk: 17, ..good }]);
    a.send(1, b"waits for a chunk that never comes");
    assert!(a.drain().is_empty());
    a.qp.set_error();
    assert_eq!(brief(&a.drain()), [(1, Send, Flushed)]);
}

#[test]
fn forged_receives_found_while_waiting_flush_the_message() {
    let (a, b) = pair();
    a.send(1, b"x");
    forge_posted(
        &b.qp,
        &[PostedSlot {
            slot: 0,
            chunk: 0,
            offset: 1 << 50,
            len: 1,
        }],
    );
    assert_eq!(brief(&a.drain()), [(1, Send, RemoteOperation)]);
}

#[test]
fn descriptors_that_cannot_be_are_refused_by_name() {
    let (a, b) = unconnected(Sizes::default());
    let good = QpPlace::read_from_bytes(&b.qp.descriptor().0).unwrap();
    let spoiled = [
        QpPlace {
            block_chunk: 9.into(),
            ..good
        },
        QpPlace {
            block_chunk: u32::MAX.into(),
            ..good
        },
        QpPlace {
            block_offset: u64::MAX.into(),
            ..good
        },
        QpPlace {
            block_offset: (good.block_offset.get() + 1).into(),
            ..good
        },
        QpPlace {
            block_offset: (250 << 10).into(),
            ..good
        },
        QpPlace {
            cell_chunk: 5.into(),
            ..good
        },
        QpPlace {
            cell_offset: u32::MAX.into(),
            ..good
        },
        QpPlace {
            cell_offset: (good.cell_offset.get() + 1).into(),
            ..good
        },
        QpPlace { in_log: 64, ..good },
        QpPlace {
            recv_log: 255,
            ..good
        },
        QpPlace {
            reserved: 1.into(),
            ..good
        },
    ];
    for place in spoiled {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(place.as_bytes());
        let refused = a.qp.connect_to(&QpDescriptor(bytes));
        assert!(
            matches!(refused, Err(VerbsError::Protocol { .. })),
            "{place:?}"
        );
    }
    a.qp.connect_to(&b.qp.descriptor()).unwrap();
}

#[test]
fn chunks_and_regions_that_cannot_be_are_refused() {
    let (a, _b) = pair();
    let memfd = |len: usize, seals| {
        let fd = shm::create("test", len, len).unwrap();
        shm::seal(fd.as_fd(), seals).unwrap();
        fd
    };
    assert!(
        a.link
            .attach_chunk(2, memfd(4096, SEALS_SHARED), 4096)
            .is_err(),
        "number"
    );
    assert!(
        a.link
            .attach_chunk(1, memfd(4096, SEALS_SHARED), 8192)
            .is_err(),
        "length"
    );
    let read_only = memfd(4096, SEALS_OWNED);
    assert!(
        a.link.attach_chunk(1, read_only, 4096).is_err(),
        "not writable"
    );
    a.link
        .attach_chunk(1, memfd(4096, SEALS_SHARED), 4096)
        .unwrap();
    assert!(
        a.link
            .attach_region(1, memfd(4096, SEALS_SHARED), 4096)
            .is_err(),
        "writable"
    );
    a.link
        .attach_region(1, memfd(4096, SEALS_OWNED), 4096)
        .unwrap();
    assert!(
        a.link
            .attach_region(1, memfd(4096, SEALS_OWNED), 4096)
            .is_err(),
        "in use"
    );
    a.link.detach_region(1).unwrap();
    assert!(a.link.detach_region(1).is_err());
}

#[test]
fn a_doorbell_that_is_none_is_refused() {
    let sides = [Plane::new().unwrap(), Plane::new().unwrap()].map(|p| p.open_side().unwrap());
    let [ours, theirs] = sides;
    let (pipe, _write) = rustix::pipe::pipe().unwrap();
    let mut hello = hello(&theirs);
    hello.doorbell = pipe;
    let out = Arc::new(Wire::default());
    let link = PeerLink::new(ours, me(), hello, out);
    assert!(matches!(link, Err(VerbsError::Protocol { .. })));
}

/// The peer has its ends of both doorbells in blocking mode and full: nobody waits for it.
#[test]
fn a_doorbell_cannot_be_made_to_block() {
    let [ours, theirs] =
        [Plane::new().unwrap(), Plane::new().unwrap()].map(|p| p.open_side().unwrap());
    let (given_to_us, given_to_them) = (hello(&theirs), hello(&ours));
    let both = [&given_to_us, &given_to_them].map(|hello| hello.doorbell.try_clone().unwrap());
    let link = PeerLink::new(ours, me(), given_to_us, Arc::new(Wire::default())).unwrap();
    for bell in &both {
        let flags = fcntl_getfl(bell).unwrap() - OFlags::NONBLOCK;
        fcntl_setfl(bell, flags).unwrap();
        while send(bell, &[1], SendFlags::DONTWAIT).is_ok() {}
    }
    link.ring_peer(0);
    // More than is taken back at once, and then nothing.
    for _ in 0..1000 {
        link.answer_doorbell();
    }
    assert_eq!(
        recv(&both[1], &mut [0; 1], RecvFlags::DONTWAIT),
        Err(Errno::AGAIN)
    );
    drop(theirs);
}

/// Every word of the header, the block and the wait word scribbled, again and again, while both
/// sides work: nothing panics, nothing hangs, and the victim can always end.
/// What could not be told from our own word elsewhere is neither lent to another user nor written for
/// one.
#[test]
fn another_user_gets_no_token_socket_and_no_token() {
    let uid = me().uid.wrapping_add(1);
    let (_a, b) = pair_between(PeerIdentity { uid, ..me() });
    let (p, q) = UnixStream::pair().unwrap();
    let lent = b.qp.lend_token_socket(q.as_fd());
    assert!(
        matches!(lent, Err(VerbsError::Unsupported { .. })),
        "{lent:?}"
    );
    let place = (0, b.qp.number());
    b.link.attach_token_socket(place, q.into()).unwrap();
    let end = recv(&p, &mut [0; 1], RecvFlags::DONTWAIT).map(|(n, _)| n);
    assert_eq!(end, Ok(0), "it was kept");
}

/// A socket that looks right and takes nothing: its owner is told by the doorbell, each time.
#[test]
fn a_token_socket_that_takes_nothing_costs_no_event() {
    let alone = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let (p, shut) = UnixStream::pair().unwrap();
    let (full, _unread) = UnixStream::pair().unwrap();
    while send(&full, &[0; 1024], SendFlags::DONTWAIT).is_ok() {}
    drop(p);
    for bad in [alone, shut.into(), full.into()] {
        let (a, b) = pair();
        let place = (0, b.qp.number());
        b.link.attach_token_socket(place, bad).unwrap();
        for round in 0..3 {
            let _buf = a.recv(round, 8);
            a.cq.arm(ArmFor::Token);
            assert_eq!(a.channel.poll(), None);
            let flags = Flags::PAYLOAD;
            b.qp.post_send(SendWr {
                flags,
                ..signaled(round, send_op(b"x", None))
            })
            .unwrap();
            assert_eq!(a.channel.poll(), Some(a.cq.token()), "round {round}");
            assert_eq!(brief(&a.drain()), [(round, Recv, Success)]);
        }
        assert_eq!(a.cq.recall_tokens(), 0);
    }
}

#[test]
fn scribbling_everywhere_harms_nobody_else() {
    let (a, b) = pair();
    let _bufs: Vec<_> = (0..8).map(|n| b.recv(n, 64)).collect();
    let base = b.link.pool().base_map();
    let words = MappedWords::new(&base, 0, base.len() / 8).unwrap();
    let mut seed = 1u64;
    for round in 0..20_000u64 {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let at = usize::try_from(seed >> 33).unwrap() % (base.len() / 8);
        let value = match seed % 4 {
            0 => 0,
            1 => round,
            2 => seed & 0xff,
            _ => seed,
        };
        words.store(at, value, Ordering::Relaxed);
        if round % 16 == 0 {
            // Refusals are as good as successes here.
            let _sent = a.qp.post_send(signaled(1, send_op(b"x", None)));
            a.drain_bounded();
            b.drain_bounded();
            CompChannel::poll(&*b.channel);
        }
    }
    b.qp.set_error();
    a.qp.set_error();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a peer puts into the inbound ring: at most the posted receives complete, each at
    /// most once, none with more bytes than it has.
    #[test]
    fn any_inbound_ring(entries in prop::collection::vec(entry(), 1..40)) {
        let (a, b) = pair();
        let _bufs: Vec<_> = (0..4).map(|n| b.recv(n, 32)).collect();
        let target = b.owned(&[1; 64]);
        let bound = b.bind(&target, 64, Access::REMOTE_READ);
        forge_inbound(&b.qp, &entries);
        let mut seen = Vec::new();
        for _ in 0..100 {
            seen.extend(b.poll_some(3));
        }
        prop_assert!(seen.len() <= 4);
        prop_assert!(seen.iter().all(|wc| wc.byte_len <= 32));
        let mut ids: Vec<_> = seen.iter().map(|wc| wc.wr_id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), seen.len());
        prop_assert_eq!(bytes_of(&target, 64), vec![1; 64]);
        a.qp.post_send(signaled(1, SendOp::Read {
            local: &[],
            remote: bound.addr,
            rkey: bound.rkey,
        })).unwrap();
        a.drain_bounded();
    }

    /// Whatever a peer puts into its key cells, region numbers and receive ring: what it sends
    /// and reads goes wrong for itself, not for us.
    #[test]
    fn any_descriptor(bytes: [u8; 32]) {
        let (a, _b) = unconnected(Sizes::default());
        if a.qp.connect_to(&QpDescriptor(bytes)).is_ok() {
            let _sent = a.qp.post_send(signaled(1, send_op(b"x", None)));
            a.drain_bounded();
        }
        a.qp.set_error();
        a.drain_bounded();
    }
}

fn entry() -> impl Strategy<Value = [u64; 8]> {
    let small = 0u64..6;
    (any::<[u64; 8]>(), small.clone(), 0u64..8, 0u64..40, 0u64..4).prop_map(
        |(mut words, kind, slot, len, flags)| {
            words[1] = kind | flags << 8 | slot << 32;
            if len < 36 {
                words[2] = len;
            }
            words
        },
    )
}

#[test]
fn a_block_beyond_its_chunk_is_none() {
    let fd = shm::create("test", 4096, 4096).unwrap();
    let map = Arc::new(Mapping::read_write(fd.as_fd(), 4096).unwrap());
    assert!(Block::new(&map, 0, 0, 0).is_some());
    assert!(Block::new(&map, 0, 6, 0).is_none());
    assert!(Block::new(&map, usize::MAX - 7, 0, 0).is_none());
    assert!(Block::new(&map, 4, 0, 0).is_none());
    assert_eq!(RemoteAddr::default().0, 0);
}
