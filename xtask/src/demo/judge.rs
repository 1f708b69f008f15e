//! The promises of the demo.

use crate::report::Check;

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// Not below this.
    AtLeast(f64),
    /// Not above this.
    AtMost(f64),
}

/// Name and bound of every promise that the comparison must report.
pub(crate) const PROMISES: &[(&str, Bound)] = &[
    ("bw.1MiB.x8.sdp_best_vs_tcp", Bound::AtLeast(2.5)),
    ("lat.64B.sdp_vs_tcp", Bound::AtMost(0.5)),
    ("bw.1MiB.x1.bcopy_vs_ring_floor", Bound::AtLeast(0.5)),
    ("bw.1MiB.x8.bcopy_vs_ring_floor", Bound::AtLeast(0.5)),
];

impl Bound {
    /// The value itself.
    pub(crate) fn limit(self) -> f64 {
        match self {
            Self::AtLeast(limit) | Self::AtMost(limit) => limit,
        }
    }

    /// Whether a value keeps it; NaN does not.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

/// Applies the demo's own bounds to the checks of the comparison. A promise that was not reported,
/// or reported without a value, is broken; a check the demo does not know is kept as it is.
pub(super) fn judged(mut checks: Vec<Check>) -> Vec<Check> {
    for (name, bound) in PROMISES {
        match checks.iter_mut().find(|check| check.name == *name) {
            Some(check) => {
                // False for a missing value and for NaN.
                let holds = check.value.is_some_and(|value| bound.holds(value));
                if check.value.is_none() {
                    check.detail = format!("the comparison gave no value. {}", check.detail);
                }
                check.ok = check.ok && holds;
                check.limit = Some(bound.limit());
            }
            None => checks.push(broken(name, *bound, "the comparison did not report it")),
        }
    }
    checks
}

/// Every promise broken, because there is no comparison.
pub(super) fn missing(why: &str) -> Vec<Check> {
    PROMISES
        .iter()
        .map(|(name, bound)| broken(name, *bound, why))
        .collect()
}

fn broken(name: &str, bound: Bound, why: &str) -> Check {
    Check {
        name: name.to_owned(),
        ok: false,
        value: None,
        limit: Some(bound.limit()),
        unit: "ratio".to_owned(),
        detail: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, ok: bool, value: Option<f64>) -> Check {
        let (unit, detail) = ("ratio".to_owned(), String::new());
        Check {
            name: name.to_owned(),
            ok,
            value,
            limit: Some(0.0),
            unit,
            detail,
        }
    }

    fn verdict(checks: Vec<Check>, name: &str) -> bool {
        judged(checks)
            .into_iter()
            .find(|check| check.name == name)
            .unwrap()
            .ok
    }

    #[test]
    fn bounds_are_inclusive_and_point_the_right_way() {
        let (bw, lat) = ("bw.1MiB.x8.sdp_best_vs_tcp", "lat.64B.sdp_vs_tcp");
        for (name, value, ok) in [
            (bw, 2.5, true),
            (bw, 2.49, false),
            (lat, 0.5, true),
            (lat, 0.51, false),
        ] {
            assert_eq!(
                verdict(vec![check(name, true, Some(value))], name),
                ok,
                "{name} {value}"
            );
        }
    }

    #[test]
    fn no_report_no_value_and_nan_are_broken_promises() {
        let name = PROMISES[0].0;
        assert!(!verdict(Vec::new(), name));
        assert!(!verdict(vec![check(name, true, None)], name));
        assert!(!verdict(vec![check(name, true, Some(f64::NAN))], name));
        assert_eq!(missing("x").len(), PROMISES.len());
    }

    #[test]
    fn a_check_that_failed_there_does_not_pass_here() {
        let name = PROMISES[0].0;
        assert!(!verdict(vec![check(name, false, Some(9.0))], name));
        assert!(!verdict(vec![check("other", false, None)], "other"));
        assert!(verdict(vec![check("other", true, None)], "other"));
    }
}
