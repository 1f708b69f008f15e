//! Unix sockets, under abstract names.

use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::patience::is_nonblocking;
use super::tcp::KernelConn;
use super::{Conn, Listener, Transport, Wait};

/// Streams between Unix sockets.
#[derive(Debug)]
pub(super) struct Uds {
    /// How a thread waits.
    pub(super) wait: Wait,
}

impl Transport for Uds {
    fn listen(&self, _near: IpAddr) -> io::Result<Box<dyn Listener>> {
        let (listener, name) = listen()?;
        Ok(Box::new(Accepting {
            listener,
            name,
            wait: self.wait,
        }))
    }

    fn connect(&self, address: &str) -> io::Result<Box<dyn Conn>> {
        open(connect(address)?, self.wait)
    }
}

/// Listens under a fresh abstract name, and gives the name.
///
/// # Errors
/// Those of the system.
pub(super) fn listen() -> io::Result<(UnixListener, String)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("sdp-perf-{}-{number}", process::id());
    let address = SocketAddr::from_abstract_name(&name)?;
    Ok((UnixListener::bind_addr(&address)?, name))
}

/// Connects to the listener of an abstract name.
///
/// # Errors
/// Those of the system.
pub(super) fn connect(name: &str) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)
}

fn open(stream: UnixStream, wait: Wait) -> io::Result<Box<dyn Conn>> {
    stream.set_nonblocking(is_nonblocking(wait))?;
    Ok(Box::new(KernelConn {
        stream,
        wait,
        // Unix sockets never hold a message back.
        nodelay: |_| Ok(()),
    }))
}

#[derive(Debug)]
struct Accepting {
    listener: UnixListener,
    name: String,
    wait: Wait,
}

impl Listener for Accepting {
    fn address(&self) -> io::Result<String> {
        Ok(self.name.clone())
    }

    fn accept(&self) -> io::Result<Box<dyn Conn>> {
        let (stream, _) = self.listener.accept()?;
        open(stream, self.wait)
    }
}
