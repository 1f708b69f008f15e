//! Connecting: from an address to a connection whose handshake is complete.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sdp_core::{CmInput, Connection};
use sdp_verbs::{CmEventKind, CmId, VerbsError, Wake};

use crate::context::Context;
use crate::driver::{Conn, config};
use crate::error;
use crate::options::Options;
use crate::park::WaitWord;
use crate::sync::lock;

/// Resolving and connecting give up after this time if the caller names none: as Linux's
/// `tcp_syn_retries` of 6, about two minutes.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(127);

/// A connect in progress. The progress loop drives it; the caller waits on its word.
#[derive(Debug)]
pub(crate) struct Connecting {
    context: Arc<Context>,
    id: Arc<dyn CmId>,
    dst: SocketAddr,
    options: Options,
    word: WaitWord,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Resolving,
    Handshake(Arc<Conn>),
    Done(io::Result<Arc<Conn>>),
    Taken,
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
) -> io::Result<Arc<Conn>> {
    context.start_progress()?;
    let id = context.create_id().map_err(error::verbs_error)?;
    let token = id.token();
    let connecting = Arc::new(Connecting {
        context: Arc::clone(context),
        id: Arc::clone(&id),
        dst,
        options,
        word: WaitWord::default(),
        state: Mutex::new(State::Resolving),
    });
    context.add_connecting(token, &connecting);
    let result = id
        .resolve(dst, timeout.unwrap_or(CONNECT_TIME_MAX))
        .map_err(error::verbs_error)
        .and_then(|()| connecting.wait(timeout));
    context.remove_connecting(token);
    if result.is_err() {
        connecting.give_up();
    }
    result
}

impl Connecting {
    fn wait(&self, timeout: Option<Duration>) -> io::Result<Arc<Conn>> {
        let deadline = self.context.now() + timeout.unwrap_or(CONNECT_TIME_MAX);
        loop {
            let seen = self.word.seen();
            if let Some(result) = self.take_result() {
                return result;
            }
            if self.context.now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("connecting to {}: no answer in time", self.dst),
                ));
            }
            let wake = self
                .context
                .runtime()
                .wait_word(&self.word, seen, Some(deadline))?;
            if wake == Wake::Interrupted {
                tracing::trace!("a signal during connect: waiting on");
            }
        }
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
        let unwanted = match *state {
            State::Taken | State::Done(_) => Some(result),
            _ => {
                *state = State::Done(result);
                None
            }
        };
        drop(state);
        if let Some(Ok(conn)) = unwanted {
            discard(&conn);
        }
        self.word.signal();
    }

    /// The caller does not wait any more: whatever comes of it is closed.
    fn give_up(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Taken);
        if let State::Handshake(conn) | State::Done(Ok(conn)) = state {
            discard(&conn);
        } else {
            self.id.disconnect();
        }
    }

    /// An event for the id, before there is a connection.
    pub(crate) fn manage_event(self: &Arc<Self>, kind: CmEventKind) {
        match kind {
            CmEventKind::Resolved => {
                if let Err(error) = self.resolved() {
                    self.finish(Err(error::verbs_error(error)));
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
    /// An event of connection management for this connection.
    pub(crate) fn manage_event(self: &Arc<Self>, kind: CmEventKind) {
        match kind {
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
