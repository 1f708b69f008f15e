//! Cases written as two scripts, one for each side, which share nothing but the connection.
//!
//! They run on two threads as part of the suite, and in two processes when a test starts one
//! process with [`passive`] and another one with [`active`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{End, Lab, Mem, Options, Rig, Side, pattern};
use super::{Poller, Sides};
use crate::caps::Caps;
use crate::provider::Provider;
use crate::types::{Access, RemoteAddr, Rkey};
use crate::wr::{SendFlags, WcOpcode, WcStatus};

type Script = fn(&End) -> Verdict;

#[derive(Debug)]
struct Play {
    name: &'static str,
    needs: Caps,
    active: Script,
    passive: Script,
}

const NO_CAPS: Caps = Caps::empty();
const WINDOW_READ: Caps = Caps::MEMORY_WINDOW.union(Caps::RDMA_READ);

const PLAYS: &[Play] = &[
    Play {
        name: "echo",
        needs: NO_CAPS,
        active: echo_active,
        passive: echo_passive,
    },
    Play {
        name: "lengths",
        needs: NO_CAPS,
        active: lengths_active,
        passive: lengths_passive,
    },
    Play {
        name: "stream_one_way",
        needs: Caps::RNR_RETRY,
        active: stream_active,
        passive: stream_passive,
    },
    Play {
        name: "read_what_the_message_names",
        needs: WINDOW_READ.union(Caps::LOCAL_INV),
        active: reader,
        passive: read_from,
    },
    Play {
        name: "write_before_the_message",
        needs: Caps::MEMORY_WINDOW.union(Caps::RDMA_WRITE),
        active: writer,
        passive: written_to,
    },
    Play {
        name: "invalidated_by_the_answer",
        needs: WINDOW_READ.union(Caps::SEND_WITH_INV),
        active: invalidator,
        passive: invalidated,
    },
    Play {
        name: "end_behind_the_data",
        needs: NO_CAPS,
        active: leaves,
        passive: is_left,
    },
    Play {
        name: KILLED,
        needs: NO_CAPS,
        active: survivor,
        passive: dies,
    },
    Play {
        name: KILLED_WITH_A_KEY,
        needs: WINDOW_READ,
        active: reader_of_the_dead,
        passive: dies_with_a_key,
    },
];

/// The passive side kills its own process behind what it has sent. For two processes only.
pub const KILLED: &str = "killed";

/// As [`KILLED`], with memory shown to the peer. For two processes only.
pub const KILLED_WITH_A_KEY: &str = "killed_with_a_key";

/// Names of the cases that any two processes can run.
pub fn names() -> impl Iterator<Item = &'static str> {
    PLAYS
        .iter()
        .map(|play| play.name)
        .filter(|name| !name.starts_with(KILLED))
}

fn find(name: &str) -> Verdict<&'static Play> {
    let play = PLAYS.iter().find(|play| play.name == name);
    play.ok_or_else(|| Stop::failed(format!("there is no role case {name}")))
}

const OPTIONS: Options = Options {
    send_wr_max: 16,
    recv_wr_max: 16,
    rnr_retry: 7,
    recvs: 8,
    recv_len: 64 << 10,
};

fn one_sided(provider: &Arc<dyn Provider>, address: IpAddr) -> Verdict<Lab> {
    let sides = Sides {
        active: Arc::clone(provider),
        passive: Arc::clone(provider),
    };
    Lab::new(&sides, address, Poller::Caller)
}

fn play_passive(
    provider: &Arc<dyn Provider>,
    address: IpAddr,
    play: &Play,
    announce: impl FnOnce(SocketAddr),
) -> Verdict {
    let lab = one_sided(provider, address)?;
    let (listener, addr) = lab.listen(1)?;
    announce(addr);
    let (id, _) = lab.request(Side::Passive, &*listener)?;
    let end = End::new(&lab, Side::Passive, id, &OPTIONS)?;
    end.id().accept(b"")?;
    end.established()?;
    (play.passive)(&end)?;
    end.disconnected()
}

fn play_active(provider: &Arc<dyn Provider>, addr: SocketAddr, play: &Play) -> Verdict {
    let lab = one_sided(provider, addr.ip())?;
    let id = lab.resolve(Side::Active, addr)?;
    let end = End::new(&lab, Side::Active, id, &OPTIONS)?;
    end.id().connect(b"")?;
    end.establish()?;
    (play.active)(&end)?;
    end.id().disconnect();
    Ok(())
}

fn in_words(verdict: Verdict) -> Result<(), String> {
    verdict.map_err(|stop| match stop {
        Stop::Failed(failure) => failure.to_string(),
        Stop::Skipped(reason) => format!("skipped: {reason}"),
    })
}

/// Runs the listening side of a case. `announce` is told where it listens.
///
/// # Errors
/// What went wrong, in words.
pub fn passive(
    provider: &Arc<dyn Provider>,
    address: IpAddr,
    name: &str,
    announce: impl FnOnce(SocketAddr),
) -> Result<(), String> {
    in_words(find(name).and_then(|play| play_passive(provider, address, play, announce)))
}

/// Runs the connecting side of a case.
///
/// # Errors
/// What went wrong, in words.
pub fn active(provider: &Arc<dyn Provider>, addr: SocketAddr, name: &str) -> Result<(), String> {
    in_words(find(name).and_then(|play| play_active(provider, addr, play)))
}

/// Both sides, each on a thread of its own.
fn on_two_threads(rig: &Rig<'_>, name: &str) -> Verdict {
    let play = find(name)?;
    rig.need(play.needs)?;
    let (tell, told) = mpsc::channel();
    let (address, sides) = (rig.address(), &rig.sides);
    std::thread::scope(|scope| {
        let listening = scope.spawn(move || {
            play_passive(&sides.passive, address, play, |addr| {
                // The receiver waits for exactly this.
                let _ = tell.send(addr);
            })
        });
        let connected = match told.recv() {
            Ok(addr) => play_active(&sides.active, addr, play),
            // The listening side has said why.
            Err(mpsc::RecvError) => Ok(()),
        };
        let listened = listening.join();
        let listened = listened.map_err(|_| Stop::failed("the listening side panicked"))?;
        connected.and(listened)
    })
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {$(
        pub(super) fn $name(rig: &Rig<'_>) -> Verdict {
            on_two_threads(rig, stringify!($name))
        }
    )*};
}
cases!(
    echo,
    lengths,
    stream_one_way,
    read_what_the_message_names,
    write_before_the_message,
    invalidated_by_the_answer,
    end_behind_the_data,
);

const ECHOES: u32 = 500;

fn echo_active(end: &End) -> Verdict {
    for number in 0..ECHOES {
        end.send(&number.to_be_bytes())?;
        ensure_eq!(end.receive_and_repost()?, number.to_be_bytes(), "echo");
    }
    Ok(())
}

fn echo_passive(end: &End) -> Verdict {
    for _ in 1..ECHOES {
        let bytes = end.receive_and_repost()?;
        end.send(&bytes)?;
    }
    let bytes = end.receive_and_repost()?;
    end.send_last(&bytes)
}

const LENGTHS: [usize; 8] = [0, 1, 63, 64, 65, 4096, 32 << 10, 64 << 10];

fn lengths_active(end: &End) -> Verdict {
    for (seed, len) in (0..).zip(LENGTHS) {
        end.send(&pattern(seed, len))?;
    }
    ensure_eq!(end.receive()?, b"all", "answer");
    Ok(())
}

fn lengths_passive(end: &End) -> Verdict {
    for (seed, len) in (0..).zip(LENGTHS) {
        ensure!(
            end.receive_and_repost()? == pattern(seed, len),
            "message of {len} differs"
        );
    }
    end.send_last(b"all")
}

const STREAMED: u32 = 1000;

fn stream_active(end: &End) -> Verdict {
    for number in 0..STREAMED {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(4 + usize::try_from(number % 2000).unwrap_or(0), 0xAB);
        end.send(&bytes)?;
    }
    ensure_eq!(end.receive()?, b"all", "answer");
    Ok(())
}

fn stream_passive(end: &End) -> Verdict {
    for number in 0..STREAMED {
        let bytes = end.receive_and_repost()?;
        ensure_eq!(bytes[..4], number.to_be_bytes(), "number of a message");
        ensure_eq!(
            bytes.len() - 4,
            (number % 2000) as usize,
            "length of message {number}"
        );
    }
    end.send_last(b"all")
}

const SHOWN: usize = 150_000;
const ROUNDS: u8 = 20;

/// Key and address, as a message.
fn name_of(rkey: Rkey, addr: RemoteAddr) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&rkey.0.to_be_bytes());
    bytes[4..].copy_from_slice(&addr.0.to_be_bytes());
    bytes
}

fn named(bytes: &[u8]) -> Verdict<(Rkey, RemoteAddr)> {
    let parts = bytes.split_first_chunk::<4>();
    let parts = parts.and_then(|(key, rest)| Some((key, <[u8; 8]>::try_from(rest).ok()?)));
    match parts {
        Some((key, addr)) => Ok((
            Rkey(u32::from_be_bytes(*key)),
            RemoteAddr(u64::from_be_bytes(addr)),
        )),
        None => Err(Stop::failed(format!("a message of {} bytes", bytes.len()))),
    }
}

fn read(end: &End, target: &Mem, rkey: Rkey, addr: RemoteAddr) -> Verdict<WcStatus> {
    let id = end.post_read(&[target.sge(0, SHOWN)], addr, rkey)?;
    let wc = end.next_sent()?;
    ensure_eq!(wc.wr_id, id, "{wc:?}");
    Ok(wc.status)
}

fn reader(end: &End) -> Verdict {
    let target = end.mem(SHOWN)?;
    for round in 0..ROUNDS {
        let (rkey, addr) = named(&end.receive_and_repost()?)?;
        ensure_eq!(
            read(end, &target, rkey, addr)?,
            WcStatus::Success,
            "read {round}"
        );
        ensure!(
            target.read(0, SHOWN) == pattern(round, SHOWN),
            "read {round} differs"
        );
        end.send(b"read")?;
    }
    let (rkey, addr) = named(&end.receive()?)?;
    target.write(0, &vec![0; SHOWN]);
    ensure_eq!(
        read(end, &target, rkey, addr)?,
        WcStatus::RemoteAccess,
        "read of a dead key"
    );
    ensure!(
        target.read(0, SHOWN).iter().all(|byte| *byte == 0),
        "a failed read left bytes"
    );
    Ok(())
}

fn read_from(end: &End) -> Verdict {
    let source = end.mem(SHOWN)?;
    for round in 0..=ROUNDS {
        source.write(0, &pattern(round, SHOWN));
        let shown = end.expose(&source, 0, SHOWN, Access::REMOTE_READ)?;
        if round == ROUNDS {
            let op = crate::wr::SendOp::LocalInv { rkey: shown.rkey };
            let id = end.post(op, SendFlags::SIGNALED)?;
            end.sent(id, WcOpcode::LocalInv)?;
        }
        let name = name_of(shown.rkey, shown.addr);
        if round == ROUNDS {
            // Whoever gets it reads at once, which may break this queue pair.
            return end.send_last(&name);
        }
        end.send(&name)?;
        ensure_eq!(end.receive_and_repost()?, b"read", "answer");
    }
    Ok(())
}

fn writer(end: &End) -> Verdict {
    let source = end.mem(SHOWN)?;
    let (rkey, addr) = named(&end.receive()?)?;
    for round in 0..ROUNDS {
        source.write(0, &pattern(round, SHOWN));
        let id = end.post_write(&[source.sge(0, SHOWN)], addr, rkey)?;
        let behind = end.post_message(&[round], SendFlags::SIGNALED)?;
        end.sent(id, WcOpcode::Write)?;
        end.sent(behind, WcOpcode::Send)?;
        ensure_eq!(end.receive_and_repost()?, b"seen", "answer");
    }
    Ok(())
}

fn written_to(end: &End) -> Verdict {
    let target = end.mem(SHOWN)?;
    let shown = end.expose(&target, 0, SHOWN, Access::REMOTE_WRITE)?;
    end.send(&name_of(shown.rkey, shown.addr))?;
    for round in 0..ROUNDS {
        ensure_eq!(end.receive_and_repost()?, [round], "message");
        ensure!(
            target.read(0, SHOWN) == pattern(round, SHOWN),
            "write {round} is late"
        );
        if round == ROUNDS - 1 {
            return end.send_last(b"seen");
        }
        end.send(b"seen")?;
    }
    Ok(())
}

fn invalidator(end: &End) -> Verdict {
    let target = end.mem(SHOWN)?;
    for round in 0..ROUNDS {
        let (rkey, addr) = named(&end.receive_and_repost()?)?;
        ensure_eq!(
            read(end, &target, rkey, addr)?,
            WcStatus::Success,
            "read {round}"
        );
        let id = end.post_message_inv(b"done", SendFlags::SIGNALED, Some(rkey))?;
        end.sent(id, WcOpcode::Send)?;
    }
    ensure_eq!(end.receive()?, b"bye", "answer");
    Ok(())
}

fn invalidated(end: &End) -> Verdict {
    let source = end.mem(SHOWN)?;
    for _ in 0..ROUNDS {
        let shown = end.expose(&source, 0, SHOWN, Access::REMOTE_READ)?;
        end.send(&name_of(shown.rkey, shown.addr))?;
        let wc = end.next_received()?;
        let expected = (WcStatus::Success, Some(shown.rkey));
        ensure_eq!((wc.status, wc.invalidated), expected, "{wc:?}");
        end.repost(&wc)?;
    }
    end.send_last(b"bye")
}

const LAST_WORDS: u8 = 6;

fn leaves(end: &End) -> Verdict {
    for number in 0..LAST_WORDS {
        end.post_message(&[number], SendFlags::empty())?;
    }
    // The connection is ended behind this, while the messages may still be under way.
    Ok(())
}

fn is_left(end: &End) -> Verdict {
    last_words(end)
}

/// Everything that was sent comes before the end does.
fn last_words(end: &End) -> Verdict {
    for number in 0..LAST_WORDS {
        ensure_eq!(end.receive()?, [number], "last words");
    }
    for _ in usize::from(LAST_WORDS)..OPTIONS.recvs {
        let wc = end.next_received()?;
        ensure_eq!(wc.status, WcStatus::Flushed, "{wc:?}");
    }
    Ok(())
}

fn survivor(end: &End) -> Verdict {
    end.send(b"go")?;
    last_words(end)?;
    end.disconnected()
}

fn die() -> Verdict {
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL)
        .map_err(std::io::Error::from)?;
    Err(Stop::failed("survived SIGKILL"))
}

fn dies(end: &End) -> Verdict {
    ensure_eq!(end.receive()?, b"go", "message");
    for number in 0..LAST_WORDS {
        end.send(&[number])?;
    }
    die()
}

fn reader_of_the_dead(end: &End) -> Verdict {
    let target = end.mem(SHOWN)?;
    let (rkey, addr) = named(&end.receive_and_repost()?)?;
    ensure_eq!(
        read(end, &target, rkey, addr)?,
        WcStatus::Success,
        "read of the living"
    );
    end.send(b"go")?;
    end.disconnected()?;
    target.write(0, &vec![0; SHOWN]);
    // A refusal is an answer as well.
    if let Ok(id) = end.post_read(&[target.sge(0, SHOWN)], addr, rkey) {
        end.failed(id)?;
    }
    ensure!(
        target.read(0, SHOWN).iter().all(|byte| *byte == 0),
        "read from the dead"
    );
    Ok(())
}

fn dies_with_a_key(end: &End) -> Verdict {
    let source = end.mem(SHOWN)?;
    source.write(0, &pattern(1, SHOWN));
    let shown = end.expose(&source, 0, SHOWN, Access::REMOTE_READ)?;
    end.send(&name_of(shown.rkey, shown.addr))?;
    ensure_eq!(end.receive()?, b"go", "message");
    die()
}
