//! A raw peer keeps every key it was given, and tries it again when it must be dead.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use sdp_socket::{Builder, Context, SdpBuffer, SdpStream, ZcopyThreshold};
use sdp_verbs::hook::trace::Trace;
use sdp_verbs::{Caps, Provider, RemoteAddr, Rkey, WcStatus};
use sdp_wire::{Body, HEAD_LEN_MAX, Head, ModeChange, SrcAvail};

use crate::common::net::Stream;
use crate::common::pattern::Pattern;
use crate::common::raw::{Exposed, RawEnd, RawSide};
use crate::common::sdp::{host, threaded};
#[cfg(target_pointer_width = "64")]
use crate::common::sdp::{rdma, rdma_address};
use crate::common::watch::{actor, doing, on_threads};

/// Bytes of a send.
const LEN: usize = 64 << 10;
/// What every path carries in one packet.
const PACKET: usize = 256;
const PATTERN: Pattern = Pattern(90);
/// What is put where a send's bytes were, and nobody may see.
const SECRET: u8 = 0xee;

/// Who shows its memory, and over what a raw peer looks at it.
#[derive(Debug)]
pub(crate) struct Ground {
    context: Arc<Context>,
    address: IpAddr,
    raw: Arc<dyn Provider>,
    /// Counts below the one that shows its memory, where its device may refuse requests of a peer.
    trace: Option<Arc<Trace>>,
}

impl Ground {
    /// On one machine without an adapter.
    pub(crate) fn host() -> Self {
        Self {
            context: threaded(host()),
            address: Ipv4Addr::LOCALHOST.into(),
            raw: host(),
            trace: None,
        }
    }

    /// On an adapter.
    #[cfg(target_pointer_width = "64")]
    pub(crate) fn rdma() -> Self {
        let victim = rdma(1);
        let address = rdma_address(&victim);
        let tells = victim.caps().contains(Caps::REMOTE_STATUS);
        let trace = Arc::new(Trace::new(victim));
        Self {
            address,
            context: threaded(Arc::<Trace>::clone(&trace)),
            raw: rdma(0),
            trace: tells.then_some(trace),
        }
    }

    /// A stream whose sends are shown to a raw peer, and that peer.
    fn connected(&self, cancel_wait: Duration) -> (SdpStream, RawSide, RawEnd) {
        let listener = Builder::new()
            .context(&self.context)
            .zcopy_threshold(ZcopyThreshold::Bytes(4_096))
            .rendezvous_wait(Duration::MAX)
            .cancel_wait(cancel_wait)
            .bind((self.address, 0))
            .expect("bind");
        let side = RawSide::over(Arc::clone(&self.raw));
        let end = side.connected(listener.local_addr().expect("an address"));
        let (stream, _) = listener.accept().expect("accept");
        (stream, side, end)
    }

    fn buffer(&self, len: usize) -> SdpBuffer {
        SdpBuffer::with_context(&self.context, len).expect("memory")
    }
}

/// A key the raw peer was given, and for what.
#[derive(Clone, Copy, Debug)]
struct Given {
    key: (Rkey, RemoteAddr),
    len: usize,
    inline: usize,
}

/// The next message of the kind, which takes a while if others come first.
fn hear_advert(side: &RawSide, end: &RawEnd) -> Given {
    loop {
        let bytes = end.hear(side).expect("a message");
        let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
        let head = head.expect("a good message");
        if let Body::SrcAvail(advert) = head.body {
            return Given {
                key: (Rkey(advert.rkey.0), RemoteAddr(advert.addr.0)),
                len: advert.len as usize,
                inline: head.payload_len as usize,
            };
        }
    }
}

fn hear_cancel(side: &RawSide, end: &RawEnd) {
    loop {
        let bytes = end.hear(side).expect("a message");
        let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
        if head.expect("a good message").body == Body::SrcAvailCancel {
            return;
        }
    }
}

/// Takes `total` bytes the way a good reader does; the last key used for it.
fn take(side: &RawSide, end: &mut RawEnd, mut at: u64, total: usize) -> Given {
    let stop = at + total as u64;
    loop {
        let given = hear_advert(side, end);
        let (status, bytes) = end.read(side, given.key, given.len);
        assert_eq!(status, WcStatus::Success);
        PATTERN.check(at, &bytes);
        let len = u32::try_from(given.len - given.inline).expect("an advert");
        end.say(Body::RdmaRdCompl { len }, &[]);
        at += given.len as u64;
        if at >= stop {
            return given;
        }
    }
}

/// What becomes of a request whose key opens nothing.
fn assert_refused(side: &RawSide, status: WcStatus) {
    if side.provider.caps().contains(Caps::REMOTE_STATUS) {
        assert_eq!(status, WcStatus::RemoteAccess);
    } else {
        assert_ne!(status, WcStatus::Success);
    }
}

/// The key opens nothing.
fn locked_out(side: &RawSide, end: &RawEnd, given: Given) {
    let (status, bytes) = end.read(side, given.key, given.len);
    assert_refused(side, status);
    if !side.provider.caps().contains(Caps::SAME_HOST) {
        // The adapter on the other side has not sent a byte.
        assert!(bytes.iter().all(|byte| *byte == 0), "bytes came");
    }
}

/// The side whose device has refused a request knows it, and counts the connection as such.
fn noticed(ground: &Ground, before: u64) {
    let Some(trace) = &ground.trace else { return };
    doing("the refusal to be noticed by the side that was asked");
    while trace.counters().refused_peer_count == before {
        std::thread::yield_now();
    }
    assert_eq!(trace.counters().refused_peer_count, before + 1);
}

/// One large send from `buf` that a raw peer takes; afterwards the memory is the caller's.
fn send_and_try_again(ground: &Ground, buf: &mut [u8]) {
    let (stream, side, mut end) = ground.connected(Duration::from_secs(1));
    PATTERN.fill(0, buf);
    let mut given = None;
    on_threads(vec![
        actor("writer", || {
            doing("a large send");
            stream.put(buf);
        }),
        actor("raw peer", || given = Some(take(&side, &mut end, 0, LEN))),
    ]);
    buf.fill(SECRET);
    let count = |trace: &Arc<Trace>| trace.counters().refused_peer_count;
    let before = ground.trace.as_ref().map_or(0, count);
    locked_out(&side, &end, given.expect("an advert"));
    noticed(ground, before);
}

/// Both calls are over: the send has returned because the reader has what it wanted.
pub(crate) fn after_send_returned(ground: &Ground) {
    send_and_try_again(ground, &mut vec![0; LEN]);
    send_and_try_again(ground, &mut ground.buffer(LEN));
}

/// The reader's receive ended first, and it comes back before the send has returned: its key may
/// serve until then, and shows the bytes sent, nothing else. `piece` bytes at a time; what it saw of
/// the request that failed.
fn come_back(ground: &Ground, piece: usize) -> (RawSide, WcStatus, Vec<u8>, Given, usize) {
    let (stream, side, mut end) = ground.connected(Duration::from_secs(1));
    let mut buf = ground.buffer(LEN);
    PATTERN.fill(0, &mut buf);
    let mut failed = None;
    on_threads(vec![
        actor("writer", || {
            doing("a large send");
            stream.put(&buf);
            buf.fill(SECRET);
        }),
        actor("raw peer", || {
            let given = take(&side, &mut end, 0, LEN);
            let (rkey, RemoteAddr(addr)) = given.key;
            for round in 0.. {
                let piece = piece.min(given.len);
                let at = (round * piece) % (given.len - piece + 1);
                let key = (rkey, RemoteAddr(addr + at as u64));
                let (status, bytes) = end.read(&side, key, piece);
                let place = LEN - given.len + at;
                if status != WcStatus::Success {
                    failed = Some((status, bytes, given, place));
                    break;
                }
                PATTERN.check(place as u64, &bytes);
            }
        }),
    ]);
    let (status, bytes, given, place) = failed.expect("a request failed");
    (side, status, bytes, given, place)
}

/// A request of one packet is granted or refused as a whole, so its end tells all.
pub(crate) fn after_recv_returned(ground: &Ground) {
    let (side, status, ..) = come_back(ground, PACKET);
    assert_refused(&side, status);
}

/// The key dies while a read by it goes on: what came before was sent, nothing comes after. How the
/// request ends is up to the adapters: Soft-RoCE does not listen to a refusal in the middle of an
/// answer, and learns of it from the end of the connection. So the key is tried once more, on a
/// connection that nothing has happened to.
pub(crate) fn during_a_read(ground: &Ground) {
    let (side, _, bytes, given, place) = come_back(ground, LEN);
    if !side.provider.caps().contains(Caps::SAME_HOST) {
        let sent = PATTERN.bytes(place as u64, bytes.len());
        let strange = |(came, sent): (&u8, &u8)| *came != 0 && came != sent;
        let at = bytes.iter().zip(&sent).position(strange);
        assert_eq!(at, None, "a byte that was not sent");
    }
    let (_stream, other_side, other) = ground.connected(Duration::from_secs(1));
    locked_out(&other_side, &other, given);
}

/// A send ran out of time, and its peer answered the cancel.
pub(crate) fn after_a_time_out(ground: &Ground) {
    let (stream, side, mut end) = ground.connected(Duration::from_secs(20));
    let mut buf = ground.buffer(LEN);
    PATTERN.fill(0, &mut buf);
    stream
        .set_write_timeout(Some(Duration::from_millis(50)))
        .expect("set_write_timeout");
    let mut given = None;
    on_threads(vec![
        actor("writer", || {
            doing("a send that runs out of time");
            assert!(stream.write(&buf).is_ok_and(|n| n > 0), "a part is sent");
            buf.fill(SECRET);
        }),
        actor("raw peer", || {
            given = Some(hear_advert(&side, &end));
            hear_cancel(&side, &end);
            end.say(Body::SendSm, &[]);
        }),
    ]);
    locked_out(&side, &end, given.expect("an advert"));
}

/// A send ran out of time, and its peer did not even answer the cancel: the connection is gone,
/// and the key opens nothing on another one that is in good health.
pub(crate) fn unanswered_cancel(ground: &Ground) {
    let (stream, side, end) = ground.connected(Duration::from_millis(50));
    let mut buf = ground.buffer(LEN);
    PATTERN.fill(0, &mut buf);
    stream
        .set_write_timeout(Some(Duration::from_millis(50)))
        .expect("set_write_timeout");
    let mut given = None;
    on_threads(vec![
        actor("writer", || {
            doing("a send that runs out of time");
            // Whether bytes beside the advert count as sent is not what matters here.
            let _counted = stream.write(&buf);
            buf.fill(SECRET);
        }),
        actor("raw peer", || given = Some(hear_advert(&side, &end))),
    ]);
    let given = given.expect("an advert");
    let (status, bytes) = end.read(&side, given.key, given.len);
    assert_ne!(status, WcStatus::Success, "first byte {:#x}", bytes[0]);
    let (_stream, other_side, other) = ground.connected(Duration::from_secs(1));
    locked_out(&other_side, &other, given);
}

/// The buffer serves another send, or has gone back to the system and another one serves the next
/// send, with the place of the old key in the table. Only memory that is surely still there shows
/// what a key without its proof would open, so that comes first.
pub(crate) fn after_the_buffer_was_freed_and_used_again(ground: &Ground) {
    for is_freed in [false, true] {
        used_again(ground, is_freed);
    }
}

fn used_again(ground: &Ground, is_freed: bool) {
    let (stream, side, mut end) = ground.connected(Duration::from_secs(1));
    let mut buf = ground.buffer(LEN);
    PATTERN.fill(0, &mut buf);
    let mut old = None;
    on_threads(vec![
        actor("writer", || stream.put(&buf)),
        actor("raw peer", || old = Some(take(&side, &mut end, 0, LEN))),
    ]);
    let mut next = if is_freed {
        drop(buf);
        ground.buffer(LEN)
    } else {
        buf
    };
    PATTERN.fill(LEN as u64, &mut next);
    on_threads(vec![
        actor("writer", || {
            // Its own bytes may be read by the new key, no others by the old one; the peer
            // breaks the connection by trying.
            let _counted = stream.write(&next);
        }),
        actor("raw peer", || {
            let new = hear_advert(&side, &end);
            let old = old.expect("an advert");
            assert_ne!(new.key.0, old.key.0, "the same key again");
            locked_out(&side, &end, old);
        }),
    ]);
}

/// The next offer to write into the peer's memory.
fn hear_offer(side: &RawSide, end: &RawEnd) -> Given {
    loop {
        let bytes = end.hear(side).expect("a message");
        let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
        if let Body::SinkAvail(offer) = head.expect("a good message").body {
            return Given {
                key: (Rkey(offer.rkey.0), RemoteAddr(offer.addr.0)),
                len: offer.len as usize,
                inline: 0,
            };
        }
    }
}

/// Shows memory to the peer until it has read all of it.
fn show(side: &RawSide, end: &mut RawEnd, memory: &Exposed) {
    let len = u32::try_from(memory.len()).expect("short");
    let (rkey, addr) = memory.key();
    end.say(
        Body::SrcAvail(SrcAvail {
            len,
            rkey: sdp_wire::Rkey(rkey.0),
            addr: sdp_wire::RemoteAddr(addr.0),
        }),
        &[],
    );
    let mut read = 0;
    while read < len {
        let bytes = end.hear(side).expect("a message");
        let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
        if let Body::RdmaRdCompl { len } = head.expect("a good message").body {
            read += len;
        }
    }
}

/// A receive offered its memory, the peer wrote into it, and the receive has returned: what the
/// peer writes after that arrives nowhere.
pub(crate) fn after_recv_returned_what_was_written(ground: &Ground) {
    let (stream, side, mut end) = ground.connected(Duration::from_secs(1));
    let memory = side.expose(LEN);
    memory.fill(1);
    let mut buf = vec![0; LEN];
    let mut given = None;
    on_threads(vec![
        actor("reader", || {
            for _ in 0..3 {
                doing("a large receive");
                stream.get(&mut buf);
                assert!(buf.iter().all(|byte| *byte == 1), "other bytes");
            }
            buf.fill(SECRET);
        }),
        actor("raw peer", || {
            end.say(Body::ModeChange(ModeChange::RecvPipelined), &[]);
            // Large messages make the peer expect more of them, and offer its memory.
            show(&side, &mut end, &memory);
            show(&side, &mut end, &memory);
            let offer = hear_offer(&side, &end);
            assert_eq!(offer.len, LEN);
            assert_eq!(end.write(&side, offer.key, &memory), WcStatus::Success);
            let len = u32::try_from(LEN).expect("short");
            end.say(Body::RdmaWrCompl { len }, &[]);
            given = Some(offer);
        }),
    ]);
    let status = end.write(&side, given.expect("an offer").key, &memory);
    // Where nobody answers a write it may seem to have been carried out.
    if side.provider.caps().contains(Caps::REMOTE_STATUS) {
        assert_eq!(status, WcStatus::RemoteAccess);
    }
    end.hear_the_end(&side);
    assert!(buf.iter().all(|byte| *byte == SECRET), "written to");
}
