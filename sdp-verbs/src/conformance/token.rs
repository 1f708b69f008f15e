//! Tokens that a peer puts for whoever polls a socket.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{BOUND, Link, NOTHING, Rig, Side};
use super::wait::{events, quiet_link, readable, receive_alone, send_alone};
use crate::caps::Caps;
use crate::cq::{ArmFor, CompChannel};
use crate::error::VerbsError;
use crate::wr::SendFlags;

/// A quiet connection whose active side puts tokens for its passive side, if it can.
#[derive(Debug)]
struct Told {
    link: Link,
    p: UnixStream,
    /// Whether there are tokens.
    tokens: bool,
}

impl Told {
    fn new(rig: &Rig<'_>) -> Verdict<Self> {
        let link = quiet_link(rig)?;
        let (p, q) = UnixStream::pair()?;
        let passive = &link.passive;
        let tokens = passive.provider().caps().contains(Caps::TOKENS);
        match passive.qp().lend_token_socket(q.as_fd()) {
            Ok(()) => ensure!(tokens, "a socket is lent without the capability"),
            Err(VerbsError::Unsupported { .. }) => {
                ensure!(!tokens, "no socket can be lent in spite of the capability");
            }
            Err(error) => return Err(error.into()),
        }
        // The peer has to be given it.
        link.lab.settle();
        events(&*link.lab.station(Side::Passive).comp);
        Ok(Self { link, p, tokens })
    }

    fn channel(&self) -> &dyn CompChannel {
        &*self.link.lab.station(Side::Passive).comp
    }

    fn arm(&self) -> Verdict {
        self.link.passive.cq().arm(ArmFor::Token);
        let early = self.link.passive.cq().poll(&mut [NOTHING]);
        ensure_eq!(early, 0, "completions too early");
        Ok(())
    }

    fn send(&self, bytes: &[u8], flags: SendFlags) -> Verdict {
        send_alone(&self.link.active, bytes, flags)
    }

    /// Takes what lies in the socket.
    fn tokens(&self) -> Verdict<usize> {
        let mut bytes = [0; 16];
        match recv(&self.p, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((count, _)) => Ok(count),
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }

    /// As where there are no tokens.
    fn payload_is_an_event(&self) -> Verdict {
        self.arm()?;
        self.send(b"x", SendFlags::PAYLOAD)?;
        ensure!(readable(self.channel(), BOUND)?, "no event of payload");
        ensure_eq!(
            events(self.channel()),
            [self.link.passive.token()],
            "events"
        );
        ensure_eq!((self.tokens()?, self.recall()), (0, 0), "tokens");
        Ok(())
    }

    fn recall(&self) -> u32 {
        self.link.passive.cq().recall_tokens()
    }
}

pub(super) fn payload_puts_one_and_nothing_else(rig: &Rig<'_>) -> Verdict {
    let told = Told::new(rig)?;
    if !told.tokens {
        return told.payload_is_an_event();
    }
    for round in 0..10 {
        told.arm()?;
        told.send(&[round, 1], SendFlags::PAYLOAD)?;
        told.send(&[round, 2], SendFlags::PAYLOAD)?;
        ensure_eq!(events(told.channel()), [], "events of payload");
        ensure_eq!(told.tokens()?, 1, "tokens of two messages");
        ensure_eq!(receive_alone(&told.link.passive)?, [round, 1], "message");
        ensure_eq!(receive_alone(&told.link.passive)?, [round, 2], "message");
        ensure_eq!(told.recall(), 1, "tokens counted");
        ensure_eq!(told.recall(), 0, "tokens counted twice");
    }
    Ok(())
}

pub(super) fn what_is_quiet_is_nothing(rig: &Rig<'_>) -> Verdict {
    let told = Told::new(rig)?;
    if !told.tokens {
        return told.payload_is_an_event();
    }
    told.arm()?;
    told.send(b"q", SendFlags::QUIET)?;
    ensure_eq!(events(told.channel()), [], "events of what is quiet");
    ensure_eq!(told.tokens()?, 0, "tokens of what is quiet");
    told.send(b"x", SendFlags::PAYLOAD)?;
    ensure_eq!((told.tokens()?, told.recall()), (1, 1), "tokens behind it");
    ensure_eq!(receive_alone(&told.link.passive)?, b"q", "message");
    ensure_eq!(receive_alone(&told.link.passive)?, b"x", "message");
    told.arm()?;
    told.send(b"a", SendFlags::QUIET | SendFlags::SOLICITED)?;
    ensure!(readable(told.channel(), BOUND)?, "no event of a call");
    Ok(())
}

pub(super) fn anything_else_is_an_event(rig: &Rig<'_>) -> Verdict {
    let told = Told::new(rig)?;
    let both = SendFlags::PAYLOAD | SendFlags::SOLICITED;
    for flags in [SendFlags::empty(), SendFlags::SOLICITED, both] {
        told.arm()?;
        told.send(b"x", flags)?;
        ensure!(readable(told.channel(), BOUND)?, "no event of {flags:?}");
        ensure_eq!(
            events(told.channel()),
            [told.link.passive.token()],
            "events"
        );
        ensure_eq!(told.tokens()?, 0, "tokens of {flags:?}");
        ensure_eq!(receive_alone(&told.link.passive)?, b"x", "message");
        told.link.lab.settle();
        // A wrapper that works in steps may have fired for the steps.
        events(told.channel());
        ensure_eq!(told.recall(), 0, "tokens counted of {flags:?}");
    }
    Ok(())
}

pub(super) fn behind_one_only_what_is_solicited_is_an_event(rig: &Rig<'_>) -> Verdict {
    let told = Told::new(rig)?;
    if !told.tokens {
        return told.payload_is_an_event();
    }
    told.arm()?;
    told.send(b"1", SendFlags::PAYLOAD)?;
    told.send(b"2", SendFlags::empty())?;
    ensure_eq!(
        events(told.channel()),
        [],
        "events of what is not solicited"
    );
    told.send(b"3", SendFlags::SOLICITED)?;
    ensure_eq!(
        events(told.channel()),
        [told.link.passive.token()],
        "events"
    );
    ensure_eq!(
        (told.tokens()?, told.recall()),
        (1, 1),
        "tokens, and how many are counted"
    );
    Ok(())
}

pub(super) fn none_is_put_after_a_recall(rig: &Rig<'_>) -> Verdict {
    let told = Told::new(rig)?;
    told.arm()?;
    ensure_eq!(told.recall(), 0, "tokens of nothing");
    told.send(b"x", SendFlags::PAYLOAD)?;
    ensure!(readable(told.channel(), BOUND)?, "no event after a recall");
    ensure_eq!(told.tokens()?, 0, "tokens after a recall");
    Ok(())
}

pub(super) fn without_a_socket_payload_is_an_event(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let channel = &*link.lab.station(Side::Passive).comp;
    link.passive.cq().arm(ArmFor::Token);
    ensure_eq!(
        link.passive.cq().poll(&mut [NOTHING]),
        0,
        "completions too early"
    );
    send_alone(&link.active, b"x", SendFlags::PAYLOAD)?;
    ensure!(readable(channel, BOUND)?, "no event of payload");
    ensure_eq!(events(channel), [link.passive.token()], "events");
    Ok(())
}
