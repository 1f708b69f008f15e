//! Results as a table: workloads down, peers across.

use comfy_table::presets::UTF8_FULL;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

/// One row: workload, size in bytes, connections.
type Row = (String, u64, u64);

/// Renders results as a table with medians. Each cell has the rate and the processor time per
/// gigabyte, or the time and that of the slowest of a hundred, and the ratio to TCP in the same row. `peer` names the column of a result; that of
/// TCP is `TCP`.
pub(crate) fn render(results: &[&Value], peer: impl Fn(&Value) -> String) -> String {
    let mut rows: Vec<Row> = Vec::new();
    let mut peers: Vec<String> = Vec::new();
    for result in results {
        let (row, column) = (row(result), peer(result));
        if !rows.contains(&row) {
            rows.push(row);
        }
        if !peers.contains(&column) {
            peers.push(column);
        }
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL);
    let mut header = vec!["median".to_owned()];
    header.extend(peers.iter().map(|name| name.replacen(' ', "\n", 1)));
    table.set_header(header);
    for wanted in &rows {
        let find = |peer_name: &str| {
            results
                .iter()
                .find(|result| row(result) == *wanted && peer(result) == peer_name)
                .copied()
        };
        let tcp = find("TCP");
        let mut cells = vec![title(wanted)];
        cells.extend(
            peers
                .iter()
                .map(|name| find(name).map_or_else(|| "-".to_owned(), |result| cell(result, tcp))),
        );
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// What makes results comparable.
fn row(result: &Value) -> Row {
    let text = result["workload"].as_str().unwrap_or("?").to_owned();
    let number = |field: &str| result[field].as_u64().unwrap_or(0);
    (text, number("size"), number("conns"))
}

/// `bw 1 MiB x8`.
fn title((workload, bytes, conns): &Row) -> String {
    format!("{workload} {}\n{conns} conn", size(*bytes))
}

/// `1 MiB`, `64 B`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        s if s % (1 << 20) == 0 && s > 0 => format!("{} MiB", s >> 20),
        s if s % (1 << 10) == 0 && s > 0 => format!("{} KiB", s >> 10),
        s => format!("{s} B"),
    }
}

/// Three lines: figure, cost or the slowest of a hundred, ratio; a line is empty where there is nothing to
/// say.
fn cell(result: &Value, tcp: Option<&Value>) -> String {
    let is_time = median(result, "gb_per_s").is_none();
    let field = if is_time { "us_p50" } else { "gb_per_s" };
    let figure = match median(result, field) {
        Some(value) if is_time => format!("{value:.2} µs"),
        Some(value) => format!("{value:.2} GB/s"),
        None => "?".to_owned(),
    };
    let cost = if is_time {
        median(result, "us_p99").map(|value| format!("p99 {value:.2}"))
    } else {
        median(result, "cpu_s_per_gb").map(|value| format!("{value:.3} s/GB"))
    };
    let cost = cost.unwrap_or_default();
    format!("{figure}\n{cost}\n{}", ratio(result, tcp, field))
}

/// The median of the ratios of each round, where the comparison gives it; else the ratio of the
/// medians, marked with `~`.
fn ratio(result: &Value, tcp: Option<&Value>, field: &str) -> String {
    if result["peer"] == "tcp" {
        return String::new();
    }
    if let Some(value) = median(result, "ratio_to_tcp") {
        return format!("{value:.2} x TCP");
    }
    let base = tcp
        .and_then(|tcp| median(tcp, field))
        .filter(|base| *base > 0.0);
    match (median(result, field), base) {
        (Some(value), Some(base)) => format!("~{:.2} x TCP", value / base),
        _ => String::new(),
    }
}

/// The median of a figure.
fn median(result: &Value, field: &str) -> Option<f64> {
    let figure = &result[field];
    figure["median"].as_f64().or_else(|| figure.as_f64())
}

/// A report as `sdp perf compare` writes it, shortened.
#[cfg(test)]
pub(crate) const SAMPLE: &str = r#"{
  "schema": "sdp.perf.compare/1", "version": "0.1.0", "commit": null,
  "started": "2026-01-01T00:00:00Z", "seconds": 40.0,
  "machine": { "cpus": 2, "kernel": "6.1.0", "provider": "host", "device": null },
  "results": [
    { "workload": "bw", "peer": "tcp", "provider": "host", "mode": "auto", "buffers": "heap",
      "size": 1048576, "conns": 8, "gb_per_s": { "median": 2.0, "min": 1, "max": 3, "rounds": 5 },
      "cpu_s_per_gb": { "median": 0.9, "min": 1, "max": 1, "rounds": 5 } },
    { "workload": "bw", "peer": "sdp", "provider": "host", "mode": "auto", "buffers": "registered",
      "size": 1048576, "conns": 8, "gb_per_s": { "median": 8.0, "min": 7, "max": 9, "rounds": 5 },
      "ratio_to_tcp": { "median": 4.1, "min": 3, "max": 5, "rounds": 5 } },
    { "workload": "lat", "peer": "tcp", "size": 64, "conns": 1,
      "us_p50": { "median": 10.0, "min": 9, "max": 11, "rounds": 5 } },
    { "workload": "lat", "peer": "sdp", "mode": "bcopy", "buffers": "heap", "size": 64, "conns": 1,
      "us_p50": { "median": 2.5, "min": 2, "max": 3, "rounds": 5 },
      "us_p99": { "median": 7.5, "min": 2, "max": 8, "rounds": 5 } }
  ],
  "checks": [ { "name": "bw.1MiB.x8.sdp_best_vs_tcp", "ok": true, "value": 4.1, "limit": 2.5,
    "unit": "ratio", "detail": "" } ],
  "skipped": [ { "name": "ucx", "reason": "not installed" } ]
}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered() -> String {
        let report: Value = serde_json::from_str(SAMPLE).unwrap();
        let results: Vec<_> = report["results"].as_array().unwrap().iter().collect();
        render(&results, column)
    }

    fn column(result: &Value) -> String {
        let name = result["peer"].as_str().unwrap_or("?");
        if name == "tcp" { "TCP" } else { name }.to_owned()
    }

    #[test]
    fn every_row_and_peer_is_there_with_its_figures() {
        let text = rendered();
        for part in ["TCP", "sdp", "bw 1 MiB", "8 conn", "lat 64 B"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        for part in ["8.00 GB/s", "0.900 s/GB", "2.50 µs", "p99 7.50"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_ratio_of_rounds_is_preferred_and_one_of_medians_is_marked() {
        let text = rendered();
        assert!(
            text.contains("4.10 x TCP") && !text.contains("~4.00 x TCP"),
            "{text}"
        );
        assert!(text.contains("~0.25 x TCP"), "{text}");
    }

    #[test]
    fn a_result_without_figures_does_not_panic() {
        assert!(render(&[&serde_json::json!({})], column).contains('?'));
        assert!(render(&[], column).contains("median"));
    }
}
