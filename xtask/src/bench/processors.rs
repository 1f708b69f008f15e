//! Who used the processors, by the kernel's own count.

use std::fs;

use anyhow::Context;

/// Others that used more than this share of them are worth a warning.
const ALONE_MAX: f64 = 0.05;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moment {
    /// Ticks of all processors.
    all: u64,
    /// Of these, not idle.
    busy: u64,
    /// Of this process and of what it has started and waited for.
    own: u64,
}

impl Moment {
    /// The present one.
    ///
    /// # Errors
    /// When /proc does not say.
    pub(super) fn now() -> anyhow::Result<Self> {
        let read = |path| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let own = process_times(&read("/proc/self/stat")?).context("no times of this process")?;
        let (all, busy) = machine_times(&read("/proc/stat")?).context("no times in /proc/stat")?;
        let own = own.iter().sum();
        Ok(Self { all, busy, own })
    }

    /// The share of all processors that others have used since `earlier`, between 0 and 1.
    pub(super) fn others_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        let busy = self.busy.saturating_sub(earlier.busy);
        let own = self.own.saturating_sub(earlier.own);
        busy.saturating_sub(own) as f64 / all as f64
    }
}

/// What a reader of the figures must know of others.
pub(super) fn remark(share: f64) -> String {
    let percent = share * 100.0;
    let text = format!("others used {percent:.0} % of the processors meanwhile");
    if share <= ALONE_MAX {
        return text;
    }
    format!(
        "NOT ALONE: {text}. Who spins does not yield, so their figures and ratios to them mean little"
    )
}

/// User and system time of a process and of its children that it has waited for, in ticks, by its line
/// in /proc: `pid (name) state …`, where the name may hold blanks and brackets.
pub(super) fn process_times(stat: &str) -> Option<[u64; 4]> {
    let (_, rest) = stat.rsplit_once(") ")?;
    // Fields 14 to 17, of which the third one is the first behind the name.
    let times = rest.split(' ').skip(11).take(4);
    let times: Vec<u64> = times.map(str::parse).collect::<Result<_, _>>().ok()?;
    times.try_into().ok()
}

/// Ticks of all processors, and those that were not idle:
/// `cpu user nice system idle iowait irq softirq steal …`.
fn machine_times(stat: &str) -> Option<(u64, u64)> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    let times: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    // Guests' time, behind these, is part of user time.
    let all: u64 = times.get(..8)?.iter().sum();
    Some((all, all - times[3] - times[4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let line = "12 (a) b) Z 1 2 3 4 5 6 7 8 9 10 250 50 7 8 20";
        assert_eq!(process_times(line), Some([250, 50, 7, 8]));
        assert_eq!(process_times("12 (a) Z 1 2"), None);
        let machine = "cpu  10 1 5 70 4 2 3 5 9 9\ncpu0 1 2 3\n";
        assert_eq!(machine_times(machine), Some((100, 26)));
        assert_eq!(machine_times("cpu 1 2 3"), None);
    }

    #[test]
    fn others_are_who_is_not_idle_and_not_we() {
        let moment = |all, busy, own| Moment { all, busy, own };
        let share = moment(1100, 580, 60).others_since(moment(100, 80, 10));
        assert_eq!(share.to_bits(), 0.45_f64.to_bits());
        // Ticks are counted by different clocks.
        let negative = moment(200, 90, 30).others_since(moment(100, 80, 10));
        assert_eq!(negative.to_bits(), 0.0_f64.to_bits());
        assert!(remark(share).starts_with("NOT ALONE: others used 45 %"));
        assert!(remark(0.02).starts_with("others used 2 %"));
        let now = Moment::now().unwrap();
        assert!(now.busy >= now.own && now.all > 0, "{now:?}");
    }
}
