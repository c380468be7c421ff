//! What metrics must come to, and when a run ends early.

use record::Metrics;
use serde_json::{Value, json};
use spec::{EarlyStop, Gate, Moment};

use crate::error::Error;

/// A gate and what it found.
pub(crate) struct Checked {
    pub passed: bool,
    /// The claim, the number and its bounds.
    pub text: String,
    /// The same for the log.
    pub fields: Vec<(&'static str, Value)>,
}

/// Looks at a gate; `phase` is the one whose metrics it means if it names none.
pub(crate) fn check(gate: &Gate, phase: &str, metrics: &Metrics) -> Result<Checked, Error> {
    let number = |phase: &str, metric: &str, at: Moment| -> Result<Option<f64>, Error> {
        let values = metrics.of(phase, metric)?;
        let value = if at == Moment::Start { values.first() } else { values.last() };
        Ok(value.map(|(_, number)| *number))
    };
    let describe = |phase: &str, metric: &str, at: Moment| {
        let when = if at == Moment::Start { " at the start" } else { "" };
        format!("{metric} of {phase}{when}")
    };
    let phase = gate.phase.as_deref().unwrap_or(phase);
    let mut what = describe(phase, &gate.metric, gate.at);
    let mut value = number(phase, &gate.metric, gate.at)?;
    if let Some(over) = &gate.over {
        let phase = over.phase.as_deref().unwrap_or(phase);
        let other = number(phase, &over.metric, over.at)?;
        what = format!("{what} over {}", describe(phase, &over.metric, over.at));
        value = value.zip(other).map(|(value, other)| value - other);
    }
    let bounds = [("at least", gate.at_least), ("at most", gate.at_most)];
    let bounds: Vec<String> =
        bounds.iter().filter_map(|(word, bound)| bound.map(|bound| format!("{word} {bound}"))).collect();
    let bounds = bounds.join(" and ");
    let passed = value.is_some_and(|value| {
        gate.at_least.is_none_or(|least| value >= least) && gate.at_most.is_none_or(|most| value <= most)
    });
    let found = value.map_or("it was never logged".to_owned(), |value| format!("{value:.4}"));
    let claim = gate.claim.as_ref().map(|claim| format!("{claim}: ")).unwrap_or_default();
    let fields = vec![
        ("claim", json!(gate.claim)),
        ("what", json!(what)),
        ("value", json!(value)),
        ("bounds", json!(bounds)),
        ("passed", json!(passed)),
    ];
    Ok(Checked { passed, text: format!("{claim}{what}: {found} ({bounds})"), fields })
}

/// Whether a run ends after `step` steps: its metric was logged then, and has not become better for a while.
pub(crate) fn stops(stop: &EarlyStop, phase: &str, step: u64, metrics: &Metrics) -> Result<bool, Error> {
    let values = metrics.of(phase, &stop.metric)?;
    let now = values.last().is_some_and(|(last, _)| *last == step);
    let numbers: Vec<f64> = values.into_iter().map(|(_, value)| if stop.minimise { -value } else { value }).collect();
    Ok(now && without_gain(&numbers, stop.margin) >= stop.patience)
}

/// How many of the last numbers are no better, by `margin`, than the best before them.
fn without_gain(numbers: &[f64], margin: f64) -> usize {
    let mut best = f64::NEG_INFINITY;
    let mut since = 0;
    for number in numbers {
        since += 1;
        if best == f64::NEG_INFINITY || *number > best + margin {
            (best, since) = (*number, 0);
        }
    }
    since
}

#[cfg(test)]
mod tests {
    use super::without_gain;

    #[test]
    fn patience_counts_from_the_best() {
        assert_eq!(without_gain(&[], 0.0), 0);
        assert_eq!(without_gain(&[0.1, 0.2, 0.3], 0.0), 0);
        assert_eq!(without_gain(&[0.1, 0.3, 0.2, 0.3], 0.0), 2);
        assert_eq!(without_gain(&[0.1, 0.15, 0.2, 0.21], 0.08), 1, "0.2 counts, since the best before is 0.1");
        assert_eq!(without_gain(&[-3.0, -2.0, -2.5], 0.0), 1);
    }
}
