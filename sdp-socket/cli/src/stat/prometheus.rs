//! Reports in the text format of Prometheus.
//!
//! Counters are of whole processes, ended connections included, so they never go back while a process
//! lives; single connections come and go, and are for `sdp stat` itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::find::{Found, Process};
use super::model::{Counts, Name};

/// Labels, of which every value is printable.
type Labels = Vec<(&'static str, String)>;

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Every metric: its name, its type, and what it is.
#[rustfmt::skip]
const METRICS: [(&str, &str, &str); 22] = [
    ("sdp_process_info", GAUGE, "Processes whose sockets speak SDP."),
    ("sdp_process_silent", GAUGE, "Processes that use SDP and did not tell."),
    ("sdp_memory_used_bytes", GAUGE, "Private memory of all connections."),
    ("sdp_memory_max_bytes", GAUGE, "Bound on private memory, SDP_MEM_MAX."),
    ("sdp_memory_refused_total", COUNTER, "Times private memory was refused."),
    ("sdp_events_total", COUNTER, "Events counted by a library in front of this one."),
    ("sdp_listener_queued", GAUGE, "Connections that wait to be accepted."),
    ("sdp_listener_accepted_total", COUNTER, "Connections accepted by a listener."),
    ("sdp_connections", GAUGE, "Connections by state."),
    ("sdp_connections_ended_total", COUNTER, "Connections that have ended."),
    ("sdp_unsent_bytes", GAUGE, "Bytes accepted and not yet with peers."),
    ("sdp_unread_bytes", GAUGE, "Bytes that have come and were not read."),
    ("sdp_sent_bytes_total", COUNTER, "Payload sent, by the way it went."),
    ("sdp_received_bytes_total", COUNTER, "Payload received, by the way it came."),
    ("sdp_copied_bytes_total", COUNTER, "Payload that was copied, by the reason why."),
    ("sdp_copied_transfers_total", COUNTER, "Transfers that were copied, by the reason why."),
    ("sdp_messages_sent_total", COUNTER, "Messages sent, by kind."),
    ("sdp_messages_received_total", COUNTER, "Messages received, by kind."),
    ("sdp_credit_stalls_total", COUNTER, "Times a send had to wait for credits."),
    ("sdp_memory_scarce_total", COUNTER, "Times buffers shrank for want of memory."),
    ("sdp_connection_memory_refused_total", COUNTER, "Times memory was refused to a connection."),
    ("sdp_probes_total", COUNTER, "Signs of life asked for."),
];

/// The samples of each metric.
#[derive(Debug, Default)]
struct Samples(BTreeMap<&'static str, BTreeMap<Labels, u64>>);

impl Samples {
    /// Adds to a sample of a metric that is in the list.
    fn add(&mut self, metric: &'static str, labels: &Labels, count: u64) {
        debug_assert!(METRICS.iter().any(|(name, ..)| *name == metric), "{metric}");
        let samples = self.0.entry(metric).or_default();
        let sum = samples.entry(labels.clone()).or_default();
        *sum = sum.saturating_add(count);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, kind, help) in METRICS {
            let Some(samples) = self.0.get(name) else {
                continue;
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, count) in samples {
                let labels: Vec<_> = labels
                    .iter()
                    .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                    .collect();
                let _ = writeln!(text, "{name}{{{}}} {count}", labels.join(","));
            }
        }
        text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

/// These labels and one more.
fn with(labels: &Labels, label: &'static str, value: impl ToString) -> Labels {
    let more = [(label, value.to_string())];
    labels.iter().cloned().chain(more).collect()
}

/// The text of one scrape.
pub(super) fn render(found: &Found) -> String {
    let mut samples = Samples::default();
    for process in &found.processes {
        let own = vec![
            ("pid", process.pid.to_string()),
            ("program", process.command.to_string()),
        ];
        add_process(&mut samples, &own, process);
        add_streams(&mut samples, &own, process);
    }
    for silent in &found.silent {
        let labels = vec![("pid", silent.pid.to_string())];
        samples.add("sdp_process_silent", &labels, 1);
    }
    samples.text()
}

/// What belongs to a process as a whole.
fn add_process(samples: &mut Samples, own: &Labels, process: &Process) {
    let report = &process.report;
    let labels = with(own, "version", &report.version);
    samples.add("sdp_process_info", &labels, 1);
    if let Some(memory) = report.memory {
        samples.add("sdp_memory_used_bytes", own, memory.used);
        samples.add("sdp_memory_max_bytes", own, memory.max);
        samples.add("sdp_memory_refused_total", own, memory.refused);
    }
    for (library, numbers) in &report.counters {
        for (event, count) in &numbers.0 {
            let labels = with(&with(own, "library", library), "event", event);
            samples.add("sdp_events_total", &labels, *count);
        }
    }
    for listener in &report.listeners {
        let local = listener
            .local
            .map_or_else(String::new, |addr| addr.to_string());
        let labels = with(own, "local", local);
        samples.add("sdp_listener_queued", &labels, listener.queued);
        samples.add("sdp_listener_accepted_total", &labels, listener.accepted);
    }
}

/// What its connections do and did, by provider and device.
fn add_streams(samples: &mut Samples, own: &Labels, process: &Process) {
    let report = &process.report;
    let place = |provider: &Name, device: Option<&Name>| {
        let device = device.map_or_else(String::new, Name::to_string);
        with(&with(own, "provider", provider), "device", device)
    };
    // Without the counters of a connection that was busy sums would go back: then there are none.
    let busy = report.connections.iter().filter(|it| it.is_busy());
    let busy: BTreeSet<_> = busy.map(|it| (&it.provider, &it.device)).collect();
    for context in &report.contexts {
        if !busy.contains(&(&context.provider, &context.device)) {
            let labels = place(&context.provider, context.device.as_ref());
            let ended = context.connections_ended;
            samples.add("sdp_connections_ended_total", &labels, ended);
            add_counts(samples, &labels, &context.ended);
        }
    }
    for connection in &report.connections {
        let labels = place(&connection.provider, connection.device.as_ref());
        let state = with(&labels, "state", &connection.state);
        samples.add("sdp_connections", &state, 1);
        if !busy.contains(&(&connection.provider, &connection.device)) {
            samples.add("sdp_unsent_bytes", &labels, connection.unsent);
            samples.add("sdp_unread_bytes", &labels, connection.unread);
            add_counts(samples, &labels, &connection.counts);
        }
    }
}

fn add_counts(samples: &mut Samples, labels: &Labels, counts: &Counts) {
    let ways = [
        ("copied", counts.tx_bytes_bcopy),
        ("inline", counts.tx_bytes_inline),
        (
            "read",
            counts
                .tx_bytes_zcopy
                .saturating_sub(counts.tx_bytes_written),
        ),
        ("written", counts.tx_bytes_written),
    ];
    for (way, count) in ways {
        samples.add("sdp_sent_bytes_total", &with(labels, "way", way), count);
    }
    let ways = [
        ("copied", counts.rx_bytes_bcopy),
        ("inline", counts.rx_bytes_inline),
        (
            "read",
            counts
                .rx_bytes_zcopy
                .saturating_sub(counts.rx_bytes_written),
        ),
        ("written", counts.rx_bytes_written),
        ("read_ahead", counts.rx_bytes_read_ahead),
    ];
    for (way, count) in ways {
        samples.add("sdp_received_bytes_total", &with(labels, "way", way), count);
    }
    for (reason, copies) in &counts.copy_reasons {
        let labels = with(labels, "reason", reason);
        samples.add("sdp_copied_bytes_total", &labels, copies.bytes);
        samples.add("sdp_copied_transfers_total", &labels, copies.transfers);
    }
    for (kind, messages) in &counts.messages {
        let labels = with(labels, "kind", kind);
        samples.add("sdp_messages_sent_total", &labels, messages.sent);
        samples.add("sdp_messages_received_total", &labels, messages.received);
    }
    samples.add("sdp_credit_stalls_total", labels, counts.credit_stalls);
    samples.add("sdp_memory_scarce_total", labels, counts.memory_scarce);
    samples.add(
        "sdp_connection_memory_refused_total",
        labels,
        counts.memory_refused,
    );
    samples.add("sdp_probes_total", labels, counts.probes);
}

#[cfg(test)]
mod tests {
    use super::super::model::Report;
    use super::super::model::tests::sample;
    use super::*;

    /// One line of the format: a comment, or a name, labels in quotes and a number.
    fn is_sound(line: &str) -> bool {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.split(' ');
            return match words.next() {
                Some("HELP") => words.count() > 1,
                Some("TYPE") => matches!(words.nth(1), Some("counter" | "gauge")),
                _ => false,
            };
        }
        let Some((name, rest)) = line.split_once('{') else {
            return false;
        };
        let Some((labels, count)) = rest.rsplit_once("} ") else {
            return false;
        };
        let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let labels_sound = labels.split("\",").all(|label| {
            let parts = label.split_once("=\"");
            parts.is_some_and(|(name, value)| is_name(name) && !value.contains('\n'))
        });
        is_name(name) && labels_sound && count.parse::<u64>().is_ok()
    }

    #[test]
    fn every_line_is_sound_and_live_and_ended_connections_are_added() {
        let report = Report::read(&sample().to_string()).unwrap();
        let process = Process {
            pid: 42,
            uid: 0,
            command: Name::of("a\"b\\c"),
            report,
        };
        let mut found = Found {
            processes: vec![process],
            silent: Vec::new(),
        };
        let text = render(&found);
        for line in text.lines() {
            assert!(is_sound(line), "{line}");
        }
        let own = "pid=\"42\",program=\"a\\\"b\\\\c\"";
        for line in [
            format!(
                "sdp_sent_bytes_total{{{own},provider=\"host\",device=\"\",way=\"read\"}} 2097152"
            ),
            format!(
                "sdp_copied_bytes_total{{{own},provider=\"host\",device=\"\",reason=\"tail\"}} 200"
            ),
            format!("sdp_connections{{{own},provider=\"host\",device=\"\",state=\"open\"}} 1"),
            format!("sdp_events_total{{{own},library=\"preload\",event=\"tcp_refused\"}} 3"),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        let mut busy = sample();
        busy["connections"][0]["state"] = "busy".into();
        let report = Report::read(&busy.to_string()).unwrap();
        found.processes[0].report = report;
        assert!(!render(&found).contains("sdp_sent_bytes_total"));
        let types = text.lines().filter(|line| line.starts_with("# TYPE"));
        let names: Vec<_> = types.map(|line| line.split(' ').nth(2)).collect();
        let mut once = names.clone();
        once.dedup();
        assert_eq!(once, names);
    }
}
