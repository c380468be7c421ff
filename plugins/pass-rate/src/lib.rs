//! Keeps the groups whose pass rate is in a window: what is always right or always wrong teaches nothing, and what is nearly
//! so teaches little.

use filtering::{Action, short};
use pipeline_plugin::{Config, ConfigError, Context, Decision, Filterer, Group};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PassRate {
    #[serde(default)]
    low: f64,
    #[serde(default = "one")]
    high: f64,
    #[serde(default = "one")]
    success: f64,
    #[serde(default)]
    action: Action,
}

fn one() -> f64 {
    1.0
}

impl Config for PassRate {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "anyOf": [{ "required": ["low"] }, { "required": ["high"] }],
          "properties": {
            "low": { "type": "number", "minimum": 0, "maximum": 1, "description": "The least pass rate that is kept. Default: 0." },
            "high": { "type": "number", "minimum": 0, "maximum": 1, "description": "The greatest pass rate that is kept. Default: 1." },
            "success": { "type": "number", "description": "The least reward that counts as passed. Default: 1." },"#,
        filtering::action_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        if self.low <= self.high {
            return Vec::new();
        }
        vec![ConfigError { path: "/low".into(), message: format!("{} is above `high`, {}", self.low, self.high) }]
    }
}

impl PassRate {
    /// Why a group is not kept. Undecided completions are not counted.
    fn reason(&self, rewards: &[f64]) -> Option<String> {
        let decided: Vec<f64> = rewards.iter().copied().filter(|reward| !reward.is_nan()).collect();
        if decided.is_empty() {
            return Some("no completion of the group has a reward".into());
        }
        let passed = decided.iter().filter(|reward| **reward >= self.success).count();
        let rate = passed as f64 / decided.len() as f64;
        let of = format!("{} ({passed} of {})", short(rate), decided.len());
        if rate < self.low {
            Some(format!("pass rate {of} is below {}", short(self.low)))
        } else if rate > self.high {
            Some(format!("pass rate {of} is above {}", short(self.high)))
        } else {
            None
        }
    }
}

impl Filterer for PassRate {
    fn filter(&self, _: &Context, _: &[Group], rewards: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        let decide = |rewards: &Vec<f64>| vec![self.action.unless_kept(self.reason(rewards)); rewards.len()];
        Ok(rewards.iter().map(decide).collect())
    }
}

pipeline_plugin::filterer!(PassRate);
