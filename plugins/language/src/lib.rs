//! The share of a completion's words that are in the wanted language: the language-consistency reward of DeepSeek-R1
//! (arXiv 2501.12948, section 2.3.2), "the proportion of target language words in the chain of thought".

mod scripts;
mod words;

use common::places::{Place, read};
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};
use scripts::{LANGUAGES, Language};

/// How a word's language is told.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum By {
    /// By its script, and by its sentence's language where languages share the script.
    #[default]
    Sentence,
    /// By its script alone.
    Script,
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Consistency {
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    by: By,
    #[serde(default = "default_rivals")]
    rivals: Vec<String>,
    #[serde(default = "thought")]
    read: Vec<Place>,
}

/// The languages that chains of thought drift into most, of those that share a script.
fn default_rivals() -> Vec<String> {
    ["en", "de", "fr", "es", "pt", "it", "nl", "ru", "uk", "ar", "fa", "hi", "mr"].map(Into::into).into()
}

fn thought() -> Vec<Place> {
    vec![Place::FirstTag("think".into()), Place::Whole]
}

impl Config for Consistency {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {
            "language": { "type": "string", "description": "The wanted language, an ISO 639-1 code such as en or zh." },
            "field": { "type": "string", "minLength": 1, "description": "Instead of `language`: the column that holds the code." },
            "by": {
              "enum": ["sentence", "script"],
              "description": "script: a word counts if its script is one of the language's. sentence: and if its sentence is in none of the rivals. Default: sentence."
            },
            "rivals": {
              "type": "array",
              "uniqueItems": true,
              "items": { "type": "string" },
              "description": "The other languages that a sentence may be in. Default: en, de, fr, es, pt, it, nl, ru, uk, ar, fa, hi, mr."
            },"#,
        common::read_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut error = |path: String, message: String| errors.push(ConfigError { path, message });
        match (&self.language, &self.field) {
            (Some(code), None) if scripts::find(code).is_none() => error("/language".into(), unknown(code)),
            (Some(_), None) | (None, Some(_)) => {}
            (Some(_), Some(_)) => error("/field".into(), "give `language` or `field`, not both".into()),
            (None, None) => error(String::new(), "`language` or `field` is required".into()),
        }
        for (i, code) in self.rivals.iter().enumerate().filter(|(_, code)| scripts::find(code).is_none()) {
            error(format!("/rivals/{i}"), unknown(code));
        }
        errors
    }
}

fn unknown(code: &str) -> String {
    let codes: Vec<&str> = LANGUAGES.iter().map(|language| language.code).collect();
    format!("`{code}` is none of the languages that are known: {}", codes.join(", "))
}

impl Consistency {
    /// The wanted language of the row, or why it is not known.
    fn target(&self, group: &Group) -> Result<&'static Language, String> {
        let code = match (&self.language, &self.field) {
            (Some(code), _) => code,
            (None, Some(name)) => {
                let column = group.fields.iter().find(|field| field.0 == *name);
                &column.ok_or_else(|| format!("the row has no field `{name}`"))?.1
            }
            (None, None) => return Err("no language is configured".into()),
        };
        scripts::find(code.trim()).ok_or_else(|| unknown(code.trim()))
    }
}

impl Verifier for Consistency {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let target = match self.target(group) {
            Ok(target) => target,
            Err(reason) => return Verdict::Undecided(reason),
        };
        let rivals: Vec<&Language> = match self.by {
            By::Script => Vec::new(),
            By::Sentence => self.rivals.iter().filter_map(|code| scripts::find(code)).collect(),
        };
        let text = read(&self.read, &completion.text).unwrap_or_default();
        let (inside, all) = words::count(text, target, &rivals);
        // A text without words is in no language.
        let share = if all == 0 { 0.0 } else { inside as f64 / all as f64 };
        let note = match all {
            0 => Some("no words".into()),
            _ if inside < all => Some(format!("{} of {all} words are not in {}", all - inside, target.code)),
            _ => None,
        };
        let metrics = vec![("words".into(), all as f64)];
        Verdict::Decided(Finding { score: share, answer: None, metrics, note })
    }
}

pipeline_plugin::verifier!(Consistency);
