//! Moving a connection to another queue pair: the old one taken down, the new one found, made and
//! put in its place. The completion queue stays, and with it whoever sleeps on it.
//!
//! The side that wants to move listens on a port of its own, and only the peer knows the secret in
//! the service ID that goes with it. The peer closes the old queue pair and calls there.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sdp_core::{CmInput, EndCall, Instant};
use sdp_verbs::{BindRequest, CmEventKind, CmId, CmToken, QpAttr, QueuePair, VerbsError};
use sdp_wire::ServiceId;

use super::wait::Until;
use super::{Conn, FLUSH_WAIT, Inner, RecvBuffers, SEND_WR_MAX};
use crate::error;
use crate::park::{SpinPolicy, Spinner};

/// Requests with the right secret that wait for the old queue pair to be down. There is one peer.
const CALLS_MAX: usize = 2;
/// Requests that the provider keeps until they are looked at.
const BACKLOG: u32 = 16;

/// A queue pair and what it was connected with.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(super) id: Arc<dyn CmId>,
    pub(super) qp: Arc<dyn QueuePair>,
}

/// Where the peer is to call.
#[derive(Debug)]
struct Port {
    id: Arc<dyn CmId>,
    service_id: ServiceId,
    /// The peer's requests that cannot be answered yet.
    calls: VecDeque<(Arc<dyn CmId>, Vec<u8>)>,
}

/// What a move needs beside the queue pairs.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    port: Option<Port>,
    /// The engine is done with the queue pair, and where the peer is to be called, if this side
    /// does that.
    left: Option<Option<ServiceId>>,
    /// The way to the peer's port is being looked for.
    path: Option<Arc<dyn CmId>>,
}

impl Moving {
    /// Nothing is to be done.
    pub(super) fn is_idle(&self) -> bool {
        self.port.is_none() && self.left.is_none()
    }

    /// The engine waits for another queue pair.
    pub(super) fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// It looks for the way to the peer.
    pub(crate) fn is_path(&self, id: CmToken) -> bool {
        self.path.as_ref().is_some_and(|path| path.token() == id)
    }

    /// Names in events of what there is beside the queue pair.
    pub(super) fn tokens(&self) -> impl Iterator<Item = CmToken> + '_ {
        let port = self.port.as_ref().map(|port| port.id.token());
        port.into_iter()
            .chain(self.path.as_ref().map(|id| id.token()))
    }
}

impl Conn {
    /// Moves the connection to another queue pair and waits until it is there.
    ///
    /// # Errors
    /// See [`SdpStream::migrate`](crate::SdpStream::migrate).
    pub(crate) fn migrate(&self) -> io::Result<()> {
        let _caller = self.enter();
        let port = self.open_port()?;
        let mut inner = self.lock();
        let now = self.context.now();
        let before = inner.engine.moves_done();
        let begun = inner.engine.suspend(now, port.service_id);
        if let Err(refused) = begun {
            self.context.remove_id(port.id.token());
            return Err(error::call_error(&refused));
        }
        inner.moving.port = Some(port);
        self.after(inner, now);
        let mut spinner = Spinner::new(SpinPolicy::Never);
        loop {
            let seen = self.tx.seen();
            let inner = self.lock();
            if inner.engine.moves_done() > before {
                return Ok(());
            }
            let wanted = inner.engine.is_move_wanted();
            drop(inner);
            if self.is_closed() {
                let ended = self.take_error();
                return Err(ended.unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
            }
            if !wanted {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer did not get round to a move to another queue pair",
                ));
            }
            let until = Until {
                deadline: None,
                partly: false,
            };
            if let Some(EndCall::Interrupted) = self.wait(&self.tx, seen, until, &mut spinner) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// Listens for the peer.
    fn open_port(&self) -> io::Result<Port> {
        let secret = self.context.runtime().random()?;
        let local = self.local_addr().ok_or(io::ErrorKind::NotConnected)?;
        let id = self.context.create_id().map_err(error::verbs_error)?;
        let request = BindRequest {
            addr: SocketAddr::new(local.ip(), 0),
            only_v6: false,
            reuse_port: false,
        };
        id.bind(request).map_err(error::verbs_error)?;
        let bound = id.local_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
        self.context.add_id(id.token(), self.token);
        if let Err(error) = id.listen(BACKLOG) {
            self.context.remove_id(id.token());
            return Err(error::verbs_error(error));
        }
        Ok(Port {
            id,
            service_id: ServiceId::resuming_at(bound.port(), secret),
            calls: VecDeque::new(),
        })
    }

    /// Somebody calls at the port. Who does not know the secret is turned down, and the peer goes on
    /// being waited for.
    pub(crate) fn called(&self, id: Arc<dyn CmId>, private_data: Vec<u8>) {
        let mut inner = self.lock();
        let now = self.context.now();
        match &mut inner.moving.port {
            Some(port)
                if sdp_wire::resuming(&private_data) == Some(port.service_id)
                    && port.calls.len() < CALLS_MAX =>
            {
                port.calls.push_back((id, private_data));
            }
            _ => {
                drop(inner);
                return turn_down(&*id, "not the peer of the connection that is resumed there");
            }
        }
        self.after(inner, now);
    }

    /// The engine is done with the queue pair.
    pub(super) fn leave(&self, inner: &mut Inner, call: Option<ServiceId>) {
        inner.moving.left = Some(call);
        if call.is_some() {
            // The peer's last message was this side's: it has it.
            self.take_down(inner);
        }
        inner.local_work = true;
    }

    /// Everything posted on the old queue pair comes back.
    fn take_down(&self, inner: &mut Inner) {
        if let Some(pair) = &inner.pair {
            pair.qp.set_error();
            pair.id.disconnect();
        }
        self.transport_down.store(true, Ordering::Release);
    }

    /// Goes on with a move, and clears up after one that is over. Says whether the engine was told
    /// something.
    pub(super) fn step_move(&self, inner: &mut Inner, now: Instant) -> bool {
        if inner.moving.port.is_some() && !inner.engine.is_move_wanted() {
            self.close_port(inner);
        }
        let Some(call) = inner.moving.left else {
            return false;
        };
        if inner.engine.is_closed() {
            inner.moving.left = None;
            self.forget_path(inner);
            return false;
        }
        if inner.pair.is_some() {
            let waits = |port: &Port| !port.calls.is_empty();
            let down = self.transport_down.load(Ordering::Acquire);
            if !down && inner.moving.port.as_ref().is_some_and(waits) {
                // The peer has closed it, though the news of that has yet to come.
                self.take_down(inner);
                inner.local_work = true;
            }
            if !self.is_drained(inner, now) {
                return false;
            }
            self.drop_pair(inner);
            if let Some(service_id) = call
                && let Err(error) = self.find_path(inner, service_id)
            {
                self.fail_move(inner, now, &error);
                return true;
            }
        }
        call.is_none() && self.answer_call(inner, now)
    }

    /// Nothing of the old queue pair is to come any more.
    fn is_drained(&self, inner: &Inner, now: Instant) -> bool {
        let empty = inner.receives == 0 && inner.works == 0;
        let late = inner
            .down_since
            .is_some_and(|since| now.since(since) >= 2 * FLUSH_WAIT);
        inner.told_down && (empty || late)
    }

    /// The old queue pair goes, with all memory that was posted on it.
    fn drop_pair(&self, inner: &mut Inner) {
        inner.recv_bufs = RecvBuffers::default();
        inner.calls.forget_all_keys();
        if let Some(pair) = inner.pair.take() {
            self.context.remove_id(pair.id.token());
        }
        inner.receives = 0;
        inner.works = 0;
        inner.flushed_works.clear();
        inner.flushed_receives.clear();
        inner.told_down = false;
        inner.down_since = None;
        self.transport_down.store(false, Ordering::Release);
    }

    /// Looks for the way to the peer's port, at the address that it has always had.
    fn find_path(&self, inner: &mut Inner, service_id: ServiceId) -> Result<(), VerbsError> {
        let peer = self.peer_addr();
        let to = peer.zip(service_id.resume_port());
        let (peer, port) = to.ok_or(VerbsError::State {
            op: "calling the peer",
            state: "its address is not known",
        })?;
        let id = self.context.create_id()?;
        self.context.add_id(id.token(), self.token);
        inner.moving.path = Some(Arc::clone(&id));
        id.resolve(SocketAddr::new(peer.ip(), port), self.move_wait(inner))
    }

    fn move_wait(&self, inner: &Inner) -> Duration {
        inner.engine.config().move_wait
    }

    /// An event for the id that looks for the way.
    pub(crate) fn path_event(&self, kind: CmEventKind) {
        let mut inner = self.lock();
        let now = self.context.now();
        self.on_path(&mut inner, now, kind);
        self.after(inner, now);
    }

    fn on_path(&self, inner: &mut Inner, now: Instant, kind: CmEventKind) {
        let failed = match kind {
            CmEventKind::Resolved => match self.connect_path(inner, now) {
                Ok(()) => return,
                Err(error) => error,
            },
            CmEventKind::Failed(error) => error,
            other => {
                return tracing::debug!(token = ?self.token, "unexpected on the way: {other:?}");
            }
        };
        self.fail_move(inner, now, &failed);
    }

    fn connect_path(&self, inner: &mut Inner, now: Instant) -> Result<(), VerbsError> {
        let Some(id) = inner.moving.path.take() else {
            return Ok(());
        };
        let local = id.local_addr();
        self.put_pair(inner, id)?;
        inner.engine.handle_path(
            now,
            local.map_or(0, |addr| addr.port()),
            local.map(|addr| addr.ip()),
            self.peer_addr().map(|addr| addr.ip()),
        );
        Ok(())
    }

    /// The new queue pair takes its place.
    fn put_pair(&self, inner: &mut Inner, id: Arc<dyn CmId>) -> Result<(), VerbsError> {
        let config = inner.engine.config();
        let qp = id.create_qp(&self.qp_attr(config.recv_buffers_max))?;
        qp.keep_send(config.recv_buffer_len_initial as usize)?;
        inner.pair = Some(Pair { id, qp });
        inner.moving.left = None;
        Ok(())
    }

    /// How queue pairs of this connection are made.
    fn qp_attr(&self, recv_buffers_max: u16) -> QpAttr {
        QpAttr {
            cq: Arc::clone(&self.cq),
            send_wr_max: SEND_WR_MAX,
            recv_wr_max: u32::from(recv_buffers_max),
            rnr_retry: 7,
            silence_max: self.options.liveness().user_timeout(),
        }
    }

    /// Answers the peer, if it has called. Says whether it has.
    fn answer_call(&self, inner: &mut Inner, now: Instant) -> bool {
        while let Some((id, private_data)) = inner
            .moving
            .port
            .as_mut()
            .and_then(|port| port.calls.pop_front())
        {
            if let Err(refusal) = inner.engine.handle_call(now, &private_data) {
                turn_down(&*id, &refusal.error.to_string());
                continue;
            }
            self.context.add_id(id.token(), self.token);
            if let Err(error) = self.put_pair(inner, Arc::clone(&id)) {
                turn_down(&*id, &error.to_string());
                self.context.remove_id(id.token());
                self.fail_move(inner, now, &error);
            }
            return true;
        }
        false
    }

    fn fail_move(&self, inner: &mut Inner, now: Instant, error: &VerbsError) {
        tracing::warn!(token = ?self.token, "no other queue pair: {error}");
        let errno = error.errno();
        let unreachable = CmInput::Unreachable { errno };
        inner.engine.handle_cm(now, unreachable);
        inner.moving.left = None;
        self.forget_path(inner);
    }

    fn forget_path(&self, inner: &mut Inner) {
        if let Some(id) = inner.moving.path.take() {
            self.context.remove_id(id.token());
        }
    }

    fn close_port(&self, inner: &mut Inner) {
        if let Some(port) = inner.moving.port.take() {
            self.context.remove_id(port.id.token());
            for (id, _) in port.calls {
                turn_down(&*id, "the connection is not waiting there any more");
            }
        }
    }
}

fn turn_down(id: &dyn CmId, why: &str) {
    tracing::warn!(peer = ?id.peer_addr(), "a call to resume a connection turned down: {why}");
    if let Err(error) = id.reject(&[]) {
        tracing::warn!("reject: {error}");
    }
}
