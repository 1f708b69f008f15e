//! A report for people.

use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::report::{Figure, Measured, Report, Results};

impl Results for Measured {
    /// Tables, then what the engines did.
    fn render(results: &[Self]) -> String {
        let mut text = String::new();
        for workload in ["bw", "lat"] {
            let results: Vec<_> = results
                .iter()
                .filter(|result| result.workload == workload)
                .collect();
            if !results.is_empty() {
                let table = results_table(workload, &results);
                push(&mut text, format_args!("{table}"));
            }
        }
        for result in results {
            push_counters(&mut text, result);
        }
        text
    }
}

/// The whole report as text: results, checks, what was skipped.
pub(crate) fn render<R: Results>(report: &Report<R>) -> String {
    let mut text = R::render(&report.results);
    for check in &report.checks {
        let verdict = if check.ok { "ok    " } else { "FAILED" };
        let value = check.value.map_or_else(String::new, |value| {
            let limit = check
                .limit
                .map_or_else(String::new, |limit| format!(", limit {limit}"));
            format!(" {value:.4} {}{limit}", check.unit)
        });
        let gap = if check.detail.is_empty() { "" } else { "  " };
        push(
            &mut text,
            format_args!("{verdict} {}{value}{gap}{}", check.name, check.detail),
        );
    }
    text + &skipped(report)
}

/// Only what failed and what was skipped.
pub(crate) fn complaints<R>(report: &Report<R>) -> String {
    let mut text = String::new();
    for check in report.checks.iter().filter(|check| !check.ok) {
        push(
            &mut text,
            format_args!("FAILED {} {}", check.name, check.detail),
        );
    }
    text + &skipped(report)
}

fn skipped<R>(report: &Report<R>) -> String {
    let mut text = String::new();
    for item in &report.skipped {
        push(
            &mut text,
            format_args!("SKIPPED {}: {}", item.name, item.reason),
        );
    }
    text
}

/// Appends a line.
fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn results_table(workload: &str, results: &[&Measured]) -> Table {
    let bulk = workload == "bw";
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let figures: &[&str] = if bulk {
        &["GB/s", "CPU s/GB", "x TCP", "spin µs"]
    } else {
        &["p50 µs", "p99 µs", "p99.9 µs", "x TCP", "spin µs"]
    };
    table.set_header(["workload", "peer", "wait"].iter().chain(figures));
    for result in results {
        let mut cells = vec![
            format!("{workload} {} x{}", size(result.size), result.conns),
            peer(result),
            result.wait.clone(),
        ];
        if bulk {
            cells.push(range(result.gb_per_s, 2));
            cells.push(middle(result.cpu_s_per_gb, 3));
        } else {
            cells.push(range(result.us_p50, 2));
            cells.push(middle(result.us_p99, 2));
            cells.push(middle(result.us_p999, 2));
        }
        cells.push(middle(result.ratio_to_tcp, 2));
        cells.push(middle(result.spin_us, 3));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn push_counters(text: &mut String, result: &Measured) {
    for (what, by_end) in [("engine", &result.engine), ("verbs", &result.verbs)] {
        for (end, counters) in by_end {
            let used: Vec<_> = counters
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            push(text, format_args!("{what}, {end}: {}", used.join(", ")));
        }
    }
}

/// `64 KiB`.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

/// `sdp auto heap`.
fn peer(result: &Measured) -> String {
    let mode = result.mode.as_deref().unwrap_or_default();
    match result.peer {
        "sdp" => format!("sdp {mode} {}", result.buffers),
        "floor" => format!("floor {}", mode.replace('_', " ")),
        other => other.to_owned(),
    }
}

fn middle(figure: Option<Figure>, digits: usize) -> String {
    figure.map_or_else(String::new, |figure| format!("{:.digits$}", figure.median))
}

fn range(figure: Option<Figure>, digits: usize) -> String {
    figure.map_or_else(String::new, |figure| {
        if figure.rounds == 1 {
            return format!("{:.digits$}", figure.median);
        }
        let Figure {
            median, min, max, ..
        } = figure;
        format!("{median:.digits$} [{min:.digits$}–{max:.digits$}]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Check, Skipped, Started};

    #[test]
    fn the_table_shows_results_checks_and_loudly_what_was_skipped() {
        let mut report = Started::now().report("perf", None).unwrap();
        report.results.push(Measured {
            workload: "bw",
            peer: "sdp",
            mode: Some("auto".to_owned()),
            buffers: "heap".to_owned(),
            size: 65_536,
            conns: 8,
            gb_per_s: Figure::of(&[1.0, 2.0, 6.0]),
            ..Measured::default()
        });
        report.checks.push(Check::plain("broken", false, "because"));
        report.skipped.push(Skipped {
            name: "ucx".to_owned(),
            reason: "absent".to_owned(),
        });
        let text = render(&report);
        for part in [
            "bw 64 KiB x8",
            "sdp auto heap",
            "2.00 [1.00–6.00]",
            "FAILED broken  because",
            "SKIPPED ucx: absent",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(complaints(&report).contains("FAILED broken because"));
    }
}
