//! Keeps the completions whose length lies in a window.

use common::places::{Place, read};
use filtering::Action;
use pipeline_plugin::{Completion, Config, ConfigError, Context, Decision, Filterer, Group};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LengthWindow {
    #[serde(default)]
    low: usize,
    high: Option<usize>,
    #[serde(default)]
    unit: Unit,
    read: Option<Vec<Place>>,
    #[serde(default)]
    action: Action,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    #[default]
    Tokens,
    Characters,
    Words,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Characters => "characters",
            Self::Words => "words",
        }
    }
}

impl Config for LengthWindow {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "anyOf": [{ "required": ["low"] }, { "required": ["high"] }],
          "properties": {
            "low": { "type": "integer", "minimum": 0, "description": "The least length that is kept. Default: 0." },
            "high": { "type": "integer", "minimum": 0, "description": "The greatest length that is kept. Default: any." },
            "unit": {
              "enum": ["tokens", "characters", "words"],
              "description": "What is counted; tokens are those of the whole completion. Default: tokens."
            },"#,
        common::read_schema!(),
        ",",
        filtering::action_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.high.is_some_and(|high| high < self.low) {
            errors.push(ConfigError { path: "/low".into(), message: format!("{} is above `high`", self.low) });
        }
        if self.unit == Unit::Tokens && self.read.is_some() {
            let message = "a part of a completion has no tokens of its own: count its characters or words";
            errors.push(ConfigError { path: "/read".into(), message: message.into() });
        }
        errors
    }
}

impl LengthWindow {
    fn reason(&self, completion: &Completion) -> Option<String> {
        let text = match &self.read {
            // A place that is not there is empty.
            Some(places) => read(places, &completion.text).unwrap_or_default(),
            None => &completion.text,
        };
        let length = match self.unit {
            Unit::Tokens => completion.tokens as usize,
            Unit::Characters => text.chars().count(),
            Unit::Words => text.split_whitespace().count(),
        };
        let unit = self.unit.name();
        if length < self.low {
            return Some(format!("it has {length} {unit}, fewer than {}", self.low));
        }
        let high = self.high.filter(|high| length > *high)?;
        Some(format!("it has {length} {unit}, more than {high}"))
    }
}

impl Filterer for LengthWindow {
    fn filter(&self, _: &Context, groups: &[Group], _: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        Ok(self.action.each(groups, |completion| self.reason(completion)))
    }
}

pipeline_plugin::filterer!(LengthWindow);
