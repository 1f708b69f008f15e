//! One end of a connection.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lab::{Lab, Options, Side};
use super::mem::{Exposure, Mem};
use super::poll_thread::PollThread;
use crate::caps::Caps;
use crate::cm::{CmEventKind, CmId};
use crate::conformance::Poller;
use crate::conformance::report::{Stop, Verdict, ensure, ensure_eq};
use crate::cq::{CompletionQueue, CqToken};
use crate::error::PostError;
use crate::memory::RecvBuf;
use crate::mr::Binding;
use crate::provider::Provider;
use crate::qp::{QpAttr, QueuePair};
use crate::types::{Access, QpNum, RemoteAddr, Rkey, Sge, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WcStatus, WorkCompletion};

/// A completion to be overwritten.
pub(in crate::conformance) const NOTHING: WorkCompletion = WorkCompletion {
    wr_id: WrId(0),
    status: WcStatus::Success,
    opcode: WcOpcode::Recv,
    byte_len: 0,
    invalidated: None,
    qp: QpNum(0),
};

/// How long an adapter repeats what nobody answers. Some cases wait for a peer that is gone, and an
/// emulated wire loses a packet now and then, which takes a seventh of it.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// Completions polled and not yet asked for.
pub(super) type Inbox = Arc<Mutex<VecDeque<WorkCompletion>>>;

fn lock(inbox: &Inbox) -> MutexGuard<'_, VecDeque<WorkCompletion>> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end of a connection. Its waits keep the other end going too.
#[derive(Debug)]
pub(in crate::conformance) struct End {
    lab: Lab,
    side: Side,
    id: Option<Arc<dyn CmId>>,
    core: Rc<EndCore>,
    bufs: RefCell<HashMap<u64, RecvBuf>>,
    next_id: Cell<u64>,
}

/// What is polled.
#[derive(Debug)]
pub(super) struct EndCore {
    // Dropped first: it uses the queue.
    thread: Option<PollThread>,
    qp: Arc<dyn QueuePair>,
    cq: Arc<dyn CompletionQueue>,
    token: CqToken,
    inbox: Inbox,
}

impl EndCore {
    /// Moves completions into the inbox. True if there were any.
    pub(super) fn poll(&self) -> bool {
        if let Some(thread) = &self.thread {
            return thread.has_progressed();
        }
        let mut out = [NOTHING; 16];
        let count = self.cq.poll(&mut out);
        lock(&self.inbox).extend(&out[..count]);
        count > 0
    }
}

impl End {
    /// Creates the queue pair of an id, with its receives posted.
    pub(in crate::conformance) fn new(
        lab: &Lab,
        side: Side,
        id: Arc<dyn CmId>,
        options: &Options,
    ) -> Verdict<Self> {
        let station = lab.station(side);
        let token = lab.next_token();
        let depth = options.send_wr_max + options.recv_wr_max;
        let cq = station.provider.create_cq(depth, &station.comp, token)?;
        let qp = id.create_qp(&QpAttr {
            cq: Arc::clone(&cq),
            send_wr_max: options.send_wr_max,
            recv_wr_max: options.recv_wr_max,
            rnr_retry: options.rnr_retry,
            silence_max: Some(SILENCE_MAX),
        })?;
        let inbox = Inbox::default();
        let thread = match lab.poller() {
            Poller::Caller => None,
            Poller::Threads => Some(PollThread::start(&cq, &inbox)?),
        };
        let core = Rc::new(EndCore {
            thread,
            qp,
            cq,
            token,
            inbox,
        });
        lab.adopt(&core);
        let end = Self {
            lab: lab.clone(),
            side,
            id: Some(id),
            core,
            bufs: RefCell::default(),
            next_id: Cell::new(1),
        };
        for _ in 0..options.recvs {
            end.post_recv(options.recv_len)?;
        }
        Ok(end)
    }

    /// Confirms the peer's accept.
    #[track_caller]
    pub(in crate::conformance) fn establish(&self) -> Verdict {
        match self.event()? {
            CmEventKind::ConnectResponse { .. } => Ok(self.id().establish()?),
            other => Err(Stop::failed(format!("connecting gave {other:?}"))),
        }
    }

    /// Waits for the peer to confirm ours.
    #[track_caller]
    pub(in crate::conformance) fn established(&self) -> Verdict {
        match self.event()? {
            CmEventKind::Established => Ok(()),
            other => Err(Stop::failed(format!("accepting gave {other:?}"))),
        }
    }

    /// The id; a case that has dropped it does not ask.
    ///
    /// # Panics
    /// After [`drop_id`](Self::drop_id).
    pub(in crate::conformance) fn id(&self) -> &dyn CmId {
        self.id.as_deref().expect("the case has dropped this id")
    }

    pub(in crate::conformance) fn drop_id(&mut self) {
        self.id = None;
    }

    pub(in crate::conformance) fn qp(&self) -> &Arc<dyn QueuePair> {
        &self.core.qp
    }

    pub(in crate::conformance) fn cq(&self) -> &Arc<dyn CompletionQueue> {
        &self.core.cq
    }

    pub(in crate::conformance) fn token(&self) -> CqToken {
        self.core.token
    }

    pub(in crate::conformance) fn provider(&self) -> &Arc<dyn Provider> {
        &self.lab.station(self.side).provider
    }

    /// The next event of its id.
    #[track_caller]
    pub(in crate::conformance) fn event(&self) -> Verdict<CmEventKind> {
        self.lab.event(self.side, self.id())
    }

    /// The next event of its id, if there is one already.
    pub(in crate::conformance) fn event_now(&self) -> Option<CmEventKind> {
        self.lab.event_now(self.side, self.id())
    }

    /// Polls everything, this end's peer included, a few times.
    pub(in crate::conformance) fn turn(&self) {
        for _ in 0..4 {
            self.lab.turn();
        }
    }

    #[track_caller]
    pub(in crate::conformance) fn disconnected(&self) -> Verdict {
        match self.event()? {
            CmEventKind::Disconnected => Ok(()),
            other => Err(Stop::failed(format!("{other:?} in place of Disconnected"))),
        }
    }

    pub(in crate::conformance) fn fresh_id(&self) -> WrId {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        WrId(id)
    }

    /// Posts a receive with a buffer of its own.
    pub(in crate::conformance) fn post_recv(&self, len: usize) -> Verdict<WrId> {
        Ok(self.try_post_recv(len)??)
    }

    pub(in crate::conformance) fn try_post_recv(
        &self,
        len: usize,
    ) -> Verdict<Result<WrId, PostError>> {
        let buf = self.core.qp.alloc_recv(len)?;
        ensure!(buf.mem().len() >= len, "{buf:?} has less than {len} bytes");
        let id = self.fresh_id();
        if let Err(error) = self.core.qp.post_recv(id, &buf) {
            return Ok(Err(error));
        }
        self.bufs.borrow_mut().insert(id.0, buf);
        Ok(Ok(id))
    }

    /// Posts the buffer of a completed receive again.
    pub(in crate::conformance) fn repost(&self, wc: &WorkCompletion) -> Verdict<WrId> {
        let buf = self.bufs.borrow_mut().remove(&wc.wr_id.0);
        let Some(buf) = buf else {
            return Err(Stop::failed(format!("{wc:?} completes no receive")));
        };
        let id = self.fresh_id();
        self.core.qp.post_recv(id, &buf)?;
        self.bufs.borrow_mut().insert(id.0, buf);
        Ok(id)
    }

    /// Posts a request.
    pub(in crate::conformance) fn post(
        &self,
        op: SendOp<'_>,
        flags: SendFlags,
    ) -> Result<WrId, PostError> {
        let wr_id = self.fresh_id();
        self.core.qp.post_send(SendWr { wr_id, op, flags })?;
        Ok(wr_id)
    }

    /// Posts an inline message.
    pub(in crate::conformance) fn post_message(
        &self,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Result<WrId, PostError> {
        self.post_message_inv(bytes, flags, None)
    }

    pub(in crate::conformance) fn post_message_inv(
        &self,
        bytes: &[u8],
        flags: SendFlags,
        invalidate: Option<Rkey>,
    ) -> Result<WrId, PostError> {
        let data = SendData::Inline(bytes);
        self.post(SendOp::Send { data, invalidate }, flags)
    }

    /// Posts a read into all of `sges`, signalled.
    pub(in crate::conformance) fn post_read(
        &self,
        local: &[Sge],
        remote: RemoteAddr,
        rkey: Rkey,
    ) -> Result<WrId, PostError> {
        let op = SendOp::Read {
            local,
            remote,
            rkey,
        };
        self.post(op, SendFlags::SIGNALED)
    }

    /// Posts a write of all of `sges`, signalled.
    pub(in crate::conformance) fn post_write(
        &self,
        local: &[Sge],
        remote: RemoteAddr,
        rkey: Rkey,
    ) -> Result<WrId, PostError> {
        let op = SendOp::Write {
            local,
            remote,
            rkey,
        };
        self.post(op, SendFlags::SIGNALED)
    }

    /// Sends a message and waits until it has been sent.
    #[track_caller]
    pub(in crate::conformance) fn send(&self, bytes: &[u8]) -> Verdict {
        let id = self.post_message(bytes, SendFlags::SIGNALED)?;
        self.sent(id, WcOpcode::Send)?;
        Ok(())
    }

    /// Sends the last message of a conversation. Whoever has got it may end the connection before this queue
    /// pair has noticed that it has arrived.
    #[track_caller]
    pub(in crate::conformance) fn send_last(&self, bytes: &[u8]) -> Verdict {
        let id = self.post_message(bytes, SendFlags::SIGNALED)?;
        let wc = self.next_sent()?;
        let sent = matches!(wc.status, WcStatus::Success | WcStatus::Flushed);
        ensure!(wc.wr_id == id && sent, "the last message: {wc:?}");
        Ok(())
    }

    fn take(&self, recv: bool) -> Option<WorkCompletion> {
        let mut inbox = lock(&self.core.inbox);
        let place = inbox
            .iter()
            .position(|wc| (wc.opcode == WcOpcode::Recv) == recv)?;
        inbox.remove(place)
    }

    /// The next completion of the send queue.
    #[track_caller]
    pub(in crate::conformance) fn next_sent(&self) -> Verdict<WorkCompletion> {
        let what = format!("completion of a send request, {:?} side", self.side);
        self.lab.until(&what, || self.take(false))
    }

    /// The next completion of the receive queue.
    #[track_caller]
    pub(in crate::conformance) fn next_received(&self) -> Verdict<WorkCompletion> {
        let what = format!("completion of a receive, {:?} side", self.side);
        self.lab.until(&what, || self.take(true))
    }

    /// A completion of the send queue, if one is there already.
    pub(in crate::conformance) fn sent_now(&self) -> Option<WorkCompletion> {
        self.take(false)
    }

    /// A completion of the receive queue, if one is there already.
    pub(in crate::conformance) fn received_now(&self) -> Option<WorkCompletion> {
        self.take(true)
    }

    /// Waits for the next completion of the send queue: it must be this one, and a success.
    #[track_caller]
    pub(in crate::conformance) fn sent(&self, id: WrId, opcode: WcOpcode) -> Verdict<usize> {
        let wc = self.next_sent()?;
        let got = (wc.wr_id, wc.status, wc.opcode);
        ensure_eq!(
            got,
            (id, WcStatus::Success, opcode),
            "completion of the send queue"
        );
        ensure_eq!(wc.qp, self.core.qp.num(), "queue pair in {wc:?}");
        Ok(wc.byte_len)
    }

    /// Waits for the next completion of the send queue: it must be this one, and not a success.
    #[track_caller]
    pub(in crate::conformance) fn failed(&self, id: WrId) -> Verdict<WcStatus> {
        let wc = self.next_sent()?;
        ensure_eq!(wc.wr_id, id, "{wc:?}");
        ensure!(
            wc.status != WcStatus::Success,
            "{wc:?} should not be a success"
        );
        ensure_eq!(wc.byte_len, 0, "length in {wc:?}");
        Ok(wc.status)
    }

    /// Waits for the completion of a request that the peer must refuse, and for the end of the
    /// connection where only that shows it.
    #[track_caller]
    pub(in crate::conformance) fn refused_by_peer(&self, id: WrId) -> Verdict {
        if self.provider().caps().contains(Caps::REMOTE_STATUS) {
            ensure_eq!(self.failed(id)?, WcStatus::RemoteAccess, "status of {id:?}");
            return Ok(());
        }
        let wc = self.next_sent()?;
        ensure_eq!(wc.wr_id, id, "{wc:?}");
        ensure!(
            wc.opcode != WcOpcode::Read || wc.status != WcStatus::Success,
            "{wc:?} should not be a success"
        );
        let end = self.next_received()?;
        ensure_eq!(end.status, WcStatus::Flushed, "{end:?}");
        Ok(())
    }

    /// The bytes of a completed receive.
    pub(in crate::conformance) fn bytes(&self, wc: &WorkCompletion) -> Verdict<Vec<u8>> {
        let bufs = self.bufs.borrow();
        let Some(buf) = bufs.get(&wc.wr_id.0) else {
            return Err(Stop::failed(format!("{wc:?} completes no receive of ours")));
        };
        ensure!(
            wc.byte_len <= buf.mem().len(),
            "{wc:?} is longer than {buf:?}"
        );
        let mut bytes = vec![0; wc.byte_len];
        buf.mem().read(0, &mut bytes);
        Ok(bytes)
    }

    /// Waits for the next message.
    #[track_caller]
    pub(in crate::conformance) fn receive(&self) -> Verdict<Vec<u8>> {
        let wc = self.next_received()?;
        ensure_eq!(wc.status, WcStatus::Success, "{wc:?}");
        ensure_eq!(wc.qp, self.core.qp.num(), "queue pair in {wc:?}");
        self.bytes(&wc)
    }

    /// Waits for the next message and posts its buffer again.
    #[track_caller]
    pub(in crate::conformance) fn receive_and_repost(&self) -> Verdict<Vec<u8>> {
        let wc = self.next_received()?;
        ensure_eq!(wc.status, WcStatus::Success, "{wc:?}");
        let bytes = self.bytes(&wc)?;
        self.repost(&wc)?;
        Ok(bytes)
    }

    /// Registered memory.
    pub(in crate::conformance) fn mem(&self, len: usize) -> Verdict<Mem> {
        Mem::alloc(&**self.provider(), len)
    }

    /// Shows a part of registered memory to the peer.
    #[track_caller]
    pub(in crate::conformance) fn expose(
        &self,
        mem: &Mem,
        offset: usize,
        len: usize,
        access: Access,
    ) -> Verdict<Exposure> {
        let addr = mem.at(offset, len);
        let remote = RemoteAddr(addr.as_ptr() as u64);
        if !self.provider().caps().contains(Caps::MEMORY_WINDOW) {
            let region = mem.reregister(&**self.provider(), offset, len, access)?;
            let Some(rkey) = region.rkey() else {
                return Err(Stop::failed(
                    "a region with a remote right has no remote key",
                ));
            };
            return Ok(Exposure::region(region, rkey, remote));
        }
        let window = self.provider().alloc_window()?;
        let binding = Binding {
            lkey: mem.lkey(),
            addr,
            len,
            access,
        };
        let id = self.fresh_id();
        let rkey = self
            .core
            .qp
            .bind(id, SendFlags::SIGNALED, &*window, binding)?;
        self.sent(id, WcOpcode::Bind)?;
        ensure_eq!(window.rkey(), Some(rkey), "key of a bound window");
        Ok(Exposure::window(window, rkey, remote))
    }
}
