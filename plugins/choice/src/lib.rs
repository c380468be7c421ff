//! Which of the lettered choices a completion answers with, and whether it is the right one.

mod extract;
mod letters;

use extract::{Choices, Way};
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};

/// What the row's reference is.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reference {
    #[default]
    Letter,
    Index,
    Text,
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Choice {
    letters: Option<String>,
    choices: String,
    reference: Reference,
    extract: Vec<Way>,
    after_mark: Option<String>,
    without_mark: common::places::Without,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            letters: None,
            choices: "choices".into(),
            reference: Reference::Letter,
            extract: vec![Way::AnswerTag, Way::Boxed, Way::Label, Way::Phrase, Way::Start, Way::LastLetter],
            after_mark: None,
            without_mark: common::places::Without::default(),
        }
    }
}

impl Config for Choice {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {
            "letters": {
              "type": "string",
              "pattern": "^[A-Z]+$",
              "description": "The letters of the choices. Default: as many as the row has choices, or ABCD."
            },
            "choices": {
              "type": "string",
              "minLength": 1,
              "description": "The column with the texts of the choices, a list. Default: choices; it need not be there."
            },
            "reference": {
              "enum": ["letter", "index", "text"],
              "description": "What the row's reference is: a letter, a number from 0 on, or a choice's text. Default: letter."
            },
            "extract": {
              "type": "array",
              "minItems": 1,
              "uniqueItems": true,
              "description": "Where the choice is looked for, in order; the first mark that is there decides. Default: all, in this order.",
              "items": { "enum": ["answer_tag", "boxed", "label", "phrase", "start", "last_letter"] }
            },"#,
        common::mark_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (i, way) in self.extract.iter().enumerate() {
            if *way == Way::LastLetter && i + 1 < self.extract.len() {
                let message = "`last_letter` takes any letter: what stands after it is hardly ever tried".into();
                errors.push(ConfigError { path: format!("/extract/{i}"), message });
            }
        }
        errors
    }
}

/// The letters of a row that names neither letters nor choices.
const LETTERS: &str = "ABCD";
const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

impl Choice {
    /// The row's choices: their letters, and their texts where the row has them.
    fn choices(&self, group: &Group) -> Result<Choices, String> {
        let column = group.fields.iter().find(|field| field.0 == self.choices);
        let texts = match column {
            Some((name, value)) => serde_json::from_str::<Vec<String>>(value)
                .map_err(|_| format!("the column `{name}` is no list of strings"))?,
            None => Vec::new(),
        };
        let letters = match &self.letters {
            Some(letters) => letters.as_str(),
            None if texts.is_empty() => LETTERS,
            None => ALPHABET.get(..texts.len()).ok_or("the row has more than 26 choices")?,
        };
        if texts.len() > letters.len() {
            return Err(format!("the row has {} choices for {} letters", texts.len(), letters.len()));
        }
        Ok(Choices::new(letters, &texts))
    }

    /// The letter of the right choice, or why there is none.
    fn right(&self, group: &Group, choices: &Choices) -> Result<char, String> {
        let text = group.reference.as_deref().ok_or("the row has no reference")?.trim();
        let letter = match self.reference {
            Reference::Letter => choices.only_letter(text),
            Reference::Index => text.parse().ok().and_then(|index| choices.letter_at(index)),
            Reference::Text => choices.letter_of(text),
        };
        letter.ok_or_else(|| format!("the reference is none of the choices: {text}"))
    }
}

impl Verifier for Choice {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let row = self.choices(group).and_then(|choices| Ok((self.right(group, &choices)?, choices)));
        let (right, choices) = match row {
            Ok(row) => row,
            Err(reason) => return Verdict::Undecided(reason),
        };
        let text = common::places::after(&completion.text, self.after_mark.as_deref(), self.without_mark);
        let found = text.and_then(|text| extract::find(text, &self.extract, &choices));
        let (score, note) = match found {
            Some((way, Some(letter))) if letter == right => (1.0, format!("{letter} from {}, as expected", way.name())),
            Some((way, Some(letter))) => (0.0, format!("{letter} from {}, expected {right}", way.name())),
            Some((way, None)) => (0.0, format!("no choice in {}, expected {right}", way.name())),
            None => (0.0, format!("no choice found, expected {right}")),
        };
        let answer = found.and_then(|found| found.1).map(String::from);
        Verdict::Decided(Finding { score, answer, metrics: Vec::new(), note: Some(note) })
    }
}

pipeline_plugin::verifier!(Choice);
