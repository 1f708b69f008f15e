//! The library's own objects of connection management, each behind one call per verb.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

use super::address::RawAddr;
use crate::error::VerbsError;
use crate::rdma::device::Transport;
use crate::rdma::fd;
use crate::rdma::qp::RETRY_COUNT;
use crate::rdma::returned::{check, last_error, made};
use crate::rdma::sys::{self, Library};

/// "As many as the request says": values of rdma_cma.h that are macros with casts.
const MAX_DEPTH: u8 = 0xFF;

/// Times a message that meets no receive is sent again: without end. Each side overrules it with
/// what its caller wants.
const RNR_RETRY_COUNT: u8 = 7;

/// A channel for events.
pub(super) struct RawChannel {
    lib: &'static Library,
    channel: NonNull<sys::rdma_event_channel>,
}

// SAFETY: the library's channel is a descriptor; its functions may be called from any thread.
unsafe impl Send for RawChannel {}
// SAFETY: as above.
unsafe impl Sync for RawChannel {}

impl std::fmt::Debug for RawChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawChannel({:p})", self.channel)
    }
}

/// An event, copied out of the library's memory.
#[derive(Debug)]
pub(super) struct RawEvent {
    pub(super) kind: sys::rdma_cm_event_type,
    pub(super) status: i32,
    pub(super) private_data: Vec<u8>,
    /// Name of the id concerned; of the listener, for a request.
    pub(super) token: usize,
    /// For a request: the new id.
    pub(super) request: Option<RawId>,
}

impl RawChannel {
    pub(super) fn new(lib: &'static Library) -> Result<Self, VerbsError> {
        // SAFETY: no preconditions.
        let channel = unsafe { lib.rdma_create_event_channel() };
        let channel = made("rdma_create_event_channel", channel)?;
        let this = Self { lib, channel };
        fd::set_nonblocking(this.fd())?;
        Ok(this)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: a channel that lives as long as this value.
        let fd = unsafe { (*self.channel.as_ptr()).fd };
        // SAFETY: as above.
        unsafe { fd::borrow(fd) }
    }

    /// The next event, if there is one.
    pub(super) fn next(&self) -> Option<RawEvent> {
        let mut event = ptr::null_mut();
        // SAFETY: a living channel; `event` is valid for the write.
        let returned = unsafe {
            self.lib
                .rdma_get_cm_event(self.channel.as_ptr(), &raw mut event)
        };
        if let Err(error) = check("rdma_get_cm_event", returned) {
            if error.errno() != libc::EAGAIN {
                tracing::error!("{error}");
            }
            return None;
        }
        let copied = self.copy(event);
        // SAFETY: an event just got; nothing refers to it any more.
        let returned = unsafe { self.lib.rdma_ack_cm_event(event) };
        if let Err(error) = check("rdma_ack_cm_event", returned) {
            tracing::error!("{error}");
        }
        Some(copied)
    }

    fn copy(&self, event: *mut sys::rdma_cm_event) -> RawEvent {
        // SAFETY: an event that has not been acknowledged.
        let event = unsafe { event.read() };
        let is_request = event.event == sys::RDMA_CM_EVENT_CONNECT_REQUEST;
        let named = if is_request {
            event.listen_id
        } else {
            event.id
        };
        // SAFETY: an id is not destroyed before its events are acknowledged.
        let token = unsafe { (*named).context }.addr();
        let carries_data = matches!(
            event.event,
            sys::RDMA_CM_EVENT_CONNECT_REQUEST
                | sys::RDMA_CM_EVENT_CONNECT_RESPONSE
                | sys::RDMA_CM_EVENT_REJECTED
                | sys::RDMA_CM_EVENT_ESTABLISHED
        );
        let mut private_data = Vec::new();
        if carries_data {
            // SAFETY: connected ids' events have this form of parameters.
            let conn = unsafe { event.param.conn };
            let len = usize::from(conn.private_data_len);
            if let Some(data) = NonNull::new(conn.private_data.cast_mut()) {
                let data = data.cast::<u8>().as_ptr();
                // SAFETY: the event's own bytes, until it is acknowledged.
                private_data.extend_from_slice(unsafe { std::slice::from_raw_parts(data, len) });
            }
        }
        RawEvent {
            kind: event.event,
            status: event.status,
            private_data,
            token,
            request: NonNull::new(event.id)
                .filter(|_| is_request)
                .map(|id| RawId { lib: self.lib, id }),
        }
    }
}

impl Drop for RawChannel {
    fn drop(&mut self) {
        // SAFETY: ids hold their channel, so none is left.
        unsafe {
            self.lib.rdma_destroy_event_channel(self.channel.as_ptr());
        }
    }
}

/// An id. Whoever owns it keeps its channel until it is gone.
pub(super) struct RawId {
    lib: &'static Library,
    id: NonNull<sys::rdma_cm_id>,
}

// SAFETY: the library's functions on one id may be called from any thread; fields that they
// change are read under the lock of the owner only.
unsafe impl Send for RawId {}
// SAFETY: as above.
unsafe impl Sync for RawId {}

impl std::fmt::Debug for RawId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawId({:p})", self.id)
    }
}

impl RawId {
    /// A new id. Its port space follows from the transport: IB keeps clear of the ports of other
    /// protocols over RDMA; iWARP's ports are TCP's.
    pub(super) fn new(
        lib: &'static Library,
        channel: &RawChannel,
        token: usize,
        transport: Transport,
    ) -> Result<Self, VerbsError> {
        let space = match transport {
            Transport::Ib => sys::RDMA_PS_IB,
            Transport::Iwarp => sys::RDMA_PS_TCP,
        };
        let mut id = ptr::null_mut();
        let context = ptr::without_provenance_mut(token);
        // SAFETY: a living channel; `id` is valid for the write.
        let returned =
            unsafe { lib.rdma_create_id(channel.channel.as_ptr(), &raw mut id, context, space) };
        check("rdma_create_id", returned)?;
        let id = made("rdma_create_id", id)?;
        Ok(Self { lib, id })
    }

    /// Names it in events.
    pub(super) fn set_token(&self, token: usize) {
        // SAFETY: a request's id, which has had no event yet.
        unsafe { (*self.id.as_ptr()).context = ptr::without_provenance_mut(token) };
    }

    /// Its events come to another channel from now on. All that came to the old one have been taken.
    pub(super) fn migrate(&self, channel: &RawChannel) -> Result<(), VerbsError> {
        // SAFETY: a living id and a living channel.
        let returned = unsafe {
            self.lib
                .rdma_migrate_id(self.id.as_ptr(), channel.channel.as_ptr())
        };
        check("rdma_migrate_id", returned)
    }

    /// The device it is bound to, or null.
    pub(super) fn context(&self) -> *mut sys::ibv_context {
        // SAFETY: a living id.
        unsafe { (*self.id.as_ptr()).verbs }
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        // SAFETY: a living id.
        let addr = unsafe { &raw const (*self.id.as_ptr()).route.addr.__bindgen_anon_1 };
        // SAFETY: room for every family, zero or written by the library.
        unsafe { RawAddr::read(addr.cast()) }
    }

    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        // SAFETY: a living id.
        let addr = unsafe { &raw const (*self.id.as_ptr()).route.addr.__bindgen_anon_2 };
        // SAFETY: as for the local address.
        unsafe { RawAddr::read(addr.cast()) }
    }

    pub(super) fn bind(&self, addr: SocketAddr) -> Result<(), VerbsError> {
        let mut raw = RawAddr::from(addr);
        // SAFETY: a living id and a whole address.
        let returned = unsafe { self.lib.rdma_bind_addr(self.id.as_ptr(), raw.as_mut_ptr()) };
        check("rdma_bind_addr", returned)
    }

    /// An IPv6 wildcard takes no IPv4.
    pub(super) fn set_only_v6(&self) -> Result<(), VerbsError> {
        let on: libc::c_int = 1;
        self.set_option(sys::RDMA_OPTION_ID_AFONLY, on)
    }

    /// The code of the time after which a packet that nobody confirms is sent again.
    pub(super) fn set_ack_timeout(&self, code: u8) -> Result<(), VerbsError> {
        self.set_option(sys::RDMA_OPTION_ID_ACK_TIMEOUT, code)
    }

    fn set_option<T>(&self, option: u32, mut value: T) -> Result<(), VerbsError> {
        let option = libc::c_int::try_from(option).expect("a small number");
        let level = libc::c_int::try_from(sys::RDMA_OPTION_ID).expect("a small number");
        // SAFETY: a living id; the value has the length that is given.
        let returned = unsafe {
            self.lib.rdma_set_option(
                self.id.as_ptr(),
                level,
                option,
                ptr::from_mut(&mut value).cast(),
                size_of::<T>(),
            )
        };
        check("rdma_set_option", returned)
    }

    pub(super) fn listen(&self, backlog: u32) -> Result<(), VerbsError> {
        let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
        // SAFETY: a living id.
        let returned = unsafe { self.lib.rdma_listen(self.id.as_ptr(), backlog) };
        check("rdma_listen", returned)
    }

    pub(super) fn resolve_addr(&self, dst: SocketAddr, limit: Duration) -> Result<(), VerbsError> {
        let mut raw = RawAddr::from(dst);
        // SAFETY: a living id and a whole address.
        let returned = unsafe {
            self.lib.rdma_resolve_addr(
                self.id.as_ptr(),
                ptr::null_mut(),
                raw.as_mut_ptr(),
                millis(limit),
            )
        };
        check("rdma_resolve_addr", returned)
    }

    pub(super) fn resolve_route(&self, limit: Duration) -> Result<(), VerbsError> {
        // SAFETY: a living id.
        let returned = unsafe { self.lib.rdma_resolve_route(self.id.as_ptr(), millis(limit)) };
        check("rdma_resolve_route", returned)
    }

    pub(super) fn connect(
        &self,
        data: &[u8],
        qp: u32,
        (initiator, responder): (u8, u8),
    ) -> Result<(), VerbsError> {
        let mut param = param(data, qp, initiator, responder);
        // SAFETY: a living id; the parameters and the data live until the call returns.
        let returned = unsafe { self.lib.rdma_connect(self.id.as_ptr(), &raw mut param) };
        check("rdma_connect", returned)
    }

    pub(super) fn accept(&self, data: &[u8], qp: u32) -> Result<(), VerbsError> {
        let mut param = param(data, qp, MAX_DEPTH, MAX_DEPTH);
        // SAFETY: as for `connect`.
        let returned = unsafe { self.lib.rdma_accept(self.id.as_ptr(), &raw mut param) };
        check("rdma_accept", returned)
    }

    pub(super) fn establish(&self) -> Result<(), VerbsError> {
        // SAFETY: a living id.
        let returned = unsafe { self.lib.rdma_establish(self.id.as_ptr()) };
        check("rdma_establish", returned)
    }

    pub(super) fn reject(&self, data: &[u8]) -> Result<(), VerbsError> {
        let len = u8::try_from(data.len()).expect("private data is short");
        // SAFETY: a living id; the data lives until the call returns.
        let returned = unsafe {
            self.lib
                .rdma_reject(self.id.as_ptr(), data.as_ptr().cast(), len)
        };
        check("rdma_reject", returned)
    }

    pub(super) fn disconnect(&self) -> Result<(), VerbsError> {
        // SAFETY: a living id.
        let returned = unsafe { self.lib.rdma_disconnect(self.id.as_ptr()) };
        check("rdma_disconnect", returned)
    }

    /// Tells the connection manager that the peer's first message has come.
    pub(super) fn notify_established(&self) -> Result<(), VerbsError> {
        // SAFETY: a living id.
        let returned = unsafe {
            self.lib
                .rdma_notify(self.id.as_ptr(), sys::IBV_EVENT_COMM_EST)
        };
        check("rdma_notify", returned)
    }

    /// What a queue pair of this connection needs to enter a state.
    pub(super) fn qp_attr(
        &self,
        state: sys::ibv_qp_state,
    ) -> Result<(sys::ibv_qp_attr, i32), VerbsError> {
        // SAFETY: plain numbers, for which zeros are valid.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = state;
        let mut mask = 0;
        // SAFETY: a living id; both places are valid for the write.
        let returned = unsafe {
            self.lib
                .rdma_init_qp_attr(self.id.as_ptr(), &raw mut attr, &raw mut mask)
        };
        check("rdma_init_qp_attr", returned)?;
        Ok((attr, mask))
    }
}

impl Drop for RawId {
    fn drop(&mut self) {
        // SAFETY: an id that nobody uses any more; its channel is still there.
        let returned = unsafe { self.lib.rdma_destroy_id(self.id.as_ptr()) };
        if returned != 0 {
            tracing::error!("{}", last_error("rdma_destroy_id"));
        }
    }
}

fn millis(limit: Duration) -> libc::c_int {
    libc::c_int::try_from(limit.as_millis().max(1)).unwrap_or(libc::c_int::MAX)
}

fn param(data: &[u8], qp: u32, initiator: u8, responder: u8) -> sys::rdma_conn_param {
    sys::rdma_conn_param {
        private_data: data.as_ptr().cast(),
        private_data_len: u8::try_from(data.len()).expect("private data is short"),
        responder_resources: responder,
        initiator_depth: initiator,
        flow_control: 1,
        retry_count: RETRY_COUNT,
        rnr_retry_count: RNR_RETRY_COUNT,
        srq: 0,
        qp_num: qp,
    }
}
