//! Streams.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::builder::Builder;
use crate::driver::{Conn, RecvFlags, SendFlags};
use crate::options::{Options, ZcopyThreshold};
use crate::park::Own;
use crate::ready::Readiness;
use crate::stats::Stats;

/// A connected stream, as [`std::net::TcpStream`]: dropping the last handle closes it, what was
/// written before is delivered.
///
/// A write of at least the threshold's bytes is not copied: the peer reads it out of the caller's
/// buffer, and the write returns when it has, or when nobody receives and what is left fits the
/// socket buffers. Threads may read and write at once; two writes never interleave.
#[derive(Debug)]
pub struct SdpStream {
    handle: Arc<Own<Handle>>,
}

/// Closes the connection when the last clone of a stream goes.
#[derive(Debug)]
struct Handle {
    conn: Arc<Conn>,
    /// Kept once it was asked for, so that its number means the same as long as the stream lives.
    readiness: OnceLock<Readiness>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.conn.close();
    }
}

impl SdpStream {
    pub(crate) fn from_conn(conn: Arc<Conn>) -> io::Result<Self> {
        let handle = Handle {
            conn,
            readiness: OnceLock::new(),
        };
        Ok(Self {
            handle: Arc::new(Own::new(handle)?),
        })
    }

    pub(crate) fn conn(&self) -> io::Result<&Conn> {
        Ok(&self.handle.get()?.conn)
    }

    /// Connects to the first of the addresses that accepts.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Builder::new().connect(addr)
    }

    /// Connects, for a limited time.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `TimedOut`.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        Builder::new().connect_timeout(addr, timeout)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `NotConnected` if it is unknown.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.conn()?
            .peer_addr()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// This end's address.
    ///
    /// # Errors
    /// `NotConnected` if it is unknown.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.conn()?
            .local_addr()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Moves the connection to another queue pair, with everything that is on its way: no byte is
    /// lost, and calls in progress on either side go on (SuspComm). Returns when the connection is
    /// there. Both ends keep the addresses that they had; the new queue pair is made by way of this
    /// end's address, so it is on whichever device that is reached by now.
    ///
    /// The peer must understand SuspComm, as ours does: one that does not answer within five seconds
    /// has its connection aborted.
    ///
    /// # Errors
    /// `NotConnected`; `WouldBlock` if another thread moves it already; `TimedOut` if the peer could
    /// not be asked in time, and the connection is where it was; `Interrupted` by a signal, and the
    /// move goes on; or why the connection ended.
    pub fn migrate(&self) -> io::Result<()> {
        self.conn()?.migrate()
    }

    /// Shuts down one or both directions. Threads in a read get the end of the stream, threads in
    /// a write `BrokenPipe` or the count so far.
    ///
    /// # Errors
    /// `NotConnected` after the connection has ended.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let conn = self.conn()?;
        if conn.is_closed() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        conn.visit_engine(|engine, now| {
            if matches!(how, Shutdown::Read | Shutdown::Both) {
                engine.shutdown_recv(now);
            }
            if matches!(how, Shutdown::Write | Shutdown::Both) {
                engine.shutdown_send(now);
            }
        });
        Ok(())
    }

    /// Another handle to the same stream, sharing all options.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            handle: Arc::clone(&self.handle),
        })
    }

    /// Receives without taking the bytes out of the stream.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let flags = RecvFlags {
            peek: true,
            ..self.recv_flags()?
        };
        self.conn()?.recv(&mut [IoSliceMut::new(buf)], flags)
    }

    /// Receives until `buf` is full or the stream ends, in one call (MSG_WAITALL).
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn read_waitall(&self, buf: &mut [u8]) -> io::Result<usize> {
        let flags = RecvFlags {
            wait_all: true,
            ..self.recv_flags()?
        };
        self.conn()?.recv(&mut [IoSliceMut::new(buf)], flags)
    }

    /// Receives with flags for this call, as `recvmsg(2)`. A stream that is non-blocking is so
    /// whatever the flags say.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn recv_with(&self, bufs: &mut [IoSliceMut<'_>], flags: RecvFlags) -> io::Result<usize> {
        let flags = RecvFlags {
            nonblocking: flags.nonblocking || self.options()?.nonblocking(),
            ..flags
        };
        self.conn()?.recv(bufs, flags)
    }

    /// Sends with flags for this call, as `sendmsg(2)`. A stream that is non-blocking is so
    /// whatever the flags say.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn send_with(&self, bufs: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        let nonblocking = flags.nonblocking || self.options()?.nonblocking();
        self.conn()?.send(bufs, nonblocking)
    }

    fn recv_flags(&self) -> io::Result<RecvFlags> {
        Ok(RecvFlags {
            nonblocking: self.options()?.nonblocking(),
            ..RecvFlags::default()
        })
    }

    pub(crate) fn options(&self) -> io::Result<&Options> {
        Ok(&self.conn()?.options)
    }

    /// SO_RCVTIMEO. `None` waits without limit.
    ///
    /// # Errors
    /// `InvalidInput` for a time of zero.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.options()?.set_read_timeout(nonzero(time)?);
        Ok(())
    }

    /// SO_SNDTIMEO. A write whose time runs out returns the count so far. A write that has shown
    /// its memory to the peer waits for it to let go, at most `cancel_wait` longer.
    ///
    /// # Errors
    /// `InvalidInput` for a time of zero.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.options()?.set_write_timeout(nonzero(time)?);
        Ok(())
    }

    /// See [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    /// None.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.options()?.read_timeout())
    }

    /// See [`set_write_timeout`](Self::set_write_timeout).
    ///
    /// # Errors
    /// None.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.options()?.write_timeout())
    }

    /// TCP_NODELAY: small writes are not held back to be sent together while credits are scarce.
    ///
    /// # Errors
    /// None.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.options()?.set_nodelay(on);
        self.conn()?
            .visit_engine(|engine, _| engine.set_nodelay(on));
        Ok(())
    }

    /// See [`set_nodelay`](Self::set_nodelay).
    ///
    /// # Errors
    /// None.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.options()?.nodelay())
    }

    /// SO_LINGER. `Some(0)`: closing resets the connection; `Some(t)`: unsent bytes are given up
    /// after `t`; `None`: after 60 s without progress.
    ///
    /// # Errors
    /// None.
    pub fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        self.options()?.set_linger(time);
        Ok(())
    }

    /// See [`set_linger`](Self::set_linger).
    ///
    /// # Errors
    /// None.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(self.options()?.linger())
    }

    /// Makes reads and writes return at once with what can be had.
    ///
    /// # Errors
    /// None.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        let before = self.options()?.nonblocking();
        self.options()?.set_nonblocking(on);
        if before != on {
            // The peer of a stream that blocks shows nothing by itself.
            self.conn()?.arm_anew();
        }
        Ok(())
    }

    /// From which length on writes are not copied.
    ///
    /// # Errors
    /// None.
    pub fn set_zcopy_threshold(&self, threshold: ZcopyThreshold) -> io::Result<()> {
        self.options()?.set_threshold(threshold);
        let conn = self.conn()?;
        let same_host = conn
            .context
            .provider()
            .caps()
            .contains(sdp_verbs::Caps::SAME_HOST);
        let engine_threshold = Options::engine_threshold(threshold, same_host);
        let adaptive = Options::engine_adaptive(threshold, same_host);
        conn.visit_engine(|engine, _| {
            engine.set_threshold(engine_threshold);
            engine.set_adaptive(adaptive);
        });
        Ok(())
    }

    /// See [`set_zcopy_threshold`](Self::set_zcopy_threshold).
    ///
    /// # Errors
    /// None.
    pub fn zcopy_threshold(&self) -> io::Result<ZcopyThreshold> {
        Ok(self.options()?.threshold())
    }

    /// SO_SNDBUF, brought into the range 4 KiB to 64 MiB.
    ///
    /// # Errors
    /// None.
    pub fn set_send_buffer_size(&self, len: usize) -> io::Result<()> {
        let len = Options::clamp_buffer(len);
        self.options()?.set_send_buffer_len(len);
        self.conn()?
            .visit_engine(|engine, _| engine.set_send_buffer_len(len));
        Ok(())
    }

    /// See [`set_send_buffer_size`](Self::set_send_buffer_size).
    ///
    /// # Errors
    /// None.
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        Ok(self.options()?.send_buffer_len())
    }

    /// SO_RCVBUF, brought into the range 4 KiB to 64 MiB.
    ///
    /// # Errors
    /// None.
    pub fn set_recv_buffer_size(&self, len: usize) -> io::Result<()> {
        let len = Options::clamp_buffer(len);
        self.options()?.set_recv_buffer_len(len);
        self.conn()?
            .visit_engine(|engine, _| engine.set_recv_buffer_total(len));
        Ok(())
    }

    /// See [`set_recv_buffer_size`](Self::set_recv_buffer_size).
    ///
    /// # Errors
    /// None.
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        Ok(self.options()?.recv_buffer_len())
    }

    /// SO_RCVLOWAT: a blocking read goes on waiting until it has `len` bytes, or as many as its
    /// buffer holds, and the stream is not ready to be read before. 0 means 1; more than half of
    /// SO_RCVBUF means that half, as with TCP.
    ///
    /// # Errors
    /// None.
    pub fn set_recv_low_water(&self, len: usize) -> io::Result<()> {
        let options = self.options()?;
        let len = len.clamp(1, options.recv_buffer_len() / 2);
        options.set_recv_low_water(len);
        self.conn()?
            .visit_engine(|engine, _| engine.set_recv_low_water(len));
        Ok(())
    }

    /// See [`set_recv_low_water`](Self::set_recv_low_water).
    ///
    /// # Errors
    /// None.
    pub fn recv_low_water(&self) -> io::Result<usize> {
        Ok(self.options()?.recv_low_water())
    }

    /// SIOCINQ, or FIONREAD: bytes that a non-blocking read gets now, if its buffer is large
    /// enough.
    ///
    /// # Errors
    /// None.
    pub fn recv_queue_len(&self) -> io::Result<usize> {
        Ok(self.conn()?.recv_queue_len())
    }

    /// SIOCOUTQ: bytes written that the peer's side has not taken. Those of a write in progress
    /// that waits for its reader are among them.
    ///
    /// # Errors
    /// None.
    pub fn send_queue_len(&self) -> io::Result<usize> {
        let conn = self.conn()?;
        Ok(conn.visit_engine(|engine, _| engine.unsent_len()))
    }

    /// SO_ERROR: the error that ended the connection, once.
    ///
    /// # Errors
    /// None.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.conn()?.take_error())
    }

    /// A descriptor for poll, select and epoll (level, edge, one-shot, nested), made at the first
    /// call and kept until the last handle of it and of the stream is gone. IN: a non-blocking
    /// read would return at once. OUT: a non-blocking write has room for a third of SO_SNDBUF, or
    /// the peer's program, which reads, has made some since the last one was cut short.
    /// RDHUP, HUP and ERR as with TCP. While it exists every message costs system calls; streams
    /// without it cost none. Between processes of one machine the peer itself shows IN of a
    /// non-blocking stream; should it be interrupted while it does, IN may come a moment after the
    /// bytes, which a read may have taken then.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.kept_readiness().cloned()
    }

    /// Whether each arrival is to be an edge of the descriptor of [`readiness`](Self::readiness), for
    /// EPOLLET: it is, unless this is turned off; what arrives between an edge and the next call is none,
    /// for that call finds it. Without, whoever waits must wait for IN or OUT among
    /// others: who waits for the end only may miss it while there is something to read. What arrives
    /// while IN is shown then costs no system call, and no thread a turn.
    ///
    /// # Errors
    /// As [`readiness`](Self::readiness).
    pub fn set_edges(&self, on: bool) -> io::Result<()> {
        self.kept_readiness()?;
        self.conn()?.set_edges(on);
        Ok(())
    }

    fn kept_readiness(&self) -> io::Result<&Readiness> {
        let Handle { conn, readiness } = self.handle.get()?;
        if let Some(kept) = readiness.get() {
            return Ok(kept);
        }
        // Whoever else makes one gets the same.
        let made = conn.readiness()?;
        Ok(readiness.get_or_init(|| made))
    }

    /// What this connection has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.conn().map_or_else(|_| Stats::default(), Conn::stats)
    }
}

/// The descriptor of [`SdpStream::readiness`], for poll, epoll, mio's `SourceFd` and tokio's
/// `AsyncFd`. Reading from it or writing to it does not use the stream.
///
/// # Panics
/// If it cannot be made: out of descriptors, or a stream inherited by a forked child. Where that
/// is to be handled, call [`SdpStream::readiness`] first.
impl AsFd for SdpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kept_readiness()
            .expect("no readiness descriptor")
            .as_fd()
    }
}

/// As [`AsFd`].
impl AsRawFd for SdpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn nonzero(time: Option<Duration>) -> io::Result<Option<Duration>> {
    if time.is_some_and(|t| t.is_zero()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a time-out of zero",
        ));
    }
    Ok(time)
}

impl Read for &SdpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let conn = self.conn()?;
        let flags = RecvFlags {
            nonblocking: conn.options.nonblocking(),
            ..RecvFlags::default()
        };
        conn.recv(bufs, flags)
    }
}

impl Write for &SdpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let conn = self.conn()?;
        conn.send(bufs, conn.options.nonblocking())
    }

    /// Nothing is held back by this library: a flush does nothing, as with TCP.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for SdpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for SdpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
