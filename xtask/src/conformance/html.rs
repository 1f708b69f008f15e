//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::Value;

use super::rules::RULES;
use crate::page::{self, escaped};
use crate::report::Report;

/// The page.
///
/// # Errors
/// None that can happen: it writes to a string.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut page = page::begin("conformance", report)?;
    page.push_str("<h2>Rules of difference</h2><table><tr><th>rule<th>why");
    for rule in RULES {
        write!(
            page,
            "<tr><td class=n>{}<td>{}",
            rule.number,
            escaped(rule.why)
        )
        .context("cannot write to a string")?;
    }
    page.push_str(
        "</table><h2>Calls</h2><table><tr><th>library<th>function<th>with<th>calls<th>verdict",
    );
    for result in &report.results {
        for topic in result["topics"].as_array().into_iter().flatten() {
            write!(
                page,
                "<tr><td>{}<td>{}<td>{}<td class=n>{}<td>{}",
                text(&result["library"]),
                text(&result["function"]),
                text(&topic["with"]),
                topic["calls"],
                verdict(topic)
            )
            .context("cannot write to a string")?;
        }
    }
    page.push_str("</table><h2>Verbs</h2><table><tr><th>mount<th>case<th>verdict<th>reason");
    for result in report.results.iter().filter(|it| it["mount"].is_string()) {
        write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}",
            text(&result["mount"]),
            text(&result["case"]),
            text(&result["verdict"]),
            text(&result["reason"])
        )
        .context("cannot write to a string")?;
    }
    page.push_str("</table>");
    Ok(page)
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

/// `same`, or `differs: rule 3, rule 7`.
fn verdict(topic: &Value) -> String {
    let rules = topic["rules"].as_array().into_iter().flatten();
    let rules: Vec<String> = rules.map(|rule| format!("rule {rule}")).collect();
    match (rules.is_empty(), topic["differing"].as_u64()) {
        (true, Some(0)) => "same".to_owned(),
        (true, _) => "<span class=bad>differs</span>".to_owned(),
        _ => format!("differs: {}", rules.join(", ")),
    }
}
