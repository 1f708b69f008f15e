//! Kernel TCP, and what all streams of the kernel have in common.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use super::{Buffer, Conn, Counters, Listener, Transport, heap};

/// TCP streams.
#[derive(Debug)]
pub(super) struct Tcp {
    /// Non-blocking calls, repeated, in place of blocking ones.
    pub(super) spin: bool,
}

impl Transport for Tcp {
    fn listen(&self, near: IpAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Accepting {
            listener: TcpListener::bind((near, 0))?,
            spin: self.spin,
        }))
    }

    fn connect(&self, address: &str) -> io::Result<Box<dyn Conn>> {
        let stream = TcpStream::connect(socket_address(address)?)?;
        open(stream, self.spin)
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

fn open(stream: TcpStream, spin: bool) -> io::Result<Box<dyn Conn>> {
    stream.set_nonblocking(spin)?;
    let nodelay = |stream: &TcpStream| stream.set_nodelay(true);
    Ok(Box::new(KernelConn {
        stream,
        spin,
        nodelay,
    }))
}

#[derive(Debug)]
struct Accepting {
    listener: TcpListener,
    spin: bool,
}

impl Listener for Accepting {
    fn address(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }

    fn accept(&self) -> io::Result<Box<dyn Conn>> {
        let (stream, _) = self.listener.accept()?;
        open(stream, self.spin)
    }
}

/// A stream of the kernel.
#[derive(Debug)]
pub(super) struct KernelConn<S> {
    /// The socket, non-blocking exactly if `spin`.
    pub(super) stream: S,
    /// Repeat a call that would block.
    pub(super) spin: bool,
    /// How this family sends small messages at once.
    pub(super) nodelay: fn(&S) -> io::Result<()>,
}

impl<S> Conn for KernelConn<S>
where
    S: Send + Sync,
    for<'a> &'a S: Read + Write,
{
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        repeat(self.spin, || (&self.stream).read(buf))
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        repeat(self.spin, || (&self.stream).write(buf))
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

fn repeat(spin: bool, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if spin && error.kind() == io::ErrorKind::WouldBlock => {
                std::hint::spin_loop();
            }
            other => return other,
        }
    }
}
