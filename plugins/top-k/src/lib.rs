//! Keeps the completions with the highest rewards, of each group or of the whole step.

use filtering::{Action, short};
use pipeline_plugin::{Config, Context, Decision, Filterer, Group};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TopK {
    k: usize,
    #[serde(default)]
    of: Of,
    #[serde(default)]
    action: Action,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    #[default]
    Group,
    Step,
}

impl Config for TopK {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "required": ["k"], "properties": {
            "k": { "type": "integer", "minimum": 1, "description": "How many are kept." },
            "of": { "enum": ["group", "step"], "description": "Of what: of each group, or of the whole step. Default: group." },"#,
        filtering::action_schema!(),
        "} }"
    );
}

impl TopK {
    /// The reason not to keep each of the completions with these rewards. Of equal rewards the earlier one is better.
    fn reasons(&self, rewards: &[f64]) -> Vec<Option<String>> {
        let mut order: Vec<usize> = (0..rewards.len()).filter(|i| !rewards[*i].is_nan()).collect();
        order.sort_by(|a, b| rewards[*b].total_cmp(&rewards[*a]));
        let mut reasons = vec![Some("it has no reward".to_owned()); rewards.len()];
        for (rank, i) in order.iter().enumerate() {
            reasons[*i] = (rank >= self.k).then(|| {
                format!(
                    "reward {} is number {} of {}, the best {} are kept",
                    short(rewards[*i]),
                    rank + 1,
                    order.len(),
                    self.k
                )
            });
        }
        reasons
    }
}

impl Filterer for TopK {
    fn filter(&self, _: &Context, _: &[Group], rewards: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        let mut reasons = match self.of {
            Of::Group => rewards.iter().flat_map(|rewards| self.reasons(rewards)).collect(),
            Of::Step => self.reasons(&rewards.concat()),
        }
        .into_iter();
        let decide = |rewards: &Vec<f64>| {
            reasons.by_ref().take(rewards.len()).map(|reason| self.action.unless_kept(reason)).collect()
        };
        Ok(rewards.iter().map(decide).collect())
    }
}

pipeline_plugin::filterer!(TopK);
