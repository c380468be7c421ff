//! Compares the number that a completion ends with to the reference, exactly.

mod extract;
mod rational;

use extract::Way;
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};
use rational::Rational;

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Number {
    extract: Vec<Way>,
    reference_after: Option<String>,
    tolerance: f64,
}

impl Default for Number {
    fn default() -> Self {
        let extract = vec![Way::AnswerTag, Way::Boxed, Way::Hashes, Way::Phrase, Way::LastNumber];
        Self { extract, reference_after: None, tolerance: 0.0 }
    }
}

impl Config for Number {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (i, way) in self.extract.iter().enumerate() {
            if *way == Way::LastNumber && i + 1 < self.extract.len() {
                let message = "`last_number` takes any number: what stands after it is never tried".into();
                errors.push(ConfigError { path: format!("/extract/{i}"), message });
            }
        }
        errors
    }
}

impl Number {
    /// The reference, or why there is none.
    fn reference(&self, group: &Group) -> Result<Rational, String> {
        let text = group.reference.as_deref().ok_or("the row has no reference")?;
        let part = match &self.reference_after {
            Some(mark) => match common::bytes::rfind(text, mark) {
                Some(at) => &text[at + mark.len()..],
                None => return Err(format!("the reference holds no `{mark}`")),
            },
            None => text,
        };
        extract::last(part).ok_or_else(|| "the reference holds no number".into())
    }
}

impl Verifier for Number {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let expected = match self.reference(group) {
            Ok(expected) => expected,
            Err(reason) => return Verdict::Undecided(reason),
        };
        let (score, answer, note) = match extract::find(&completion.text, &self.extract) {
            Some((way, Some(found))) => {
                let is_equal = found.is_within(expected, self.tolerance);
                let relation = if is_equal { "as expected".into() } else { format!("expected {expected}") };
                (f64::from(is_equal), Some(found.to_string()), format!("{found} from {}, {relation}", way.name()))
            }
            Some((way, None)) => (0.0, None, format!("no number in {}, expected {expected}", way.name())),
            None => (0.0, None, format!("no answer found, expected {expected}")),
        };
        Verdict::Decided(Finding { score, answer, metrics: Vec::new(), note: Some(note) })
    }
}

pipeline_plugin::verifier!(Number);
