//! One of the connections that exist at once: lives, one after the other.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver as Inbox;
use std::thread;
use std::time::Duration;

use sdp_socket::{Builder, Context, SdpStream};

use super::plan::{Life, Side, Way};
use super::receive::Receiver;
use super::room::Room;
use super::send::Sender;
use super::tally::Tally;
use super::watch::Activity;

/// How long a connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How often a server's slot looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);

/// How a slot comes by its connections.
#[derive(Debug)]
pub(super) enum Role {
    /// By opening them.
    Connects {
        /// With these options.
        builder: Builder,
        /// To there.
        address: SocketAddr,
    },
    /// By being given them.
    Accepts {
        /// Through here.
        inbox: Inbox<(SdpStream, Life)>,
    },
}

/// A slot with its memory.
#[derive(Debug)]
pub(super) struct Slot {
    seed: u64,
    index: u32,
    generation: u32,
    role: Role,
    send: Room,
    receive: Room,
}

impl Slot {
    /// A slot whose memory is registered or not by its number: all four pairs occur.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn new(
        seed: u64,
        index: u32,
        role: Role,
        context: Option<&Arc<Context>>,
    ) -> io::Result<Self> {
        let room = |registered: bool| {
            if registered {
                Room::registered(context)
            } else {
                Ok(Room::heap())
            }
        };
        Ok(Self {
            seed,
            index,
            generation: 0,
            role,
            send: room(index.is_multiple_of(2))?,
            receive: room((index / 2).is_multiple_of(2))?,
        })
    }

    /// Lives until `over`, as a client, or `stop`, as a server.
    pub(super) fn run(
        &mut self,
        activity: &Activity,
        over: &AtomicBool,
        stop: &AtomicBool,
    ) -> Tally {
        let mut tally = Tally::default();
        while let Some(begun) = self.begin(activity, over, stop) {
            let lived = begun.and_then(|(stream, life)| self.live(&stream, life, activity, over));
            match lived {
                Ok(one) => tally.merge(one),
                Err(error) => {
                    let at = (self.index, self.generation);
                    tally.errors.add(format!("{at:?}: beginning: {error}"));
                }
            }
            activity.set_stream(None);
            activity.receive.idle();
        }
        tally
    }

    /// The next connection; none when there shall be no more.
    fn begin(
        &mut self,
        activity: &Activity,
        over: &AtomicBool,
        stop: &AtomicBool,
    ) -> Option<io::Result<(SdpStream, Life)>> {
        match &self.role {
            Role::Connects { builder, address } => {
                if over.load(Ordering::Relaxed) {
                    return None;
                }
                let life = Life {
                    seed: self.seed,
                    slot: self.index,
                    generation: self.generation,
                };
                self.generation += 1;
                activity.receive.doing(&|| "connect".to_owned());
                Some(connect(builder, *address, life).map(|stream| (stream, life)))
            }
            Role::Accepts { inbox } => loop {
                let stopped = stop.load(Ordering::Relaxed);
                if let Ok(given) = inbox.recv_timeout(LOOK) {
                    self.generation = given.1.generation;
                    return Some(Ok(given));
                }
                if stopped {
                    return None;
                }
            },
        }
    }

    /// Uses one connection to its end.
    fn live(
        &mut self,
        stream: &SdpStream,
        life: Life,
        activity: &Activity,
        over: &AtomicBool,
    ) -> io::Result<Tally> {
        let side = match self.role {
            Role::Connects { .. } => Side::Client,
            Role::Accepts { .. } => Side::Server,
        };
        life.configure(side, stream)?;
        activity.set_stream(Some(stream.try_clone()?));
        let mut rng = life.rng("memory", side.way());
        for room in [&mut self.send, &mut self.receive] {
            if rng.one_in(4) {
                room.renew()?;
            }
        }
        let (send, receive) = (&mut self.send, &mut self.receive);
        let mut tally = thread::scope(|scope| {
            let sender = Sender {
                stream,
                life,
                side,
                room: send,
                job: &activity.send,
                over,
            };
            let sender = scope.spawn(move || sender.run());
            let receiver = Receiver {
                stream,
                life,
                side,
                room: receive,
                job: &activity.receive,
            };
            let mut tally = receiver.run();
            match sender.join() {
                Ok(sent) => tally.merge(sent),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            tally
        });
        tally.lives += 1;
        tally.nonblocking += u64::from(life.nonblocking(side));
        tally.add_stats(&stream.stats());
        activity.receive.doing(&|| "close".to_owned());
        Ok(tally)
    }
}

fn connect(builder: &Builder, address: SocketAddr, life: Life) -> io::Result<SdpStream> {
    let mut builder = builder
        .clone()
        .zcopy_threshold(life.threshold(Side::Client));
    if let Some(wait) = life.rendezvous_wait() {
        builder = builder.rendezvous_wait(wait);
    }
    // Some begin with small buffers, some change them later.
    let mut rng = life.rng("connect", Way::Up);
    if rng.one_in(4) {
        builder = builder
            .send_buffer_size(rng.between(4 << 10, 256 << 10))
            .recv_buffer_size(rng.between(4 << 10, 256 << 10));
    }
    let mut stream = builder.connect_timeout(&address, CONNECT_MAX)?;
    stream.write_all(&life.preface())?;
    Ok(stream)
}
