//! An echo server on mio: one thread, one poll, any number of streams.
//!
//! Streams and listeners have a descriptor, which mio waits for by `SourceFd`.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sdp_socket::{SdpListener, SdpStream};

const LISTENER: Token = Token(0);
const CLIENTS: usize = 4;
const LEN: usize = 300_000;

/// A stream, and what is still to be echoed.
struct Session {
    stream: SdpStream,
    pending: Vec<u8>,
    ended: bool,
}

impl Session {
    /// Moves on until everything would block. False: it is over.
    fn go_on(&mut self) -> io::Result<bool> {
        let mut buf = [0; 16 << 10];
        loop {
            let wrote = match (&self.stream).write(&self.pending) {
                _ if self.pending.is_empty() => 0,
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            self.pending.drain(..wrote);
            if self.ended && self.pending.is_empty() {
                return Ok(false);
            }
            match (&self.stream).read(&mut buf) {
                Ok(0) => self.ended = true,
                Ok(count) => self.pending.extend_from_slice(&buf[..count]),
                Err(e) if e.kind() == ErrorKind::WouldBlock && self.pending.is_empty() => {
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Serves until `count` streams have come and gone.
fn serve(listener: &SdpListener, mut count: usize) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(64);
    let mut sessions: HashMap<Token, Session> = HashMap::new();
    let mut next = LISTENER.0;
    listener.set_nonblocking(true)?;
    let fd = listener.as_raw_fd();
    let registry = poll.registry();
    registry.register(&mut SourceFd(&fd), LISTENER, Interest::READABLE)?;
    while count > 0 {
        poll.poll(&mut events, None)?;
        for event in &events {
            let token = event.token();
            if token == LISTENER {
                // Edge-triggered: take all there are.
                while let Some(stream) = accept(listener)? {
                    stream.set_nonblocking(true)?;
                    next += 1;
                    let fd = stream.as_raw_fd();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let registry = poll.registry();
                    registry.register(&mut SourceFd(&fd), Token(next), both)?;
                    let session = Session {
                        stream,
                        pending: Vec::new(),
                        ended: false,
                    };
                    sessions.insert(Token(next), session);
                }
            } else if let Some(session) = sessions.get_mut(&token)
                && !session.go_on()?
            {
                // Its descriptor goes with it.
                sessions.remove(&token);
                count -= 1;
            }
        }
    }
    Ok(())
}

fn accept(listener: &SdpListener) -> io::Result<Option<SdpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// A client with plain blocking calls, one thread for each way.
fn client(addr: SocketAddr) -> io::Result<()> {
    let mut stream = SdpStream::connect(addr)?;
    let sent: Vec<u8> = (0..=255).cycle().take(LEN).collect();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sender = stream.try_clone()?;
            sender.write_all(&sent)?;
            sender.shutdown(Shutdown::Write)
        });
        let mut receiver = &stream;
        receiver.read_to_end(&mut back)?;
        sender
            .join()
            .unwrap_or_else(|_| Err(ErrorKind::Other.into()))
    })?;
    stream.flush()?;
    if back == sent {
        Ok(())
    } else {
        Err(io::Error::other("the echo is not what was sent"))
    }
}

pub(crate) fn main() -> io::Result<()> {
    let listener = SdpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || client(addr)))
            .collect();
        serve(&listener, CLIENTS)?;
        for client in clients {
            client
                .join()
                .unwrap_or_else(|_| Err(ErrorKind::Other.into()))?;
        }
        Ok(())
    })
}
