//! Strangers: callers of our listeners until they have shaken hands.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Env;
use super::link::Outbox;
use super::state::{PeerName, Source, State};
use super::timer::Due;
use crate::error::VerbsError;
use crate::host::control::{self, Packet, Received, Sent};
use crate::host::descriptor;
use crate::host::handshake::{self, LAYOUT_MAJOR, LAYOUT_MINOR, Partner};
use crate::host::identity;
use crate::host::message::{Hello, Message, Refusal, Setup, Wish, broken};
use crate::host::plane::LocalSide;

/// How long a stranger may take to shake hands.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Strangers of one user.
const GUESTS_MAX: u64 = 1024;
/// The part of our descriptors that strangers of one user may hold: 1 of this many. Abstract
/// names have no permissions, so anyone may call.
const GUESTS_SHARE: u64 = 8;
/// Few descriptors still allow this many.
const GUESTS_MIN: u64 = 8;

/// A stranger.
#[derive(Debug)]
pub(super) struct Guest {
    socket: OwnedFd,
    watch: u64,
    /// Who called, to count by.
    uid: u32,
    /// After its hello was found good: it, and our half of the link.
    greeted: Option<Box<(Partner, LocalSide)>>,
}

impl State {
    /// Takes a caller in, unless its user has too many here already.
    pub(super) fn welcome(&mut self, env: &Env, socket: OwnedFd) {
        let uid = match control::caller(&socket) {
            Ok(caller) => caller.uid,
            Err(error) => {
                tracing::warn!(%error, "host listener: a caller is turned away");
                return;
            }
        };
        let same = self.guests.values().filter(|guest| guest.uid == uid);
        let limit = (descriptor::open_limit() / GUESTS_SHARE).clamp(GUESTS_MIN, GUESTS_MAX);
        if u64::try_from(same.count()).unwrap_or(u64::MAX) >= limit {
            tracing::warn!(uid, limit, "host listener: too many strangers of one user");
            return;
        }
        let token = self.number();
        let watch = self.watch(Source::Guest(token));
        let data = epoll::EventData::new_u64(watch);
        if let Err(error) = epoll::add(&*env.epoll, &socket, data, epoll::EventFlags::IN) {
            tracing::warn!(%error, "host listener: a caller is turned away");
            self.unwatch(watch);
            return;
        }
        let guest = Guest {
            socket,
            watch,
            uid,
            greeted: None,
        };
        self.guests.insert(token, guest);
        let at = Instant::now() + HANDSHAKE_WAIT;
        self.timers.set(Due::Guest(token), at);
        // Most have said hello by now.
        self.on_guest(env, token);
    }

    /// A stranger has said something, or left.
    pub(super) fn on_guest(&mut self, env: &Env, token: u64) {
        while let Some(guest) = self.guests.get(&token) {
            match control::receive(&guest.socket) {
                Ok(Received::Empty) => return,
                Ok(Received::Closed) => self.dismiss(env, token, "it hung up"),
                Ok(Received::Packet(packet)) => {
                    if let Err(error) = self.greet(env, token, packet) {
                        self.turn_away(env, token, &error);
                    }
                }
                Err(error) => self.turn_away(env, token, &error),
            }
        }
    }

    /// # Errors
    /// Why the stranger must go.
    fn greet(&mut self, env: &Env, token: u64, packet: Packet) -> Result<(), VerbsError> {
        let Some(guest) = self.guests.get_mut(&token) else {
            return Ok(());
        };
        match (packet.message.clone(), guest.greeted.take()) {
            (Message::Hello(hello), None) => self.on_hello(env, token, hello, &packet),
            (Message::Setup(setup), Some(greeted)) => {
                if packet.credentials.pid != greeted.0.credentials.pid {
                    return Err(broken("two processes share in one handshake".into()));
                }
                self.on_setup(env, token, setup, packet, *greeted)
            }
            _ => Err(broken("not the message this handshake needs next".into())),
        }
    }

    fn on_hello(
        &mut self,
        env: &Env,
        token: u64,
        hello: Hello,
        packet: &Packet,
    ) -> Result<(), VerbsError> {
        let credentials = packet.credentials;
        let peer = PeerName {
            tag: hello.tag,
            pid: credentials.pid,
        };
        let existing = hello.wish == Wish::Link && self.by_peer.contains_key(&peer);
        let Some(guest) = self.guests.get_mut(&token) else {
            return Ok(());
        };
        if !credentials.is_own_user() && !env.options.other_users {
            refuse(guest, Refusal::NotPermitted);
            return Err(broken(format!(
                "user {} is not the user of this process",
                credentials.uid
            )));
        }
        if let Err(error) = handshake::judge(&hello) {
            refuse(guest, Refusal::Incompatible);
            return Err(error);
        }
        let tag = env.plane.tag();
        if existing {
            let answer = handshake::hello(tag, Wish::Existing).encode();
            control::send(&guest.socket, &answer, &[], true)?;
            self.let_go(env, token);
            return Ok(());
        }
        let partner = Partner {
            tag: hello.tag,
            credentials,
            pidfd: credentials.open_pidfd()?,
            features: hello.features,
        };
        let side = env.plane.open_side()?;
        let answer = handshake::hello(tag, Wish::Link).encode();
        let sent = control::send(&guest.socket, &answer, &[], true)?;
        if sent != Sent::Done
            || handshake::send_setup(&guest.socket, &side, &partner)? != Sent::Done
        {
            return Err(broken("it hung up".into()));
        }
        guest.greeted = Some(Box::new((partner, side)));
        Ok(())
    }

    fn on_setup(
        &mut self,
        env: &Env,
        token: u64,
        setup: Setup,
        packet: Packet,
        greeted: (Partner, LocalSide),
    ) -> Result<(), VerbsError> {
        let (mut partner, side) = greeted;
        // The pidfd was opened before this message was sent, by the same process id: if the
        // process it names is alive even now, it is the sender.
        if let Some(pidfd) = &partner.pidfd
            && identity::has_ended(pidfd)?
        {
            return Err(broken("its process ended".into()));
        }
        let Some(guest) = self.guests.remove(&token) else {
            return Ok(());
        };
        self.timers.clear(Due::Guest(token));
        let process = partner.pidfd.take();
        let out = Outbox::new(guest.socket, process, &env.epoll, guest.watch);
        let link = handshake::build(side, &partner, setup, packet.fds, Outbox::for_plane(&out))
            .and_then(|plane| self.add_link(env, plane, std::sync::Arc::clone(&out), &partner));
        match link {
            // What the peer sent behind its set-up stays readable, and is taken in that way.
            Ok(_) => Ok(()),
            Err(error) => {
                self.unwatch(guest.watch);
                out.abandon();
                Err(error)
            }
        }
    }

    /// A stranger has to go for this reason. Out of something ourselves, we leave its calls
    /// unanswered until we have it again, and only our log tells why.
    fn turn_away(&mut self, env: &Env, token: u64, error: &VerbsError) {
        if matches!(error, VerbsError::Limit { .. }) {
            tracing::warn!(%error, "host listener: a caller is turned away");
        }
        self.dismiss(env, token, &error.to_string());
    }

    /// A stranger is sent away.
    pub(super) fn dismiss(&mut self, env: &Env, token: u64, why: &str) {
        tracing::debug!(why, "host listener: a caller did not become a link");
        self.let_go(env, token);
    }

    fn let_go(&mut self, env: &Env, token: u64) {
        self.timers.clear(Due::Guest(token));
        if let Some(guest) = self.guests.remove(&token) {
            self.unwatch(guest.watch);
            // Taking a descriptor out of the set fails only if it is not in it.
            let _ = epoll::delete(&*env.epoll, &guest.socket);
        }
    }
}

/// Tells a stranger why it has to go. Whether it hears it is its own affair.
fn refuse(guest: &Guest, reason: Refusal) {
    let message = Message::Refuse {
        reason,
        major: LAYOUT_MAJOR,
        minor: LAYOUT_MINOR,
    };
    let _ = control::send(&guest.socket, &message.encode(), &[], true);
}
