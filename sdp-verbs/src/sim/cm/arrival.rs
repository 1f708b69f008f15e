//! What messages and timers of connection management do when their time has come.

use std::net::{IpAddr, SocketAddr};

use super::{CmTimer, Id, IdKey, Message, Phase, os};
use crate::cm::RejectReason;
use crate::sim::events::News;
use crate::sim::faults::Fault;
use crate::sim::qp::State as QpState;
use crate::sim::world::{Event, World};
use crate::types::QpNum;

impl World {
    /// A message of connection management arrives.
    pub(in crate::sim) fn cm_arrives(&mut self, message: Message) {
        match message {
            Message::Request {
                from,
                qp,
                dst,
                src,
                private_data,
            } => self.request_arrives((from, qp, src), dst, private_data),
            Message::Reply {
                to,
                from,
                qp,
                private_data,
            } => self.reply_arrives(to, (from, qp), private_data),
            Message::Ready { to } => {
                if self.is_confirmed(to) {
                    self.tell_established(to);
                }
            }
            Message::Reject {
                to,
                reason,
                private_data,
            } => self.reject_arrives(to, reason, private_data),
            Message::Disconnect { to } => self.disconnect_arrives(to),
        }
    }

    /// A timer of connection management.
    pub(in crate::sim) fn cm_timer(&mut self, key: IdKey, timer: CmTimer) {
        let Some(phase) = self.ids.get(&key).map(|id| id.phase) else {
            return;
        };
        match (timer, phase) {
            (CmTimer::Resolve, Phase::Resolving) => self.resolved(key),
            (CmTimer::Confirm, Phase::Connected) => self.tell_established(key),
            (CmTimer::Connect, Phase::Connecting) => {
                self.end(key);
                let error = os("connecting", libc::ETIMEDOUT);
                self.tell(key, News::Failed(error));
            }
            (CmTimer::Accept, Phase::Accepted) => {
                self.end(key);
                self.say_goodbye(key);
                self.tell(key, News::Disconnected);
            }
            _ => {}
        }
    }

    fn resolved(&mut self, key: IdKey) {
        let id = self.id(key);
        let ip = id.peer_addr.map(|addr| addr.ip());
        let known = |ip: IpAddr| ip.is_loopback() || self.nodes.iter().any(|n| n.address == ip);
        if ip.is_some_and(known) {
            self.id(key).phase = Phase::Resolved;
            self.tell(key, News::Resolved);
        } else {
            self.id(key).phase = Phase::Ended;
            let error = os("resolving the address", libc::EHOSTUNREACH);
            self.tell(key, News::Failed(error));
        }
    }

    fn request_arrives(
        &mut self,
        from: (IdKey, QpNum, SocketAddr),
        dst: SocketAddr,
        private_data: Vec<u8>,
    ) {
        let (caller, caller_qp, src) = from;
        let reject = |world: &mut Self, reason| {
            world.send_cm(Message::Reject {
                to: caller,
                reason,
                private_data: Vec::new(),
            });
        };
        let Some(listener) = self.listener_at(dst) else {
            return reject(self, RejectReason::NoListener);
        };
        if self.dice.fires(Fault::CmReject) {
            return reject(self, RejectReason::Consumer);
        }
        let id = self.id(listener);
        if id.unanswered >= id.backlog {
            return reject(self, RejectReason::Backlog);
        }
        id.unanswered += 1;
        let (node, channel) = (id.node, id.channel);
        let child = self.add_id(node, channel, Phase::Requested);
        let new = self.id(child);
        new.local = Some(dst);
        new.peer_addr = Some(src);
        new.peer = Some(caller);
        new.peer_qp = Some(caller_qp);
        new.listener = Some(listener);
        self.tell(
            listener,
            News::Request {
                child,
                private_data,
            },
        );
    }

    /// A listener for an address: the exact name before the wildcard.
    fn listener_at(&self, dst: SocketAddr) -> Option<IdKey> {
        let wild_v4 = SocketAddr::new(IpAddr::from([0; 4]), dst.port());
        let wild_v6 = SocketAddr::new(IpAddr::from([0u16; 8]), dst.port());
        let names = match dst {
            SocketAddr::V4(_) => [dst, wild_v4, wild_v6],
            SocketAddr::V6(_) => [dst, wild_v6, wild_v6],
        };
        let fits = |name: &SocketAddr, id: &Id| {
            let v6_for_v4 = name.is_ipv6() && dst.is_ipv4();
            let only_v6 = id.bind.is_some_and(|bind| bind.only_v6);
            id.phase == Phase::Listening && !(v6_for_v4 && only_v6)
        };
        names.iter().find_map(|name| {
            let keys = self.ports.get(name)?;
            let mut keys = keys.iter().filter(|key| {
                let id = self.ids.get(key);
                id.is_some_and(|id| fits(name, id))
            });
            keys.next().copied()
        })
    }

    fn reply_arrives(&mut self, to: IdKey, from: (IdKey, QpNum), private_data: Vec<u8>) {
        let (peer, peer_qp) = from;
        let id = self.ids.get_mut(&to);
        let Some(id) = id.filter(|id| id.phase == Phase::Connecting) else {
            // Nobody waits for it any more.
            self.send_cm(Message::Reject {
                to: peer,
                reason: RejectReason::Consumer,
                private_data: Vec::new(),
            });
            return;
        };
        id.phase = Phase::Responded;
        id.peer = Some(peer);
        id.peer_qp = Some(peer_qp);
        if let Some(qp) = id.qp.and_then(|qp| self.qps.get_mut(&qp))
            && qp.state == QpState::Init
        {
            qp.peer = Some(peer_qp);
            qp.state = QpState::ReadyToReceive;
        }
        self.tell(to, News::Response { private_data });
    }

    /// The connector's first message is as good as its confirmation. The program may see it before
    /// the news, which go through the kernel.
    pub(in crate::sim) fn first_message_came(&mut self, key: IdKey) {
        if self.is_confirmed(key) {
            self.after(self.cm_delay(), Event::CmTimer(key, CmTimer::Confirm));
        }
    }

    /// The acceptor may send. False: it could before.
    fn is_confirmed(&mut self, key: IdKey) -> bool {
        let id = self.ids.get_mut(&key);
        let Some(id) = id.filter(|id| id.phase == Phase::Accepted) else {
            return false;
        };
        id.phase = Phase::Connected;
        let qp = id.qp;
        self.ready_to_send(qp);
        true
    }

    fn tell_established(&mut self, key: IdKey) {
        self.tell(key, News::Established);
        if self.dice.fires(Fault::CmDuplicate) {
            self.tell(key, News::Established);
        }
    }

    fn reject_arrives(&mut self, to: IdKey, reason: RejectReason, private_data: Vec<u8>) {
        let Some(phase) = self.ids.get(&to).map(|id| id.phase) else {
            return;
        };
        let news = match phase {
            Phase::Connecting => News::Rejected {
                reason,
                private_data,
            },
            Phase::Accepted | Phase::Connected => News::Disconnected,
            _ => return,
        };
        self.end(to);
        self.tell(to, news);
    }

    pub(in crate::sim) fn disconnect_arrives(&mut self, to: IdKey) {
        let Some(id) = self.ids.get_mut(&to) else {
            return;
        };
        let connecting = id.phase == Phase::Connecting;
        let told = matches!(
            id.phase,
            Phase::Responded | Phase::Accepted | Phase::Connected
        );
        // The peer knows of the end.
        id.goodbye_said = true;
        self.end(to);
        if connecting {
            let error = os("connecting", libc::ECONNRESET);
            self.tell(to, News::Failed(error));
        }
        if told {
            self.tell(to, News::Disconnected);
            if self.dice.fires(Fault::CmDuplicate) {
                self.tell(to, News::Disconnected);
            }
        }
        self.forget_if_dropped(to);
    }
}
