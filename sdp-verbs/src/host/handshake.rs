//! How two processes come to a link: hellos without descriptors first, and only when each has
//! judged the other the set-ups with theirs.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use smallvec::SmallVec;

use super::control::{self, Sent};
use super::identity::Credentials;
use super::link::PeerLink;
use super::message::{Hello, Message, Setup, Wish, broken};
use super::plane::{ControlOut, HelloFacts, LocalSide, PeerHello, PeerIdentity};
use crate::error::VerbsError;

/// Layout version of control messages and shared memory: another major one is refused.
pub(super) const LAYOUT_MAJOR: u16 = 1;
/// Layout version: a minor one adds to what the major one says.
pub(super) const LAYOUT_MINOR: u16 = 2;
/// Feature bit: knows `TokenSocket` messages, and the arm that goes with them, which says how much was
/// taken before. The first bit means an arm that does not, and is not answered.
const FEATURE_TOKENS: u64 = 1 << 1;
/// Feature bits we set.
const FEATURES: u64 = FEATURE_TOKENS;

/// A uid that no process has, as in chown(2).
const NO_USER: u32 = u32::MAX;

/// A peer whose hello was found good.
#[derive(Debug)]
pub(super) struct Partner {
    /// Its process image.
    pub(super) tag: u128,
    /// Who it is.
    pub(super) credentials: Credentials,
    /// Readable when it has ended; none if it lives in another pid namespace.
    pub(super) pidfd: Option<OwnedFd>,
    /// Its feature bits.
    pub(super) features: u64,
}

/// Our own hello.
pub(super) fn hello(tag: u128, wish: Wish) -> Message {
    Message::Hello(Hello {
        major: LAYOUT_MAJOR,
        minor: LAYOUT_MINOR,
        features: FEATURES,
        page_size: page_size(),
        word_size: word_size(),
        tag,
        wish,
    })
}

/// Whether we can share memory with whoever says this.
///
/// # Errors
/// [`VerbsError::Protocol`] that names what does not fit.
pub(super) fn judge(hello: &Hello) -> Result<(), VerbsError> {
    let refuse = |rule: String| {
        Err(VerbsError::Protocol {
            what: "handshake of a host link",
            rule,
        })
    };
    if hello.major != LAYOUT_MAJOR {
        return refuse(version_rule(hello.major, hello.minor));
    }
    if hello.page_size != page_size() {
        return refuse(format!(
            "the peer's pages have {} bytes, ours {}",
            hello.page_size,
            page_size()
        ));
    }
    if hello.word_size != word_size() {
        return refuse(format!(
            "the peer's words have {} bytes, ours {}",
            hello.word_size,
            word_size()
        ));
    }
    Ok(())
}

/// Why two versions do not fit.
pub(super) fn version_rule(major: u16, minor: u16) -> String {
    format!(
        "the peer speaks layout version {major}.{minor}, we {LAYOUT_MAJOR}.{LAYOUT_MINOR}: \
         both programs need the same major version of this library"
    )
}

/// Sends our set-up, with the key table if the peer is our own user.
pub(super) fn send_setup(
    socket: impl AsFd,
    side: &LocalSide,
    partner: &Partner,
) -> Result<Sent, VerbsError> {
    let facts = side.facts();
    let shows_keys = partner.credentials.is_own_user();
    let message = Message::Setup(Setup {
        key_table_addr: facts.key_table_addr,
        key_table_len: facts.key_table_len,
        base_len: facts.base_len,
        shows_keys,
    });
    let mut fds: SmallVec<[_; 3]> = SmallVec::new();
    fds.push(side.doorbell());
    fds.push(side.base());
    if shows_keys {
        fds.push(side.key_table());
    }
    control::send(socket, &message.encode(), &fds, false)
}

/// Builds the data plane of the link from both halves.
///
/// # Errors
/// [`VerbsError::Protocol`] if the peer's half is not what it must be, [`VerbsError::Limit`] if
/// its memory cannot be mapped.
pub(super) fn build(
    side: LocalSide,
    partner: &Partner,
    setup: Setup,
    fds: SmallVec<[OwnedFd; 3]>,
    out: Arc<dyn ControlOut>,
) -> Result<Arc<PeerLink>, VerbsError> {
    let mut fds = fds.into_iter();
    let (Some(doorbell), Some(base)) = (fds.next(), fds.next()) else {
        return Err(broken("a set-up came without its descriptors".into()));
    };
    let own_user = partner.credentials.is_own_user();
    let peer = PeerIdentity {
        pid: partner.credentials.pid,
        // The overflow uid may look like our own: it must not, where memory is shown.
        uid: if own_user {
            partner.credentials.uid
        } else {
            NO_USER
        },
    };
    let hello = PeerHello {
        facts: HelloFacts {
            tag: partner.tag,
            key_table_addr: setup.key_table_addr,
            key_table_len: setup.key_table_len,
            base_len: setup.base_len,
        },
        doorbell,
        base,
        // A table of another user's is of no use to us: what it names would not be shown.
        key_table: fds.next().filter(|_| own_user),
        tokens: partner.features & FEATURE_TOKENS != 0,
    };
    PeerLink::new(side, peer, hello, out)
}

fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX)
}

fn word_size() -> u8 {
    u8::try_from(size_of::<usize>()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Hello {
        match hello(7, Wish::Link) {
            Message::Hello(hello) => hello,
            other => panic!("{other:?} is no hello"),
        }
    }

    #[test]
    fn our_own_hello_is_good_and_so_is_a_later_minor_version() {
        judge(&ours()).unwrap();
        let newer = Hello {
            minor: LAYOUT_MINOR + 1,
            features: u64::MAX,
            ..ours()
        };
        judge(&newer).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = [
            (
                Hello {
                    major: LAYOUT_MAJOR + 1,
                    ..ours()
                },
                "version",
            ),
            (
                Hello {
                    page_size: 12,
                    ..ours()
                },
                "pages",
            ),
            (
                Hello {
                    word_size: 3,
                    ..ours()
                },
                "words",
            ),
        ];
        for (hello, word) in wrong {
            let error = judge(&hello).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
