//! An echo server on tokio: streams and listeners inside of `AsyncFd`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use sdp_socket::{SdpListener, SdpStream};
use tokio::io::unix::AsyncFd;

const CLIENTS: usize = 4;
const LEN: usize = 300_000;

/// A stream whose calls wait without blocking the thread.
struct AsyncStream(AsyncFd<SdpStream>);

impl AsyncStream {
    fn new(stream: SdpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // SAFETY: a stream has the same descriptor until it is dropped, which `AsyncFd` does last.
        Ok(Self(unsafe { AsyncFd::register(stream) }?))
    }

    async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|stream| (&mut stream.get_ref()).read(buf)) {
                return result;
            }
        }
    }

    async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(result) = ready.try_io(|stream| (&mut stream.get_ref()).write(buf)) {
                buf = &buf[result?..];
            }
        }
        Ok(())
    }
}

async fn echo(stream: SdpStream) -> io::Result<()> {
    let stream = AsyncStream::new(stream)?;
    let mut buf = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buf).await? {
            0 => return stream.0.get_ref().shutdown(Shutdown::Write),
            count => stream.write_all(&buf[..count]).await?,
        }
    }
}

async fn accept(listener: &AsyncFd<SdpListener>) -> io::Result<SdpStream> {
    loop {
        let mut ready = listener.readable().await?;
        if let Ok(result) = ready.try_io(|listener| listener.get_ref().accept()) {
            return result.map(|(stream, _)| stream);
        }
    }
}

/// Sends, and receives the echo, at the same time.
async fn client(addr: SocketAddr) -> io::Result<()> {
    let connect = tokio::task::spawn_blocking(move || SdpStream::connect(addr));
    let stream = AsyncStream::new(connect.await??)?;
    let sent: Vec<u8> = (0..=255).cycle().take(LEN).collect();
    let send = async {
        stream.write_all(&sent).await?;
        stream.0.get_ref().shutdown(Shutdown::Write)
    };
    let receive = async {
        let (mut back, mut buf) = (Vec::new(), vec![0; 10_000]);
        loop {
            match stream.read(&mut buf).await? {
                0 => return Ok::<_, io::Error>(back),
                count => back.extend_from_slice(&buf[..count]),
            }
        }
    };
    let (sending, back) = tokio::join!(send, receive);
    sending?;
    if back? == sent {
        Ok(())
    } else {
        Err(io::Error::other("the echo is not what was sent"))
    }
}

async fn run() -> io::Result<()> {
    let listener = SdpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    // SAFETY: as of a stream.
    let listener = unsafe { AsyncFd::register(listener) }?;
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(addr))).collect();
    let mut sessions = Vec::new();
    for _ in 0..CLIENTS {
        sessions.push(tokio::spawn(echo(accept(&listener).await?)));
    }
    for task in clients.into_iter().chain(sessions) {
        task.await
            .map_err(|_| io::Error::from(ErrorKind::Other))??;
    }
    Ok(())
}

pub(crate) fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(run())
}
