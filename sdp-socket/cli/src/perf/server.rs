//! `sdp perf server`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{process, thread};

use anyhow::{Context, bail};

use super::control::{Channel, Open, Preface, Reply, Request};
use super::session::Session;
use crate::cli::{SIZE_MAX, ServerArgs};
use crate::transport::{Conn, Endpoint, Kind, Listener, name, read_full, set_trace};

/// Most connections of one test.
const CONNS_MAX: u32 = 1024;

/// What all tests share.
#[derive(Debug)]
struct Server {
    near: IpAddr,
    only: Option<Kind>,
    traced: bool,
    /// Addresses of the listeners, which stay for the life of the process.
    listeners: Mutex<BTreeMap<Endpoint, String>>,
    sessions: Mutex<BTreeMap<u64, Arc<Session>>>,
    next: AtomicU64,
}

/// Serves tests; ends after the first one only if asked to.
///
/// # Errors
/// When it cannot listen or say where it does; with `--once` also when the test fails.
pub(super) fn run(args: &ServerArgs) -> anyhow::Result<()> {
    if args.trace {
        set_trace();
    }
    let listener = TcpListener::bind(args.listen)
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let bound = listener.local_addr().context("no local address")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{bound}")
        .and_then(|()| stdout.flush())
        .context("cannot say the address")?;
    drop(stdout);
    if args.until_eof {
        end_with_stdin()?;
    }
    let server = Arc::new(Server {
        near: bound.ip(),
        only: args.transport,
        traced: args.trace,
        listeners: Mutex::default(),
        sessions: Mutex::default(),
        next: AtomicU64::new(1),
    });
    loop {
        let (stream, from) = listener.accept().context("cannot accept")?;
        if args.once {
            return server.serve(stream);
        }
        let server = Arc::clone(&server);
        spawn("control", move || {
            if let Err(error) = server.serve(stream) {
                complain(&format!("test of {from}: {error:#}"));
            }
        })?;
    }
}

/// Ends the process when nobody holds the other end of its standard input.
fn end_with_stdin() -> anyhow::Result<()> {
    spawn("stdin", || {
        let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        process::exit(i32::from(ended.is_err()));
    })
}

fn spawn(what: &str, body: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    thread::Builder::new()
        .name(what.to_owned())
        .spawn(body)
        .with_context(|| format!("cannot start the thread `{what}`"))?;
    Ok(())
}

fn complain(message: &str) {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "sdp perf server: {message}");
}

impl Server {
    fn listeners(&self) -> MutexGuard<'_, BTreeMap<Endpoint, String>> {
        // Each is changed in one step.
        let listeners = self.listeners.lock();
        listeners.unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Session>>> {
        let sessions = self.sessions.lock();
        sessions.unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one control connection.
    fn serve(self: &Arc<Self>, stream: TcpStream) -> anyhow::Result<()> {
        let mut channel = Channel::new(stream)?;
        let outcome = self.serve_requests(&mut channel);
        if let Err(error) = &outcome {
            let reason = format!("{error:#}");
            // The client may be gone; the error itself is reported here.
            let _ = channel.send(&Reply::Refused { reason });
        }
        outcome
    }

    fn serve_requests(self: &Arc<Self>, channel: &mut Channel) -> anyhow::Result<()> {
        let open = match channel.receive()? {
            None => return Ok(()),
            Some(Request::Open(open)) => open,
            Some(other) => bail!("the first request is {other:?}, not Open"),
        };
        self.judge(&open)?;
        let address = self.address(&open.endpoint)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(open));
        self.sessions().insert(id, Arc::clone(&session));
        let ready = Reply::Ready {
            session: id,
            address,
        };
        let outcome = channel
            .send(&ready)
            .and_then(|()| serve_session(channel, &session));
        self.sessions().remove(&id);
        session.close();
        outcome
    }

    /// Refuses what cannot be served.
    fn judge(&self, open: &Open) -> anyhow::Result<()> {
        let endpoint = &open.endpoint;
        if !open.is_current() {
            bail!("client and server are of different versions");
        }
        if let Some(only) = self.only.filter(|only| *only != endpoint.kind) {
            bail!(
                "this server was started with --transport {}, not {}",
                name(only),
                name(endpoint.kind)
            );
        }
        if open.conns == 0 || open.conns > CONNS_MAX {
            bail!("{} connections; 1 to {CONNS_MAX} can be served", open.conns);
        }
        if endpoint.size == 0 || endpoint.size as u64 > SIZE_MAX {
            bail!("messages of {} bytes; at most 1 GiB", endpoint.size);
        }
        if open.trace && endpoint.kind == Kind::Sdp && !self.traced {
            bail!("verbs are not counted here: start the server with --trace");
        }
        Ok(())
    }

    /// The address of the listener for `endpoint`, which is made at its first use.
    fn address(self: &Arc<Self>, endpoint: &Endpoint) -> anyhow::Result<String> {
        let mut listeners = self.listeners();
        if let Some(address) = listeners.get(endpoint) {
            return Ok(address.clone());
        }
        let what = || format!("cannot listen for {}", name(endpoint.kind));
        let listener = endpoint.transport().listen(self.near).with_context(what)?;
        let address = listener.address().with_context(what)?;
        let server = Arc::clone(self);
        let key = endpoint.clone();
        spawn("accept", move || {
            if let Err(error) = server.accept(&*listener) {
                complain(&format!("{error:#}"));
            }
            // The next test gets a listener of its own.
            server.listeners().remove(&key);
        })?;
        listeners.insert(endpoint.clone(), address.clone());
        Ok(address)
    }

    /// Accepts for ever, each connection on a thread of its own.
    fn accept(self: &Arc<Self>, listener: &dyn Listener) -> anyhow::Result<()> {
        loop {
            let conn: Arc<dyn Conn> = listener.accept().context("cannot accept")?.into();
            let server = Arc::clone(self);
            spawn("connection", move || {
                if let Err(error) = server.serve_conn(&conn) {
                    complain(&format!("{error:#}"));
                }
            })?;
        }
    }

    fn serve_conn(&self, conn: &Arc<dyn Conn>) -> anyhow::Result<()> {
        let mut bytes = [0; Preface::LEN];
        read_full(&**conn, &mut bytes).context("a connection ended before its preface")?;
        let preface = Preface::decode(bytes).context("a connection without a preface")?;
        let session = self.sessions().get(&preface.session).map(Arc::clone);
        session
            .context("a connection for a test that has ended")?
            .serve(preface.index, conn)
    }
}

fn serve_session(channel: &mut Channel, session: &Session) -> anyhow::Result<()> {
    while let Some(request) = channel.receive()? {
        match request {
            Request::Open(_) => bail!("a test is open already"),
            Request::Connected => {
                session.wait_connected()?;
                channel.send(&Reply::Connected)?;
            }
            Request::Start => {
                session.start();
                channel.send(&Reply::Started)?;
            }
            Request::Finish { totals } => {
                session.announce(&totals)?;
                channel.send(&Reply::Finishing)?;
                channel.send(&Reply::Done(session.finish()))?;
            }
        }
    }
    Ok(())
}
