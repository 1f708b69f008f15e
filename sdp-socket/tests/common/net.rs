//! What the bodies of the tests are written against: streams and listeners of any kind.

use std::fmt::Debug;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::pattern::Pattern;
use super::watch::{Actor, doing};

/// A connected stream, as `std::net::TcpStream`.
pub(crate) trait Stream: Debug + Send + Sync + Sized + 'static {
    fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    fn peek(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    fn try_clone(&self) -> io::Result<Self>;
    fn local_addr(&self) -> io::Result<SocketAddr>;
    fn peer_addr(&self) -> io::Result<SocketAddr>;
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()>;
    fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()>;
    fn read_timeout(&self) -> io::Result<Option<Duration>>;
    fn write_timeout(&self) -> io::Result<Option<Duration>>;
    fn set_nodelay(&self, on: bool) -> io::Result<()>;
    fn nodelay(&self) -> io::Result<bool>;
    fn set_linger(&self, time: Option<Duration>) -> io::Result<()>;
    fn linger(&self) -> io::Result<Option<Duration>>;
    fn set_nonblocking(&self, on: bool) -> io::Result<()>;
    fn take_error(&self) -> io::Result<Option<io::Error>>;
    /// Receives until `buf` is full, in one call (MSG_WAITALL).
    fn read_waitall(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// SO_RCVLOWAT.
    fn set_recv_low_water(&self, len: usize) -> io::Result<()>;
    /// Sends `buf`, its last byte urgent (MSG_OOB).
    fn send_urgent(&self, buf: &[u8]) -> io::Result<usize>;
    /// Receives the urgent byte (MSG_OOB); `None` is the end of the stream.
    fn recv_urgent(&self) -> io::Result<Option<u8>>;
    /// The same, and leaves it (MSG_OOB and MSG_PEEK).
    fn peek_urgent(&self) -> io::Result<Option<u8>>;
    /// sockatmark.
    fn at_mark(&self) -> io::Result<bool>;
    /// SO_OOBINLINE.
    fn set_oob_inline(&self, on: bool) -> io::Result<()>;
    /// SIOCINQ.
    fn recv_queue_len(&self) -> io::Result<usize>;
    /// SIOCOUTQ.
    fn send_queue_len(&self) -> io::Result<usize>;

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// Writes all of `buf`.
    fn put(&self, buf: &[u8]) {
        let mut done = 0;
        while done < buf.len() {
            doing(format!("writing {} bytes after {done}", buf.len()));
            match self.write(&buf[done..]) {
                Ok(0) => panic!("a write of {} bytes took none", buf.len() - done),
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("writing {} bytes after {done}: {e}", buf.len() - done),
            }
        }
    }

    /// Reads until `buf` is full.
    fn get(&self, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            doing(format!("reading {} bytes after {done}", buf.len()));
            match self.read(&mut buf[done..]) {
                Ok(0) => panic!("end of stream, {} bytes too early", buf.len() - done),
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("reading {} bytes after {done}: {e}", buf.len() - done),
            }
        }
    }

    /// Writes `len` bytes of a pattern from its position `at` on, in writes of up to `chunk`.
    fn put_pattern(&self, pattern: Pattern, at: u64, len: usize, chunk: usize) {
        let mut done = 0;
        while done < len {
            let n = chunk.min(len - done);
            self.put(&pattern.bytes(at + done as u64, n));
            done += n;
        }
    }

    /// Reads `len` bytes in reads of up to `chunk` and checks them.
    fn get_pattern(&self, pattern: Pattern, at: u64, len: usize, chunk: usize) {
        let mut buf = vec![0; chunk.min(len)];
        let mut done = 0;
        while done < len {
            let n = buf.len().min(len - done);
            doing(format!("reading a pattern of {len} bytes after {done}"));
            match self.read(&mut buf[..n]) {
                Ok(0) => panic!("end of stream after {done} of {len} bytes"),
                Ok(got) => {
                    pattern.check(at + done as u64, &buf[..got]);
                    done += got;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("reading a pattern of {len} bytes after {done}: {e}"),
            }
        }
    }

    /// Checks that the peer has sent nothing more and closed.
    fn at_end(&self) {
        let mut buf = [0; 16];
        for time in ["first", "second"] {
            doing(format!("reading the end of the stream, {time} time"));
            match self.read(&mut buf) {
                Ok(0) => {}
                Ok(n) => panic!("{:02x?} in place of the end of the stream", &buf[..n]),
                Err(e) => panic!("{e} in place of the end of the stream"),
            }
        }
    }
}

/// A listener, as `std::net::TcpListener`.
pub(crate) trait Listener: Debug + Send + Sync + 'static {
    type Stream: Stream;
    fn accept(&self) -> io::Result<(Self::Stream, SocketAddr)>;
    fn local_addr(&self) -> io::Result<SocketAddr>;
    fn set_nonblocking(&self, on: bool) -> io::Result<()>;
}

/// Somewhere to run the body of a test: a kind of sockets, and a way to act at the same time.
pub(crate) trait Net: Send + Sync + 'static {
    type Stream: Stream;
    type Listener: Listener<Stream = Self::Stream>;

    /// Whether these are our streams: they promise more than TCP's.
    const SDP: bool;

    /// How much one send takes that nobody receives, with SO_SNDBUF and SO_RCVBUF of `len` bytes.
    fn fits(len: usize) -> RangeInclusive<usize>;
    fn bind(&self, addr: SocketAddr) -> io::Result<Self::Listener>;
    fn connect(&self, addr: SocketAddr) -> io::Result<Self::Stream>;
    /// The same with SO_SNDBUF and SO_RCVBUF of `len` bytes.
    fn sized(&self, len: usize) -> Self;
    /// Runs actors at the same time until all are done.
    fn all(&self, actors: Vec<Actor<'_>>);
    /// Lets the others get on, once. For loops around calls that do not wait.
    fn pass(&self);
    /// Returns when every other actor waits for something, as far as that can be known. For tests
    /// whose outcome must not depend on it.
    fn until_others_wait(&self);
    /// The time now, as these sockets see it.
    fn now(&self) -> Duration;

    /// Where ends of this kind meet.
    fn address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    /// A listener and its address.
    fn listen(&self) -> (Self::Listener, SocketAddr) {
        let listener = self.bind((self.address(), 0).into()).expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        (listener, addr)
    }

    /// Two ends of a connection: the connecting and the accepting one.
    fn pair(&self) -> (Self::Stream, Self::Stream) {
        let (listener, addr) = self.listen();
        doing("connecting");
        let client = self.connect(addr).expect("connect");
        doing("accepting");
        let (server, _) = listener.accept().expect("accept");
        (client, server)
    }

    /// Repeats a call that does not wait until it has an answer.
    fn until<T>(&self, what: &str, mut call: impl FnMut() -> Option<T>) -> T {
        doing(what);
        loop {
            if let Some(answer) = call() {
                return answer;
            }
            self.pass();
        }
    }
}

/// Whether a call would have to wait.
#[track_caller]
pub(crate) fn would_block<T: Debug>(result: &io::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(e) if e.kind() == ErrorKind::WouldBlock => true,
        Err(e) => panic!("{e} in place of WouldBlock"),
    }
}

/// Those methods of [`Stream`] that a stream itself has, by the name and type they have in
/// `std::net::TcpStream`.
macro_rules! forward_to_std_names {
    () => {
        fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
            (&mut &*self).read_vectored(bufs)
        }

        fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
            (&mut &*self).write_vectored(bufs)
        }

        fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
            self.peek(buf)
        }

        fn shutdown(&self, how: Shutdown) -> io::Result<()> {
            self.shutdown(how)
        }

        fn try_clone(&self) -> io::Result<Self> {
            self.try_clone()
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.local_addr()
        }

        fn peer_addr(&self) -> io::Result<SocketAddr> {
            self.peer_addr()
        }

        fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
            self.set_read_timeout(time)
        }

        fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
            self.set_write_timeout(time)
        }

        fn read_timeout(&self) -> io::Result<Option<Duration>> {
            self.read_timeout()
        }

        fn write_timeout(&self) -> io::Result<Option<Duration>> {
            self.write_timeout()
        }

        fn set_nodelay(&self, on: bool) -> io::Result<()> {
            self.set_nodelay(on)
        }

        fn nodelay(&self) -> io::Result<bool> {
            self.nodelay()
        }

        fn set_nonblocking(&self, on: bool) -> io::Result<()> {
            self.set_nonblocking(on)
        }

        fn take_error(&self) -> io::Result<Option<io::Error>> {
            self.take_error()
        }
    };
}
pub(crate) use forward_to_std_names;
