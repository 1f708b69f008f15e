//! The RDMA devices of this machine, by what the kernel says of them.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

/// Where the kernel lists RDMA devices.
pub(super) const DEVICES: &str = "/sys/class/infiniband";
/// Where it lists network interfaces.
const INTERFACES: &str = "/sys/class/net";
/// Where it lists the adapters on the PCI bus.
const PCI: &str = "/sys/bus/pci/devices";
/// Makers of RDMA adapters by PCI number, with the driver that serves their adapters.
const MAKERS: [(&str, &str, &str); 6] = [
    ("0x15b3", "NVIDIA (Mellanox)", "mlx5_ib"),
    ("0x8086", "Intel", "irdma"),
    ("0x14e4", "Broadcom", "bnxt_re"),
    ("0x1425", "Chelsio", "iw_cxgb4"),
    ("0x1077", "Marvell (QLogic)", "qedr"),
    ("0x19e5", "Huawei", "hns_roce_hw_v2"),
];
/// PCI class of network controllers.
const NETWORK_CLASS: &str = "0x02";

/// One RDMA device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Device {
    /// Its name.
    pub(super) name: String,
    /// Its ports.
    pub(super) ports: Vec<Port>,
}

/// One port of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Port {
    /// Number, from 1.
    pub(super) number: u32,
    /// For example `ACTIVE`.
    pub(super) state: String,
    /// For example `100 Gb/sec (4X EDR)`.
    pub(super) rate: String,
    /// `Ethernet` or `InfiniBand`.
    pub(super) link_layer: String,
    /// Global addresses, those that are set.
    pub(super) gids: Vec<Ipv6Addr>,
    /// Network interfaces of these addresses.
    pub(super) interfaces: Vec<String>,
}

impl Device {
    /// Its first active port.
    pub(super) fn active_port(&self) -> Option<&Port> {
        self.ports.iter().find(|port| port.is_active())
    }

    /// Whether a packet from `source` on `interface` leaves by an active port of this device, of
    /// which some have several.
    pub(super) fn serves(&self, source: IpAddr, interface: &str) -> bool {
        let mapped = match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut active = self.ports.iter().filter(|port| port.is_active());
        active.any(|port| {
            port.gids.contains(&mapped) || port.interfaces.iter().any(|name| name == interface)
        })
    }
}

impl Port {
    fn is_active(&self) -> bool {
        self.state.contains("ACTIVE")
    }
}

/// All devices; none if the kernel has no RDMA.
pub(super) fn all() -> Vec<Device> {
    let mut devices = devices_in(Path::new(DEVICES));
    for device in &mut devices {
        for port in &mut device.ports {
            port.interfaces
                .extend(ipoib_over(Path::new(INTERFACES), &port.gids));
            if port.interfaces.is_empty() {
                port.interfaces.extend(interface(&device.name, port.number));
            }
        }
    }
    devices
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

/// The interface of a port whose GIDs tell of none (iWARP), as `rdma` says.
fn interface(device: &str, port: u32) -> Option<String> {
    let mut command = Command::new(iproute("rdma")?);
    command.args(["link", "show", &format!("{device}/{port}")]);
    let output = command.output().ok()?;
    netdev(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
}

/// `link siw0/1 state ACTIVE physical_state LINK_UP netdev eth0`.
fn netdev(link: &str) -> Option<&str> {
    let mut words = link.split_whitespace();
    words.find(|word| *word == "netdev")?;
    words.next()
}

/// A program of the package iproute2, which the paths of users may not have.
pub(super) fn iproute(name: &str) -> Option<PathBuf> {
    let folders = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"];
    let mut all = folders
        .into_iter()
        .map(|folder| Path::new(folder).join(name));
    all.find(|path| path.exists())
}

fn devices_in(folder: &Path) -> Vec<Device> {
    let devices = names(folder).into_iter().map(|name| {
        let ports = folder.join(&name).join("ports");
        let ports = names(&ports)
            .iter()
            .filter_map(|number| Some(port(&ports.join(number), number.parse().ok()?)))
            .collect();
        Device { name, ports }
    });
    devices.collect()
}

fn port(folder: &Path, number: u32) -> Port {
    let gids = names(&folder.join("gids"));
    let set = gids.iter().filter_map(|index| {
        let gid: Ipv6Addr = text(&folder.join("gids").join(index)).parse().ok()?;
        (!gid.is_unspecified()).then_some((index, gid))
    });
    let (mut addresses, mut interfaces) = (Vec::new(), Vec::new());
    for (index, gid) in set {
        addresses.push(gid);
        interfaces.push(text(&folder.join("gid_attrs/ndevs").join(index)));
    }
    addresses.sort_unstable();
    addresses.dedup();
    interfaces.retain(|name| !name.is_empty());
    interfaces.sort_unstable();
    interfaces.dedup();
    Port {
        number,
        state: text(&folder.join("state")),
        rate: text(&folder.join("rate")),
        link_layer: text(&folder.join("link_layer")),
        gids: addresses,
        interfaces,
    }
}

/// What is missing for a device, with the remedy: driver, package, port.
pub(super) fn remedy_for_none() -> String {
    let adapters = adapters(Path::new(PCI));
    let driver = if adapters.is_empty() {
        "no adapter of a known maker is on the PCI bus; for a software device on a network \
         interface: modprobe rdma_rxe && rdma link add rxe0 type rxe netdev INTERFACE"
            .to_owned()
    } else {
        adapters.join("; ")
    };
    format!(
        "{DEVICES} lists no device. Driver: {driver}. Package: ibverbs-providers, and on adapters \
         of NVIDIA rdma-core. Port: afterwards `ibv_devinfo` (package ibverbs-utils) must show \
         PORT_ACTIVE"
    )
}

/// Adapters that could be RDMA devices, each with the module that would make it one.
fn adapters(bus: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for slot in names(bus) {
        let folder = bus.join(&slot);
        let vendor = text(&folder.join("vendor"));
        let maker = MAKERS.iter().find(|(number, ..)| *number == vendor);
        let Some((_, maker, module)) = maker else {
            continue;
        };
        if text(&folder.join("class")).starts_with(NETWORK_CLASS) {
            found.push(format!("adapter of {maker} at {slot}: modprobe {module}"));
        }
    }
    found
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

/// A file of the kernel without the line end; empty if it cannot be read: an unset address has no
/// interface, and reading it is an error.
fn text(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("mlx5_0/ports/1/state", "4: ACTIVE\n");
        write("mlx5_0/ports/1/rate", "100 Gb/sec (4X EDR)\n");
        write("mlx5_0/ports/1/link_layer", "Ethernet\n");
        write(
            "mlx5_0/ports/1/gids/0",
            "fe80:0000:0000:0000:0000:0000:0000:0001\n",
        );
        write(
            "mlx5_0/ports/1/gids/1",
            "0000:0000:0000:0000:0000:ffff:0a00:0001\n",
        );
        write(
            "mlx5_0/ports/1/gids/2",
            "0000:0000:0000:0000:0000:0000:0000:0000\n",
        );
        write("mlx5_0/ports/1/gid_attrs/ndevs/0", "eth7\n");
        write("mlx5_0/ports/1/gid_attrs/ndevs/1", "eth7\n");
        write("mlx5_1/ports/1/state", "1: DOWN\n");
        write(
            "mlx5_1/ports/1/gids/0",
            "0000:0000:0000:0000:0000:ffff:0a00:0002\n",
        );
        folder
    }

    #[test]
    fn ports_have_their_state_and_set_addresses() {
        let folder = planted();
        let devices = devices_in(folder.path());
        assert_eq!(devices.len(), 2);
        let port = devices[0].active_port().unwrap();
        assert_eq!(port.gids.len(), 2);
        assert_eq!(port.interfaces, ["eth7"]);
        assert_eq!(port.rate, "100 Gb/sec (4X EDR)");
        assert_eq!(devices[1].active_port(), None);
    }

    #[test]
    fn a_device_serves_its_addresses_and_interfaces_while_its_port_is_up() {
        let folder = planted();
        let devices = devices_in(folder.path());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(devices[0].serves(address("10.0.0.1"), "other"));
        assert!(devices[0].serves(address("10.9.9.9"), "eth7"));
        assert!(!devices[0].serves(address("10.0.0.2"), "eth1"));
        assert!(!devices[1].serves(address("10.0.0.2"), "eth1"));
    }

    /// A device with two ports, of which one is InfiniBand, serves the interfaces of both.
    #[test]
    fn every_active_port_serves() {
        let folder = tempfile::tempdir().unwrap();
        let ib0 = folder.path().join("ib0");
        fs::create_dir_all(&ib0).unwrap();
        let address = "00:00:10:29:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:50:11:e1\n";
        fs::write(ib0.join("address"), address).unwrap();
        let port = |number, link_layer: &str, gid: &str, interfaces| Port {
            number,
            state: "4: ACTIVE".to_owned(),
            rate: String::new(),
            link_layer: link_layer.to_owned(),
            gids: vec![gid.parse().unwrap()],
            interfaces,
        };
        let mut infiniband = port(1, "InfiniBand", "fe80::e41d:2d03:50:11e1", Vec::new());
        infiniband.interfaces = ipoib_over(folder.path(), &infiniband.gids);
        let ethernet = port(2, "Ethernet", "::ffff:10.0.0.1", vec!["eth7".to_owned()]);
        let device = Device {
            name: "mlx4_0".to_owned(),
            ports: vec![infiniband, ethernet],
        };
        assert!(device.serves("10.1.0.1".parse().unwrap(), "ib0"));
        assert!(device.serves("10.0.0.1".parse().unwrap(), "bond0"));
        assert!(!device.serves("10.2.0.1".parse().unwrap(), "eth1"));
    }

    #[test]
    fn the_interface_is_found_in_what_rdma_says() {
        let link = "link siw0/1 state ACTIVE physical_state LINK_UP netdev eth0 \n";
        assert_eq!(netdev(link), Some("eth0"));
        assert_eq!(
            netdev("link mlx5_0/1 subnet_prefix fe80:: state ACTIVE"),
            None
        );
    }

    #[test]
    fn an_adapter_without_driver_is_named_with_its_module() {
        let folder = tempfile::tempdir().unwrap();
        for (slot, vendor, class) in [
            ("0000:01:00.0", "0x15b3", "0x020000"),
            ("0000:02:00.0", "0x8086", "0x030000"),
            ("0000:03:00.0", "0x1234", "0x020000"),
        ] {
            let at = folder.path().join(slot);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("vendor"), vendor).unwrap();
            fs::write(at.join("class"), class).unwrap();
        }
        let found = adapters(folder.path());
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("0000:01:00.0") && found[0].contains("mlx5_ib"));
    }

    #[test]
    fn no_device_is_explained_by_driver_package_and_port() {
        let text = remedy_for_none();
        for word in ["Driver", "Package", "Port"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
