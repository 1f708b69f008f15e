//! Kernel TCP, and what all streams of the kernel have in common.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use rustix::event::PollFlags;

use super::patience::{is_nonblocking, repeat};
use super::{Buffer, Conn, Counters, Listener, Transport, Wait, heap};

/// TCP streams.
#[derive(Debug)]
pub(super) struct Tcp {
    /// How a thread waits.
    pub(super) wait: Wait,
}

impl Transport for Tcp {
    fn listen(&self, near: IpAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Accepting {
            listener: TcpListener::bind((near, 0))?,
            wait: self.wait,
        }))
    }

    fn connect(&self, address: &str) -> io::Result<Box<dyn Conn>> {
        let stream = TcpStream::connect(socket_address(address)?)?;
        open(stream, self.wait)
    }
}

/// Reads an address that a listener gave.
///
/// # Errors
/// `InvalidInput` if it is not one.
pub(super) fn socket_address(address: &str) -> io::Result<SocketAddr> {
    address.parse().map_err(|_| {
        let message = format!("`{address}` is not an IP address with a port");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

fn open(stream: TcpStream, wait: Wait) -> io::Result<Box<dyn Conn>> {
    stream.set_nonblocking(is_nonblocking(wait))?;
    let nodelay = |stream: &TcpStream| stream.set_nodelay(true);
    Ok(Box::new(KernelConn {
        stream,
        wait,
        nodelay,
    }))
}

#[derive(Debug)]
struct Accepting {
    listener: TcpListener,
    wait: Wait,
}

impl Listener for Accepting {
    fn address(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }

    fn accept(&self) -> io::Result<Box<dyn Conn>> {
        let (stream, _) = self.listener.accept()?;
        open(stream, self.wait)
    }
}

/// A stream of the kernel.
#[derive(Debug)]
pub(super) struct KernelConn<S> {
    /// The socket, non-blocking if `wait` needs it so.
    pub(super) stream: S,
    /// How a thread waits.
    pub(super) wait: Wait,
    /// How this family sends small messages at once.
    pub(super) nodelay: fn(&S) -> io::Result<()>,
}

impl<S> Conn for KernelConn<S>
where
    S: AsFd + Send + Sync,
    for<'a> &'a S: Read + Write,
{
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let stream = &self.stream;
        repeat(self.wait, stream, PollFlags::IN, || (&*stream).read(buf))
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        let stream = &self.stream;
        repeat(self.wait, stream, PollFlags::OUT, || (&*stream).write(buf))
    }

    fn set_nodelay(&self) -> io::Result<()> {
        (self.nodelay)(&self.stream)
    }

    fn buffer(&self, len: usize) -> io::Result<Buffer> {
        Ok(heap(len))
    }

    fn counters(&self) -> Option<Counters> {
        None
    }
}
