//! What the tests of the host provider's connection management share.

#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(
    unreachable_pub,
    reason = "shared by test binaries, not a crate's interface"
)]

pub mod child;
pub mod stranger;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use sdp_verbs::host::{HostOptions, HostProvider};
use sdp_verbs::{
    BindRequest, CmEvent, CmEventKind, CmId, CompChannel, CompletionQueue, CqToken, EventChannel,
    Provider, QpAttr, QueuePair,
};

/// Generous: a wait ends when what it waits for has happened.
pub const BOUND: Duration = Duration::from_secs(30);

/// One instance with one event channel.
#[derive(Debug)]
pub struct Side {
    pub provider: HostProvider,
    pub channel: Arc<dyn EventChannel>,
    pub comp: Arc<dyn CompChannel>,
    pub cq: Arc<dyn CompletionQueue>,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    pub id: Arc<dyn CmId>,
    pub qp: Arc<dyn QueuePair>,
}

impl Side {
    pub fn new() -> Self {
        Self::with(HostOptions::default())
    }

    pub fn with(options: HostOptions) -> Self {
        let provider = HostProvider::open_with(options).unwrap();
        let channel = provider.create_event_channel().unwrap();
        let comp = provider.create_comp_channel().unwrap();
        let cq = provider.create_cq(4096, &comp, CqToken(1)).unwrap();
        Self {
            provider,
            channel,
            comp,
            cq,
        }
    }

    pub fn id(&self) -> Arc<dyn CmId> {
        self.provider.create_id(&self.channel).unwrap()
    }

    pub fn attr(&self) -> QpAttr {
        QpAttr {
            cq: Arc::clone(&self.cq),
            send_wr_max: 16,
            recv_wr_max: 16,
            rnr_retry: 7,
            silence_max: None,
        }
    }

    pub fn listen(&self, addr: &str, backlog: u32) -> Arc<dyn CmId> {
        let id = self.id();
        id.bind(bind_to(addr)).unwrap();
        id.listen(backlog).unwrap();
        id
    }

    /// Starts to look for `dst`.
    pub fn resolve(&self, dst: SocketAddr) -> Arc<dyn CmId> {
        let id = self.id();
        id.resolve(dst, BOUND).unwrap();
        id
    }
}

pub fn bind_to(addr: &str) -> BindRequest {
    BindRequest {
        addr: addr.parse().unwrap(),
        only_v6: false,
        reuse_port: false,
    }
}

/// The next event of any of the channels, with the index of the channel. Panics after [`BOUND`].
pub fn next_event(channels: &[&Arc<dyn EventChannel>]) -> (usize, CmEvent) {
    event_within(channels, BOUND).expect("an event")
}

/// The same, or nothing after `bound`.
pub fn event_within(
    channels: &[&Arc<dyn EventChannel>],
    bound: Duration,
) -> Option<(usize, CmEvent)> {
    let end = Instant::now() + bound;
    loop {
        for (index, channel) in channels.iter().enumerate() {
            if let Some(event) = channel.poll() {
                return Some((index, event));
            }
        }
        let rest = end.checked_duration_since(Instant::now())?;
        wait_readable(channels, rest);
    }
}

/// Sleeps until one of the channels has something to do.
pub fn wait_readable(channels: &[&Arc<dyn EventChannel>], bound: Duration) {
    let wait = channels
        .iter()
        .filter_map(|channel| channel.next_timeout())
        .fold(bound, Duration::min);
    let fds: Vec<_> = channels.iter().map(|channel| channel.fd()).collect();
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let wait = Timespec::try_from(wait).unwrap();
    match rustix::event::poll(&mut fds, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => panic!("poll: {e}"),
    }
}

/// Polls the channels until `done` says so; no event may come.
pub fn work_until(channels: &[&Arc<dyn EventChannel>], mut done: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !done() {
        for channel in channels {
            if let Some(event) = channel.poll() {
                panic!("unexpected {event:?}");
            }
        }
        if done() {
            return;
        }
        let rest = end.checked_duration_since(Instant::now());
        wait_readable(channels, rest.expect("it happens in time"));
    }
}

/// Whether `fd` becomes readable within [`BOUND`].
pub fn readable(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let wait = Timespec::try_from(BOUND).unwrap();
    rustix::event::poll(&mut fds, Some(&wait)).unwrap() > 0
}

macro_rules! event_is {
    ($event:expr, $id:expr, $pattern:pat => $value:expr) => {{
        let event: sdp_verbs::CmEvent = $event;
        assert_eq!(event.id, $id, "{event:?}");
        match event.kind {
            $pattern => $value,
            other => panic!("unexpected {other:?}"),
        }
    }};
}
#[allow(unused_imports, reason = "each test binary uses its own part of this")]
pub(crate) use event_is;

/// Connects `active` to the listener of `passive` at `dst`; both ends come back.
pub fn connect(
    active: &Side,
    passive: &Side,
    listener: &Arc<dyn CmId>,
    dst: SocketAddr,
) -> (End, End) {
    let channels = [&active.channel, &passive.channel];
    let id = active.resolve(dst);
    let (_, event) = next_event(&channels);
    event_is!(event, id.token(), CmEventKind::Resolved => ());
    let qp = id.create_qp(&active.attr()).unwrap();
    id.connect(b"hello").unwrap();
    let (_, event) = next_event(&channels);
    let (peer, data) = event_is!(event, listener.token(),
        CmEventKind::ConnectRequest { id, private_data } => (id, private_data));
    assert_eq!(data, b"hello");
    let peer_qp = peer.create_qp(&passive.attr()).unwrap();
    peer.accept(b"welcome").unwrap();
    let (_, event) = next_event(&channels);
    let data = event_is!(event, id.token(),
        CmEventKind::ConnectResponse { private_data } => private_data);
    assert_eq!(data, b"welcome");
    id.establish().unwrap();
    let (_, event) = next_event(&channels);
    event_is!(event, peer.token(), CmEventKind::Established => ());
    (
        End { id, qp },
        End {
            id: peer,
            qp: peer_qp,
        },
    )
}
