//! Connection management: rdma_cm's events become ours.

mod address;
mod id;
mod port;
mod raw;
mod silence;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

pub(super) use address::{addresses, has_address};
pub(super) use id::IdCore;

use id::{Phase, RdmaId, Unanswered};
use raw::{RawChannel, RawEvent, RawId};

use super::device::{Device, REJECT_DATA_LEN, Transport};
use super::fd::Bell;
use super::group::Group;
use super::slab::SlabPool;
use super::sys;
use crate::cm::{CmEvent, CmEventKind, CmId, CmToken, EventChannel, RejectReason};
use crate::error::VerbsError;
use crate::hidden;

/// InfiniBand's code for "nobody serves this ID" in a rejection.
const REJ_INVALID_SERVICE_ID: i32 = 8;

/// InfiniBand's code for "this queue pair has a connection", which the system gives after a machine has
/// come back from a crash (ib_cm, `cm_match_req`; it ends the old connection then).
const REJ_STALE_CONN: i32 = 10;

/// The last byte of a rejection of ours: who rejected. Everything else is the program's.
const BY_CONSUMER: u8 = 0;
const BY_BACKLOG: u8 = 1;

static TOKENS: AtomicUsize = AtomicUsize::new(1);

/// A peer's request to connect.
#[derive(Debug)]
struct Request {
    /// Whom it asks.
    listener: CmToken,
    raw: RawId,
    private_data: Vec<u8>,
    unanswered: Unanswered,
}

/// What no event of the library's tells of, or one of another channel's.
#[derive(Debug)]
enum Own {
    Event(CmEvent),
    /// It came by this channel's device, to a listener of another's.
    Moved(Request),
}

/// A queue of connection management events.
#[derive(Debug)]
pub(super) struct RdmaEvents {
    me: Weak<Self>,
    device: Arc<Device>,
    slabs: Arc<SlabPool>,
    group: Arc<Group>,
    /// What we found ourselves. Its ids go before the channel.
    own: Mutex<VecDeque<Own>>,
    raw: RawChannel,
    epoll: OwnedFd,
    /// Rings while `own` holds something.
    bell: Bell,
    ids: Mutex<HashMap<usize, Weak<IdCore>>>,
    /// Held while an event is taken and applied, so that they are applied in order.
    taking: Mutex<()>,
}

impl RdmaEvents {
    pub(super) fn new(
        device: &Arc<Device>,
        slabs: &Arc<SlabPool>,
        group: &Arc<Group>,
    ) -> Result<Arc<Self>, VerbsError> {
        let raw = RawChannel::new(device.lib)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map(hidden::hide)
            .map_err(|e| VerbsError::os("epoll_create", e))?;
        let bell = Bell::new(false)?;
        for fd in [raw.fd(), bell.as_fd()] {
            epoll::add(&epoll, fd, EventData::new_u64(0), EventFlags::IN)
                .map_err(|e| VerbsError::os("epoll_ctl", e))?;
        }
        let this = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            device: Arc::clone(device),
            slabs: Arc::clone(slabs),
            group: Arc::clone(group),
            raw,
            epoll,
            bell,
            own: Mutex::default(),
            ids: Mutex::default(),
            taking: Mutex::new(()),
        });
        group.add(&this);
        Ok(this)
    }

    pub(super) fn is_of(&self, context: *mut sys::ibv_context) -> bool {
        self.device.context() == context
    }

    pub(super) fn belongs_to(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    /// A new id.
    pub(super) fn create_id(self: &Arc<Self>) -> Result<Arc<dyn CmId>, VerbsError> {
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let raw = RawId::new(self.device.lib, &self.raw, token, self.device.transport)?;
        let core = IdCore::new(self, &self.device, &self.slabs, token, raw, Phase::Idle);
        self.ids().insert(token, Arc::downgrade(&core));
        Ok(Arc::new(RdmaId::new(core)))
    }

    fn ids(&self) -> MutexGuard<'_, HashMap<usize, Weak<IdCore>>> {
        self.ids.lock().expect("nothing panics under this lock")
    }

    fn forget(&self, token: usize) {
        self.ids().remove(&token);
    }

    fn find(&self, token: usize) -> Option<Arc<IdCore>> {
        self.ids().get(&token)?.upgrade()
    }

    /// Queues an event of our own.
    fn tell(&self, id: &IdCore, kind: CmEventKind) {
        let id = id.name();
        self.push(Own::Event(CmEvent { id, kind }));
    }

    fn push(&self, found: Own) {
        let mut own = self.own.lock().expect("nothing panics under this lock");
        own.push_back(found);
        self.bell.ring(1);
    }

    fn take_own(&self) -> Option<Own> {
        let mut own = self.own.lock().expect("nothing panics under this lock");
        let found = own.pop_front()?;
        if own.is_empty() {
            self.bell.answer();
        }
        Some(found)
    }

    /// Applies an event of the library's. `None`: it concerns nobody, or is a step on the way.
    fn apply(&self, event: RawEvent) -> Option<CmEvent> {
        if let Some(raw) = event.request {
            return self.request(event.token, raw, event.private_data);
        }
        let id = self.find(event.token)?;
        let kind = match event.kind {
            sys::RDMA_CM_EVENT_ADDR_RESOLVED => id.address_resolved(),
            sys::RDMA_CM_EVENT_ROUTE_RESOLVED => id.route_resolved(),
            sys::RDMA_CM_EVENT_ADDR_ERROR => {
                id.address_unresolved(os_error("resolving", event.status))
            }
            sys::RDMA_CM_EVENT_ROUTE_ERROR => id.failed(os_error("finding a route", event.status)),
            sys::RDMA_CM_EVENT_CONNECT_ERROR | sys::RDMA_CM_EVENT_UNREACHABLE => {
                id.failed(os_error("connecting", event.status))
            }
            sys::RDMA_CM_EVENT_CONNECT_RESPONSE => id.responded(event.private_data),
            sys::RDMA_CM_EVENT_ESTABLISHED => id.established(event.private_data),
            sys::RDMA_CM_EVENT_REJECTED => {
                let reason = reason(self.device.transport, event.status, &event.private_data);
                id.rejected(reason, event.private_data)
            }
            sys::RDMA_CM_EVENT_DISCONNECTED => id.disconnected(),
            sys::RDMA_CM_EVENT_DEVICE_REMOVAL => id.device_removed(),
            other => {
                tracing::trace!(id = event.token, event = other, "of no concern");
                None
            }
        };
        kind.map(|kind| CmEvent {
            id: id.name(),
            kind,
        })
    }

    fn request(&self, listener: usize, raw: RawId, private_data: Vec<u8>) -> Option<CmEvent> {
        let refuse = |raw: &RawId, by: u8| {
            if let Err(error) = raw.reject(&rejection(&[], by)) {
                tracing::warn!("a request turned down: {error}");
            }
        };
        let Some(listener) = self.find(listener) else {
            refuse(&raw, BY_CONSUMER);
            return None;
        };
        let Some(unanswered) = listener.take_backlog() else {
            refuse(&raw, BY_BACKLOG);
            return None;
        };
        let Some(home) = self.home_of(&raw) else {
            refuse(&raw, BY_CONSUMER);
            return None;
        };
        let request = Request {
            listener: listener.name(),
            raw,
            private_data,
            unanswered,
        };
        if std::ptr::eq(&*home, self) {
            return Some(self.told(request));
        }
        home.push(Own::Moved(request));
        None
    }

    /// A request becomes an id of this channel's.
    fn told(&self, request: Request) -> CmEvent {
        let Request {
            listener,
            raw,
            private_data,
            unanswered,
        } = request;
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        raw.set_token(token);
        let me = self.me.upgrade().expect("it is in use");
        let (device, slabs) = (&self.device, &self.slabs);
        let core = IdCore::new(&me, device, slabs, token, raw, Phase::Requested);
        core.set_unanswered(unanswered);
        self.ids().insert(token, Arc::downgrade(&core));
        CmEvent {
            id: listener,
            kind: CmEventKind::ConnectRequest {
                id: Arc::new(RdmaId::new(core)),
                private_data,
            },
        }
    }

    /// The channel of the device that a request came by, to which its events go from now on.
    fn home_of(&self, request: &RawId) -> Option<Arc<Self>> {
        let context = request.context();
        if self.is_of(context) {
            return self.me.upgrade();
        }
        let Some(home) = self.group.channel_of(context) else {
            let device = &self.device.name;
            tracing::warn!(device, "a request to another device turned down");
            return None;
        };
        let moved = request.migrate(&home.raw);
        moved
            .inspect_err(|error| tracing::warn!(device = home.device.name, "{error}"))
            .ok()?;
        Some(home)
    }
}

impl EventChannel for RdmaEvents {
    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn poll(&self) -> Option<CmEvent> {
        let _taking = self.taking.lock().expect("nothing panics under this lock");
        loop {
            match self.take_own() {
                Some(Own::Event(event)) => return Some(event),
                Some(Own::Moved(request)) => return Some(self.told(request)),
                None => {}
            }
            if let Some(event) = self.apply(self.raw.next()?) {
                return Some(event);
            }
        }
    }

    fn next_timeout(&self) -> Option<Duration> {
        // The kernel keeps the time of everything.
        None
    }
}

/// Bytes of a rejection: the program's, then zeros, then who rejected.
fn rejection(data: &[u8], by: u8) -> [u8; REJECT_DATA_LEN] {
    let mut bytes = [0; REJECT_DATA_LEN];
    bytes[..data.len()].copy_from_slice(data);
    bytes[REJECT_DATA_LEN - 1] = by;
    bytes
}

/// Why a peer, or its system, turned a request down.
fn reason(transport: Transport, status: i32, data: &[u8]) -> RejectReason {
    let nobody = match transport {
        Transport::Ib => status == REJ_INVALID_SERVICE_ID,
        // TCP's own refusal.
        Transport::Iwarp => status == -libc::ECONNREFUSED,
    };
    let stale = transport == Transport::Ib && status == REJ_STALE_CONN;
    match data.get(REJECT_DATA_LEN - 1) {
        _ if nobody => RejectReason::NoListener,
        _ if stale => RejectReason::Stale,
        Some(&BY_BACKLOG) => RejectReason::Backlog,
        _ => RejectReason::Consumer,
    }
}

/// The status of an event is a negative errno.
fn os_error(op: &'static str, status: i32) -> VerbsError {
    let code = match status.checked_neg() {
        Some(code) if code > 0 => code,
        // InfiniBand's own codes for "no answer".
        _ => libc::ETIMEDOUT,
    };
    VerbsError::os(op, io::Error::from_raw_os_error(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rejection says who rejected, whatever the program adds, and on both transports.
    #[test]
    fn rejections_name_who_rejected() {
        let full = vec![0xFF; REJECT_DATA_LEN - 1];
        for data in [&[][..], b"no", &full] {
            for (by, expected) in [
                (BY_CONSUMER, RejectReason::Consumer),
                (BY_BACKLOG, RejectReason::Backlog),
            ] {
                let bytes = rejection(data, by);
                assert!(bytes.starts_with(data));
                assert_eq!(reason(Transport::Ib, 28, &bytes), expected);
                let status = -libc::ECONNRESET;
                assert_eq!(reason(Transport::Iwarp, status, &bytes), expected);
            }
        }
        assert_eq!(
            reason(Transport::Ib, 8, &[0; 148]),
            RejectReason::NoListener
        );
        assert_eq!(reason(Transport::Ib, 10, &[0; 148]), RejectReason::Stale);
        assert_eq!(reason(Transport::Ib, 10, &[]), RejectReason::Stale);
        let refused = -libc::ECONNREFUSED;
        assert_eq!(
            reason(Transport::Iwarp, refused, &[]),
            RejectReason::NoListener
        );
    }

    #[test]
    fn statuses_become_errnos() {
        assert_eq!(
            os_error("x", -libc::EHOSTUNREACH).errno(),
            libc::EHOSTUNREACH
        );
        assert_eq!(os_error("x", 3).errno(), libc::ETIMEDOUT);
        assert_eq!(os_error("x", i32::MIN).errno(), libc::ETIMEDOUT);
    }
}
