//! What the programs on both sides do.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sdp_socket::{Builder, Context, RecvFlags, SdpBuffer, SdpStream, SendFlags, ZcopyThreshold};
use sdp_verbs::sim::{Fabric, SimProvider};

use crate::actor::{Actor, wait};
use crate::cli::Peer;
use crate::judge::Bench;
use crate::oracle::{SharedBook, URGENT, fill_pattern};
use crate::plan::{CANCEL_WAIT, Ending, How, Op, Plan, Side, Weather};
use crate::stage::Wings;

/// Where the second machine listens.
pub(crate) const ADDRESS: ([u8; 4], u16) = ([10, 0, 0, 2], 7_000);

/// How long the acceptor waits for a connection.
const ACCEPT_MAX: Duration = Duration::from_secs(300);

/// How much longer than its limit a call may take beside the cancel: processors and links are
/// slow, and others use them too.
const SLOWNESS: u64 = 1_000_000_000;

/// Bytes around memory that is received into.
const GUARD: usize = 16;
const GUARD_BYTE: u8 = 0xC7;
/// What a program writes over memory that is its own again.
const REUSED: u8 = 0xEE;

/// What every program of one side has.
#[derive(Clone)]
pub(crate) struct Stall {
    pub(crate) side: usize,
    pub(crate) plan: Rc<Plan>,
    pub(crate) book: SharedBook,
    pub(crate) bench: Bench,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) node: Arc<SimProvider>,
    pub(crate) context: Arc<Context>,
    pub(crate) wings: Wings,
}

impl Stall {
    fn own(&self) -> &Side {
        &self.plan.sides[self.side]
    }

    fn now(&self) -> u64 {
        u64::try_from(self.node.now().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, time: u64) {
        let until = self.now() + time;
        wait("time to pass", Some(until), || self.now(), || false);
    }

    fn quits(&self) -> bool {
        self.book.borrow().quit[self.side]
    }

    fn violation(&self, what: String) {
        self.book.borrow_mut().violation(what);
    }

    fn builder(&self) -> Builder {
        let side = self.own();
        let threshold = match side.threshold {
            None => ZcopyThreshold::Auto,
            Some(0) => ZcopyThreshold::Off,
            Some(len) => ZcopyThreshold::Bytes(len),
        };
        let builder = Builder::new()
            .context(&self.context)
            .send_buffer_size(side.send_buffer)
            .recv_buffer_size(side.recv_buffer)
            .zcopy_threshold(threshold)
            .cancel_wait(Duration::from_nanos(CANCEL_WAIT))
            .nodelay(side.nodelay)
            .oob_inline(side.oob_inline)
            .version_1(matches!(self.plan.stranger, Some((_, Peer::Gen1))));
        match side.rendezvous_wait {
            Some(wait) => builder.rendezvous_wait(Duration::from_nanos(wait)),
            None => builder,
        }
    }

    /// The program of this side.
    pub(crate) fn actor(self) -> Actor {
        let node = self.side;
        let name = if node == 0 { "connector" } else { "acceptor" };
        Actor::new(name.to_owned(), node, move || self.begin())
    }

    fn begin(self) {
        let stream = if self.side == 0 {
            self.connect()
        } else {
            self.accept()
        };
        match stream {
            Ok(stream) => self.talk(stream),
            Err(error) => {
                let mut book = self.book.borrow_mut();
                let text = book.note_error(self.side, "making the connection", &error);
                book.not_connected[self.side] = Some(text);
            }
        }
    }

    fn connect(&self) -> io::Result<SdpStream> {
        let listening = || self.book.borrow().listening;
        wait("the listener", None, || self.now(), listening);
        self.builder().connect(SocketAddr::from(ADDRESS))
    }

    fn accept(&self) -> io::Result<SdpStream> {
        let listener = self.builder().bind(SocketAddr::from(ADDRESS))?;
        self.book.borrow_mut().listening = true;
        loop {
            match listener.accept_timeout(ACCEPT_MAX) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return Ok(other?.0),
            }
        }
    }

    fn start(
        &self,
        name: &str,
        stream: &Rc<SdpStream>,
        body: impl FnOnce(&Self, &SdpStream) + 'static,
    ) {
        let (stall, stream) = (self.clone(), Rc::clone(stream));
        let name = format!("{name} {}", self.side);
        let actor = Actor::new(name, self.side, move || body(&stall, &stream));
        self.wings.borrow_mut().push(actor);
    }

    fn talk(&self, stream: SdpStream) {
        let stream = Rc::new(stream);
        let both = !self.own().also_sends.is_empty();
        let urgent = !self.own().urgents.is_empty();
        self.book.borrow_mut().ways[self.side].senders =
            1 + usize::from(both) + usize::from(urgent);
        self.start("sender", &stream, |stall, stream| {
            stall.send_all(stream, &stall.own().sends);
        });
        if both {
            self.start("second sender", &stream, |stall, stream| {
                stall.send_all(stream, &stall.own().also_sends);
            });
        }
        if urgent {
            self.start("urgent sender", &stream, |stall, stream| {
                stall.send_all(stream, &stall.own().urgents);
            });
        }
        if !self.own().moves.is_empty() {
            self.start("mover", &stream, Self::move_all);
        }
        self.start("receiver", &stream, Self::receive_all);
        if let Some((_, at, ending)) = self.plan.ending.filter(|(side, ..)| *side == self.side) {
            self.start("ending", &stream, move |stall, stream| {
                stall.sleep(at);
                stall.end(stream, ending);
            });
        }
    }

    fn end(&self, stream: &SdpStream, ending: Ending) {
        let done = match ending {
            Ending::Close => {
                self.book.borrow_mut().quit[self.side] = true;
                Ok(())
            }
            Ending::Abort => {
                self.book.borrow_mut().quit[self.side] = true;
                stream
                    .set_linger(Some(Duration::ZERO))
                    .and_then(|()| stream.shutdown(Shutdown::Both))
            }
            Ending::ShutdownWrite => stream.shutdown(Shutdown::Write),
            Ending::ShutdownRead => stream.shutdown(Shutdown::Read),
        };
        if let Err(error) = done {
            self.book
                .borrow_mut()
                .note_error(self.side, "shutting down", &error);
        }
    }

    fn send_all(&self, stream: &SdpStream, ops: &[Op]) {
        for op in ops {
            if self.quits() {
                return;
            }
            match op {
                Op::Sleep(time) => self.sleep(*time),
                Op::Send(len, how) => {
                    if !self.send(stream, *len, *how) {
                        return;
                    }
                }
                Op::Urgent => {
                    if !self.send_urgent(stream) {
                        return;
                    }
                }
                Op::Recv(..) | Op::Move => {}
            }
        }
        let left = {
            let mut book = self.book.borrow_mut();
            let way = &mut book.ways[self.side];
            way.senders -= 1;
            way.senders
        };
        if left == 0
            && let Err(error) = stream.shutdown(Shutdown::Write)
        {
            self.note_send_error(&error);
        }
    }

    fn move_all(&self, stream: &SdpStream) {
        for op in &self.own().moves {
            if self.quits() {
                return;
            }
            match op {
                Op::Sleep(time) => self.sleep(*time),
                _ => self.migrate(stream),
            }
        }
    }

    fn migrate(&self, stream: &SdpStream) {
        let moved = stream.migrate();
        self.book.borrow_mut().calls += 1;
        self.fabric
            .note("moved", self.side as u64, [u64::from(moved.is_ok()), 0]);
        match moved {
            Ok(()) => {}
            // A signal, or the connection has ended in good order, or another has asked before.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::NotConnected | ErrorKind::WouldBlock
                ) => {}
            Err(error) => self.note_send_error(&error),
        }
    }

    /// An urgent byte. False: there will be no more.
    fn send_urgent(&self, stream: &SdpStream) -> bool {
        self.book.borrow_mut().ways[self.side].urgents.begun += 1;
        loop {
            let sent = stream.send_urgent(&[URGENT]);
            self.book.borrow_mut().calls += 1;
            match sent {
                Ok(count) => {
                    if count != 1 {
                        self.violation(format!("counts: {count} urgent bytes of one"));
                    }
                    self.book.borrow_mut().ways[self.side].urgents.accepted += 1;
                    return true;
                }
                // The write time-out is the other threads', too.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => {
                    self.note_send_error(&error);
                    return false;
                }
            }
        }
    }

    /// At the mark the urgent byte is there to be received out of band, once.
    fn look_at_mark(&self, stream: &SdpStream) {
        if !stream.at_mark().unwrap_or(false) {
            return;
        }
        let found = stream.recv_urgent();
        if !self.book.borrow().ways[1 - self.side]
            .urgents
            .may_find(&found)
        {
            self.violation(format!("mark: side {} found {found:?} there", self.side));
        }
    }

    fn note_send_error(&self, error: &io::Error) {
        let mut book = self.book.borrow_mut();
        let text = book.note_error(self.side, "sending", error);
        book.ways[self.side].send_error = Some(text);
    }

    /// One send call. False: there will be no more.
    fn send(&self, stream: &SdpStream, len: usize, how: How) -> bool {
        let limit = match how {
            How::Limited(limit) => Some(limit),
            _ => None,
        };
        if let Err(error) = stream.set_write_timeout(limit.map(Duration::from_nanos)) {
            self.violation(format!("options: a write time-out: {error}"));
        }
        let began = self.now();
        let nonblocking = how == How::Nonblocking;
        let flags = SendFlags { nonblocking };
        let registered = match how {
            How::Registered => SdpBuffer::with_context(&self.context, len).ok(),
            _ => None,
        };
        // From here to the call nobody else runs: calls take their turns in this order.
        let id = self.book.borrow_mut().ways[self.side].begin(len);
        let result = if let Some(mut buffer) = registered {
            fill_pattern(self.side, id, 0, &mut buffer[..len]);
            let result = stream.send_with(&[IoSlice::new(&buffer[..len])], flags);
            self.is_own_again(&mut buffer[..len]);
            result
        } else {
            let mut memory = vec![0; len];
            fill_pattern(self.side, id, 0, &mut memory);
            let cuts = match how {
                How::Vectored => [len / 3, len / 2],
                _ => [len, len],
            };
            let (first, rest) = memory.split_at(cuts[0]);
            let (second, third) = rest.split_at(cuts[1] - cuts[0]);
            let all = [first, second, third].map(IoSlice::new);
            let result = stream.send_with(&all, flags);
            self.is_own_again(&mut memory);
            result
        };
        self.in_time("send", began, limit);
        self.sent(result, id, len, how)
    }

    /// Memory of a call is the program's own again: it is used anew at once.
    fn is_own_again(&self, memory: &mut [u8]) {
        if let Some(how) = self.fabric.exposed(memory.as_ptr(), memory.len()) {
            self.violation(format!(
                "memory: a call of side {} returned while {how}",
                self.side
            ));
        }
        memory.fill(REUSED);
    }

    fn in_time(&self, what: &str, began: u64, limit: Option<u64>) {
        let took = self.now() - began;
        let jumps = self.plan.faults.jump_max > SLOWNESS;
        if let Some(limit) = limit.filter(|_| !jumps)
            && took > limit + CANCEL_WAIT + SLOWNESS
        {
            self.violation(format!(
                "time: a {what} of side {} limited to {limit} ns took {took} ns",
                self.side
            ));
        }
    }

    fn sent(&self, result: io::Result<usize>, id: u64, len: usize, how: How) -> bool {
        self.book.borrow_mut().calls += 1;
        let (bounded, signals) = (
            matches!(how, How::Nonblocking | How::Limited(_)),
            self.own().signal_every != 0,
        );
        let count = match result {
            Ok(count) => count,
            Err(error) => {
                let may = match error.kind() {
                    ErrorKind::WouldBlock => bounded,
                    ErrorKind::Interrupted => signals,
                    _ => false,
                };
                if !may {
                    self.note_send_error(&error);
                }
                let who = self.side as u64;
                self.fabric.note("send failed", who, [len as u64, 0]);
                self.note_count(id, 0, len);
                return may;
            }
        };
        self.fabric
            .note("sent", self.side as u64, [len as u64, count as u64]);
        let sound = self.plan.weather != Weather::Stormy;
        if count > len || (sound && !bounded && !signals && count != len) {
            self.violation(format!(
                "counts: a send of {len} by side {} ({how:?}) returned {count}",
                self.side
            ));
        }
        self.note_count(id, count, len);
        self.book.borrow_mut().check_room(&self.plan, self.side);
        true
    }

    /// A send of `len` has returned `count`. If the connection broke, more may arrive.
    fn note_count(&self, id: u64, count: usize, len: usize) {
        let most = match self.plan.weather {
            Weather::Stormy => len,
            _ => count,
        };
        let mut book = self.book.borrow_mut();
        if let Err(wrong) = book.ways[self.side].returned(id, count, most) {
            book.violation(wrong);
        }
    }

    fn receive_all(&self, stream: &SdpStream) {
        for op in &self.own().recvs {
            if self.quits() {
                return;
            }
            match op {
                Op::Sleep(time) => self.sleep(*time),
                Op::Recv(len, how) => {
                    if !self.receive(stream, *len, *how) {
                        return;
                    }
                }
                Op::Send(..) | Op::Urgent | Op::Move => {}
            }
        }
        while !self.quits() && self.receive(stream, self.own().last_recv_len, How::Plain) {}
    }

    /// One receive call. False: there will be no more.
    fn receive(&self, stream: &SdpStream, len: usize, how: How) -> bool {
        let limit = match how {
            How::Limited(limit) => Some(limit),
            _ => None,
        };
        if let Err(error) = stream.set_read_timeout(limit.map(Duration::from_nanos)) {
            self.violation(format!("options: a read time-out: {error}"));
        }
        self.receiving(len);
        let began = self.now();
        let flags = RecvFlags {
            nonblocking: how == How::Nonblocking,
            peek: how == How::Peek,
            wait_all: how == How::WaitAll,
        };
        let registered = match how {
            How::Registered => SdpBuffer::with_context(&self.context, len).ok(),
            _ => None,
        };
        let goes_on = if let Some(mut buffer) = registered {
            let memory = &mut buffer[..len];
            let result = stream.recv_with(&mut [IoSliceMut::new(memory)], flags);
            let goes_on = self.received(result, memory, how);
            self.is_own_again(memory);
            goes_on
        } else {
            let mut whole = vec![GUARD_BYTE; len + 2 * GUARD];
            let memory = &mut whole[GUARD..GUARD + len];
            let cut = if how == How::Vectored { len / 3 } else { len };
            let (first, second) = memory.split_at_mut(cut);
            let mut all = [first, second].map(IoSliceMut::new);
            let result = stream.recv_with(&mut all, flags);
            let goes_on = self.received(result, memory, how);
            self.is_own_again(memory);
            self.check_guard(&whole);
            goes_on
        };
        if goes_on {
            self.look_at_mark(stream);
        }
        self.receiving(0);
        self.in_time("receive", began, limit);
        goes_on
    }

    /// A receive with so much room begins, or has ended.
    fn receiving(&self, room: usize) {
        let mut book = self.book.borrow_mut();
        let way = &mut book.ways[1 - self.side];
        way.receiving = room as u64;
        self.bench.judge().receives(self.side, room, way.received);
    }

    fn check_guard(&self, whole: &[u8]) {
        let (front, back) = (&whole[..GUARD], &whole[whole.len() - GUARD..]);
        if front.iter().chain(back).any(|byte| *byte != GUARD_BYTE) {
            self.violation(format!(
                "memory: a receive of side {} wrote beside its memory",
                self.side
            ));
        }
    }

    fn received(&self, result: io::Result<usize>, memory: &[u8], how: How) -> bool {
        let mut book = self.book.borrow_mut();
        book.calls += 1;
        let (side, len) = (self.side, memory.len());
        let count = match result {
            Ok(count) => count,
            Err(error) => {
                let may = match error.kind() {
                    ErrorKind::WouldBlock => matches!(how, How::Nonblocking | How::Limited(_)),
                    ErrorKind::Interrupted => self.own().signal_every != 0,
                    _ => false,
                };
                if !may {
                    let text = book.note_error(side, "receiving", &error);
                    book.ways[1 - side].recv_error = Some(text);
                }
                self.fabric
                    .note("receive failed", side as u64, [len as u64, 0]);
                return may;
            }
        };
        self.fabric
            .note("received", side as u64, [len as u64, count as u64]);
        if count > len {
            book.violation(format!(
                "counts: a receive of {len} by side {side} gave {count}"
            ));
            return false;
        }
        book.check_bytes(side, &memory[..count], how == How::Peek);
        if how == How::Peek {
            // A look at the end leaves an urgent byte before it, which a receive passes over.
            return true;
        }
        if count == 0 {
            book.ways[1 - side].ended = true;
        }
        count > 0
    }
}
