//! The names of options, and the numbers that C has for them.

use libc::c_int;

use crate::errno::Failure;
use crate::kept::Kept;
use crate::options::{SDP_ZCOPY_THRESH, SOL_SDP};
use crate::stats::SDP_STATS;

/// The options there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    SendBuffer,
    RecvBuffer,
    ReadTimeout,
    WriteTimeout,
    Linger,
    Error,
    ReuseAddr,
    ReusePort,
    Type,
    Domain,
    Protocol,
    AcceptConn,
    RecvLowWater,
    SendLowWater,
    Nodelay,
    OobInline,
    Keepalive,
    KeepIdle,
    KeepInterval,
    KeepCount,
    UserTimeout,
    MaxSegment,
    Info,
    Congestion,
    OnlyV6,
    Threshold,
    Stats,
    /// It changes nothing.
    Kept(Kept),
}

/// Level, number, option.
const NAMES: [(c_int, c_int, Name); 30] = [
    (libc::SOL_SOCKET, libc::SO_SNDBUF, Name::SendBuffer),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, Name::RecvBuffer),
    // There is no limit of the system's to exceed.
    (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, Name::SendBuffer),
    (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, Name::RecvBuffer),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO, Name::ReadTimeout),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO, Name::WriteTimeout),
    (libc::SOL_SOCKET, libc::SO_LINGER, Name::Linger),
    (libc::SOL_SOCKET, libc::SO_ERROR, Name::Error),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, Name::ReuseAddr),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, Name::ReusePort),
    (libc::SOL_SOCKET, libc::SO_TYPE, Name::Type),
    (libc::SOL_SOCKET, libc::SO_DOMAIN, Name::Domain),
    (libc::SOL_SOCKET, libc::SO_PROTOCOL, Name::Protocol),
    (libc::SOL_SOCKET, libc::SO_ACCEPTCONN, Name::AcceptConn),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, Name::RecvLowWater),
    (libc::SOL_SOCKET, libc::SO_SNDLOWAT, Name::SendLowWater),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, Name::Nodelay),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, Name::OobInline),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, Name::Keepalive),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, Name::KeepIdle),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, Name::KeepInterval),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, Name::KeepCount),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, Name::UserTimeout),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG, Name::MaxSegment),
    (libc::IPPROTO_TCP, libc::TCP_INFO, Name::Info),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION, Name::Congestion),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, Name::OnlyV6),
    (SOL_SDP, SDP_ZCOPY_THRESH, Name::Threshold),
    (SOL_SDP, SDP_STATS, Name::Stats),
    // Where the SDP of old had it.
    (libc::IPPROTO_TCP, SDP_ZCOPY_THRESH, Name::Threshold),
];

impl Name {
    /// # Errors
    /// `ENOPROTOOPT` for an option there is not.
    pub(crate) fn of(level: c_int, number: c_int) -> Result<Self, Failure> {
        let found = NAMES.iter().find(|row| (row.0, row.1) == (level, number));
        let kept = || Kept::of(level, number).map(Self::Kept);
        found.map(|row| row.2).or_else(kept).ok_or_else(|| {
            let words = format!("no option {number} at level {level}");
            Failure::new(libc::ENOPROTOOPT, words)
        })
    }

    /// One of those that sockets of IPv4 have not.
    pub(crate) fn is_v6(self) -> bool {
        match self {
            Self::OnlyV6 => true,
            Self::Kept(kept) => kept.is_v6(),
            _ => false,
        }
    }
}
