//! Where an adapter sits in its machine: what decides its figures without being anybody's fault.

use std::fs;
use std::path::Path;

use super::devices::DEVICES;

/// Where the kernel lists the nodes of memory.
const NODES: &str = "/sys/devices/system/node";
/// How the first processor chooses its frequency.
const GOVERNOR: &str = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";

/// What is known of a device's place, with what to do about each that costs speed.
pub(super) fn describe(device: &str) -> String {
    let adapter = Path::new(DEVICES).join(device).join("device");
    let facts = [
        node(&adapter, Path::new(NODES)),
        link(&adapter),
        governor(Path::new(GOVERNOR)),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    if facts.is_empty() {
        return "the kernel says nothing of it: a software device".to_owned();
    }
    facts.join("; ")
}

/// The node of memory that the adapter is at, if there are several.
fn node(adapter: &Path, nodes: &Path) -> Option<String> {
    let number: u32 = text(&adapter.join("numa_node"))?.parse().ok()?;
    if nodes.join("node1").exists() {
        Some(format!(
            "NUMA node {number}: `numactl --cpunodebind={number} --membind={number}` on both nodes \
             keeps the programs beside their adapters"
        ))
    } else {
        Some(format!("NUMA node {number}, the only one"))
    }
}

/// Its link to the machine, and what it could have.
fn link(adapter: &Path) -> Option<String> {
    let link = |which: &str| {
        let speed = text(&adapter.join(format!("{which}_link_speed")))?;
        let width = text(&adapter.join(format!("{which}_link_width")))?;
        Some(format!("{speed} x{width}"))
    };
    let (has, could) = (link("current")?, link("max")?);
    if has == could {
        return Some(has);
    }
    Some(format!(
        "{has}, though the adapter could have {could}: another slot may be faster"
    ))
}

fn governor(file: &Path) -> Option<String> {
    let governor = text(file)?;
    if governor == "performance" {
        return Some("processors at full speed".to_owned());
    }
    Some(format!(
        "processors' speed by `{governor}`: figures vary less after `cpupower frequency-set -g \
         performance`"
    ))
}

/// A file of the kernel's without the line end, if it can be read.
fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What costs speed is named with its remedy; what does not is a fact.
    #[test]
    fn what_costs_speed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        write("numa_node", "1\n");
        write("current_link_speed", "8.0 GT/s PCIe\n");
        write("current_link_width", "8\n");
        write("max_link_speed", "16.0 GT/s PCIe\n");
        write("max_link_width", "16\n");
        write("governor", "powersave\n");
        assert_eq!(node(root, root).unwrap(), "NUMA node 1, the only one");
        fs::create_dir(root.join("node1")).unwrap();
        assert!(node(root, root).unwrap().contains("--membind=1"));
        let slow = link(root).unwrap();
        assert!(slow.starts_with("8.0 GT/s PCIe x8, though"), "{slow}");
        assert!(slow.contains("16.0 GT/s PCIe x16"), "{slow}");
        assert!(
            governor(&root.join("governor"))
                .unwrap()
                .contains("cpupower")
        );
        write("current_link_speed", "16.0 GT/s PCIe\n");
        write("current_link_width", "16\n");
        assert_eq!(link(root).unwrap(), "16.0 GT/s PCIe x16");
    }

    /// A machine without NUMA says node -1, and a software device has no adapter.
    #[test]
    fn what_is_not_known_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!((node(root, root), link(root)), (None, None));
        fs::write(root.join("numa_node"), "-1\n").unwrap();
        assert_eq!(node(root, root), None);
        assert_eq!(governor(&root.join("governor")), None);
    }
}
