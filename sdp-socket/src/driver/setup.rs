//! Making connections: the active and the passive side.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};

use sdp_core::{Config, Connection};
use sdp_verbs::{Caps, CmId, QpAttr, QueuePair, RecvBuf, VerbsError};
use sdp_wire::HelloForm;
use smallvec::SmallVec;

use super::actions::at_once_max;
use super::moving::{Moving, Pair};
use super::{CallTable, Conn, Grants, Inner, OnSettled, PrivateSend, ReadAhead, RecvBuffers};
use crate::budget::Allowance;
use crate::context::Context;
use crate::options::Options;
use crate::park::{Alarm, NEVER, Turn, WaitWord};

/// Send work requests of one connection outstanding at once.
pub(super) const SEND_WR_MAX: u32 = 128;

impl Conn {
    /// Makes a connection around an id that is bound to a device, with the engine `make` builds.
    /// It is known to the context from here on, and `on_settled` hears how the handshake ends.
    ///
    /// # Errors
    /// Out of queues or memory.
    pub(crate) fn open(
        context: &Arc<Context>,
        id: Arc<dyn CmId>,
        options: Options,
        engine: Connection,
        config: &Config,
        on_settled: OnSettled,
    ) -> Result<Arc<Self>, VerbsError> {
        let token = context.new_token();
        let depth = SEND_WR_MAX + u32::from(config.recv_buffers_max);
        let cq = context.create_cq(depth, token)?;
        let attr = QpAttr {
            cq: Arc::clone(&cq),
            send_wr_max: SEND_WR_MAX,
            recv_wr_max: u32::from(config.recv_buffers_max),
            rnr_retry: 7,
            silence_max: options.liveness().user_timeout(),
        };
        let qp = id.create_qp(&attr)?;
        let names = (id.local_addr(), id.peer_addr());
        let cm_token = id.token();
        let first_recvs = first_memory(&*qp, engine.config())?;
        let conn = Arc::new(Self {
            context: Arc::clone(context),
            token,
            names,
            options,
            cq,
            same_host: context.provider().caps().contains(Caps::SAME_HOST),
            at_once_max: at_once_max(&context.provider().limits()),
            memory: Allowance::new(&context.budget),
            turn: Turn::default(),
            inner: Mutex::new(Inner {
                engine,
                pair: Some(Pair { id, qp }),
                moving: Moving::default(),
                first_recvs,
                recv_bufs: RecvBuffers::default(),
                grants: Grants::default(),
                private: PrivateSend::default(),
                urgent: PrivateSend::default(),
                kept_urgent: 0,
                read_ahead: ReadAhead::default(),
                calls: CallTable::default(),
                jobs: SmallVec::new(),
                local_work: false,
                works: 0,
                receives: 0,
                flushed_works: Vec::new(),
                flushed_receives: Vec::new(),
                ready: None,
                down_since: None,
                told_down: false,
            }),
            tx: WaitWord::default(),
            rx: WaitWord::default(),
            callers: AtomicU32::new(0),
            left: AtomicU64::new(0),
            looks: AtomicU32::new(0),
            followers: AtomicU32::new(0),
            leading: AtomicBool::new(false),
            channel_armed: AtomicBool::new(false),
            timeout: AtomicU64::new(NEVER),
            housekeeping: AtomicU64::new(NEVER),
            alarm: Alarm::new(),
            transport_down: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            on_settled: Mutex::new(Some(on_settled)),
        });
        context.remember(&conn, cm_token);
        conn.visit_engine(|_, _| ());
        Ok(conn)
    }

    /// Takes out who wants to know how the handshake ended.
    pub(crate) fn take_on_settled(&self) -> Option<OnSettled> {
        crate::sync::lock(&self.on_settled).take()
    }
}

/// Memory for the handshake. Where it may not be had or locked, that is said now, and not by a handshake
/// that waits for it.
fn first_memory(qp: &dyn QueuePair, wanted: &Config) -> Result<Vec<RecvBuf>, VerbsError> {
    let len = wanted.recv_buffer_len_initial as usize;
    qp.keep_send(len)?;
    let first = (0..wanted.recv_buffers_initial).map(|_| qp.alloc_recv(len));
    first.collect()
}

/// The engine's settings for this provider and these options.
pub(crate) fn config(context: &Context, options: &Options) -> Config {
    let provider = context.provider();
    let caps = provider.caps();
    let same_host = caps.contains(Caps::SAME_HOST);
    let hello_form = if provider.limits().connect_data_max >= sdp_wire::HELLO_LEN {
        HelloForm::Whole
    } else {
        HelloForm::Compact
    };
    let mut config = Config {
        send_slots: SEND_WR_MAX,
        read_depth: provider.limits().read_depth_max.min(16),
        invalidate_cap: caps.contains(Caps::SEND_WITH_INV),
        caller_first: caps.contains(Caps::CALLER_FIRST),
        hello_form,
        read_nonblocking: same_host,
        ..Config::default()
    };
    options.apply(&mut config, same_host);
    config
}
