//! Drops the prompts that share words in a row with an evaluation set.
//!
//! The evaluation sets are granted as assets and read anew in each call, in pieces: what is kept in memory is an index of the
//! step's own prompts, so that the cost grows as the bytes of the sets, and the memory as the step.

mod entries;
mod index;

use entries::Entries;
use filtering::Action;
use index::{Index, Match};
use pipeline_plugin::{Config, ConfigError, Context, Decision, Filterer, Group, read_asset};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Contamination {
    assets: Vec<String>,
    #[serde(default = "ten")]
    n: usize,
    columns: Option<Vec<String>>,
    #[serde(default)]
    action: Action,
}

fn ten() -> usize {
    10
}

impl Config for Contamination {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "required": ["assets"], "properties": {
            "assets": {
              "type": "array",
              "minItems": 1,
              "uniqueItems": true,
              "items": { "type": "string" },
              "description": "The granted files: JSON Lines, or text with an entry on each line."
            },
            "n": {
              "type": "integer",
              "minimum": 2,
              "maximum": 100,
              "description": "The words in a row that a prompt may not share with an entry. Shorter prompts and entries are compared as a whole. Default: 10."
            },
            "columns": {
              "type": "array",
              "minItems": 1,
              "items": { "type": "string" },
              "description": "The columns of JSON Lines that are read. Default: every string in them."
            },"#,
        filtering::action_schema!(),
        "} }"
    );

    /// What was not granted is said before the run.
    fn check(&self) -> Vec<ConfigError> {
        let error = |(i, name): (usize, &String)| {
            let message = read_asset(name, 0, 1).err()?;
            Some(ConfigError { path: format!("/assets/{i}"), message })
        };
        self.assets.iter().enumerate().filter_map(error).collect()
    }
}

impl Filterer for Contamination {
    fn filter(&self, _: &Context, groups: &[Group], _: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        let prompts: Vec<String> = groups.iter().map(prompt).collect();
        let mut index = Index::new(&prompts, self.n);
        for asset in &self.assets {
            let mut entries = Entries::new(self.columns.as_deref());
            let mut offset = 0;
            loop {
                let piece = read_asset(asset, offset, entries::PIECE)?;
                offset += piece.len() as u64;
                let is_last = piece.len() < entries::PIECE as usize;
                entries.read(&piece, is_last, &mut |line, text| index.look_up(asset, line, text))?;
                if is_last {
                    break;
                }
            }
        }
        let decide = |(at, group): (usize, &Group)| {
            let reason = index.matches[at].as_ref().map(|found| self.reason(&prompts[at], found));
            vec![self.action.unless_kept(reason); group.completions.len()]
        };
        Ok(groups.iter().enumerate().map(decide).collect())
    }
}

/// What is asked: all messages but those of the system, which are the same in every prompt.
fn prompt(group: &Group) -> String {
    let asked = group.prompt.iter().filter(|message| message.role != "system");
    asked.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
}

impl Contamination {
    fn reason(&self, prompt: &str, found: &Match) -> String {
        let quoted = filtering::excerpt(&prompt[found.place.clone()], 120);
        let Match { asset, line, words, .. } = found;
        format!("it shares {words} words in a row with line {line} of `{asset}`: \"{quoted}\"")
    }
}

pipeline_plugin::filterer!(Contamination);
