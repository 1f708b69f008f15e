//! Two ways to wait for completions, and no way to miss one.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{BOUND, End, Link, NOTHING, Options, Rig, Side};
use crate::caps::Caps;
use crate::cq::{ArmFor, CompChannel, CompletionQueue, Wake};
use crate::error::PostError;
use crate::memory::RecvBuf;
use crate::qp::QueuePair;
use crate::types::WrId;
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WcStatus, WorkCompletion};

/// A connection on which nothing is under way, and which only the case polls.
pub(super) fn quiet_link(rig: &Rig<'_>) -> Verdict<Link> {
    let link = rig.manual_lab()?.link(&Options::default())?;
    link.lab.settle();
    Ok(link)
}

/// The next completion, waited for by the rule. A wait that outlasts [`BOUND`] has lost a wake-up
/// if there is a completion after it, and otherwise the completion itself is lost.
fn wait_for(cq: &dyn CompletionQueue) -> Verdict<WorkCompletion> {
    let mut out = [NOTHING];
    loop {
        let token = cq.arm(ArmFor::Waiter);
        if cq.poll(&mut out) == 1 {
            return Ok(out[0]);
        }
        if cq.wait(token, Some(BOUND))? == Wake::TimedOut {
            let what = if cq.poll(&mut out) == 1 {
                "wake-up"
            } else {
                "completion"
            };
            return Err(Stop::failed(format!("a {what} was lost: {:?}", out[0])));
        }
    }
}

/// Sends a message and waits until it has been sent, without looking at the other end.
pub(super) fn send_alone(end: &End, bytes: &[u8], flags: SendFlags) -> Verdict {
    let id = end.post_message(bytes, flags | SendFlags::SIGNALED)?;
    loop {
        let wc = wait_for(&**end.cq())?;
        if wc.opcode == WcOpcode::Send {
            ensure_eq!((wc.wr_id, wc.status), (id, WcStatus::Success), "{wc:?}");
            return Ok(());
        }
    }
}

/// Takes the next message of an end, without looking at the other end.
pub(super) fn receive_alone(end: &End) -> Verdict<Vec<u8>> {
    let wc = wait_for(&**end.cq())?;
    ensure_eq!(
        (wc.opcode, wc.status),
        (WcOpcode::Recv, WcStatus::Success),
        "{wc:?}"
    );
    let bytes = end.bytes(&wc)?;
    end.repost(&wc)?;
    Ok(bytes)
}

pub(super) fn an_event_ends_a_wait(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let cq = link.passive.cq();
    for round in 0..20 {
        // In the other thread, so that the wait has mostly begun when the message comes.
        let (armed, is_armed) = mpsc::channel();
        let waited = std::thread::scope(|scope| {
            let waiter = scope.spawn(move || {
                let token = cq.arm(ArmFor::Waiter);
                let early = cq.poll(&mut [NOTHING]);
                // The other end has gone only if this case has failed already.
                let _ = armed.send(());
                (early, cq.wait(token, Some(BOUND)))
            });
            let told = is_armed.recv();
            let sent = send_alone(&link.active, &[round], SendFlags::empty());
            let waited = waiter
                .join()
                .map_err(|_| Stop::failed("the waiting thread panicked"))?;
            sent?;
            told.map_err(|_| Stop::failed("the waiting thread ended early"))?;
            Ok::<_, Stop>(waited)
        })?;
        ensure_eq!(waited.0, 0, "completions before the message");
        ensure_eq!(waited.1?, Wake::Event, "end of the wait");
        ensure_eq!(receive_alone(&link.passive)?, [round], "message");
    }
    Ok(())
}

pub(super) fn a_wait_times_out(rig: &Rig<'_>) -> Verdict {
    let limit = Duration::from_millis(20);
    let link = quiet_link(rig)?;
    let cq = link.passive.cq();
    let deadline = Instant::now() + BOUND;
    loop {
        let token = cq.arm(ArmFor::Waiter);
        ensure_eq!(cq.poll(&mut [NOTHING]), 0, "completions of nothing");
        let start = Instant::now();
        if cq.wait(token, Some(limit))? == Wake::TimedOut {
            let took = start.elapsed();
            ensure!(
                took >= limit,
                "a wait for {limit:?} timed out after {took:?}"
            );
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "no wait for {limit:?} ever times out"
        );
    }
}

pub(super) fn an_event_before_the_wait_counts(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let cq = link.passive.cq();
    let token = cq.arm(ArmFor::Waiter);
    ensure_eq!(cq.poll(&mut [NOTHING]), 0, "completions before the message");
    send_alone(&link.active, b"early", SendFlags::empty())?;
    ensure!(
        cq.wait(token, Some(BOUND))? != Wake::TimedOut,
        "the wait overlooked an event"
    );
    ensure_eq!(receive_alone(&link.passive)?, b"early", "message");
    Ok(())
}

pub(super) fn wake_ends_a_wait(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let cq = link.passive.cq();
    for _ in 0..20 {
        let (armed, is_armed) = mpsc::channel();
        let woken = std::thread::scope(|scope| {
            let waiter = scope.spawn(move || {
                let token = cq.arm(ArmFor::Waiter);
                // The other end has gone only if this case has failed already.
                let _ = armed.send(());
                cq.wait(token, Some(BOUND))
            });
            let told = is_armed.recv();
            cq.wake();
            let woken = waiter
                .join()
                .map_err(|_| Stop::failed("the waiting thread panicked"))?;
            told.map_err(|_| Stop::failed("the waiting thread ended early"))?;
            Ok::<_, Stop>(woken?)
        })?;
        ensure_eq!(woken, Wake::Event, "end of the wait");
    }
    Ok(())
}

pub(super) fn wake_before_the_wait_counts(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let cq = link.passive.cq();
    let token = cq.arm(ArmFor::Waiter);
    cq.wake();
    ensure_eq!(cq.wait(token, Some(BOUND))?, Wake::Event, "end of the wait");
    Ok(())
}

/// Waits until a channel has something; false if that lasts longer than `limit`.
pub(super) fn readable(channel: &dyn CompChannel, limit: Duration) -> Verdict<bool> {
    let limit =
        Timespec::try_from(limit).map_err(|_| Stop::failed(format!("a time-out of {limit:?}")))?;
    let mut fds = [PollFd::from_borrowed_fd(channel.fd(), PollFlags::IN)];
    let count = rustix::event::poll(&mut fds, Some(&limit)).map_err(std::io::Error::from)?;
    Ok(count > 0)
}

/// One of two players: what a thread needs of an end.
#[derive(Debug)]
struct Player<'a> {
    qp: &'a dyn QueuePair,
    cq: &'a dyn CompletionQueue,
    channel: Option<&'a dyn CompChannel>,
    bufs: Vec<RecvBuf>,
}

impl<'a> Player<'a> {
    /// A player with receives of its own.
    fn new(end: &'a End, channel: Option<&'a dyn CompChannel>) -> Verdict<Self> {
        let mut bufs = Vec::new();
        for number in 0..4u64 {
            let buf = end.qp().alloc_recv(64)?;
            end.qp().post_recv(WrId(number), &buf)?;
            bufs.push(buf);
        }
        Ok(Self {
            qp: &**end.qp(),
            cq: &**end.cq(),
            channel,
            bufs,
        })
    }

    /// Sends a message; the last one so that its completion can be waited for.
    fn serve(&self, number: u32, last: bool) -> Verdict {
        // Most are unsignalled, as in a real program; the queue has 16 places.
        let signaled = last || number.is_multiple_of(8);
        let flags = if signaled {
            SendFlags::SIGNALED
        } else {
            SendFlags::empty()
        };
        loop {
            let posted = self.qp.post_send(SendWr {
                wr_id: WrId(u64::from(number)),
                op: SendOp::Send {
                    data: SendData::Inline(&number.to_be_bytes()),
                    invalidate: None,
                },
                flags,
            });
            match posted {
                Err(PostError::QueueFull) => {
                    let wc = wait_for(self.cq)?;
                    ensure_eq!(wc.opcode, WcOpcode::Send, "{wc:?} out of turn");
                }
                other => return Ok(other?),
            }
        }
    }

    /// Waits for the next completion, after some polls, whose number varies.
    fn next(&self, polls: u32) -> Verdict<WorkCompletion> {
        let mut out = [NOTHING];
        for _ in 0..polls {
            if self.cq.poll(&mut out) == 1 {
                return Ok(out[0]);
            }
        }
        let Some(channel) = self.channel else {
            return wait_for(self.cq);
        };
        loop {
            self.cq.arm(ArmFor::Channel);
            if self.cq.poll(&mut out) == 1 {
                return Ok(out[0]);
            }
            if !readable(channel, BOUND)? {
                let what = if self.cq.poll(&mut out) == 1 {
                    "event"
                } else {
                    "completion"
                };
                return Err(Stop::failed(format!(
                    "a channel {what} was lost: {:?}",
                    out[0]
                )));
            }
            while channel.poll().is_some() {}
        }
    }

    /// Waits until a message has been sent: nobody may leave before what he posted is out.
    fn served(&self, number: u32) -> Verdict {
        loop {
            let wc = self.next(0)?;
            ensure_eq!(wc.status, WcStatus::Success, "{wc:?}");
            if (wc.opcode, wc.wr_id) == (WcOpcode::Send, WrId(u64::from(number))) {
                return Ok(());
            }
        }
    }

    fn expect(&self, number: u32, polls: u32) -> Verdict {
        loop {
            let wc = self.next(polls)?;
            ensure_eq!(wc.status, WcStatus::Success, "{wc:?}");
            if wc.opcode != WcOpcode::Recv {
                continue;
            }
            let buf = usize::try_from(wc.wr_id.0)
                .ok()
                .and_then(|at| self.bufs.get(at));
            let Some(buf) = buf else {
                return Err(Stop::failed(format!("{wc:?} completes no receive")));
            };
            let mut bytes = [0; 4];
            buf.mem().read(0, &mut bytes);
            self.qp.post_recv(wc.wr_id, buf)?;
            ensure_eq!(u32::from_be_bytes(bytes), number, "message");
            return Ok(());
        }
    }
}

/// Sends `rounds` messages each way, in turns.
fn ping_pong(link: &Link, rounds: u32, channels: bool) -> Verdict {
    let stations = [
        link.lab.station(Side::Active),
        link.lab.station(Side::Passive),
    ];
    let [here, there] = stations.map(|station| channels.then_some(&*station.comp));
    let here = Player::new(&link.active, here)?;
    let there = Player::new(&link.passive, there)?;
    // What it took to post the receives may need a word between the sides.
    link.lab.settle();
    std::thread::scope(|scope| {
        let answers = scope.spawn(move || {
            for number in 0..rounds {
                there.expect(number, number % 5 * 3)?;
                there.serve(number, number == rounds - 1)?;
            }
            there.served(rounds - 1)
        });
        let mut served = Ok(());
        for number in 0..rounds {
            served = here
                .serve(number, false)
                .and_then(|()| here.expect(number, number % 7 * 2));
            if served.is_err() {
                // Or the other player would wait until its bound.
                here.qp.set_error();
                break;
            }
        }
        let answered = answers
            .join()
            .map_err(|_| Stop::failed("a player panicked"))?;
        served.and(answered)
    })
}

fn bare_link(rig: &Rig<'_>) -> Verdict<Link> {
    rig.manual_lab()?.link(&Options {
        recvs: 0,
        ..Options::default()
    })
}

pub(super) fn ping_pong_of_two_threads(rig: &Rig<'_>) -> Verdict {
    ping_pong(&bare_link(rig)?, rig.rounds(), false)
}

pub(super) fn ping_pong_over_channels(rig: &Rig<'_>) -> Verdict {
    ping_pong(&bare_link(rig)?, rig.rounds() / 10, true)
}

/// Takes all events of a channel.
pub(super) fn events(channel: &dyn CompChannel) -> Vec<crate::cq::CqToken> {
    std::iter::from_fn(|| channel.poll()).collect()
}

pub(super) fn a_channel_tells_once_per_arm(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let channel = &*link.lab.station(Side::Passive).comp;
    for round in 0..10 {
        link.passive.cq().arm(ArmFor::Channel);
        ensure_eq!(
            link.passive.cq().poll(&mut [NOTHING]),
            0,
            "completions too early"
        );
        ensure_eq!(events(channel), [], "events too early");
        ensure!(
            !readable(channel, Duration::ZERO)?,
            "readable with nothing to tell"
        );
        send_alone(&link.active, &[round, 1], SendFlags::empty())?;
        ensure!(readable(channel, BOUND)?, "an armed channel tells nothing");
        ensure_eq!(events(channel), [link.passive.token()], "events");
        ensure!(
            !readable(channel, Duration::ZERO)?,
            "readable after the last event"
        );
        // Not armed any more.
        send_alone(&link.active, &[round, 2], SendFlags::empty())?;
        ensure_eq!(events(channel), [], "events without arming");
        ensure_eq!(receive_alone(&link.passive)?, [round, 1], "message");
        ensure_eq!(receive_alone(&link.passive)?, [round, 2], "message");
        link.lab.settle();
        // A wrapper that works in steps may have fired for the steps.
        events(channel);
    }
    Ok(())
}

pub(super) fn a_channel_tells_which_queue(rig: &Rig<'_>) -> Verdict {
    let lab = rig.manual_lab()?;
    let mut links = Vec::new();
    for _ in 0..3 {
        links.push(lab.link(&Options::default())?);
    }
    lab.settle();
    let channel = &*lab.station(Side::Passive).comp;
    events(channel);
    for link in &links {
        link.passive.cq().arm(ArmFor::Channel);
    }
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        for number in order {
            let link = &links[number];
            send_alone(&link.active, b"x", SendFlags::empty())?;
            ensure!(readable(channel, BOUND)?, "an armed channel tells nothing");
            ensure_eq!(events(channel), [link.passive.token()], "events");
            ensure_eq!(receive_alone(&link.passive)?, b"x", "message");
            lab.settle();
            events(channel);
            link.passive.cq().arm(ArmFor::Channel);
        }
    }
    Ok(())
}

pub(super) fn a_disarmed_channel_is_silent(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let channel = &*link.lab.station(Side::Passive).comp;
    link.passive.cq().arm(ArmFor::Channel);
    link.passive.cq().disarm_channel();
    send_alone(&link.active, b"hush", SendFlags::empty())?;
    ensure_eq!(events(channel), [], "events after disarming");
    ensure_eq!(receive_alone(&link.passive)?, b"hush", "message");
    Ok(())
}

pub(super) fn solicited_events_only(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::SOLICITED)?;
    let link = quiet_link(rig)?;
    let channel = &*link.lab.station(Side::Passive).comp;
    link.passive.cq().arm(ArmFor::ChannelSolicited);
    send_alone(&link.active, b"plain", SendFlags::empty())?;
    ensure_eq!(
        events(channel),
        [],
        "events for a message that solicits none"
    );
    send_alone(&link.active, b"solicited", SendFlags::SOLICITED)?;
    ensure!(
        readable(channel, BOUND)?,
        "no event for a solicited message"
    );
    ensure_eq!(events(channel), [link.passive.token()], "events");
    ensure_eq!(receive_alone(&link.passive)?, b"plain", "first message");
    ensure_eq!(
        receive_alone(&link.passive)?,
        b"solicited",
        "second message"
    );
    link.lab.settle();
    events(channel);
    // What is not a success counts, solicited or not.
    link.passive.cq().arm(ArmFor::ChannelSolicited);
    link.active.id().disconnect();
    let told = link.lab.until("an event for the flush", || {
        let told = events(channel);
        (!told.is_empty()).then_some(told)
    });
    ensure_eq!(told?, [link.passive.token()], "events");
    Ok(())
}

/// How often this thread has gone to sleep.
fn sleeps() -> Verdict<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| Stop::failed("the kernel does not count this thread's sleeps"))
}

/// Who sleeps on a channel that was not armed is not even woken inside the kernel.
pub(super) fn a_wait_leaves_sleepers_on_the_channel_alone(rig: &Rig<'_>) -> Verdict {
    const ROUNDS: u8 = 50;
    let link = quiet_link(rig)?;
    let channel = &*link.lab.station(Side::Passive).comp;
    let cq = link.passive.cq();
    cq.arm(ArmFor::Channel);
    cq.disarm_channel();
    let (mut stop, stopped) = UnixStream::pair()?;
    let (ready, is_ready) = mpsc::channel();
    let slept = std::thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            let before = sleeps()?;
            // The other end has gone only if this case has failed already.
            let _ = ready.send(());
            loop {
                let mut fds = [
                    PollFd::from_borrowed_fd(channel.fd(), PollFlags::IN),
                    PollFd::new(&stopped, PollFlags::IN),
                ];
                rustix::event::poll(&mut fds, None).map_err(std::io::Error::from)?;
                events(channel);
                if !fds[1].revents().is_empty() {
                    return Ok::<_, Stop>(sleeps()? - before);
                }
            }
        });
        // It is gone if the thread has failed.
        let _ = is_ready.recv();
        let told = (0..ROUNDS).try_for_each(|round| {
            let token = cq.arm(ArmFor::Waiter);
            ensure_eq!(cq.poll(&mut [NOTHING]), 0, "completions too early");
            send_alone(&link.active, &[round], SendFlags::empty())?;
            let woken = cq.wait(token, Some(BOUND))?;
            ensure!(woken != Wake::TimedOut, "the waiter was not told");
            ensure_eq!(receive_alone(&link.passive)?, [round], "message");
            // On one processor, too, whoever was woken gets it, and sleeps again.
            let token = cq.arm(ArmFor::Waiter);
            ensure_eq!(cq.poll(&mut [NOTHING]), 0, "completions too early");
            cq.wait(token, Some(Duration::from_millis(1)))?;
            Ok(())
        });
        stop.write_all(b"x")?;
        let slept = sleeper
            .join()
            .map_err(|_| Stop::failed("the sleeping thread panicked"))??;
        told.map(|()| slept)
    })?;
    ensure!(
        slept < u64::from(ROUNDS / 5),
        "a thread was woken and slept {slept} times in {ROUNDS} waits of another one"
    );
    Ok(())
}

pub(super) fn arms_are_independent(rig: &Rig<'_>) -> Verdict {
    let link = quiet_link(rig)?;
    let channel = &*link.lab.station(Side::Passive).comp;
    let cq = link.passive.cq();
    for round in 0..10 {
        cq.arm(ArmFor::Channel);
        let token = cq.arm(ArmFor::Waiter);
        ensure_eq!(cq.poll(&mut [NOTHING]), 0, "completions too early");
        send_alone(&link.active, &[round], SendFlags::empty())?;
        ensure!(
            cq.wait(token, Some(BOUND))? != Wake::TimedOut,
            "the waiter was not told"
        );
        ensure!(readable(channel, BOUND)?, "the channel was not told");
        ensure_eq!(events(channel), [link.passive.token()], "events");
        ensure_eq!(receive_alone(&link.passive)?, [round], "message");
        link.lab.settle();
        events(channel);
    }
    Ok(())
}
