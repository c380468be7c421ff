//! What the filters share: decisions with their reasons, and words by their hashes.

mod words;

pub use words::{Word, mix, windows, words};

use pipeline_plugin::{Completion, Decision, Group};

/// What becomes of a completion that a filter does not keep: the `action` of every filter's config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is out of its group's statistics and out of the loss.
    #[default]
    Drop,
    /// It counts in its group's statistics, and is not learned from.
    Mask,
}

impl Action {
    /// The decision for a reason not to keep, or for none.
    pub fn unless_kept(self, reason: Option<String>) -> Decision {
        match (self, reason) {
            (_, None) => Decision::Keep,
            (Self::Drop, Some(reason)) => Decision::Drop(reason),
            (Self::Mask, Some(reason)) => Decision::Mask(reason),
        }
    }

    /// Decisions on completions that are judged each alone: by the reason not to keep one.
    pub fn each(self, groups: &[Group], reason: impl Fn(&Completion) -> Option<String>) -> Vec<Vec<Decision>> {
        let decide = |completion: &Completion| self.unless_kept(reason(completion));
        groups.iter().map(|group| group.completions.iter().map(decide).collect()).collect()
    }
}

/// The property `action` of a config's JSON Schema.
#[macro_export]
macro_rules! action_schema {
    () => {
        r#"
            "action": {
              "enum": ["drop", "mask"],
              "description": "What becomes of the rest: drop takes it out of its group's statistics too, mask out of the loss only. Default: drop."
            }"#
    };
}

/// A number as reasons write it: at most three decimals, and none that say nothing.
pub fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".into() } else { short.into() }
}

/// The beginning of a text, on one line, as reasons quote it.
pub fn excerpt(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(characters).collect();
    if short.len() < line.len() { format!("{}..", short.trim_end()) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_cut() {
        assert_eq!([1.0, 0.5, 0.93751, -0.0001, 12.0].map(short), ["1", "0.5", "0.938", "0", "12"]);
        assert_eq!(excerpt("a  b\nc", 9), "a b c");
        assert_eq!(excerpt("a  b\nc", 4), "a b..");
    }
}
