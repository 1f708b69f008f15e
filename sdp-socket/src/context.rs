//! One provider, opened, with its event channels, its connections and its progress loop.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use sdp_core::Instant;
use sdp_verbs::{
    CmEvent, CmEventKind, CmId, CmToken, CompChannel, CompletionQueue, CqToken, EventChannel,
    MemoryRegion, Provider, VerbsError,
};
use smallvec::SmallVec;

use crate::agenda::Agenda;
use crate::budget::Budget;
use crate::connecting::Connecting;
use crate::driver::{Conn, Diagnosis, Parting};
use crate::lent::Lent;
use crate::listener::Listening;
use crate::park::{Runtime, ThreadRuntime};
use crate::sync::lock;

/// Events of connection management, or connections, handled in one round of progress.
const ROUND_MAX: usize = 64;

/// A provider with everything that hangs on it. Ordinary programs share one per provider and
/// process ([`crate::ProviderKind`]); tests may make their own, on one thread or several.
pub struct Context {
    provider: Arc<dyn Provider>,
    runtime: Arc<dyn Runtime>,
    cm: Arc<dyn EventChannel>,
    comp: Arc<dyn CompChannel>,
    pub(crate) budget: Arc<Budget>,
    lent: Arc<Lent>,
    tokens: AtomicU64,
    peers: Mutex<Peers>,
    agenda: Mutex<Agenda>,
    /// When the progress loop will look again by itself: nanoseconds.
    sleeping_until: AtomicU64,
    registered: RwLock<BTreeMap<usize, Weak<dyn MemoryRegion>>>,
}

/// What connections have done that a context has let go of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    /// How many.
    pub(crate) count: u64,
    /// All of their counters together.
    pub(crate) stats: sdp_core::Stats,
    /// Times memory was refused to them.
    pub(crate) memory_refused: u64,
}

/// What hangs on a context at one moment, and what did: no connection is in both or in neither.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) ended: Ended,
    /// Listeners whose first end is here.
    pub(crate) listening: Vec<Arc<Listening>>,
    /// Connects, also such as have become connections.
    pub(crate) connecting: Vec<Arc<Connecting>>,
    pub(crate) conns: Vec<Arc<Conn>>,
}

/// Who gets which event.
#[derive(Default)]
struct Peers {
    by_queue: HashMap<CqToken, Arc<Conn>>,
    by_id: HashMap<CmToken, CqToken>,
    connecting: HashMap<CmToken, Arc<Connecting>>,
    listening: HashMap<CmToken, Weak<Listening>>,
    /// Connections let go of while a thread was in a call on them: where one hangs, they tell why.
    parting: Vec<Weak<Conn>>,
    ended: Ended,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("provider", &self.provider.name())
            .finish_non_exhaustive()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Whoever runs the progress loop notices that there is nothing left to do.
        self.runtime.kick_progress();
    }
}

impl Context {
    /// Opens the channels of `provider`. The progress loop starts with the first connection or
    /// listener. Memory of its connections is not bounded by `SDP_MEM_MAX`.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new(
        provider: Arc<dyn Provider>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Arc<Self>, VerbsError> {
        Self::within(provider, runtime, Budget::unbounded())
    }

    /// As [`new`](Self::new), with a bound on the memory of its connections, which others may
    /// share.
    pub(crate) fn within(
        provider: Arc<dyn Provider>,
        runtime: Arc<dyn Runtime>,
        budget: Arc<Budget>,
    ) -> Result<Arc<Self>, VerbsError> {
        let cm = provider.create_event_channel()?;
        let comp = provider.create_comp_channel()?;
        let lent = Lent::within(provider.limits().registered_max);
        Ok(Arc::new(Self {
            provider,
            runtime,
            cm,
            comp,
            budget,
            lent,
            tokens: AtomicU64::new(1),
            peers: Mutex::default(),
            agenda: Mutex::default(),
            sleeping_until: AtomicU64::new(0),
            registered: RwLock::default(),
        }))
    }

    /// As [`new`](Self::new), on real threads.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn threaded(provider: Arc<dyn Provider>) -> Result<Arc<Self>, VerbsError> {
        Self::new(provider, Arc::new(ThreadRuntime::new()?))
    }

    /// All that hangs on this context and what each part of it is doing or waiting for, for people
    /// who look for the reason of a call that does not return. Waits for no lock, so it may be
    /// asked whatever other threads hang in; what they hold is left out, and says so. The form of
    /// the text is not stable.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = format!("{:?}\n", self.provider);
        let until = self.sleeping_until.load(Ordering::Relaxed);
        let timers = self.agenda.try_lock().map(|agenda| agenda.len());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "progress until {until}, timers {timers:?}");
        let Ok(peers) = self.peers.try_lock() else {
            return text + "the table of connections is in use\n";
        };
        let listening: Vec<_> = peers.listening.values().filter_map(Weak::upgrade).collect();
        let connecting: Vec<_> = peers.connecting.values().cloned().collect();
        let parting = peers.parting.iter().filter_map(Weak::upgrade);
        let conns: Vec<_> = peers.by_queue.values().cloned().chain(parting).collect();
        // The last handle to a listener may be among these, whose end takes the lock.
        drop(peers);
        for listening in listening {
            let _ = writeln!(text, "{listening:?}");
        }
        for connecting in connecting {
            let _ = writeln!(text, "{connecting:?}");
        }
        for conn in conns {
            let _ = write!(text, "{}", Diagnosis(&conn));
        }
        text
    }

    /// What hangs on this context now. Takes the lock of its tables for a moment, and no other.
    pub(crate) fn account(&self) -> Account {
        let (mut account, listening) = {
            let peers = lock(&self.peers);
            let account = Account {
                ended: peers.ended.clone(),
                listening: Vec::new(),
                connecting: peers.connecting.values().cloned().collect(),
                conns: peers.by_queue.values().cloned().collect(),
            };
            let listening = peers.listening.values().filter_map(Weak::upgrade);
            (account, listening.collect::<Vec<_>>())
        };
        // Outside of the lock: the last handle to a listener may be among these.
        let first_here = |it: &Arc<Listening>| std::ptr::eq(&**it.context(), self);
        account.listening = listening.into_iter().filter(first_here).collect();
        account
    }

    /// The provider.
    pub fn provider(&self) -> &dyn Provider {
        &*self.provider
    }

    pub(crate) fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    pub(crate) fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// Readable when [`progress`](Self::progress) has connection management to do.
    pub fn cm_fd(&self) -> BorrowedFd<'_> {
        self.cm.fd()
    }

    /// Readable when [`progress`](Self::progress) has connections to look at.
    pub fn comp_fd(&self) -> BorrowedFd<'_> {
        self.comp.fd()
    }

    /// What the progress loop sleeps on.
    pub(crate) fn channels(&self) -> (Arc<dyn EventChannel>, Arc<dyn CompChannel>) {
        (Arc::clone(&self.cm), Arc::clone(&self.comp))
    }

    pub(crate) fn start_progress(self: &Arc<Self>) -> std::io::Result<()> {
        self.runtime.start_progress(self)
    }

    pub(crate) fn create_id(&self) -> Result<Arc<dyn CmId>, VerbsError> {
        self.provider.create_id(&self.cm)
    }

    pub(crate) fn create_cq(
        &self,
        depth: u32,
        token: CqToken,
    ) -> Result<Arc<dyn CompletionQueue>, VerbsError> {
        self.provider.create_cq(depth, &self.comp, token)
    }

    pub(crate) fn new_token(&self) -> CqToken {
        CqToken(self.tokens.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn remember(&self, conn: &Arc<Conn>, id: CmToken) {
        let mut peers = lock(&self.peers);
        peers.by_id.insert(id, conn.token);
        peers.by_queue.insert(conn.token, Arc::clone(conn));
    }

    /// Events of `id` are a connection's from now on.
    pub(crate) fn add_id(&self, id: CmToken, conn: CqToken) {
        lock(&self.peers).by_id.insert(id, conn);
    }

    /// Events of `id` are nobody's any more.
    pub(crate) fn remove_id(&self, id: CmToken) {
        lock(&self.peers).by_id.remove(&id);
    }

    /// Lets go of a closed connection.
    pub(crate) fn forget(&self, token: CqToken) {
        // A connection's lock comes before that of the table.
        let Some(Parting {
            ids,
            stats,
            memory_refused,
        }) = self.conn(token).map(|conn| conn.parting())
        else {
            return;
        };
        let gone = {
            let mut peers = lock(&self.peers);
            let conn = peers.by_queue.remove(&token);
            for id in &ids {
                peers.by_id.remove(id);
            }
            if conn.is_some() {
                peers.ended.count += 1;
                peers.ended.stats.add(&stats);
                peers.ended.memory_refused += memory_refused;
            }
            if let Some(conn) = conn.as_ref().filter(|conn| conn.is_in_call()) {
                peers.parting.retain(|conn| conn.strong_count() > 0);
                peers.parting.push(Arc::downgrade(conn));
            }
            conn
        };
        // Outside of the lock: dropping a connection drops its queue pair and id.
        drop(gone);
    }

    /// Closes every connection and waits, `linger` in all, until what was written has left. Says on
    /// how many it has not.
    pub(crate) fn close_all(&self, linger: Duration) -> usize {
        let deadline = self.now() + linger;
        let conns: Vec<Arc<Conn>> = lock(&self.peers).by_queue.values().cloned().collect();
        for conn in &conns {
            conn.close();
        }
        let left = conns.iter().filter(|conn| !conn.wait_flushed(deadline));
        left.count()
    }

    /// The connection whose completions come with `token`, unless it was let go of.
    pub(crate) fn conn(&self, token: CqToken) -> Option<Arc<Conn>> {
        lock(&self.peers).by_queue.get(&token).cloned()
    }

    /// The connection that `id` belongs to.
    fn conn_of(&self, id: CmToken) -> Option<Arc<Conn>> {
        let peers = lock(&self.peers);
        peers.by_queue.get(peers.by_id.get(&id)?).cloned()
    }

    pub(crate) fn add_connecting(&self, token: CmToken, connecting: &Arc<Connecting>) {
        lock(&self.peers)
            .connecting
            .insert(token, Arc::clone(connecting));
    }

    pub(crate) fn remove_connecting(&self, token: CmToken) {
        let gone = lock(&self.peers).connecting.remove(&token);
        drop(gone);
    }

    pub(crate) fn add_listening(&self, token: CmToken, listening: &Arc<Listening>) {
        lock(&self.peers)
            .listening
            .insert(token, Arc::downgrade(listening));
    }

    pub(crate) fn remove_listening(&self, token: CmToken) {
        lock(&self.peers).listening.remove(&token);
    }

    /// A connection's handshake is complete, or it is closed: the progress loop, or whoever saw
    /// it, tells who waits. Called with the connection's lock held, so it only leaves a note.
    pub(crate) fn settled(&self, token: CqToken) {
        self.schedule(Instant::from_nanos(0), token);
    }

    /// Asks the progress loop to visit a connection at a time.
    pub(crate) fn schedule(&self, at: Instant, token: CqToken) {
        let has_grown = lock(&self.agenda).add(at, token);
        if has_grown {
            let peers = lock(&self.peers);
            let awaits = |at, token| {
                let conn = peers.by_queue.get(&token);
                conn.is_some_and(|conn| conn.awaits_visit(at))
            };
            lock(&self.agenda).sweep(awaits);
        }
        if at.as_nanos() < self.sleeping_until.load(Ordering::SeqCst) {
            self.runtime.kick_progress();
        }
    }

    /// One round of everything that must go on while no thread is in a call: connection
    /// management, connections with events or timers. Returns when it wants to be called again;
    /// an event on one of the channels is also a reason.
    pub fn progress(&self) -> Option<Instant> {
        self.progress_of(true, true)
    }

    /// As [`progress`](Self::progress), where it is known whether there is something for it on the channel
    /// of connection management, and on that of the connections.
    pub(crate) fn progress_of(&self, cm: bool, comp: bool) -> Option<Instant> {
        self.sleeping_until.store(0, Ordering::SeqCst);
        let mut busy = false;
        // Connection management may have times of its own.
        if cm || self.cm.next_timeout().is_some() {
            busy |= self.manage_events();
        }
        if comp {
            busy |= self.visit_those_with_events();
        }
        self.run_all_timers(busy)
    }

    /// Answers the events of connection management. True if there may be more.
    fn manage_events(&self) -> bool {
        for _ in 0..ROUND_MAX {
            let Some(event) = self.cm.poll() else {
                return false;
            };
            self.manage(event);
        }
        true
    }

    /// Answers the events of connections. True if there may be more.
    fn visit_those_with_events(&self) -> bool {
        // All are taken before the first is visited: one that has an event again by its own visit
        // waits for the next round.
        let others = std::iter::from_fn(|| self.comp.poll_known());
        let events = self.comp.poll().into_iter().chain(others);
        let tokens: SmallVec<[CqToken; 8]> = events.take(ROUND_MAX).collect();
        let busy = tokens.len() == ROUND_MAX;
        for token in tokens {
            self.visit(token, true);
        }
        busy
    }

    /// Runs the timers that are due. `busy`: there is more to do at once.
    fn run_all_timers(&self, busy: bool) -> Option<Instant> {
        let busy = self.run_timers() || busy;
        let next = if busy {
            Some(self.now())
        } else {
            self.next_timer()
        };
        // From here on whoever schedules something earlier kicks us. What was scheduled before
        // that is found by looking once more.
        self.sleeping_until
            .store(next.map_or(u64::MAX, Instant::as_nanos), Ordering::SeqCst);
        let again = self.next_timer();
        match (next, again) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// For tests: how many visits there are, and the time of the next one.
    #[cfg(test)]
    pub(crate) fn visits(&self) -> (usize, Option<Instant>) {
        let agenda = lock(&self.agenda);
        (agenda.len(), agenda.next())
    }

    fn next_timer(&self) -> Option<Instant> {
        let conn = lock(&self.agenda).next();
        let cm = self.cm.next_timeout().map(|d| self.now() + d);
        match (conn, cm) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Visits those whose time has come. One that asks to be visited again at once waits for the
    /// next round, in which the channels come first. True if there are more that are due.
    fn run_timers(&self) -> bool {
        let now = self.now();
        let due = lock(&self.agenda).take_due(now, ROUND_MAX);
        // Every timer is taken before the first visit, which sets the next one.
        let mut visits: SmallVec<[(CqToken, bool); 8]> = SmallVec::new();
        for (at, token) in &due {
            if !self.conn(*token).is_some_and(|conn| conn.take_timer(*at)) {
                continue;
            }
            // At time 0 there are also visits that no alarm was set for.
            let asked = at.as_nanos() == 0;
            match visits.iter_mut().find(|(other, _)| other == token) {
                Some((_, also)) => *also |= asked,
                None => visits.push((*token, asked)),
            }
        }
        for (token, asked) in visits {
            self.visit(token, asked);
        }
        due.len() == ROUND_MAX
    }

    fn visit(&self, token: CqToken, asked: bool) {
        let Some(conn) = self.conn(token) else { return };
        if (conn.is_connected() || conn.is_closed())
            && let Some(tell) = conn.take_on_settled()
        {
            tell(&conn);
        }
        conn.service(asked);
        if (conn.is_connected() || conn.is_closed())
            && let Some(tell) = conn.take_on_settled()
        {
            tell(&conn);
        }
    }

    fn manage(&self, event: CmEvent) {
        let CmEvent { id, kind } = event;
        if let CmEventKind::ConnectRequest {
            id: child,
            private_data,
        } = kind
        {
            let listening = lock(&self.peers).listening.get(&id).and_then(Weak::upgrade);
            match (listening, self.conn_of(id)) {
                (Some(listening), _) => listening.request(self, child, private_data),
                (None, Some(conn)) => {
                    conn.called(child, private_data);
                    self.visit(conn.token, true);
                }
                // Closed in the meantime: dropping the id turns the request down.
                (None, None) => drop(child),
            }
            return;
        }
        let connecting = lock(&self.peers).connecting.get(&id).cloned();
        if let Some(conn) = self.conn_of(id) {
            conn.manage_event(id, kind);
            self.visit(conn.token, true);
        } else if let Some(connecting) = connecting {
            connecting.manage_event(kind);
        } else {
            tracing::debug!(?id, "a connection management event for nobody: {kind:?}");
            // Or for a request that has not been answered yet; these are over whatever comes.
            let listening: Vec<_> = lock(&self.peers).listening.values().cloned().collect();
            for listening in listening.iter().filter_map(Weak::upgrade) {
                listening.withdrawn(id);
            }
        }
    }

    /// Remembers memory that the program got registered.
    pub(crate) fn add_registered(&self, region: &Arc<dyn MemoryRegion>) {
        let at = region.addr().as_ptr() as usize;
        self.registered
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(at, Arc::downgrade(region));
    }

    pub(crate) fn remove_registered(&self, at: usize) {
        self.registered
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&at);
    }

    /// The registered region that holds all of `at..at + len`.
    pub(crate) fn registered(&self, at: usize, len: usize) -> Option<Arc<dyn MemoryRegion>> {
        let registered = self
            .registered
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (start, region) = registered.range(..=at).next_back()?;
        let region = region.upgrade()?;
        (at + len <= start + region.len()).then_some(region)
    }

    /// The bound on what calls have registered.
    pub(crate) fn lent(&self) -> &Arc<Lent> {
        &self.lent
    }

    pub(crate) fn is_registered(&self, at: usize, len: usize) -> bool {
        self.registered(at, len).is_some()
    }
}
