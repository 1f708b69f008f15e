//! Cases of the conformance suite between two processes: the child listens, this process connects.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;

use sdp_verbs::Provider;
use sdp_verbs::conformance::role;
use sdp_verbs::hook::Lazy;
use sdp_verbs::host::HostProvider;

/// Names the case in the child's environment, and in no other process's.
const CASE: &str = "SDP_TEST_ROLE";
/// Set if the child shall dawdle.
const LAZY: &str = "SDP_TEST_LAZY";
/// What the child says before its address.
const LISTENING: &str = "listening at ";

fn provider(lazy: bool) -> Arc<dyn Provider> {
    let host = Arc::new(HostProvider::open().expect("the host provider"));
    if lazy {
        Arc::new(Lazy::new(host).seeded(7))
    } else {
        host
    }
}

/// The child's half. As a test of its own it has nothing to do.
#[test]
fn the_listening_process() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let provider = provider(std::env::var_os(LAZY).is_some());
    let announce = |addr| println!("\n{LISTENING}{addr}");
    role::passive(&provider, IpAddr::V4(Ipv4Addr::LOCALHOST), &case, announce)
        .unwrap_or_else(|why| panic!("{case}, listening side: {why}"));
}

/// Ends the child even if the test fails.
struct Listening {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Listening {
    fn start(case: &str, lazy: bool) -> (Self, SocketAddr) {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([
            "--exact",
            "the_listening_process",
            "--nocapture",
            "--test-threads=1",
        ]);
        command
            .env(CASE, case)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if lazy {
            command.env(LAZY, "1");
        }
        let mut child = command.spawn().expect("a child process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut listening = Self { child, output };
        for line in listening.output.by_ref().lines() {
            let line = line.expect("a line from the child");
            if let Some(addr) = line.strip_prefix(LISTENING) {
                let addr = addr.parse().expect("an address");
                return (listening, addr);
            }
        }
        panic!(
            "the child of {case} ended without listening: {:?}",
            listening.child.wait()
        );
    }

    /// Waits for the child's end, and repeats what it said.
    fn end(mut self) -> ExitStatus {
        let mut said = String::new();
        self.output
            .read_to_string(&mut said)
            .expect("the child's output");
        eprint!("{said}");
        self.child.wait().expect("the child's status")
    }
}

fn play(case: &str, lazy: bool) -> ExitStatus {
    let (child, addr) = Listening::start(case, lazy);
    role::active(&provider(lazy), addr, case)
        .unwrap_or_else(|why| panic!("{case}, connecting side: {why}"));
    child.end()
}

macro_rules! plays {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                assert!(play(stringify!($name), false).success());
            }
        )*

        mod lazy {
            $(
                #[test]
                fn $name() {
                    assert!(super::play(stringify!($name), true).success());
                }
            )*
        }

        #[test]
        fn every_case_is_mounted() {
            assert_eq!(role::names().collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}
plays!(
    echo,
    lengths,
    stream_one_way,
    read_what_the_message_names,
    write_before_the_message,
    invalidated_by_the_answer,
    end_behind_the_data,
);

/// What a killed process had sent is delivered before its end is.
#[test]
fn last_words_of_a_killed_process() {
    let status = play(role::KILLED, false);
    assert_eq!(status.signal(), Some(9), "{status:?}");
}

/// The memory of a killed process is out of reach, and asking for it does no harm.
#[test]
fn keys_of_a_killed_process_are_dead() {
    let status = play(role::KILLED_WITH_A_KEY, false);
    assert_eq!(status.signal(), Some(9), "{status:?}");
}
