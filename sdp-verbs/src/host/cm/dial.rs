//! Calling a listener: finding its name, shaking hands, sharing an old link or making a new one.
//!
//! All ids that look for one destination at the same time wait for one call.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::Env;
use super::link::Outbox;
use super::state::{PeerName, Phase, Route, Source, State};
use super::timer::Due;
use crate::cm::CmEventKind;
use crate::error::VerbsError;
use crate::host::control::{self, Packet, Received, Sent};
use crate::host::handshake::{self, Partner};
use crate::host::message::{Hello, Message, Refusal, Setup, Wish, broken};
use crate::host::names::Name;
use crate::host::plane::LocalSide;

/// First pause before a busy listener is called again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A call under way.
#[derive(Debug)]
pub(super) struct Dial {
    /// Ids that wait for it.
    waiters: Vec<u64>,
    /// Address connections will come from; port 0.
    source: SocketAddr,
    call: Option<Call>,
    /// Names whose holders are not for us: other users.
    skipped: Vec<Name>,
    /// A link that exists will not do.
    fresh: bool,
    pause: Duration,
}

/// A connected socket.
#[derive(Debug)]
struct Call {
    socket: OwnedFd,
    watch: u64,
    name: Name,
    greeted: Option<Box<(Partner, LocalSide)>>,
}

/// What an attempt to reach any name came to.
enum Reached {
    Name(OwnedFd, Name),
    Busy,
    Nobody,
}

impl State {
    /// Starts to look for the listener at `dst`, whose form is that of
    /// [`destination`](crate::host::names::destination).
    ///
    /// # Errors
    /// As [`CmId::resolve`](crate::CmId::resolve).
    pub(super) fn resolve(
        &mut self,
        env: &Env,
        token: u64,
        dst: SocketAddr,
        timeout: Duration,
    ) -> Result<(), VerbsError> {
        if let Some(route) = self.route(env, dst) {
            self.begin(token, dst, timeout)?;
            self.attach(token, dst, route);
            return Ok(());
        }
        let source = crate::host::ports::source_for(dst)?;
        self.begin(token, dst, timeout)?;
        self.wait_at_most(token, timeout);
        if let Some(dial) = self.dials.get_mut(&dst) {
            dial.waiters.push(token);
            return Ok(());
        }
        let dial = Dial {
            waiters: vec![token],
            source,
            call: None,
            skipped: Vec::new(),
            fresh: false,
            pause: PAUSE_MIN,
        };
        self.dials.insert(dst, dial);
        self.dial(env, dst);
        Ok(())
    }

    fn begin(&mut self, token: u64, dst: SocketAddr, timeout: Duration) -> Result<(), VerbsError> {
        let id = self.id("resolve", token)?;
        if let Some(bound) = &id.bound
            && bound.addr.is_ipv4()
            && dst.is_ipv6()
        {
            return Err(VerbsError::os(
                "host connect: an IPv6 destination from an IPv4 address",
                Errno::AFNOSUPPORT,
            ));
        }
        id.phase = Phase::Resolving { dst };
        id.timeout = timeout;
        Ok(())
    }

    /// A known way to a listener. What its process has sent is taken in first: it may have said
    /// that it no longer listens, and it says so before anyone else can take the name.
    fn route(&mut self, env: &Env, dst: SocketAddr) -> Option<Route> {
        let link = self.routes.get(&dst)?.link;
        self.drain_link(env, link);
        self.routes.get(&dst).copied()
    }

    /// Makes a call, or gives up.
    pub(super) fn dial(&mut self, env: &Env, dst: SocketAddr) {
        let spread = self.number().to_le_bytes()[0].wrapping_mul(37);
        let Some(dial) = self.dials.get_mut(&dst) else {
            return;
        };
        match reach(dst, spread, &dial.skipped) {
            Ok(Reached::Name(socket, name)) => {
                if let Err(error) = self.call(env, dst, socket, name) {
                    self.give_up(env, dst, &error);
                }
            }
            Ok(Reached::Busy) => self.dial_later(dst),
            Ok(Reached::Nobody) => {
                let op = if dial.skipped.is_empty() {
                    "host connect: nobody listens there"
                } else {
                    "host connect: the listener there belongs to another user, which counts as none"
                };
                let error = VerbsError::os(op, Errno::CONNREFUSED);
                self.give_up(env, dst, &error);
            }
            Err(error) => self.give_up(env, dst, &error),
        }
    }

    fn dial_later(&mut self, dst: SocketAddr) {
        let Some(dial) = self.dials.get_mut(&dst) else {
            return;
        };
        let at = Instant::now() + dial.pause;
        dial.pause = (dial.pause * 2).min(PAUSE_MAX);
        self.timers.set(Due::Dial(dst), at);
    }

    /// Says hello on a connected socket.
    fn call(
        &mut self,
        env: &Env,
        dst: SocketAddr,
        socket: OwnedFd,
        name: Name,
    ) -> Result<(), VerbsError> {
        let fresh = self.dials.get(&dst).is_some_and(|dial| dial.fresh);
        let wish = if fresh { Wish::FreshLink } else { Wish::Link };
        let hello = handshake::hello(env.plane.tag(), wish).encode();
        if control::send(&socket, &hello, &[], true)? != Sent::Done {
            self.dial_later(dst);
            return Ok(());
        }
        let watch = self.watch(Source::Dial(dst));
        let data = epoll::EventData::new_u64(watch);
        if let Err(e) = epoll::add(&*env.epoll, &socket, data, epoll::EventFlags::IN) {
            self.unwatch(watch);
            return Err(VerbsError::os("epoll_ctl of a control socket", e));
        }
        if let Some(dial) = self.dials.get_mut(&dst) {
            dial.call = Some(Call {
                socket,
                watch,
                name,
                greeted: None,
            });
        }
        Ok(())
    }

    /// The listener answers, or hangs up.
    pub(super) fn on_dial(&mut self, env: &Env, dst: SocketAddr) {
        while let Some(call) = self.dials.get(&dst).and_then(|dial| dial.call.as_ref()) {
            match control::receive(&call.socket) {
                Ok(Received::Empty) => return,
                // It had no room, or it just ended: the next attempt will tell.
                Ok(Received::Closed) => {
                    self.hang_up(env, dst);
                    self.dial_later(dst);
                }
                Ok(Received::Packet(packet)) => {
                    if let Err(error) = self.on_answer(env, dst, packet) {
                        self.give_up(env, dst, &error);
                    }
                }
                Err(error) => self.give_up(env, dst, &error),
            }
        }
    }

    /// # Errors
    /// Why there can be no link.
    fn on_answer(&mut self, env: &Env, dst: SocketAddr, packet: Packet) -> Result<(), VerbsError> {
        let call = self.dials.get_mut(&dst).and_then(|dial| dial.call.as_mut());
        let Some(call) = call else {
            return Ok(());
        };
        let foreign = !packet.credentials.is_own_user() && !env.options.other_users;
        match (packet.message.clone(), call.greeted.take()) {
            (Message::Hello(_) | Message::Refuse { .. }, None) if foreign => {
                self.skip(env, dst);
                Ok(())
            }
            (Message::Hello(hello), None) => self.on_hello_answer(env, dst, hello, &packet),
            (Message::Setup(setup), Some(greeted)) => {
                if packet.credentials.pid != greeted.0.credentials.pid {
                    return Err(broken("two processes share in one handshake".into()));
                }
                self.on_setup_answer(env, dst, setup, packet, *greeted)
            }
            (
                Message::Refuse {
                    reason: Refusal::NotPermitted,
                    ..
                },
                None,
            ) => {
                self.skip(env, dst);
                Ok(())
            }
            (Message::Refuse { major, minor, .. }, None) => Err(VerbsError::Protocol {
                what: "handshake of a host link",
                rule: handshake::version_rule(major, minor),
            }),
            _ => Err(broken("not the message this handshake needs next".into())),
        }
    }

    fn on_hello_answer(
        &mut self,
        env: &Env,
        dst: SocketAddr,
        hello: Hello,
        packet: &Packet,
    ) -> Result<(), VerbsError> {
        handshake::judge(&hello)?;
        let credentials = packet.credentials;
        if hello.wish == Wish::Existing {
            let peer = PeerName {
                tag: hello.tag,
                pid: credentials.pid,
            };
            let old = self.by_peer.get(&peer).copied();
            return self.on_existing(env, dst, old);
        }
        let call = self.dials.get_mut(&dst).and_then(|dial| dial.call.as_mut());
        let Some(call) = call else {
            return Ok(());
        };
        let partner = Partner {
            tag: hello.tag,
            credentials,
            pidfd: credentials.open_pidfd()?,
            features: hello.features,
        };
        let side = env.plane.open_side()?;
        if handshake::send_setup(&call.socket, &side, &partner)? != Sent::Done {
            self.hang_up(env, dst);
            self.dial_later(dst);
            return Ok(());
        }
        call.greeted = Some(Box::new((partner, side)));
        Ok(())
    }

    /// The peer says there is a link already.
    fn on_existing(
        &mut self,
        env: &Env,
        dst: SocketAddr,
        old: Option<u64>,
    ) -> Result<(), VerbsError> {
        let name = self.hang_up(env, dst);
        let Some(dial) = self.dials.get_mut(&dst) else {
            return Ok(());
        };
        match (old, name) {
            (Some(link), Some(name)) => {
                let source = dial.source;
                self.reached(dst, Route { link, name, source });
                Ok(())
            }
            // It has ended here in the meantime, or is being let go. Once is chance, twice is a rule broken.
            _ if dial.fresh => Err(broken("the peer insists on a link that is gone".into())),
            _ => {
                dial.fresh = true;
                self.dial(env, dst);
                Ok(())
            }
        }
    }

    fn on_setup_answer(
        &mut self,
        env: &Env,
        dst: SocketAddr,
        setup: Setup,
        packet: Packet,
        greeted: (Partner, LocalSide),
    ) -> Result<(), VerbsError> {
        let (mut partner, side) = greeted;
        let Some(dial) = self.dials.get_mut(&dst) else {
            return Ok(());
        };
        let source = dial.source;
        let Some(call) = dial.call.take() else {
            return Ok(());
        };
        let process = partner.pidfd.take();
        let out = Outbox::new(call.socket, process, &env.epoll, call.watch);
        let link = handshake::build(side, &partner, setup, packet.fds, Outbox::for_plane(&out))
            .and_then(|plane| self.add_link(env, plane, Arc::clone(&out), &partner));
        match link {
            Ok(link) => {
                let name = call.name;
                self.reached(dst, Route { link, name, source });
                Ok(())
            }
            Err(error) => {
                self.unwatch(call.watch);
                out.abandon();
                Err(error)
            }
        }
    }

    /// The name called is not for us: the next one may be.
    fn skip(&mut self, env: &Env, dst: SocketAddr) {
        let name = self.hang_up(env, dst);
        if let Some(dial) = self.dials.get_mut(&dst) {
            dial.skipped.extend(name);
        }
        self.dial(env, dst);
    }

    /// Ends the call; its name comes back.
    fn hang_up(&mut self, env: &Env, dst: SocketAddr) -> Option<Name> {
        let call = self.dials.get_mut(&dst)?.call.take()?;
        self.unwatch(call.watch);
        // Taking a descriptor out of the set fails only if it is not in it.
        let _ = epoll::delete(&*env.epoll, &call.socket);
        Some(call.name)
    }

    /// There is a link: everybody who waited has it.
    fn reached(&mut self, dst: SocketAddr, route: Route) {
        self.timers.clear(Due::Dial(dst));
        let waiters = self.dials.remove(&dst).map(|dial| dial.waiters);
        // Listeners that share a port take turns: each connection looks anew.
        if route.name.slot == 0 {
            self.routes.insert(dst, route);
        }
        for token in waiters.unwrap_or_default() {
            self.attach(token, dst, route);
        }
    }

    /// There is no link, and there will be none.
    fn give_up(&mut self, env: &Env, dst: SocketAddr, error: &VerbsError) {
        self.hang_up(env, dst);
        self.timers.clear(Due::Dial(dst));
        let waiters = self.dials.remove(&dst).map(|dial| dial.waiters);
        for token in waiters.unwrap_or_default() {
            self.fail(token, error.duplicate());
        }
    }

    /// An id waits no longer. The last one ends the call.
    pub(super) fn leave_dial(&mut self, env: &Env, token: u64, dst: SocketAddr) {
        let Some(dial) = self.dials.get_mut(&dst) else {
            return;
        };
        dial.waiters.retain(|waiter| *waiter != token);
        if dial.waiters.is_empty() {
            self.hang_up(env, dst);
            self.timers.clear(Due::Dial(dst));
            self.dials.remove(&dst);
        }
    }

    /// Gives an id its link.
    fn attach(&mut self, token: u64, dst: SocketAddr, route: Route) {
        self.timers.clear(Due::Id(token));
        let Some(id) = self.ids.get_mut(&token) else {
            return;
        };
        let mut local = route.source;
        if let Some(bound) = &id.bound {
            local.set_port(bound.addr.port());
            if !bound.addr.ip().is_unspecified() {
                local.set_ip(bound.addr.ip());
            }
        } else {
            match self.ports.take(dst) {
                Ok(port) => {
                    local.set_port(port);
                    id.ephemeral = Some((port, dst));
                }
                Err(error) => return self.fail(token, error),
            }
        }
        id.local = Some(local);
        id.peer = Some(dst);
        id.link = Some(route.link);
        id.phase = Phase::Resolved { name: route.name };
        self.join_link(route.link, token);
        self.emit(token, CmEventKind::Resolved);
    }
}

/// Connects to the first of the names of `dst` that somebody holds.
fn reach(dst: SocketAddr, spread: u8, skipped: &[Name]) -> Result<Reached, VerbsError> {
    if dst.port() == 0 {
        return Ok(Reached::Nobody);
    }
    let socket = control::open()?;
    for name in Name::candidates(dst, spread) {
        if skipped.contains(&name) {
            continue;
        }
        let addr: SocketAddrUnix = name.socket_addr()?;
        loop {
            match rustix::net::connect(&socket, &addr) {
                Ok(()) => return Ok(Reached::Name(socket, name)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Reached::Busy),
                // Nobody has the name, or somebody who is no listener of ours.
                Err(Errno::CONNREFUSED | Errno::PROTOTYPE) => break,
                Err(e) => return Err(VerbsError::os("host connect: calling the listener", e)),
            }
        }
    }
    Ok(Reached::Nobody)
}
