//! Links whose peer breaks the rules: a good link, whose one side then says anything.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Cm;
use super::link::Outbox;
use crate::cm::{BindRequest, CmEvent, CmEventKind, CmId, EventChannel, RejectReason};
use crate::cq::{CompletionQueue, CqToken};
use crate::host::channel::HostChannel;
use crate::host::control;
use crate::host::cq::HostCq;
use crate::host::handshake;
use crate::host::message::{MESSAGE_MAX, Message, Refusal, Request, Wish};
use crate::host::names::{Name, Scope};
use crate::host::options::HostOptions;
use crate::host::plane::Plane;
use crate::host::qp::{QP_DESCRIPTOR_LEN, QpDescriptor};
use crate::qp::{QpAttr, QueuePair};

const BOUND: Duration = Duration::from_secs(30);

struct Side {
    cm: Arc<Cm>,
    channel: Arc<dyn EventChannel>,
    cq: Arc<dyn CompletionQueue>,
}

struct End {
    id: Arc<dyn CmId>,
    _qp: Arc<dyn QueuePair>,
}

impl Side {
    fn new() -> Self {
        let plane = Plane::new().unwrap();
        let channel = HostChannel::new(&plane).unwrap();
        let cq = HostCq::new(&plane, 64, channel, CqToken(0));
        let cm = Cm::new(plane, HostOptions::default()).unwrap();
        let channel = cm.create_event_channel().unwrap();
        Self { cm, channel, cq }
    }

    fn id(&self) -> Arc<dyn CmId> {
        self.cm.create_id(&self.channel).unwrap()
    }

    fn end(&self, id: Arc<dyn CmId>) -> End {
        let attr = QpAttr {
            cq: Arc::clone(&self.cq),
            send_wr_max: 4,
            recv_wr_max: 4,
            rnr_retry: 7,
            silence_max: None,
        };
        let _qp = id.create_qp(&attr).unwrap();
        End { id, _qp }
    }

    /// The sending side of the only link.
    fn out(&self) -> Arc<Outbox> {
        let out = self.cm.enter("test", |_, state| {
            let link = state.links.values().next().expect("a link");
            Ok(Arc::clone(&link.out))
        });
        out.unwrap()
    }

    fn link_count(&self) -> usize {
        self.cm
            .enter("test", |_, state| Ok(state.links.len()))
            .unwrap()
    }
}

/// The next event of one side while both work.
fn next(of: &Side, other: &Side) -> CmEvent {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(event) = of.channel.poll() {
            return event;
        }
        if let Some(event) = other.channel.poll() {
            // What the attacker hears does not matter.
            drop(event);
            continue;
        }
        assert!(Instant::now() < end, "an event in time");
        wait(of, other);
    }
}

fn wait(a: &Side, b: &Side) {
    let fds = [a.channel.fd(), b.channel.fd()];
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let due = [a.channel.next_timeout(), b.channel.next_timeout()];
    let wait = due.into_iter().flatten().fold(BOUND, Duration::min);
    let wait = Timespec::try_from(wait).unwrap();
    rustix::event::poll(&mut fds, Some(&wait)).unwrap();
}

/// A victim that listens, an attacker connected to it.
struct Scene {
    victim: Side,
    attacker: Side,
    listener: Arc<dyn CmId>,
    /// The victim's end, and the attacker's.
    ends: (End, End),
}

impl Scene {
    fn new() -> Self {
        let (victim, attacker) = (Side::new(), Side::new());
        let listener = victim.id();
        let request = BindRequest {
            addr: "127.0.0.1:0".parse().unwrap(),
            only_v6: false,
            reuse_port: false,
        };
        listener.bind(request).unwrap();
        listener.listen(4).unwrap();
        let ends = connect(&victim, &attacker, &listener);
        Self {
            victim,
            attacker,
            listener,
            ends,
        }
    }

    fn request(&self, from: u64) -> Request {
        let dst = self.listener.local_addr().unwrap();
        Request {
            from,
            name: Name {
                scope: Scope::Exact(dst.ip(), 0),
                port: dst.port(),
                slot: 0,
            },
            source: "127.0.0.1:1".parse().unwrap(),
            dst,
            qp: QpDescriptor([0xff; QP_DESCRIPTOR_LEN]),
            data: Vec::new(),
        }
    }

    /// The link has ended, its connection is reported so, and a new one can be made.
    fn ends_and_recovers(self, what: &str) {
        loop {
            let event = next(&self.victim, &self.attacker);
            match event.kind {
                CmEventKind::Disconnected if event.id == self.ends.0.id.token() => break,
                // A request that came before the break.
                CmEventKind::ConnectRequest { .. } | CmEventKind::Disconnected => {}
                other => panic!("{what}: unexpected {other:?}"),
            }
        }
        let _again = connect(&self.victim, &self.attacker, &self.listener);
    }

    fn say(&self, message: &Message, fds: &[BorrowedFd<'_>]) {
        self.attacker.out().submit(message, fds).unwrap();
    }
}

fn connect(victim: &Side, attacker: &Side, listener: &Arc<dyn CmId>) -> (End, End) {
    let id = attacker.id();
    id.resolve(listener.local_addr().unwrap(), BOUND).unwrap();
    let event = loop {
        // The end of an old connection may come first.
        let event = next(attacker, victim);
        if event.id == id.token() {
            break event;
        }
    };
    assert!(matches!(event.kind, CmEventKind::Resolved), "{event:?}");
    let active = attacker.end(id);
    active.id.connect(b"x").unwrap();
    let passive = loop {
        if let CmEventKind::ConnectRequest { id, .. } = next(victim, attacker).kind {
            break victim.end(id);
        }
    };
    passive.id.accept(b"y").unwrap();
    let event = next(attacker, victim);
    assert!(
        matches!(event.kind, CmEventKind::ConnectResponse { .. }),
        "{event:?}"
    );
    active.id.establish().unwrap();
    let event = next(victim, attacker);
    assert!(matches!(event.kind, CmEventKind::Established), "{event:?}");
    (passive, active)
}

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn whoever_breaks_a_rule_loses_the_link() {
    let breaks: [fn(&Scene) -> Message; 8] = [
        |_| handshake::hello(1, Wish::Link),
        |_| Message::Refuse {
            reason: Refusal::Incompatible,
            major: 9,
            minor: 9,
        },
        |scene| Message::Request(Box::new(scene.request(scene.ends.1.id.token().0))),
        |scene| {
            let mut request = scene.request(77);
            request.dst = "127.0.0.2:9".parse().unwrap();
            Message::Request(Box::new(request))
        },
        |_| Message::Chunk { id: 1, len: 4096 },
        |_| Message::RegionGone { id: 7 },
        |_| Message::Disconnect { from: 0, to: 0 },
        |scene| Message::Disconnect {
            from: 4711,
            to: scene.ends.0.id.token().0,
        },
    ];
    for say in breaks {
        let scene = Scene::new();
        let message = say(&scene);
        scene.say(&message, &[]);
        scene.ends_and_recovers(&format!("{message:?}"));
    }
}

#[test]
fn memory_that_is_none_loses_the_link() {
    for message in [
        Message::Chunk { id: 1, len: 4096 },
        Message::Region { id: 1, len: 4096 },
        Message::TokenSocket { index: 0, qp: 1 },
    ] {
        let scene = Scene::new();
        let null = null();
        scene.say(&message, &[null.as_fd()]);
        scene.ends_and_recovers(&format!("{message:?}"));
    }
}

#[test]
fn garbage_on_a_link_loses_it() {
    for bytes in [&b""[..], b"x", &[0xff; 64], &[0; MESSAGE_MAX + 1]] {
        let scene = Scene::new();
        scene.attacker.out().raw(|socket| {
            control::send(socket, bytes, &[], false).unwrap();
        });
        scene.ends_and_recovers(&format!("{} bytes", bytes.len()));
    }
}

#[test]
fn a_queue_pair_that_cannot_be_is_refused_and_the_link_lives_on() {
    let scene = Scene::new();
    scene.say(&Message::Request(Box::new(scene.request(99))), &[]);
    let CmEventKind::ConnectRequest { id, .. } = next(&scene.victim, &scene.attacker).kind else {
        panic!("a request");
    };
    let end = scene.victim.end(id);
    let error = end.id.accept(&[]).unwrap_err();
    assert_eq!(error.errno(), libc::EPROTO, "{error}");
    assert!(end.id.accept(&[]).is_err());
    let _more = connect(&scene.victim, &scene.attacker, &scene.listener);
    assert_eq!(scene.victim.link_count(), 1);
}

#[test]
fn messages_to_nobody_are_harmless() {
    let scene = Scene::new();
    let to = u64::MAX;
    let qp = QpDescriptor([0; QP_DESCRIPTOR_LEN]);
    let listener = scene.listener.token().0;
    for message in [
        Message::Response {
            from: 1,
            to,
            qp,
            data: Vec::new(),
        },
        Message::Response {
            from: 1,
            to: listener,
            qp,
            data: Vec::new(),
        },
        Message::Ready { to },
        Message::Ready { to: listener },
        Message::Reject {
            to,
            reason: RejectReason::Consumer,
            data: Vec::new(),
        },
        Message::Disconnect { from: 5, to },
        Message::Disconnect { from: 5, to: 0 },
        Message::Disconnected { to },
        Message::Stay,
        Message::Idle,
        Message::Unlisten(scene.request(1).name),
    ] {
        scene.say(&message, &[]);
    }
    let _more = connect(&scene.victim, &scene.attacker, &scene.listener);
    assert_eq!(scene.victim.link_count(), 1);
    // The old connection is still there: it ends when it is ended.
    scene.ends.1.id.disconnect();
    let event = next(&scene.victim, &scene.attacker);
    assert_eq!(event.id, scene.ends.0.id.token());
    assert!(matches!(event.kind, CmEventKind::Disconnected));
}

#[test]
fn any_sequence_of_messages_leaves_the_listener_usable() {
    // A fixed generator: a failure must come again.
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..40 {
        let scene = Scene::new();
        let out = scene.attacker.out();
        for _ in 0..200 {
            let message = any_message(&scene, &mut random);
            // Once the link has ended nothing arrives.
            let null = null();
            let fds = vec![null.as_fd(); message.descriptors()];
            out.submit(&message, &fds).unwrap();
            while let Some(event) = scene.victim.channel.poll() {
                if let CmEventKind::ConnectRequest { id, .. } = event.kind
                    && random(2) == 0
                {
                    // Either outcome is allowed; what must not happen is a panic or a hang.
                    drop(id.accept(&[]).and_then(|()| id.reject(&[])));
                }
            }
        }
        drop((scene.ends, out));
        let fresh = Side::new();
        let _works = connect(&scene.victim, &fresh, &scene.listener);
    }
}

fn any_message(scene: &Scene, random: &mut impl FnMut(u64) -> u64) -> Message {
    let ids = [
        0,
        scene.ends.0.id.token().0,
        scene.ends.1.id.token().0,
        scene.listener.token().0,
        random(50),
    ];
    let mut id = || {
        let at = usize::try_from(random(5)).unwrap();
        ids[at]
    };
    let (from, to) = (id(), id());
    let qp = QpDescriptor([u8::try_from(random(256)).unwrap(); QP_DESCRIPTOR_LEN]);
    let data = vec![0; usize::try_from(random(300)).unwrap()];
    // Mostly what keeps a link alive, so that sequences get long.
    match random(41) {
        0..=9 => Message::Request(Box::new(scene.request(random(1000) + 1))),
        10..=14 => Message::Response { from, to, qp, data },
        15..=19 => Message::Ready { to },
        20..=23 => Message::Reject {
            to,
            reason: RejectReason::Consumer,
            data,
        },
        24..=29 => Message::Disconnect {
            from: random(1000) + 1,
            to: 0,
        },
        30 => Message::Disconnect { from, to },
        31..=33 => Message::Disconnected { to },
        34 => Message::Idle,
        35 => Message::Stay,
        36 => Message::Unlisten(scene.request(1).name),
        37 => Message::IdleToo,
        38 => Message::RegionGone { id: 1 },
        39 => Message::TokenSocket {
            index: 0,
            qp: u32::try_from(random(9)).unwrap_or(0),
        },
        _ => Message::Chunk { id: 1, len: 4096 },
    }
}
