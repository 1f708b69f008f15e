//! Whoever calls a listener's abstract socket without being one of us.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

fn socket() -> OwnedFd {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

/// Takes an abstract name.
pub fn listen(name: &[u8]) -> OwnedFd {
    let socket = socket();
    let addr = SocketAddrUnix::new_abstract_name(name).unwrap();
    rustix::net::bind(&socket, &addr).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    socket
}

/// Calls the listener at an IPv4 address.
pub fn call(addr: std::net::SocketAddr) -> OwnedFd {
    let socket = socket();
    let name = format!("sdp-host/1/4/{}/{}/0", addr.ip(), addr.port());
    let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    rustix::net::connect(&socket, &name).unwrap();
    socket
}

/// A well-formed hello of a layout version, as an honest peer of this machine would send it.
pub fn hello(major: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&56_u32.to_le_bytes());
    bytes.extend_from_slice(b"SDPHOST\n");
    bytes.extend_from_slice(&major.to_le_bytes());
    bytes.extend_from_slice(&0_u16.to_le_bytes());
    bytes.extend_from_slice(&[u8::try_from(size_of::<usize>()).unwrap(), 0, 1, 0]);
    bytes.extend_from_slice(
        &u32::try_from(rustix::param::page_size())
            .unwrap()
            .to_le_bytes(),
    );
    bytes.extend_from_slice(&[0; 4 + 8]);
    bytes.extend_from_slice(&[7; 16]);
    assert_eq!(bytes.len(), 56);
    bytes
}

/// Sends bytes and descriptors. The listener may have hung up.
pub fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); 2048];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let iov = [IoSlice::new(bytes)];
    match rustix::net::sendmsg(socket, &iov, &mut control, SendFlags::NOSIGNAL) {
        Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {}
        Err(e) => panic!("sendmsg: {e}"),
    }
}

/// What the listener says next; nothing once it has hung up. The socket must be readable.
pub fn receive(socket: &OwnedFd) -> Vec<u8> {
    let mut bytes = [0_u8; 4096];
    match rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
        Ok((len, _)) => bytes[..len].to_vec(),
        Err(rustix::io::Errno::CONNRESET) => Vec::new(),
        Err(e) => panic!("recv: {e}"),
    }
}

/// Whether the listener has hung up, or said something, by now.
pub fn is_readable(socket: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let fd = socket.as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut fds, Some(&now)).unwrap() > 0
}
