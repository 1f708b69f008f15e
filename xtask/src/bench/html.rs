//! The report as a page with charts.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;

use super::matrix::{Cell, Workload};
use super::peer::{BLOCKING, OTHERS, POLLED, SPINNING, WAITING, label};
use super::processors;
use crate::page::{self, Chart, Line, escaped, number};
use crate::report::Report;

/// Bytes of the longest message of the chart that shows short ones.
const SHORT: u64 = 16 << 10;

/// The page; `others` is the share of the processors that others used.
///
/// # Errors
/// When a chart cannot be drawn.
pub(super) fn page(report: &Report, cells: &[Cell], others: f64) -> anyhow::Result<String> {
    let mut page = page::begin("bench", report)?;
    write!(
        page,
        "<p><b>host: single copy, says nothing of a fabric.</b> Two processes of this machine; medians \
         of rounds in which all peers took turns. UCX always spins, sends messages from registered \
         memory, and is told of them without a system call. Here {}.</p>",
        escaped(&processors::remark(others))
    )
    .context("cannot write to a string")?;
    page::draw(&mut page, &charts(&report.results, cells))?;
    figures(&mut page, &report.results)?;
    Ok(page)
}

fn charts(results: &[Value], cells: &[Cell]) -> Vec<Chart> {
    let bulk = || cells.iter().filter(|cell| cell.workload == Workload::Bw);
    // Those with which every size was measured.
    let sizes = |conns: u32| bulk().filter(|cell| cell.conns == conns).count();
    let mut all: Vec<u32> = bulk().map(|cell| cell.conns).collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|conns| sizes(*conns) > 1);
    let blocking = || BLOCKING.iter().chain(&OTHERS).copied();
    let polled = || POLLED.iter().chain(&["SDP", "TCP"]).copied();
    let mut charts = Vec::new();
    for conns in all {
        let of = format!("{conns} connection{}", if conns == 1 { "" } else { "s" });
        let fits = |r: &Value| r["workload"] == "bw" && r["conns"] == conns;
        let over = |figure: &'static str, names: Vec<&str>| {
            page::lines(results, ("size", figure), &names, label, fits)
        };
        let (rate, cost) = ("gb_per_s", "cpu_s_per_gb");
        let chart = |title: String, y, lines| over_size(title, y, lines);
        charts.extend([
            chart(
                format!("Throughput, {of}"),
                "GB/s",
                over(rate, blocking().collect()),
            ),
            chart(
                format!("Processor time of both sides, {of}"),
                "s/GB",
                above_small(over(cost, blocking().collect())),
            ),
            chart(
                format!("Throughput of non-blocking calls, {of}"),
                "GB/s",
                over(rate, polled().collect()),
            ),
        ]);
    }
    charts.extend(over_conns(
        results,
        cells,
        "blocking",
        &blocking().collect::<Vec<_>>(),
    ));
    charts.extend(over_conns(
        results,
        cells,
        "non-blocking",
        &polled().collect::<Vec<_>>(),
    ));
    for (who, names) in [("", &WAITING[..]), (" of those who never sleep", &SPINNING)] {
        for (which, longest) in [("short messages", SHORT), ("all messages", u64::MAX)] {
            let fits = |r: &Value| {
                r["workload"] == "lat" && r["size"].as_u64().is_some_and(|size| size <= longest)
            };
            let lines = page::lines(results, ("size", "us_p50"), names, label, fits);
            let title = format!("Latency one way{who}, median, {which}");
            charts.push(over_size(title, "µs", lines));
        }
    }
    charts
}

fn over_size(title: String, y: &'static str, lines: Vec<Line>) -> Chart {
    Chart {
        title,
        x: "bytes of a message",
        y,
        bytes: true,
        lines,
    }
}

/// Without the points of short messages, beside whose costs all others would look like none.
fn above_small(mut lines: Vec<Line>) -> Vec<Line> {
    for line in &mut lines {
        line.points.retain(|(size, _)| *size >= 4096.0);
    }
    lines
}

/// Throughput over the number of connections, with the size that was measured with most of them.
fn over_conns(results: &[Value], cells: &[Cell], calls: &str, names: &[&str]) -> Option<Chart> {
    let bulk = || cells.iter().filter(|cell| cell.workload == Workload::Bw);
    let count = |size: u64| bulk().filter(|cell| cell.size == size).count();
    let size = bulk()
        .map(|cell| cell.size)
        .max_by_key(|size| count(*size))?;
    let fits = |r: &Value| r["workload"] == "bw" && r["size"] == size;
    Some(Chart {
        title: format!(
            "Throughput of {calls} calls, messages of {}",
            page::size(size as f64)
        ),
        x: "connections",
        y: "GB/s",
        bytes: false,
        lines: page::lines(results, ("conns", "gb_per_s"), names, label, fits),
    })
}

fn figures(page: &mut String, results: &[Value]) -> anyhow::Result<()> {
    page.push_str(
        "<h2>Figures</h2><table><tr><th>workload<th>peer<th>message<th>connections<th>GB/s\
         <th>least<th>most<th>CPU s/GB<th>&micro;s p50<th>p99<th>p99.9<th>per second<th>times \
         TCP<th>times UCX",
    );
    for result in results.iter().filter(|it| it["workload"] != "others") {
        let figure = |name: &str| number(result[name]["median"].as_f64());
        let count = |name: &str| {
            result[name]
                .as_u64()
                .map_or(String::new(), |it| it.to_string())
        };
        write!(
            page,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td \
             class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{:.0}<td \
             class=n>{}<td class=n>{}",
            escaped(result["workload"].as_str().unwrap_or("?")),
            escaped(&label(result)),
            count("size"),
            count("conns"),
            figure("gb_per_s"),
            number(result["gb_per_s"]["min"].as_f64()),
            number(result["gb_per_s"]["max"].as_f64()),
            figure("cpu_s_per_gb"),
            figure("us_p50"),
            figure("us_p99"),
            figure("us_p999"),
            result["per_s"]["median"].as_f64().unwrap_or(0.0),
            figure("ratio_to_tcp"),
            figure("ratio_to_ucx"),
        )
        .context("cannot write to a string")?;
    }
    page.push_str("</table>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::report::Started;

    fn bulk(peer: &str, size: u64, conns: u32, value: f64) -> (Cell, Value) {
        let cell = Cell {
            workload: Workload::Bw,
            size,
            conns,
        };
        let result = json!({ "workload": "bw", "peer": peer, "mode": "auto", "buffers": "heap",
            "wait": "sleep", "size": size, "conns": conns, "gb_per_s": { "median": value },
            "cpu_s_per_gb": { "median": 1.0 } });
        (cell, result)
    }

    #[test]
    fn the_page_says_what_it_cannot_say_and_has_charts_over_size_connections_and_for_latency() {
        let (mut cells, mut results): (Vec<_>, Vec<_>) = [
            bulk("tcp", 4096, 1, 1.5),
            bulk("tcp", 65_536, 1, 2.5),
            bulk("tcp", 65_536, 4, 3.5),
        ]
        .into_iter()
        .unzip();
        for size in [64, 65_536] {
            cells.push(Cell {
                workload: Workload::Lat,
                size,
                conns: 1,
            });
            results.push(
                json!({ "workload": "lat", "peer": "ucx", "mode": "tag", "wait": "spin",
                "size": size, "conns": 1, "us_p50": { "median": 0.5 } }),
            );
        }
        let charts = charts(&results, &cells);
        let drawn: Vec<_> = charts
            .iter()
            .filter(|chart| chart.svg().unwrap().is_some())
            .map(|chart| chart.title.as_str())
            .collect();
        assert_eq!(
            drawn,
            [
                "Throughput, 1 connection",
                "Processor time of both sides, 1 connection",
                "Throughput of non-blocking calls, 1 connection",
                "Throughput of blocking calls, messages of 64K",
                "Throughput of non-blocking calls, messages of 64K",
                "Latency one way of those who never sleep, median, all messages",
            ]
        );
        let mut report = Started::now()
            .report("bench", Path::new("."), Some("host"))
            .unwrap();
        report.results = results;
        let page = page(&report, &cells, 0.5).unwrap();
        for part in [
            "says nothing of a fabric",
            "NOT ALONE",
            "UCX tag",
            "3.500",
            "<svg",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
