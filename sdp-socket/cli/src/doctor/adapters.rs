//! RDMA adapters: libraries, modules, permissions, ports.

use std::env;
use std::net::Ipv6Addr;

use sdp_socket::survey::{Survey, SurveyedDevice, SurveyedPort, lockable, survey};

use super::finding::Finding;

/// Locked memory that a program over an adapter may well want.
const LOCKED_MIN: u64 = 64 << 20;
/// What keeps a connection by an adapter from going on, and nobody at this end sees.
const FIREWALL: &str = "RoCE is UDP port 4791, iWARP the TCP port of the listener, both ways";

/// Everything. `wanted`: a connection is to go by an adapter, so one that lacks is a failure.
pub(super) fn look(wanted: bool) -> Vec<Finding> {
    judge(
        &survey(),
        wanted,
        env::var("SDP_RDMA_DEVICE").ok().as_deref(),
    )
}

fn judge(survey: &Survey, wanted: bool, named: Option<&str>) -> Vec<Finding> {
    let lacking = |name: &str, detail: &str, remedy: &str| {
        if wanted {
            Finding::fail(name, detail, remedy)
        } else {
            Finding::warning(name, detail, remedy)
        }
    };
    let mut findings = Vec::new();
    findings.push(match &survey.libraries {
        Ok(()) => Finding::ok("rdma.libraries", "libibverbs and librdmacm"),
        Err(why) => lacking("rdma.libraries", "not there", why),
    });
    if survey.devices.is_empty() {
        let why = match (&survey.adapters[..], &survey.kernel) {
            ([], Err(why)) => why.clone(),
            ([], Ok(())) => "load the adapter's driver".to_owned(),
            (adapters, _) => adapters.join("; "),
        };
        let detail = "none: connections within this machine only";
        findings.push(lacking("rdma.device", detail, &why));
        return findings;
    }
    findings.push(match &survey.kernel {
        Ok(()) => Finding::ok(
            "rdma.kernel",
            "ib_uverbs and rdma_ucm, and this user may use them",
        ),
        Err(why) => lacking("rdma.kernel", "devices cannot be used", why),
    });
    if let Some(named) = named.filter(|named| !named.is_empty())
        && !survey.devices.iter().any(|device| device.name == named)
    {
        let detail = format!("SDP_RDMA_DEVICE={named}, and there is none of that name");
        findings.push(lacking(
            "rdma.device",
            &detail,
            "name one of those below, or unset it",
        ));
    }
    let mut ports = survey.devices.iter().flat_map(|device| &device.ports);
    let any_active = ports.any(SurveyedPort::is_active);
    for device in &survey.devices {
        findings.extend(judge_device(device, any_active, &lacking));
    }
    if named.is_none_or(str::is_empty) {
        findings.extend(two_kinds(&survey.devices));
    }
    findings.push(locked());
    let detail = "whether packets of adapters get through cannot be seen from here";
    findings.push(Finding::unchecked("rdma.firewall", detail, FIREWALL));
    findings
}

fn judge_device(
    device: &SurveyedDevice,
    any_active: bool,
    lacking: &impl Fn(&str, &str, &str) -> Finding,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = &device.name;
    let kind = |link_layer: &str| match device.traits {
        Some(traits) if traits.iwarp => "iWARP",
        Some(_) if link_layer == "Ethernet" => "RoCE",
        Some(_) => "InfiniBand",
        None => "not opened",
    };
    for port in &device.ports {
        let gids: Vec<_> = port
            .gids
            .iter()
            .map(|gid| match gid.to_ipv4_mapped() {
                Some(v4) => v4.to_string(),
                None => gid.to_string(),
            })
            .collect();
        let facts = [port.state.as_str(), &port.link_layer, &port.rate];
        let facts: Vec<_> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
        let detail = format!(
            "{name} port {}, {}: {}; interfaces {}; GIDs {}",
            port.number,
            kind(&port.link_layer),
            facts.join(", "),
            all(&port.interfaces),
            all(&gids),
        );
        let remedy = "bring the link, or the network interface under it, up";
        findings.push(if !port.is_active() && any_active {
            // Connections go by another port: adapters with one cable are common.
            Finding::warning("rdma.port", detail, remedy)
        } else if !port.is_active() {
            lacking("rdma.port", &detail, remedy)
        } else if port.link_layer == "InfiniBand" && port.interfaces.is_empty() {
            let remedy = "connections are made by IP addresses: modprobe ib_ipoib, and give its \
                          interface one";
            lacking("rdma.port", &detail, remedy)
        } else if gids.is_empty() && device.traits.is_none_or(|traits| !traits.iwarp) {
            let remedy = "give its network interface an address";
            lacking("rdma.port", &detail, remedy)
        } else if port.link_layer == "Ethernet"
            && !gids.is_empty()
            && port.gids.iter().all(Ipv6Addr::is_unicast_link_local)
        {
            let remedy =
                "give its network interface an address, unless peers name its link-local one";
            Finding::warning("rdma.port", detail, remedy)
        } else {
            Finding::ok("rdma.port", detail)
        });
    }
    if let Some(traits) = device.traits {
        findings.push(if traits.windows {
            Finding::ok("rdma.windows", format!("{name} has memory windows"))
        } else {
            let detail = format!("{name} has no memory windows of type 2");
            let remedy = "nothing: each large send registers its memory, which costs more";
            Finding::warning("rdma.windows", detail, remedy)
        });
    }
    findings
}

/// Devices of two kinds are not used together.
fn two_kinds(devices: &[SurveyedDevice]) -> Option<Finding> {
    let active = |iwarp: bool| {
        let of_kind = devices.iter().filter(move |device| {
            let is_it = device.traits.is_some_and(|traits| traits.iwarp == iwarp);
            is_it && device.ports.iter().any(SurveyedPort::is_active)
        });
        of_kind
            .map(|device| device.name.clone())
            .collect::<Vec<_>>()
    };
    let (iwarp, others) = (active(true), active(false));
    (!iwarp.is_empty() && !others.is_empty()).then(|| {
        let detail = format!(
            "{} speak iWARP, {} do not: only those of one kind are used",
            all(&iwarp),
            all(&others)
        );
        let remedy = "SDP_RDMA_DEVICE names the device that is wanted";
        Finding::warning("rdma.device", detail, remedy)
    })
}

fn all(items: &[String]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.join(" ")
}

/// Memory that this process may lock.
fn locked() -> Finding {
    let name = "limit.memlock";
    match lockable() {
        None => Finding::ok(
            name,
            "this process may lock all memory (RLIMIT_MEMLOCK, or CAP_IPC_LOCK)",
        ),
        Some(limit) if limit >= LOCKED_MIN => Finding::ok(name, format!("RLIMIT_MEMLOCK {limit}")),
        Some(limit) => Finding::warning(
            name,
            format!("RLIMIT_MEMLOCK {limit}: large sends over adapters are copied"),
            "memlock unlimited in /etc/security/limits.d, LimitMEMLOCK=infinity in a systemd unit, \
             --ulimit memlock=-1 for a container",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    use sdp_socket::survey::DeviceTraits;

    fn port(number: u32, state: &str) -> SurveyedPort {
        SurveyedPort {
            number,
            state: state.to_owned(),
            link_layer: "Ethernet".to_owned(),
            rate: "100 Gb/sec (4X EDR)".to_owned(),
            gids: vec!["::ffff:10.0.0.1".parse().unwrap()],
            interfaces: vec!["eth7".to_owned()],
        }
    }

    fn machine(ports: Vec<SurveyedPort>, windows: bool) -> Survey {
        let mut survey = survey();
        survey.libraries = Ok(());
        survey.kernel = Ok(());
        survey.devices = vec![SurveyedDevice {
            name: "mlx5_0".to_owned(),
            ports,
            traits: Some(DeviceTraits {
                iwarp: false,
                windows,
            }),
        }];
        survey
    }

    fn verdicts(findings: &[Finding], name: &str) -> Vec<Verdict> {
        let found = findings.iter().filter(|it| it.name == name);
        found.map(|it| it.verdict).collect()
    }

    /// One port that has a link is enough; with none there is no way.
    #[test]
    fn ports() {
        let (up, down) = (port(1, "4: ACTIVE"), port(2, "1: DOWN"));
        let findings = judge(&machine(vec![up, down.clone()], true), true, None);
        assert_eq!(
            verdicts(&findings, "rdma.port"),
            [Verdict::Ok, Verdict::Warning]
        );
        assert_eq!(verdicts(&findings, "rdma.windows"), [Verdict::Ok]);
        assert_eq!(verdicts(&findings, "rdma.firewall"), [Verdict::Unchecked]);
        let detail = &findings
            .iter()
            .find(|it| it.name == "rdma.port")
            .unwrap()
            .detail;
        for part in ["mlx5_0 port 1, RoCE: 4: ACTIVE", "eth7", "10.0.0.1"] {
            assert!(detail.contains(part), "{detail}");
        }
        let findings = judge(&machine(vec![down.clone()], false), true, None);
        assert_eq!(verdicts(&findings, "rdma.port"), [Verdict::Fail]);
        assert_eq!(verdicts(&findings, "rdma.windows"), [Verdict::Warning]);
        let findings = judge(&machine(vec![down], true), false, None);
        assert_eq!(verdicts(&findings, "rdma.port"), [Verdict::Warning]);
    }

    /// A device that was asked for and is not there, or has no address, is a failure.
    #[test]
    fn names_and_addresses() {
        let mut nameless = port(1, "4: ACTIVE");
        nameless.gids.clear();
        let findings = judge(&machine(vec![nameless], true), true, Some("mlx5_9"));
        assert_eq!(verdicts(&findings, "rdma.device"), [Verdict::Fail]);
        assert_eq!(verdicts(&findings, "rdma.port"), [Verdict::Fail]);
        let findings = judge(
            &machine(vec![port(1, "4: ACTIVE")], true),
            true,
            Some("mlx5_0"),
        );
        assert_eq!(verdicts(&findings, "rdma.device"), []);
    }

    /// A port of InfiniBand is reached by the address of its IPoIB interface, and is of no use without
    /// one; one of Ethernet has a GID even without an address.
    #[test]
    fn ports_without_an_address() {
        let mut infiniband = port(1, "4: ACTIVE");
        infiniband.link_layer = "InfiniBand".to_owned();
        infiniband.gids = vec!["fe80::e41d:2d03:50:11e1".parse().unwrap()];
        infiniband.interfaces = vec!["ib0".to_owned()];
        let mut ethernet = infiniband.clone();
        ethernet.link_layer = "Ethernet".to_owned();
        let mut bare = infiniband.clone();
        bare.interfaces.clear();
        let findings = judge(&machine(vec![infiniband, bare, ethernet], true), true, None);
        let expected = [Verdict::Ok, Verdict::Fail, Verdict::Warning];
        assert_eq!(verdicts(&findings, "rdma.port"), expected);
        assert!(findings.iter().any(|it| {
            let remedy = it.remedy.as_deref().unwrap_or_default();
            remedy.contains("ib_ipoib")
        }));
    }

    /// Of devices of two kinds one kind is left out, unless one device is named.
    #[test]
    fn devices_of_two_kinds() {
        let mut survey = machine(vec![port(1, "4: ACTIVE")], true);
        let mut iwarp = survey.devices[0].clone();
        iwarp.name = "irdma0".to_owned();
        iwarp.traits.as_mut().unwrap().iwarp = true;
        survey.devices.push(iwarp);
        let of = |survey: &Survey, named| verdicts(&judge(survey, true, named), "rdma.device");
        assert_eq!(of(&survey, None), [Verdict::Warning]);
        assert_eq!(of(&survey, Some("mlx5_0")), []);
        survey.devices[1].ports[0].state = "1: DOWN".to_owned();
        assert_eq!(of(&survey, None), []);
    }

    /// What lacks is a warning, and a failure where an adapter is wanted; its remedy is told.
    #[test]
    fn a_machine_without() {
        let mut survey = survey();
        survey.libraries = Err("install rdma-core".to_owned());
        survey.kernel = Err("modprobe rdma_rxe".to_owned());
        survey.devices.clear();
        survey.adapters = vec!["Intel at 0000:01:00.0: modprobe irdma".to_owned()];
        for (wanted, verdict) in [(false, Verdict::Warning), (true, Verdict::Fail)] {
            let findings = judge(&survey, wanted, None);
            assert!(
                findings.iter().all(|it| it.verdict == verdict),
                "{findings:?}"
            );
            let remedies: Vec<_> = findings.iter().flat_map(|it| it.remedy.clone()).collect();
            assert_eq!(
                remedies,
                ["install rdma-core", "Intel at 0000:01:00.0: modprobe irdma"]
            );
        }
    }
}
