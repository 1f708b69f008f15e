//! The figure as tables.

use std::fmt::Write as _;

use serde_json::Value;

use super::machine::Machine;
use super::streams::{Measured, Mode};
use super::{CONNS, SIZE};

/// Tables of every machine, and the checks.
///
/// # Errors
/// None that can happen: it writes to a string.
pub(super) fn text(measured: &[Measured], checks: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for machine in Machine::ALL {
        let own = || measured.iter().filter(|m| m.point.machine == machine);
        if own().next().is_none() {
            continue;
        }
        writeln!(text, "{}: {}", machine.name(), machine.what())?;
        let of_size: Vec<_> = own().filter(|m| m.point.conns == CONNS).collect();
        let title = format!("bytes, {CONNS} connections");
        table(&mut text, &title, &of_size, |m| m.point.size)?;
        let of_conns: Vec<_> = own().filter(|m| m.point.size == SIZE).collect();
        let title = format!("connections, {SIZE} bytes");
        table(&mut text, &title, &of_conns, |m| m.point.conns)?;
    }
    for check in checks {
        let word = if check["ok"] == true { "ok" } else { "FAIL" };
        let number = |name: &str| check[name].as_f64().unwrap_or(f64::NAN);
        writeln!(
            text,
            "{word:5} {:32} {:>8.2}   limit {:.2} {}   {}",
            check["name"].as_str().unwrap_or_default(),
            number("value"),
            number("limit"),
            check["unit"].as_str().unwrap_or_default(),
            check["detail"].as_str().unwrap_or_default()
        )?;
    }
    Ok(text)
}

/// A cell.
type Show = fn(&Measured) -> String;

/// One line for each value of `row`.
fn table(
    text: &mut String,
    title: &str,
    measured: &[&Measured],
    row: impl Fn(&Measured) -> usize,
) -> anyhow::Result<()> {
    let mut rows: Vec<usize> = measured.iter().map(|m| row(m)).collect();
    rows.sort_unstable();
    rows.dedup();
    writeln!(
        text,
        "{title:>28}   {:^26}   {:^24}   {:^35}",
        "MB/s", "CPU s/GB, both sides", "% of a processor, sender/receiver"
    )?;
    write!(text, "{:28}", "")?;
    for width in [8, 8, 12] {
        write!(text, "  ")?;
        for mode in Mode::ALL {
            write!(text, " {:>width$}", mode.name())?;
        }
    }
    text.push('\n');
    for value in rows {
        let of = |mode: Mode| {
            let fits = |m: &&&Measured| row(m) == value && m.point.mode == mode;
            measured.iter().find(fits)
        };
        write!(text, "{value:>28}")?;
        let columns: [(usize, Show); 3] = [
            (8, |m| format!("{:.0}", m.mb_per_s())),
            (8, |m| format!("{:.3}", m.cpu_s_per_gb())),
            (12, |m| {
                format!("{:.0}/{:.0}", m.cpu_percent(0), m.cpu_percent(1))
            }),
        ];
        for (width, show) in columns {
            write!(text, "  ")?;
            for mode in Mode::ALL {
                let cell = of(mode).map_or_else(|| "-".to_owned(), |m| show(m));
                write!(text, " {cell:>width$}")?;
            }
        }
        text.push('\n');
    }
    text.push('\n');
    Ok(())
}
