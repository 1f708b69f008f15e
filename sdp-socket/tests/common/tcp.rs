//! The sockets that ours are measured against.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, sockopt};

use super::net::{Listener, Net, Stream, forward_to_std_names};
use super::threads;
use super::watch::{Actor, on_threads};

/// Kernel TCP on the loopback.
#[derive(Debug)]
pub(crate) struct Tcp {
    buffers: Option<usize>,
    started: Instant,
}

impl Tcp {
    pub(crate) fn new() -> Self {
        Self {
            buffers: None,
            started: Instant::now(),
        }
    }

    /// A socket with the buffer sizes asked for: they must be set before it is connected.
    fn socket(&self, addr: SocketAddr) -> io::Result<rustix::fd::OwnedFd> {
        let family = match addr {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        if let Some(len) = self.buffers {
            sockopt::set_socket_send_buffer_size(&socket, len)?;
            sockopt::set_socket_recv_buffer_size(&socket, len)?;
        }
        Ok(socket)
    }
}

fn done(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

unsafe extern "C" {
    /// sockatmark(3), which the libc crate does not have.
    fn sockatmark(socket: libc::c_int) -> libc::c_int;
}

fn urgent_byte(stream: &TcpStream, flags: RecvFlags) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let (len, _) = rustix::net::recv(stream, &mut byte, flags)?;
    Ok((len > 0).then_some(byte[0]))
}

impl Net for Tcp {
    type Stream = TcpStream;
    type Listener = TcpListener;

    const SDP: bool = false;

    fn fits(len: usize) -> RangeInclusive<usize> {
        // Linux doubles what was asked for, and counts what it needs itself.
        2 * len..=8 * len
    }

    fn bind(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.socket(addr)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &addr)?;
        rustix::net::listen(&socket, 128)?;
        Ok(socket.into())
    }

    fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(addr)?;
        rustix::net::connect(&socket, &addr)?;
        Ok(socket.into())
    }

    fn sized(&self, len: usize) -> Self {
        Self {
            buffers: Some(len),
            started: self.started,
        }
    }

    fn all(&self, actors: Vec<Actor<'_>>) {
        on_threads(actors);
    }

    fn pass(&self) {
        std::thread::yield_now();
    }

    fn until_others_wait(&self) {
        threads::until_others_sleep();
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        // Of the system, since std's goes on after a signal.
        let (socket, from) = rustix::net::acceptfrom(self)?;
        let from = from.expect("a connected peer has an address");
        Ok((socket.into(), from.try_into().expect("an IP address")))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.set_nonblocking(on)
    }
}

impl Stream for TcpStream {
    forward_to_std_names!();

    fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(self, time)?)
    }

    fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(sockopt::socket_linger(self)?)
    }

    fn read_waitall(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, buf, RecvFlags::WAITALL)?.0)
    }

    fn set_recv_low_water(&self, len: usize) -> io::Result<()> {
        let len = libc::c_int::try_from(len).expect("a small number");
        // SAFETY: the value is an int, four bytes, that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const len).cast(),
                4,
            )
        };
        done(set)
    }

    fn send_urgent(&self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, buf, SendFlags::OOB)?)
    }

    fn recv_urgent(&self) -> io::Result<Option<u8>> {
        urgent_byte(self, RecvFlags::OOB)
    }

    fn peek_urgent(&self) -> io::Result<Option<u8>> {
        urgent_byte(self, RecvFlags::OOB | RecvFlags::PEEK)
    }

    fn at_mark(&self) -> io::Result<bool> {
        // SAFETY: sockatmark has no preconditions.
        match unsafe { sockatmark(self.as_raw_fd()) } {
            -1 => Err(io::Error::last_os_error()),
            at => Ok(at == 1),
        }
    }

    fn set_oob_inline(&self, on: bool) -> io::Result<()> {
        Ok(sockopt::set_socket_oobinline(self, on)?)
    }

    fn recv_queue_len(&self) -> io::Result<usize> {
        Ok(usize::try_from(rustix::io::ioctl_fionread(self)?).expect("it was in memory"))
    }

    fn send_queue_len(&self) -> io::Result<usize> {
        let mut len: libc::c_int = 0;
        // SAFETY: TIOCOUTQ, which SIOCOUTQ is, writes one int.
        done(unsafe { libc::ioctl(self.as_raw_fd(), libc::TIOCOUTQ, &raw mut len) })?;
        Ok(usize::try_from(len).expect("no fewer than none"))
    }
}
