//! The share of a text's words that are in a wanted language, as a config says which: what the verifier `language` and the filter
//! `language-mixing` share.

mod scripts;
mod words;

use pipeline_plugin::{ConfigError, Group};
pub use scripts::Language;
use scripts::{LANGUAGES, find};

/// The wanted language of a config, and how a word's language is told.
#[derive(serde::Deserialize)]
pub struct Target {
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    by: By,
    #[serde(default = "default_rivals")]
    rivals: Vec<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum By {
    /// By its script, and by its sentence's language where languages share the script.
    #[default]
    Sentence,
    /// By its script alone.
    Script,
}

/// The languages that chains of thought drift into most, of those that share a script.
fn default_rivals() -> Vec<String> {
    ["en", "de", "fr", "es", "pt", "it", "nl", "ru", "uk", "ar", "fa", "hi", "mr"].map(Into::into).into()
}

/// The properties of a [`Target`] in a config's JSON Schema.
#[macro_export]
macro_rules! target_schema {
    () => {
        r#"
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
            }"#
    };
}

impl Target {
    /// Objections that the schema can't express.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut error = |path: String, message: String| errors.push(ConfigError { path, message });
        match (&self.language, &self.field) {
            (Some(code), None) if find(code).is_none() => error("/language".into(), unknown(code)),
            (Some(_), None) | (None, Some(_)) => {}
            (Some(_), Some(_)) => error("/field".into(), "give `language` or `field`, not both".into()),
            (None, None) => error(String::new(), "`language` or `field` is required".into()),
        }
        for (i, code) in self.rivals.iter().enumerate().filter(|(_, code)| find(code).is_none()) {
            error(format!("/rivals/{i}"), unknown(code));
        }
        errors
    }

    /// The wanted language of the row, or why it is not known.
    pub fn of(&self, group: &Group) -> Result<&'static Language, String> {
        let code = match (&self.language, &self.field) {
            (Some(code), _) => code,
            (None, Some(name)) => {
                let column = group.fields.iter().find(|field| field.0 == *name);
                &column.ok_or_else(|| format!("the row has no field `{name}`"))?.1
            }
            (None, None) => return Err("no language is configured".into()),
        };
        find(code.trim()).ok_or_else(|| unknown(code.trim()))
    }

    /// How many words of a text are in the language, and how many words it has.
    pub fn count(&self, text: &str, language: &Language) -> (usize, usize) {
        let rivals: Vec<&Language> = match self.by {
            By::Script => Vec::new(),
            By::Sentence => self.rivals.iter().filter_map(|code| find(code)).collect(),
        };
        words::count(text, language, &rivals)
    }
}

fn unknown(code: &str) -> String {
    let codes: Vec<&str> = LANGUAGES.iter().map(|language| language.code).collect();
    format!("`{code}` is none of the languages that are known: {}", codes.join(", "))
}
