//! Completion queues: where transfers are carried out, and where threads sleep.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::channel::HostChannel;
use super::layout::Block;
use super::link::PeerLink;
use super::plane::Plane;
use super::pool::WaitCell;
use super::qp::HostQp;
use super::wait::{self, SLEEP_WORDS_MAX, Scope, SleepOn};
use super::words::PrivateSleepWord;
use super::{arm, event};
use crate::cq::{ArmFor, ArmToken, CompletionQueue, CqToken, Wake};
use crate::error::VerbsError;
use crate::sync::{Ordering, SleepWord, fence};
use crate::types::QpNum;
use crate::wr::{WcOpcode, WorkCompletion};

/// The words of links that a queue's waiters sleep on, by link.
type Cells = SmallVec<[(u64, Arc<WaitCell>); 1]>;

/// What one call of [`CompletionQueue::poll`] may still do, and what it leaves.
#[derive(Debug)]
pub(crate) struct Work {
    /// A READ or a peer's WRITE may be carried out.
    pub(crate) transfer: bool,
    /// Something is left that a further call could do at once.
    pub(crate) more: bool,
}

/// The polling thread's own copy of the list of queue pairs.
#[derive(Debug, Default)]
struct Polling {
    version: u64,
    qps: Vec<Weak<HostQp>>,
    first: usize,
}

/// A queue pair that completes here. Whoever holds the list's lock must not hold the last `Arc`
/// of a queue pair, whose drop takes that lock; so what is needed under it is here.
#[derive(Debug)]
struct Member {
    number: u32,
    link: u64,
    block: Block,
    /// Entries of its ring that have been taken.
    taken: Arc<AtomicU64>,
    qp: Weak<HostQp>,
}

/// A completion queue.
#[derive(Debug)]
pub(crate) struct HostCq {
    me: Weak<Self>,
    plane: Arc<Plane>,
    channel: Arc<HostChannel>,
    token: CqToken,
    /// Completions that need no look at a ring. Taken after a queue pair's lock.
    local: Mutex<VecDeque<WorkCompletion>>,
    /// How many, to know that there are none without the lock.
    local_count: AtomicUsize,
    qps: Mutex<Vec<Member>>,
    /// The members' blocks are, or were, armed for tokens. Changed under the lock of `qps`.
    token_armed: AtomicBool,
    /// Tokens put that nobody has asked for.
    tokens: AtomicU32,
    /// Counts changes of `qps`.
    version: AtomicU64,
    /// Held by the thread inside `poll`.
    polling: Mutex<Polling>,
    /// What this process's own events are told to.
    own: PrivateSleepWord,
    /// What peers tell theirs to: one word per link.
    cells: RwLock<Cells>,
    /// What the words of links that are gone had counted up to, so that the sum over all never goes
    /// back. Changed and read under the lock of `cells`.
    gone: AtomicU32,
    /// One of the values of `arm.rs`.
    arm: AtomicU8,
    /// Whether the channel has it in its queue.
    queued: AtomicBool,
}

impl HostCq {
    /// A queue whose events go to `channel`, which must be of the same instance.
    pub(crate) fn new(
        plane: &Arc<Plane>,
        depth: u32,
        channel: Arc<HostChannel>,
        token: CqToken,
    ) -> Arc<Self> {
        // The depth is a hint here: what is queued is bounded by the queue pairs' own limits.
        let capacity = usize::try_from(depth.min(64)).unwrap_or(0);
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            plane: Arc::clone(plane),
            channel,
            token,
            local: Mutex::new(VecDeque::with_capacity(capacity)),
            local_count: AtomicUsize::new(0),
            qps: Mutex::default(),
            token_armed: AtomicBool::new(false),
            tokens: AtomicU32::new(0),
            version: AtomicU64::new(0),
            polling: Mutex::default(),
            own: PrivateSleepWord::default(),
            cells: RwLock::default(),
            gone: AtomicU32::new(0),
            arm: AtomicU8::new(arm::NONE),
            queued: AtomicBool::new(false),
        })
    }

    /// Whether it is of this instance.
    pub(crate) fn belongs_to(&self, plane: &Arc<Plane>) -> bool {
        Arc::ptr_eq(&self.plane, plane)
    }

    /// The caller's name for it.
    pub(crate) fn token(&self) -> CqToken {
        self.token
    }

    /// The word that peers of this link wake our waiters by.
    ///
    /// # Errors
    /// [`VerbsError::Limit`].
    pub(crate) fn cell_for(&self, link: &PeerLink) -> Result<Arc<WaitCell>, VerbsError> {
        let mut cells = self.cells.write().expect("nothing panics under this lock");
        if let Some((_, cell)) = cells.iter().find(|(id, _)| *id == link.id()) {
            return Ok(Arc::clone(cell));
        }
        if cells.len() + 1 >= SLEEP_WORDS_MAX {
            return Err(VerbsError::Limit {
                what: "peers of one completion queue",
                limit: (SLEEP_WORDS_MAX - 1).to_string(),
                remedy: "use more completion queues",
            });
        }
        let cell = Arc::new(WaitCell::new(link.pool())?);
        cells.push((link.id(), Arc::clone(&cell)));
        drop(cells);
        // Whoever waits already does not wait for the new word.
        self.event(true);
        Ok(cell)
    }

    /// A queue pair completes here from now on.
    pub(crate) fn add_qp(&self, qp: &Arc<HostQp>) {
        let mut qps = self.qps();
        qp.block().arm().set(self.arm.load(Ordering::SeqCst), 0);
        qps.push(Member {
            number: qp.number(),
            link: qp.link().id(),
            block: qp.block().clone(),
            taken: Arc::clone(qp.taken()),
            qp: Arc::downgrade(qp),
        });
        self.version.fetch_add(1, Ordering::Release);
    }

    /// A queue pair is gone, and what it left behind with it.
    pub(crate) fn remove_qp(&self, qp: u32, link: u64) {
        let mut qps = self.qps();
        if self.token_armed.load(Ordering::Relaxed) {
            for member in qps.iter().filter(|member| member.number == qp) {
                self.replace_token_arm(member, arm::NONE);
            }
        }
        qps.retain(|member| member.number != qp);
        let link_used = qps.iter().any(|member| member.link == link);
        drop(qps);
        self.version.fetch_add(1, Ordering::Release);
        let mut local = self.local();
        local.retain(|wc| wc.qp != QpNum(qp));
        self.local_count.store(local.len(), Ordering::Relaxed);
        drop(local);
        if !link_used {
            let mut cells = self.cells.write().expect("nothing panics under this lock");
            let (gone, kept): (Cells, Cells) = std::mem::take(&mut *cells)
                .into_iter()
                .partition(|(id, _)| *id == link);
            *cells = kept;
            for (_, cell) in &gone {
                let counted = cell.word().load(Ordering::Acquire);
                self.gone.fetch_add(counted, Ordering::Relaxed);
            }
            drop(cells);
            self.event_beside(true, &gone);
        }
    }

    fn qps(&self) -> MutexGuard<'_, Vec<Member>> {
        self.qps.lock().expect("nothing panics under this lock")
    }

    fn local(&self) -> MutexGuard<'_, VecDeque<WorkCompletion>> {
        self.local.lock().expect("nothing panics under this lock")
    }

    /// Queues a completion; an [`event`](Self::event) must follow once locks are given back.
    pub(crate) fn push(&self, wc: WorkCompletion) {
        let mut local = self.local();
        local.push_back(wc);
        self.local_count.store(local.len(), Ordering::Relaxed);
    }

    /// Tells whoever armed that there is something to poll. `solicited`: it counts for a channel
    /// that asked for solicited events only.
    pub(crate) fn event(&self, solicited: bool) {
        self.event_beside(solicited, &Cells::new());
    }

    /// The same, where somebody may still sleep on words that are `gone`: a limited sleep is on the
    /// word of a single link, and on no other.
    fn event_beside(&self, solicited: bool, gone: &Cells) {
        fence(Ordering::SeqCst);
        self.signal_words(gone);
        let arm = self.arm.load(Ordering::Relaxed);
        if matches!(arm, arm::ANY | arm::TOKEN) || (arm == arm::SOLICITED && solicited) {
            self.raise();
        }
    }

    fn signal_words(&self, gone: &Cells) {
        let cells = self.cells.read().expect("nothing panics under this lock");
        let all = cells.iter().chain(gone);
        event::signal_all(&self.own, all.map(|(_, cell)| cell.word()));
    }

    fn raise(&self) {
        if self.arm.swap(arm::NONE, Ordering::AcqRel) != arm::NONE
            && !self.queued.swap(true, Ordering::AcqRel)
        {
            self.channel.push(Weak::clone(&self.me));
        }
    }

    /// A peer took the arm of one of the queue pairs and rang.
    pub(crate) fn doorbell(&self) {
        if self.arm.load(Ordering::Relaxed) != arm::NONE {
            self.set_arms(arm::NONE);
            if !self.queued.swap(true, Ordering::AcqRel) {
                self.channel.push(Weak::clone(&self.me));
            }
        }
    }

    /// The channel took it out of its queue.
    pub(crate) fn event_taken(&self) {
        self.queued.store(false, Ordering::Release);
    }

    fn set_arms(&self, arm: u8) {
        let qps = self.qps();
        self.arm.store(arm, Ordering::SeqCst);
        if self.token_armed.swap(arm == arm::TOKEN, Ordering::Relaxed) {
            for member in &*qps {
                self.replace_token_arm(member, arm);
            }
        } else {
            for member in &*qps {
                let taken = member.taken.load(Ordering::Relaxed);
                member.block.arm().set(arm, taken);
            }
        }
        drop(qps);
        fence(Ordering::SeqCst);
    }

    fn replace_token_arm(&self, member: &Member, arm: u8) {
        let taken = member.taken.load(Ordering::Relaxed);
        if member.block.arm().replace_token(arm, taken) {
            self.tokens.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Moves what needs no look at a ring.
    fn take_local(&self, out: &mut [WorkCompletion], polling: &Polling) -> usize {
        if self.local_count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut local = self.local();
        let count = out.len().min(local.len());
        for (to, wc) in out.iter_mut().zip(local.drain(..count)) {
            *to = wc;
        }
        self.local_count.store(local.len(), Ordering::Relaxed);
        drop(local);
        for wc in out.iter().take(count) {
            if wc.opcode != WcOpcode::Recv {
                polling.send_taken(wc.qp);
            }
        }
        count
    }

    fn refresh(&self, polling: &mut Polling) {
        let version = self.version.load(Ordering::Acquire);
        if polling.version != version {
            polling.version = version;
            polling.qps = self.qps().iter().map(|m| Weak::clone(&m.qp)).collect();
        }
    }

    /// The earliest time at which a queue pair gives up waiting for a receive.
    fn rnr_deadline(&self) -> Option<Instant> {
        let qps: SmallVec<[Arc<HostQp>; 2]> =
            self.qps().iter().filter_map(|m| m.qp.upgrade()).collect();
        qps.iter().filter_map(|qp| qp.rnr_deadline()).min()
    }
}

impl Polling {
    fn send_taken(&self, number: QpNum) {
        for qp in &self.qps {
            if let Some(qp) = qp.upgrade()
                && qp.number() == number.0
            {
                qp.send_taken();
                return;
            }
        }
    }
}

impl CompletionQueue for HostCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let Ok(mut polling) = self.polling.try_lock() else {
            return 0;
        };
        self.refresh(&mut polling);
        let mut filled = self.take_local(out, &polling);
        let mut work = Work {
            transfer: true,
            more: false,
        };
        let count = polling.qps.len();
        let first = polling.first;
        for step in 0..count {
            let Some(qp) = polling.qps[(first + step) % count].upgrade() else {
                continue;
            };
            filled += qp.poll(&mut out[filled..], &mut work);
        }
        polling.first = if count == 0 { 0 } else { (first + 1) % count };
        if filled < out.len() {
            filled += self.take_local(&mut out[filled..], &polling);
        }
        drop(polling);
        if work.more && filled < out.len() {
            // The caller may take a short answer for an empty queue and sleep.
            self.event(true);
        }
        filled
    }

    fn arm(&self, who: ArmFor) -> ArmToken {
        match who {
            ArmFor::Waiter => {
                let cells = self.cells.read().expect("nothing panics under this lock");
                let words = cells.iter().map(|(_, cell)| cell.word());
                let (own, sum) = event::arm_all(&self.own, words);
                let sum = sum.wrapping_add(self.gone.load(Ordering::Relaxed));
                return ArmToken(event::token((own, sum)));
            }
            ArmFor::Channel => self.set_arms(arm::ANY),
            ArmFor::ChannelSolicited => self.set_arms(arm::SOLICITED),
            ArmFor::Token => self.set_arms(arm::TOKEN),
        }
        ArmToken(event::token((self.own.load(Ordering::Acquire), 0)))
    }

    fn disarm_channel(&self) {
        self.set_arms(arm::NONE);
    }

    fn recall_tokens(&self) -> u32 {
        if self.token_armed.load(Ordering::Relaxed) {
            // What comes for the channel meanwhile must not be missed.
            self.set_arms(arm::ANY);
        }
        if self.tokens.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.tokens.swap(0, Ordering::Relaxed)
    }

    fn wait(&self, token: ArmToken, timeout: Option<Duration>) -> io::Result<Wake> {
        let (cells, gone): (SmallVec<[Arc<WaitCell>; 1]>, u32) = {
            let cells = self.cells.read().expect("nothing panics under this lock");
            let gone = self.gone.load(Ordering::Relaxed);
            let cells = cells.iter().map(|(_, cell)| Arc::clone(cell));
            (cells.collect(), gone)
        };
        let own = SleepOn {
            word: self.own.atomic(),
            value: self.own.load(Ordering::Acquire),
            scope: Scope::Private,
        };
        let mut words: SmallVec<[SleepOn<'_>; 2]> = cells
            .iter()
            .map(|cell| SleepOn {
                word: cell.word().atomic(),
                value: cell.word().load(Ordering::Acquire),
                scope: Scope::Shared,
            })
            .collect();
        let sum = words
            .iter()
            .fold(gone, |sum, on| sum.wrapping_add(on.value));
        let seen = event::token((own.value, sum));
        words.push(own);
        if seen != token.0 {
            return Ok(Wake::Event);
        }
        let rnr = self
            .rnr_deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(rnr) = rnr
            && timeout.is_none_or(|t| rnr < t)
        {
            let wake = sleep_on(&words, Some(rnr))?;
            // Time for the queue pair to give up is an event to poll for.
            return Ok(if wake == Wake::TimedOut {
                Wake::Event
            } else {
                wake
            });
        }
        sleep_on(&words, timeout)
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        self.signal_words(&Cells::new());
    }
}

/// Sleeps on all words; a limited sleep for one link, on that link's word alone: local events are
/// told to it too, and only a single word has the system call that every signal ends. The
/// unlimited one includes our own word, which no peer can scribble on.
fn sleep_on(words: &[SleepOn<'_>], timeout: Option<Duration>) -> io::Result<Wake> {
    match words {
        [link, _own] if timeout.is_some() => wait::sleep(std::slice::from_ref(link), timeout),
        _ => wait::sleep(words, timeout),
    }
}
