//! Processes of this machine whose sockets are this library's, and what they tell of them.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, socket_with, sockopt,
};
use sdp_verbs::host::{Credentials, caller};

use crate::error;
use crate::report::{ANSWER, REPORT_MAX, SOCKET_NAME};

/// Where the kernel lists the names of Unix sockets.
const NAMES: &str = "/proc/self/net/unix";
/// The flag there of one that listens.
const LISTENS: &str = "00010000";
/// Processes found at most: names cost nothing, whoever makes them.
const FOUND_MAX: usize = 4096;

/// A process that seems to use this library, in the network namespace of this one.
///
/// What it seems to be may be a lie of another process; [`ask`](Self::ask) finds out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SdpProcess {
    name: String,
    pid: u32,
}

/// What a process has told.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Told {
    /// Its process id, as the kernel says; zero if it has none in our namespace.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its report, as `docs/stat.md` describes it; it is that process's, so it may be anything.
    pub json: String,
}

impl SdpProcess {
    /// All there are, in the order of their ids: those of other users too, which will not tell.
    ///
    /// # Errors
    /// The names of sockets cannot be read.
    pub fn all() -> io::Result<Vec<Self>> {
        let text =
            fs::read(NAMES).map_err(|e| io::Error::new(e.kind(), format!("{NAMES}: {e}")))?;
        let text = String::from_utf8_lossy(&text);
        let mut found: Vec<Self> = text.lines().filter_map(Self::in_line).collect();
        found.sort_by(|a, b| (a.pid, &a.name).cmp(&(b.pid, &b.name)));
        found.dedup();
        found.truncate(FOUND_MAX);
        Ok(found)
    }

    /// The process that a line of that list is about.
    fn in_line(line: &str) -> Option<Self> {
        let (facts, name) = line.split_once(" @")?;
        if facts.split_whitespace().nth(3) != Some(LISTENS) {
            return None;
        }
        let (pid, random) = name.strip_prefix(SOCKET_NAME)?.split_once('/')?;
        let is_ours = !random.is_empty() && random.bytes().all(|byte| byte.is_ascii_hexdigit());
        let pid = pid.parse().ok().filter(|_| is_ours && name.len() < 100)?;
        let name = name.to_owned();
        Some(Self { name, pid })
    }

    /// Its process id, as it has it itself: in another namespace it has another.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it, and waits at most about `wait`, or twice as long.
    ///
    /// # Errors
    /// `PermissionDenied`: it belongs to another user. `NotFound`: it has ended. `TimedOut`: it does
    /// not answer. `InvalidData`: its answer is not what was asked for.
    pub fn ask(&self, wait: Duration) -> io::Result<Told> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let wait = Some(wait.max(Duration::from_millis(1)));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, wait)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, wait)?;
        let name = SocketAddrUnix::new_abstract_name(self.name.as_bytes())?;
        connect(&socket, &name).map_err(|errno| match errno {
            Errno::CONNREFUSED => gone(),
            Errno::AGAIN => silent(),
            other => other.into(),
        })?;
        let who = caller(&socket).map_err(error::verbs_error)?;
        let own = Credentials::own();
        if who.uid != own.uid && own.uid != 0 {
            let text = format!("it belongs to user {}", who.uid);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let pid = u32::try_from(who.pid).unwrap_or(0);
        let has_ended = || pid != 0 && !Path::new(&format!("/proc/{pid}")).exists();
        if has_ended() {
            // A child of it has its descriptors.
            return Err(gone());
        }
        match receive(&socket).and_then(|file| read(&file)) {
            Ok(json) => Ok(Told {
                pid,
                uid: who.uid,
                json,
            }),
            Err(_) if has_ended() => Err(gone()),
            Err(error) => Err(error),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "it has ended")
}

fn silent() -> io::Error {
    let text = "it does not answer: is it stopped, or short of processor time?";
    io::Error::new(io::ErrorKind::TimedOut, text)
}

fn strange(what: &str) -> io::Error {
    let text = format!("its answer is not that of this library: {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The file that comes with an answer.
fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let received = rustix::io::retry_on_intr(|| {
        let iov = &mut [io::IoSliceMut::new(&mut bytes)];
        recvmsg(socket, iov, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let len = match received {
        Ok(received) => received.bytes,
        Err(Errno::AGAIN) => return Err(silent()),
        // It ended before it took the call.
        Err(Errno::CONNRESET) => return Err(gone()),
        Err(error) => return Err(error.into()),
    };
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files.flatten().next();
    match file {
        _ if len == 0 => Err(strange("it has hung up; SDP_LOG=debug there says why")),
        _ if bytes.get(..len) != Some(ANSWER) => Err(strange("other words")),
        Some(file) => Ok(file),
        None => Err(strange("no report")),
    }
}

/// The text of a file that nobody can change, so that reading it neither waits nor ends in the
/// middle.
fn read(file: &OwnedFd) -> io::Result<String> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    let sealed = fcntl_get_seals(file).is_ok_and(|found| found.contains(seals));
    let stat = fstat(file)?;
    if !sealed || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(strange("a file that is not sealed"));
    }
    let len = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if len > REPORT_MAX {
        return Err(strange("a report that is too long"));
    }
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let rest = bytes.get_mut(at..).unwrap_or_default();
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *rest, at as u64))? {
            0 => return Err(strange("a report that ends too early")),
            count => at += count,
        }
    }
    String::from_utf8(bytes).map_err(|_| strange("no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Option<u32> {
        let line = format!("0000000000000000: 00000002 00000000 00010000 0005 01 4242 @{name}");
        SdpProcess::in_line(&line).map(|process| process.pid)
    }

    /// Only listeners by names of ours are processes, whatever else stands in the list.
    #[test]
    fn lines_of_the_list() {
        assert_eq!(found("sdp-stat/1/77/00ff00ff00ff00ff"), Some(77));
        for name in [
            "sdp-stat/1/77/",
            "sdp-stat/1/77",
            "sdp-stat/1//ff",
            "sdp-stat/1/-1/ff",
            "sdp-stat/1/99999999999/ff",
            "sdp-stat/1/77/xyz",
            "sdp-stat/1/77/ff\u{fffd}",
            "sdp-stat/2/77/ff",
            "sdp-host/1/4/127.0.0.1/80/0",
        ] {
            assert_eq!(found(name), None, "{name}");
        }
        let long = format!("sdp-stat/1/77/{}", "f".repeat(100));
        assert_eq!(found(&long), None);
        let connected = "0: 00000002 00000000 00000000 0005 03 42 @sdp-stat/1/77/ff";
        for line in [
            connected,
            "",
            " @",
            "Num RefCount Protocol Flags Type St Inode Path",
        ] {
            assert_eq!(SdpProcess::in_line(line), None, "{line}");
        }
    }
}
