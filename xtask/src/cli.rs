//! The command line.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Tasks of the sdp workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One task.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the release program, prove that it carries bytes unchanged, then measure it beside TCP
    ///
    /// Server and client are separate processes on this machine; no adapter is needed. First a
    /// verified pass (every byte checked) with ordinary and with registered memory, then TCP, Unix
    /// sockets and SDP in turns, then one table and the checks. Takes under 90 seconds after the
    /// build. Exits with 0 exactly when every check holds.
    Demo(DemoOptions),

    /// Build the release program and use streams in every way at once, for a while
    ///
    /// Runs `sdp soak` with the options given, `--seconds`, `--conns`, `--seed`, `--json` and others:
    /// two processes, every byte compared, over the host provider and over a layer that does
    /// everything late. Exits with 0 exactly when every check holds.
    #[command(disable_help_flag = true)]
    Soak {
        /// Options of `sdp soak`; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },

    /// Build the release program and kill peers, or stop them, in every phase of a connection
    ///
    /// Runs `sdp kill` with the options given, `--rounds`, `--stop`, `--seed`, `--json`: what had
    /// reached the survivor is delivered before the error, soon, and nothing stays. Exits with 0
    /// exactly when every check holds.
    #[command(disable_help_flag = true)]
    Kill {
        /// Options of `sdp kill`; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },

    /// Run every test that needs no hardware: each package alone, doctests, loom
    ///
    /// Names each skipped test with its reason, prints the whole output of a package that fails,
    /// and ends with a line `N passed, N failed, N skipped`.
    Test {
        /// Also write the report to FILE as JSON (`-`: standard output, text then goes to
        /// standard error).
        #[arg(long, value_name = "FILE", value_parser = parse_report)]
        json: Option<PathBuf>,
    },

    /// Run the loom models: every interleaving of the hand-made synchronisation
    ///
    /// Tests named `loom_*` of sdp-verbs and sdp-socket, release build, under `--cfg loom`, in
    /// `target/loom`. At most 2 preemptions per execution unless LOOM_MAX_PREEMPTIONS says otherwise.
    Loom {
        /// Also write the report to FILE as JSON (`-`: standard output).
        #[arg(long, value_name = "FILE", value_parser = parse_report)]
        json: Option<PathBuf>,
    },

    /// Run the fuzz targets, each for a while
    ///
    /// Decoders, message sequences against a live engine, links of the host provider scribbled over
    /// by the peer, and the C functions. Needs cargo-fuzz. The checks ask for so many executions in
    /// ten minutes, and for as many in proportion in less. Then the lines are counted that the
    /// checked-in inputs reach, where the compiler's llvm-tools are installed.
    Fuzz(FuzzOptions),

    /// Have tshark read our captures, and compare what it sees with what was sent
    ///
    /// A conversation with every kind of message, captured as RoCEv2 and in InfiniBand framing;
    /// every field of every message is compared. Then single bytes of the captures are changed,
    /// and each change must be noticed. Installs tshark by apt-get if it is missing.
    CaptureCheck {
        /// Also write the report to FILE as JSON (`-`: standard output).
        #[arg(long, value_name = "FILE", value_parser = parse_report)]
        json: Option<PathBuf>,
    },

    /// Have a peer overwrite the memory it shares with us, also under AddressSanitizer
    ///
    /// The test file `scribble` of sdp-socket, for longer than `cargo xtask test` runs it, then
    /// built with AddressSanitizer in `target/asan`.
    Scribble {
        /// How long each of the two goes on.
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
        seconds: u32,
        /// Also write the report to FILE as JSON (`-`: standard output).
        #[arg(long, value_name = "FILE", value_parser = parse_report)]
        json: Option<PathBuf>,
    },

    /// Prove that keys taken back are dead, and that the tests of it can fail
    ///
    /// The test files `keys` of sdp-verbs and sdp-socket, as they are and then once more with the
    /// check of key cells switched off (`--cfg sdp_no_cell_check`, in `target/no-cell-check`), when
    /// every test that stands on it must fail.
    Keys {
        /// Also write the report to FILE as JSON (`-`: standard output).
        #[arg(long, value_name = "FILE", value_parser = parse_report)]
        json: Option<PathBuf>,
    },

    /// Run seeds of the whole-stack simulation: virtual time, random programs, faults
    ///
    /// Builds the release program `sdp-sim` and runs it. A seed that breaks a rule is made smaller
    /// and printed with the command that repeats it. `--mutate` builds it with planted bugs
    /// (`--cfg sdp_mutate`, in `target/mutate`), of which each must be found.
    Sim(SimOptions),

    /// Draw the figure of the project's founding paper again, in the simulator
    ///
    /// Streams between two simulated machines, whole stacks at both ends, in virtual time: throughput
    /// and processor use over message size and number of connections, copied, not copied, and as the
    /// stack chooses, on machines of 2005 and of today. Fails where zero copy gains less than the
    /// paper says, or a byte is wrong, or a run does not repeat. Half a minute after the build.
    /// `docs/paper.md` has the machines, and what such figures say and do not say.
    Paper(PaperOptions),

    /// Measure streams of this machine beside TCP, Unix sockets, UCX, and the machine's floors
    ///
    /// Two processes, all peers in turns round by round: throughput and processor time over message
    /// size and number of connections, blocking and non-blocking, latency over message size, connections.
    /// Tables, a page of charts, and checks, which are ratios of rounds and never times. Six minutes
    /// after the build. ucx_perftest (Debian's ucx-utils) is installed if it is missing, or left out by
    /// name. `docs/bench.md` has how to read it, and what it cannot say.
    Bench(BenchOptions),

    /// Check the rules of the house that no compiler checks
    ///
    /// File length, dependency direction, where the oldest compiler is stated, clocks and threads
    /// and unsafe code out of place, loose ends in comments, trailing blanks, skipped tests without
    /// a reason, names of the protocol map that nothing has, a stale page of state tables. Prints each
    /// violation as `file:line: what to do`.
    Tidy,

    /// Write docs/state-tables.md, from the snapshots of sdp-core's tests
    Diagrams,

    /// Write the C header of libsdp, sdp-ffi/include/sdp.h, from its Rust sources
    Header {
        /// Write nothing: compare, and fail if the file is not as generated.
        #[arg(long)]
        check: bool,
    },

    /// Build the release of the C library and install it, with manual pages and the `sdp` program
    ///
    /// The header, libsdp.so with its links, libsdp.a, the pkg-config file, the pages, the program, and
    /// lib/sdp/libsdp_preload.so. What was installed there before is replaced.
    Install(InstallOptions),

    /// Build what `install` installs, and make a Debian package of it
    ///
    /// With the libraries and programs below /usr; its dependencies are those of this machine's release.
    /// Needs Debian's dpkg-dev, and no root.
    Package(PackageOptions),

    /// Run the tests that need RDMA devices, on software devices in virtual machines
    ///
    /// On Debian 12 for x86-64. Installs the packages it needs (as root or by sudo), builds a guest
    /// from Debian's packages once, keeps it in the cache folder, and boots it by an emulator: no
    /// support of the machine is needed. Jobs on the same device share a boot, unless one needs its
    /// own; what comes after a job that fails has another. Guests see the files of this machine
    /// read-only and leave theirs in `target/vm-test/<job>`.
    VmTest(VmTestOptions),

    /// Hold what is promised of sockets and of verbs against what happens, call by call
    ///
    /// The conformance suite of sdp-verbs on every provider that this machine has. Then one C program
    /// that asks each call in each phase of a socket, with every flag and option and with odd arguments:
    /// by the kernel's TCP, by libsdp, and under the preload library. Exits with 0 exactly when every
    /// difference is one that is listed with its reason, in `docs/conformance.md`. No root, no network.
    Conformance(ConformanceOptions),

    /// Prove that real programs, unmodified, run by the preload library and move their bytes by SDP
    ///
    /// Servers and clients of Debian's packages, which are installed (as root); each case in namespaces of
    /// its own, so that the kernel's counter of the loopback device says what went by TCP. Bytes are
    /// compared, what each process reports is added up, and nothing may be left. What cannot be
    /// installed is skipped with the reason. Exits with 0 exactly when every check holds.
    Programs(ProgramsOptions),

    /// Write the Rust form of libibverbs' and librdmacm's headers, sdp-verbs/src/rdma/sys/bindings.rs
    ///
    /// Needs libclang and the headers: Debian's libclang-dev, libibverbs-dev, librdmacm-dev. What
    /// is checked in was made from the version of rdma-core that its first line names.
    Bindings {
        /// Write nothing: compare, and fail if the file is not as generated.
        #[arg(long)]
        check: bool,
    },

    /// Test and measure real RDMA devices between two nodes of a lab
    ///
    /// `--server` on one node, `--peer ADDR` on the other, or `--ssh HOST --peer ADDR` to do both
    /// from one. Finds devices, ports, addresses and limits, runs the conformance suite and
    /// verified transfers, measures beside TCP and the programs of perftest, and says what is
    /// missing. `docs/hw-test.md` has the rest.
    HwTest(Box<HwTestOptions>),

    /// Everything that a change must pass: formatting, tidy, header, bindings, clippy, tests, keys,
    /// loom, guests, docs
    ///
    /// On Debian 12 for x86-64 that includes the short form of `vm-test`, unless SDP_CI_NO_VM=1.
    Ci {
        /// Also write the report to FILE as JSON (`-`: standard output).
        #[arg(long, value_name = "FILE", value_parser = parse_report)]
        json: Option<PathBuf>,
    },
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,

    /// About how long the comparison may measure, in seconds (default: chosen by `sdp perf
    /// compare`).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: Option<u32>,
}

/// Options of `install`.
#[derive(Debug, Args)]
pub(crate) struct InstallOptions {
    /// The folder with bin, include, lib and share.
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    pub(crate) prefix: PathBuf,
    /// A folder to put it below, for packages: programs will find it without.
    #[arg(long, value_name = "DIR")]
    pub(crate) destdir: Option<PathBuf>,
}

/// What `package` makes.
#[derive(Debug, Args)]
pub(crate) struct PackageOptions {
    /// The folder for the package; otherwise `target/package`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Options of `vm-test`.
#[derive(Debug, Default, Args)]
pub(crate) struct VmTestOptions {
    /// Kind of device.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: Devices,
    /// How devices are joined: one with both ends on it, two of one guest, or two guests.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) topology: Topologies,
    /// Only jobs whose name contains TEXT.
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Only the jobs of the short form, which is part of `ci`.
    #[arg(long)]
    pub(crate) short: bool,
    /// Guests at once [default: as many as this machine has processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) guests: Option<u8>,
    /// Virtual time counts instructions: slower, repeatable.
    #[arg(long)]
    pub(crate) icount: bool,
    /// What the job `cost` counts becomes what is checked in, xtask/guest/cost.json.
    #[arg(long)]
    pub(crate) write_cost: bool,
    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `conformance`.
#[derive(Debug, Args)]
pub(crate) struct ConformanceOptions {
    /// Only what has TEXT in its name: `libsdp`, `preload.recv`, `setsockopt`, `verbs.sim`.
    #[arg(long, value_name = "TEXT", conflicts_with = "write")]
    pub(crate) filter: Option<String>,
    /// What is found becomes what is checked in, docs/conformance.md.
    #[arg(long)]
    pub(crate) write: bool,
    /// Write the report as a page to FILE.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) html: Option<PathBuf>,
    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `programs`.
#[derive(Debug, Args)]
pub(crate) struct ProgramsOptions {
    /// Only cases whose name contains TEXT.
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Install nothing: only cases whose programs are here, without a network.
    #[arg(long)]
    pub(crate) installed: bool,
    /// In place of the cases, measure benchmarks of such programs beside plain TCP; nothing is asserted
    /// of their time.
    #[arg(long)]
    pub(crate) bench: bool,
    /// Rounds of a benchmark.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) rounds: u8,
    /// List the cases, and run none.
    #[arg(long)]
    pub(crate) list: bool,
    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `hw-test`.
#[derive(Debug, Args)]
pub(crate) struct HwTestOptions {
    /// Serve the other node, until interrupted.
    #[arg(long, conflicts_with_all = ["peer", "ssh"])]
    pub(crate) server: bool,
    /// Test with the node whose device has this address.
    #[arg(long, value_name = "ADDR")]
    pub(crate) peer: Option<IpAddr>,
    /// Start the server on HOST by ssh; `--peer` is still the address of its device.
    #[arg(long, value_name = "HOST", requires = "peer")]
    pub(crate) ssh: Option<String>,
    /// Device of this node [default: the first with an active port].
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Device of the peer under --ssh, where it has another name.
    #[arg(long, value_name = "NAME", requires = "ssh")]
    pub(crate) peer_device: Option<String>,
    /// Address to serve on [default: one of the device's].
    #[arg(long, value_name = "ADDR", requires = "server")]
    pub(crate) address: Option<IpAddr>,
    /// First of five ports that the two nodes use.
    #[arg(long, value_name = "PORT", default_value_t = 7471, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub(crate) port: u16,
    /// Length of each measurement.
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Bytes of the messages.
    #[arg(long, value_name = "LIST", value_delimiter = ',',
        default_values_t = [64, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576])]
    pub(crate) sizes: Vec<u64>,
    /// Numbers of connections.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    pub(crate) conns: Vec<u32>,
    /// The `sdp` program to use in place of building it.
    #[arg(long, value_name = "FILE")]
    pub(crate) sdp: Option<PathBuf>,
    /// The conformance suite to run in place of building it.
    #[arg(long, value_name = "FILE")]
    pub(crate) conformance: Option<PathBuf>,
    /// Write the report with charts to FILE [default: hw-test.html, once something was measured].
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub(crate) html: Option<PathBuf>,
    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Kinds of software device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Devices {
    /// RDMA over Converged Ethernet
    Rxe,
    /// iWARP
    Siw,
    /// Each of them
    #[default]
    All,
}

/// Ways to join devices.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topologies {
    /// One device, both ends on it
    Loop,
    /// Two devices of one guest with a wire between them
    Pair,
    /// Two guests with a wire between them
    TwoGuests,
    /// Each of them
    #[default]
    All,
}

/// Options of `fuzz`.
#[derive(Debug, Args)]
pub(crate) struct FuzzOptions {
    /// Only this one: decode, sequence, host_link, handles.
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,

    /// How long each runs.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,

    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `sim`, handed on as they are.
#[derive(Debug, Args)]
pub(crate) struct SimOptions {
    /// The first seed.
    #[arg(long)]
    pub(crate) start: Option<u64>,
    /// How many seeds.
    #[arg(long)]
    pub(crate) seeds: Option<u64>,
    /// Go on for so many minutes instead.
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// Operations to leave out, by number: `0-3,7`.
    #[arg(long)]
    pub(crate) skip: Option<String>,
    /// Faults to leave out, by number.
    #[arg(long)]
    pub(crate) spare: Option<String>,
    /// Print so many of the last lines of what happened on the fabric.
    #[arg(long)]
    pub(crate) log: Option<usize>,
    /// Who sits at the other end: `strict`, `ofed15`, `bcopy_only`, `gen1`.
    #[arg(long)]
    pub(crate) peer: Option<String>,
    /// Plant a bug, by its name, and look for a seed that finds it; `all`: each of them.
    #[arg(long, value_name = "NAME")]
    pub(crate) mutate: Option<String>,
    /// Also write the report to FILE as JSON (`-`: standard output).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `paper`.
#[derive(Debug, Args)]
pub(crate) struct PaperOptions {
    /// A few points only, as in the tests.
    #[arg(long)]
    pub(crate) short: bool,
    /// Machines, by name: ddr2005, sdr2005, modern100, modern400 [default: all].
    #[arg(long, value_name = "NAMES")]
    pub(crate) machine: Option<String>,
    /// Decides who runs first where several programs may, and what is sent.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write the page with the charts to FILE [default: target/paper.html].
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) html: Option<PathBuf>,
    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// A few sizes and numbers of connections, in a minute.
    #[arg(long)]
    pub(crate) quick: bool,
    /// About how long to measure, in seconds [default: 270, with --quick 36].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub(crate) seconds: Option<u32>,
    /// Only these peers: those of `sdp perf compare` by their names there, ucx-stream, ucx-tag.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) peers: Option<Vec<String>>,
    /// Bytes of the messages.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub(crate) sizes: Option<Vec<u64>>,
    /// Numbers of connections.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) conns: Option<Vec<u32>>,
    /// Install nothing: what is not there is left out.
    #[arg(long)]
    pub(crate) installed: bool,
    /// Write the page with the charts to FILE [default: target/bench.html].
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) html: Option<PathBuf>,
    /// Also write the report to FILE as JSON (`-`: standard output, text then goes to standard
    /// error).
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

impl Command {
    /// Where the report goes, if one was asked for.
    pub(crate) fn json(&self) -> Option<&Path> {
        match self {
            Self::Demo(options) => options.json.as_deref(),
            Self::VmTest(options) => options.json.as_deref(),
            Self::Conformance(options) => options.json.as_deref(),
            Self::Programs(options) => options.json.as_deref(),
            Self::HwTest(options) => options.json.as_deref(),
            Self::Soak { options } | Self::Kill { options } => passed_on(options),
            Self::Fuzz(options) => options.json.as_deref(),
            Self::Sim(options) => options.json.as_deref(),
            Self::Paper(options) => options.json.as_deref(),
            Self::Bench(options) => options.json.as_deref(),
            Self::Test { json }
            | Self::Loom { json }
            | Self::Keys { json }
            | Self::Scribble { json, .. }
            | Self::CaptureCheck { json }
            | Self::Ci { json } => json.as_deref(),
            Self::Tidy
            | Self::Diagrams
            | Self::Header { .. }
            | Self::Install(_)
            | Self::Package(_)
            | Self::Bindings { .. } => None,
        }
    }
}

/// The value of `--json` among options that another program reads.
fn passed_on(options: &[String]) -> Option<&Path> {
    options.iter().enumerate().find_map(|(at, word)| {
        let value = match word.strip_prefix("--json")? {
            "" => options.get(at + 1)?,
            rest => rest.strip_prefix('=')?,
        };
        Some(Path::new(value))
    })
}

/// Where a report goes: known to be impossible before the work rather than after it.
fn parse_report(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        _ if path.is_dir() => Err(format!("{text} is a folder; name a file in it")),
        Some(folder) if !folder.is_dir() => Err(format!(
            "there is no folder {}; make it first",
            folder.display()
        )),
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_is_found_on_every_reporting_command() {
        for command in [
            "demo",
            "test",
            "soak",
            "kill",
            "loom",
            "keys",
            "scribble",
            "vm-test",
            "conformance",
            "programs",
            "hw-test",
            "capture-check",
            "fuzz",
            "sim",
            "paper",
            "bench",
            "ci",
        ] {
            let cli = Cli::try_parse_from(["xtask", command, "--json", "-"]).unwrap();
            assert_eq!(cli.command.json(), Some(Path::new("-")), "{command}");
        }
    }

    #[test]
    fn options_of_the_program_are_passed_on_as_they_are() {
        let words = ["xtask", "soak", "--seconds", "1", "--json=x", "--help"];
        let cli = Cli::try_parse_from(words).unwrap();
        assert_eq!(cli.command.json(), Some(Path::new("x")));
        let Command::Soak { options } = cli.command else {
            panic!("another command");
        };
        assert_eq!(options, words[2..]);
        assert_eq!(passed_on(&options[..2]), None);
    }
}
