//! Where our libraries give other results than Linux's TCP, and why. `sdp.7` and `libsdp-preload.7` tell
//! the reader.

use super::differ::Library::{Libsdp, Preload};
use super::differ::Rule;

/// Phases before anything is connected, or listens.
const UNCONNECTED: [&str; 6] = [
    "fresh",
    "bound",
    "listening",
    "called",
    "no_longer_listening",
    "fresh_v6",
];

/// All of them, by number.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        number: 1,
        of: &[Libsdp, Preload],
        functions: &["getpeername"],
        phases: &["shut_by_both", "reset_by_peer", "reset_with_bytes"],
        why: "An ended connection keeps its names.",
        ..Rule::ANY
    },
    Rule {
        number: 2,
        of: &[Libsdp, Preload],
        functions: &["bind"],
        ours: &["EINVAL"],
        why: "A socket has one address for its life; that it has one, or is connected, is looked at \
              before the address is.",
        ..Rule::ANY
    },
    Rule {
        number: 3,
        of: &[Libsdp],
        functions: &["connect", "listen"],
        phases: &["listening", "called", "no_longer_listening"],
        ours: &["EINVAL", "EISCONN"],
        why: "A socket that has listened and was shut down does nothing else.",
        ..Rule::ANY
    },
    Rule {
        number: 4,
        of: &[Libsdp, Preload],
        with: &["TCP_QUICKACK"],
        why: "It has no effect, so nothing switches it off; behind the preload library it is the kernel's \
              socket's.",
        ..Rule::ANY
    },
    Rule {
        number: 5,
        of: &[Libsdp, Preload],
        with: &["TCP_FASTOPEN_CONNECT", "TCP_FASTOPEN"],
        why: "They have no effect, so every phase takes them; behind the preload library they are the \
              kernel's socket's, which is not connected.",
        ..Rule::ANY
    },
    Rule {
        number: 6,
        of: &[Libsdp],
        with: &[
            "MSG_CTRUNC",
            "MSG_PROXY",
            "MSG_TRUNC",
            "MSG_FIN",
            "MSG_SYN",
            "MSG_RST",
            "MSG_ERRQUEUE",
            "MSG_WAITFORONE",
            "MSG_BATCH",
            "MSG_FASTOPEN",
        ],
        probes: &["receives_by_flag", "sends_by_flag"],
        why: "Flags that Linux passes over without a word, or that ask for what SDP has not, are refused \
              (EOPNOTSUPP), and nothing is moved.",
        ..Rule::ANY
    },
    Rule {
        number: 7,
        of: &[Libsdp],
        with: &["MSG_PEEK", "MSG_WAITALL", "MSG_CMSG_CLOEXEC"],
        probes: &["sends_by_flag"],
        why: "The same: flags of a receive mean nothing to a send.",
        ..Rule::ANY
    },
    Rule {
        number: 8,
        of: &[Libsdp],
        with: &[
            "MSG_DONTROUTE",
            "MSG_EOR",
            "MSG_CONFIRM",
            "MSG_MORE",
            "MSG_ZEROCOPY",
        ],
        probes: &["receives_by_flag"],
        why: "The same: flags of a send mean nothing to a receive.",
        ..Rule::ANY
    },
    Rule {
        number: 9,
        of: &[Preload],
        functions: &["send", "sendto", "sendmsg", "sendmmsg"],
        with: &["MSG_FASTOPEN"],
        why: "A connection by SDP passes the flag over, where TCP says that it is connected already.",
        ..Rule::ANY
    },
    Rule {
        number: 10,
        of: &[Preload],
        functions: &["recv"],
        with: &["MSG_OOB"],
        phases: &["with_urgent"],
        probes: &["receives_by_flag"],
        why: "With MSG_TRUNC, too, the urgent byte is copied, where Linux only takes it.",
        ..Rule::ANY
    },
    Rule {
        number: 11,
        of: &[Libsdp],
        functions: &["poll", "recv"],
        phases: &UNCONNECTED,
        probes: &["shuts_by_half"],
        why: "A socket that is not connected has no halves to shut: a shutdown that fails (ENOTCONN), or \
              ends listening, leaves nothing else behind.",
        ..Rule::ANY
    },
    Rule {
        number: 12,
        of: &[Libsdp, Preload],
        functions: &["poll", "recv"],
        phases: &["connecting"],
        probes: &["shuts_by_half"],
        why: "A connect that a shutdown gives up is over without an error, where Linux tells ECONNRESET.",
        ..Rule::ANY
    },
    Rule {
        number: 13,
        of: &[Libsdp, Preload],
        functions: &["listen"],
        phases: &["refused"],
        ours: &["0"],
        why: "A socket whose connect has failed may listen at once, where Linux wants another connect \
              before.",
        ..Rule::ANY
    },
    Rule {
        number: 14,
        of: &[Preload],
        functions: &["getsockopt", "setsockopt"],
        with: &["SO_PEERNAME", "TCP_WINDOW_CLAMP", "TCP_FASTOPEN_NO_COOKIE"],
        why: "Options that SDP does not know are the kernel's socket's, which is not connected.",
        ..Rule::ANY
    },
    Rule {
        number: 15,
        of: &[Preload],
        functions: &["setsockopt"],
        with: &["SO_ZEROCOPY", "SO_TIMESTAMPING", "TCP_ULP", "TCP_MD5SIG"],
        ours: &["EOPNOTSUPP"],
        why: "What these ask for the kernel does to TCP's streams only; a socket that is given one before \
              it is connected is TCP's.",
        ..Rule::ANY
    },
    Rule {
        number: 16,
        of: &[Libsdp],
        functions: &["getsockopt", "setsockopt"],
        probes: &["asks_other_options"],
        ours: &["ENOPROTOOPT", "EOPNOTSUPP"],
        why: "Options that SDP cannot have an effect for are refused: a program that sets them counts on \
              what they do.",
        ..Rule::ANY
    },
    Rule {
        number: 17,
        of: &[Libsdp],
        functions: &["getsockopt"],
        with: &["IPV6_V6ONLY"],
        ours: &["EINVAL"],
        why: "A negative length is refused at every level; Linux takes it for a large one here.",
        ..Rule::ANY
    },
    Rule {
        number: 18,
        of: &[Libsdp],
        functions: &["select", "epoll_ctl", "epoll_wait"],
        phases: &["fresh", "bound", "no_longer_listening", "fresh_v6"],
        why: "sdp_fileno has a descriptor to wait on once the socket connects or listens.",
        ..Rule::ANY
    },
    Rule {
        number: 19,
        of: &[Libsdp],
        functions: &["fcntl"],
        probes: &["controls"],
        why: "A socket of the library is no descriptor: it has O_NONBLOCK, is closed by exec, and cannot be \
              duplicated, owned or locked.",
        ..Rule::ANY
    },
    Rule {
        number: 20,
        of: &[Libsdp],
        functions: &["ioctl"],
        ours: &["ENOTTY"],
        why: "The same: it has FIONREAD, TIOCOUTQ, SIOCATMARK and FIONBIO.",
        ..Rule::ANY
    },
    Rule {
        number: 21,
        of: &[Libsdp],
        functions: &["socket"],
        ours: &["EAFNOSUPPORT"],
        why: "The library has sockets of IPv4 and IPv6 only.",
        ..Rule::ANY
    },
    Rule {
        number: 22,
        of: &[Libsdp, Preload],
        phases: &["bad memory"],
        ours: &["SIGSEGV"],
        why: "Memory that is not there, or cannot be written, ends the program, where the kernel says \
              EFAULT. NULL is EFAULT, as with TCP.",
        ..Rule::ANY
    },
    Rule {
        number: 23,
        of: &[Libsdp, Preload],
        functions: &["sendto"],
        with: &["nowhere"],
        phases: &["bad memory"],
        ours: &["1"],
        why: "The address of a send is not looked at.",
        ..Rule::ANY
    },
    Rule {
        number: 24,
        of: &[Libsdp, Preload],
        functions: &["recvmmsg", "recv"],
        phases: &["reset_with_bytes"],
        probes: &["receives_messages", "receives_by_flag"],
        why: "recvmmsg receives what had come before a reset, as every other call does; Linux's tells of \
              the reset first.",
        ..Rule::ANY
    },
];
