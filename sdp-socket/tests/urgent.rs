//! Urgent bytes during large sends without copies, and urgent bytes as poll sees them.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod bodies;
#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sdp_socket::{SdpBuffer, ZcopyThreshold};

use bodies::urgent::urgent_during_a_write;
use common::net::{Net, Stream};
use common::sdp::Sdp;
use common::tcp::Tcp;
use common::watch::{doing, watched, watched_for};

const LEN: usize = 64 << 20;

/// A second thread sends an urgent byte during a send of 64 MiB, round after round: it is the
/// first byte of a read, between two bytes of the send, and both complete. The send goes on
/// without copies behind it.
fn rounds(count: usize) {
    let net = Sdp::shared().with(|b| b.zcopy_threshold(ZcopyThreshold::Bytes(64 << 10)));
    let (client, server) = net.pair();
    let mut memory: SdpBuffer = net.client_buffer(LEN).expect("a registered buffer");
    for (i, byte) in memory.iter_mut().enumerate() {
        *byte = (i % 31).to_le_bytes()[0];
    }
    let begun = Instant::now();
    for round in 0..count {
        doing(format!("round {round}"));
        urgent_during_a_write(&net, (&client, &server), &memory);
    }
    let stats = client.stats();
    let all = (count * LEN) as u64;
    eprintln!(
        "{count} rounds of {LEN} bytes and one urgent byte in {:?}, {} of {all} bytes not copied",
        begun.elapsed(),
        stats.tx_bytes_zcopy,
    );
    assert!(
        stats.tx_bytes_zcopy >= all / 2,
        "mostly copied: {:?}",
        stats.copy_reasons
    );
}

#[test]
fn during_large_sends() {
    watched(|| rounds(4));
}

#[test]
#[ignore = "64 GB: asked for by name"]
fn during_large_sends_in_full() {
    watched_for(Duration::from_secs(900), || rounds(1_000));
}

/// The same beside kernel TCP, which shows that the places are where it puts them.
#[test]
fn during_a_large_send_by_tcp() {
    watched(|| {
        let net = Tcp::new();
        let (client, server) = net.pair();
        let whole: Vec<u8> = (0..LEN).map(|i| (i % 31).to_le_bytes()[0]).collect();
        urgent_during_a_write(&net, (&client, &server), &whole);
    });
}

/// What poll says now.
fn state(stream: &sdp_socket::SdpStream) -> PollFlags {
    let all = PollFlags::IN | PollFlags::PRI | PollFlags::OUT;
    let mut fds = [PollFd::new(stream, all)];
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&zero)).expect("poll");
    fds[0].revents()
}

/// Whether this kernel has urgent bytes on Unix sockets, from Linux 5.15 on if it was built so.
fn kernel_shows_urgent_bytes() -> bool {
    let (mut a, _b) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let shows = rustix::net::send(&a, b"u", rustix::net::SendFlags::OOB).is_ok();
    a.flush().expect("flush");
    if !shows {
        eprintln!("skipped: this kernel shows no urgent bytes of Unix sockets");
    }
    shows
}

/// An urgent byte raises PRI, receiving it or reading beyond it takes PRI back, and what is to be
/// read is reported as before.
#[test]
fn poll_tells_of_an_urgent_byte() {
    watched(|| {
        if !kernel_shows_urgent_bytes() {
            return;
        }
        let (client, server) = Sdp::shared().pair();
        assert_eq!(state(&server), PollFlags::OUT);
        for read_beyond in [false, true] {
            assert_eq!(client.send_urgent(b"!").expect("send_urgent"), 1);
            doing("waiting for PRI");
            while !state(&server).contains(PollFlags::PRI) {
                std::thread::yield_now();
            }
            // There is nothing to read; the byte survives a try.
            server.set_nonblocking(true).expect("set_nonblocking");
            let tried = Stream::read(&server, &mut [0; 8]);
            assert!(common::net::would_block(&tried));
            server.set_nonblocking(false).expect("set_nonblocking");
            assert!(state(&server).contains(PollFlags::PRI));
            client.put(b"abc");
            let mut buf = [0; 3];
            if read_beyond {
                server.get(&mut buf);
                assert_eq!(state(&server), PollFlags::OUT);
            } else {
                assert_eq!(server.recv_urgent().expect("recv_urgent"), Some(b'!'));
                doing("waiting for what is behind it");
                while state(&server) != PollFlags::IN | PollFlags::OUT {
                    std::thread::yield_now();
                }
                server.get(&mut buf);
                assert_eq!(state(&server), PollFlags::OUT);
            }
        }
    });
}
