//! Bytes of a connected socket, and what its calls are told.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libc::c_int;
use sdp_socket::{RecvFlags, SdpStream, SendFlags};

use super::{Phase, Socket, lock};
use crate::errno::Failure;
use crate::settings::Settings;

impl Socket {
    /// The stream, once a connect under way has ended. `absent`: the errno if there is none.
    fn stream(
        &self,
        nonblocking: bool,
        time_max: impl Fn(&Settings) -> Option<Duration>,
        absent: c_int,
    ) -> Result<&SdpStream, Failure> {
        if let Some(failure) = self.take_pending() {
            return Err(failure);
        }
        loop {
            if let Some(stream) = self.stream.get() {
                return Ok(stream);
            }
            let connecting = {
                let mut phase = self.phase()?;
                if let Some(failure) = self.take_connect_failure(&mut phase) {
                    return Err(failure);
                }
                match &*phase {
                    Phase::Connected { .. } => continue,
                    Phase::Connecting(connecting) if !nonblocking => Arc::clone(connecting),
                    Phase::Connecting(_) => return Err(still_connecting()),
                    _ => return Err(Failure::new(absent, "the socket is not connected")),
                }
            };
            if !connecting.wait(time_max(&self.settings()))? {
                return Err(still_connecting());
            }
        }
    }

    /// Waits as a receive does, and receives nothing: whether there is something to receive, or the
    /// end of the stream.
    pub(crate) fn look(&self, nonblocking: bool) -> Result<bool, Failure> {
        let mut byte = [0];
        let flags = RecvFlags {
            nonblocking,
            peek: true,
            wait_all: false,
        };
        let seen = self.recv(&mut [IoSliceMut::new(&mut byte)], flags)?;
        Ok(seen > 0)
    }

    /// A call that has moved bytes, and then failed, returns these; the next one returns the failure
    /// if it would not happen again by itself.
    pub fn keep(&self, failure: &Failure) {
        let repeats = [libc::EAGAIN, libc::EINTR, libc::EPIPE, libc::EBADF];
        if !repeats.contains(&failure.errno) {
            self.pending.store(failure.errno, Ordering::Release);
        }
    }

    pub(super) fn take_pending(&self) -> Option<Failure> {
        if self.pending.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let errno = self.pending.swap(0, Ordering::AcqRel);
        let words = io::Error::from_raw_os_error(errno).to_string();
        (errno != 0).then(|| Failure::new(errno, words))
    }

    /// Sends.
    pub(crate) fn send(&self, bufs: &[IoSlice<'_>], flags: SendFlags) -> Result<usize, Failure> {
        let nonblocking = flags.nonblocking || self.is_nonblocking();
        let stream = self.stream(nonblocking, |s| s.write_timeout, libc::EPIPE)?;
        let result = stream.send_with(bufs, SendFlags { nonblocking });
        self.counted(result.map_err(Failure::from))
    }

    /// Receives.
    pub(crate) fn recv(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> Result<usize, Failure> {
        let nonblocking = flags.nonblocking || self.is_nonblocking();
        let stream = match self.stream(nonblocking, |s| s.read_timeout, libc::ENOTCONN) {
            Ok(stream) => stream,
            Err(failure) if failure.errno == libc::ENOTCONN && self.is_spent() => return Ok(0),
            Err(failure) => return Err(failure),
        };
        let flags = RecvFlags {
            nonblocking,
            ..flags
        };
        let result = stream.recv_with(bufs, flags);
        self.counted(result.map_err(Failure::from))
    }

    /// A connect has failed, and none has begun since.
    fn is_spent(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Spent)
    }

    /// Sends, the last byte urgent.
    pub(crate) fn send_urgent(&self, bytes: &[u8], flags: SendFlags) -> Result<usize, Failure> {
        let nonblocking = flags.nonblocking || self.is_nonblocking();
        let stream = self.stream(nonblocking, |s| s.write_timeout, libc::EPIPE)?;
        let result = stream.send_urgent_with(bytes, SendFlags { nonblocking });
        self.counted(result.map_err(Failure::from))
    }

    /// Receives the urgent byte, if there is room for one.
    pub(crate) fn recv_urgent(&self, to: &mut [u8], peek: bool) -> Result<usize, Failure> {
        let Some(stream) = self.stream_if_any(libc::ENOTCONN)? else {
            return Err(Failure::new(libc::EINVAL, "no urgent byte"));
        };
        let found = if peek {
            stream.peek_urgent()
        } else {
            stream.recv_urgent()
        };
        let byte = found.map_err(|error| self.or_closed(error.into()))?;
        Ok(match (byte, to.first_mut()) {
            (Some(byte), Some(to)) => {
                *to = byte;
                1
            }
            _ => 0,
        })
    }

    /// The stream, of a socket that has one; `listening` is the errno of one that listens.
    pub(super) fn stream_if_any(&self, listening: c_int) -> Result<Option<&SdpStream>, Failure> {
        let phase = self.phase()?;
        if matches!(*phase, Phase::Listening) {
            return Err(Failure::new(listening, "the socket listens"));
        }
        Ok(self.stream.get())
    }

    /// The next byte of the stream is the urgent one. Where there is none, none is.
    pub(crate) fn at_mark(&self) -> Result<bool, Failure> {
        let phase = self.phase()?;
        let Some(stream) = self.stream.get() else {
            return Ok(false);
        };
        drop(phase);
        stream
            .at_mark()
            .map_err(|error| self.or_closed(error.into()))
    }

    /// Bytes that were moved count, whatever has become of the socket since.
    fn counted(&self, result: Result<usize, Failure>) -> Result<usize, Failure> {
        match result {
            Ok(count) if count > 0 || !self.is_closed() => Ok(count),
            Ok(_) => Err(Failure::closed()),
            Err(failure) => {
                self.told(&failure);
                Err(self.or_closed(failure))
            }
        }
    }

    /// An error that the program has been told of is not shown to poll any more.
    pub(super) fn told(&self, failure: &Failure) {
        if matches!(failure.errno, libc::EAGAIN | libc::EINTR) {
            return;
        }
        if let Some(readiness) = &*lock(&self.readiness) {
            readiness.error_told();
        }
    }
}

fn still_connecting() -> Failure {
    Failure::new(libc::EAGAIN, "still connecting")
}
