//! Listening sockets.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sdp_core::Connection;
use sdp_verbs::{BindRequest, CmId, Wake};

use crate::builder::Builder;
use crate::context::Context;
use crate::driver::{Conn, config};
use crate::error;
use crate::options::Options;
use crate::park::WaitWord;
use crate::stream::SdpStream;
use crate::sync::lock;

/// Connections that wait to be accepted, at most; as std's `TcpListener`.
const BACKLOG: u32 = 128;

/// A listening endpoint and its accept queue. Handshakes are completed by the progress loop, so a
/// connect succeeds without an accept, as with TCP.
#[derive(Debug)]
pub(crate) struct Listening {
    context: Arc<Context>,
    id: Arc<dyn CmId>,
    options: Options,
    only_v6: bool,
    queue: Mutex<VecDeque<Arc<Conn>>>,
    /// Handshakes under way and connections in the queue.
    pending: AtomicUsize,
    word: WaitWord,
    nonblocking: AtomicBool,
}

impl Listening {
    fn open(
        context: &Arc<Context>,
        request: BindRequest,
        options: Options,
    ) -> io::Result<Arc<Self>> {
        context.start_progress()?;
        let id = context.create_id().map_err(error::verbs_error)?;
        id.bind(request).map_err(error::verbs_error)?;
        let listening = Arc::new(Self {
            context: Arc::clone(context),
            id: Arc::clone(&id),
            options,
            only_v6: request.only_v6,
            queue: Mutex::default(),
            pending: AtomicUsize::new(0),
            word: WaitWord::default(),
            nonblocking: AtomicBool::new(false),
        });
        context.add_listening(id.token(), &listening);
        id.listen(BACKLOG).map_err(error::verbs_error)?;
        Ok(listening)
    }

    /// A peer asks to connect.
    pub(crate) fn request(self: &Arc<Self>, id: Arc<dyn CmId>, private_data: &[u8]) {
        if self.pending.load(Ordering::Relaxed) >= BACKLOG as usize {
            turn_down(&*id, "the backlog is full", &[]);
            return;
        }
        let options = self.options.inherited();
        let config = config(&self.context, &options);
        let engine = match Connection::accept(self.context.now(), config.clone(), private_data) {
            Ok(engine) => engine,
            Err(refusal) => {
                turn_down(&*id, &refusal.error.to_string(), &refusal.private_data);
                return;
            }
        };
        self.pending.fetch_add(1, Ordering::Relaxed);
        let this = Arc::downgrade(self);
        let settled = move |conn: &Arc<Conn>| match this.upgrade() {
            Some(listening) => listening.settled(conn),
            None => conn.with_engine(|engine, now| engine.abort(now)),
        };
        let opened = Conn::open(
            &self.context,
            Arc::clone(&id),
            options,
            engine,
            &config,
            Box::new(settled),
        );
        if let Err(error) = opened {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            turn_down(&*id, &error.to_string(), &[]);
        }
    }

    fn settled(&self, conn: &Arc<Conn>) {
        // A connection that has ended since it was made is still accepted if it is complete: its
        // bytes and its error are the program's to see.
        if conn.is_connected() {
            lock(&self.queue).push_back(Arc::clone(conn));
            self.word.signal();
        } else {
            self.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn pop(&self) -> Option<Arc<Conn>> {
        let conn = lock(&self.queue).pop_front()?;
        self.pending.fetch_sub(1, Ordering::Relaxed);
        Some(conn)
    }

    fn accept(&self) -> io::Result<Arc<Conn>> {
        loop {
            let seen = self.word.seen();
            if let Some(conn) = self.pop() {
                return Ok(conn);
            }
            if self.nonblocking.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let wake = self.context.runtime().wait_word(&self.word, seen, None)?;
            if wake == Wake::Interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.context.remove_listening(self.id.token());
        while let Some(conn) = self.pop() {
            conn.with_engine(|engine, now| engine.abort(now));
            conn.close();
        }
    }
}

fn turn_down(id: &dyn CmId, why: &str, private_data: &[u8]) {
    tracing::warn!(peer = ?id.peer_addr(), "connection turned down: {why}");
    if let Err(error) = id.reject(private_data) {
        tracing::warn!("reject: {error}");
    }
}

/// A socket that listens for connections, as [`std::net::TcpListener`].
///
/// Dropping it stops listening; connections that were not accepted are reset.
#[derive(Debug)]
pub struct SdpListener {
    listening: Arc<Listening>,
}

impl SdpListener {
    /// Listens on the first of the addresses that can be bound. Port 0 takes an ephemeral port.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`.
    pub fn bind(addr: impl std::net::ToSocketAddrs) -> io::Result<Self> {
        Builder::new().bind(addr)
    }

    pub(crate) fn open(
        context: &Arc<Context>,
        request: BindRequest,
        options: Options,
    ) -> io::Result<Self> {
        Listening::open(context, request, options).map(|listening| Self { listening })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// `WouldBlock` if non-blocking and none is there; `Interrupted` by a signal.
    pub fn accept(&self) -> io::Result<(SdpStream, SocketAddr)> {
        let conn = self.listening.accept()?;
        let peer = conn.peer_addr().unwrap_or_else(|| self.unknown_peer());
        Ok((SdpStream::from_conn(conn), peer))
    }

    fn unknown_peer(&self) -> SocketAddr {
        match self.local_addr() {
            Ok(SocketAddr::V6(_)) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
            _ => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// None on a listener that was bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listening
            .id
            .local_addr()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Accepts connections one after the other, without end.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Makes [`accept`](Self::accept) return at once.
    ///
    /// # Errors
    /// None.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.listening
            .nonblocking
            .store(nonblocking, Ordering::Relaxed);
        self.listening.word.signal();
        Ok(())
    }

    /// Another handle to the same listener.
    ///
    /// # Errors
    /// None.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            listening: Arc::clone(&self.listening),
        })
    }

    /// Whether it takes IPv6 connections only.
    ///
    /// # Errors
    /// None.
    pub fn only_v6(&self) -> io::Result<bool> {
        Ok(self.listening.only_v6)
    }
}

/// Iterator over accepted connections. See [`SdpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a SdpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<SdpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}
