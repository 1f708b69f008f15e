//! Urgent bytes (MSG_OOB): sends that wait for no other send, and receives that wait for nothing.

use std::convert::Infallible;
use std::io::{self, ErrorKind, IoSlice};

use sdp_core::{BufferId, UrgentRecv};

use super::regions::CallMemory;
use super::{Conn, Inner};

impl Inner {
    /// Keeps the byte at `offset` of a receive buffer.
    pub(super) fn keep_urgent(&mut self, buf: BufferId, offset: usize) {
        let from = self.recv_bufs.find(buf).expect("a filled buffer exists");
        let mut byte = [0];
        from.mem().read(offset, &mut byte);
        self.kept_urgent = byte[0];
    }
}

impl Conn {
    /// Sends `buf`, its last byte urgent.
    ///
    /// # Errors
    /// As `send(2)`.
    pub(crate) fn send_urgent(&self, buf: &[u8], nonblocking: bool) -> io::Result<usize> {
        let memory = CallMemory::of_send(&[IoSlice::new(buf)]);
        let caller = self.enter();
        let mut inner = self.lock();
        let now = self.context.now();
        let taken = inner.engine.send_urgent(now, buf.len());
        if taken == Ok(true) {
            let take = |len| Ok::<_, Infallible>(self.memory.take(len));
            let Ok(()) = inner.urgent.append(&memory, (0, buf.len()), take);
        }
        self.after(inner, now);
        drop(caller);
        match taken {
            Ok(true) => Ok(buf.len()),
            Ok(false) => self.send_memory(&memory, nonblocking, true),
            Err(error) => Err(crate::error::call_error(&error)),
        }
    }

    /// Receives the urgent byte out of band. `None`: the stream has ended before it came.
    ///
    /// # Errors
    /// `WouldBlock` if it was announced only, `InvalidInput` if there is none.
    pub(crate) fn recv_urgent(&self, peek: bool) -> io::Result<Option<u8>> {
        let _caller = self.enter();
        self.pump();
        let mut inner = self.lock();
        let found = inner.engine.recv_urgent(peek);
        let byte = inner.kept_urgent;
        let now = self.context.now();
        self.after(inner, now);
        match found {
            UrgentRecv::Byte => Ok(Some(byte)),
            UrgentRecv::End => Ok(None),
            UrgentRecv::Coming => Err(ErrorKind::WouldBlock.into()),
            // What Linux says to it.
            UrgentRecv::Nothing => Err(rustix::io::Errno::INVAL.into()),
        }
    }

    /// The next byte of the stream is the urgent one.
    pub(crate) fn is_at_mark(&self) -> bool {
        let _caller = self.enter();
        self.pump();
        self.lock().engine.is_at_mark()
    }
}
