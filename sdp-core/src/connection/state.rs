//! What the halves of a connection share, and where the connection stands.

use sdp_wire::{BSDH_LEN, Body, Flags, Version};

use crate::action::Payload;
use crate::adaptive::Choices;
use crate::config::Config;
use crate::control::Control;
use crate::credits::Credits;
use crate::error::{CallError, ConnectionError};
use crate::event::Event;
use crate::ids::{JobId, WorkId};
use crate::keepalive::Liveness;
use crate::keys::Keys;
use crate::mode::Modes;
use crate::opening::Opening;
use crate::outbox::{Outbox, Outgoing};
use crate::patience::Patience;
use crate::resize::Resize;
use crate::stats::{Stats, mid_index};
use crate::suspend::Suspend;
use crate::timer::Timers;
use crate::tx::Pend;

/// Where a connection stands, for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// The handshake is under way.
    Handshake,
    /// Both halves may carry data.
    Open,
    /// Between two queue pairs.
    Moving,
    /// This side has begun to close, or the peer has.
    Closing,
    /// Nothing more will be posted.
    Closed,
}

/// What the peer said about itself in its Hello or HelloAck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerParams {
    /// Protocol version of the connection.
    pub version: Version,
    /// Length of its receive buffers, header included.
    pub recv_buffer_len: u32,
    /// Adverts it takes at once.
    pub adverts_max: u16,
    /// It lets us invalidate its keys by SEND with invalidate.
    pub invalidate_cap: bool,
}

/// The life of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Hello is on its way.
    Connecting,
    /// HelloAck is on its way.
    Accepting,
    /// Both sides may send.
    Open,
    /// Between two queue pairs: the old one is done with, and there is no new one yet.
    Moving,
    /// Hello is on its way on a new queue pair.
    Recalling,
    /// HelloAck is on its way on a new queue pair.
    Reaccepting,
    /// AbortConn is on its way; nothing else will be sent.
    Aborting(Option<WorkId>),
    /// Over.
    Dead,
}

/// This side's DisConn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fin {
    /// Not asked for.
    Open,
    /// To be sent behind all data.
    Wanted,
    /// Posted, not yet completed.
    Posted(Option<WorkId>),
    /// Delivered.
    Done,
}

/// Where the connection stands.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) stage: Stage,
    /// This side's DisConn. Not `Open` means no more sends.
    pub(crate) fin: Fin,
    /// The peer's DisConn has come.
    pub(crate) peer_fin: bool,
    /// Receives give the end of the stream once what is there has been taken.
    pub(crate) rx_shut: bool,
    /// The application has let go of the connection.
    pub(crate) app_closed: bool,
    /// Why it ended, until somebody was told.
    pub(crate) error: Option<ConnectionError>,
    /// Why this side aborts, while AbortConn is on its way.
    pub(crate) aborting: Option<ConnectionError>,
}

impl Life {
    pub(crate) const fn new(stage: Stage) -> Self {
        Self {
            stage,
            fin: Fin::Open,
            peer_fin: false,
            rx_shut: false,
            app_closed: false,
            error: None,
            aborting: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// It is, or will be again: what is accepted from calls will be sent.
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Open) || self.is_moving()
    }

    /// Between two queue pairs, or in the handshake of the new one.
    pub(crate) const fn is_moving(&self) -> bool {
        matches!(
            self.stage,
            Stage::Moving | Stage::Recalling | Stage::Reaccepting
        )
    }

    /// In the handshake of a new queue pair.
    pub(crate) const fn is_recalling(&self) -> bool {
        matches!(self.stage, Stage::Recalling | Stage::Reaccepting)
    }

    pub(crate) const fn is_handshake(&self) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Accepting)
    }

    /// Nothing of the stream moves any more.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Aborting(_) | Stage::Dead)
    }

    pub(crate) fn tx_shut(&self) -> bool {
        self.fin != Fin::Open
    }

    /// What a call is told that finds the connection over: the error once, then `otherwise`.
    pub(crate) fn call_error(
        &mut self,
        otherwise: Result<usize, CallError>,
    ) -> Result<usize, CallError> {
        match self.error.take() {
            Some(error) => Err(CallError::Connection(error)),
            None => otherwise,
        }
    }

    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        match self.stage {
            Stage::Connecting | Stage::Accepting => Phase::Handshake,
            Stage::Moving | Stage::Recalling | Stage::Reaccepting => Phase::Moving,
            Stage::Open if self.fin == Fin::Open && !self.peer_fin => Phase::Open,
            Stage::Open | Stage::Aborting(_) => Phase::Closing,
            Stage::Dead => Phase::Closed,
        }
    }
}

/// Events not yet told. Each kind is told once, however often it happened.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pub(crate) connected: bool,
    pub(crate) send: bool,
    pub(crate) recv: bool,
    pub(crate) urgent: bool,
    pub(crate) closed: Option<Option<ConnectionError>>,
}

impl Wake {
    #[inline]
    pub(crate) fn poll(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.connected) {
            Some(Event::Connected)
        } else if core::mem::take(&mut self.recv) {
            Some(Event::RecvReady)
        } else if core::mem::take(&mut self.send) {
            Some(Event::SendReady)
        } else if core::mem::take(&mut self.urgent) {
            Some(Event::Urgent)
        } else {
            self.closed.take().map(Event::Closed)
        }
    }
}

/// What both halves use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) stats: Stats,
    pub(crate) peer: Option<PeerParams>,
    pub(crate) life: Life,
    pub(crate) credits: Credits,
    pub(crate) modes: Modes,
    pub(crate) keys: Keys,
    /// Adverts out, or about to be: of what this side sends, and of room for what it receives.
    pub(crate) sources_out: usize,
    pub(crate) sinks_out: usize,
    pub(crate) out: Outbox,
    pub(crate) wake: Wake,
    pub(crate) timers: Timers,
    pub(crate) control: Control,
    pub(crate) pend: Pend,
    pub(crate) patience: Patience,
    pub(crate) resize: Resize,
    pub(crate) suspend: Suspend,
    pub(crate) choices: Option<Choices>,
    pub(crate) liveness: Liveness,
    pub(crate) opening: Opening,
    /// Memory of the process is scarce.
    pub(crate) scarce: bool,
    next_job: u32,
    /// Turns of the protocol that were taken.
    #[cfg(test)]
    pub(crate) marks: alloc::collections::BTreeSet<crate::mark::Mark>,
}

impl Shared {
    pub(crate) fn new(config: Config, stage: Stage) -> Self {
        let posted = u32::from(config.recv_buffers_initial);
        Self {
            stats: Stats::default(),
            peer: None,
            life: Life::new(stage),
            credits: Credits::new(posted),
            modes: Modes::new(),
            keys: Keys::default(),
            sources_out: 0,
            sinks_out: 0,
            out: Outbox::new(config.send_slots),
            wake: Wake::default(),
            timers: Timers::default(),
            control: Control::default(),
            pend: Pend::default(),
            patience: Patience::new(config.rendezvous_wait_min, config.rendezvous_wait),
            resize: Resize::new(
                stage == Stage::Accepting,
                config.recv_buffer_len_initial,
                config.recv_buffer_len,
            ),
            suspend: Suspend::new(),
            choices: config.adaptive.map(Choices::new),
            liveness: Liveness::default(),
            opening: Opening::default(),
            scarce: false,
            next_job: 0,
            #[cfg(test)]
            marks: alloc::collections::BTreeSet::new(),
            config,
        }
    }

    /// Queues a message; the caller has checked credits and slots. One that leaves too few credits
    /// for payload or a nudge wakes the peer by itself: nothing else may be able to.
    pub(crate) fn send(&mut self, mut out: Outgoing) -> (u32, Option<WorkId>) {
        if self.pend.ride() {
            out.flags |= Flags::OOB_PEND;
        }
        let asks = out.body.is_solicited(out.flags);
        out.solicited |= asks || self.credits.is_last_call();
        if let Payload::Grant { len, .. } = out.payload {
            let full = usize::try_from(len).is_ok_and(|len| len >= self.data_len_max());
            self.resize.on_payload_sent(full);
        }
        if let Some(count) = self.stats.sent.get_mut(mid_index(out.body.mid())) {
            *count += 1;
        }
        let mseq = self.credits.take();
        (mseq, self.out.push_message(out, mseq))
    }

    /// A message without payload may be queued now.
    pub(crate) fn can_control(&self) -> bool {
        self.credits.control_allowed() && self.out.has_slot() && !self.suspend.is_silent()
    }

    /// A report that a cancel of the peer's waits for may be queued now, or its answer: the `last`.
    pub(crate) fn can_answer(&self, last: bool) -> bool {
        self.credits.answer_allowed(last) && self.out.has_slot() && !self.suspend.is_silent()
    }

    /// A message with payload may be queued now.
    pub(crate) fn can_payload(&self) -> bool {
        self.credits.payload_allowed() && self.out.has_payload_slot() && !self.suspend.is_on()
    }

    /// Queues an empty Data.
    pub(crate) fn send_update(&mut self, solicited: bool) {
        self.send(Outgoing {
            solicited,
            payload: Payload::None,
            ..Outgoing::control(Body::Data)
        });
    }

    /// Payload bytes in the largest Data: what the peer takes, and while memory is scarce no more than
    /// a message is sure to be had for.
    pub(crate) fn data_len_max(&self) -> usize {
        let mut recv_len = self.peer.map_or(0, |peer| peer.recv_buffer_len);
        if self.scarce {
            recv_len = recv_len.min(self.config.recv_buffer_len_initial);
        }
        usize::try_from(recv_len).map_or(0, |len| len.saturating_sub(BSDH_LEN))
    }

    /// The peer speaks version 1.1.
    pub(crate) fn is_version_1(&self) -> bool {
        self.peer.is_some_and(|peer| peer.version == Version::V1_1)
    }

    /// Payload bytes to go inside a SrcAvail whose head is that of `body`.
    pub(crate) fn inline_len(&self, body: &Body) -> u32 {
        let recv_len = self.peer.map_or(0, |peer| peer.recv_buffer_len);
        let head_len = u32::try_from(body.head_len()).unwrap_or(u32::MAX);
        let room = recv_len.saturating_sub(head_len);
        self.config.inline_len.max(1).min(room)
    }

    pub(crate) fn next_job(&mut self) -> JobId {
        self.next_job = self.next_job.wrapping_add(1);
        JobId(self.next_job)
    }

    /// The answer to a peer that broke a rule.
    pub(crate) const fn misbehaved<T>(rule: &'static str) -> Result<T, ConnectionError> {
        Err(ConnectionError::PeerMisbehaved(rule))
    }
}
