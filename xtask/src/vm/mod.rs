//! `cargo xtask vm-test`: real RDMA verbs on software devices, in virtual machines.
//!
//! A guest boots in seconds without any support of the host but an emulator, sees the host's files
//! read-only and runs the programs that were built there.

mod batch;
mod boot;
mod capture;
mod cost;
mod crashes;
mod guest;
mod hw_report;
mod image;
mod initrd;
mod jobs;
mod performance;
mod probes;
mod siw;
mod skips;
mod vmlinux;
mod wire;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::thread;

use anyhow::{Context, bail};

use self::batch::Batch;
use self::boot::Boot;
use self::guest::{Guest, Link};
use self::image::Image;
use self::jobs::{Device, Evidence, JOBS, Job, Reading, TOTAL_MAX, Topology};
use self::probes::Probes;
use crate::binaries::Binaries;
use crate::cli::{Devices, VmTestOptions};
use crate::libtest;
use crate::packages;
use crate::run::Outcome;
use crate::step::{Beside, Series, Steps, Tally};
use crate::text::quoted;
use crate::ui::{Progress, Ui};
use crate::workspace::Workspace;

/// Set to 1, it keeps `ci` from starting virtual machines.
const SWITCH: &str = "SDP_CI_NO_VM";

/// Where boots have their files, beside those of the cases.
const BOOTS: &str = "boots";

/// How often a case is run again after a known crash of the guest's kernel.
const AGAIN_MAX: usize = 2;

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

    /// What it wants of a guest: its device, its wires, and whether it has two processors.
    fn guest_kind(&self) -> (Option<Device>, Option<Topology>, bool) {
        let job = self.job;
        (self.device, job.topology, job.on_two_processors)
    }

    fn is_pair_of_guests(&self) -> bool {
        self.job.topology == Some(Topology::TwoGuests)
    }

    /// The folders of its guests' files, in that of all cases.
    fn folders(&self, all: &Path) -> Vec<PathBuf> {
        let folder = all.join(self.name());
        if self.is_pair_of_guests() {
            ["0", "1"].map(|node| folder.join(node)).to_vec()
        } else {
            vec![folder]
        }
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
        if cases.iter().any(|case| case.job.is_captured()) {
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
        let beside = |batch: Batch| Beside {
            lanes: if batch.is_pair_of_guests() { 2 } else { 1 },
            body: Box::new(move |series| self.batch(prefix, &batch.cases, series)),
        };
        let batches = Batch::all(cases, self.guests);
        steps.side_by_side(self.guests, batches.into_iter().map(beside).collect())
    }

    /// All in one boot; what comes after a case that fails has another one.
    fn batch(&self, prefix: &str, cases: &[Case], series: &Series<'_>) -> anyhow::Result<()> {
        let mut boot = None;
        for (at, case) in cases.iter().enumerate() {
            let name = format!("{prefix}{}", case.name());
            series.step(name, |progress| {
                self.tally(&cases[at..], &mut boot, progress)
            })?;
        }
        Ok(())
    }

    /// The first of `cases`: again, twice at most, if the guest's kernel crashed by a defect of its own
    /// that is known.
    fn tally(
        &self,
        cases: &[Case],
        boot: &mut Option<Boot>,
        progress: &Progress,
    ) -> anyhow::Result<Tally> {
        let mut notes = Vec::new();
        loop {
            let mut tally = self.attempt(cases, boot, progress)?;
            let crash = match tally.failed {
                0 => None,
                _ => crashes::known(&self.folder.join(cases[0].name())),
            };
            let Some(crash) = crash.filter(|_| notes.len() < AGAIN_MAX) else {
                tally.figures.extend(notes);
                return Ok(tally);
            };
            progress.note("the guest's kernel crashed: once more");
            notes.push(format!(
                "run again after a crash of the guest's kernel: {crash}"
            ));
        }
    }

    /// The first of `cases`, in the boot that is there, or in one that the others will share.
    fn attempt(
        &self,
        cases: &[Case],
        boot: &mut Option<Boot>,
        progress: &Progress,
    ) -> anyhow::Result<Tally> {
        let case = &cases[0];
        if case.job.evidence == Some(Evidence::Cost) {
            return self.cost(case, progress);
        }
        let mut running = match boot.take() {
            Some(running) => running,
            None => self.boot(cases)?,
        };
        let folders = case.folders(&self.folder);
        let outcomes = running.next(&case.name(), &folders, |line| progress.note(line));
        if cases.len() == 1 || running.is_over() {
            running.join();
        } else {
            *boot = Some(running);
        }
        let tally = all(case.job.reading, &outcomes);
        let folder = self.folder.join(case.name());
        match (case.job.evidence, case.device) {
            _ if tally.failed > 0 => Ok(tally),
            (Some(Evidence::Skips), _) => skips::judge(tally, &folder),
            (Some(Evidence::Performance), _) => performance::judge(&folder),
            (Some(Evidence::Capture), Some(device)) => Ok(sum(
                tally,
                capture::check(&folder.join("wire.pcap"), device)?,
            )),
            (Some(Evidence::Conversation), _) => Ok(sum(tally, wire::judge(&folder)?)),
            (Some(Evidence::HwTest), _) => Ok(sum(tally, hw_report::judge(&folders[0]))),
            _ => Ok(tally),
        }
    }

    /// Starts the guest, or the two, that will run `cases`.
    fn boot(&self, cases: &[Case]) -> anyhow::Result<Boot> {
        let first = &cases[0];
        for case in cases {
            let folder = self.folder.join(case.name());
            empty(&folder)?;
            for folder in case.folders(&self.folder) {
                self.lay_out(case, &folder)?;
            }
            // What the guests of a pair say to each other.
            if case.is_pair_of_guests() {
                empty(&folder.join("link"))?;
            }
        }
        let names: Vec<_> = cases.iter().map(Case::name).collect();
        let folder = self.folder.join(BOOTS).join(first.name());
        empty(&folder)?;
        if !first.is_pair_of_guests() {
            return Ok(Boot::start(vec![self.guest(first, &names, folder, None)]));
        }
        let link = folder.join("link");
        empty(&link)?;
        let wire = self.folder.join(first.name()).join("wire.pcap");
        let guest = |node: u8| {
            let capture = (node == 0 && first.job.is_captured()).then(|| wire.clone());
            let folder = folder.join(node.to_string());
            let link = Link {
                folder: link.clone(),
                node,
                capture,
            };
            self.guest(first, &names, folder, Some(link))
        };
        Ok(Boot::start(vec![guest(0), guest(1)]))
    }

    /// Two boots one after the other, each of which counts; a third if they differ.
    fn cost(&self, case: &Case, progress: &Progress) -> anyhow::Result<Tally> {
        let plugin = self.probes()?.plugin();
        let folder = self.folder.join(case.name());
        let folders = ["0", "1", "2"].map(|boot| folder.join(boot));
        for (done, folder) in folders.iter().enumerate() {
            if done == 2 && cost::agree(&folders[..2])? {
                return cost::judge(
                    &self.root,
                    &folders[..2],
                    &self.image.kernel,
                    self.write_cost,
                );
            }
            let name = format!("{}/{done}", case.name());
            self.lay_out(case, folder)?;
            if done > 0 {
                let alone = folder.join("ours-alone");
                fs::write(&alone, "")
                    .with_context(|| format!("cannot write {}", alone.display()))?;
            }
            let boot = self.folder.join(BOOTS).join(&name);
            let mut guest = self.guest(case, slice::from_ref(&name), boot, None);
            guest.counted = true;
            guest.plugin = Some((plugin.clone(), folder.join("marks.txt")));
            let mut boot = Boot::start(vec![guest]);
            let outcomes = boot.next(&name, slice::from_ref(folder), |line| progress.note(line));
            boot.join();
            let tally = all(case.job.reading, &outcomes);
            if tally.failed > 0 {
                return Ok(tally);
            }
        }
        cost::judge(&self.root, &folders, &self.image.kernel, self.write_cost)
    }

    fn probes(&self) -> anyhow::Result<&Probes> {
        self.probes.as_ref().context("the probes were not built")
    }

    /// A guest for the cases of these names, which are like `first`.
    fn guest(&self, first: &Case, names: &[String], folder: PathBuf, link: Option<Link>) -> Guest {
        let mut script = "set -euo pipefail\n. /mnt/boot/net.sh\n. /mnt/boot/cases.sh\n".to_owned();
        if let (Some(topology), Some(device)) = (first.job.topology, first.device) {
            script.push_str(&format!("{} {}\n", topology.function(), device.name()));
        }
        script.push_str(&boot::complaints());
        script.push_str(&format!("run_cases {}\n", names.join(" ")));
        Guest {
            image: self.image.clone(),
            folder,
            cases: self.folder.clone(),
            script,
            link,
            counted: self.counted || first.job.counted,
            on_two_processors: first.job.on_two_processors,
            plugin: None,
            total_max: names.iter().map(|_| TOTAL_MAX).sum(),
        }
    }

    /// Makes a folder for a case's files, with what bash runs there: where things are, the job itself.
    fn lay_out(&self, case: &Case, folder: &Path) -> anyhow::Result<()> {
        let mut script = "set -euo pipefail\n. /mnt/boot/net.sh\n".to_owned();
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
        script.push_str(case.job.script);
        empty(folder)?;
        let path = folder.join("job.sh");
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))
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

/// The sum of all guests; where there are two, the output says which one speaks.
fn all(reading: Reading, outcomes: &[Outcome]) -> Tally {
    let mut tallies: Vec<_> = outcomes
        .iter()
        .map(|outcome| read(reading, outcome))
        .collect();
    let is_pair = tallies.len() == 2;
    let failed = tallies.iter_mut().enumerate().filter(|(_, t)| t.failed > 0);
    for (node, tally) in failed.filter(|_| is_pair) {
        tally.output.insert_str(0, &format!("guest {node}:\n"));
    }
    tallies.into_iter().fold(Tally::default(), sum)
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
