//! Keys, READ, WRITE, and what kills a key.

use super::rig::*;
use crate::error::PostError;
use crate::host::link::LinkEnd;
use crate::host::plane::PeerIdentity;
use crate::host::region::HostWindow;
use crate::mr::{Binding, MemoryRegion, MemoryWindow};
use crate::qp::QueuePair;
use crate::types::{Access, RemoteAddr, Rkey, Sge, WrId};
use crate::wr::WcOpcode::{Bind, LocalInv, Read, Recv, Send, Write};
use crate::wr::WcStatus::{Flushed, LocalProtection, RemoteAccess, SourceUnreadable, Success};
use crate::wr::{SendFlags, SendOp, WcStatus};

const LOCAL: Access = Access::LOCAL_WRITE;

fn read_op<'a>(local: &'a [Sge], from: RemoteAddr, rkey: Rkey) -> SendOp<'a> {
    SendOp::Read {
        local,
        remote: from,
        rkey,
    }
}

/// A READ of `len` bytes by `reader`: its status and the bytes.
fn try_read(reader: &End, from: RemoteAddr, rkey: Rkey, len: usize) -> (WcStatus, Vec<u8>) {
    let into = reader.owned(&vec![0; len]);
    reader.post(1, read_op(&[sge(&into, len)], from, rkey));
    let wc = reader.one();
    assert_eq!(wc.opcode, Read);
    if wc.status == Success {
        assert_eq!(wc.byte_len, len);
    }
    (wc.status, bytes_of(&into, len))
}

fn offset(at: RemoteAddr, by: u64) -> RemoteAddr {
    RemoteAddr(at.0.wrapping_add(by))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[test]
fn read_from_registered_memory() {
    let (a, b) = pair();
    let bytes = pattern(300_000);
    let region = b.owned(&bytes);
    let bound = b.bind(&region, bytes.len(), Access::REMOTE_READ);
    assert_eq!(
        try_read(&a, bound.addr, bound.rkey, bytes.len()),
        (Success, bytes.clone())
    );
    let (status, part) = try_read(&a, offset(bound.addr, 1000), bound.rkey, 17);
    assert_eq!((status, &part[..]), (Success, &bytes[1000..1017]));
    assert_eq!(bound.window.rkey(), Some(bound.rkey));
}

#[test]
fn read_from_the_heap_into_several_pieces() {
    let (a, b) = pair();
    let mut bytes = pattern(100_000);
    let whole = bytes.clone();
    let region = b.heap(&mut bytes, Access::MW_BIND);
    let bound = b.bind(&region, whole.len(), Access::REMOTE_READ);
    let into = [a.owned(&[0; 60_000]), a.owned(&[0; 40_000])];
    let local = [sge(&into[0], 60_000), sge(&into[1], 40_000)];
    a.post(4, read_op(&local, bound.addr, bound.rkey));
    let wc = a.one();
    assert_eq!((wc.status, wc.byte_len), (Success, 100_000));
    let got = [bytes_of(&into[0], 60_000), bytes_of(&into[1], 40_000)].concat();
    assert!(got == whole);
}

/// More registered memory than a peer maps: what is too much for it is read by way of the kernel, in both
/// directions, and the link lives on.
#[test]
fn registered_memory_that_cannot_be_shown_is_read_all_the_same() {
    let (a, b) = pair();
    let bytes = pattern(5_000);
    let regions: Vec<_> = (0..70).map(|_| b.owned(&bytes)).collect();
    for (n, region) in regions.iter().enumerate() {
        let bound = b.bind(region, bytes.len(), Access::REMOTE_READ);
        let got = try_read(&a, offset(bound.addr, 1), bound.rkey, 4_000);
        assert_eq!(got, (Success, bytes[1..4_001].to_vec()), "{n}");
    }
    let into = a.owned(&[0; 5_000]);
    let bound = a.bind(&into, 5_000, Access::REMOTE_WRITE);
    for region in &regions {
        let local = [sge(region, 5_000)];
        b.post(4, write_op(&local, bound.addr, bound.rkey));
        a.drain();
        assert_eq!(b.one().status, Success);
        assert!(bytes_of(&into, 5_000) == bytes);
    }
}

/// The region's message is slower than the ring: the read waits for it, and the kernel is not
/// asked for what a mapping will give.
#[test]
fn a_region_not_yet_passed_does_not_fail_a_read() {
    let (a, b) = pair();
    b.wire.hold();
    let region = b.owned(b"early");
    let bound = b.bind(&region, 5, Access::REMOTE_READ);
    let into = a.owned(&[0; 5]);
    a.post(1, read_op(&[sge(&into, 5)], bound.addr, bound.rkey));
    assert!(a.drain().is_empty());
    b.wire.release();
    assert_eq!(a.one().status, Success);
    assert_eq!(bytes_of(&into, 5), b"early");
}

/// The peer was killed after it had asked for a write and before it had passed the region: nobody
/// waits for that region, and what was posted is flushed at once.
#[test]
fn a_region_that_will_never_come_holds_nothing_up() {
    let (a, b) = pair();
    let _buf = b.recv(7, 8);
    a.wire.hold();
    let source = a.owned(b"never");
    let target = b.owned(&[0; 5]);
    let bound = b.bind(&target, 5, Access::REMOTE_WRITE);
    a.post(1, write_op(&[sge(&source, 5)], bound.addr, bound.rkey));
    assert!(b.drain().is_empty());
    b.link.broken(LinkEnd::PeerGone);
    assert_eq!(brief(&b.drain()), [(7, Recv, Flushed)]);
    assert_eq!(bytes_of(&target, 5), [0; 5]);
}

#[test]
fn heap_that_cannot_be_reached_is_refused_by_name() {
    let (_a, b) = pair_between(PeerIdentity { pid: 0, ..me() });
    assert!(b.qp.heap_reachable().unwrap_err().contains("pid namespace"));
    let mut bytes = [0; 16];
    let region = b.heap(&mut bytes, Access::MW_BIND);
    assert_eq!(
        try_bind(&b, &region, 16, Access::REMOTE_READ),
        Err(PostError::Unsupported)
    );
    let (_a, b) = pair();
    b.qp.heap_reachable().unwrap();
}

/// Nobody asks the kernel before heap is read. If it refuses, that read fails and nothing else,
/// and from then on the owner knows.
#[test]
fn heap_is_found_out_of_reach_by_the_first_read() {
    let nobody = PeerIdentity {
        pid: i32::MAX,
        ..me()
    };
    let (a, b) = pair_between(nobody);
    b.qp.heap_reachable().unwrap();
    let mut bytes = [7; 16];
    let region = b.heap(&mut bytes, Access::MW_BIND);
    let bound = b.bind(&region, 16, Access::REMOTE_READ);
    let into = a.owned(&[0; 16]);
    a.post(1, read_op(&[sge(&into, 16)], bound.addr, bound.rkey));
    assert_eq!(a.one().status, SourceUnreadable);
    assert_eq!(bytes_of(&into, 16), [0; 16]);
    assert!(b.qp.heap_reachable().unwrap_err().contains("pid namespace"));
    assert_eq!(
        try_bind(&b, &region, 16, Access::REMOTE_READ),
        Err(PostError::Unsupported)
    );
    let owned = b.owned(b"still works");
    let bound = b.bind(&owned, 11, Access::REMOTE_READ);
    a.post(2, read_op(&[sge(&into, 11)], bound.addr, bound.rkey));
    assert_eq!(a.one().status, Success);
}

#[test]
fn registered_memory_is_not_shown_to_another_user() {
    let uid = me().uid.wrapping_add(1);
    let (_a, b) = pair_between(PeerIdentity { uid, ..me() });
    let region = b.owned(&[0; 16]);
    assert_eq!(
        try_bind(&b, &region, 16, Access::REMOTE_READ),
        Err(PostError::Unsupported)
    );
}

#[test]
fn a_read_beyond_its_key_or_right_fails_and_breaks_the_queue_pair() {
    type Spoil = fn(&Bound) -> (RemoteAddr, Rkey, usize);
    let cases: [(&str, Spoil); 6] = [
        ("one byte too many", |k| (k.addr, k.rkey, 101)),
        ("begins before", |k| (offset(k.addr, u64::MAX), k.rkey, 2)),
        ("ends after", |k| (offset(k.addr, 99), k.rkey, 2)),
        ("wraps round", |k| (RemoteAddr(u64::MAX), k.rkey, 2)),
        ("other generation", |k| (k.addr, Rkey(k.rkey.0 ^ 1), 1)),
        ("no such cell", |k| (k.addr, Rkey(0xfff0_0001), 1)),
    ];
    for (what, spoil) in cases {
        let (a, b) = pair();
        let region = b.owned(&pattern(100));
        let bound = b.bind(&region, 100, Access::REMOTE_READ);
        let (addr, rkey, len) = spoil(&bound);
        assert_eq!(try_read(&a, addr, rkey, len).0, RemoteAccess, "{what}");
        let after = a.qp.post_send(signaled(2, send_op(b"", None)));
        assert_eq!(after, Err(PostError::WrongState), "{what}");
    }
    let (a, b) = pair();
    let region = b.owned(&pattern(100));
    let bound = b.bind(&region, 100, Access::REMOTE_WRITE);
    assert_eq!(
        try_read(&a, bound.addr, bound.rkey, 1).0,
        RemoteAccess,
        "write right only"
    );
}

/// A key belongs to the queue pair it was bound on.
#[test]
fn a_key_of_another_queue_pair_does_not_open() {
    let (a, b) = pair();
    let others = (
        create_qp(&a.link, &a.cq, Sizes::default()),
        create_qp(&b.link, &b.cq, Sizes::default()),
    );
    connect(&others.0, &others.1);
    let region = b.owned(&pattern(100));
    let bound = b.bind(&region, 100, Access::REMOTE_READ);
    let into = a.owned(&[0; 8]);
    let local = [sge(&into, 8)];
    others
        .0
        .post_send(signaled(5, read_op(&local, bound.addr, bound.rkey)))
        .unwrap();
    assert_eq!(brief(&a.drain()), [(5, Read, RemoteAccess)]);
    assert_eq!(bytes_of(&into, 8), [0; 8]);
    assert_eq!(try_read(&a, bound.addr, bound.rkey, 8).0, Success);
}

#[test]
fn a_source_that_is_not_mapped_is_the_peers_fault() {
    let (a, b) = pair();
    // SAFETY: a fresh mapping of one page that nobody may touch, unmapped below.
    let page = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            4096,
            rustix::mm::ProtFlags::empty(),
            rustix::mm::MapFlags::PRIVATE,
        )
    }
    .unwrap();
    let addr = std::ptr::NonNull::new(page.cast::<u8>()).unwrap();
    let region =
        crate::host::region::HostRegion::over_heap(&b.plane, addr, 4096, Access::MW_BIND).unwrap();
    let bound = b.bind(&region, 4096, Access::REMOTE_READ);
    let (status, _) = try_read(&a, bound.addr, bound.rkey, 4096);
    assert_eq!(status, SourceUnreadable);
    // SAFETY: our own mapping, of which no reference exists.
    unsafe { rustix::mm::munmap(page, 4096) }.unwrap();
}

#[test]
fn local_invalidate_kills_and_the_window_may_be_bound_again() {
    let (a, b) = pair();
    let region = b.owned(&pattern(100));
    let bound = b.bind(&region, 100, Access::REMOTE_READ);
    let again = Binding {
        lkey: region.lkey(),
        addr: region.addr(),
        len: 50,
        access: Access::REMOTE_READ,
    };
    let rebind = || {
        b.qp.bind(WrId(8), SendFlags::SIGNALED, &bound.window, again)
    };
    assert_eq!(rebind(), Err(PostError::WrongState), "still bound");
    b.post(7, SendOp::LocalInv { rkey: bound.rkey });
    assert_eq!(brief(&b.drain()), [(7, LocalInv, Success)]);
    assert_eq!(bound.window.rkey(), None);
    let fresh = rebind().unwrap();
    assert_ne!(fresh, bound.rkey);
    assert_eq!(brief(&b.drain()), [(8, Bind, Success)]);
    assert_eq!(try_read(&a, bound.addr, fresh, 50).0, Success);
    assert_eq!(try_read(&a, bound.addr, bound.rkey, 50).0, RemoteAccess);
    b.post(9, SendOp::LocalInv { rkey: bound.rkey });
    assert_eq!(brief(&b.drain()), [(9, LocalInv, LocalProtection)]);
}

/// The cell is used again at once, with another generation each time, also past the 2^16th.
#[test]
fn generations_keep_old_keys_dead() {
    let (_a, b) = pair();
    let region = b.owned(&pattern(100));
    let first = b.bind(&region, 100, Access::REMOTE_READ).rkey;
    let keys = b.plane.keys();
    let mut last = first;
    let mut wrapped = false;
    for _ in 0..70_000 {
        let bound = b.bind(&region, 100, Access::REMOTE_READ);
        assert_ne!(bound.rkey, last);
        assert!(keys.is_alive(bound.rkey) && !keys.is_alive(last) && !keys.is_alive(first));
        wrapped |= bound.rkey.0 >> 16 != first.0 >> 16;
        last = bound.rkey;
        drop(bound.window);
        b.drain();
    }
    assert!(wrapped, "a cell whose generations are used up rests");
}

#[test]
fn every_end_of_a_window_or_region_kills_the_key() {
    let (_a, b) = pair();
    let keys = b.plane.keys();
    let region = b.owned(&pattern(100));
    let bound = b.bind(&region, 100, Access::REMOTE_READ);
    drop(bound.window);
    assert!(!keys.is_alive(bound.rkey), "window dropped");
    let bound = b.bind(&region, 100, Access::REMOTE_READ);
    drop(region);
    assert!(
        !keys.is_alive(bound.rkey) && bound.window.rkey().is_none(),
        "region dropped"
    );
    let region = b.owned(&pattern(100));
    let bound = b.bind(&region, 100, Access::REMOTE_READ);
    b.qp.set_error();
    assert!(!keys.is_alive(bound.rkey), "queue pair in error");
    let (a, b) = pair();
    let region = b.owned(&pattern(100));
    let bound = b.bind(&region, 100, Access::REMOTE_READ);
    let End { qp, plane, .. } = b;
    drop(qp);
    assert!(!plane.keys().is_alive(bound.rkey), "queue pair dropped");
    assert_eq!(try_read(&a, bound.addr, bound.rkey, 1).0, RemoteAccess);
}

#[test]
fn many_keys_at_once() {
    let (a, b) = pair();
    let region = b.owned(&pattern(4096));
    let all: Vec<_> = (0..5_000)
        .map(|_| {
            let bound = b.bind(&region, 4096, Access::REMOTE_READ);
            b.drain();
            bound
        })
        .collect();
    for bound in all.iter().step_by(501) {
        assert_eq!(try_read(&a, bound.addr, bound.rkey, 10).0, Success);
    }
}

fn try_bind(
    end: &End,
    region: &dyn MemoryRegion,
    len: usize,
    access: Access,
) -> Result<Rkey, PostError> {
    let window = HostWindow::new(&end.plane);
    let binding = Binding {
        lkey: region.lkey(),
        addr: region.addr(),
        len,
        access,
    };
    end.qp.bind(WrId(0), SendFlags::SIGNALED, &window, binding)
}

#[test]
fn a_binding_must_fit_its_region() {
    let (a, b) = pair();
    let (read, write) = (Access::REMOTE_READ, Access::REMOTE_WRITE);
    let owned = b.owned(&[0; 4096]);
    let mut memory = [0; 64];
    let plain = b.heap(&mut memory, Access::LOCAL_WRITE);
    let mut memory = [0; 64];
    let constant = b.heap(&mut memory, Access::MW_BIND);
    let refused = Err(PostError::LocalProtection);
    assert_eq!(try_bind(&b, &owned, 4097, read), refused, "too long");
    assert_eq!(try_bind(&b, &owned, 0, read), refused, "nothing");
    assert_eq!(
        try_bind(&b, &owned, 1, Access::empty()),
        refused,
        "no right"
    );
    assert_eq!(
        try_bind(&b, &owned, 1, read | Access::LOCAL_WRITE),
        refused,
        "odd right"
    );
    assert_eq!(try_bind(&b, &plain, 1, read), refused, "no MW_BIND");
    assert_eq!(try_bind(&b, &constant, 1, write), refused, "no LOCAL_WRITE");
    assert_eq!(
        try_bind(&a, &owned, 1, read),
        refused,
        "another instance's region"
    );
    let foreign = HostWindow::new(&a.plane);
    let binding = Binding {
        lkey: owned.lkey(),
        addr: owned.addr(),
        len: 1,
        access: read,
    };
    let bound = b.qp.bind(WrId(0), SendFlags::SIGNALED, &foreign, binding);
    assert_eq!(bound, refused, "another instance's window");
    assert!(b.drain().is_empty(), "nothing was posted");
    try_bind(&b, &owned, 4096, read | write).unwrap();
    try_bind(&b, &constant, 64, read).unwrap();
    assert_eq!(b.drain().len(), 2);
}

#[test]
fn send_with_invalidate_kills_before_the_receive_is_reported() {
    let (a, b) = pair();
    let region = b.owned(&pattern(100));
    let bound = b.bind(&region, 100, Access::REMOTE_READ);
    let _buf = b.recv(3, 64);
    a.post(1, send_op(b"done", Some(bound.rkey)));
    let wc = b.one();
    assert_eq!(
        (wc.status, wc.invalidated, wc.byte_len),
        (Success, Some(bound.rkey), 4)
    );
    assert!(!b.plane.keys().is_alive(bound.rkey));
    // Again: now it is no living key of this queue pair, which is an error.
    let _buf = b.recv(4, 64);
    let _rest = b.recv(5, 64);
    a.post(2, send_op(b"done", Some(bound.rkey)));
    assert_eq!(
        brief(&b.drain()),
        [(4, Recv, LocalProtection), (5, Recv, Flushed)]
    );
}

fn write_op<'a>(local: &'a [Sge], to: RemoteAddr, rkey: Rkey) -> SendOp<'a> {
    SendOp::Write {
        local,
        remote: to,
        rkey,
    }
}

/// The message behind a write is seen only when the write is in memory, also if the write comes
/// from the heap, into the heap, in pieces.
#[test]
fn write_lands_before_the_message_behind_it() {
    for heap in [false, true] {
        let (a, b) = pair();
        let mut backing = vec![0; 100_000];
        let target = if heap {
            b.heap(&mut backing, LOCAL | Access::MW_BIND)
        } else {
            b.owned(&[0; 100_000])
        };
        let bound = b.bind(&target, 100_000, Access::REMOTE_WRITE);
        let bytes = pattern(90_000);
        let mut from = bytes[..50_000].to_vec();
        let pieces = [
            a.heap(&mut from, Access::empty()),
            a.owned(&bytes[50_000..]),
        ];
        let local = [sge(&pieces[0], 50_000), sge(&pieces[1], 40_000)];
        let buf = b.recv(7, 64);
        a.post(1, write_op(&local, offset(bound.addr, 10), bound.rkey));
        a.send(2, b"it is there");
        assert!(a.drain().is_empty(), "the target has not looked yet");
        let wc = b.one();
        assert_eq!(contents(&buf, wc.byte_len), b"it is there");
        let got = bytes_of(&target, 100_000);
        assert!(got[..10] == [0; 10] && got[10..90_010] == bytes && got[90_010..] == [0; 9990]);
        assert_eq!(brief(&a.drain()), [(1, Write, Success), (2, Send, Success)]);
    }
}

#[test]
fn a_write_to_a_dead_or_short_key_changes_nothing_and_fails() {
    for case in 0..3 {
        let (a, b) = pair();
        let target = b.owned(&[9; 100]);
        let access = if case == 2 {
            Access::REMOTE_READ
        } else {
            Access::REMOTE_WRITE
        };
        let bound = b.bind(&target, 100, access);
        if case == 0 {
            b.post(0, SendOp::LocalInv { rkey: bound.rkey });
        }
        let len = if case == 1 { 101 } else { 100 };
        let source = a.owned(&[1; 200]);
        let _buf = b.recv(7, 100);
        a.post(1, write_op(&[sge(&source, len)], bound.addr, bound.rkey));
        a.send(2, b"behind");
        // The message behind says that the bytes are there.
        assert!(!brief(&b.drain()).contains(&(7, Recv, Success)), "{case}");
        assert_eq!(
            brief(&a.drain()),
            [(1, Write, RemoteAccess), (2, Send, Flushed)],
            "{case}"
        );
        assert_eq!(bytes_of(&target, 100), [9; 100]);
    }
}

#[test]
fn the_zero_length_write_needs_no_key_and_a_living_peer() {
    let (a, b) = pair();
    a.post(1, write_op(&[], RemoteAddr(0), Rkey(0)));
    assert!(a.drain().is_empty());
    assert!(b.drain().is_empty());
    assert_eq!(brief(&a.drain()), [(1, Write, Success)]);
    a.post(2, write_op(&[], RemoteAddr(0), Rkey(0)));
    a.link.broken(LinkEnd::PeerGone);
    assert_eq!(brief(&a.drain()), [(2, Write, WcStatus::RetryExceeded)]);
}

#[test]
fn more_writes_than_the_ring_has_statuses() {
    let (a, b) = pair_with(Sizes {
        send: 500,
        ..Sizes::default()
    });
    let target = b.owned(&[0; 4096]);
    let bound = b.bind(&target, 4096, Access::REMOTE_WRITE);
    let source = a.owned(&pattern(4096));
    for n in 0..500u64 {
        let mut piece = sge(&source, 8);
        piece.addr = piece.addr.wrapping_add(usize::try_from(n).unwrap() * 8);
        a.post(n, write_op(&[piece], offset(bound.addr, n * 8), bound.rkey));
    }
    let mut done = Vec::new();
    until("all writes", || {
        b.drain();
        done.extend(a.drain());
        (done.len() == 500).then_some(())
    });
    assert!(
        done.iter()
            .zip(0..)
            .all(|(wc, n)| (wc.wr_id.0, wc.status) == (n, Success))
    );
    assert_eq!(bytes_of(&target, 4000), pattern(4000));
}

/// Completions come in the order posted, whatever waits.
#[test]
fn order_across_kinds() {
    let (a, b) = pair();
    let source = b.owned(&pattern(64));
    let readable = b.bind(&source, 64, Access::REMOTE_READ);
    let target = b.owned(&[0; 64]);
    let writable = b.bind(&target, 64, Access::REMOTE_WRITE);
    let into = a.owned(&[0; 64]);
    let _bufs = [b.recv(1, 64), b.recv(2, 64)];
    a.post(1, read_op(&[sge(&into, 64)], readable.addr, readable.rkey));
    a.send(2, b"one");
    a.post(3, write_op(&[sge(&into, 64)], writable.addr, writable.rkey));
    a.send(4, b"two");
    a.post(5, read_op(&[sge(&into, 64)], readable.addr, readable.rkey));
    assert_eq!(brief(&a.drain()), [(1, Read, Success), (2, Send, Success)]);
    assert_eq!(brief(&b.drain()), [(1, Recv, Success), (2, Recv, Success)]);
    let rest = [(3, Write, Success), (4, Send, Success), (5, Read, Success)];
    assert_eq!(brief(&a.drain()), rest);
    assert_eq!(
        bytes_of(&target, 64),
        pattern(64),
        "the write sent what the read brought"
    );
}

/// One call of poll moves one transfer, and says so to a sleeper.
#[test]
fn one_transfer_per_poll_and_none_forgotten() {
    use crate::cq::{ArmFor, CompletionQueue, Wake};
    let (a, b) = pair();
    let source = b.owned(&pattern(64));
    let bound = b.bind(&source, 64, Access::REMOTE_READ);
    let into = a.owned(&[0; 64]);
    let local = [sge(&into, 64)];
    for n in 0..3 {
        let wr = crate::wr::SendWr {
            wr_id: WrId(n),
            op: read_op(&local, bound.addr, bound.rkey),
            flags: if n == 2 {
                SendFlags::SIGNALED
            } else {
                SendFlags::empty()
            },
        };
        a.qp.post_send(wr).unwrap();
    }
    for _ in 0..2 {
        let token = a.cq.arm(ArmFor::Waiter);
        assert!(a.poll_some(8).is_empty(), "unsignalled");
        assert_eq!(a.cq.wait(token, Some(LONG)).unwrap(), Wake::Event);
    }
    assert_eq!(brief(&a.poll_some(8)), [(2, Read, Success)]);
}

/// A key killed while the peer's write through it is being carried out: memory does not change
/// after that.
#[test]
fn dead_means_dead_under_fire() {
    let (a, mut b) = pair();
    let cq = std::sync::Arc::clone(&b.cq);
    let _poller = Poller::start(move || {
        crate::cq::CompletionQueue::poll(&*cq, &mut [blank(); 4]);
    });
    let target = b.owned(&[0; 1 << 16]);
    let source = a.owned(&[5; 1 << 16]);
    for _ in 0..200 {
        let near = create_qp(&a.link, &a.cq, Sizes::default());
        b.qp = create_qp(&b.link, &b.cq, Sizes::default());
        connect(&near, &b.qp);
        let bound = b.bind(&target, 1 << 16, Access::REMOTE_WRITE);
        let local = [sge(&source, 1 << 16)];
        let op = write_op(&local, bound.addr, bound.rkey);
        near.post_send(signaled(1, op)).unwrap();
        drop(bound.window);
        fill(&target, &[1; 1 << 16]);
        until("the answer", || a.drain().pop());
        assert!(bytes_of(&target, 1 << 16).iter().all(|byte| *byte == 1));
    }
}
