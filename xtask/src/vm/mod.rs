//! `cargo xtask vm-test`: real RDMA verbs on software devices, in virtual machines.
//!
//! A guest boots in seconds without any support of the host but an emulator, sees the host's files
//! read-only and runs the programs that were built there.

mod capture;
mod cost;
mod crashes;
mod guest;
mod hw_report;
mod image;
mod initrd;
mod jobs;
mod packages;
mod performance;
mod probes;
mod siw;
mod skips;
mod vmlinux;
mod wire;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, bail};

use self::guest::{Guest, Link};
use self::image::Image;
use self::jobs::{Device, Evidence, JOBS, Job, Reading, TOTAL_MAX, Topology};
use self::probes::Probes;
use crate::binaries::Binaries;
use crate::cli::{Devices, VmTestOptions};
use crate::libtest;
use crate::run::Outcome;
use crate::step::{Beside, Steps, Tally};
use crate::text::quoted;
use crate::ui::{Progress, Ui};
use crate::workspace::Workspace;

/// Set to 1, it keeps `ci` from starting virtual machines.
const SWITCH: &str = "SDP_CI_NO_VM";

/// One job on one kind of device.
#[derive(Debug, Clone, Copy)]
struct Case {
    job: &'static Job,
    device: Option<Device>,
}

/// What every case needs.
#[derive(Debug)]
struct Lab {
    image: Image,
    binaries: Binaries,
    /// For the jobs that need them.
    probes: Option<Probes>,
    /// The workspace.
    root: PathBuf,
    /// Where guests leave their files.
    folder: PathBuf,
    /// At once.
    guests: usize,
    counted: bool,
    write_cost: bool,
}

/// Runs the chosen jobs and reports; `Ok(true)` exactly when none failed.
///
/// # Errors
/// When no guest can be built here, nothing was chosen, or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, options: &VmTestOptions) -> anyhow::Result<bool> {
    if let Some(why) = packages::unsupported()? {
        bail!("{why}");
    }
    let cases = chosen(options);
    if cases.is_empty() {
        bail!("no job matches: leave out --filter to see their names");
    }
    let lab = Lab::ready(workspace, ui, &cases, options)?;
    let mut steps = Steps::new(ui);
    lab.run("", &cases, &mut steps)?;
    steps.finish("vm-test", workspace, options.json.as_ref())
}

/// The short form, as steps of a longer list: on the one kind of system that can, without fail.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn short_steps(
    workspace: &Workspace,
    ui: &Ui,
    steps: &mut Steps<'_>,
) -> anyhow::Result<()> {
    let switch = env::var_os(SWITCH).is_some_and(|value| value == "1");
    let reason = match packages::unsupported() {
        _ if switch => Some(format!("switched off by {SWITCH}=1")),
        Ok(reason) => reason,
        Err(error) => Some(format!("no Debian 12: {error:#}")),
    };
    if let Some(reason) = reason {
        return steps.step("vm", |_| Ok(Tally::skipped("vm-test", &reason)));
    }
    let options = VmTestOptions {
        device: Devices::Rxe,
        short: true,
        ..VmTestOptions::default()
    };
    let cases = chosen(&options);
    let mut lab = None;
    steps.step("vm.ready", |_| {
        lab = Some(Lab::ready(workspace, ui, &cases, &options)?);
        Ok(Tally {
            passed: 1,
            ..Tally::default()
        })
    })?;
    // A guest that cannot be built is a failed step already.
    match lab {
        Some(lab) => lab.run("vm.", &cases, steps),
        None => Ok(()),
    }
}

/// The cases that the options ask for, in the order of the jobs.
fn chosen(options: &VmTestOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    for job in JOBS {
        if job.topology.is_none() {
            cases.push(Case { job, device: None });
        }
        cases.extend(job.devices.iter().map(|device| Case {
            job,
            device: Some(*device),
        }));
    }
    cases.retain(|case| {
        let topology = case.job.topology;
        let name = case.name();
        topology.is_none_or(|topology| topology.is_in(options.topology))
            && case
                .device
                .is_none_or(|device| device.is_in(options.device))
            && (case.job.short || !options.short)
            && options
                .filter
                .as_ref()
                .is_none_or(|part| name.contains(part))
    });
    cases
}

impl Case {
    fn name(&self) -> String {
        self.job.full_name(self.device)
    }

    fn is_pair_of_guests(&self) -> bool {
        self.job.topology == Some(Topology::TwoGuests)
    }

    fn is_captured(&self) -> bool {
        matches!(
            self.job.evidence,
            Some(Evidence::Capture | Evidence::Conversation)
        )
    }
}

impl Lab {
    /// Installs, builds, and empties the folder for the guests' files.
    fn ready(
        workspace: &Workspace,
        ui: &Ui,
        cases: &[Case],
        options: &VmTestOptions,
    ) -> anyhow::Result<Self> {
        let mut needs = packages::BOOT.to_vec();
        needs.extend(packages::DEVICES);
        if cases.iter().any(|case| case.is_captured()) {
            needs.extend(packages::CAPTURE);
        }
        if cases.iter().any(|case| case.job.with_ssh) {
            needs.extend(packages::SSH);
        }
        let with_preload = cases.iter().any(|case| case.job.with_preload);
        if with_preload {
            needs.extend(packages::UNMODIFIED);
        }
        packages::install(ui, &needs)?;
        let mut tests: Vec<&str> = cases.iter().filter_map(|case| case.job.test).collect();
        tests.sort_unstable();
        tests.dedup();
        let with_sdp = cases.iter().any(|case| case.job.with_sdp);
        let with_siw = cases.iter().any(|case| case.device == Some(Device::Siw));
        let with_probes = cases.iter().any(|case| case.job.with_probes);
        let probes = with_probes
            .then(|| Probes::build(ui, &workspace.root, &workspace.target.join("vm-probes")));
        Ok(Self {
            image: Image::ready(ui, with_siw)?,
            binaries: Binaries::build(workspace, ui, &tests, with_sdp, with_preload)?,
            probes: probes.transpose()?,
            root: workspace.root.clone(),
            folder: workspace.target.join("vm-test"),
            guests: match options.guests {
                Some(guests) => guests.into(),
                None => thread::available_parallelism().map_or(1, usize::from),
            },
            counted: options.icount,
            write_cost: options.write_cost,
        })
    }

    /// One step per case, whose name begins with `prefix`; a lane for each guest.
    fn run(&self, prefix: &str, cases: &[Case], steps: &mut Steps<'_>) -> anyhow::Result<()> {
        let beside = |case| Beside {
            name: format!("{prefix}{}", Case::name(case)),
            lanes: if case.is_pair_of_guests() { 2 } else { 1 },
            body: Box::new(|progress: &Progress| self.tally(case, progress)),
        };
        steps.side_by_side(self.guests, cases.iter().map(beside).collect())
    }

    /// Once more if the guest's kernel crashed by a defect of its own that is known.
    fn tally(&self, case: &Case, progress: &Progress) -> anyhow::Result<Tally> {
        let folder = self.folder.join(case.name());
        let tally = self.attempt(case, &folder, progress)?;
        let crash = (tally.failed > 0)
            .then(|| crashes::known(&folder))
            .flatten();
        let Some(crash) = crash else {
            return Ok(tally);
        };
        progress.note("the guest's kernel crashed: once more");
        let mut tally = self.attempt(case, &folder, progress)?;
        let note = format!("run again after a crash of the guest's kernel: {crash}");
        tally.figures.push(note);
        Ok(tally)
    }

    fn attempt(&self, case: &Case, folder: &Path, progress: &Progress) -> anyhow::Result<Tally> {
        empty(folder)?;
        let script = self.script(case)?;
        if case.job.evidence == Some(Evidence::Cost) {
            return self.cost(case, folder, &script, progress);
        }
        if !case.is_pair_of_guests() {
            let mut guest = self.guest(folder, &script, None);
            guest.counted |= case.job.counted;
            let outcome = guest.run(|line| progress.note(line))?;
            let tally = read(case.job.reading, &outcome);
            return match case.job.evidence {
                Some(Evidence::Performance) if tally.failed == 0 => performance::judge(folder),
                Some(Evidence::Skips) => skips::judge(tally, folder),
                _ => Ok(tally),
            };
        }
        let link = folder.join("link");
        fs::create_dir_all(&link).with_context(|| format!("cannot make {}", link.display()))?;
        let end = |node: u8| Link {
            folder: link.clone(),
            node,
            capture: (node == 0 && case.is_captured()).then(|| folder.join("wire.pcap")),
        };
        let outcomes = thread::scope(|scope| {
            let other = scope.spawn(|| {
                self.guest(&folder.join("1"), &script, Some(end(1)))
                    .run(|_| ())
            });
            let first = self
                .guest(&folder.join("0"), &script, Some(end(0)))
                .run(|line| progress.note(line));
            let other = other
                .join()
                .unwrap_or_else(|_| bail!("the second guest's thread panicked"));
            Ok::<_, anyhow::Error>([first?, other?])
        })?;
        let guests = both(outcomes.map(|outcome| read(case.job.reading, &outcome)));
        if guests.failed > 0 {
            return Ok(guests);
        }
        let judged = match (case.job.evidence, case.device) {
            (Some(Evidence::Capture), Some(device)) => {
                capture::check(&folder.join("wire.pcap"), device)?
            }
            (Some(Evidence::Conversation), _) => wire::judge(folder)?,
            (Some(Evidence::HwTest), _) => hw_report::judge(&folder.join("0")),
            _ => Tally::default(),
        };
        Ok(sum(guests, judged))
    }

    /// Two boots one after the other, each of which counts; a third if they differ.
    fn cost(
        &self,
        case: &Case,
        folder: &Path,
        script: &str,
        progress: &Progress,
    ) -> anyhow::Result<Tally> {
        let plugin = self.probes()?.plugin();
        let boots = ["0", "1", "2"].map(|boot| folder.join(boot));
        for (done, boot) in boots.iter().enumerate() {
            if done == 2 && cost::agree(&boots[..2])? {
                return cost::judge(&self.root, &boots[..2], &self.image.kernel, self.write_cost);
            }
            let mut guest = self.guest(boot, script, None);
            guest.counted = true;
            guest.plugin = Some((plugin.clone(), boot.join("marks.txt")));
            let tally = read(case.job.reading, &guest.run(|line| progress.note(line))?);
            if tally.failed > 0 {
                return Ok(tally);
            }
        }
        cost::judge(&self.root, &boots, &self.image.kernel, self.write_cost)
    }

    fn probes(&self) -> anyhow::Result<&Probes> {
        self.probes.as_ref().context("the probes were not built")
    }

    fn guest(&self, folder: &Path, script: &str, link: Option<Link>) -> Guest<'_> {
        Guest {
            image: &self.image,
            folder: folder.to_owned(),
            script: script.to_owned(),
            link,
            counted: self.counted,
            plugin: None,
            total_max: TOTAL_MAX,
        }
    }

    /// What bash runs in the guest: where things are, the device, the job itself.
    fn script(&self, case: &Case) -> anyhow::Result<String> {
        let mut script = "set -euo pipefail\n. /mnt/share/net.sh\n".to_owned();
        let mut export = |name: &str, path: &Path| {
            let path = quoted(&path.display().to_string());
            script.push_str(&format!("export {name}={path}\n"));
        };
        export("XTASK", self.binaries.xtask()?);
        if case.job.with_sdp {
            export("SDP", self.binaries.sdp()?);
        }
        if let Some(name) = case.job.test {
            export("TEST", self.binaries.test(name)?);
        }
        if case.job.with_probes {
            export("MARK", &self.probes()?.mark());
            export("RSETUP", &self.probes()?.rsetup());
        }
        if let (Some(topology), Some(device)) = (case.job.topology, case.device) {
            script.push_str(&format!("{} {}\n", topology.function(), device.name()));
        }
        script.push_str(case.job.script);
        Ok(script)
    }
}

/// What one guest's outcome means.
fn read(reading: Reading, outcome: &Outcome) -> Tally {
    match (reading, &outcome.failure) {
        (Reading::Libtest, _) => libtest::tally(outcome),
        (Reading::Status, None) => Tally {
            passed: 1,
            ..Tally::default()
        },
        (Reading::Status, Some(why)) => {
            Tally::failed(format!("{}\n{why}", outcome.lines.join("\n")))
        }
    }
}

/// The sum of two guests, whose output says which one speaks.
fn both([mut first, mut second]: [Tally; 2]) -> Tally {
    for (node, tally) in [&mut first, &mut second].into_iter().enumerate() {
        if tally.failed > 0 {
            tally.output.insert_str(0, &format!("guest {node}:\n"));
        }
    }
    sum(first, second)
}

fn sum(mut first: Tally, second: Tally) -> Tally {
    first.passed += second.passed;
    first.failed += second.failed;
    first.skipped.extend(second.skipped);
    first.output.push_str(&second.output);
    first.figures.extend(second.figures);
    first
}

/// Makes `folder` anew.
fn empty(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
