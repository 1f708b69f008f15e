//! Two processes of this machine, and bytes between them: copied, and not copied.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use sdp_socket::{Builder, ProviderKind, SdpBuffer, SdpStream, ZcopyThreshold};

use super::finding::Finding;
use super::probe::{Running, Said};

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(10);
/// Bytes of one transfer.
const LEN: usize = 1 << 20;
/// Transfers that may be copied because a reader was late.
const TRIES: u32 = 20;

/// Tries it.
pub(super) fn look() -> Vec<Finding> {
    let failed = |error: &anyhow::Error| {
        let remedy = "is the program readable, and are processes to be had (ulimit -u)?";
        vec![Finding::fail("host", format!("{error:#}"), remedy)]
    };
    let server = match Running::start("serve", &[]) {
        Ok(server) => server,
        Err(error) => return failed(&error),
    };
    let address = match server.next() {
        Ok(Some(Said::Listening(address))) => address,
        Ok(Some(Said::Finding(finding))) | Err(finding) => return vec![finding],
        Ok(None) => return server.findings(),
    };
    match Running::start("call", &[address.to_string()]) {
        Ok(client) => client.findings(),
        Err(error) => failed(&error),
    }
}

fn builder() -> Builder {
    Builder::new()
        .provider(ProviderKind::Host)
        .zcopy_threshold(ZcopyThreshold::Bytes(LEN))
}

/// A byte of the pattern.
fn byte(at: usize) -> u8 {
    // The lowest bits of a number whatever it is.
    (at.wrapping_mul(31) >> 3).to_le_bytes()[0]
}

/// In the server: answers each transfer by whether it was right.
pub(super) fn serve() -> anyhow::Result<()> {
    let opened = builder()
        .bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| Ok((listener.local_addr()?, listener)));
    let listener = match opened {
        Ok((address, listener)) => {
            Said::Listening(address).say()?;
            listener
        }
        Err(error) => return Said::Finding(refused("host.listen", &error)).say(),
    };
    let (mut stream, _) = listener.accept_timeout(WAIT)?;
    let mut bytes = vec![0; LEN];
    loop {
        let mut len = [0; 8];
        match stream.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let len = usize::try_from(u64::from_le_bytes(len))?.min(LEN);
        let got = bytes.get_mut(..len).unwrap_or_default();
        stream.read_exact(got)?;
        let right = got.iter().enumerate().all(|(at, got)| *got == byte(at));
        stream.write_all(&[u8::from(right)])?;
    }
}

fn refused(name: &str, error: &io::Error) -> Finding {
    let remedy = "the words say what is missing; both processes must be of one user and in one network namespace";
    Finding::fail(name, error.to_string(), remedy)
}

/// In the client.
pub(super) fn call(address: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut stream = match builder().connect_timeout(&address, WAIT) {
        Ok(stream) => stream,
        Err(error) => return Said::Finding(refused("host.connect", &error)).say(),
    };
    let took = begun.elapsed();
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    Said::Finding(Finding::ok(
        "host.connect",
        format!("two processes, connected in {took:.0?}"),
    ))
    .say()?;
    let pattern: Vec<u8> = (0..LEN).map(byte).collect();
    let finding = match transfer(&mut stream, &pattern[..LEN / 16]) {
        Ok(()) => Finding::ok(
            "host.copy",
            format!("{} bytes came as they were sent", LEN / 16),
        ),
        Err(error) => refused("host.copy", &error),
    };
    Said::Finding(finding).say()?;
    Said::Finding(registered(&mut stream, &pattern)).say()?;
    Said::Finding(ordinary(&mut stream, &pattern)).say()
}

/// Sends bytes and hears whether they were right.
fn transfer(stream: &mut SdpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&(bytes.len() as u64).to_le_bytes())?;
    stream.write_all(bytes)?;
    let mut right = [0];
    stream.read_exact(&mut right)?;
    if right != [1] {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "other bytes came than were sent",
        ));
    }
    Ok(())
}

/// Transfers until one was not copied. False: all were.
fn uncopied(stream: &mut SdpStream, bytes: &[u8]) -> io::Result<bool> {
    for _ in 0..TRIES {
        let before = stream.stats().tx_bytes_zcopy;
        transfer(stream, bytes)?;
        if stream.stats().tx_bytes_zcopy > before {
            return Ok(true);
        }
    }
    Ok(false)
}

fn registered(stream: &mut SdpStream, pattern: &[u8]) -> Finding {
    let name = "host.zero_copy";
    let sent = SdpBuffer::for_stream(stream, LEN).and_then(|mut memory| {
        memory.copy_from_slice(pattern);
        uncopied(stream, &memory)
    });
    match sent {
        Ok(true) => Finding::ok(
            name,
            format!("{LEN} bytes of an SdpBuffer came right, without a copy by the sender"),
        ),
        Ok(false) => Finding::warning(name, copied(stream), "is the machine very busy? Try again"),
        Err(error) => refused(name, &error),
    }
}

fn ordinary(stream: &mut SdpStream, pattern: &[u8]) -> Finding {
    let name = "host.process_vm_readv";
    match uncopied(stream, pattern) {
        Ok(true) => Finding::ok(
            name,
            format!(
                "permitted: {LEN} bytes of ordinary memory came right without a copy by the sender"
            ),
        ),
        Ok(false) => Finding::warning(
            name,
            format!("{}; {}", copied(stream), scope()),
            "memory of SdpBuffer needs no permission; else kernel.yama.ptrace_scope=0, and in \
             containers CAP_SYS_PTRACE or a seccomp profile that permits it",
        ),
        Err(error) => refused(name, &error),
    }
}

/// Why bytes were copied.
fn copied(stream: &SdpStream) -> String {
    let reasons = stream.stats().copy_reasons;
    let reasons: Vec<_> = reasons.iter().map(|(reason, ..)| *reason).collect();
    format!("all bytes were copied: {}", reasons.join(", "))
}

/// What the kernel permits in general.
fn scope() -> String {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    scope.map_or_else(
        |_| "no Yama".to_owned(),
        |scope| format!("kernel.yama.ptrace_scope is {}", scope.trim()),
    )
}
