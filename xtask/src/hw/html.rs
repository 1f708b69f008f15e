//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;

use super::chart::{Chart, Line};
use super::perf::PEERS;
use crate::report::Report;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:80em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.2em .6em;\
text-align:left}td.n{text-align:right}.ok{color:#187a18}.bad{color:#b00020;font-weight:bold}\
svg{max-width:100%;height:auto}";

/// The page.
///
/// # Errors
/// When a chart cannot be drawn.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut page = String::new();
    let verdict = if report.passed() { "passed" } else { "FAILED" };
    write!(
        page,
        "<!doctype html><meta charset=utf-8><title>hw-test {verdict}</title>\
         <style>{STYLE}</style><h1>hw-test {verdict}</h1><p>{} &middot; device {} &middot; kernel \
         {} &middot; {} processors &middot; commit {} &middot; {:.0} s</p>",
        escaped(&report.started),
        escaped(report.machine.device.as_deref().unwrap_or("none")),
        escaped(&report.machine.kernel),
        report.machine.cpus,
        escaped(report.commit.as_deref().unwrap_or("unknown")),
        report.seconds
    )
    .context("cannot write to a string")?;
    checks(&mut page, report)?;
    for chart in charts(&report.results) {
        if let Some(svg) = chart.svg()? {
            page.push_str(&svg);
        }
    }
    figures(&mut page, &report.results)?;
    Ok(page)
}

fn checks(page: &mut String, report: &Report) -> anyhow::Result<()> {
    page.push_str("<h2>Checks</h2><table><tr><th><th>check<th>value<th>limit<th>what it says");
    for check in &report.checks {
        let (class, word) = if check.ok {
            ("ok", "ok")
        } else {
            ("bad", "FAIL")
        };
        write!(
            page,
            "<tr><td class={class}>{word}<td>{}<td class=n>{}<td class=n>{}<td>{}",
            escaped(&check.name),
            number(check.value),
            number(check.limit),
            escaped(&check.detail)
        )
        .context("cannot write to a string")?;
    }
    for skipped in &report.skipped {
        write!(
            page,
            "<tr><td>skipped<td>{}<td><td><td>{}",
            escaped(&skipped.name),
            escaped(&skipped.reason)
        )
        .context("cannot write to a string")?;
    }
    page.push_str("</table>");
    Ok(())
}

fn figures(page: &mut String, results: &[Value]) -> anyhow::Result<()> {
    page.push_str(
        "<h2>Figures</h2><table><tr><th>workload<th>peer<th>message<th>connections<th>GB/s\
         <th>CPU s/GB<th>&micro;s p50<th>p99",
    );
    for result in results {
        let Some(workload) = result["workload"].as_str() else {
            continue;
        };
        let figure = |name: &str| number(result[name]["median"].as_f64());
        write!(
            page,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td \
             class=n>{}<td class=n>{}",
            escaped(workload),
            escaped(&peer(result)),
            result["size"],
            result["conns"],
            figure("gb_per_s"),
            figure("cpu_s_per_gb"),
            figure("us_p50"),
            figure("us_p99")
        )
        .context("cannot write to a string")?;
    }
    page.push_str("</table>");
    Ok(())
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

/// The charts, in the order and layout of the paper that the project follows: throughput and
/// processor time over the message, for one and for many connections; throughput over the number
/// of connections; latency.
fn charts(results: &[Value]) -> Vec<Chart> {
    // Of the matrix: perftest has a size of its own.
    let counts = |name: &str| {
        let values = results
            .iter()
            .filter(|r| r["workload"] == "bw" && r["peer"] != "perftest");
        values.filter_map(|r| r[name].as_u64()).max().unwrap_or(0)
    };
    let (many, largest) = (counts("conns"), counts("size"));
    let mut charts = Vec::new();
    let mut over_size =
        |workload: &str, conns: u64, figure: &str, title: String, y: &'static str| {
            let fits = |r: &Value| r["workload"] == workload && r["conns"] == conns;
            charts.push(Chart {
                title,
                x: "bytes of a message",
                y,
                bytes: true,
                lines: lines(results, "size", figure, fits),
            });
        };
    let mut counts = vec![1, many];
    counts.dedup();
    for conns in counts {
        let suffix = format!("{conns} connection{}", if conns == 1 { "" } else { "s" });
        over_size(
            "bw",
            conns,
            "gb_per_s",
            format!("Throughput, {suffix}"),
            "GB/s",
        );
        let title = format!("Processor time of both sides, {suffix}");
        over_size("bw", conns, "cpu_s_per_gb", title, "s/GB");
    }
    over_size(
        "lat",
        1,
        "us_p50",
        "Latency one way, median".to_owned(),
        "µs",
    );
    over_size(
        "lat",
        1,
        "us_p99",
        "Latency one way, 99 of 100".to_owned(),
        "µs",
    );
    charts.push(Chart {
        title: format!(
            "Throughput, messages of {}",
            super::chart::size(largest as f64)
        ),
        x: "connections",
        y: "GB/s",
        bytes: false,
        lines: lines(results, "conns", "gb_per_s", |r| {
            r["workload"] == "bw" && r["size"] == largest
        }),
    });
    charts
}

/// One line per peer: `figure` over `x` of the results that fit.
fn lines(results: &[Value], x: &str, figure: &str, fits: impl Fn(&Value) -> bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for name in PEERS {
        let mut points: Vec<(f64, f64)> = results
            .iter()
            .filter(|result| fits(result) && peer(result) == name)
            .filter_map(|result| Some((result[x].as_f64()?, result[figure]["median"].as_f64()?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !points.is_empty() {
            lines.push(Line {
                name: name.to_owned(),
                points,
            });
        }
    }
    lines
}

/// `sdp zcopy`, `tcp`, `perftest read`.
fn peer(result: &Value) -> String {
    let name = result["peer"].as_str().unwrap_or("?");
    result["mode"]
        .as_str()
        .map_or_else(|| name.to_owned(), |mode| format!("{name} {mode}"))
}

/// Text that is no markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::report::{Check, Started};

    fn result(mode: &str, size: u64, conns: u64, value: f64) -> Value {
        json!({ "workload": "bw", "peer": "sdp", "mode": mode, "size": size, "conns": conns,
            "gb_per_s": { "median": value }, "cpu_s_per_gb": { "median": 1.0 } })
    }

    #[test]
    fn the_page_has_checks_figures_and_charts_and_no_foreign_markup() {
        let mut report = Started::now()
            .report("hw-test", Path::new("."), Some("rdma"))
            .unwrap();
        report.checks.push(Check {
            name: "device".to_owned(),
            ok: false,
            value: None,
            limit: None,
            unit: String::new(),
            detail: "load <driver>".to_owned(),
        });
        report.results = vec![
            result("zcopy", 1024, 1, 1.5),
            result("zcopy", 2048, 1, 2.5),
            result("zcopy", 2048, 16, 3.5),
        ];
        let page = page(&report).unwrap();
        for part in [
            "FAILED",
            "load &lt;driver&gt;",
            "<svg",
            "sdp zcopy",
            "3.500",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<driver>"));
    }

    #[test]
    fn perftest_with_larger_messages_takes_no_chart_away() {
        let mut results = vec![
            result("zcopy", 1024, 1, 1.5),
            result("zcopy", 2048, 1, 2.5),
            result("zcopy", 2048, 16, 3.5),
        ];
        let drawn = |results: &[Value]| {
            let charts = charts(results);
            let drawn = charts.iter().filter(|c| c.svg().unwrap().is_some());
            drawn.map(|chart| chart.title.clone()).collect::<Vec<_>>()
        };
        let without = drawn(&results);
        let mut reference = result("read", 1 << 20, 1, 9.0);
        reference["peer"] = "perftest".into();
        results.push(reference);
        assert!(without.contains(&"Throughput, messages of 2K".to_owned()));
        assert_eq!(drawn(&results), without);
    }

    #[test]
    fn a_line_is_in_ascending_order_and_of_one_peer() {
        let results = [
            result("zcopy", 2048, 1, 2.0),
            result("zcopy", 1024, 1, 1.0),
            result("bcopy", 1024, 1, 9.0),
        ];
        let lines = lines(&results, "size", "gb_per_s", |_| true);
        assert_eq!(lines.len(), 2);
        let zcopy = lines.iter().find(|line| line.name == "sdp zcopy").unwrap();
        assert_eq!(zcopy.points, [(1024.0, 1.0), (2048.0, 2.0)]);
    }
}
