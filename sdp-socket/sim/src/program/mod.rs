//! What the programs on both sides do.

mod recv;
mod send;

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sdp_socket::{Builder, Context, SdpStream, ZcopyThreshold};
use sdp_verbs::sim::{Fabric, Fault, SimProvider};

use crate::actor::{Actor, wait};
use crate::cli::Peer;
use crate::judge::{ABORT, Bench, CLOSE, SHUTDOWN};
use crate::oracle::SharedBook;
use crate::plan::{CANCEL_WAIT, Cut, Ending, GivenUp, How, Moment, Op, Plan, Side};
use crate::stage::Wings;

/// Where the second machine listens.
pub(crate) const ADDRESS: ([u8; 4], u16) = ([10, 0, 0, 2], 7_000);

/// How long the acceptor waits for a connection.
const ACCEPT_MAX: Duration = Duration::from_secs(300);

/// How much longer than its limit a call may take beside the cancel: processors and links are
/// slow, and others use them too.
const SLOWNESS: u64 = 1_000_000_000;

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
        let to = SocketAddr::from(ADDRESS);
        let Some(GivenUp::Connect(limit)) = self.plan.given_up else {
            return self.builder().connect(to);
        };
        let limit = Duration::from_nanos(limit);
        let stream = self.builder().connect_timeout(&to, limit);
        if stream
            .as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::TimedOut)
        {
            self.fabric.happened(Fault::ProgramTimesOut);
            self.bench.was_ended_by(self.side, ABORT);
        }
        stream
    }

    fn accept(&self) -> io::Result<SdpStream> {
        let listener = self.builder().bind(SocketAddr::from(ADDRESS))?;
        self.book.borrow_mut().listening = true;
        if let Some(GivenUp::Listen(time)) = self.plan.given_up {
            self.sleep(time);
            self.fabric.happened(Fault::ProgramCloses);
            let drop_it = || drop(listener);
            self.bench.while_acting(self.side, ABORT, drop_it);
            return Err(io::Error::other("nobody wanted to accept"));
        }
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
        let actor = Actor::new(name, self.side, move || {
            body(&stall, &stream);
            stall.lets_go(stream);
        });
        self.wings.borrow_mut().push(actor);
    }

    /// The last one to let go of the stream closes it.
    fn lets_go(&self, stream: Rc<SdpStream>) {
        if let Some(last) = Rc::into_inner(stream) {
            let close = || drop(last);
            self.bench.while_acting(self.side, CLOSE, close);
        }
    }

    /// Whether the program has a descriptor to wait on: its sends that do not block may be cut short then.
    fn polls(&self) -> bool {
        let nonblocking = |op: &Op| matches!(op, Op::Send(_, How::Nonblocking));
        self.own().nodelay && self.own().sends.iter().any(nonblocking)
    }

    fn talk(&self, stream: SdpStream) {
        if self.polls()
            && let Err(error) = stream.readiness()
        {
            self.violation(format!("readiness: {error}"));
        }
        let stream = Rc::new(stream);
        let both = !self.own().also_sends.is_empty();
        let urgent = !self.own().urgents.is_empty();
        {
            let ways = &mut self.book.borrow_mut().ways;
            ways[self.side].senders = 1 + usize::from(both) + usize::from(urgent);
            ways[1 - self.side].urgents.inline = self.own().oob_inline;
        }
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
        if let Some(cut) = self.plan.cut.filter(|cut| cut.side == self.side) {
            self.start("cut", &stream, move |stall, stream| stall.cut(stream, cut));
        }
        self.lets_go(stream);
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

    fn cut(&self, stream: &SdpStream, cut: Cut) {
        let has_come = || match cut.when {
            Moment::After(_) => false,
            Moment::Said {
                side, message, nth, ..
            } => self.bench.judge().has_said(side, message) >= nth,
        };
        let until = self.now() + cut.when.latest();
        wait("its moment", Some(until), || self.now(), has_come);
        self.end(stream, cut.how);
    }

    fn end(&self, stream: &SdpStream, ending: Ending) {
        self.fabric.happened(match ending {
            Ending::Abort => Fault::ProgramAborts,
            _ => Fault::ProgramCloses,
        });
        let done = match ending {
            Ending::Close => {
                self.book.borrow_mut().quit[self.side] = true;
                Ok(())
            }
            Ending::Abort => {
                self.book.borrow_mut().quit[self.side] = true;
                let shut = || {
                    stream.set_linger(Some(Duration::ZERO))?;
                    stream.shutdown(Shutdown::Both)
                };
                self.bench.while_acting(self.side, SHUTDOWN, shut)
            }
            Ending::ShutdownWrite => {
                let shut = || stream.shutdown(Shutdown::Write);
                self.bench.while_acting(self.side, SHUTDOWN, shut)
            }
            Ending::ShutdownRead => stream.shutdown(Shutdown::Read),
        };
        if let Err(error) = done {
            self.book
                .borrow_mut()
                .note_error(self.side, "shutting down", &error);
        }
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
        if limit.is_some_and(|limit| took >= limit) {
            self.fabric.happened(Fault::ProgramTimesOut);
        }
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
}
