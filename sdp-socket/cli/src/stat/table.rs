//! Reports as tables, as ss(8) has them.

use std::fmt::Write as _;

use super::find::Found;
use super::model::{Connection, Counts, Listener, Name};
use super::rates::Look;

/// The text of one look. With a look before it there are rates; `verbose` says how each connection's
/// bytes went, and why not otherwise.
pub(super) fn render(found: &Found, looks: Option<(&Look, &Look)>, verbose: bool) -> String {
    let mut text = String::new();
    for process in &found.processes {
        let report = &process.report;
        push(
            &mut text,
            format_args!(
                "{} pid {} uid {}: {} connections, {} ended, {} listeners{}",
                process.command,
                process.pid,
                process.uid,
                report.connections.len(),
                report
                    .contexts
                    .iter()
                    .map(|it| it.connections_ended)
                    .fold(0, u64::saturating_add),
                report.listeners.len(),
                extras(process),
            ),
        );
        let mut rows = Rows::default();
        let mut head: Vec<&str> = HEAD.to_vec();
        if looks.is_some() {
            head.extend(["Out/s", "In/s"]);
        }
        rows.add(head.into_iter().map(str::to_owned));
        for listener in &report.listeners {
            rows.add(listener_cells(listener));
        }
        for connection in &report.connections {
            let mut cells = cells(connection);
            if let Some((before, now)) = looks {
                let rates = now.rates(before, process.pid, connection);
                cells.extend(rates.map_or_else(
                    || [String::new(), String::new()],
                    |(out, into)| [rate(out), rate(into)],
                ));
            }
            let row = rows.add(cells);
            if verbose {
                rows.notes.push((row, notes(connection)));
            }
        }
        if !report.listeners.is_empty() || !report.connections.is_empty() {
            rows.write(&mut text);
        }
        if report.left_out > 0 {
            push(&mut text, format_args!("  and {} more", report.left_out));
        }
    }
    text
}

const HEAD: [&str; 10] = [
    "State", "Unread", "Unsent", "Local", "Peer", "Via", "Sent", "Received", "NoCopy", "Credits",
];

/// Memory, and what a library above this one has counted.
fn extras(process: &super::find::Process) -> String {
    let mut text = String::new();
    if let Some(memory) = process.report.memory {
        let (used, max) = (bytes(memory.used), bytes(memory.max));
        // Writing to a string cannot fail.
        let _ = write!(text, ", {used} of {max} private memory");
    }
    for (name, numbers) in &process.report.counters {
        let used = numbers.0.iter().filter(|(_, count)| **count > 0);
        let used: Vec<_> = used
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if !used.is_empty() {
            let _ = write!(text, "; {name}: {}", used.join(", "));
        }
    }
    text
}

fn listener_cells(listener: &Listener) -> Vec<String> {
    vec![
        "listen".to_owned(),
        listener.queued.saturating_add(listener.waiting).to_string(),
        listener.backlog.to_string(),
        address(listener.local),
        "*".to_owned(),
        listener.providers.to_string(),
        String::new(),
        format!("{} accepted", listener.accepted),
    ]
}

fn cells(connection: &Connection) -> Vec<String> {
    let Connection { counts, .. } = connection;
    let via = match &connection.device {
        Some(device) => format!("{}/{device}", connection.provider),
        None => connection.provider.to_string(),
    };
    vec![
        connection.state.to_string(),
        bytes(connection.unread),
        bytes(connection.unsent.saturating_add(counts.tx_bytes_queued)),
        address(connection.local),
        address(connection.peer),
        via,
        bytes(counts.sent()),
        bytes(counts.received()),
        share(counts),
        connection.credits.to_string(),
    ]
}

fn address(addr: Option<std::net::SocketAddr>) -> String {
    addr.map_or_else(|| "-".to_owned(), |addr| addr.to_string())
}

/// The part of all bytes, both ways, that was not copied.
fn share(counts: &Counts) -> String {
    let all = u128::from(counts.sent()) + u128::from(counts.received());
    let zcopy = u128::from(counts.tx_bytes_zcopy) + u128::from(counts.rx_bytes_zcopy);
    match (zcopy * 100).checked_div(all) {
        Some(percent) => format!("{percent}%"),
        None => "-".to_owned(),
    }
}

/// How the bytes of a connection went, line by line.
fn notes(connection: &Connection) -> Vec<String> {
    let counts = &connection.counts;
    let read = counts
        .tx_bytes_zcopy
        .saturating_sub(counts.tx_bytes_written);
    let mut lines = vec![
        format!(
            "sent: {} copied, {} inline, {} read by the peer, {} written to it",
            bytes(counts.tx_bytes_bcopy),
            bytes(counts.tx_bytes_inline),
            bytes(read),
            bytes(counts.tx_bytes_written),
        ),
        format!(
            "received: {} copied, {} inline, {} without a copy, {} read ahead",
            bytes(counts.rx_bytes_bcopy),
            bytes(counts.rx_bytes_inline),
            bytes(counts.rx_bytes_zcopy),
            bytes(counts.rx_bytes_read_ahead),
        ),
    ];
    let reasons = counts.copy_reasons.iter();
    let reasons: Vec<_> = reasons
        .map(|(reason, it)| format!("{reason} {} in {}", bytes(it.bytes), it.transfers))
        .collect();
    if !reasons.is_empty() {
        lines.push(format!("copied because: {}", reasons.join(", ")));
    }
    lines.push(format!(
        "adverts open {} (peer's {}), at most {}; receives posted {}; credit stalls {}; memory scarce {}, \
         refused {}; probes {}{}",
        connection.adverts_open,
        connection.peer_adverts_open,
        counts.tx_adverts_open_max,
        connection.posted,
        counts.credit_stalls,
        counts.memory_scarce,
        counts.memory_refused,
        counts.probes,
        if connection.in_call { "; a thread is in a call" } else { "" },
    ));
    for choice in &counts.choices {
        let cost = |cost: Option<u64>| cost.map_or_else(|| "?".to_owned(), |it| it.to_string());
        lines.push(format!(
            "{} memory from {}: {}, {} (ps/byte: copy {}, no copy {})",
            if choice.registered {
                "registered"
            } else {
                "ordinary"
            },
            bytes(choice.from),
            if choice.zcopy { "no copy" } else { "copy" },
            choice.why,
            cost(choice.copy_cost),
            cost(choice.zcopy_cost),
        ));
    }
    let messages = counts.messages.iter();
    let messages: Vec<_> = messages
        .map(|(kind, it)| format!("{kind} {}/{}", it.sent, it.received))
        .collect();
    if !messages.is_empty() {
        lines.push(format!("messages sent/received: {}", messages.join(", ")));
    }
    lines
}

/// Rows of cells in columns, with lines of notes below some of them.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Vec<String>>,
    notes: Vec<(usize, Vec<String>)>,
}

impl Rows {
    /// Adds a row; its number.
    fn add(&mut self, cells: impl IntoIterator<Item = String>) -> usize {
        self.rows.push(cells.into_iter().collect());
        self.rows.len() - 1
    }

    fn write(&self, text: &mut String) {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(row.len().max(widths.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut notes = self.notes.iter().peekable();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths);
            let line: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            push(text, format_args!("  {}", line.join("  ").trim_end()));
            if let Some((_, lines)) = notes.next_if(|(of, _)| *of == number) {
                for line in lines {
                    push(text, format_args!("      {line}"));
                }
            }
        }
    }
}

/// Appends a line.
fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Bytes for people: `1.5M`.
fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    rate(count as f64)
}

fn rate(count: f64) -> String {
    let mut value = count;
    for unit in ["", "K", "M", "G", "T", "P"] {
        if value < 1024.0 {
            return match unit {
                "" => format!("{value:.0}"),
                _ => format!("{value:.1}{unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.0}E")
}

/// What those that did not tell are complained of.
pub(super) fn complaints(found: &Found) -> String {
    let mut text = String::new();
    for silent in &found.silent {
        let line: &Name = &silent.reason;
        push(
            &mut text,
            format_args!("sdp stat: process {}: {line}", silent.pid),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::find::{Process, Silent};
    use super::super::model::Report;
    use super::super::model::tests::sample;
    use super::*;

    fn found() -> Found {
        let report = Report::read(&sample().to_string()).unwrap();
        let command = Name::of("demo");
        let process = Process {
            pid: 42,
            uid: 7,
            command,
            report,
        };
        let silent = Silent {
            pid: 43,
            reason: Name::of("why\nnot"),
        };
        Found {
            processes: vec![process],
            silent: vec![silent],
        }
    }

    #[test]
    fn the_table_has_every_socket_and_the_reasons_on_request() {
        let found = found();
        let text = render(&found, None, false);
        for part in [
            "demo pid 42 uid 7: 1 connections, 5 ended, 1 listeners",
            "preload: tcp_refused 3",
            "6 accepted",
            "127.0.0.1:40000",
            "1.0M",
            "99%",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("tail"), "{text}");
        let text = render(&found, None, true);
        for part in [
            "copied because: tail 100 in 2",
            "1.0M read by the peer",
            "Data 3/1",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(complaints(&found), "sdp stat: process 43: why?not\n");
    }

    /// Columns stand below each other whatever is in them.
    #[test]
    fn columns_are_aligned() {
        let text = render(&found(), None, false);
        let lines: Vec<_> = text.lines().skip(1).collect();
        let at = lines[0].find("Via").unwrap();
        for line in &lines {
            assert_eq!(line[at - 2..at].trim(), "", "{text}");
        }
    }

    #[test]
    fn sizes_are_short() {
        for (count, text) in [(0, "0"), (1023, "1023"), (1536, "1.5K"), (1 << 40, "1.0T")] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn rates_need_two_looks() {
        let mut found = found();
        let before = Look::at(&found.processes);
        found.processes[0].report.connections[0]
            .counts
            .tx_bytes_bcopy += 1 << 30;
        let now = Look::at(&found.processes);
        let text = render(&found, Some((&before, &now)), false);
        assert!(text.contains("Out/s") && text.contains('G'), "{text}");
    }
}
