//! Whether an answer is the reference, letter by letter or after what does not matter is taken away.

mod normalize;

use common::places::{Place, Without, after, read};
use normalize::{Steps, normalize};
use pipeline_plugin::{Completion, Config, Context, Finding, Group, Verdict, Verifier};

/// How an answer is held against a reference.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Compare {
    Equal,
    Contains,
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Exact {
    after_mark: Option<String>,
    without_mark: Without,
    last: Option<usize>,
    read: Vec<Place>,
    normalize: Steps,
    compare: Compare,
    field: Option<String>,
    several: bool,
}

impl Default for Exact {
    fn default() -> Self {
        Self {
            after_mark: None,
            without_mark: Without::default(),
            last: None,
            read: vec![Place::Tag("answer".into()), Place::Boxed, Place::Whole],
            normalize: Steps::default(),
            compare: Compare::Equal,
            field: None,
            several: false,
        }
    }
}

impl Config for Exact {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {"#,
        common::mark_schema!(),
        ",",
        common::read_schema!(),
        r#",
            "normalize": {
              "description": "What does not matter: a list of steps, or squad or alphanumeric. Default: trim.",
              "oneOf": [
                { "enum": ["squad", "alphanumeric"] },
                {
                  "type": "array",
                  "uniqueItems": true,
                  "items": { "enum": ["trim", "case", "punctuation", "articles", "whitespace", "alphanumeric"] }
                }
              ]
            },
            "compare": {
              "enum": ["equal", "contains"],
              "description": "Whether the answer must be a reference or only contain it. Default: equal."
            },
            "field": {
              "type": "string",
              "minLength": 1,
              "description": "The column that holds the reference. Default: the row's reference."
            },
            "last": {
              "type": "integer",
              "minimum": 1,
              "description": "Only so many characters at the end are read, as DAPO reads 300. Default: all."
            },
            "several": {
              "type": "boolean",
              "description": "Whether it is a JSON list of strings, of which any may be the answer. Default: false."
            }
        } }"#
    );
}

impl Exact {
    /// The references, normalised, or why there are none.
    fn references(&self, group: &Group) -> Result<Vec<String>, String> {
        let text = match &self.field {
            Some(name) => match group.fields.iter().find(|field| field.0 == *name) {
                Some((_, value)) => value.as_str(),
                None => return Err(format!("the row has no field `{name}`")),
            },
            None => group.reference.as_deref().ok_or("the row has no reference")?,
        };
        let references = if self.several {
            serde_json::from_str::<Vec<String>>(text).map_err(|_| "the references are no JSON list of strings")?
        } else {
            vec![text.to_owned()]
        };
        let references: Vec<String> = references.iter().map(|text| normalize(text, &self.normalize)).collect();
        if references.is_empty() {
            return Err("the row has no reference".into());
        }
        // Every text contains nothing: such a reference would make all answers right.
        if self.compare == Compare::Contains && references.iter().any(String::is_empty) {
            return Err("nothing is left of a reference after normalising".into());
        }
        Ok(references)
    }
}

/// The last characters of a text.
fn last(text: &str, count: usize) -> &str {
    let start = text.char_indices().rev().take(count).last().map_or(text.len(), |(at, _)| at);
    &text[start..]
}

impl Verifier for Exact {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let references = match self.references(group) {
            Ok(references) => references,
            Err(reason) => return Verdict::Undecided(reason),
        };
        let found = after(&completion.text, self.after_mark.as_deref(), self.without_mark)
            .and_then(|text| read(&self.read, self.last.map_or(text, |count| last(text, count))))
            .map(|answer| normalize(answer, &self.normalize));
        let is_right = found.as_ref().is_some_and(|answer| match self.compare {
            Compare::Equal => references.contains(answer),
            Compare::Contains => references.iter().any(|reference| common::bytes::find(answer, reference).is_some()),
        });
        let note = match &found {
            None => Some("no answer found".into()),
            Some(_) if is_right => None,
            Some(_) => Some(format!("expected {}", references.join(" or "))),
        };
        Verdict::Decided(Finding { score: f64::from(is_right), answer: found, metrics: Vec::new(), note })
    }
}

pipeline_plugin::verifier!(Exact);
