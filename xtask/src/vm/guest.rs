//! One virtual machine, from the start to the end.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::image::Image;
use crate::run::{Outcome, Run};
use crate::text::quoted;

/// What the first program over the host's files does.
const START: &str = include_str!("../../guest/start.sh");
/// What jobs source.
const NET: &str = include_str!("../../guest/net.sh");
/// What runs them.
const CASES: &str = include_str!("../../guest/cases.sh");
/// Without these features the emulation is two to three times as fast: it carries out `rep movsb`
/// byte by byte and carry-less multiplication bit by bit, and walks five levels of page tables.
const PROCESSOR: &str = "max,la57=off,-erms,-fsrm,-pclmulqdq";
/// Where instructions are counted, how long one takes the emulator does not matter. Every server of
/// the last fifteen years multiplies without carries: without that three quarters of what rxe does
/// would be check sums by table, which no machine spends.
const PROCESSOR_COUNTED: &str = "max,la57=off,-erms,-fsrm";
/// Arguments of the kernel: a fixed clock source and layout, no mitigations, the end on a panic, and
/// on every other crash: what goes on after one proves nothing.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr \
                                tsc=reliable no_timer_check random.trust_cpu=on";
/// How often a guest is started that measures its clock wrongly, or does not get through its boot.
const STARTS_MAX: usize = 5;
/// How long a boot may take: seconds alone, and some more where virtual time counts instructions or
/// the machine does much else. It was seen to hang, once in some hundreds.
const BOOT_MAX: Duration = Duration::from_secs(120);

/// A guest to boot.
#[derive(Debug)]
pub(crate) struct Guest {
    /// What it boots.
    pub(crate) image: Image,
    /// A folder of its own: what it is told, and its console. Absolute.
    pub(crate) folder: PathBuf,
    /// The folder of all cases, each of which has one in it. Absolute.
    pub(crate) cases: PathBuf,
    /// What it runs, by bash, as root, when jobs can be run.
    pub(crate) script: String,
    /// Its network to another guest, if it has one.
    pub(crate) link: Option<Link>,
    /// Whether virtual time counts instructions, on one processor.
    pub(crate) counted: bool,
    /// Otherwise: whether there are two.
    pub(crate) on_two_processors: bool,
    /// A plugin of the emulator and the file that it writes.
    pub(crate) plugin: Option<(PathBuf, PathBuf)>,
    /// The guest is ended after this long.
    pub(crate) total_max: Duration,
}

/// One end of the wire between two guests.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// The folder that both guests share. Absolute.
    pub(crate) folder: PathBuf,
    /// Which end: 0 or 1.
    pub(crate) node: u8,
    /// Where every frame is written, if anywhere.
    pub(crate) capture: Option<PathBuf>,
}

impl Guest {
    /// Boots, runs the script and hands each line it prints to `on_line`, until the guest switches
    /// itself off.
    ///
    /// # Errors
    /// When the folder cannot be written or the emulator not started.
    pub(crate) fn run(&self, mut on_line: impl FnMut(&str)) -> anyhow::Result<Outcome> {
        self.prepare()?;
        let [again, begun] = ["clock-is-wrong", "begun"].map(|name| self.folder.join(name));
        let mut starts = 0;
        loop {
            let outcome = Run::new(self.emulator())
                .total_max(self.total_max)
                .begins_with(begun.clone(), BOOT_MAX)
                .run(&mut on_line)?;
            starts += 1;
            if begun.exists() && !again.exists() || starts == STARTS_MAX {
                return Ok(outcome);
            }
            for file in [&again, &begun].into_iter().filter(|file| file.exists()) {
                fs::remove_file(file)
                    .with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
    }

    /// Where what it writes on its console goes.
    pub(crate) fn console(&self) -> PathBuf {
        self.folder.join("console.txt")
    }

    fn prepare(&self) -> anyhow::Result<()> {
        let node = self.link.as_ref().map_or(0, |link| link.node);
        let mut settings = String::new();
        for (name, value) in [
            ("GUEST_KERNEL", self.image.kernel.clone()),
            ("GUEST_MODULES", self.image.modules().display().to_string()),
            ("GUEST_NODE", node.to_string()),
            (
                "GUEST_LINK",
                self.link.as_ref().map_or("", |_| "yes").to_owned(),
            ),
        ] {
            writeln!(settings, "export {name}={}", quoted(&value))
                .context("cannot write to a string")?;
        }
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot make {}", self.folder.display()))?;
        for (name, text) in [
            ("settings.sh", settings.as_str()),
            ("start.sh", START),
            ("net.sh", NET),
            ("cases.sh", CASES),
            ("jobs.sh", &self.script),
        ] {
            let path = self.folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn emulator(&self) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        let (threads, processor, processors) = match (self.counted, self.on_two_processors) {
            (true, _) => ("single", PROCESSOR_COUNTED, "1"),
            (false, false) => ("multi", PROCESSOR, "1"),
            (false, true) => ("multi", PROCESSOR, "2"),
        };
        qemu.args(["-accel", &format!("tcg,thread={threads},tb-size=512")])
            .args(["-cpu", processor, "-smp", processors])
            .args(["-M", "q35", "-m", "1024"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none"])
            .arg("-kernel")
            .arg(self.image.vmlinux())
            .arg("-initrd")
            .arg(self.image.initrd())
            .args(["-append", KERNEL_ARGUMENTS])
            .arg("-serial")
            .arg(joined("file:", &self.console()))
            .args(["-serial", "stdio"])
            .args(["-device", "virtio-rng-pci"]);
        if self.counted {
            // Idle time passes as on the wall: while this machine fetches a file for the guest, the
            // guest's time-outs must not run out.
            qemu.args(["-icount", "shift=0,sleep=on"]);
        }
        if let Some((plugin, out)) = &self.plugin {
            let mut option = joined("file=", plugin);
            option.push_str(&joined(",out=", out));
            qemu.arg("-plugin").arg(option);
        }
        share(&mut qemu, "host", Path::new("/"), ",readonly=on");
        share(&mut qemu, "share", &self.folder, "");
        share(&mut qemu, "cases", &self.cases, "");
        if let Some(link) = &self.link {
            link.attach(&mut qemu);
        }
        qemu
    }
}

impl Link {
    /// Gives the guest its end of the wire, and the common folder.
    fn attach(&self, qemu: &mut Command) {
        let (me, peer) = (self.node, 1 - self.node);
        // The names of sockets are short by law, the folder's is not: they are relative to it.
        qemu.current_dir(&self.folder)
            .arg("-netdev")
            .arg(format!(
                "dgram,id=wire,local.type=unix,local.path=wire.{me},remote.type=unix,\
                 remote.path=wire.{peer}"
            ))
            .arg("-device")
            .arg(format!(
                "virtio-net-pci,netdev=wire,host_mtu=9000,mac=52:54:00:00:00:0{}",
                me + 1
            ));
        share(qemu, "link", &self.folder, "");
        if let Some(capture) = &self.capture {
            qemu.arg("-object")
                .arg(joined("filter-dump,id=capture,netdev=wire,file=", capture));
        }
    }
}

/// Exports `path` to the guest under `tag`.
fn share(qemu: &mut Command, tag: &str, path: &Path, more: &str) {
    let option = format!("local,id={tag},security_model=none,multidevs=remap{more},path=");
    qemu.arg("-fsdev")
        .arg(joined(&option, path))
        .arg("-device")
        .arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
}

/// An option whose value is a path. A comma in it would begin the next option, so it is doubled.
fn joined(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display().to_string().replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_begins_no_option() {
        assert_eq!(joined("file:", Path::new("/a,b")), "file:/a,,b");
    }
}
