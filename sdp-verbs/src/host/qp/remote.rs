//! The peer's half of a queue pair, as we see it.

use zerocopy::{FromBytes, IntoBytes};

use super::QpDescriptor;
use crate::error::VerbsError;
use crate::host::arm::Call;
use crate::host::layout::{Block, QpPlace};
use crate::host::link::PeerLink;
use crate::host::notice::Notice;
use crate::host::words::MappedSleepWord;
use crate::host::{event, token};
use crate::sync::fence;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

/// The peer's half. Whoever may still touch the peer's memory for this queue pair's sake holds an
/// `Arc` of it; when the last is dropped the peer is told that it may use the memory again.
#[derive(Debug)]
pub(super) struct Remote {
    block: Block,
    cell: MappedSleepWord,
    ready: u16,
    qp: u32,
}

impl Remote {
    /// Checks a descriptor.
    pub(super) fn new(link: &PeerLink, descriptor: &QpDescriptor) -> Result<Self, VerbsError> {
        let broken = |rule: &str| VerbsError::Protocol {
            what: "queue pair of the peer",
            rule: rule.to_owned(),
        };
        let place = QpPlace::read_from_bytes(&descriptor.0)
            .map_err(|_| broken("its descriptor has another length"))?;
        if place.reserved.get() != 0 {
            return Err(broken("its descriptor has bits set that must be zero"));
        }
        let chunk = link
            .peer_chunk(place.block_chunk.get())
            .ok_or_else(|| broken("its block is in a chunk that was not passed"))?;
        let block = usize::try_from(place.block_offset.get())
            .ok()
            .and_then(|at| Block::new(&chunk, at, place.in_log, place.recv_log))
            .ok_or_else(|| broken("its block does not lie within its chunk"))?;
        let chunk = link
            .peer_chunk(place.cell_chunk.get())
            .ok_or_else(|| broken("its wait word is in a chunk that was not passed"))?;
        let cell = usize::try_from(place.cell_offset.get())
            .ok()
            .and_then(|at| MappedSleepWord::new(&chunk, at))
            .ok_or_else(|| broken("its wait word does not lie within its chunk"))?;
        Ok(Self {
            block,
            cell,
            ready: place.ready.get(),
            qp: place.qp.get(),
        })
    }

    /// The peer's block.
    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    /// Where the peer keeps the queue pair, and its number.
    pub(super) fn place(&self) -> (u16, u32) {
        (self.ready, self.qp)
    }

    /// The peer's number of the queue pair.
    pub(super) fn qp(&self) -> u32 {
        self.qp
    }

    /// Whether anybody of the peer's wants to know of what was published before: the cheap half of
    /// [`notify`](Self::notify).
    pub(super) fn is_awaited(&self, notice: Notice, last: u64) -> bool {
        fence(Ordering::SeqCst);
        event::is_armed(&self.cell) || self.block.arm().wants(notice, last)
    }

    /// Wakes whoever of the peer's wants to know of what was published before, the last payload as entry
    /// `last`: by `tokens`, where that is what it wants.
    pub(super) fn notify(
        &self,
        link: &PeerLink,
        (notice, last): (Notice, u64),
        tokens: Option<BorrowedFd<'_>>,
    ) {
        fence(Ordering::SeqCst);
        event::signal(&self.cell);
        let done = match self.block.arm().take(notice, last, tokens.is_some()) {
            None => true,
            Some(Call::Doorbell) => false,
            Some(Call::Token) => {
                let put = tokens.is_some_and(token::put);
                if !put {
                    self.block.arm().withdraw_token();
                }
                put
            }
        };
        if !done {
            link.ring_peer(self.ready);
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.block.say_gone();
    }
}

/// Puts a place into the form that goes over the control socket.
pub(super) fn describe(place: &QpPlace) -> QpDescriptor {
    let mut bytes = [0; super::QP_DESCRIPTOR_LEN];
    bytes.copy_from_slice(place.as_bytes());
    QpDescriptor(bytes)
}
