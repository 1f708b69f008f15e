//! Messages for which there are no means for a while.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::process::Command;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair, sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use super::*;
use crate::host::bell::new_epoll;

/// Set for the process that runs under a limit.
const ROLE: &str = "SDP_TEST_ROLE";
/// Descriptors that may be on their way.
const LIMIT: u64 = 128;

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    sockopt::set_socket_passcred(&pair.1, true).unwrap();
    pair
}

/// Has as many descriptors on their way as may be, and one more, until the socket is closed.
fn too_many_on_their_way() -> (OwnedFd, OwnedFd) {
    let (ours, peers) = pair();
    for _ in 0..=LIMIT {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [ours.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [IoSlice::new(b"x")];
        sendmsg(&ours, &bytes, &mut control, SendFlags::DONTWAIT).unwrap();
    }
    (ours, peers)
}

/// The next message that has come.
fn next(peer: &OwnedFd) -> Option<Message> {
    match control::receive(peer).unwrap() {
        Received::Packet(packet) => Some(packet.message),
        Received::Empty => None,
        Received::Closed => panic!("closed"),
    }
}

/// With too many descriptors of the user's on their way, a socket for tokens that waits is left out, other
/// messages with descriptors wait on, and nothing is an error.
#[test]
fn too_many_descriptors_on_their_way_end_no_link() {
    if std::env::var_os(ROLE).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "host::cm::link::tests::too_many_descriptors_on_their_way_end_no_link";
        command.args([name, "--exact", "--nocapture"]).env(ROLE, "");
        assert!(command.status().unwrap().success());
        return;
    }
    let limit = Rlimit {
        current: Some(LIMIT),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    if getuid().is_root() {
        // Root has no such limit.
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_uid(nobody).unwrap();
    }

    let (ours, peer) = pair();
    let epoll = Arc::new(new_epoll().unwrap());
    let data = epoll::EventData::new_u64(1);
    epoll::add(&*epoll, &ours, data, epoll::EventFlags::IN).unwrap();
    let out = Outbox::new(ours, None, &epoll, 1);
    let mut filling = 0;
    while out.lock().is_empty() {
        out.submit(&Message::Idle, &[]).unwrap();
        filling += 1;
    }
    let file = new_epoll().unwrap();
    let token = Message::TokenSocket { index: 1, qp: 2 };
    let chunk = Message::Chunk { id: 1, len: 4096 };
    for message in [&token, &chunk, &token] {
        out.submit(message, &[file.as_fd()]).unwrap();
    }
    let many = too_many_on_their_way();
    for _ in 1..filling {
        assert_eq!(next(&peer), Some(Message::Idle));
    }
    assert_eq!(out.flush().unwrap(), Flushed::Lacking);
    assert_eq!(next(&peer), Some(Message::Idle));
    assert_eq!(next(&peer), None, "descriptors are on their way already");
    assert_eq!(out.flush().unwrap(), Flushed::Lacking);
    drop(many);
    assert_eq!(out.flush().unwrap(), Flushed::Tried);
    assert_eq!(next(&peer), Some(chunk));
    assert_eq!(next(&peer), Some(token), "there is room again");
    assert_eq!(next(&peer), None);
}
