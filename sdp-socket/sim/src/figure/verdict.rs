//! What the figure must show.

use serde_json::{Value, json};

use super::machine::Machine;
use super::streams::{Measured, Mode};
use super::{CONNS, SIZE};

/// What the paper says of eight connections, in MB/s.
const PAPER_BCOPY: f64 = 630.0;
const PAPER_ZCOPY: f64 = 1360.0;
/// By how much it says processor use falls.
const PAPER_CPU: f64 = 10.0;
/// How far below the paper's value ours may be. The simulation has no noise; this is for changes of
/// the stack that are worth it elsewhere.
const TOLERANCE: f64 = 0.05;
/// How far the fitted point may be from the paper's, in per cent.
const FIT_MAX: f64 = 5.0;
/// From this length on everything that is not to be copied is not.
const ZCOPY_SURE: usize = 64 << 10;
/// What may go with messages in spite of that: inline bytes, and what found no reader.
const SHARE_MIN: f64 = 0.99;
/// What zero copy gains at least with the adapter of half the rate.
const OLDER_MIN: f64 = 1.2;
/// The ways of zero copy: the paper's, and the one that the stack likes best.
const WITHOUT_COPIES: [Mode; 2] = [Mode::Read, Mode::Zcopy];
/// What more connections may cost of the throughput.
const GROWTH_MIN: f64 = 0.95;
/// What zero copy must reach of what link and bus can carry.
const LINK_MIN: f64 = 0.95;
/// What the stack's own choice must reach of the better way. Each connection chooses for itself, by
/// how it gets on: where the others fill the link, one that copies gets on as well as they do.
const AUTO_MIN: f64 = 0.85;

/// Collects checks, and what could not be checked.
#[derive(Default)]
struct Verdict {
    checks: Vec<Value>,
    skipped: Vec<Value>,
}

impl Verdict {
    fn check(
        &mut self,
        name: &str,
        ok: bool,
        (value, limit): (f64, f64),
        unit: &str,
        detail: &str,
    ) {
        self.checks.push(json!({
            "name": format!("paper.{name}"), "ok": ok, "value": value, "limit": limit,
            "unit": unit, "detail": detail,
        }));
    }

    /// `value` is at least `limit`; none: the points for it were not measured.
    fn at_least(&mut self, name: &str, value: Option<f64>, limit: f64, unit: &str, detail: &str) {
        match value {
            Some(value) => self.check(name, value >= limit, (value, limit), unit, detail),
            None => self.skipped.push(json!({
                "name": format!("paper.{name}"),
                "reason": "its points are not among those asked for (--short, --machine)",
            })),
        }
    }

    /// The same, at most.
    fn at_most(&mut self, name: &str, value: Option<f64>, limit: f64, unit: &str, detail: &str) {
        match value {
            Some(value) => self.check(name, value <= limit, (value, limit), unit, detail),
            None => self.at_least(name, None, limit, unit, detail),
        }
    }
}

/// The smallest of some numbers.
fn least(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.min_by(f64::total_cmp)
}

/// Judges all points. `repeats`: so many of so many points were the same when measured once more.
pub(super) fn judge(measured: &[Measured], repeats: (usize, usize)) -> (Vec<Value>, Vec<Value>) {
    let mut verdict = Verdict::default();
    the_paper(&mut verdict, measured);
    the_older_adapter(&mut verdict, measured);
    all_machines(&mut verdict, measured);
    let wrong: u64 = measured.iter().map(|m| m.wrong).sum();
    let total: u64 = measured.iter().map(|m| m.total).sum();
    let detail = format!("{total} bytes compared");
    verdict.at_most(
        "wrong_receives",
        Some(wrong as f64),
        0.0,
        "receives",
        &detail,
    );
    let (same, all) = (repeats.0 as f64, repeats.1 as f64);
    let detail = "measured twice, the same to the last event";
    verdict.at_least("repeats", Some(same), all, "points", detail);
    (verdict.checks, verdict.skipped)
}

/// What the paper says of its own machine.
fn the_paper(verdict: &mut Verdict, measured: &[Measured]) {
    let bcopy = centre(measured, Machine::Ddr2005, Mode::Bcopy);
    let fit = bcopy.map(|m| (m.mb_per_s() / PAPER_BCOPY - 1.0).abs() * 100.0);
    let detail = "from 630 MB/s, to which memory is fitted";
    verdict.at_most("fit.bcopy.x8", fit, FIT_MAX, "%", detail);
    for mode in WITHOUT_COPIES {
        let name = mode.name();
        let other = centre(measured, Machine::Ddr2005, mode);
        let both = bcopy.zip(other);
        let ratio = |of: fn(&Measured) -> f64| both.map(|(bcopy, other)| of(bcopy) / of(other));
        verdict.at_least(
            &format!("{name}.x8"),
            other.map(Measured::mb_per_s),
            PAPER_ZCOPY * (1.0 - TOLERANCE),
            "MB/s",
            "predicted; the paper: 1360",
        );
        verdict.at_least(
            &format!("{name}_vs_bcopy.x8"),
            ratio(Measured::mb_per_s).map(|ratio| 1.0 / ratio),
            PAPER_ZCOPY / PAPER_BCOPY * (1.0 - TOLERANCE),
            "ratio",
            "the paper: 2.16",
        );
        verdict.at_least(
            &format!("cpu_use.bcopy_vs_{name}.x8"),
            ratio(|m| m.cpu_percent(0) + m.cpu_percent(1)),
            PAPER_CPU,
            "ratio",
            "predicted; the paper: 10",
        );
        verdict.at_least(
            &format!("cpu_per_byte.bcopy_vs_{name}.x8"),
            ratio(Measured::cpu_s_per_gb),
            PAPER_CPU * PAPER_ZCOPY / PAPER_BCOPY * (1.0 - TOLERANCE),
            "ratio",
            "predicted; the paper: 10 times 2.16",
        );
    }
}

/// The point that the paper is about.
fn centre(measured: &[Measured], machine: Machine, mode: Mode) -> Option<&Measured> {
    measured.iter().find(|m| {
        let p = &m.point;
        (p.machine, p.mode, p.conns, p.size) == (machine, mode, CONNS, SIZE)
    })
}

/// What the same authors measured in the same year with adapters of half the rate (Hot Interconnects
/// 13, DOI 10.1109/CONECT.2005.35): 500 and 700 MB/s. The hosts are not the ones that memory is
/// fitted to, so only the direction is promised.
fn the_older_adapter(verdict: &mut Verdict, measured: &[Measured]) {
    let at = |mode: Mode| centre(measured, Machine::Sdr2005, mode).map(Measured::mb_per_s);
    let ratio = at(Mode::Read).zip(at(Mode::Bcopy));
    verdict.at_least(
        "read_vs_bcopy.sdr2005.x8",
        ratio.map(|(read, bcopy)| read / bcopy),
        OLDER_MIN,
        "ratio",
        "measured in 2005: 1.4",
    );
}

/// What holds on every machine.
fn all_machines(verdict: &mut Verdict, measured: &[Measured]) {
    for machine in Machine::ALL {
        let own: Vec<&Measured> = measured
            .iter()
            .filter(|m| m.point.machine == machine)
            .collect();
        for mode in WITHOUT_COPIES {
            without_copies(verdict, machine, &own, mode);
        }
        let bcopy = own.iter().filter(|m| m.point.mode == Mode::Bcopy);
        let share = bcopy.map(|m| m.share_by_rdma()).max_by(f64::total_cmp);
        let detail = "of all bytes, counted below the stack";
        let name = format!("bcopy_by_rdma.{}", machine.name());
        verdict.at_most(&name, share, 0.0, "ratio", detail);
        let name = format!("auto_of_best.{}", machine.name());
        let detail = "the stack's own choice beside the better way, from 64 KiB on";
        verdict.at_least(&name, auto_of_best(&own), AUTO_MIN, "ratio", detail);
    }
}

fn without_copies(verdict: &mut Verdict, machine: Machine, own: &[&Measured], mode: Mode) {
    let name = |what: &str| format!("{}{what}.{}", mode.name(), machine.name());
    let own: Vec<_> = own.iter().filter(|m| m.point.mode == mode).collect();
    let over_conns: Vec<_> = own.iter().filter(|m| m.point.size == SIZE).collect();

    let timing = machine.timing();
    let carried = timing.link_rate.min(timing.dma_rate) as f64 / 1e6;
    let centre = over_conns.iter().find(|m| m.point.conns == CONNS);
    let value = centre.map(|m| m.mb_per_s() / carried);
    let detail = format!("{carried:.0} MB/s by link or bus");
    let check = format!("{}.x8", name("_of_link"));
    verdict.at_least(&check, value, LINK_MIN, "ratio", &detail);

    let growth = over_conns.windows(2).filter_map(|pair| match pair {
        [fewer, more] => Some(more.mb_per_s() / fewer.mb_per_s()),
        _ => None,
    });
    let detail = "least gain by more connections";
    verdict.at_least(&name("_grows"), least(growth), GROWTH_MIN, "ratio", detail);

    let sure = own.iter().filter(|m| m.point.size >= ZCOPY_SURE);
    let (what, share) = match mode {
        Mode::Read => ("_by_rdma_read", least(sure.map(|m| m.share_by_read()))),
        _ => ("_by_rdma", least(sure.map(|m| m.share_by_rdma()))),
    };
    let detail = "of all bytes from 64 KiB on, counted below the stack";
    verdict.at_least(&name(what), share, SHARE_MIN, "ratio", detail);
}

/// What the stack's own choice reaches of the better of the two ways that it has. It leaves messages
/// alone that are shorter.
fn auto_of_best(own: &[&Measured]) -> Option<f64> {
    let chosen = |m: &&&Measured| m.point.mode == Mode::Auto && m.point.size >= ZCOPY_SURE;
    least(own.iter().filter(chosen).filter_map(|auto| {
        let place = |m: &Measured| (m.point.conns, m.point.size);
        let fixed = own.iter().filter(|m| {
            let fixed = [Mode::Bcopy, Mode::Zcopy].contains(&m.point.mode);
            fixed && place(m) == place(auto)
        });
        let best = fixed.map(|m| m.mb_per_s()).max_by(f64::total_cmp)?;
        Some(auto.mb_per_s() / best)
    }))
}
