//! The conformance suite on the host provider, within one process.

mod host_mount;

use std::sync::Arc;

use host_mount::on_host;
use sdp_verbs::VerbsError;
use sdp_verbs::conformance::{Fixture, Poller, Sides};
use sdp_verbs::host::HostProvider;

#[derive(Debug)]
struct Host {
    two_instances: bool,
    poller: Poller,
}

impl Fixture for Host {
    fn name(&self) -> String {
        let count = if self.two_instances {
            "two instances"
        } else {
            "one instance"
        };
        format!("host, {count}, polled by {:?}", self.poller)
    }

    fn open(&self) -> Result<Sides, VerbsError> {
        let active = Arc::new(HostProvider::open()?);
        let passive = match self.two_instances {
            true => Arc::new(HostProvider::open()?),
            false => Arc::clone(&active),
        };
        Ok(Sides { active, passive })
    }

    fn poller(&self) -> Poller {
        self.poller
    }

    fn rounds(&self) -> u32 {
        // The wait words of both are the same; once is enough for the long search.
        if self.two_instances { 50_000 } else { 10_000 }
    }
}

on_host! {
    /// One instance, connected to itself.
    one_instance, Host { two_instances: false, poller: Poller::Caller }
}

on_host! {
    /// Two instances, as in two processes, each completion queue polled by a thread of its own.
    two_instances_with_threads, Host { two_instances: true, poller: Poller::Threads }
}
