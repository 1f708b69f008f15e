//! Hello and HelloAck (clauses §2.1 and §2.2).

use core::net::IpAddr;

use sdp_wire::{Carrier, HELLO_ACK_LEN, HELLO_LEN, Hello, HelloAck, HelloForm, ServiceId, Version};

use crate::action::{Action, PrivateData};
use crate::error::ConnectionError;
use crate::event::CmInput;
use crate::ids::BufferId;

use super::Connection;
use super::close::Teardown;
use super::state::{Fin, PeerParams, Stage};
use crate::time::Instant;

/// Why a connection request cannot be accepted, and what to answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("connection request refused: {error}")]
pub struct Refusal {
    /// Why.
    #[source]
    pub error: ConnectionError,
    /// Private data for the reject. The protocol names none.
    pub private_data: PrivateData,
}

impl Refusal {
    pub(super) fn of(error: ConnectionError) -> Self {
        Self {
            error,
            private_data: PrivateData::new(),
        }
    }
}

impl Connection {
    /// Posts the receives that Hello claims, then sends Hello.
    /// `resumes`: it resumes the connection that was suspended with this service ID.
    pub(super) fn say_hello(
        &mut self,
        local_port: u16,
        src: Option<IpAddr>,
        dst: Option<IpAddr>,
        resumes: Option<ServiceId>,
    ) {
        self.post_first_receives();
        let config = &self.sh.config;
        let hello = Hello {
            bufs: config.recv_buffers_initial,
            version: self.hello_version(),
            form: config.hello_form,
            invalidate_cap: config.invalidate_cap,
            adverts_max: config.adverts_max,
            desired_remote_recv_size: config.recv_buffer_len_initial,
            local_recv_size: self.sh.resize.own_len(),
            local_port,
            src,
            dst,
        };
        let mut bytes = [0; HELLO_LEN];
        let len = hello.encode(&mut bytes);
        if let Some(id) = resumes {
            sdp_wire::mark_resuming(&mut bytes, id);
        }
        let data = bytes.iter().copied().take(len).collect();
        self.sh.out.push(Action::Connect(data));
    }

    /// Judges the Hello of a new connection, and answers it.
    pub(super) fn hear_hello(&mut self, hello: &[u8]) -> Result<(), Refusal> {
        let resumes = sdp_wire::resuming(hello).is_some();
        let hello = self.decode_hello(hello)?;
        if resumes {
            return Err(Refusal::of(ConnectionError::PeerIncompatible(
                "§2.8: Hello resumes another connection",
            )));
        }
        self.answer_hello(&hello, None);
        Ok(())
    }

    pub(super) fn decode_hello(&self, hello: &[u8]) -> Result<Hello, Refusal> {
        let carrier = match self.sh.config.hello_form {
            HelloForm::Whole => Carrier::Whole,
            HelloForm::Compact => Carrier::Compact,
        };
        Hello::decode(hello, carrier)
            .map_err(|error| Refusal::of(ConnectionError::Malformed(error)))
    }

    /// Takes the peer's Hello in, posts the receives that HelloAck claims and sends HelloAck, in the
    /// version we were called in.
    pub(super) fn answer_hello(&mut self, hello: &Hello, resumes: Option<ServiceId>) {
        self.sh.peer = Some(PeerParams {
            version: hello.version,
            recv_buffer_len: hello.local_recv_size,
            adverts_max: hello.adverts_max,
            invalidate_cap: hello.invalidate_cap,
        });
        self.sh.credits.start(hello.bufs);
        self.sh.resize.start(hello.desired_remote_recv_size);
        self.sh.resize.peer_starts(hello.local_recv_size);
        self.post_first_receives();
        let config = &self.sh.config;
        let ack = HelloAck {
            bufs: config.recv_buffers_initial,
            version: hello.version,
            adverts_max: u8::try_from(config.adverts_max).unwrap_or(u8::MAX),
            actual_recv_size: self.sh.resize.own_len(),
            invalidate_cap: config.invalidate_cap,
        };
        let mut bytes = [0; HELLO_ACK_LEN];
        ack.encode(&mut bytes);
        if let Some(id) = resumes {
            sdp_wire::mark_resuming(&mut bytes, id);
        }
        self.sh
            .out
            .push(Action::Accept(PrivateData::from_slice(&bytes)));
    }

    /// A connection that moves keeps its version.
    fn hello_version(&self) -> Version {
        let first = self.sh.peer.map(|peer| peer.version);
        first.unwrap_or(self.sh.config.version)
    }

    fn post_first_receives(&mut self) {
        for buf in 0..self.sh.config.recv_buffers_initial {
            let buf = BufferId(buf);
            let len = self.sh.resize.own_len();
            self.sh.out.push_receive(Action::PostRecv { buf, len });
        }
    }

    /// The connection manager speaks.
    pub(super) fn on_cm(&mut self, now: Instant, input: CmInput<'_>) {
        match (input, self.sh.life.stage) {
            (CmInput::Response(bytes), Stage::Connecting | Stage::Recalling) => {
                self.hear_hello_ack(now, bytes);
            }
            (CmInput::Established, Stage::Accepting | Stage::Reaccepting) => {
                self.establish(now);
                self.sh.await_first_message(now);
            }
            (CmInput::Rejected { .. }, Stage::Moving | Stage::Recalling | Stage::Reaccepting) => {
                self.end_gracefully_or(ConnectionError::Reset);
            }
            (
                CmInput::Unreachable { errno },
                Stage::Moving | Stage::Recalling | Stage::Reaccepting,
            ) => self.end_gracefully_or(ConnectionError::Unreachable(errno)),
            (CmInput::Rejected { reason, .. }, Stage::Connecting | Stage::Accepting) => {
                self.die(Some(ConnectionError::Refused(reason)), Teardown::None);
            }
            (CmInput::Unreachable { errno }, Stage::Connecting | Stage::Accepting) => {
                self.die(Some(ConnectionError::Unreachable(errno)), Teardown::None);
            }
            (CmInput::Disconnected | CmInput::Rejected { .. } | CmInput::Unreachable { .. }, _) => {
                self.on_transport_end(ConnectionError::Reset)
            }
            // The first message was here before its confirmation, or everything is over.
            (CmInput::Established | CmInput::Response(_), _) => {}
        }
    }

    fn hear_hello_ack(&mut self, now: Instant, bytes: &[u8]) {
        let ack = match HelloAck::decode(bytes) {
            Ok(ack) => ack,
            Err(error) => {
                let error = ConnectionError::Malformed(error);
                return self.die(Some(error), Teardown::Reject);
            }
        };
        if ack.version != self.hello_version() {
            let error = ConnectionError::PeerIncompatible(
                "§2.2: HelloAck is of another major version than Hello",
            );
            return self.die(Some(error), Teardown::Reject);
        }
        if sdp_wire::resuming(bytes) != self.sh.suspend.calls() {
            let error = ConnectionError::PeerIncompatible(
                "§2.8: HelloAck does not name the connection that Hello resumes",
            );
            return self.die(Some(error), Teardown::Reject);
        }
        self.sh.peer = Some(PeerParams {
            version: ack.version,
            recv_buffer_len: ack.actual_recv_size,
            adverts_max: u16::from(ack.adverts_max),
            invalidate_cap: ack.invalidate_cap,
        });
        self.sh.credits.start(ack.bufs);
        self.sh.resize.peer_starts(ack.actual_recv_size);
        self.sh.out.push(Action::Establish);
        self.establish(now);
        self.sh.speak_first(now);
    }

    /// Both sides may send.
    pub(super) fn establish(&mut self, now: Instant) {
        debug_assert!(!matches!(self.sh.life.fin, Fin::Posted(_)));
        let resumed = self.sh.life.is_recalling();
        self.sh.life.stage = Stage::Open;
        if resumed {
            self.on_resumed(now);
        }
        self.sh.liveness.heard(now);
        self.sh.start_keepalive(now);
        self.sh.wake.connected = true;
        self.sh.wake.send = true;
    }

    /// The receives that Hello or HelloAck claims must be there.
    pub(super) fn on_memory_refused(&mut self) {
        if self.sh.life.is_handshake() || self.sh.life.is_recalling() {
            let error = ConnectionError::Transport("no memory for the first receive buffers");
            self.die(Some(error), Teardown::Reject);
        }
    }
}
