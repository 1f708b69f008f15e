//! What this machine has for RDMA and what it lacks, for people who ask why there is no adapter.

use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

pub use crate::locked::lockable;

/// Where the kernel lists RDMA devices.
const DEVICES: &str = "/sys/class/infiniband";
/// Where it lists network interfaces.
const INTERFACES: &str = "/sys/class/net";
/// Where it lists the adapters on the PCI bus.
const PCI: &str = "/sys/bus/pci/devices";
/// PCI class of network controllers.
const NETWORK_CLASS: &str = "0x02";
/// Makers of RDMA adapters by PCI number, with the driver that serves their adapters.
const MAKERS: [(&str, &str, &str); 6] = [
    ("0x15b3", "NVIDIA (Mellanox)", "mlx5_ib"),
    ("0x8086", "Intel", "irdma"),
    ("0x14e4", "Broadcom", "bnxt_re"),
    ("0x1425", "Chelsio", "iw_cxgb4"),
    ("0x1077", "Marvell (QLogic)", "qedr"),
    ("0x19e5", "Huawei", "hns_roce_hw_v2"),
];

/// A look at the machine. Nothing stays open, except for the C libraries.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// Why libibverbs and librdmacm cannot be used, with the remedy.
    pub libraries: Result<(), String>,
    /// What the kernel lacks, or does not permit, with the remedy.
    pub kernel: Result<(), String>,
    /// The devices that the kernel has.
    pub devices: Vec<SurveyedDevice>,
    /// Network adapters of makers of RDMA adapters: where they are, and the module that may make
    /// devices of them.
    pub adapters: Vec<String>,
}

/// An RDMA device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SurveyedDevice {
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<SurveyedPort>,
    /// What it can do, if a program of this user can open it.
    pub traits: Option<DeviceTraits>,
}

/// What a device can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceTraits {
    /// iWARP; else InfiniBand or RoCE.
    pub iwarp: bool,
    /// It has memory windows of type 2: a key is made without registering the memory anew.
    pub windows: bool,
}

/// A port of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SurveyedPort {
    /// Counted from 1.
    pub number: u32,
    /// As the kernel says it: `4: ACTIVE`.
    pub state: String,
    /// `Ethernet` or `InfiniBand`.
    pub link_layer: String,
    /// For example `100 Gb/sec (4X EDR)`.
    pub rate: String,
    /// Its GIDs that are set; addresses of IPv4 are mapped.
    pub gids: Vec<Ipv6Addr>,
    /// The network interfaces of these, if they have any; on InfiniBand those of IPoIB.
    pub interfaces: Vec<String>,
}

impl SurveyedPort {
    /// It has a link.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state.contains("ACTIVE")
    }
}

/// Looks at this machine.
#[must_use]
pub fn survey() -> Survey {
    let mut survey = Survey {
        libraries: Ok(()),
        kernel: Ok(()),
        devices: devices_in(Path::new(DEVICES), Path::new(INTERFACES)),
        adapters: adapters_in(Path::new(PCI)),
    };
    examine(&mut survey);
    survey
}

#[cfg(target_pointer_width = "64")]
fn examine(survey: &mut Survey) {
    let examined = crate::rdma::examine();
    survey.libraries = examined.libraries;
    survey.kernel = examined.kernel;
    for (name, traits) in examined.devices {
        let mut devices = survey.devices.iter_mut();
        if let Some(device) = devices.find(|device| device.name == name) {
            device.traits = Some(traits);
        }
    }
}

#[cfg(not(target_pointer_width = "64"))]
fn examine(survey: &mut Survey) {
    survey.libraries = Err("adapters are driven by 64-bit programs only".to_owned());
}

fn devices_in(folder: &Path, net: &Path) -> Vec<SurveyedDevice> {
    let devices = names(folder).into_iter().map(|name| {
        let ports = folder.join(&name).join("ports");
        let numbers = names(&ports);
        let ports = numbers
            .iter()
            .filter_map(|number| Some(port(&ports.join(number), number.parse().ok()?, net)));
        SurveyedDevice {
            ports: ports.collect(),
            name,
            traits: None,
        }
    });
    devices.collect()
}

fn port(folder: &Path, number: u32, net: &Path) -> SurveyedPort {
    let (mut gids, mut interfaces) = (Vec::new(), Vec::new());
    for index in names(&folder.join("gids")) {
        let Ok(gid) = text(&folder.join("gids").join(&index)).parse::<Ipv6Addr>() else {
            continue;
        };
        if !gid.is_unspecified() {
            gids.push(gid);
            interfaces.push(text(&folder.join("gid_attrs/ndevs").join(index)));
        }
    }
    gids.sort_unstable();
    gids.dedup();
    interfaces.extend(ipoib_over(net, &gids));
    interfaces.retain(|name| !name.is_empty());
    interfaces.sort_unstable();
    interfaces.dedup();
    SurveyedPort {
        number,
        state: text(&folder.join("state")),
        link_layer: text(&folder.join("link_layer")),
        rate: text(&folder.join("rate")),
        gids,
        interfaces,
    }
}

/// The interfaces of IPoIB over a port with these GIDs, which do not name them: an address of such an
/// interface is four bytes and then the port's GID (ipoib_main.c).
fn ipoib_over(net: &Path, gids: &[Ipv6Addr]) -> Vec<String> {
    let mut interfaces = names(net);
    interfaces.retain(|name| {
        ipoib_gid(&text(&net.join(name).join("address"))).is_some_and(|gid| gids.contains(&gid))
    });
    interfaces
}

/// The GID in the address of an interface of IPoIB.
fn ipoib_gid(address: &str) -> Option<Ipv6Addr> {
    let bytes = address
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    let gid: [u8; 16] = bytes.get(4..)?.try_into().ok()?;
    Some(gid.into())
}

fn adapters_in(bus: &Path) -> Vec<String> {
    let adapters = names(bus).into_iter().filter_map(|slot| {
        let folder = bus.join(&slot);
        let vendor = text(&folder.join("vendor"));
        let (_, maker, module) = MAKERS.iter().find(|(number, ..)| *number == vendor)?;
        let is_network = text(&folder.join("class")).starts_with(NETWORK_CLASS);
        is_network.then(|| format!("{maker} at {slot}: modprobe {module}"))
    });
    adapters.collect()
}

/// Sorted names in a folder; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A file of the kernel's without the line end; empty if it cannot be read.
fn text(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports have their state and the addresses that are set; adapters without a device their module.
    #[test]
    fn a_planted_machine() {
        let root = std::env::temp_dir().join(format!("sdp-survey-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("ib/mlx5_0/ports/1/state", "4: ACTIVE\n");
        write("ib/mlx5_0/ports/1/rate", "100 Gb/sec (4X EDR)\n");
        write("ib/mlx5_0/ports/1/link_layer", "Ethernet\n");
        write(
            "ib/mlx5_0/ports/1/gids/0",
            "0000:0000:0000:0000:0000:ffff:0a00:0001\n",
        );
        write(
            "ib/mlx5_0/ports/1/gids/1",
            "0000:0000:0000:0000:0000:0000:0000:0000\n",
        );
        write("ib/mlx5_0/ports/1/gid_attrs/ndevs/0", "eth7\n");
        write("pci/0000:01:00.0/vendor", "0x15b3\n");
        write("pci/0000:01:00.0/class", "0x020000\n");
        write("pci/0000:02:00.0/vendor", "0x8086\n");
        write("pci/0000:02:00.0/class", "0x030000\n");
        let devices = devices_in(&root.join("ib"), &root.join("net"));
        let adapters = adapters_in(&root.join("pci"));
        fs::remove_dir_all(&root).unwrap();
        let [device] = &devices[..] else {
            panic!("{devices:?}");
        };
        let port = &device.ports[0];
        assert!(
            port.is_active() && port.link_layer == "Ethernet",
            "{port:?}"
        );
        assert_eq!(port.gids, ["::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(port.interfaces, ["eth7"]);
        assert_eq!(adapters.len(), 1);
        assert!(adapters[0].contains("mlx5_ib"), "{adapters:?}");
    }

    /// On InfiniBand the interface of a port is the one whose address ends with the port's GID.
    #[test]
    fn interfaces_of_ipoib() {
        let root = std::env::temp_dir().join(format!("sdp-ipoib-{}", std::process::id()));
        for (name, address) in [
            (
                "ib0",
                "00:00:10:29:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:50:11:e1\n",
            ),
            (
                "ib1",
                "00:00:10:29:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:50:11:e2\n",
            ),
            ("eth0", "e4:1d:2d:50:11:e1\n"),
            ("tun0", "\n"),
        ] {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join("address"), address).unwrap();
        }
        let gid = "fe80::e41d:2d03:50:11e1".parse::<Ipv6Addr>().unwrap();
        let found = ipoib_over(&root, &[gid]);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, ["ib0"]);
    }

    /// A machine without any of it is surveyed like any other.
    #[test]
    fn this_machine() {
        let survey = survey();
        if survey.devices.is_empty() {
            assert!(
                survey.libraries.is_err() || survey.kernel.is_err(),
                "{survey:?}"
            );
        }
    }
}
