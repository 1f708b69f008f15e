//! The figure as a page of charts, in the layout of the paper: over the size of messages with eight
//! connections, and over the number of connections.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;

use crate::page::{self, Chart, Line, escaped, number};
use crate::report::Report;

/// How bytes went, in the order of the legends.
const MODES: [&str; 4] = ["read", "bcopy", "zcopy", "auto"];
/// Connections of the charts over size.
const CONNS: u64 = 8;
/// The paper's own machine, and its two points: mode, connections, GB/s.
const PAPER_MACHINE: &str = "ddr2005";
const PAPER: [(&str, f64, f64); 2] = [
    ("the paper, zcopy", 8.0, 1.36),
    ("the paper, bcopy", 8.0, 0.63),
];

/// The page.
///
/// # Errors
/// When a chart cannot be drawn.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut page = page::begin("paper", report)?;
    page.push_str(
        "<p>Whole stacks on simulated machines, in virtual time. What a real fabric does is another \
         matter: these figures show what the protocol engine makes of given costs.</p>",
    );
    for machine in machines(&report.results) {
        write!(page, "<h2>{}</h2>", escaped(machine)).context("cannot write to a string")?;
        page::draw(&mut page, &charts(&report.results, machine))?;
    }
    figures(&mut page, &report.results)?;
    Ok(page)
}

/// In the order of the report.
fn machines(results: &[Value]) -> Vec<&str> {
    let mut machines: Vec<&str> = Vec::new();
    for name in results.iter().filter_map(|r| r["machine"].as_str()) {
        if !machines.contains(&name) {
            machines.push(name);
        }
    }
    machines
}

fn mode(result: &Value) -> String {
    result["mode"].as_str().unwrap_or("?").to_owned()
}

fn charts(results: &[Value], machine: &str) -> Vec<Chart> {
    let own = |r: &Value| r["machine"] == machine;
    let sizes = results.iter().filter(|r| own(r));
    let largest = sizes.filter_map(|r| r["size"].as_u64()).max().unwrap_or(0);
    let over_size = |figure: &str| {
        let fits = |r: &Value| own(r) && r["conns"] == CONNS;
        page::lines(results, ("size", figure), &MODES, mode, fits)
    };
    let over_conns = |figure: &str| {
        let fits = |r: &Value| own(r) && r["size"] == largest;
        page::lines(results, ("conns", figure), &MODES, mode, fits)
    };
    let (bytes, conns) = ("bytes of a message", "connections");
    let of_conns = format!("{CONNS} connections");
    let of_size = format!("messages of {}", page::size(largest as f64));
    let chart = |what: &str, of: &str, x: &'static str, y: &'static str, lines: Vec<Line>| Chart {
        title: format!("{what}, {of}"),
        x,
        y,
        bytes: x == bytes,
        lines,
    };
    let mut throughput = over_conns("gb_per_s");
    if machine == PAPER_MACHINE {
        throughput.extend(PAPER.map(|(name, conns, gb_per_s)| Line {
            name: name.to_owned(),
            points: vec![(conns, gb_per_s)],
        }));
    }
    let (use_of, time) = (
        "Processor use of both sides",
        "Processor time of both sides",
    );
    let percent = "% of one processor";
    vec![
        chart(
            "Throughput",
            &of_conns,
            bytes,
            "GB/s",
            over_size("gb_per_s"),
        ),
        chart(use_of, &of_conns, bytes, percent, over_size("cpu_percent")),
        chart(time, &of_conns, bytes, "s/GB", over_size("cpu_s_per_gb")),
        chart("Throughput", &of_size, conns, "GB/s", throughput),
        chart(use_of, &of_size, conns, percent, over_conns("cpu_percent")),
    ]
}

fn figures(page: &mut String, results: &[Value]) -> anyhow::Result<()> {
    page.push_str(
        "<h2>Figures</h2><table><tr><th>machine<th>mode<th>message<th>connections<th>GB/s\
         <th>CPU s/GB<th>% sender<th>% receiver<th>bytes read<th>bytes written<th>verified",
    );
    for result in results {
        let figure = |name: &str| number(result[name]["median"].as_f64());
        write!(
            page,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td \
             class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td>{}",
            escaped(result["machine"].as_str().unwrap_or("?")),
            escaped(&mode(result)),
            result["size"],
            result["conns"],
            figure("gb_per_s"),
            figure("cpu_s_per_gb"),
            figure("cpu_percent_sender"),
            figure("cpu_percent_receiver"),
            result["bytes_read"],
            result["bytes_written"],
            result["verified"]
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

    fn result(mode: &str, size: u64, conns: u64, value: f64) -> Value {
        json!({ "workload": "bw", "machine": PAPER_MACHINE, "mode": mode, "size": size,
            "conns": conns, "gb_per_s": { "median": value }, "cpu_percent": { "median": 10.0 },
            "cpu_s_per_gb": { "median": 1.0 } })
    }

    #[test]
    fn the_page_has_charts_over_both_axes_and_the_papers_points() {
        let mut report = Started::now()
            .report("paper", Path::new("."), Some("sim"))
            .unwrap();
        report.results = vec![
            result("zcopy", 65_536, 8, 1.1),
            result("zcopy", 1_048_576, 8, 1.4),
            result("zcopy", 1_048_576, 1, 1.2),
        ];
        let charts = charts(&report.results, PAPER_MACHINE);
        let drawn = charts.iter().filter(|c| c.svg().unwrap().is_some()).count();
        assert_eq!(drawn, 5);
        let page = page(&report).unwrap();
        for part in ["the paper, zcopy", "messages of 1M", "1.400", "ddr2005"] {
            assert!(page.contains(part), "{part}");
        }
    }
}
