//! The accepting process.

use std::net::TcpListener;

use anyhow::{Context, bail};
use sdp_socket::Builder;

use super::{ANSWER_MAX, Listener, Order, Stream, Word, limit_descriptors};
use crate::cli::ConnEndArgs;
use crate::lab::{Census, Orders, say};
use crate::transport::Kind;

/// Connections that TCP's queue holds before they are accepted, as far as the system lets it
/// (net.core.somaxconn): those it drops come again a second later.
const TCP_BACKLOG: i32 = 4096;

/// Does what it is told until it is told nothing more.
///
/// # Errors
/// When it cannot listen, or a connection fails.
pub(in crate::perf) fn run(args: &ConnEndArgs) -> anyhow::Result<()> {
    limit_descriptors(args.descriptors)?;
    let near = (args.address, 0);
    let builder = Builder::new().provider(args.provider.kind());
    let sdp = builder.bind(near).context("cannot listen")?;
    let tcp = TcpListener::bind(near).context("cannot listen")?;
    rustix::net::listen(&tcp, TCP_BACKLOG).context("cannot listen for more")?;
    say(&Word::Listening {
        sdp: sdp.local_addr()?,
        tcp: tcp.local_addr()?,
    })?;
    let (sdp, tcp) = (Listener::Sdp(sdp), Listener::Tcp(tcp));
    let orders = Orders::listen()?;
    while let Some(order) = orders.next(ANSWER_MAX) {
        match order {
            Order::Pass { kind, count } => {
                let listener = if kind == Kind::Sdp { &sdp } else { &tcp };
                pass(listener, count)?;
                say(&Word::Done)?;
            }
            Order::Hold { count } => {
                hold(&sdp, count)?;
                say(&Word::Done)?;
            }
            Order::Count => say(&Word::Held(Census::settled()?))?,
        }
    }
    Ok(())
}

/// Takes connections until their first byte or their end, and closes them.
fn pass(listener: &Listener, count: u64) -> anyhow::Result<()> {
    for n in 0..count {
        let mut stream = listener.accept().with_context(|| format!("number {n}"))?;
        // Whatever a peer that closes leaves is an end.
        let _closed = stream.read(&mut [0]);
    }
    Ok(())
}

fn hold(listener: &Listener, count: u64) -> anyhow::Result<()> {
    let accept = |n| listener.accept().with_context(|| format!("number {n}"));
    let mut streams: Vec<Box<dyn Stream>> = (0..count).map(accept).collect::<Result<_, _>>()?;
    for stream in &mut streams {
        let mut number = [0; 8];
        stream.read_exact(&mut number).context("read")?;
        stream.write_all(&number).context("write")?;
    }
    for mut stream in streams {
        if stream.read(&mut [0]).context("read")? != 0 {
            bail!("bytes came that nobody sent");
        }
    }
    Ok(())
}
