//! The side that serves: here, or on a host that ssh reaches.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, bail};

use super::devices::Port;
use super::perftest::TOOLS;
use super::{DEVICE, local};
use crate::text::quoted;

/// Port of the server that counts verbs, from that of the other.
pub(super) const VERIFYING: u16 = 4;

/// A running server. It ends when this is dropped: its standard input ends then.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// Kept apart: waiting for a child closes the one it has.
    stdin: Option<ChildStdin>,
}

impl Server {
    /// Starts the programs of the server and returns when they listen.
    ///
    /// # Errors
    /// When they cannot be started or do not say that they listen.
    pub(super) fn start(
        host: Option<&str>,
        sdp: &str,
        address: SocketAddr,
        device: &str,
    ) -> anyhow::Result<Self> {
        let script = script(sdp, address, device);
        let mut command = match host {
            // A session of its own: its end takes along whatever still runs in it.
            None => {
                let mut command = Command::new("setsid");
                command.args(["--wait", "sh", "-c", &script]);
                command
            }
            Some(host) => {
                let mut command = Command::new("ssh");
                command.args([host, &format!("setsid --wait sh -c {}", quoted(&script))]);
                command
            }
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        for _ in 0..2 {
            match lines.next() {
                Some(line) => drop(line.context("cannot read what the server says")?),
                None => {
                    let status = child.wait().context("cannot wait for the server")?;
                    bail!("the server does not start: {status}");
                }
            }
        }
        Ok(Self {
            stdin: child.stdin.take(),
            child,
        })
    }

    /// Serves until the programs end.
    ///
    /// # Errors
    /// When they cannot be waited for, or end with an error.
    pub(super) fn serve(mut self) -> anyhow::Result<()> {
        let status = self.child.wait().context("cannot wait for the server")?;
        anyhow::ensure!(status.success(), "the server ended: {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Nothing is left to do about a server that cannot be waited for.
        let _ = self.child.wait();
    }
}

/// Copies the program to `host` and says where it is there.
///
/// # Errors
/// When ssh or scp fails.
pub(super) fn install(host: &str, sdp: &Path) -> anyhow::Result<String> {
    let made = Command::new("ssh")
        .args([host, "mktemp -d -t sdp-hw-test.XXXXXX"])
        .output()
        .context("cannot run ssh")?;
    anyhow::ensure!(
        made.status.success(),
        "ssh {host}: {}",
        String::from_utf8_lossy(&made.stderr).trim()
    );
    let target = format!("{}/sdp", String::from_utf8_lossy(&made.stdout).trim());
    let copied = Command::new("scp")
        .arg("-q")
        .arg(sdp)
        .arg(format!("{host}:{target}"))
        .status()
        .context("cannot run scp")?;
    anyhow::ensure!(copied.success(), "scp to {host}: {copied}");
    Ok(target)
}

/// What the shell of the server runs: the programs of perftest over and over, each serves one
/// client; two servers of ours.
fn script(sdp: &str, address: SocketAddr, device: &str) -> String {
    let mut script = "trap 'kill 0' EXIT\n".to_owned();
    for tool in TOOLS {
        let command = tool.command(device, address.port(), None);
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        script.push_str(&format!(
            "command -v {0} >/dev/null && {{ while :; do {1} >/dev/null 2>&1 </dev/null || sleep 1; \
             done & }}\n",
            tool.program,
            words.join(" ")
        ));
    }
    script.push_str(&format!("export {DEVICE}={}\n", quoted(device)));
    let listen = |address: SocketAddr| format!("{} perf server --listen {address}", quoted(sdp));
    let verifying = SocketAddr::new(address.ip(), address.port().saturating_add(VERIFYING));
    script.push_str(&format!("{} --trace </dev/null &\n", listen(verifying)));
    script.push_str(&format!("{} --until-eof\n", listen(address)));
    script
}

/// An address that others reach a port by: on RoCE one of its GIDs is made of it, elsewhere (iWARP, IP
/// over InfiniBand) its interface has it.
///
/// # Errors
/// There is no program to ask for addresses of interfaces.
pub(super) fn address(port: &Port) -> anyhow::Result<Option<IpAddr>> {
    if let Some(v4) = port.gids.iter().find_map(Ipv6Addr::to_ipv4_mapped) {
        return Ok(Some(IpAddr::V4(v4)));
    }
    for interface in &port.interfaces {
        if let Some(address) = local::addresses(interface)?.first() {
            return Ok(Some(*address));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_one_the_shell_takes() {
        let script = script("/a b/sdp", "10.0.0.1:7471".parse().unwrap(), "mlx5_0");
        let status = Command::new("sh")
            .args(["-n", "-c", &script])
            .status()
            .unwrap();
        assert!(status.success());
        assert!(script.contains("'/a b/sdp' perf server --listen 10.0.0.1:7475 --trace"));
        assert!(script.contains("SDP_RDMA_DEVICE='mlx5_0'"));
        for tool in TOOLS {
            assert!(script.contains(tool.program), "{}", tool.program);
        }
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error() {
        let address = "127.0.0.1:1".parse().unwrap();
        let error = Server::start(None, "/bin/false", address, "none").unwrap_err();
        assert!(error.to_string().contains("does not start"));
    }

    /// The GID of an iWARP device is made of its MAC address, which nobody can connect to.
    #[test]
    fn a_gid_that_is_no_address_does_not_count() {
        let port = |gids: &[&str]| Port {
            number: 1,
            state: "4: ACTIVE".to_owned(),
            rate: String::new(),
            link_layer: "Ethernet".to_owned(),
            gids: gids.iter().map(|gid| gid.parse().unwrap()).collect(),
            interfaces: Vec::new(),
        };
        let found = |gids: &[&str]| address(&port(gids)).unwrap();
        let v4 = "10.0.0.1".parse().ok();
        assert_eq!(found(&["fe80::1", "fd00::1", "::ffff:10.0.0.1"]), v4);
        assert_eq!(found(&["5254:0:2::"]), None);
        let loopback = Port {
            interfaces: vec!["lo".to_owned()],
            ..port(&[])
        };
        assert_eq!(address(&loopback).unwrap(), None);
    }
}
