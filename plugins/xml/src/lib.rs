//! How well a completion keeps to a list of XML fields: the format reward of verifiers' `XMLParser`.

use common::bytes::find;
use common::places::{blocks, tags};
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};

/// A field: its name, or the names that it may have.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Field {
    One(String),
    Any(Vec<String>),
}

impl Field {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Any(names) => names,
        }
    }
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Xml {
    fields: Vec<Field>,
    answer: String,
}

impl Default for Xml {
    fn default() -> Self {
        Self { fields: vec![Field::One("reasoning".into()), Field::One("answer".into())], answer: "answer".into() }
    }
}

impl Config for Xml {
    const SCHEMA: &str = r#"{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "fields": {
                "type": "array",
                "minItems": 1,
                "uniqueItems": true,
                "description": "The fields in their order, each a name or a list of names of which any will do. Default: reasoning, answer.",
                "items": {
                    "oneOf": [
                        { "type": "string", "pattern": "^[^<>/\\s]+$" },
                        { "type": "array", "minItems": 1, "uniqueItems": true, "items": { "type": "string", "pattern": "^[^<>/\\s]+$" } }
                    ]
                }
            },
            "answer": { "type": "string", "minLength": 1, "description": "The field that holds the answer. Default: answer." }
        }
    }"#;

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (i, field) in self.fields.iter().enumerate() {
            let first = &field.names()[..1];
            if self.fields[..i].iter().any(|earlier| &earlier.names()[..1] == first) {
                errors.push(ConfigError {
                    path: format!("/fields/{i}"),
                    message: "there is such a field already".into(),
                });
            }
        }
        errors
    }
}

/// The parts of the score, as verifiers weighs them. It also gives 0.2 for "spacing", which no text lacks.
const PRESENT: f64 = 0.4;
const SPACED: f64 = 0.2;
const BEGINS: f64 = 0.2;
const ENDS: f64 = 0.2;

impl Xml {
    fn score(&self, text: &str) -> f64 {
        let (mut present, mut has_any) = (0, false);
        for field in &self.fields {
            let is_parsed = field.names().iter().any(|name| blocks(text, name).next().is_some());
            let is_named = || {
                let has = |name: &String| [tags(name).0, tags(name).1].iter().any(|tag| find(text, tag).is_some());
                field.names().iter().any(has)
            };
            has_any |= is_parsed;
            present += usize::from(is_parsed || is_named());
        }
        let names = |field: Option<&Field>| field.map(|field| field.names().to_vec()).unwrap_or_default();
        let begins = names(self.fields.first()).iter().any(|name| text.trim().starts_with(&tags(name).0));
        let ends = names(self.fields.last()).iter().any(|name| text.trim().ends_with(&tags(name).1));
        let mut score = SPACED;
        if has_any {
            score += PRESENT * present as f64 / self.fields.len() as f64;
        }
        if begins {
            score += BEGINS;
        }
        if ends {
            score += ENDS;
        }
        score
    }
}

impl Verifier for Xml {
    fn verify(&self, _: &Context, _: &Group, completion: &Completion) -> Verdict {
        let answer = blocks(&completion.text, &self.answer).last().map(|answer| answer.trim().to_owned());
        let note = answer.is_none().then(|| format!("no <{}>..</{}>", self.answer, self.answer));
        Verdict::Decided(Finding { score: self.score(&completion.text), answer, metrics: Vec::new(), note })
    }
}

pipeline_plugin::verifier!(Xml);

#[cfg(test)]
mod tests {
    use super::{Field, Xml};

    #[test]
    fn parts_add_up() {
        let check = |text, expected: f64| {
            let score = Xml::default().score(text);
            assert!((score - expected).abs() < 1e-12, "{text}: {score}");
        };
        check("<reasoning>a</reasoning><answer>b</answer>", 1.0);
        check("Just plain text", 0.2);
        check("x <reasoning>a</reasoning><answer>b</answer>", 0.8);
        check("<reasoning>a</reasoning>", 0.6);
        check("<reasoning>a</reasoning><answer>b", 0.8);
        check("<reasoning>a", 0.4);
        let any = Xml { fields: vec![Field::Any(vec!["code".into(), "answer".into()])], answer: "code".into() };
        assert!((any.score("<answer>b</answer>") - 1.0).abs() < 1e-12);
    }
}
