//! Descriptors are counted and closed; the end is told from an empty packet.

use super::*;
use std::io::IoSlice;

fn pair() -> (OwnedFd, OwnedFd) {
    let (a, b) = net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    sockopt::set_socket_passcred(&a, true).unwrap();
    sockopt::set_socket_passcred(&b, true).unwrap();
    (a, b)
}

/// A pipe whose write end travels: its reader sees the end once every copy is closed.
fn canary() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap()
}

fn all_closed(reader: &OwnedFd) -> bool {
    rustix::io::read(reader, &mut [0_u8; 1]) == Ok(0)
}

fn send_raw(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); 2048];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

#[test]
fn a_message_arrives_with_its_descriptor_and_its_sender() {
    let (a, b) = pair();
    let message = Message::Chunk { id: 7, len: 4096 };
    let (_reader, writer) = canary();
    let sent = send(&a, &message.encode(), &[writer.as_fd()], true).unwrap();
    assert_eq!(sent, Sent::Done);
    let Received::Packet(packet) = receive(&b).unwrap() else {
        panic!("a packet was sent");
    };
    assert_eq!(packet.message, message);
    assert_eq!(packet.credentials, Credentials::own());
    assert_eq!(packet.fds.len(), 1);
    let flags = rustix::io::fcntl_getfd(&packet.fds[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn descriptors_nobody_asked_for_are_closed_whatever_their_number() {
    for count in [1, 3, DESCRIPTORS_MAX, DESCRIPTORS_MAX + 1, 100, 253] {
        let (a, b) = pair();
        let (reader, writer) = canary();
        let fds = vec![writer.as_fd(); count];
        send_raw(&a, &Message::Idle.encode(), &fds);
        let error = receive(&b).unwrap_err();
        assert!(matches!(error, VerbsError::Protocol { .. }), "{error}");
        drop(writer);
        assert!(all_closed(&reader), "{count} descriptors");
    }
}

#[test]
fn descriptors_of_garbage_are_closed() {
    let (a, b) = pair();
    let (reader, writer) = canary();
    send_raw(&a, b"garbage", &[writer.as_fd()]);
    assert!(receive(&b).is_err());
    drop(writer);
    assert!(all_closed(&reader));
}

#[test]
fn a_missing_descriptor_is_named() {
    let (a, b) = pair();
    send_raw(&a, &Message::Chunk { id: 1, len: 1 }.encode(), &[]);
    let error = receive(&b).unwrap_err().to_string();
    assert!(error.contains("0 descriptors"), "{error}");
}

#[test]
fn an_empty_packet_is_refused_and_the_end_is_the_end() {
    let (a, b) = pair();
    send_raw(&a, b"", &[]);
    assert!(receive(&b).is_err());
    assert!(matches!(receive(&b).unwrap(), Received::Empty));
    drop(a);
    assert!(matches!(receive(&b).unwrap(), Received::Closed));
}

#[test]
fn a_packet_too_long_is_refused() {
    let (a, b) = pair();
    send_raw(&a, &[0; MESSAGE_MAX + 1], &[]);
    let error = receive(&b).unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}

#[test]
fn what_was_sent_before_a_reset_is_still_received() {
    let (a, b) = pair();
    send_raw(&a, &Message::Stay.encode(), &[]);
    send_raw(&b, &Message::Idle.encode(), &[]);
    // Closing with something unread resets the other side.
    drop(a);
    assert!(matches!(receive(&b).unwrap(), Received::Packet(_)));
    assert!(matches!(receive(&b).unwrap(), Received::Closed));
    assert_eq!(
        send(&b, &Message::Idle.encode(), &[], false).unwrap(),
        Sent::Closed
    );
}

#[test]
fn a_full_queue_is_told() {
    let (a, _b) = pair();
    let bytes = Message::Idle.encode();
    let mut rounds = 0;
    while send(&a, &bytes, &[], false).unwrap() == Sent::Done {
        rounds += 1;
        assert!(rounds < 1_000_000, "a queue without end");
    }
    assert!(rounds > 0);
}
