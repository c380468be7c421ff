//! Rewards that depend on the length of a completion and on whether it is right.

mod rules;

use std::collections::BTreeMap;

use pipeline_plugin::{Completion, Config, ConfigError, Context, Group, Judgement, Rewarder, Verdict};
use rules::{Cosine, relative};

/// Which rule is meant.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rule {
    Cosine,
    Relative,
}

/// What a length is counted in.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Tokens,
    Characters,
    Words,
}

impl Unit {
    fn count(self, completion: &Completion) -> f64 {
        match self {
            Self::Tokens => f64::from(completion.tokens),
            Self::Characters => completion.text.chars().count() as f64,
            Self::Words => completion.text.split_whitespace().count() as f64,
        }
    }
}

/// What a completion counts as whose verdict is undecided.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum CountedAs {
    Undecided,
    Right,
    Wrong,
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Length {
    rule: Rule,
    #[serde(default = "accuracy")]
    accuracy: String,
    #[serde(default = "one")]
    right_from: f64,
    #[serde(default = "undecided")]
    undecided: CountedAs,
    #[serde(default = "tokens")]
    unit: Unit,
    #[serde(default)]
    max_length: Option<f64>,
    #[serde(default)]
    cosine: Cosine,
    #[serde(default = "one")]
    weight: f64,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

fn accuracy() -> String {
    "accuracy".into()
}

fn one() -> f64 {
    1.0
}

fn undecided() -> CountedAs {
    CountedAs::Undecided
}

fn tokens() -> Unit {
    Unit::Tokens
}

impl Config for Length {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut error = |path: &str, message: &str| {
            errors.push(ConfigError { path: path.into(), message: message.into() });
        };
        if self.weights.contains_key(&self.accuracy) {
            let escaped = self.accuracy.replace('~', "~0").replace('/', "~1");
            error(&format!("/weights/{escaped}"), "the length rule already uses this stage: `weight` is its weight");
        }
        match self.rule {
            Rule::Cosine if self.max_length.is_none() && !matches!(self.unit, Unit::Tokens) => {
                error("/max_length", "is required, as the length is not counted in tokens");
            }
            Rule::Relative if self.max_length.is_some() => {
                error("/max_length", "the rule `relative` has none: it compares with the longest of the group");
            }
            _ => {}
        }
        errors
    }
}

impl Length {
    /// For each completion whether it is right; `None` where that is not known, `Some(None)` where it is not asked.
    fn correctness(&self, judgement: &Judgement) -> Vec<Option<Option<bool>>> {
        let is_right = |verdict: &Verdict| match (verdict, self.undecided) {
            (Verdict::Decided(finding), _) => Some(Some(finding.score >= self.right_from)),
            (Verdict::NotApplicable, _) => Some(None),
            (Verdict::Undecided(_), CountedAs::Undecided) => None,
            (Verdict::Undecided(_), counted) => Some(Some(counted == CountedAs::Right)),
        };
        judgement.verdicts.iter().map(is_right).collect()
    }
}

impl Rewarder for Length {
    fn reward(&self, ctx: &Context, group: &Group, judgements: &[Judgement]) -> Result<Vec<Option<f64>>, String> {
        let stage = |name: &str| judgements.iter().find(|judgement| judgement.stage == name);
        let accuracy = stage(&self.accuracy).ok_or_else(|| format!("no input is the stage `{}`", self.accuracy))?;
        if let Some(name) = self.weights.keys().find(|name| stage(name).is_none()) {
            return Err(format!("config.weights names the stage `{name}`, which is no input"));
        }
        let lengths: Vec<f64> = group.completions.iter().map(|completion| self.unit.count(completion)).collect();
        let longest = lengths.iter().copied().fold(0.0, f64::max);
        let shortest = lengths.iter().copied().fold(f64::INFINITY, f64::min);
        let max_length = self.max_length.unwrap_or_else(|| f64::from(ctx.max_tokens));
        let rule = |length, is_right| match self.rule {
            Rule::Cosine => self.cosine.reward(length, max_length, is_right),
            Rule::Relative => relative(length, shortest, longest, is_right),
        };
        let mut rewards: Vec<Option<f64>> = self
            .correctness(accuracy)
            .into_iter()
            .zip(&lengths)
            .map(|(is_right, length)| Some(is_right?.map_or(0.0, |is_right| self.weight * rule(*length, is_right))))
            .collect();
        for judgement in judgements.iter().filter(|judgement| judgement.stage != self.accuracy) {
            let weight = self.weights.get(&judgement.stage);
            let weight =
                weight.ok_or_else(|| format!("config.weights has no weight for the stage `{}`", judgement.stage))?;
            for (reward, verdict) in rewards.iter_mut().zip(&judgement.verdicts) {
                match verdict {
                    Verdict::Decided(finding) => *reward = reward.map(|reward| reward + weight * finding.score),
                    Verdict::Undecided(_) => *reward = None,
                    Verdict::NotApplicable => {}
                }
            }
        }
        Ok(rewards)
    }
}

pipeline_plugin::rewarder!(Length);
