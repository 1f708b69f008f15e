//! Connecting: from an address to a connection whose handshake is complete.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sdp_core::{CmInput, Connection, Instant};
use sdp_verbs::{CmEventKind, CmId, CmToken, VerbsError, Wake};

use crate::context::Context;
use crate::driver::{Conn, config};
use crate::error;
use crate::options::Options;
use crate::park::{Own, Place, WaitWord, signals_restart, sleep_at};
use crate::ready::{Level, Readiness, ReadyPair};
use crate::stream::SdpStream;
use crate::sync::lock;

/// Resolving and connecting give up after this time if the caller names none: as Linux's
/// `tcp_syn_retries` of 6, about two minutes.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(127);

/// What the descriptor to wait on shows while nothing is decided: nothing.
const UNDECIDED: Level = Level {
    readable: false,
    arrivals: 0,
    full: true,
    roomy: false,
    urgent: false,
    read_closed: false,
    write_closed: false,
    ended: None,
};
/// What it shows when there will be no stream: as TCP after a refusal, in one step.
const FAILED: Level = Level {
    ended: Some(true),
    ..UNDECIDED
};

/// A connect in progress. The progress loop drives it; the caller waits on its word.
#[derive(Debug)]
pub(crate) struct Connecting {
    context: Arc<Context>,
    id: Arc<dyn CmId>,
    dst: SocketAddr,
    options: Options,
    /// When connecting has taken too long.
    deadline: Instant,
    word: WaitWord,
    state: Mutex<State>,
    /// The descriptor to wait on, if one was asked for, until a stream takes it over. Locked after
    /// the state.
    ready: Mutex<Option<ReadyPair>>,
}

#[derive(Debug)]
enum State {
    Resolving,
    Handshake(Arc<Conn>),
    Done(io::Result<Arc<Conn>>),
    Taken,
}

/// A connect under way, as a non-blocking `connect(2)` leaves it: the progress thread drives it.
/// Dropping it gives it up.
#[derive(Debug)]
pub struct SdpConnecting {
    connecting: Own<Arc<Connecting>>,
}

impl SdpConnecting {
    /// Starts to connect, from `id`'s address if it is bound.
    pub(crate) fn start(
        context: &Arc<Context>,
        id: Arc<dyn CmId>,
        dst: SocketAddr,
        options: Options,
        time_max: Option<Duration>,
    ) -> io::Result<Self> {
        let time_max = time_max.unwrap_or(CONNECT_TIME_MAX);
        let token = id.token();
        let connecting = Arc::new(Connecting {
            context: Arc::clone(context),
            id,
            dst,
            options,
            deadline: context.now() + time_max,
            word: WaitWord::default(),
            state: Mutex::new(State::Resolving),
            ready: Mutex::default(),
        });
        context.add_connecting(token, &connecting);
        // From here on the drop of this value cleans up.
        let id = Arc::clone(&connecting.id);
        let this = Self {
            connecting: Own::new(connecting)?,
        };
        id.resolve(dst, time_max).map_err(error::verbs_error)?;
        Ok(this)
    }

    /// Waits until it is known how the connect ends, without taking the result; any number of
    /// threads may. False: `time_max` has passed and connecting goes on.
    ///
    /// # Errors
    /// The system refused to wait.
    pub fn wait(&self, time_max: Option<Duration>) -> io::Result<bool> {
        self.connecting.get()?.wait(time_max, false)
    }

    /// As [`wait`](Self::wait), for callers that signals interrupt as they do connect(2). The connect
    /// goes on.
    ///
    /// # Errors
    /// `Interrupted` by a signal whose handler asks for no restart, and by every signal if `time_max`
    /// is set; others as there.
    pub fn wait_heeding_signals(&self, time_max: Option<Duration>) -> io::Result<bool> {
        self.connecting.get()?.wait(time_max, true)
    }

    /// The stream, or why there is none, to the first that asks after the connect has ended.
    pub fn try_finish(&self) -> Option<io::Result<SdpStream>> {
        match self.connecting.get() {
            Ok(connecting) => Some(connecting.take_result()?.and_then(SdpStream::from_conn)),
            Err(error) => Some(Err(error)),
        }
    }

    /// The address it connects from, once known.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connecting.get().ok()?.id.local_addr()
    }

    /// A descriptor for poll, select and epoll, made at the first call: OUT once there is a stream,
    /// whose descriptor it is from then on; ERR and HUP once there will be none.
    ///
    /// # Errors
    /// Out of descriptors; `ConnectionAborted` when it was given up before.
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.connecting.get()?.readiness()
    }

    /// Gives up: threads in [`wait`](Self::wait) return, there will be no stream.
    pub fn cancel(&self) {
        if let Ok(connecting) = self.connecting.get() {
            connecting.give_up();
            connecting.word.signal();
        }
    }
}

impl Drop for SdpConnecting {
    fn drop(&mut self) {
        if let Ok(connecting) = self.connecting.get() {
            connecting.context.remove_connecting(connecting.id.token());
            connecting.give_up();
        }
    }
}

/// Connects and waits until the handshake is complete.
///
/// # Errors
/// As `connect(2)`.
pub(crate) fn connect(
    context: &Arc<Context>,
    dst: SocketAddr,
    options: Options,
    timeout: Option<Duration>,
) -> io::Result<SdpStream> {
    context.start_progress()?;
    let id = context.create_id().map_err(error::verbs_error)?;
    let connecting = SdpConnecting::start(context, id, dst, options, timeout)?;
    connecting.wait(None)?;
    // It is over, and nobody else can have taken the result.
    let result = connecting.try_finish();
    result.unwrap_or_else(|| Err(io::ErrorKind::ConnectionAborted.into()))
}

impl Connecting {
    fn wait(&self, time_max: Option<Duration>, heeds_signals: bool) -> io::Result<bool> {
        let wanted = time_max.map(|t| self.context.now() + t);
        let deadline = wanted.map_or(self.deadline, |t| t.min(self.deadline));
        loop {
            let seen = self.word.seen();
            if self.is_over() {
                return Ok(true);
            }
            let now = self.context.now();
            if now >= self.deadline {
                self.take_too_long();
            } else if now >= deadline {
                return Ok(false);
            } else {
                let runtime = self.context.runtime();
                let sleep = || runtime.wait_word(&self.word, seen, Some(deadline));
                if sleep_at(|| Place::Word(self.word.clone()), sleep)? == Wake::Interrupted {
                    if heeds_signals && (time_max.is_some() || !signals_restart()) {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    tracing::trace!("a signal during connect: waiting on");
                }
            }
        }
    }

    fn readiness(&self) -> io::Result<Readiness> {
        let state = lock(&self.state);
        let mut ready = lock(&self.ready);
        if let Some(ready) = &*ready {
            return Ok(ready.descriptor());
        }
        let level = match &*state {
            State::Done(Ok(conn)) => return conn.readiness(),
            State::Done(Err(_)) => FAILED,
            State::Taken => return Err(io::ErrorKind::ConnectionAborted.into()),
            State::Resolving | State::Handshake(_) => UNDECIDED,
        };
        let mut made = ReadyPair::new()?;
        made.show(level, 0)?;
        Ok(ready.insert(made).descriptor())
    }

    /// There will be no stream: whoever polls is told.
    fn show_failed(&self) {
        if let Some(Err(error)) = lock(&self.ready)
            .as_mut()
            .map(|ready| ready.show(FAILED, 0))
        {
            tracing::error!("the readiness descriptor of a connect: {error}");
        }
    }

    /// The time for connecting is over.
    fn take_too_long(&self) {
        let error = io::Error::new(
            io::ErrorKind::TimedOut,
            format!("connecting to {}: no answer in time", self.dst),
        );
        let mut state = lock(&self.state);
        if matches!(*state, State::Done(_) | State::Taken) {
            return;
        }
        let old = std::mem::replace(&mut *state, State::Done(Err(error)));
        drop(state);
        match old {
            State::Handshake(conn) => discard(&conn),
            _ => self.id.disconnect(),
        }
        self.show_failed();
        self.word.signal();
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Where to, while there is no connection yet. Waits for no lock.
    pub(crate) fn resolving(&self) -> Option<SocketAddr> {
        let state = self.state.try_lock().ok()?;
        matches!(*state, State::Resolving).then_some(self.dst)
    }

    /// There is a result, or somebody has taken it.
    fn is_over(&self) -> bool {
        matches!(*lock(&self.state), State::Done(_) | State::Taken)
    }

    fn take_result(&self) -> Option<io::Result<Arc<Conn>>> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }

    fn finish(&self, result: io::Result<Arc<Conn>>) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Taken | State::Done(_)) {
            drop(state);
            if let Ok(conn) = result {
                discard(&conn);
            }
            return;
        }
        let connected = result.as_ref().ok().map(Arc::clone);
        let ready = connected.as_ref().and_then(|_| lock(&self.ready).take());
        if let (Some(conn), Some(ready)) = (&connected, ready) {
            conn.adopt_ready(ready);
        }
        *state = State::Done(result);
        drop(state);
        // Only now, when asking for the result gives one.
        match connected {
            Some(conn) => conn.show_adopted(),
            None => self.show_failed(),
        }
        self.word.signal();
    }

    /// The caller does not wait any more: whatever comes of it is closed.
    fn give_up(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Taken);
        match state {
            State::Handshake(conn) | State::Done(Ok(conn)) => discard(&conn),
            State::Resolving | State::Done(Err(_)) => self.id.disconnect(),
            // The stream has an owner, or this has been done before.
            State::Taken => {}
        }
        self.show_failed();
    }

    /// An event for the id, before there is a connection.
    pub(crate) fn manage_event(self: &Arc<Self>, kind: CmEventKind) {
        match kind {
            CmEventKind::Resolved => {
                if let Err(error) = self.resolved() {
                    self.finish(Err(match error {
                        // The peer's end came between this event and its handling.
                        VerbsError::State { .. } => io::Error::from_raw_os_error(libc::ECONNRESET),
                        other => error::verbs_error(other),
                    }));
                }
            }
            CmEventKind::Failed(error) => self.finish(Err(error::verbs_error(error))),
            other => {
                tracing::debug!("unexpected while resolving: {other:?}");
                self.finish(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }

    fn resolved(self: &Arc<Self>) -> Result<(), VerbsError> {
        let config = config(&self.context, &self.options);
        let local = self.id.local_addr();
        let engine = Connection::connect(
            self.context.now(),
            config.clone(),
            local.map_or(0, |a| a.port()),
            local.map(|a| a.ip()),
            Some(self.dst.ip()),
        );
        let this = Arc::clone(self);
        let conn = Conn::open(
            &self.context,
            Arc::clone(&self.id),
            self.options.clone(),
            engine,
            &config,
            Box::new(move |conn| this.settled(conn)),
        )?;
        let mut state = lock(&self.state);
        if matches!(*state, State::Resolving) {
            *state = State::Handshake(conn);
        } else if matches!(*state, State::Taken) {
            // Nobody waits any more.
            drop(state);
            discard(&conn);
        }
        Ok(())
    }

    fn settled(&self, conn: &Arc<Conn>) {
        let result = if conn.is_closed() {
            Err(conn
                .take_error()
                .unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
        } else {
            Ok(Arc::clone(conn))
        };
        self.finish(result);
    }
}

/// Ends a connection that nobody wants.
fn discard(conn: &Arc<Conn>) {
    conn.visit_engine(|engine, now| engine.abort(now));
    conn.context.forget(conn.token);
}

impl Conn {
    /// An event of connection management for one of this connection's ids.
    pub(crate) fn manage_event(self: &Arc<Self>, id: CmToken, kind: CmEventKind) {
        let is_path = self.lock().moving.is_path(id);
        match kind {
            kind if is_path => self.path_event(kind),
            CmEventKind::ConnectResponse { private_data } => {
                self.with_engine(|e, now| e.handle_cm(now, CmInput::Response(&private_data)));
            }
            CmEventKind::Established => {
                self.with_engine(|e, now| e.handle_cm(now, CmInput::Established));
            }
            CmEventKind::Rejected {
                reason,
                private_data,
            } => {
                let reason = error::reject_reason(reason);
                let input = CmInput::Rejected {
                    private_data: &private_data,
                    reason,
                };
                self.with_engine(|e, now| e.handle_cm(now, input));
            }
            CmEventKind::Failed(error) => {
                tracing::debug!(token = ?self.token, "connection management: {error}");
                let errno = error.errno();
                self.with_engine(|e, now| e.handle_cm(now, CmInput::Unreachable { errno }));
            }
            CmEventKind::Disconnected => self.transport_gone(),
            other => tracing::debug!(token = ?self.token, "unexpected event: {other:?}"),
        }
    }
}
