//! Drops chains of thought that mix languages: those whose share of words in the wanted language is below a threshold. The share
//! is that of the verifier `language`, DeepSeek-R1's language consistency (arXiv 2501.12948, section 2.3.2); that its data for
//! supervised fine-tuning were cleaned of mixed languages says section 2.3.3.

use common::places::{Place, read};
use filtering::{Action, short};
use languages::Target;
use pipeline_plugin::{Config, ConfigError, Context, Decision, Filterer, Group};

#[derive(serde::Deserialize)]
struct LanguageMixing {
    #[serde(flatten)]
    target: Target,
    #[serde(default = "nine_tenths")]
    threshold: f64,
    #[serde(default = "thought")]
    read: Vec<Place>,
    #[serde(default)]
    action: Action,
}

fn nine_tenths() -> f64 {
    0.9
}

fn thought() -> Vec<Place> {
    vec![Place::FirstTag("think".into()), Place::Whole]
}

impl Config for LanguageMixing {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {
            "threshold": {
              "type": "number",
              "minimum": 0,
              "maximum": 1,
              "description": "The least share of words in the wanted language that is kept. Default: 0.9."
            },"#,
        languages::target_schema!(),
        ",",
        common::read_schema!(),
        ",",
        filtering::action_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        self.target.check()
    }
}

impl Filterer for LanguageMixing {
    fn filter(&self, _: &Context, groups: &[Group], _: &[Vec<f64>]) -> Result<Vec<Vec<Decision>>, String> {
        let decide = |group: &Group| {
            let language = self.target.of(group)?;
            let reason = |text: &str| {
                let (inside, all) = self.target.count(read(&self.read, text).unwrap_or_default(), language);
                // A text without words mixes no languages.
                let share = if all == 0 { 1.0 } else { inside as f64 / all as f64 };
                (share < self.threshold).then(|| {
                    let (share, least) = (short(share), short(self.threshold));
                    format!("{share} of its words are in {} ({inside} of {all}), less than {least}", language.code)
                })
            };
            Ok(group.completions.iter().map(|one| self.action.unless_kept(reason(&one.text))).collect())
        };
        groups.iter().map(decide).collect()
    }
}

pipeline_plugin::filterer!(LanguageMixing);
