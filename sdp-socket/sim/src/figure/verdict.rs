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
/// What more connections may cost of the throughput.
const GROWTH_MIN: f64 = 0.95;
/// What zero copy must reach of what link and bus can carry.
const LINK_MIN: f64 = 0.95;
/// What the stack's own choice must reach of the better way.
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
    let at = |mode: Mode| {
        measured.iter().find(|m| {
            let p = &m.point;
            (p.machine, p.mode, p.conns, p.size) == (Machine::Ddr2005, mode, CONNS, SIZE)
        })
    };
    let (bcopy, zcopy) = (at(Mode::Bcopy), at(Mode::Zcopy));
    let both = bcopy.zip(zcopy);
    let ratio = |of: fn(&Measured) -> f64| both.map(|(bcopy, zcopy)| (of(bcopy), of(zcopy)));
    let fit = bcopy.map(|m| (m.mb_per_s() / PAPER_BCOPY - 1.0).abs() * 100.0);
    verdict.at_most(
        "fit.bcopy.x8",
        fit,
        FIT_MAX,
        "%",
        "from 630 MB/s, to which memory is fitted",
    );
    verdict.at_least(
        "zcopy.x8",
        zcopy.map(Measured::mb_per_s),
        PAPER_ZCOPY * (1.0 - TOLERANCE),
        "MB/s",
        "predicted; the paper: 1360",
    );
    verdict.at_least(
        "zcopy_vs_bcopy.x8",
        ratio(Measured::mb_per_s).map(|(bcopy, zcopy)| zcopy / bcopy),
        PAPER_ZCOPY / PAPER_BCOPY * (1.0 - TOLERANCE),
        "ratio",
        "the paper: 2.16",
    );
    let used = |m: &Measured| m.cpu_percent(0) + m.cpu_percent(1);
    verdict.at_least(
        "cpu_use.bcopy_vs_zcopy.x8",
        ratio(used).map(|(bcopy, zcopy)| bcopy / zcopy),
        PAPER_CPU,
        "ratio",
        "predicted; the paper: 10",
    );
    verdict.at_least(
        "cpu_per_byte.bcopy_vs_zcopy.x8",
        ratio(Measured::cpu_s_per_gb).map(|(bcopy, zcopy)| bcopy / zcopy),
        PAPER_CPU * PAPER_ZCOPY / PAPER_BCOPY * (1.0 - TOLERANCE),
        "ratio",
        "predicted; the paper: 10 times 2.16",
    );
}

/// What the same authors measured in the same year with adapters of half the rate (Hot Interconnects
/// 13, DOI 10.1109/CONECT.2005.35): 500 and 700 MB/s. The hosts are not the ones that memory is
/// fitted to, so only the direction is promised.
fn the_older_adapter(verdict: &mut Verdict, measured: &[Measured]) {
    let at = |mode: Mode| {
        let found = measured.iter().find(|m| {
            let p = &m.point;
            (p.machine, p.mode, p.conns, p.size) == (Machine::Sdr2005, mode, CONNS, SIZE)
        });
        found.map(Measured::mb_per_s)
    };
    let ratio = at(Mode::Zcopy).zip(at(Mode::Bcopy));
    verdict.at_least(
        "zcopy_vs_bcopy.sdr2005.x8",
        ratio.map(|(zcopy, bcopy)| zcopy / bcopy),
        1.2,
        "ratio",
        "measured in 2005: 1.4",
    );
}

/// What holds on every machine.
fn all_machines(verdict: &mut Verdict, measured: &[Measured]) {
    for machine in Machine::ALL {
        let name = machine.name();
        let own = |mode: Mode| {
            let fits = move |m: &&Measured| m.point.machine == machine && m.point.mode == mode;
            measured.iter().filter(fits)
        };
        let eight = own(Mode::Zcopy).find(|m| (m.point.conns, m.point.size) == (CONNS, SIZE));
        let timing = machine.timing();
        let carried = timing.link_rate.min(timing.dma_rate) as f64 / 1e6;
        let value = eight.map(|m| m.mb_per_s() / carried);
        let detail = format!("{carried:.0} MB/s by link or bus");
        verdict.at_least(
            &format!("zcopy_of_link.{name}.x8"),
            value,
            LINK_MIN,
            "ratio",
            &detail,
        );

        let over_conns: Vec<_> = own(Mode::Zcopy).filter(|m| m.point.size == SIZE).collect();
        let growth = over_conns.windows(2).filter_map(|pair| match pair {
            [fewer, more] => Some(more.mb_per_s() / fewer.mb_per_s()),
            _ => None,
        });
        let (check, detail) = (format!("grows.{name}"), "least gain by more connections");
        verdict.at_least(&check, least(growth), GROWTH_MIN, "ratio", detail);

        let sure = own(Mode::Zcopy).filter(|m| m.point.size >= ZCOPY_SURE);
        let share = least(sure.map(Measured::share_by_rdma));
        let detail = "of all bytes from 64 KiB on, counted below the stack";
        verdict.at_least(
            &format!("zcopy_by_rdma.{name}"),
            share,
            SHARE_MIN,
            "ratio",
            detail,
        );
        let share = own(Mode::Bcopy)
            .map(Measured::share_by_rdma)
            .max_by(f64::total_cmp);
        let detail = "of all bytes, counted below the stack";
        verdict.at_most(
            &format!("bcopy_by_rdma.{name}"),
            share,
            0.0,
            "ratio",
            detail,
        );

        // It leaves shorter ones alone.
        let chosen = own(Mode::Auto).filter(|m| m.point.size >= ZCOPY_SURE);
        let of_best = chosen.filter_map(|auto| {
            let same = |m: &&Measured| {
                (m.point.conns, m.point.size) == (auto.point.conns, auto.point.size)
            };
            let fixed = [Mode::Bcopy, Mode::Zcopy].map(|mode| own(mode).find(same));
            let fixed = fixed.into_iter().flatten().map(Measured::mb_per_s);
            Some(auto.mb_per_s() / fixed.max_by(f64::total_cmp)?)
        });
        let detail = "the stack's own choice beside the better way, from 64 KiB on";
        verdict.at_least(
            &format!("auto_of_best.{name}"),
            least(of_best),
            AUTO_MIN,
            "ratio",
            detail,
        );
    }
}
