//! Urgent bytes: where they arrive, and where reads stop.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::net::{Net, Stream};
use crate::common::watch::{actor, doing};

/// No byte of the other sends.
const URGENT: u8 = b'!';

/// There is no urgent byte.
#[track_caller]
fn nothing(found: io::Result<Option<u8>>) {
    let error = found.expect_err("no urgent byte");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// Waits until `byte` is there to be received out of band.
fn until_urgent<N: Net>(net: &N, stream: &N::Stream, byte: u8) {
    net.until("waiting for the urgent byte", || {
        (stream.peek_urgent().ok() == Some(Some(byte))).then_some(())
    });
}

fn read<S: Stream>(stream: &S) -> Vec<u8> {
    let mut buf = [0; 100];
    doing("reading to the mark, or what there is");
    let len = stream.read(&mut buf).expect("read");
    buf[..len].to_vec()
}

/// A read stops at the mark, the byte is received once, and the next read begins behind it.
pub(crate) fn urgent_byte_out_of_band(net: &impl Net) {
    let (client, server) = net.pair();
    nothing(server.recv_urgent());
    assert!(!server.at_mark().expect("at_mark"));
    client.put(b"0123456789");
    assert_eq!(client.send_urgent(b"ab!").expect("send_urgent"), 3);
    client.put(b"tail");
    until_urgent(net, &server, URGENT);
    assert_eq!(server.recv_queue_len().expect("recv_queue_len"), 12);
    let mut buf = [0; 100];
    assert_eq!(server.peek(&mut buf).expect("peek"), 12);
    assert_eq!(read(&server), b"0123456789ab");
    assert!(server.at_mark().expect("at_mark"));
    assert_eq!(server.recv_urgent().expect("recv_urgent"), Some(URGENT));
    nothing(server.recv_urgent());
    assert_eq!(read(&server), b"tail");
    assert!(!server.at_mark().expect("at_mark"));
    nothing(server.recv_urgent());
}

/// What is read beyond the mark is gone, and the byte with it; waiting for all ends there, too.
pub(crate) fn urgent_byte_passed_over(net: &impl Net) {
    let (client, server) = net.pair();
    client.put(b"before");
    assert_eq!(client.send_urgent(b"!").expect("send_urgent"), 1);
    client.put(b"after");
    until_urgent(net, &server, URGENT);
    let mut buf = [0; 50];
    doing("waiting for more than there is before the mark");
    assert_eq!(server.read_waitall(&mut buf).expect("read_waitall"), 6);
    let mut buf = [0; 5];
    server.get(&mut buf);
    assert_eq!(&buf, b"after");
    nothing(server.recv_urgent());
}

/// In line the byte is the first of a read, and none is received out of band.
pub(crate) fn urgent_byte_in_line(net: &impl Net) {
    let (client, server) = net.pair();
    server.set_oob_inline(true).expect("set_oob_inline");
    client.put(b"0123456789");
    assert_eq!(client.send_urgent(b"!").expect("send_urgent"), 1);
    client.put(b"tail");
    net.until("waiting for all of it", || {
        (server.recv_queue_len().expect("recv_queue_len") == 15).then_some(())
    });
    nothing(server.recv_urgent());
    assert_eq!(read(&server), b"0123456789");
    assert!(server.at_mark().expect("at_mark"));
    let mut buf = [0; 100];
    assert_eq!(server.peek(&mut buf).expect("peek"), 5);
    assert_eq!(read(&server), b"!tail");
    assert!(!server.at_mark().expect("at_mark"));
}

/// A second urgent byte makes the first an ordinary one.
pub(crate) fn two_urgent_bytes(net: &impl Net) {
    let (client, server) = net.pair();
    client.put(b"one");
    assert_eq!(client.send_urgent(b"1").expect("send_urgent"), 1);
    until_urgent(net, &server, b'1');
    client.put(b"two");
    assert_eq!(client.send_urgent(b"2").expect("send_urgent"), 1);
    client.put(b"three");
    until_urgent(net, &server, b'2');
    assert_eq!(read(&server), b"one1two");
    assert!(server.at_mark().expect("at_mark"));
    assert_eq!(server.recv_urgent().expect("recv_urgent"), Some(b'2'));
    assert_eq!(read(&server), b"three");
}

/// A second urgent byte while the stream is at the first: that is gone.
pub(crate) fn urgent_byte_at_the_mark_of_another(net: &impl Net) {
    let (client, server) = net.pair();
    client.put(b"one");
    assert_eq!(client.send_urgent(b"1").expect("send_urgent"), 1);
    until_urgent(net, &server, b'1');
    assert_eq!(read(&server), b"one");
    assert!(server.at_mark().expect("at_mark"));
    client.put(b"two");
    assert_eq!(client.send_urgent(b"2").expect("send_urgent"), 1);
    until_urgent(net, &server, b'2');
    assert!(!server.at_mark().expect("at_mark"));
    assert_eq!(read(&server), b"two");
    assert_eq!(server.recv_urgent().expect("recv_urgent"), Some(b'2'));
    client
        .shutdown(std::net::Shutdown::Write)
        .expect("shutdown");
    server.at_end();
}

/// A write of `len` bytes, and meanwhile an urgent byte by another thread. It comes where a read
/// begins, between two bytes of the write, and both calls complete.
pub(crate) fn urgent_during_a_write<N: Net>(
    net: &N,
    (client, server): (&N::Stream, &N::Stream),
    whole: &[u8],
) {
    server.set_oob_inline(true).expect("set_oob_inline");
    let begun = AtomicBool::new(false);
    net.all(vec![
        actor("writer", || {
            assert_eq!(client.write(whole).expect("write"), whole.len());
        }),
        actor("urgent", || {
            net.until("waiting for the write to begin", || {
                begun.load(Ordering::Relaxed).then_some(())
            });
            assert_eq!(client.send_urgent(&[URGENT]).expect("send_urgent"), 1);
        }),
        actor("reader", || {
            let mut buf = vec![0; 1 << 20];
            let (mut at, mut marks) = (0, 0);
            while at < whole.len() || marks == 0 {
                doing(format!("reading after {at} bytes and {marks} urgent ones"));
                let len = server.read(&mut buf).expect("read");
                assert!(len > 0, "the end after {at} bytes");
                begun.store(true, Ordering::Relaxed);
                let mut got = &buf[..len];
                // As slices, which is quick however this is compiled.
                if whole.get(at..at + len) != Some(got) {
                    assert_eq!((got[0], marks), (URGENT, 0), "wrong bytes after {at}");
                    marks += 1;
                    got = &got[1..];
                    assert!(whole[at..][..got.len()] == *got, "wrong bytes after {at}");
                }
                at += got.len();
            }
        }),
    ]);
}

/// One round of the above.
pub(crate) fn urgent_during_a_large_write(net: &impl Net) {
    let (client, server) = net.pair();
    let whole: Vec<u8> = (0..8 << 20)
        .map(|i: u32| (i % 31).to_le_bytes()[0])
        .collect();
    urgent_during_a_write(net, (&client, &server), &whole);
}
