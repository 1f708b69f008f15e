//! SEND and receive.

use super::rig::*;
use crate::error::{PostError, VerbsError};
use crate::host::provider::LIMITS;
use crate::mr::MemoryRegion;
use crate::qp::QueuePair;
use crate::types::{Access, WrId};
use crate::wr::WcOpcode::{Recv, Send};
use crate::wr::WcStatus::{LocalLength, RemoteOperation, RnrRetryExceeded, Success};
use crate::wr::{SendData, SendFlags, SendOp, SendWr};

#[test]
fn messages_arrive_in_order_with_their_bytes_and_names() {
    let (a, b) = pair();
    let bufs: Vec<_> = (0..5).map(|n| b.recv(100 + n, 64)).collect();
    for n in 0..5u8 {
        a.send(u64::from(n), &vec![n; usize::from(n)]);
    }
    let sent: Vec<_> = (0..5).map(|n| (n, Send, Success)).collect();
    assert_eq!(brief(&a.drain()), sent);
    let got = b.drain();
    for (n, wc) in (0..5u8).zip(&got) {
        assert_eq!(
            (wc.wr_id.0, wc.byte_len),
            (100 + u64::from(n), usize::from(n))
        );
        assert_eq!(
            contents(&bufs[usize::from(n)], wc.byte_len),
            vec![n; usize::from(n)]
        );
        assert_eq!(wc.qp, b.qp.num());
    }
    assert_eq!(got.len(), 5);
}

/// Many times around the rings, with every kind of message memory, over chunks that grow.
#[test]
fn rings_go_round_and_chunks_grow() {
    let (a, b) = pair_with(Sizes {
        recv: 4,
        ..Sizes::default()
    });
    let bufs: Vec<_> = (0..4).map(|n| b.recv(n, 1 << 20)).collect();
    let source = a.owned(&[7; 4096]);
    for round in 0..1000u64 {
        let tag = round.to_ne_bytes();
        match round % 3 {
            0 => a.send(round, &tag),
            1 => {
                let buf = a.qp.reserve_send(8).unwrap();
                buf.mem().write(0, &tag);
                let data = SendData::Buf { buf, len: 8 };
                a.post(
                    round,
                    SendOp::Send {
                        data,
                        invalidate: None,
                    },
                );
            }
            _ => {
                fill(&source, &tag);
                let sges = [sge(&source, 3), {
                    let mut rest = sge(&source, 5);
                    rest.addr = rest.addr.wrapping_add(3);
                    rest
                }];
                let data = SendData::Sges(&sges);
                a.post(
                    round,
                    SendOp::Send {
                        data,
                        invalidate: None,
                    },
                );
            }
        }
        assert_eq!(a.one().wr_id, WrId(round));
        let wc = b.one();
        assert_eq!((wc.wr_id.0, wc.byte_len), (round % 4, 8));
        let slot = usize::try_from(wc.wr_id.0).unwrap();
        assert_eq!(contents(&bufs[slot], 8), tag);
        b.qp.post_recv(wc.wr_id, &bufs[slot]).unwrap();
    }
}

/// Receives are consumed in the order taken, messages arrive in the order posted, and each
/// completes with the name of the receive it really lies in.
#[test]
fn reserved_buffers_may_be_posted_in_another_order() {
    let (a, b) = pair();
    let bufs = [b.recv(0, 64), b.recv(1, 64), b.recv(2, 64)];
    let [first, second] = [(); 2].map(|()| a.qp.reserve_send(8).unwrap());
    first.mem().write(0, b"first");
    second.mem().write(0, b"second");
    let post = |wr_id, buf, len| {
        let data = SendData::Buf { buf, len };
        a.post(
            wr_id,
            SendOp::Send {
                data,
                invalidate: None,
            },
        );
    };
    post(2, second, 6);
    a.send(3, b"third");
    post(1, first, 5);
    let got = b.drain();
    let seen: Vec<_> = got
        .iter()
        .map(|wc| contents(&bufs[usize::try_from(wc.wr_id.0).unwrap()], wc.byte_len))
        .collect();
    assert_eq!(seen, [&b"second"[..], b"third", b"first"]);
    assert_eq!(
        got.iter().map(|wc| wc.wr_id.0).collect::<Vec<_>>(),
        [1, 2, 0]
    );
}

#[test]
fn a_reserved_buffer_given_back_is_used_by_the_next_message() {
    let (a, b) = pair();
    let buf = b.recv(9, 64);
    let reserved = a.qp.reserve_send(64).unwrap();
    a.send(1, b"waits for the slot");
    assert!(a.drain().is_empty());
    a.qp.unreserve_send(reserved);
    assert_eq!(brief(&a.drain()), [(1, Send, Success)]);
    assert_eq!(contents(&buf, b.one().byte_len), b"waits for the slot");
    // Dropping gives back too.
    let _again = b.recv(10, 64);
    drop(a.qp.reserve_send(1).unwrap());
    a.send(2, b"x");
    assert_eq!(b.one().wr_id.0, 10);
}

/// The head of the queue waits for a receive, and the only one is held by a message behind it.
#[test]
fn a_message_behind_gives_its_slot_to_the_head() {
    let (a, b) = pair();
    let first_buf = b.recv(1, 64);
    let reserved = a.qp.reserve_send(6).unwrap();
    reserved.mem().write(0, b"behind");
    a.send(1, b"head");
    let data = SendData::Buf {
        buf: reserved,
        len: 6,
    };
    a.post(
        2,
        SendOp::Send {
            data,
            invalidate: None,
        },
    );
    assert_eq!(brief(&a.drain()), [(1, Send, Success)]);
    assert_eq!(contents(&first_buf, b.one().byte_len), b"head");
    let second_buf = b.recv(2, 64);
    assert_eq!(brief(&a.drain()), [(2, Send, Success)]);
    assert_eq!(contents(&second_buf, b.one().byte_len), b"behind");
}

#[test]
fn without_a_receive_a_send_waits_and_its_bytes_are_those_at_posting() {
    let (a, b) = pair();
    let mut bytes = *b"as posted";
    a.send(1, &bytes);
    bytes.fill(b'x');
    let reserved = a.qp.reserve_send(4).unwrap();
    reserved.mem().write(0, b"heap");
    let data = SendData::Buf {
        buf: reserved,
        len: 4,
    };
    a.post(
        2,
        SendOp::Send {
            data,
            invalidate: None,
        },
    );
    assert!(a.drain().is_empty() && b.drain().is_empty());
    let bufs = [b.recv(1, 64), b.recv(2, 64)];
    assert_eq!(brief(&a.drain()), [(1, Send, Success), (2, Send, Success)]);
    let got = b.drain();
    assert_eq!(contents(&bufs[0], got[0].byte_len), b"as posted");
    assert_eq!(contents(&bufs[1], got[1].byte_len), b"heap");
}

#[test]
fn rnr_gives_up_as_often_as_asked() {
    let (a, _b) = pair_with(Sizes {
        rnr_retry: 0,
        ..Sizes::default()
    });
    a.send(1, b"nobody");
    assert_eq!(brief(&a.drain()), [(1, Send, RnrRetryExceeded)]);
    assert_eq!(
        a.qp.post_send(signaled(2, send_op(b"", None))),
        Err(PostError::WrongState)
    );
    let (a, _b) = pair_with(Sizes {
        rnr_retry: 2,
        ..Sizes::default()
    });
    a.send(1, b"nobody");
    assert!(a.drain().is_empty(), "not at once");
    let wc = until("the give-up", || a.drain().pop());
    assert_eq!(wc.status, RnrRetryExceeded);
}

#[test]
fn a_message_longer_than_the_receive_breaks_both_ends() {
    for reserve in [false, true] {
        let (a, b) = pair();
        let _small = b.recv(5, 8);
        if reserve {
            let buf = a.qp.reserve_send(9).unwrap();
            let data = SendData::Buf { buf, len: 9 };
            a.post(
                1,
                SendOp::Send {
                    data,
                    invalidate: None,
                },
            );
        } else {
            a.send(1, b"nine byte");
        }
        assert_eq!(brief(&a.drain()), [(1, Send, RemoteOperation)]);
        assert_eq!(brief(&b.drain()), [(5, Recv, LocalLength)]);
    }
}

#[test]
fn unsignalled_sends_produce_nothing_and_free_their_entries() {
    let (a, b) = pair_with(Sizes {
        send: 2,
        ..Sizes::default()
    });
    let buf = b.recv(0, 64);
    for n in 0..50 {
        let wr = SendWr {
            wr_id: WrId(n),
            op: send_op(b"quiet", None),
            flags: SendFlags::empty(),
        };
        a.qp.post_send(wr).unwrap();
        assert!(a.drain().is_empty());
        assert_eq!(b.drain().len(), 1);
        b.qp.post_recv(WrId(0), &buf).unwrap();
    }
}

#[test]
fn queues_have_the_depth_asked_for() {
    let (a, b) = pair_with(Sizes {
        send: 2,
        recv: 2,
        ..Sizes::default()
    });
    let bufs: Vec<_> = (0..3).map(|_| b.qp.alloc_recv(16).unwrap()).collect();
    b.qp.post_recv(WrId(0), &bufs[0]).unwrap();
    b.qp.post_recv(WrId(1), &bufs[1]).unwrap();
    assert_eq!(b.qp.post_recv(WrId(2), &bufs[2]), Err(PostError::QueueFull));
    a.send(0, b"");
    a.send(1, b"");
    let third = || a.qp.post_send(signaled(2, send_op(b"", None)));
    assert_eq!(
        third(),
        Err(PostError::QueueFull),
        "two completions not polled"
    );
    assert_eq!(a.qp.reserve_send(1).unwrap_err(), PostError::QueueFull);
    assert_eq!(a.drain().len(), 2);
    third().unwrap();
    let held = a.qp.reserve_send(1).unwrap();
    assert_eq!(a.qp.reserve_send(1).unwrap_err(), PostError::QueueFull);
    drop(held);
}

#[test]
fn what_does_not_belong_is_refused() {
    let (a, b) = pair();
    let buf = b.qp.alloc_recv(16).unwrap();
    assert_eq!(
        a.qp.post_recv(WrId(0), &buf),
        Err(PostError::LocalProtection)
    );
    b.qp.post_recv(WrId(0), &buf).unwrap();
    assert_eq!(
        b.qp.post_recv(WrId(0), &buf),
        Err(PostError::LocalProtection),
        "posted twice"
    );
    let reserved = a.qp.reserve_send(4).unwrap();
    let data = SendData::Buf {
        buf: reserved,
        len: 4,
    };
    let op = SendOp::Send {
        data,
        invalidate: None,
    };
    assert_eq!(
        b.qp.post_send(signaled(0, op)),
        Err(PostError::LocalProtection)
    );
    let reserved = a.qp.reserve_send(4).unwrap();
    let data = SendData::Buf {
        buf: reserved,
        len: 5,
    };
    let op = SendOp::Send {
        data,
        invalidate: None,
    };
    assert_eq!(a.qp.post_send(signaled(0, op)), Err(PostError::TooLarge));
    assert!(matches!(
        b.qp.alloc_recv(LIMITS.recv_len_max + 1),
        Err(VerbsError::Argument { .. })
    ));
    assert_eq!(
        a.qp.reserve_send(LIMITS.recv_len_max + 1).unwrap_err(),
        PostError::TooLarge
    );
    let region = a.owned(&[0; 4096]);
    let mut beyond = sge(&region, region.len());
    beyond.len += 1;
    let data = SendData::Sges(std::slice::from_ref(&beyond));
    let op = SendOp::Send {
        data,
        invalidate: None,
    };
    assert_eq!(
        a.qp.post_send(signaled(0, op)),
        Err(PostError::LocalProtection)
    );
    // The slot given back by the refused requests still works.
    a.send(7, b"fine");
    assert_eq!(b.one().byte_len, 4);
}

#[test]
fn nothing_may_be_sent_before_the_connection() {
    let (a, b) = unconnected(Sizes::default());
    let buf = b.recv(1, 64);
    let early = a.qp.post_send(signaled(0, send_op(b"early", None)));
    assert_eq!(early, Err(PostError::WrongState));
    assert_eq!(a.qp.reserve_send(1).unwrap_err(), PostError::WrongState);
    // The passive side connects first and sends: its message is there when we connect.
    b.qp.connect_to(&a.qp.descriptor()).unwrap();
    let first = a.recv(2, 64);
    b.send(0, b"hello");
    a.qp.connect_to(&b.qp.descriptor()).unwrap();
    assert_eq!(contents(&first, a.one().byte_len), b"hello");
    a.send(1, b"back");
    let got = b.drain();
    assert_eq!(brief(&got), [(0, Send, Success), (1, Recv, Success)]);
    assert_eq!(contents(&buf, 4), b"back");
}

/// The chunk's message may be slower than the ring: the sender waits as for a receive.
#[test]
fn a_receive_in_a_chunk_not_yet_passed_is_waited_for() {
    let (a, b) = pair();
    b.wire.hold();
    let buf = b.recv(1, 1 << 20);
    a.send(1, b"patience");
    assert!(a.drain().is_empty());
    assert_eq!(a.qp.queued_len(), 8);
    b.wire.release();
    assert_eq!(brief(&a.drain()), [(1, Send, Success)]);
    assert_eq!(a.qp.queued_len(), 0);
    assert_eq!(contents(&buf, b.one().byte_len), b"patience");
}

#[test]
fn a_dropped_receive_buffer_still_completes_and_its_memory_is_used_again() {
    let (a, b) = pair();
    for n in 0..10_000u64 {
        drop(b.recv(n, 64 << 10));
        a.send(n, b"into the void");
        assert_eq!(b.one().wr_id.0, n);
        assert_eq!(a.one().wr_id.0, n);
    }
}

#[test]
fn one_process_may_register_only_what_verbs_allow() {
    let (a, _b) = pair();
    let mut memory = [0u8; 16];
    let ptr = std::ptr::NonNull::new(memory.as_mut_ptr()).unwrap();
    let remote = crate::host::region::HostRegion::over_heap(&a.plane, ptr, 16, Access::REMOTE_READ);
    assert!(matches!(remote, Err(VerbsError::Unsupported { .. })));
    let none = crate::host::region::HostRegion::over_heap(&a.plane, ptr, 0, Access::empty());
    assert!(matches!(none, Err(VerbsError::Argument { .. })));
    let region = a.owned(&[1; 5]);
    assert_eq!(region.len(), 4096);
    assert_eq!(bytes_of(&region, 6), [1, 1, 1, 1, 1, 0]);
    assert!(region.rkey().is_none());
}
