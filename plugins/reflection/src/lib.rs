//! How many reflective words a completion has: what the report draws over the steps of a run.
//!
//! The words are those that DeepSeek-R1's authors counted (arXiv 2501.12948 v2, appendix). The score is their number: a
//! stage of this plugin belongs in a report, or in a reward with the weight 0.

use pipeline_plugin::{Completion, Config, Context, Finding, Group, Verdict, Verifier};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(from = "Settings")]
struct Reflection {
    /// Of each phrase its words, in lower case.
    phrases: Vec<Vec<String>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    words: Option<Vec<String>>,
}

const WORDS: [&str; 10] =
    ["wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check"];

impl From<Settings> for Reflection {
    fn from(settings: Settings) -> Self {
        let written = settings.words.unwrap_or_else(|| WORDS.map(Into::into).into());
        Self { phrases: written.iter().map(|phrase| words(&phrase.to_lowercase()).map(Into::into).collect()).collect() }
    }
}

impl Config for Reflection {
    const SCHEMA: &str = r#"{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "words": {
                "type": "array",
                "minItems": 1,
                "uniqueItems": true,
                "items": { "type": "string", "pattern": "\\S" },
                "description": "The words and phrases that are counted, in any case. Default: wait, mistake, however, but, retry, error, verify, wrong, evaluate, check."
            }
        }
    }"#;
}

/// Runs of letters and digits; an apostrophe within is part of the word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '\'')).filter(|word| !word.is_empty())
}

impl Reflection {
    /// How many phrases begin at a word of the text, and how many words it has.
    fn count(&self, text: &str) -> (usize, usize) {
        let lowered = text.to_lowercase();
        let words: Vec<&str> = words(&lowered).collect();
        let begins = |at: usize, phrase: &[String]| {
            let rest = &words[at..];
            !phrase.is_empty() && rest.len() >= phrase.len() && rest.iter().zip(phrase).all(|(word, part)| word == part)
        };
        let at = |at: usize| self.phrases.iter().filter(|phrase| begins(at, phrase)).count();
        ((0..words.len()).map(at).sum(), words.len())
    }
}

impl Verifier for Reflection {
    fn verify(&self, _: &Context, _: &Group, completion: &Completion) -> Verdict {
        let (found, all) = self.count(&completion.text);
        let share = if all == 0 { 0.0 } else { found as f64 / all as f64 };
        let metrics = vec![("reflective_words".into(), found as f64), ("reflective_share".into(), share)];
        Verdict::Decided(Finding { score: found as f64, answer: None, metrics, note: None })
    }
}

pipeline_plugin::verifier!(Reflection);

#[cfg(test)]
mod tests {
    use super::{Reflection, Settings};

    #[test]
    fn whole_words_and_phrases_are_counted() {
        let default = Reflection::from(Settings { words: None });
        assert_eq!(default.count("Wait, wait. That is wrong; let me check."), (4, 8));
        assert_eq!(default.count("I checked the waiter's butter."), (0, 5));
        assert_eq!(default.count(""), (0, 0));
        let own = Reflection::from(Settings { words: Some(vec!["Let me".into(), "let".into(), "don't".into()]) });
        assert_eq!(own.count("let me, let us, don't"), (4, 5));
    }
}
