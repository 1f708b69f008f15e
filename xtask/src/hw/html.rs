//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;

use super::perf::PEERS;
use crate::page::{self, Chart, Line, escaped, number};
use crate::report::Report;

/// The page.
///
/// # Errors
/// When a chart cannot be drawn.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut page = page::begin("hw-test", report)?;
    page::draw(&mut page, &charts(&report.results))?;
    figures(&mut page, &report.results)?;
    Ok(page)
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
        title: format!("Throughput, messages of {}", page::size(largest as f64)),
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
    page::lines(results, (x, figure), &PEERS, peer, fits)
}

/// `sdp zcopy`, `tcp`, `perftest read`.
fn peer(result: &Value) -> String {
    let name = result["peer"].as_str().unwrap_or("?");
    result["mode"]
        .as_str()
        .map_or_else(|| name.to_owned(), |mode| format!("{name} {mode}"))
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
