//! Benchmarks of real programs: by SDP beside plain TCP.

use serde_json::json;

use super::cases::Case;
use super::found::{Bench, Found, Mode};
use crate::report::{Check, Report};
use crate::ui::Ui;

/// What two runs of a round said of one figure.
#[derive(Debug, Clone, PartialEq)]
struct Pair {
    name: String,
    unit: String,
    tcp: f64,
    sdp: f64,
}

/// Runs the rounds of one benchmark, TCP and SDP in turns, and reports medians; of their ratios, not
/// ratios of them.
///
/// # Errors
/// When a run cannot be started, or the output cannot be written.
pub(super) fn run(
    ui: &Ui,
    bench: &Bench<'_>,
    case: &Case,
    rounds: u8,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut pairs = Vec::new();
    let mut cpu = Vec::new();
    for round in 1..=rounds {
        let progress = ui.progress(&format!("{} round {round}", case.name))?;
        let one = |mode| bench.run(case.name, mode, &progress);
        // Whoever is first finds another machine: they take turns in that, too.
        let (tcp, sdp) = if round % 2 == 0 {
            let sdp = one(Mode::Sdp)?;
            (one(Mode::Tcp)?, sdp)
        } else {
            (one(Mode::Tcp)?, one(Mode::Sdp)?)
        };
        drop(progress);
        let failure = tcp.failure.as_ref().or(sdp.failure.as_ref());
        let ok = failure.is_none() && sdp.loopback < tcp.loopback;
        if !ok {
            let why = failure.map_or("its bytes went by TCP", |it| it);
            ui.line(&format!("FAIL  {} {why}", case.name))?;
        }
        report.checks.push(Check {
            name: format!("programs.{}.runs.{round}", case.name),
            ok,
            value: None,
            limit: None,
            unit: String::new(),
            detail: failure.cloned().unwrap_or_default(),
        });
        if ok {
            cpu.push((tcp.cpu_seconds, sdp.cpu_seconds));
            pairs.push(side_by_side(&tcp, &sdp));
        }
    }
    tell(ui, case, &pairs, &cpu, report)
}

/// The figures that both have.
fn side_by_side(tcp: &Found, sdp: &Found) -> Vec<Pair> {
    let of_tcp = tcp.facts.figures.iter();
    let both = of_tcp.filter_map(|(name, value, unit)| {
        let same = sdp.facts.figures.iter().find(|(other, ..)| other == name)?;
        Some(Pair {
            name: name.clone(),
            unit: unit.clone(),
            tcp: *value,
            sdp: same.1,
        })
    });
    both.collect()
}

fn tell(
    ui: &Ui,
    case: &Case,
    rounds: &[Vec<Pair>],
    cpu: &[(f64, f64)],
    report: &mut Report,
) -> anyhow::Result<()> {
    let Some(first) = rounds.first() else {
        return Ok(());
    };
    let mut figures = Vec::new();
    for pair in first {
        let same = |round: &Vec<Pair>| round.iter().find(|it| it.name == pair.name).cloned();
        let all: Vec<Pair> = rounds.iter().filter_map(same).collect();
        let of = |value: fn(&Pair) -> f64| median(all.iter().map(value).collect());
        let (tcp, sdp) = (of(|it| it.tcp), of(|it| it.sdp));
        let ratio = of(|it| it.sdp / it.tcp);
        ui.line(&format!(
            "{:16} {:24} {sdp:12.1} {:12} TCP {tcp:12.1}   {ratio:5.2} times",
            case.name, pair.name, pair.unit
        ))?;
        figures.push(
            json!({ "figure": pair.name, "unit": pair.unit, "tcp": tcp, "sdp": sdp,
            "ratio": ratio, "rounds": all.len() }),
        );
    }
    let seconds = |value: fn(&(f64, f64)) -> f64| median(cpu.iter().map(value).collect());
    let (tcp, sdp) = (seconds(|it| it.0), seconds(|it| it.1));
    ui.line(&format!(
        "{:16} {:24} {sdp:12.1} {:12} TCP {tcp:12.1}",
        case.name, "CPU of all processes", "s"
    ))?;
    report.results.push(
        json!({ "name": case.name, "figures": figures, "cpu_s_tcp": tcp,
        "cpu_s_sdp": sdp }),
    );
    Ok(())
}

/// The middle one; of an even number the lower of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::facts::Facts;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0]).to_bits(), 1.0_f64.to_bits());
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn only_figures_that_both_have_are_compared() {
        let found = |text: &str| Found {
            facts: Facts::parse(text).unwrap(),
            ..Found::default()
        };
        let tcp = found("figure a 1 x\nfigure b 2 x");
        let pairs = side_by_side(&tcp, &found("figure c 1 x\nfigure b 6 x"));
        assert_eq!(pairs.len(), 1);
        assert_eq!((&*pairs[0].name, pairs[0].sdp / pairs[0].tcp), ("b", 3.0));
    }
}
