//! Keeps the completions in which regular expressions match that have to, and none that must not.
//!
//! The engine is `regex-lite`, as in the verifier `regex`: no look-around and no back-references, so that a search takes time
//! linear in the text.

use std::cell::OnceCell;

use common::places::{Place, read};
use filtering::Action;
use pipeline_plugin::{Completion, Config, ConfigError, Context, Decision, Filterer, Group};
use regex_lite::{Regex, RegexBuilder};

/// The most bytes that a compiled pattern may take.
const PATTERN: usize = 256 << 10;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    #[serde(default)]
    require: Vec<String>,
    #[serde(default)]
    forbid: Vec<String>,
    #[serde(default = "whole")]
    read: Vec<Place>,
    #[serde(default)]
    action: Action,
    /// Those to require, then those to forbid: compiled once, when the config is checked.
    #[serde(skip)]
    compiled: OnceCell<Vec<Regex>>,
}

fn whole() -> Vec<Place> {
    vec![Place::Whole]
}

impl Config for Pattern {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "anyOf": [{ "required": ["require"] }, { "required": ["forbid"] }],
          "properties": {
            "require": {
              "type": "array",
              "minItems": 1,
              "items": { "type": "string", "minLength": 1, "maxLength": 10000 },
              "description": "Patterns that all have to match, in the syntax of the Rust crate regex without \\p classes."
            },
            "forbid": {
              "type": "array",
              "minItems": 1,
              "items": { "type": "string", "minLength": 1, "maxLength": 10000 },
              "description": "Patterns of which none may match."
            },"#,
        common::read_schema!(),
        ",",
        filtering::action_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        let (mut errors, mut compiled) = (Vec::new(), Vec::new());
        for (key, patterns) in [("require", &self.require), ("forbid", &self.forbid)] {
            for (i, pattern) in patterns.iter().enumerate() {
                match RegexBuilder::new(pattern).size_limit(PATTERN).build() {
                    Ok(regex) => compiled.push(regex),
                    Err(error) => errors.push(ConfigError { path: format!("/{key}/{i}"), message: error.to_string() }),
                }
            }
        }
        // The check is made once in an instance, so the cell is empty.
        let _ = self.compiled.set(compiled);
        errors
    }
}

impl Pattern {
    fn reason(&self, completion: &Completion) -> Option<String> {
        // A place that is not there is empty.
        let text = read(&self.read, &completion.text).unwrap_or_default();
        let compiled = self.compiled.get()?;
        let (require, forbid) = compiled.split_at(self.require.len());
        if let Some(missing) = require.iter().find(|regex| !regex.is_match(text)) {
            return Some(format!("`{missing}` does not match"));
        }
        let (regex, found) = forbid.iter().find_map(|regex| Some((regex, regex.find(text)?)))?;
        Some(format!("`{regex}` matches \"{}\"", filtering::excerpt(found.as_str(), 60)))
    }
}

impl Filterer for Pattern {
    fn filter(&self, _: &Context, groups: &[Group], _: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        Ok(self.action.each(groups, |completion| self.reason(completion)))
    }
}

pipeline_plugin::filterer!(Pattern);
