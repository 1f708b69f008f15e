//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::perf::Workload;
use crate::transport::{Buffers, Kind, Mode, Provider, Wait};

/// Measure and look at Sockets Direct Protocol streams.
///
/// SDP carries plain send() and recv() over RDMA, or over shared memory between two processes of
/// one machine, and moves large payloads straight from the sender's buffer into the receiver's.
#[derive(Debug, Parser)]
///
/// SDP_LOG=debug in the environment shows what the library does (also per part: sdp_verbs=trace).
#[command(name = "sdp", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure throughput, latency and processor time.
    Perf {
        /// Which measurement.
        #[command(subcommand)]
        command: Perf,
    },
    /// Show what the streams of running processes do: those of this user; for root, of all.
    ///
    /// Every process whose sockets are this library's is asked, those under sdp run too. It tells of
    /// each connection how its bytes went, copied or not, and why.
    #[command(after_help = STAT_EXAMPLES)]
    Stat(StatArgs),
    /// Look at this machine: what SDP would use, and what stands in the way, each with its remedy.
    ///
    /// With a peer also the way there: which provider, which device, and a connection, if a port is
    /// named; the program that listens there sees one that ends at once. Fails if anything does not
    /// work; what could be better is a warning.
    Doctor(DoctorArgs),
    /// A process that tries something for the doctor.
    #[command(hide = true)]
    DoctorProbe(ProbeArgs),
    /// Run a program that knows only TCP, and have its sockets speak SDP.
    ///
    /// sdp run becomes the program, loaded with libsdp_preload.so. Between two such programs bytes go
    /// by SDP, with everybody else by TCP, or as rules say.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Run a program and write every message of its sockets into a pcapng file for Wireshark.
    ///
    /// The program must use this library, by itself or preloaded. The file shows RoCEv2 packets,
    /// whatever carried the messages; Wireshark finds SDP in them by the connect requests. It is
    /// readable by its owner only, and must not exist before.
    Capture(CaptureArgs),
    /// Use streams in every way at once, for a while, and compare every byte.
    ///
    /// Two processes, connections that come and go, both ways at once: calls of 1 byte to 8 MiB
    /// from ordinary and registered memory, vectored, peeking, with time-outs, a third of the
    /// sockets non-blocking; meanwhile both processes fork and start programs. Once over the
    /// provider, once over a layer above it that does everything as late as verbs allow. Every
    /// choice follows from the seed.
    Soak(SoakArgs),
    /// One of the two processes of a soak.
    #[command(hide = true)]
    SoakEnd(SoakEndArgs),
    /// Kill peers, or stop them for a while, and look at what becomes of the survivor's calls.
    ///
    /// Each round starts a process, brings the connection with it into a phase (handshake, copied
    /// bytes under way, an advert open, a read running, closing) and kills it. All bytes that had
    /// reached the survivor must be delivered, then the error, soon; nothing of the peer may stay.
    Kill(KillArgs),
    /// The process that is killed.
    #[command(hide = true)]
    KillVictim(KillVictimArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  sdp run iperf3 -s                     SDP with who has it, TCP with the others
  sdp run --report iperf3 -c 127.0.0.1  say at the end how the bytes went
  sdp run --only-sdp redis-server       no TCP at all
  sdp run --rules my.conf nginx         rules in the grammar of libsdp.conf:
                                          use tcp server nginx *:443
                                          use both client * 10.0.0.0/8:*";

/// Arguments of `sdp doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A name or an address, with or without a port.
    #[arg(value_name = "PEER[:PORT]")]
    pub(crate) peer: Option<String>,
    /// Write the findings as JSON to FILE (`-`: standard output) in place of text.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Arguments of a probe of the doctor's.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// What it tries.
    #[command(subcommand)]
    pub(crate) probe: Probe,
}

/// What the doctor tries.
#[derive(Debug, Subcommand)]
pub(crate) enum Probe {
    /// Listens, and says whether what comes is right.
    Serve,
    /// Sends bytes there.
    Call {
        /// Where.
        address: SocketAddr,
    },
    /// Finds a way, and connects.
    Reach {
        /// Where to.
        address: SocketAddr,
        /// Does not connect.
        #[arg(long)]
        route_only: bool,
    },
}

const STAT_EXAMPLES: &str = "\
Examples:
  sdp stat                  every process, a line for each socket
  sdp stat -v 4711          one process: how the bytes went, and why they were copied
  sdp stat --watch 1        again each second, with rates
  sdp stat --prometheus     for a collector of text files";

/// Arguments of `sdp stat`.
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// Only these processes.
    #[arg(value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// Say how the bytes of each connection went, and why they were copied.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Again and again, so many seconds apart, with rates.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) watch: Option<f64>,
    /// Write everything as JSON to FILE (`-`: standard output); with --watch one line each time.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
    /// Write the text format of Prometheus, for whole processes.
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    pub(crate) prometheus: bool,
}

/// Arguments of `sdp run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Stream sockets speak SDP whatever the rules, and nothing else.
    #[arg(long, conflicts_with = "rules")]
    pub(crate) only_sdp: bool,
    /// Rules in place of /etc/libsdp.conf.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Say on standard error, when a process ends, how many connections and bytes went by SDP.
    #[arg(long)]
    pub(crate) report: bool,
    /// The library, if it is neither beside this program nor in ../lib/sdp.
    #[arg(long, value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// Arguments of `sdp capture`.
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// The file; %p in its name stands for the process id, for programs that start others.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Payload bytes written of each message and each RDMA transfer, or `all` [default: 64].
    #[arg(long, value_name = "BYTES")]
    pub(crate) payload: Option<String>,
    /// The file does not grow beyond this; K, M and G are powers of 1024 [default: 256M].
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// Arguments of `sdp kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// How often [default: 200, with --stop 20].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: Option<u32>,
    /// Stop the peer for 3 s in place of killing it.
    #[arg(long)]
    pub(crate) stop: bool,
    /// How soon after the kill the survivor must be told: for slow machines.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 1000,
        conflicts_with = "stop"
    )]
    pub(crate) told_ms: u32,
    /// Address of this machine that the two meet at: one of an adapter's under SDP_PROVIDER=rdma.
    #[arg(long, value_name = "ADDR", default_value_t = Ipv4Addr::LOCALHOST.into())]
    pub(crate) address: IpAddr,
    /// Seed of all choices, as an earlier run printed it.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write the report as JSON to FILE (`-`: standard output) in place of text.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Arguments of the process that is killed.
#[derive(Debug, Args)]
pub(crate) struct KillVictimArgs {
    /// What it does.
    pub(crate) script: String,
}

/// Arguments of `sdp soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// How long to open connections over each layer; a third of it, at most 10 s, is for warming
    /// up.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "60")]
    pub(crate) seconds: f64,
    /// Connections at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) conns: u32,
    /// Verbs provider.
    #[arg(long, value_enum, default_value_t = Provider::Host)]
    pub(crate) provider: Provider,
    /// Address of this machine that the two meet at: one of an adapter's over `rdma`.
    #[arg(long, value_name = "ADDR", default_value_t = Ipv4Addr::LOCALHOST.into())]
    pub(crate) address: IpAddr,
    /// Only these layers.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Layer::Plain, Layer::Lazy])]
    pub(crate) layers: Vec<Layer>,
    /// Seed of what the lazy layer holds back, and for how long.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) lazy_seed: u32,
    /// Seed of all choices, as an earlier run printed it.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How often each process forks, and how often it starts a program.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) disturbances: u32,
    /// Write the report as JSON to FILE (`-`: standard output) in place of text.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// What a soak runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Layer {
    /// The provider itself.
    Plain,
    /// A layer above it that does everything as late as verbs allow.
    Lazy,
}

/// Arguments of one process of a soak.
#[derive(Debug, Args)]
pub(crate) struct SoakEndArgs {
    /// Connections at once.
    #[arg(long)]
    pub(crate) conns: u32,
    /// Verbs provider.
    #[arg(long, value_enum)]
    pub(crate) provider: Provider,
    /// Seed of the layer that does everything late.
    #[arg(long)]
    pub(crate) lazy: Option<u64>,
    /// Seed of all choices.
    #[arg(long)]
    pub(crate) seed: u64,
    /// Where the server listens; without it this is the server.
    #[arg(long)]
    pub(crate) connect: Option<SocketAddr>,
    /// The address that the server takes.
    #[arg(long)]
    pub(crate) address: IpAddr,
}

/// The measurements.
#[derive(Debug, Subcommand)]
pub(crate) enum Perf {
    /// Serve tests until killed; prints the bound address as one line.
    ///
    /// The address is that of the control connection, plain TCP. The sockets that a test measures
    /// are opened beside it, as the test asks. A server runs tests for anybody who reaches it: do
    /// not expose it to a network you do not trust.
    Server(ServerArgs),
    /// One-way bulk throughput, with the processor time of both ends.
    Bw(BwArgs),
    /// Ping-pong latency: one way is half the round trip.
    Lat(LatArgs),
    /// TCP, Unix sockets, SDP and the floors of this machine, interleaved round by round.
    ///
    /// Peers take turns within every round, in reversed order every second round; ratios are
    /// medians of the ratios of single rounds. So a machine whose processors change places
    /// between rounds (virtual ones do) still gives a fair comparison.
    Compare(CompareArgs),
    /// Connections: time to set one up beside TCP's, many at once, and that nothing is left of
    /// them.
    ///
    /// Between two processes with few descriptors each. TCP and SDP take turns.
    Conn(ConnArgs),
    /// The accepting process of `conn`.
    #[command(hide = true)]
    ConnEnd(ConnEndArgs),
}

/// Arguments of `sdp perf conn`.
#[derive(Debug, Args)]
pub(crate) struct ConnArgs {
    /// SDP connections to have open at once.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) open: u64,
    /// Times to connect and close, of each kind; one at a time a tenth of it.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub(crate) cycles: u64,
    /// Threads that connect and close at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) parallel: u32,
    /// Descriptors each process may have open (`ulimit -n`).
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) descriptors: u64,
    /// Verbs provider under SDP; SDP_PROVIDER does not count here.
    #[arg(long, value_enum, default_value_t = Provider::Host)]
    pub(crate) provider: Provider,
    /// Address of this machine that the two meet at: one of an adapter's over `rdma`.
    #[arg(long, value_name = "ADDR", default_value_t = Ipv4Addr::LOCALHOST.into())]
    pub(crate) address: IpAddr,
    /// Write the report as JSON to FILE (`-`: standard output) in place of text.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Arguments of `sdp perf conn-end`.
#[derive(Debug, Args)]
pub(crate) struct ConnEndArgs {
    /// Descriptors it may have open.
    #[arg(long)]
    pub(crate) descriptors: u64,
    /// Verbs provider under SDP.
    #[arg(long, value_enum)]
    pub(crate) provider: Provider,
    /// The address that it takes.
    #[arg(long)]
    pub(crate) address: IpAddr,
}

/// Arguments of `sdp perf server`.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) listen: SocketAddr,
    /// Serve tests of this kind of socket only.
    #[arg(long, value_enum)]
    pub(crate) transport: Option<Kind>,
    /// End after the first test.
    #[arg(long)]
    pub(crate) once: bool,
    /// Count verbs below the engine; tests that verify need it.
    #[arg(long)]
    pub(crate) trace: bool,
    /// End when standard input ends.
    #[arg(long, hide = true)]
    pub(crate) until_eof: bool,
}

/// What bandwidth and latency tests have in common.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Control address of a running `sdp perf server`; without it a server of its own is started
    /// on this machine.
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) connect: Option<SocketAddr>,
    /// Kind of socket.
    #[arg(long, value_enum, default_value_t = Kind::Sdp)]
    pub(crate) transport: Kind,
    /// Verbs provider under SDP; SDP_PROVIDER does not count here.
    #[arg(long, value_enum, default_value_t = Provider::Host)]
    pub(crate) provider: Provider,
    /// How SDP moves the payload: by its own choice, always copied through private buffers, or
    /// always straight between the buffers of the two programs.
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub(crate) mode: Mode,
    /// Memory that the payload lives in.
    #[arg(long, value_enum, default_value_t = Buffers::Heap)]
    pub(crate) buffers: Buffers,
    /// Connections, each with one blocking thread at either end.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) conns: u32,
    /// How long to measure [default: 2].
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, conflicts_with = "bytes")]
    pub(crate) seconds: Option<f64>,
    /// How much to send in place of a time, in all, rounded up to whole messages; K, M and G are
    /// powers of 1024.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) bytes: Option<u64>,
    /// Compare every byte that arrives with what was sent; a difference is a failure that names
    /// the first wrong offset.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Count verbs below the engine at both ends (always done with --verify).
    #[arg(long)]
    pub(crate) trace: bool,
    /// How a thread waits. TCP and Unix sockets know only `spin` (non-blocking calls, repeated),
    /// `poll` and the ordinary blocking call.
    #[arg(long, value_enum, default_value_t = Wait::Adaptive)]
    pub(crate) wait: Wait,
    /// Write the report as JSON to FILE (`-`: standard output) in place of a table.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Arguments of `sdp perf bw`.
#[derive(Debug, Args)]
pub(crate) struct BwArgs {
    /// Bytes of one send; K, M and G are powers of 1024.
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "1M")]
    pub(crate) size: usize,
    /// The rest.
    #[command(flatten)]
    pub(crate) test: TestArgs,
}

/// Arguments of `sdp perf lat`.
#[derive(Debug, Args)]
pub(crate) struct LatArgs {
    /// Bytes of one message each way; K, M and G are powers of 1024.
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "64")]
    pub(crate) size: usize,
    /// The rest.
    #[command(flatten)]
    pub(crate) test: TestArgs,
}

/// Arguments of `sdp perf compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Rounds; every peer runs every workload once in each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Length of one run of one peer, in milliseconds [default: 150].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) round_ms: Option<u64>,
    /// About how long to measure in all; sets the length of one run.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, conflicts_with = "round_ms")]
    pub(crate) seconds: Option<f64>,
    /// Only this workload.
    #[arg(long, value_enum)]
    pub(crate) workload: Option<Workload>,
    /// Bytes of a message, separated by commas, in place of 64K and 1M for bulk and 64 for the
    /// ping-pong; K, M and G are powers of 1024.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_size)]
    pub(crate) sizes: Option<Vec<usize>>,
    /// Numbers of connections, separated by commas, in place of 1 and 8 for bulk and 1 for the
    /// ping-pong.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) conns: Option<Vec<u32>>,
    /// Say `open` on standard output, wait for a line on standard input before each round, and say
    /// `round N` after it: for a program that measures something else in between.
    #[arg(long)]
    pub(crate) turns: bool,
    /// Only these peers, separated by commas.
    ///
    /// Bulk: tcp, uds, sdp-bcopy, sdp-auto, sdp-zcopy, sdp-registered, floor-ring, floor-single;
    /// only if named here tcp-poll, uds-poll, sdp-poll, sdp-registered-poll.
    /// Ping-pong: tcp, uds, each also with -spin and -poll, sdp-auto, sdp-spin, sdp-poll; only if
    /// named here sdp-sleep, sdp-registered. A promise whose peers are left out is skipped.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) peers: Option<Vec<String>>,
    /// Verbs provider under SDP; SDP_PROVIDER does not count here.
    #[arg(long, value_enum, default_value_t = Provider::Host)]
    pub(crate) provider: Provider,
    /// Write the report as JSON to FILE (`-`: standard output) in place of a table.
    #[arg(long, value_name = "FILE", value_parser = parse_report)]
    pub(crate) json: Option<PathBuf>,
}

/// Largest message: both ends hold one per connection.
pub(crate) const SIZE_MAX: u64 = 1 << 30;

/// Longest measurement, in seconds.
const SECONDS_MAX: f64 = 86_400.0;

pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let plain = text.trim_end_matches("iB").trim_end_matches('B');
    let (digits, shift) = match plain.char_indices().last() {
        Some((at, 'K' | 'k')) => (&plain[..at], 10),
        Some((at, 'M' | 'm')) => (&plain[..at], 20),
        Some((at, 'G' | 'g')) => (&plain[..at], 30),
        _ => (plain, 0),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a number of bytes such as 65536, 64K or 1MiB"))?;
    count
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is out of range"))
}

fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|_| bytes <= SIZE_MAX)
        .ok_or_else(|| format!("`{text}` is more than 1 GiB"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds <= SECONDS_MAX)
        .ok_or_else(|| format!("`{text}` is not a number of seconds between 0 and {SECONDS_MAX}"))
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

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an address and a port such as 192.0.2.7:7000 or [::1]:7000; names are not looked up")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn what_cannot_be_is_refused_before_the_work() {
        for text in ["/nonexistent/report.json", "/"] {
            assert!(parse_report(text).is_err(), "{text}");
        }
        for text in ["-", "report.json", "/tmp/report.json"] {
            assert_eq!(parse_report(text), Ok(PathBuf::from(text)));
        }
        for text in ["localhost:1", "192.0.2.7", "192.0.2.7:x"] {
            let why = parse_address(text).unwrap_err();
            assert!(why.contains("192.0.2.7:7000"), "{why}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_with_their_suffixes() {
        for (text, bytes) in [
            ("64", 64),
            ("64K", 65_536),
            ("1MiB", 1 << 20),
            ("2g", 2 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "0", "-1", "1.5M", "99999999999G", "1T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert!(parse_size("2G").is_err());
    }

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(parse_seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "x"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
