//! Whether a completion thinks inside one pair of tags and answers inside another.

mod conventions;

use conventions::{Convention, Tags};
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};

/// The config as it is written.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    think: String,
    answer: String,
    convention: Convention,
    code: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { think: "think".into(), answer: "answer".into(), convention: Convention::default(), code: None }
    }
}

/// The plugin: its config with the marks that it looks for spelled out, once for all completions of a call.
#[derive(serde::Deserialize)]
#[serde(from = "Settings")]
struct Format {
    think: Tags,
    answer: Tags,
    convention: Convention,
    fence: Option<String>,
    has_code: bool,
    note: String,
}

impl From<Settings> for Format {
    fn from(settings: Settings) -> Self {
        let (think, answer) = (Tags::new(&settings.think), Tags::new(&settings.answer));
        let code = settings.code.as_deref().filter(|_| settings.convention.has_answer());
        let fence = code.map(|language| format!("```{language}"));
        let note = settings.convention.describe(&think, &answer, fence.as_deref());
        Self { think, answer, convention: settings.convention, fence, has_code: settings.code.is_some(), note }
    }
}

impl Config for Format {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.think.open == self.answer.open {
            let message = "the thought and the answer have the same tag".into();
            errors.push(ConfigError { path: "/answer".into(), message });
        }
        if self.has_code && self.fence.is_none() {
            let message = "this convention has no place for code: strict, lenient and open_r1 have one".into();
            errors.push(ConfigError { path: "/code".into(), message });
        }
        errors
    }
}

impl Verifier for Format {
    fn verify(&self, _: &Context, _: &Group, completion: &Completion) -> Verdict {
        let score = self.convention.score(&completion.text, &self.think, &self.answer, self.fence.as_deref());
        let note = (score < 1.0).then(|| self.note.clone());
        Verdict::Decided(Finding { score, answer: None, metrics: Vec::new(), note })
    }
}

pipeline_plugin::verifier!(Format);
