//! The component: one reference, many completions.

use equivalence::{Answer, Comparison, Config, Extraction, Proof, Settings, Target};
use equivalence::{equal_answers, extract, print, read_reference};
use pipeline_plugin::{Completion, ConfigError, Context, Finding, Group, Verdict, Verifier};

/// The plugin, and what it works out of its config once.
#[derive(serde::Deserialize)]
#[serde(from = "Config")]
struct Math {
    config: Config,
    extraction: Extraction,
    settings: Settings,
    /// The reference of the group that is being judged, which is the same for all its completions.
    reference: std::cell::RefCell<Option<(String, Option<Answer>)>>,
}

impl From<Config> for Math {
    fn from(config: Config) -> Self {
        let (extraction, settings) = (config.extraction(), config.settings());
        Self { config, extraction, settings, reference: std::cell::RefCell::default() }
    }
}

impl pipeline_plugin::Config for Math {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let targets = &self.extraction.targets;
        for (i, target) in targets.iter().enumerate() {
            if *target == Target::Whole && i + 1 < targets.len() {
                let message = "`whole` takes any text: what stands after it is never tried".into();
                errors.push(ConfigError { path: format!("/extract/{i}"), message });
            }
        }
        if self.config.is_textual() {
            let config = &self.config;
            let given = [
                ("extract", config.extract.is_some()),
                ("boxed_priority", config.boxed_priority.is_some()),
                ("choices", config.choices.is_some()),
                ("precision", config.precision.is_some()),
                ("tolerance", config.tolerance.is_some()),
                ("strict", config.strict.is_some()),
                ("allow_set_relation_comp", config.allow_set_relation_comp.is_some()),
                ("percent", config.percent.is_some()),
                ("ordered_lists", config.ordered_lists.is_some()),
                ("vectors_as_lists", config.vectors_as_lists.is_some()),
                ("variables", config.variables.is_some()),
            ];
            for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
                let message = "the convention has its own rule for this: leave it out, or choose `math_verify`".into();
                errors.push(ConfigError { path: format!("/{key}"), message });
            }
        }
        errors
    }
}

impl Verifier for Math {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let Some(text) = group.reference.as_deref() else {
            return Verdict::Undecided("the row has no reference".into());
        };
        let Config { after_mark, without_mark, .. } = &self.config;
        let read = common::places::after(&completion.text, after_mark.as_deref(), *without_mark);
        // A thought without an end has no answer, but whether the reference can be read comes first.
        if let Some(judged) = self.config.convention.judge(read.unwrap_or_default(), text) {
            return self.finding(judged.comparison, judged.answer, None);
        }
        let mut cached = self.reference.borrow_mut();
        if cached.as_ref().is_none_or(|(known, _)| known != text) {
            *cached = Some((text.to_owned(), read_reference(text, &self.extraction, self.config.reference)));
        }
        let Some((_, Some(reference))) = cached.as_ref() else {
            return Verdict::Undecided("the reference holds no answer".into());
        };
        let Some(answer) = read.and_then(|text| extract::extract(text, &self.extraction)) else {
            return self.finding(Comparison::Different, None, Some("no answer found".into()));
        };
        let comparison = equal_answers(reference, &answer, &self.settings);
        let canonical = answer.node.as_ref().and_then(print).unwrap_or_else(|| shortened(&answer.text));
        let why = (reference.node.is_none()).then(|| "the reference is no formula that can be read".to_owned());
        self.finding(comparison, Some(canonical), why)
    }
}

impl Math {
    fn finding(&self, comparison: Comparison, answer: Option<String>, why: Option<String>) -> Verdict {
        let (score, note) = match comparison {
            Comparison::Equal(Proof::Exact) => (1.0, None),
            Comparison::Equal(Proof::Rounded) => (1.0, Some("equal as rounded".into())),
            Comparison::Equal(Proof::Numeric) => (1.0, Some("equal by numeric evaluation only".into())),
            Comparison::Different => (0.0, why),
            Comparison::Unknown => {
                let reason = why.unwrap_or_else(|| "neither equality nor difference could be shown".into());
                return Verdict::Undecided(match answer {
                    Some(answer) => format!("{reason}; the answer is {answer}"),
                    None => reason,
                });
            }
        };
        Verdict::Decided(Finding { score, answer, metrics: Vec::new(), note })
    }
}

/// A text that is no formula, short enough to be shown.
fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

pipeline_plugin::verifier!(Math);
