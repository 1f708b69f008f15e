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

/// What `field` of a result was, round by round; not a number where a round had no message. Empty where
/// it was not measured.
fn each(result: &Value, field: &str) -> Vec<f64> {
    let values = result["each"][field].as_array();
    let numbers = values.into_iter().flatten().map(Value::as_f64);
    numbers.map(|it| it.unwrap_or(f64::NAN)).collect()
}

/// What `field` of a result was over the rounds that had messages.
pub(super) fn over(result: &Value, field: &str) -> Option<Figure> {
    let mut values = each(result, field);
    values.retain(|value| *value > 0.0);
    Figure::of(&values)
}

/// The ratios of `field` of two results, round by round: what peers are compared by. Rounds in which one
/// of them had no message, as on a busy machine, do not count.
pub(super) fn ratio(ours: &Value, theirs: &Value, field: &str) -> Option<Figure> {
    let (ours, theirs) = (each(ours, field), each(theirs, field));
    let pairs = ours.iter().zip(&theirs);
    let both = pairs.filter(|(ours, theirs)| **ours > 0.0 && **theirs > 0.0);
    let ratios: Vec<f64> = both.map(|(ours, theirs)| ours / theirs).collect();
    Figure::of(&ratios)
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
    }

    /// 4 to 1; the round without a message does not shift it, nor is it endlessly fast.
    #[test]
    fn a_round_without_a_message_does_not_count() {
        let ours = result(&[8.0, 4.0]);
        for torn in [
            json!({ "each": { "gb_per_s": [null, 1.0] } }),
            result(&[0.0, 1.0]),
        ] {
            let found = ratio(&ours, &torn, "gb_per_s").unwrap();
            assert_eq!((found.median, found.rounds), (4.0, 1));
            assert_eq!(over(&torn, "gb_per_s").unwrap().min, 1.0);
        }
        assert_eq!(ratio(&ours, &result(&[0.0]), "gb_per_s"), None);
    }
}
