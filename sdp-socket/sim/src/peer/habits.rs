//! What the stacks of the field do of the protocol, by `sdp-protocol.md` §5.

use sdp_verbs::Rng;
use sdp_wire::Version;

use crate::cli::Peer;

/// One stack's ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) version: Version,
    /// Adverts it takes at once.
    pub(super) adverts_max: u16,
    /// Source adverts it has open at once; none: it copies.
    pub(super) adverts_out: usize,
    /// It goes Pipelined when it has several sends, and asks for it by REQ_PIPE.
    pub(super) pipelines: bool,
    /// It leaves Pipelined again, and visits Buffered.
    pub(super) wanders: bool,
    /// Nanoseconds that an advert waits before it is cancelled.
    pub(super) patience: u64,
    /// An advert that crosses its own makes it cancel (the deadlock breaker of §5.2).
    pub(super) gives_way: bool,
    /// It reads adverts; otherwise it answers them with SendSm.
    pub(super) reads: bool,
    /// One advert in so many is refused all the same; none if zero.
    pub(super) refuses: u64,
    /// A READ is at most so long, as if programs received in such pieces.
    pub(super) read_max: usize,
    /// Nanoseconds until a program wants what an advert holds.
    pub(super) read_after: u64,
    /// MSeqAck stays below a cancel until it is answered.
    pub(super) holds_ack: bool,
    /// SendSm means something to it only as the answer to a cancel.
    pub(super) hears_refusals: bool,
    /// Offers of memory that it has out at once.
    pub(super) offers: usize,
    /// Its ChRcvBufAck leaves the header out.
    pub(super) ack_without_header: bool,
    /// It asks for other lengths of receive buffers, and sends messages that mean nothing.
    pub(super) talks: bool,
}

impl Habits {
    /// Those of `peer`, with what a seed decides.
    pub(super) fn of(peer: Peer, rng: &mut Rng) -> Self {
        let none = Self {
            version: Version::V2_2,
            adverts_max: 1,
            adverts_out: 0,
            pipelines: false,
            wanders: false,
            patience: 1_000_000_000,
            gives_way: false,
            reads: false,
            refuses: 0,
            read_max: usize::MAX,
            read_after: 0,
            holds_ack: false,
            hears_refusals: true,
            offers: 0,
            ack_without_header: rng.coin(),
            talks: false,
        };
        let read_max = *rng.pick(&[1_000, 7_000, 60_000, usize::MAX]);
        let read_after = *rng.pick(&[0, 0, 30_000, 1_000_000, 30_000_000]);
        match peer {
            Peer::BcopyOnly => none,
            Peer::Ofed15 => Self {
                adverts_out: 1,
                gives_way: true,
                reads: true,
                refuses: *rng.pick(&[0, 0, 5]),
                read_max,
                read_after,
                ..none
            },
            Peer::Gen1 => Self {
                version: Version::V1_1,
                adverts_max: 255,
                adverts_out: 8,
                pipelines: true,
                patience: *rng.pick(&[200_000, 20_000_000, 3_000_000_000]),
                reads: true,
                read_max,
                read_after,
                holds_ack: true,
                hears_refusals: false,
                offers: 3,
                ack_without_header: false,
                ..none
            },
            Peer::Any | Peer::Strict => Self {
                adverts_max: *rng.pick(&[1, 2, 5, 16]),
                adverts_out: *rng.pick(&[0, 1, 2, 6]),
                pipelines: rng.below(4) > 0,
                wanders: rng.coin(),
                patience: *rng.pick(&[20_000, 1_000_000, 1_000_000_000]),
                gives_way: rng.coin(),
                reads: rng.below(8) > 0,
                refuses: *rng.pick(&[0, 3, 10]),
                read_max,
                read_after,
                holds_ack: true,
                offers: *rng.pick(&[0, 1, 3]),
                ack_without_header: false,
                talks: rng.coin(),
                ..none
            },
        }
    }
}
