//! The receive call.

use std::io::{self, IoSliceMut};
use std::sync::{Arc, MutexGuard};

use sdp_core::{
    CallError, CopySource, EndCall, FoundAtOnce, Instant, RecvId, RecvRequest, RecvStep,
};

use super::regions::CallMemory;
use super::wait::{Caller, Until};
use super::{COPY_LOCKED_MAX, Conn, Inner};
use crate::park::{AbortOnUnwind, Spinner};

/// How to receive, in one call.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecvFlags {
    /// Take what is there (O_NONBLOCK, MSG_DONTWAIT).
    pub nonblocking: bool,
    /// Leave the bytes in the stream (MSG_PEEK).
    pub peek: bool,
    /// Return only when full (MSG_WAITALL).
    pub wait_all: bool,
}

impl Conn {
    /// Receives into `bufs`. 0 for a non-empty buffer is the end of the stream.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub(crate) fn recv(&self, bufs: &mut [IoSliceMut<'_>], flags: RecvFlags) -> io::Result<usize> {
        let memory = CallMemory::of_recv(bufs);
        if !flags.peek
            && let Some(len) = self.recv_at_once(&memory, flags.wait_all)
        {
            return Ok(len);
        }
        let flags = RecvFlags {
            nonblocking: flags.nonblocking || self.is_interrupted(),
            ..flags
        };
        let deadline = self.options.read_timeout().map(|t| self.context.now() + t);
        let caller = self.enter();
        let mut result = self.recv_loop(&caller, &memory, flags, deadline);
        let is_refused = flags.nonblocking && matches!(result, Err(CallError::WouldBlock));
        if is_refused && self.has_come_meanwhile() {
            result = self.recv_loop(&caller, &memory, flags, deadline);
        }
        drop(caller);
        result.map_err(|error| crate::error::call_error(&error))
    }

    /// Receives what is there, if it is few bytes and nothing stands in the way: the call waits for
    /// nobody, so it is none that anybody would have to know of.
    fn recv_at_once(&self, memory: &CallMemory, wait_all: bool) -> Option<usize> {
        let _guard = AbortOnUnwind::new();
        let mut inner = self.lock();
        let found = match self.find_at_once(&inner, memory, wait_all) {
            Some(found) if found.len == memory.len() => found,
            // More may have come.
            _ => {
                drop(inner);
                self.look_if_free()?;
                inner = self.lock();
                self.find_at_once(&inner, memory, wait_all)?
            }
        };
        let from = CopySource::Buffer {
            buf: found.buf,
            offset: found.offset,
        };
        self.copy_small(&inner, memory, from, (0, found.len));
        let now = self.context.now();
        inner.engine.received_at_once(now, found);
        self.after(inner, now);
        self.left_at_once(now);
        Some(found.len)
    }

    fn find_at_once(
        &self,
        inner: &Inner,
        memory: &CallMemory,
        wait_all: bool,
    ) -> Option<FoundAtOnce> {
        if inner.ready.is_some() {
            // What it shows is brought up to date by who leaves a call.
            return None;
        }
        let found = inner.engine.found_at_once(memory.len())?;
        let enough = !wait_all || found.len == memory.len();
        (enough && found.len <= COPY_LOCKED_MAX).then_some(found)
    }

    fn recv_loop(
        &self,
        caller: &Caller<'_>,
        memory: &CallMemory,
        flags: RecvFlags,
        mut deadline: Option<Instant>,
    ) -> Result<usize, CallError> {
        let mut ended = false;
        let mut spinner = Spinner::new(self.options.spin());
        let request = RecvRequest {
            len: memory.len(),
            segment_ends: memory.segment_ends(),
            nonblocking: flags.nonblocking,
            peek: flags.peek,
            wait_all: flags.wait_all,
            copy_reason: None,
        };
        let found_at = self.look_if_free();
        spinner.looked = true;
        let mut inner = self.lock();
        let mut now = found_at.unwrap_or_else(|| self.context.now());
        let id = inner.engine.recv_start(now, request);
        // Most small receives find their bytes: they are over before any action could name them.
        let mut named = false;
        loop {
            let step = inner.engine.recv_poll(now, id);
            if !named && !is_at_once(&step) {
                named = true;
                inner.calls.add_recv(id, memory.alias());
            }
            match step {
                RecvStep::Copy { from, at, len } if len <= COPY_LOCKED_MAX => {
                    self.copy_small(&inner, memory, from, (at, len));
                    inner.engine.recv_copied(now, id, len);
                    continue;
                }
                RecvStep::Copy { from, at, len } => {
                    self.copy_to_call(inner, id, memory, from, (at, len));
                }
                // What is just being moved to private memory is there, and waited for.
                RecvStep::Wait
                    if flags.nonblocking && !ended && !inner.engine.is_moving_unread() =>
                {
                    // What needs no more than our own work is done now; then the call ends.
                    self.after(inner, now);
                    self.pump();
                    ended = true;
                    self.with_engine(|engine, now| engine.recv_end(now, id, EndCall::TimedOut));
                }
                RecvStep::Wait => {
                    let seen = self.rx.seen();
                    let partly = inner.engine.recv_delivered(id) > 0;
                    self.after(inner, now);
                    let until = Until { deadline, partly };
                    if let Some(why) = self.wait(&self.rx, seen, until, &mut spinner)
                        && !ended
                    {
                        // It is told once; what remains is bounded by the engine's own time-out.
                        ended = true;
                        deadline = None;
                        self.with_engine(|engine, now| engine.recv_end(now, id, why));
                    }
                }
                RecvStep::Done(result) => {
                    if named {
                        inner.calls.remove_recv(id);
                    }
                    self.after(inner, now);
                    caller.note_time(now);
                    return result;
                }
            }
            inner = self.lock();
            let found_at = spinner.found_at.take();
            now = found_at.unwrap_or_else(|| self.context.now());
        }
    }

    /// A small copy: letting go of the lock would cost more.
    fn copy_small(
        &self,
        inner: &Inner,
        memory: &CallMemory,
        from: CopySource,
        (at, len): (usize, usize),
    ) {
        match from {
            CopySource::Buffer { buf, offset } => {
                let source = inner.recv_bufs.find(buf).expect(FILLED);
                memory.copy_in(at, len, source.mem(), offset as usize);
            }
            CopySource::Mem { mem, offset } => {
                let source = inner.read_ahead.find(&mem).expect(FILLED);
                memory.copy_in(at, len, source.mem(), offset);
                self.context.runtime().copied(len);
            }
        }
    }

    fn copy_to_call<'a>(
        &'a self,
        inner: MutexGuard<'a, Inner>,
        id: RecvId,
        memory: &CallMemory,
        from: CopySource,
        (at, len): (usize, usize),
    ) {
        match from {
            CopySource::Buffer { buf, offset } => {
                let source = Arc::clone(inner.recv_bufs.find(buf).expect(FILLED));
                drop(inner);
                memory.copy_in(at, len, source.mem(), offset as usize);
            }
            CopySource::Mem { mem, offset } => {
                let source = Arc::clone(inner.read_ahead.find(&mem).expect(FILLED));
                drop(inner);
                memory.copy_in(at, len, source.mem(), offset);
                self.context.runtime().copied(len);
            }
        }
        self.with_engine(|engine, now| engine.recv_copied(now, id, len));
    }
}

const FILLED: &str = "the engine names filled buffers only";

/// The step is carried out without letting go of the lock.
const fn is_at_once(step: &RecvStep) -> bool {
    match step {
        RecvStep::Copy { len, .. } => *len <= COPY_LOCKED_MAX,
        RecvStep::Wait => false,
        RecvStep::Done(_) => true,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::RecvFlags;
    use crate::{SdpListener, SdpStream};

    /// A receive that does not wait finds what another thread has just taken from the completion queue.
    #[test]
    fn what_another_thread_is_about_to_show_is_received() {
        let listener = SdpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = SdpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let conn = stream.conn().unwrap();
        let _descriptor = conn.readiness().unwrap();
        let (say, hear) = mpsc::channel();
        for _ in 0..20 {
            thread::scope(|scope| {
                let say = say.clone();
                scope.spawn(move || {
                    while !conn.turn.try_enter_quietly() {
                        thread::yield_now();
                    }
                    say.send(()).unwrap();
                    while conn.callers.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                        thread::yield_now();
                    }
                    for _ in 0..100 {
                        thread::yield_now();
                    }
                    while !conn.turn.leave() {}
                });
                hear.recv().unwrap();
                std::io::Write::write_all(&mut peer, b"there").unwrap();
                let flags = RecvFlags {
                    nonblocking: true,
                    ..RecvFlags::default()
                };
                let mut bytes = [0; 8];
                let got = stream.recv_with(&mut [std::io::IoSliceMut::new(&mut bytes)], flags);
                assert_eq!(got.unwrap(), 5);
            });
        }
    }
}
