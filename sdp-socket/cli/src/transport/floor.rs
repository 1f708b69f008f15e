//! What this machine can do between two processes, without a protocol: the floors.
//!
//! *Ring*: two copies, 64 KiB × 4 slots of shared memory in each direction. *Single copy*: the
//! sender's buffer lies in shared memory, the receiver copies it into its own heap buffer, and the
//! sender waits until it has. Both wait as the library does: about 1 µs of pauses, up to 20 µs of
//! yields, then a futex. They are streams only so far as the measurements need it.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::thread::futex;

use super::shm::Segment;
use super::{Buffer, Conn, Counters, Listener, Transport, heap, uds};

/// Pauses before the first yield, about 1 µs.
const PAUSES: u32 = 64;
/// Pauses between two yields.
const PAUSES_PER_YIELD: u32 = 16;
/// How long to yield before sleeping.
const YIELD_FOR: Duration = Duration::from_micros(20);
/// How often a sleeper looks whether the peer still lives.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of the control block of each direction.
const CONTROL_LEN: usize = 1024;
/// Bytes of one ring slot.
const SLOT_LEN: usize = 64 << 10;
/// Slots of one direction of a ring.
const SLOT_COUNT: usize = 4;
/// Bytes of the area through which single copy sends what is not in shared memory.
const STAGING_LEN: usize = 4096;
/// Start of the slots or staging areas.
const AREAS: usize = 4096;

/// One of the floors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    slots: usize,
    slot_len: usize,
    /// Bytes of the connecting side's payload that lie in shared memory; 0 for a ring.
    own_len: usize,
}

impl Floor {
    /// One copy, for messages of `size` bytes.
    pub(super) fn single(size: usize) -> Self {
        Self {
            shape: Shape {
                slots: 1,
                slot_len: STAGING_LEN,
                own_len: size,
            },
        }
    }

    /// Two copies.
    pub(super) fn ring() -> Self {
        Self {
            shape: Shape {
                slots: SLOT_COUNT,
                slot_len: SLOT_LEN,
                own_len: 0,
            },
        }
    }
}

impl Shape {
    fn area_len(self) -> usize {
        self.slots * self.slot_len
    }

    fn own_at(self) -> usize {
        AREAS + 2 * self.area_len()
    }

    fn len(self) -> usize {
        self.own_at() + self.own_len
    }
}

impl Transport for Floor {
    fn listen(&self, _near: IpAddr) -> io::Result<Box<dyn Listener>> {
        let (listener, name) = uds::listen()?;
        Ok(Box::new(Accepting {
            listener,
            name,
            shape: self.shape,
        }))
    }

    fn connect(&self, address: &str) -> io::Result<Box<dyn Conn>> {
        let link = uds::connect(address)?;
        let segment = Segment::create(self.shape.len())?;
        pass(&link, &segment)?;
        Ok(Box::new(Shared::new(link, segment, self.shape, 0)?))
    }
}

fn pass(link: &UnixStream, segment: &Segment) -> io::Result<()> {
    use std::os::fd::AsFd;
    let fds = [segment.file().as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(
        link,
        &[IoSlice::new(&[0])],
        &mut ancillary,
        SendFlags::empty(),
    )?;
    Ok(())
}

#[derive(Debug)]
struct Accepting {
    listener: UnixListener,
    name: String,
    shape: Shape,
}

impl Listener for Accepting {
    fn address(&self) -> io::Result<String> {
        Ok(self.name.clone())
    }

    fn accept(&self) -> io::Result<Box<dyn Conn>> {
        let (link, _) = self.listener.accept()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(
            &link,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let fd = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .next();
        let fd = fd.ok_or_else(|| io::Error::other("the peer passed no shared memory"))?;
        let segment = Segment::open(fd, self.shape.len())?;
        Ok(Box::new(Shared::new(link, segment, self.shape, 1)?))
    }
}

/// One end of a floor.
#[derive(Debug)]
struct Shared {
    link: UnixStream,
    segment: Segment,
    shape: Shape,
    /// 0: the connecting side, 1: the accepting side. Also the direction that this side sends in.
    side: usize,
    /// Bytes of the slot at the tail that were read already; used by the reading thread only.
    taken: AtomicUsize,
    /// Where the payload buffer that lies in shared memory is mapped for this process.
    own: OnceLock<usize>,
}

/// The words of one direction, each in a cache line of its own.
struct Direction<'a> {
    segment: &'a Segment,
    base: usize,
}

impl Direction<'_> {
    /// Slots filled so far.
    fn head(&self) -> &AtomicU32 {
        self.segment.word(self.base)
    }

    /// Slots emptied so far.
    fn tail(&self) -> &AtomicU32 {
        self.segment.word(self.base + 128)
    }

    /// Whether somebody sleeps on the head.
    fn head_asleep(&self) -> &AtomicU32 {
        self.segment.word(self.base + 256)
    }

    /// Whether somebody sleeps on the tail.
    fn tail_asleep(&self) -> &AtomicU32 {
        self.segment.word(self.base + 384)
    }

    /// Where the bytes of a slot begin.
    fn offset(&self, slot: usize) -> &AtomicU32 {
        self.segment.word(self.base + 512 + slot * 64)
    }

    /// How many bytes a slot holds.
    fn len(&self, slot: usize) -> &AtomicU32 {
        self.segment.word(self.base + 516 + slot * 64)
    }
}

impl Shared {
    fn new(link: UnixStream, segment: Segment, shape: Shape, side: usize) -> io::Result<Self> {
        // Only the end of the stream is ever read from it.
        link.set_nonblocking(true)?;
        Ok(Self {
            link,
            segment,
            shape,
            side,
            taken: AtomicUsize::new(0),
            own: OnceLock::new(),
        })
    }

    fn direction(&self, side: usize) -> Direction<'_> {
        Direction {
            segment: &self.segment,
            base: side * CONTROL_LEN,
        }
    }

    /// Waits until `ready`; `word` is what changes then. False if the peer is gone.
    fn wait(
        &self,
        word: &AtomicU32,
        asleep: &AtomicU32,
        ready: impl Fn() -> bool,
    ) -> io::Result<bool> {
        for _ in 0..PAUSES {
            if ready() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        while begin.elapsed() < YIELD_FOR {
            std::thread::yield_now();
            for _ in 0..PAUSES_PER_YIELD {
                if ready() {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
        }
        let timeout = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_AGAIN.subsec_nanos().into(),
        };
        loop {
            let seen = word.load(Ordering::Acquire);
            asleep.store(1, Ordering::Relaxed);
            // Pairs with the fence in `publish`: either it sees the sleeper, or we see its store.
            fence(Ordering::SeqCst);
            if ready() {
                return Ok(true);
            }
            match futex::wait(word, futex::Flags::empty(), seen, Some(&timeout)) {
                Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::TIMEDOUT) if !self.peer_lives()? => return Ok(ready()),
                Err(rustix::io::Errno::TIMEDOUT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn peer_lives(&self) -> io::Result<bool> {
        match (&self.link).read(&mut [0]) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where `buf` lies in the shared memory, if it does.
    fn shared_offset(&self, buf: &[u8]) -> Option<usize> {
        let start = (buf.as_ptr() as usize).checked_sub(*self.own.get()?)?;
        let end = start.checked_add(buf.len())?;
        (end <= self.shape.own_len).then(|| self.shape.own_at() + start)
    }
}

/// Counts one more and wakes who sleeps on it.
fn publish(word: &AtomicU32, asleep: &AtomicU32) -> io::Result<()> {
    // Only this side stores this word.
    word.store(
        word.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Release,
    );
    fence(Ordering::SeqCst);
    if asleep.load(Ordering::Relaxed) != 0 {
        asleep.store(0, Ordering::Relaxed);
        futex::wake(word, futex::Flags::empty(), 1)?;
    }
    Ok(())
}

/// A count or offset in shared memory. Shared memory of more than 4 GiB is refused before.
fn small(value: usize) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Conn for Shared {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let from = self.direction(1 - self.side);
        let tail = from.tail().load(Ordering::Relaxed);
        let filled = || from.head().load(Ordering::Acquire) != tail;
        if !self.wait(from.head(), from.head_asleep(), filled)? {
            return Ok(0);
        }
        let slot = tail as usize % self.shape.slots;
        let offset = from.offset(slot).load(Ordering::Relaxed) as usize;
        let len = from.len(slot).load(Ordering::Relaxed) as usize;
        let taken = self.taken.load(Ordering::Relaxed);
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.shape.len());
        if !inside || taken >= len {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let count = buf.len().min(len - taken);
        self.segment.copy_out(offset + taken, &mut buf[..count]);
        if taken + count == len {
            self.taken.store(0, Ordering::Relaxed);
            publish(from.tail(), from.tail_asleep())?;
        } else {
            self.taken.store(taken + count, Ordering::Relaxed);
        }
        Ok(count)
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let to = self.direction(self.side);
        let head = to.head().load(Ordering::Relaxed);
        let slots = self.shape.slots;
        let free = || (head.wrapping_sub(to.tail().load(Ordering::Acquire)) as usize) < slots;
        if !self.wait(to.tail(), to.tail_asleep(), free)? {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let slot = head as usize % slots;
        let (offset, count) = if let Some(offset) = self.shared_offset(buf) {
            (offset, buf.len())
        } else {
            let area = AREAS + self.side * self.shape.area_len() + slot * self.shape.slot_len;
            let count = buf.len().min(self.shape.slot_len);
            self.segment.copy_in(area, &buf[..count]);
            (area, count)
        };
        to.offset(slot).store(small(offset)?, Ordering::Relaxed);
        to.len(slot).store(small(count)?, Ordering::Relaxed);
        publish(to.head(), to.head_asleep())?;
        if self.shape.own_len > 0 {
            // The caller may reuse its buffer when this returns.
            let emptied = || to.tail().load(Ordering::Acquire) == head.wrapping_add(1);
            if !self.wait(to.tail(), to.tail_asleep(), emptied)? {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(count)
    }

    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    fn buffer(&self, len: usize) -> io::Result<Buffer> {
        if self.side != 0 || self.shape.own_len != len {
            return Ok(heap(len));
        }
        let part = self.segment.own_part(self.shape.own_at(), len)?;
        match self.own.set(part.as_ptr() as usize) {
            Ok(()) => Ok(Box::new(part)),
            // There is one such buffer; a second one is ordinary memory.
            Err(_) => Ok(heap(len)),
        }
    }

    fn counters(&self) -> Option<Counters> {
        None
    }
}
