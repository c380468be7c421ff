//! The share of a completion's words that are in the wanted language: the language-consistency reward of DeepSeek-R1
//! (arXiv 2501.12948, section 2.3.2), "the proportion of target language words in the chain of thought".

use common::places::{Place, read};
use languages::Target;
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
struct Consistency {
    #[serde(flatten)]
    target: Target,
    #[serde(default = "thought")]
    read: Vec<Place>,
}

fn thought() -> Vec<Place> {
    vec![Place::FirstTag("think".into()), Place::Whole]
}

impl Config for Consistency {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {"#,
        languages::target_schema!(),
        ",",
        common::read_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        self.target.check()
    }
}

impl Verifier for Consistency {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let language = match self.target.of(group) {
            Ok(language) => language,
            Err(reason) => return Verdict::Undecided(reason),
        };
        let text = read(&self.read, &completion.text).unwrap_or_default();
        let (inside, all) = self.target.count(text, language);
        // A text without words is in no language.
        let share = if all == 0 { 0.0 } else { inside as f64 / all as f64 };
        let note = match all {
            0 => Some("no words".into()),
            _ if inside < all => Some(format!("{} of {all} words are not in {}", all - inside, language.code)),
            _ => None,
        };
        let metrics = vec![("words".into(), all as f64)];
        Verdict::Decided(Finding { score: share, answer: None, metrics, note })
    }
}

pipeline_plugin::verifier!(Consistency);
