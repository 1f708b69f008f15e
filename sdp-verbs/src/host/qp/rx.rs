//! The receiving half of a queue pair: posted receives, and what came into them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::remote::Remote;
use crate::error::{PostError, VerbsError};
use crate::host::layout::{Block, IN_WORDS, Inbound, PostedSlot, RECV_WORDS};
use crate::host::pool::{Area, LocalPool, Retired, WaitCell};
use crate::host::ring::{RingReader, RingWriter};
use crate::host::words::MappedWords;
use crate::memory::{ForeignSlice, RecvBuf};
use crate::types::WrId;

/// A receive buffer. Its memory stays in place while its state changes.
#[derive(Debug)]
struct Slot {
    area: Area,
    /// Bytes of the receive.
    len: usize,
    state: SlotState,
}

/// Who may use a receive buffer.
#[derive(Debug)]
enum SlotState {
    /// The program has it.
    Held,
    /// The peer may fill it.
    Posted {
        wr_id: WrId,
        order: u64,
        /// The program dropped it meanwhile.
        dropped: bool,
    },
    /// Its receive was flushed: the peer may still write into it, so the memory rests until the
    /// peer says that it is done.
    Resting,
}

#[derive(Debug)]
pub(super) struct Rx {
    ring: RingReader<MappedWords, IN_WORDS>,
    posted: RingWriter<MappedWords, RECV_WORDS>,
    /// `None`: the number is free.
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    posted_count: u32,
    posted_ever: u64,
    /// Receives may be posted and messages come in.
    pub(super) open: bool,
    /// Set while connected.
    pub(super) remote: Option<Arc<Remote>>,
}

/// A message that has come into a posted receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) wr_id: WrId,
    /// Bytes of the receive.
    pub(super) len: usize,
}

/// The receiving half and its memory. It lives until the queue pair and every buffer allocated
/// from it are gone.
#[derive(Debug)]
pub(super) struct RxCore {
    rx: Mutex<Rx>,
    block: Block,
    block_area: Area,
    cell: Arc<WaitCell>,
    pool: Arc<LocalPool>,
    /// The peer has been told of the block and may use it.
    exposed: AtomicBool,
    /// Ring entries taken: the polling thread's own note, to look at the ring without the lock.
    taken: Arc<AtomicU64>,
}

/// Keeps one buffer's memory.
#[derive(Debug)]
struct SlotKeep {
    core: Arc<RxCore>,
    slot: u32,
}

impl Drop for SlotKeep {
    fn drop(&mut self) {
        self.core.let_go(self.slot);
    }
}

impl RxCore {
    /// The memory of a queue pair with room for `recv_max` posted receives.
    pub(super) fn new(
        pool: &Arc<LocalPool>,
        cell: Arc<WaitCell>,
        in_log: u8,
        recv_log: u8,
    ) -> Result<Self, VerbsError> {
        let block_area = pool.alloc(Block::len(in_log, recv_log))?;
        let block = Block::new(&block_area.map, block_area.offset, in_log, recv_log)
            .expect("an area of a block's length holds one");
        block.clear();
        let (in_words, in_log) = block.in_ring();
        let (recv_words, recv_log) = block.recv_ring();
        let rx = Rx {
            ring: RingReader::new(in_words, in_log),
            posted: RingWriter::new(recv_words, recv_log),
            slots: Vec::new(),
            free: Vec::new(),
            posted_count: 0,
            posted_ever: 0,
            open: true,
            remote: None,
        };
        Ok(Self {
            rx: Mutex::new(rx),
            block,
            block_area,
            cell,
            pool: Arc::clone(pool),
            exposed: AtomicBool::new(false),
            taken: Arc::default(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Rx> {
        self.rx.lock().expect("nothing panics under this lock")
    }

    /// Ring entries taken, for who arms.
    pub(super) fn taken(&self) -> &Arc<AtomicU64> {
        &self.taken
    }

    /// Whether something has come in. A look by the polling thread.
    pub(super) fn has_inbound(&self) -> bool {
        self.block.has_inbound(self.taken.load(Ordering::Relaxed))
    }

    /// Done with what was peeked at.
    pub(super) fn advance(&self, rx: &mut Rx) {
        rx.ring.advance();
        self.taken.store(rx.ring.taken(), Ordering::Relaxed);
    }

    /// Our block.
    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    /// Where our block and our wait word are. From now on the peer may touch them.
    pub(super) fn expose(&self) -> (&Area, &Area) {
        self.exposed.store(true, Ordering::Release);
        (&self.block_area, self.cell.area())
    }

    /// The peer never will touch them.
    pub(super) fn unexpose(&self) {
        self.exposed.store(false, Ordering::Release);
    }

    /// Memory for a receive of up to `len` bytes.
    pub(super) fn alloc(self: &Arc<Self>, qp: u32, len: usize) -> Result<RecvBuf, VerbsError> {
        let area = self.pool.alloc(len)?;
        let mem = slice_of(&area, len);
        let mut rx = self.lock();
        let slot = match rx.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(rx.slots.len()).map_err(|_| VerbsError::Limit {
                    what: "receive buffers of a queue pair",
                    limit: u32::MAX.to_string(),
                    remedy: "drop some",
                })?;
                rx.slots.push(None);
                slot
            }
        };
        *rx.place_mut(slot).expect("it was just taken") = Some(Slot {
            area,
            len,
            state: SlotState::Held,
        });
        drop(rx);
        let keep = Arc::new(SlotKeep {
            core: Arc::clone(self),
            slot,
        });
        Ok(RecvBuf::new(
            mem,
            u64::from(qp) << 32 | u64::from(slot),
            keep,
        ))
    }

    fn let_go(&self, number: u32) {
        let mut rx = self.lock();
        let Some(slot) = rx.slot_mut(number) else {
            return;
        };
        match &mut slot.state {
            SlotState::Resting => {}
            SlotState::Posted { dropped, .. } => *dropped = true,
            SlotState::Held => {
                let area = rx.release(number);
                drop(rx);
                if let Some(area) = area {
                    self.pool.free(&area);
                }
            }
        }
    }

    /// The posted receive `number` has been filled, or will never be.
    pub(super) fn complete(&self, rx: &mut Rx, number: u32) -> Option<Received> {
        let slot = rx.slot_mut(number)?;
        let SlotState::Posted { wr_id, dropped, .. } = slot.state else {
            return None;
        };
        let received = Received {
            wr_id,
            len: slot.len,
        };
        slot.state = SlotState::Held;
        rx.posted_count -= 1;
        if dropped && let Some(area) = rx.release(number) {
            self.pool.free(&area);
        }
        Some(received)
    }
}

impl Drop for RxCore {
    fn drop(&mut self) {
        let rx = self.rx.get_mut().expect("nothing panics under this lock");
        rx.remote = None;
        let mut areas = vec![self.block_area.clone()];
        for slot in rx.slots.drain(..) {
            areas.extend(slot.map(|slot| slot.area));
        }
        if self.exposed.load(Ordering::Acquire) {
            self.pool.retire(Retired {
                block: self.block.clone(),
                areas,
                _cell: Arc::clone(&self.cell),
            });
        } else {
            for area in &areas {
                self.pool.free(area);
            }
        }
    }
}

impl Rx {
    fn place_mut(&mut self, number: u32) -> Option<&mut Option<Slot>> {
        self.slots.get_mut(usize::try_from(number).ok()?)
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.place_mut(number)?.as_mut()
    }

    /// Frees a number; the caller frees its memory.
    fn release(&mut self, number: u32) -> Option<Area> {
        let slot = self.place_mut(number)?.take()?;
        self.free.push(number);
        Some(slot.area)
    }

    /// Posts a buffer that the program holds.
    pub(super) fn post(&mut self, wr_id: WrId, number: u32, max: u32) -> Result<(), PostError> {
        if !self.open {
            return Err(PostError::WrongState);
        }
        if self.posted_count >= max {
            return Err(PostError::QueueFull);
        }
        let order = self.posted_ever;
        let slot = self.slot_mut(number).ok_or(PostError::LocalProtection)?;
        if !matches!(slot.state, SlotState::Held) {
            return Err(PostError::LocalProtection);
        }
        let posted = PostedSlot {
            slot: number,
            chunk: slot.area.chunk,
            offset: slot.area.offset as u64,
            len: slot.len as u64,
        };
        slot.state = SlotState::Posted {
            wr_id,
            order,
            dropped: false,
        };
        self.posted_count += 1;
        self.posted_ever += 1;
        self.posted.push(&posted.to_words());
        Ok(())
    }

    /// The next thing the peer published: `Some(None)` is something unknown.
    pub(super) fn peek(&self) -> Option<Option<Inbound>> {
        let words = self.ring.peek()?;
        Some(Inbound::from_words(&words))
    }

    /// Takes every posted receive back, oldest first. Their memory rests.
    pub(super) fn flush(&mut self) -> Vec<WrId> {
        self.open = false;
        let mut flushed: Vec<(u64, WrId)> = Vec::new();
        for slot in self.slots.iter_mut().flatten() {
            if let SlotState::Posted { wr_id, order, .. } = slot.state {
                flushed.push((order, wr_id));
                slot.state = SlotState::Resting;
            }
        }
        self.posted_count = 0;
        flushed.sort_unstable_by_key(|(order, _)| *order);
        flushed.into_iter().map(|(_, wr_id)| wr_id).collect()
    }
}

fn slice_of(area: &Area, len: usize) -> ForeignSlice {
    area.map
        .part(area.offset, len)
        .expect("an area lies within its chunk")
}
