//! Values over several rounds.

use serde::Serialize;
use serde_json::{Value, json};

/// What a value was over the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figure {
    /// The middle one; the mean of the two middle ones if their number is even.
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) rounds: usize,
}

impl Figure {
    /// The figure of these rounds; none without a round.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rounds = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(rounds - 1) / 2], sorted[rounds / 2]);
        Some(Self {
            median,
            min,
            max,
            rounds,
        })
    }

    /// As reports have it; null for none.
    pub(super) fn json(values: &[f64]) -> Value {
        json!(Self::of(values))
    }
}

/// What `field` of a result was, round by round; empty where it was not measured.
pub(super) fn each(result: &Value, field: &str) -> Vec<f64> {
    let values = result["each"][field].as_array();
    let numbers = values.into_iter().flatten().map(Value::as_f64);
    // A round without a value would shift those behind it.
    numbers.collect::<Option<_>>().unwrap_or_default()
}

/// The ratios of `field` of two results, round by round: what peers are compared by.
pub(super) fn ratio(ours: &Value, theirs: &Value, field: &str) -> Option<Figure> {
    let (ours, theirs) = (each(ours, field), each(theirs, field));
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
    Figure::of(&ratios.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(values: &[f64]) -> Value {
        json!({ "each": { "gb_per_s": values } })
    }

    #[test]
    fn a_figure_is_the_median_with_its_range() {
        let figure = Figure::of(&[3.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!(
            json!(figure),
            json!({ "median": 2.5, "min": 1.0, "max": 9.0, "rounds": 4 })
        );
        assert_eq!(Figure::json(&[]), Value::Null);
    }

    /// 1, 2 and 9 times; the ratio of the medians would be 4.
    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        let (ours, theirs) = (result(&[8.0, 4.0, 9.0]), result(&[8.0, 2.0, 1.0]));
        let ratio = ratio(&ours, &theirs, "gb_per_s").unwrap();
        assert_eq!((ratio.median, ratio.max, ratio.rounds), (2.0, 9.0, 3));
    }

    #[test]
    fn what_was_not_measured_has_no_ratio_and_a_peer_that_broke_off_one_of_its_rounds() {
        let ours = result(&[8.0, 4.0]);
        assert_eq!(ratio(&ours, &ours, "us_p50"), None);
        assert_eq!(ratio(&ours, &result(&[]), "gb_per_s"), None);
        assert_eq!(ratio(&ours, &result(&[1.0]), "gb_per_s").unwrap().rounds, 1);
        let torn = json!({ "each": { "gb_per_s": [null, 1.0] } });
        assert_eq!(ratio(&ours, &torn, "gb_per_s"), None);
    }
}
