//! What this node must have before anything can be tested.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;

use anyhow::Context;
use serde_json::json;

use super::Findings;
use super::devices::{self, Device};
use super::perf::is_program;
use super::place;
use crate::run::Run;

/// Libraries that the provider opens, with their packages.
const LIBRARIES: [(&str, &str); 2] = [
    ("libibverbs.so.1", "libibverbs1"),
    ("librdmacm.so.1", "librdmacm1"),
];
/// Where the system keeps libraries, by its linker's cache and by default.
const LINKER: &str = "/sbin/ldconfig";
/// Locked memory below which registrations fail in ordinary use.
const MEMLOCK_MIN: u64 = 64 << 20;

/// Checks device, port, libraries and limits, and notes them; the device to use, if there is one.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn check(
    findings: &mut Findings<'_>,
    wanted: Option<&str>,
) -> anyhow::Result<Option<Device>> {
    let devices = devices::all();
    for device in &devices {
        findings.report.results.push(json!({ "device": device }));
    }
    let chosen = match wanted {
        Some(name) => devices.iter().find(|device| device.name == name),
        None => devices
            .iter()
            .find(|device| device.active_port().is_some())
            .or_else(|| devices.first()),
    };
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    let detail = match (chosen, wanted) {
        (Some(device), _) => format!("{} (of {})", device.name, names.join(", ")),
        (None, Some(name)) if !names.is_empty() => {
            format!("no device is called {name}: there are {}", names.join(", "))
        }
        (None, _) => devices::remedy_for_none(),
    };
    findings.check("device", chosen.is_some(), detail)?;
    let Some(device) = chosen else {
        return Ok(None);
    };
    let port_ok = check_port(findings, device)?;
    findings.check("place", true, place::describe(&device.name))?;
    let libraries_ok = check_libraries(findings)?;
    check_memlock(findings)?;
    note_limits(findings, device)?;
    Ok((port_ok && libraries_ok).then(|| device.clone()))
}

fn check_port(findings: &mut Findings<'_>, device: &Device) -> anyhow::Result<bool> {
    let active = device.active_port();
    let detail = match active {
        Some(port) => format!(
            "port {} of {}: {}, {}, {} addresses on {}",
            port.number,
            device.name,
            port.link_layer,
            port.rate,
            port.gids.len(),
            port.interfaces.join(", ")
        ),
        None => {
            let states = device.ports.iter();
            let states: Vec<_> = states
                .map(|p| format!("port {} is {}", p.number, p.state))
                .collect();
            format!(
                "{} has no active port: {}. Check the cable, `ip link set INTERFACE up`, and on \
                 InfiniBand that a subnet manager runs (package opensm)",
                device.name,
                states.join(", ")
            )
        }
    };
    findings.check("port", active.is_some(), detail)?;
    Ok(active.is_some())
}

fn check_libraries(findings: &mut Findings<'_>) -> anyhow::Result<bool> {
    let mut list = Command::new(LINKER);
    list.arg("-p");
    let known = Run::new(list).run(|_| ())?.lines.join("\n");
    let missing: Vec<_> = LIBRARIES
        .iter()
        .filter(|(library, _)| !known.contains(library))
        .map(|(library, package)| format!("{library} (package {package})"))
        .collect();
    let detail = if missing.is_empty() {
        LIBRARIES.map(|(library, _)| library).join(", ")
    } else {
        format!("missing: {}", missing.join(", "))
    };
    findings.check("libraries", missing.is_empty(), detail)?;
    Ok(missing.is_empty())
}

fn check_memlock(findings: &mut Findings<'_>) -> anyhow::Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("cannot read the limits")?;
    let limit = memlock(&limits).context("/proc/self/limits has no locked memory")?;
    // Registrations of a process with CAP_IPC_LOCK are not counted, save by some devices.
    let root = rustix::process::geteuid().is_root() && is_first_namespace();
    let ok = root || limit.is_none_or(|bytes| bytes >= MEMLOCK_MIN);
    let size = limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    let detail = if ok {
        size
    } else {
        format!(
            "{size}, needed {MEMLOCK_MIN}: `ulimit -l unlimited`, or a line `* - memlock \
             unlimited` in /etc/security/limits.d/rdma.conf"
        )
    };
    findings.check("memlock", ok, detail)
}

/// Whether root here is the machine's, and not that of a container with users of its own.
fn is_first_namespace() -> bool {
    let users = std::fs::read_to_string("/proc/self/uid_map");
    users.map_or(true, |users| {
        users.split_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// The limit of locked memory in bytes; `None` inside if there is none.
fn memlock(limits: &str) -> Option<Option<u64>> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        bytes => bytes.parse().ok().map(Some),
    }
}

/// The device's own limits, for the report.
fn note_limits(findings: &mut Findings<'_>, device: &Device) -> anyhow::Result<()> {
    if !is_program("ibv_devinfo") {
        let reason = "ibv_devinfo is not installed: apt-get install ibverbs-utils";
        return findings.skip("limits".to_owned(), reason.to_owned());
    }
    let mut command = Command::new("ibv_devinfo");
    command.args(["-v", "-d", &device.name]);
    let outcome = Run::new(command).run(|_| ())?;
    let ok = outcome.failure.is_none();
    let mut limits = serde_json::Map::new();
    for line in &outcome.lines {
        if let Some((name, value)) = line.split_once(':') {
            let (name, value) = (name.trim(), value.trim());
            if name.starts_with("max_") || name == "fw_ver" || name.starts_with("active_") {
                limits.insert(name.to_owned(), value.into());
            }
        }
    }
    let detail = match &outcome.failure {
        None => format!("{} limits noted", limits.len()),
        Some(why) => format!(
            "ibv_devinfo: {why}: {}: the package ibverbs-providers brings the device's library",
            outcome.lines.join(" ")
        ),
    };
    findings
        .report
        .results
        .push(json!({ "device": device.name, "limits": limits }));
    findings.check("limits", ok, detail)
}

/// Whether the way to the peer leaves by the device.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn check_route(
    findings: &mut Findings<'_>,
    device: &Device,
    peer: IpAddr,
) -> anyhow::Result<bool> {
    let way = source(peer).and_then(|source| Ok((source, interface(source)?)));
    let (ok, detail) = match way {
        Ok((source, interface)) if device.serves(source, &interface) => (
            true,
            format!("{peer} is reached from {source} on {interface}"),
        ),
        Ok((source, interface)) => (
            false,
            format!(
                "{peer} is reached from {source} on {interface}, which is not {}: name the address \
                 of the peer's RDMA interface, or this node's device by --device",
                device.name
            ),
        ),
        Err(why) => (false, format!("no way to peer {peer}: {why:#}")),
    };
    findings.check("route", ok, detail)?;
    Ok(ok)
}

/// The address that packets to the peer leave from.
fn source(peer: IpAddr) -> anyhow::Result<IpAddr> {
    let any: IpAddr = match peer {
        IpAddr::V4(_) => [0, 0, 0, 0].into(),
        IpAddr::V6(_) => [0u16; 8].into(),
    };
    // A connected datagram socket asks for the route and sends nothing.
    let socket = UdpSocket::bind((any, 0)).context("cannot make a socket")?;
    socket.connect((peer, 9)).context("no route")?;
    Ok(socket.local_addr().context("no local address")?.ip())
}

/// The interface that has an address.
fn interface(address: IpAddr) -> anyhow::Result<String> {
    let lines = ip_addresses(&["to", &address.to_string()])?;
    // `3: eth0    inet 10.0.0.1/24 …`
    let name = lines
        .first()
        .and_then(|line| line.split_whitespace().nth(1));
    name.map(str::to_owned)
        .with_context(|| format!("no interface has {address}"))
}

/// The addresses of an interface that other machines could use, those of IPv4 first.
///
/// # Errors
/// There is no program to ask.
pub(super) fn addresses(interface: &str) -> anyhow::Result<Vec<IpAddr>> {
    let lines = ip_addresses(&["dev", interface, "scope", "global"])?;
    let mut found: Vec<_> = lines.iter().filter_map(|line| address(line)).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}

/// The address in a line of `ip`.
fn address(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    words.find(|word| matches!(*word, "inet" | "inet6"))?;
    words.next()?.split('/').next()?.parse().ok()
}

/// Lines of `ip -oneline address show`.
fn ip_addresses(which: &[&str]) -> anyhow::Result<Vec<String>> {
    let ip = devices::iproute("ip").context("no program ip: apt-get install iproute2")?;
    let mut command = Command::new(ip);
    command.args(["-oneline", "address", "show"]).args(which);
    Ok(Run::new(command).run(|_| ())?.lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_locked_memory_is_the_soft_one() {
        let line = |value: &str| {
            format!("Max locked memory         {value}              8388608              bytes\n")
        };
        assert_eq!(memlock(&line("65536")), Some(Some(65_536)));
        assert_eq!(memlock(&line("unlimited")), Some(None));
        assert_eq!(memlock("Max cpu time unlimited"), None);
    }

    #[test]
    fn addresses_are_found_in_what_ip_says() {
        let v4 = "3: eth0    inet 10.9.0.1/24 scope global eth0\\       valid_lft forever";
        assert_eq!(address(v4), "10.9.0.1".parse().ok());
        let v6 = "3: eth0    inet6 fd00::1/64 scope global nodad \\       valid_lft forever";
        assert_eq!(address(v6), "fd00::1".parse().ok());
        assert_eq!(address("Device \"eth9\" does not exist."), None);
    }

    #[test]
    fn the_way_to_this_machine_is_found() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(source(loopback).unwrap(), loopback);
    }
}
