//! Reports as pages that need nothing else: what all of them have in common.

mod chart;

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;

pub(crate) use self::chart::{Chart, Line, size};
use crate::report::Report;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:80em;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.2em .6em;\
text-align:left}td.n{text-align:right}.ok{color:#187a18}.bad{color:#b00020;font-weight:bold}\
svg{max-width:100%;height:auto}";

/// The beginning of a page: what ran where, and what it promised.
///
/// # Errors
/// None that can happen: it writes to a string.
pub(crate) fn begin(command: &str, report: &Report) -> anyhow::Result<String> {
    let mut page = String::new();
    let verdict = if report.passed() { "passed" } else { "FAILED" };
    write!(
        page,
        "<!doctype html><meta charset=utf-8><title>{command} {verdict}</title>\
         <style>{STYLE}</style><h1>{command} {verdict}</h1><p>{} &middot; device {} &middot; kernel \
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

/// Puts the charts that have something to show on the page.
///
/// # Errors
/// When one cannot be drawn.
pub(crate) fn draw(page: &mut String, charts: &[Chart]) -> anyhow::Result<()> {
    for chart in charts {
        if let Some(svg) = chart.svg()? {
            page.push_str(&svg);
        }
    }
    Ok(())
}

/// One line for each of `names`: the median of `figure` over `x` of the results that fit and have
/// that name.
pub(crate) fn lines(
    results: &[Value],
    (x, figure): (&str, &str),
    names: &[&str],
    name_of: impl Fn(&Value) -> String,
    fits: impl Fn(&Value) -> bool,
) -> Vec<Line> {
    let mut lines = Vec::new();
    for name in names {
        let mut points: Vec<(f64, f64)> = results
            .iter()
            .filter(|result| fits(result) && name_of(result) == *name)
            .filter_map(|result| Some((result[x].as_f64()?, result[figure]["median"].as_f64()?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !points.is_empty() {
            lines.push(Line {
                name: (*name).to_owned(),
                points,
            });
        }
    }
    lines
}

/// A number of a table, or nothing.
pub(crate) fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

/// Text that is no markup.
pub(crate) fn escaped(text: &str) -> String {
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
