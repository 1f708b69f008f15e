//! Urgent bytes of a stream, as TCP's: MSG_OOB, SO_OOBINLINE and sockatmark.

use std::io;

use crate::driver::SendFlags;
use crate::stream::SdpStream;

/// An urgent byte is one of the stream that can be received ahead of the others. Its place, the
/// *mark*, is kept: reads stop there. As with TCP there is one at a time; a second makes the first
/// an ordinary byte of the stream. Nothing is signalled by SIGURG; who polls
/// [`readiness`](Self::readiness) is told by PRI.
impl SdpStream {
    /// Sends `buf`, its last byte urgent (MSG_OOB). Up to 4 KiB wait for no other write, not even
    /// one in progress: they go between what that has written and the rest of it, and may exceed
    /// SO_SNDBUF by 4 KiB. More than that is written in turn.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn send_urgent(&self, buf: &[u8]) -> io::Result<usize> {
        self.send_urgent_with(buf, SendFlags::default())
    }

    /// As [`send_urgent`](Self::send_urgent), with flags for this call.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn send_urgent_with(&self, buf: &[u8], flags: SendFlags) -> io::Result<usize> {
        let nonblocking = flags.nonblocking || self.options()?.nonblocking();
        self.conn()?.send_urgent(buf, nonblocking)
    }

    /// Receives the urgent byte, however much is to be read before it, and never waits (MSG_OOB).
    /// `None`: it was announced, but the stream has ended.
    ///
    /// # Errors
    /// `WouldBlock`: it was announced, and has not come yet. `InvalidInput`: there is none, it was
    /// received before, the stream was read beyond it, or it is in line.
    pub fn recv_urgent(&self) -> io::Result<Option<u8>> {
        self.conn()?.recv_urgent(false)
    }

    /// As [`recv_urgent`](Self::recv_urgent), but the byte can be received again.
    ///
    /// # Errors
    /// As [`recv_urgent`](Self::recv_urgent).
    pub fn peek_urgent(&self) -> io::Result<Option<u8>> {
        self.conn()?.recv_urgent(true)
    }

    /// The next byte of the stream is the urgent one (sockatmark, SIOCATMARK). The next read
    /// begins behind it, or with it if it is in line. Unlike with TCP this stays so while there is
    /// nothing behind it.
    ///
    /// # Errors
    /// None.
    pub fn at_mark(&self) -> io::Result<bool> {
        Ok(self.conn()?.is_at_mark())
    }

    /// SO_OOBINLINE: urgent bytes are read where they are in the stream. A read still stops before
    /// one.
    ///
    /// # Errors
    /// None.
    pub fn set_oob_inline(&self, on: bool) -> io::Result<()> {
        self.options()?.set_oob_inline(on);
        self.conn()?
            .visit_engine(|engine, _| engine.set_oob_inline(on));
        Ok(())
    }

    /// See [`set_oob_inline`](Self::set_oob_inline).
    ///
    /// # Errors
    /// None.
    pub fn oob_inline(&self) -> io::Result<bool> {
        Ok(self.options()?.oob_inline())
    }
}
