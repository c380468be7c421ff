//! Whether a regular expression matches, does not match, or finds the reference.
//!
//! The engine is `regex-lite`: no look-around and no back-references, so that a search takes time linear in the text; `\w`,
//! `\d`, `\b` and case-insensitivity know ASCII only.

use std::cell::OnceCell;

use common::places::{Place, Without, after, read};
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};
use regex_lite::{Regex, RegexBuilder};

/// The most bytes that a compiled pattern may take.
const PATTERN: usize = 256 << 10;

/// What is right.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Want {
    #[default]
    Match,
    NoMatch,
    Reference,
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    pattern: String,
    #[serde(default)]
    full: bool,
    #[serde(default)]
    want: Want,
    #[serde(default)]
    after_mark: Option<String>,
    #[serde(default)]
    without_mark: Without,
    #[serde(default = "whole")]
    read: Vec<Place>,
    /// Filled by the check of the config, and kept for all completions of a call.
    #[serde(skip)]
    compiled: OnceCell<Regex>,
}

fn whole() -> Vec<Place> {
    vec![Place::Whole]
}

impl Config for Pattern {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "required": ["pattern"], "properties": {
            "pattern": {
                "type": "string",
                "minLength": 1,
                "maxLength": 10000,
                "description": "The regular expression, in the syntax of the Rust crate regex without \\p classes."
            },
            "full": {
                "type": "boolean",
                "description": "Whether it must match all that is read, and not a part. Default: false."
            },
            "want": {
                "enum": ["match", "no_match", "reference"],
                "description": "What is right: a match, none, or that the last match (its first group, if it has one) is the reference. Default: match."
            },"#,
        common::mark_schema!(),
        ",",
        common::read_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        let pattern = if self.full { format!("^(?:{})$", self.pattern) } else { self.pattern.clone() };
        match RegexBuilder::new(&pattern).size_limit(PATTERN).build() {
            Ok(regex) => {
                // The check is made once in an instance, so the cell is empty.
                let _ = self.compiled.set(regex);
                Vec::new()
            }
            Err(error) => vec![ConfigError { path: "/pattern".into(), message: error.to_string() }],
        }
    }
}

impl Verifier for Pattern {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let Some(regex) = self.compiled.get() else { return Verdict::Undecided("the pattern was not compiled".into()) };
        let text = after(&completion.text, self.after_mark.as_deref(), self.without_mark)
            .and_then(|text| read(&self.read, text));
        let found = text.and_then(|text| {
            let last = regex.captures_iter(text).last()?;
            let found = last.get(1).or(last.get(0))?;
            Some(found.as_str())
        });
        let (is_right, note) = match (self.want, text, found) {
            (_, None, _) => (false, Some("there is nothing to read in the places of `read`".into())),
            (Want::Match, _, Some(_)) | (Want::NoMatch, _, None) => (true, None),
            (Want::Match | Want::Reference, _, None) => (false, Some("no match".into())),
            (Want::NoMatch, _, Some(_)) => (false, Some("a match".into())),
            (Want::Reference, _, Some(found)) => match &group.reference {
                None => return Verdict::Undecided("the row has no reference".into()),
                Some(reference) if found.trim() == reference.trim() => (true, None),
                Some(reference) => (false, Some(format!("expected {}", reference.trim()))),
            },
        };
        let answer = found.map(Into::into);
        Verdict::Decided(Finding { score: f64::from(is_right), answer, metrics: Vec::new(), note })
    }
}

pipeline_plugin::verifier!(Pattern);
