//! Links: their control sockets, and their life.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::Shutdown;
use smallvec::SmallVec;

use super::Env;
use super::state::{PeerName, Phase, Source, State};
use super::timer::Due;
use crate::cm::CmEventKind;
use crate::error::VerbsError;
use crate::host::control::{self, Packet, Received, Sent};
use crate::host::descriptor;
use crate::host::handshake::Partner;
use crate::host::link::{LinkEnd, PeerLink};
use crate::host::message::{Message, broken};
use crate::host::plane::{ControlOut, PlaneMsg};

/// How long a link without connections is kept.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// Longest time between two looks at a link whose connections are over and whose queue pairs are
/// still held by the program.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(64);
/// Packets taken from one link in one round, so that no peer keeps the others waiting.
const PACKETS_MAX: usize = 64;
/// More packets than a socket's queue holds under the default limit (net.core.wmem_max).
const DRAIN_MAX: usize = 4096;
/// Messages that may wait for a peer to read; one that lets more pile up has stopped reading while
/// it goes on asking.
const WAITING_MAX: usize = 1 << 14;
/// When messages are tried again that there were no means to send, or no room for their descriptors.
const RETRY_WAIT: Duration = Duration::from_millis(20);
/// With so many waiting, no new request is made.
const CONGESTED: usize = 1 << 10;

/// One link, as connection management sees it.
#[derive(Debug)]
pub(super) struct Link {
    /// Its data plane.
    pub(super) plane: Arc<PeerLink>,
    /// Its control socket.
    pub(super) out: Arc<Outbox>,
    /// Whom it leads to.
    pub(super) peer: PeerName,
    /// Connections on it.
    pub(super) ids: HashSet<u64>,
    /// Our id of a connection by the peer's, for those the peer asked for.
    pub(super) by_remote: HashMap<u64, u64>,
    /// We have told the peer that we have no use for it: nothing new begins here.
    pub(super) closing: bool,
    /// Epoll registration of the peer's process.
    process: Option<u64>,
    idle_wait: Duration,
}

/// The sending side of a control socket. It has its own lock, taken under any other, and calls
/// nothing.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: OwnedFd,
    /// Readable when the peer has ended; none if it lives in another pid namespace.
    process: Option<OwnedFd>,
    epoll: Arc<OwnedFd>,
    /// Epoll registration of the socket.
    token: u64,
    waiting: Mutex<VecDeque<Waiting>>,
}

/// A message that waits to be sent.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The peer does without it.
    is_dispensable: bool,
}

/// What became of messages that waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flushed {
    /// They have gone, as far as the peer's queue had room.
    Tried,
    /// There are no means to send the first, or no room for its descriptors on their way: for now.
    Lacking,
}

impl Outbox {
    /// Takes over a socket registered in `epoll` under `token`, and the pidfd of the peer.
    pub(super) fn new(
        socket: OwnedFd,
        process: Option<OwnedFd>,
        epoll: &Arc<OwnedFd>,
        token: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            socket,
            process,
            epoll: Arc::clone(epoll),
            token,
            waiting: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message without descriptors. If it cannot be sent the link is ended, which shows
    /// at its socket as if the peer had done it.
    pub(super) fn post(&self, message: &Message) {
        if let Err(error) = self.submit(message, &[]) {
            tracing::warn!(%error, "host link: ended, its control socket cannot be written to");
            self.hang_up();
        }
    }

    /// Whether the peer is so far behind that nothing new should begin.
    pub(super) fn is_congested(&self) -> bool {
        self.lock().len() >= CONGESTED
    }

    /// Sends in order, or queues while the peer's queue is full, and what has no descriptors while the kernel has no
    /// memory for it.
    pub(super) fn submit(
        &self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), VerbsError> {
        let bytes = message.encode();
        let mut waiting = self.lock();
        if waiting.is_empty() {
            let sent = match fds.is_empty() {
                true => control::send_if_able(&self.socket, &bytes, fds)?,
                false => Some(control::send(&self.socket, &bytes, fds, false)?),
            };
            match sent {
                // The end of the socket is reported where it is read.
                Some(Sent::Done | Sent::Closed) => return Ok(()),
                Some(Sent::Full) | None => {
                    self.listen_for(epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
                }
            }
        }
        if waiting.len() >= WAITING_MAX {
            return Err(broken(format!(
                "the peer has left {WAITING_MAX} messages unread"
            )));
        }
        let fds = fds
            .iter()
            .map(descriptor::share)
            .collect::<Result<Vec<_>, _>>()?;
        waiting.push_back(Waiting {
            bytes,
            fds,
            is_dispensable: message.may_lack_descriptors(),
        });
        Ok(())
    }

    /// The socket can be written to, or there may be means to do so again: sends what waits.
    pub(super) fn flush(&self) -> Result<Flushed, VerbsError> {
        let mut waiting = self.lock();
        while let Some(first) = waiting.front() {
            let fds: Vec<_> = first.fds.iter().map(AsFd::as_fd).collect();
            match control::send_if_able(&self.socket, &first.bytes, &fds)? {
                Some(Sent::Done) => {}
                Some(Sent::Full) => {
                    self.listen_for(epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
                    return Ok(Flushed::Tried);
                }
                Some(Sent::Closed) => break,
                None if first.is_dispensable => {}
                None => {
                    // It can be written to all the while.
                    self.listen_for(epoll::EventFlags::IN)?;
                    return Ok(Flushed::Lacking);
                }
            }
            waiting.pop_front();
        }
        waiting.clear();
        self.listen_for(epoll::EventFlags::IN)?;
        Ok(Flushed::Tried)
    }

    fn listen_for(&self, flags: epoll::EventFlags) -> Result<(), VerbsError> {
        let data = epoll::EventData::new_u64(self.token);
        epoll::modify(&*self.epoll, &self.socket, data, flags)
            .map_err(|e| VerbsError::os("epoll_ctl of a control socket", e))
    }

    /// The same, as the data plane knows it.
    pub(super) fn for_plane(this: &Arc<Self>) -> Arc<dyn ControlOut> {
        Arc::<Self>::clone(this)
    }

    /// The link could not be made: takes the socket out of the set and ends it.
    pub(super) fn abandon(&self) {
        // Taking a descriptor out of the set fails only if it is not in it.
        let _ = epoll::delete(&*self.epoll, &self.socket);
        self.hang_up();
    }

    /// For tests: the socket itself.
    #[cfg(test)]
    pub(super) fn raw(&self, use_it: impl FnOnce(&OwnedFd)) {
        use_it(&self.socket);
    }

    /// Ends the socket for both sides, also where a forked child holds it open.
    fn hang_up(&self) {
        // It fails only if it has been done, or the peer has done it.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

impl ControlOut for Outbox {
    fn send(&self, msg: PlaneMsg, fds: &[BorrowedFd<'_>]) -> Result<(), VerbsError> {
        let message = match msg {
            PlaneMsg::Chunk { id, len } => Message::Chunk { id, len },
            PlaneMsg::Region { id, len } => Message::Region { id, len },
            PlaneMsg::RegionGone { id } => Message::RegionGone { id },
            PlaneMsg::TokenSocket { index, qp } => Message::TokenSocket { index, qp },
        };
        self.submit(&message, fds)
    }

    fn is_deserted(&self) -> bool {
        // A program that takes a process over closes our socket in it.
        let mut fds: SmallVec<[PollFd<'_>; 2]> = SmallVec::new();
        fds.push(PollFd::new(&self.socket, PollFlags::RDHUP));
        if let Some(process) = &self.process {
            fds.push(PollFd::new(process, PollFlags::IN));
        }
        loop {
            match poll(&mut fds, Some(&Timespec::default())) {
                Ok(ended) => return ended != 0,
                Err(Errno::INTR) => {}
                // For lack of kernel memory: nobody knows, so nothing is proven.
                Err(_) => return true,
            }
        }
    }
}

impl State {
    /// Takes a finished link in. Its socket is already registered, under the outbox's number.
    ///
    /// # Errors
    /// [`VerbsError::Os`] for lack of kernel memory; the link is not taken in.
    pub(super) fn add_link(
        &mut self,
        env: &Env,
        plane: Arc<PeerLink>,
        out: Arc<Outbox>,
        partner: &Partner,
    ) -> Result<u64, VerbsError> {
        let token = self.number();
        let mut process = None;
        if let Some(pidfd) = &out.process {
            let watch = self.watch(Source::Process(token));
            let data = epoll::EventData::new_u64(watch);
            if let Err(e) = epoll::add(&*env.epoll, pidfd, data, epoll::EventFlags::IN) {
                self.unwatch(watch);
                return Err(VerbsError::os("epoll_ctl of a pidfd", e));
            }
            process = Some(watch);
        }
        self.rewatch(out.token, Source::Link(token));
        // With two links to one peer, made when both called at once, the first stays preferred.
        let peer = PeerName {
            tag: partner.tag,
            pid: partner.credentials.pid,
        };
        self.by_peer.entry(peer).or_insert(token);
        let link = Link {
            plane,
            out,
            peer,
            ids: HashSet::new(),
            by_remote: HashMap::new(),
            closing: false,
            process,
            idle_wait: IDLE_WAIT,
        };
        self.links.insert(token, link);
        self.timers
            .set(Due::Link(token), Instant::now() + IDLE_WAIT);
        Ok(token)
    }

    /// A link gets a connection.
    pub(super) fn join_link(&mut self, link: u64, id: u64) {
        self.timers.clear(Due::Link(link));
        if let Some(link) = self.links.get_mut(&link) {
            link.ids.insert(id);
            link.idle_wait = IDLE_WAIT;
        }
    }

    /// A connection of a link is over.
    pub(super) fn leave_link(&mut self, token: u64, id: u64, remote: u64) {
        let Some(link) = self.links.get_mut(&token) else {
            return;
        };
        link.ids.remove(&id);
        if link.by_remote.get(&remote) == Some(&id) {
            link.by_remote.remove(&remote);
        }
        if link.ids.is_empty() {
            let at = Instant::now() + link.idle_wait;
            self.timers.set(Due::Link(token), at);
        }
    }

    /// A link has been idle for its time: asks the peer to let it go.
    pub(super) fn on_link_idle(&mut self, token: u64) {
        let Some(link) = self.links.get_mut(&token) else {
            return;
        };
        if !link.ids.is_empty() {
            return;
        }
        if link.plane.qp_count() > 0 {
            link.idle_wait = (link.idle_wait * 2).min(IDLE_WAIT_MAX);
            let at = Instant::now() + link.idle_wait;
            self.timers.set(Due::Link(token), at);
            return;
        }
        link.closing = true;
        link.out.post(&Message::Idle);
        self.forget_routes(token);
    }

    /// Nothing new begins on this link.
    fn forget_routes(&mut self, token: u64) {
        self.routes.retain(|_, route| route.link != token);
        self.by_peer.retain(|_, link| *link != token);
    }

    /// The peer has no use for a link.
    fn on_idle(&mut self, env: &Env, token: u64) {
        let Some(link) = self.links.get(&token) else {
            return;
        };
        if link.ids.is_empty() && link.plane.qp_count() == 0 {
            link.out.post(&Message::IdleToo);
            self.end_link(env, token, LinkEnd::Idle);
        } else {
            link.out.post(&Message::Stay);
        }
    }

    /// The peer needs a link that we may have wanted to end. It will ask itself when it is done.
    pub(super) fn reopen_link(&mut self, token: u64) {
        if let Some(link) = self.links.get_mut(&token)
            && link.closing
        {
            link.closing = false;
            let peer = link.peer;
            self.by_peer.entry(peer).or_insert(token);
        }
    }

    /// Packets, or the end, have come.
    pub(super) fn on_link_readable(&mut self, env: &Env, token: u64) {
        for _ in 0..PACKETS_MAX {
            if !self.take_packet(env, token) {
                return;
            }
        }
    }

    /// Takes in everything that has arrived on a link so far, however fast more comes.
    pub(super) fn drain_link(&mut self, env: &Env, token: u64) {
        for _ in 0..DRAIN_MAX {
            if !self.take_packet(env, token) {
                return;
            }
        }
    }

    /// Takes one packet; false if there was none.
    fn take_packet(&mut self, env: &Env, token: u64) -> bool {
        let Some(link) = self.links.get(&token) else {
            return false;
        };
        match control::receive(&link.out.socket) {
            Ok(Received::Empty) => false,
            Ok(Received::Closed) => {
                self.end_link(env, token, LinkEnd::PeerGone);
                false
            }
            Ok(Received::Packet(packet)) => {
                if let Err(error) = self.on_packet(env, token, packet) {
                    self.end_link(env, token, LinkEnd::Protocol(error.to_string()));
                }
                true
            }
            Err(error) => {
                self.end_link(env, token, LinkEnd::Protocol(error.to_string()));
                false
            }
        }
    }

    /// # Errors
    /// The peer broke a rule: the link must end.
    fn on_packet(&mut self, env: &Env, token: u64, packet: Packet) -> Result<(), VerbsError> {
        let Some(link) = self.links.get(&token) else {
            return Ok(());
        };
        if packet.credentials.pid != link.peer.pid {
            return Err(broken(format!(
                "process {} sent on the link of process {}",
                packet.credentials.pid, link.peer.pid
            )));
        }
        match packet.message {
            Message::Request(request) => self.on_request(env, token, *request),
            Message::Response { from, to, qp, data } => {
                self.on_response(token, (from, to), qp, data);
                Ok(())
            }
            Message::Ready { to } => {
                self.on_ready(token, to);
                Ok(())
            }
            Message::Reject { to, reason, data } => {
                self.on_reject(token, to, reason, data);
                Ok(())
            }
            Message::Disconnect { from, to } => self.on_disconnect(token, from, to),
            Message::Disconnected { to } => {
                self.on_disconnected(token, to);
                Ok(())
            }
            Message::Unlisten(name) => {
                self.routes
                    .retain(|_, route| route.link != token || route.name != name);
                Ok(())
            }
            Message::Idle => {
                self.on_idle(env, token);
                Ok(())
            }
            Message::IdleToo => {
                self.end_link(env, token, LinkEnd::Idle);
                Ok(())
            }
            Message::Stay => {
                self.reopen_link(token);
                Ok(())
            }
            Message::Chunk { id, len } => link.plane.attach_chunk(id, only(packet.fds)?, len),
            Message::Region { id, len } => link.plane.attach_region(id, only(packet.fds)?, len),
            Message::RegionGone { id } => link.plane.detach_region(id),
            Message::TokenSocket { index, qp } => match packet.fds.into_iter().next() {
                Some(socket) => link.plane.attach_token_socket((index, qp), socket),
                // We are out of descriptors: the peer rings the doorbell then.
                None => Ok(()),
            },
            Message::Hello(_) | Message::Refuse { .. } | Message::Setup(_) => {
                Err(broken("a handshake on a finished link".into()))
            }
        }
    }

    /// A link's socket can be written to again, or it is time to try.
    pub(super) fn on_link_writable(&mut self, token: u64) {
        let Some(link) = self.links.get(&token) else {
            return;
        };
        match link.out.flush() {
            Ok(Flushed::Tried) => {}
            Ok(Flushed::Lacking) => {
                let at = Instant::now() + RETRY_WAIT;
                self.timers.set(Due::Outbox(token), at);
            }
            Err(error) => {
                tracing::warn!(%error, "host link: ended, its control socket cannot be written to");
                link.out.hang_up();
            }
        }
    }

    /// A link's peer process has ended. What it sent before still counts.
    pub(super) fn on_peer_ended(&mut self, env: &Env, token: u64) {
        self.drain_link(env, token);
        self.end_link(env, token, LinkEnd::PeerGone);
    }

    /// Takes a link down, with the connections on it.
    pub(super) fn end_link(&mut self, env: &Env, token: u64, end: LinkEnd) {
        let ids = self.ids_on(token);
        let Some(link) = self.links.remove(&token) else {
            return;
        };
        if let LinkEnd::Protocol(rule) = &end {
            tracing::warn!(pid = link.peer.pid, rule, "host link: ended");
        }
        self.timers.clear(Due::Link(token));
        self.timers.clear(Due::Outbox(token));
        self.forget_routes(token);
        self.unwatch(link.out.token);
        link.out.abandon();
        if let Some(watch) = link.process {
            self.unwatch(watch);
        }
        if let Some(pidfd) = &link.out.process {
            // Taking a descriptor out of the set fails only if it is not in it.
            let _ = epoll::delete(&*env.epoll, pidfd);
        }
        link.plane.broken(end);
        for id in ids {
            self.on_link_ended(id);
        }
        // Another link to the same peer may serve from now on.
        let other = self
            .links
            .iter()
            .find(|(_, other)| other.peer == link.peer && !other.closing);
        if let Some((other, _)) = other {
            self.by_peer.entry(link.peer).or_insert(*other);
        }
    }

    fn on_link_ended(&mut self, id: u64) {
        let connecting = self.ids.get(&id).is_some_and(|id| {
            matches!(id.phase, Phase::Resolved { .. } | Phase::Connecting { .. })
        });
        if connecting {
            let error = VerbsError::os(
                "host connect: the listener's process ended or closed the link",
                Errno::CONNRESET,
            );
            self.fail(id, error);
        } else {
            self.finish(id, CmEventKind::Disconnected);
        }
    }
}

/// The one descriptor of a message that has one, which receiving has made sure of.
fn only(fds: impl IntoIterator<Item = OwnedFd>) -> Result<OwnedFd, VerbsError> {
    fds.into_iter()
        .next()
        .ok_or_else(|| broken("a message came without its descriptor".into()))
}

#[cfg(test)]
mod tests;
