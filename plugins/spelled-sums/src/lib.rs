//! Additions asked in English or Chinese and worked in number words, column by column, in texts as clean or as noisy as
//! the config says: what a model needs to learn in miniature what DeepSeek-R1 (arXiv 2501.12948) learns at large.

mod trace;
mod words;

use pipeline_plugin::{Config, ConfigError, Context, Generator, Message, Row};
use procedural::{Stream, Sums, guess};
use trace::Habits;
use words::{CHINESE, ENGLISH, Language};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
struct SpelledSums {
    #[serde(flatten)]
    sums: Sums,
    #[serde(default)]
    language: Asked,
    #[serde(flatten)]
    habits: Habits,
    #[serde(default)]
    forms: Forms,
}

/// The language that is asked in.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Asked {
    En,
    Zh,
    #[default]
    Both,
}

/// How often a response has each form, relative to the others.
#[derive(Clone, Copy, Default, serde::Deserialize)]
#[serde(default)]
struct Forms {
    /// The trace in `<think>`, the sum in `<answer>`.
    tagged: f64,
    /// The same with one of the tags missing.
    half_tagged: f64,
    /// The trace and the sum without tags.
    untagged: f64,
    /// The same between words that say nothing.
    chatty: f64,
    /// The sum at once, in half of the cases with a wrong digit.
    guess: f64,
    /// Words that say nothing.
    chatter: f64,
}

impl Forms {
    fn weights(&self) -> [f64; 6] {
        [self.tagged, self.half_tagged, self.untagged, self.chatty, self.guess, self.chatter]
    }
}

impl Config for SpelledSums {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        let error = |message| ConfigError { path: "/count".into(), message };
        self.sums.refusal().map(error).into_iter().collect()
    }
}

impl SpelledSums {
    fn language(&self, random: &mut Stream) -> &'static Language {
        match self.language {
            Asked::En => &ENGLISH,
            Asked::Zh => &CHINESE,
            Asked::Both if random.below(2) == 0 => &ENGLISH,
            Asked::Both => &CHINESE,
        }
    }

    /// A text in one of the forms.
    fn response(&self, a: u64, b: u64, language: &'static Language, random: &mut Stream) -> String {
        let weights = self.forms.weights();
        let all: f64 = weights.iter().sum();
        let mut left = random.uniform() * all;
        // All forms at 0 are the default: tagged.
        let form = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let (trace, sum) = self.habits.trace(a, b, self.sums.digits, language, random);
        match form {
            None | Some(0) => format!("<think>{trace}</think><answer>{sum}</answer>"),
            Some(1) if random.below(2) == 0 => format!("<think>{trace}</think>{sum}"),
            Some(1) => format!("{trace}<answer>{sum}</answer>"),
            Some(2) => format!("{trace}={sum}"),
            Some(3) => format!("{}{trace}={sum}{}", language.chatter(random), language.chatter(random)),
            Some(4) => guess(a + b, random).to_string(),
            Some(_) => (0..1 + random.below(3)).map(|_| language.chatter(random)).collect(),
        }
    }
}

impl Generator for SpelledSums {
    fn row(&self, ctx: &Context, index: u64) -> Result<Row, String> {
        let (a, b) = self.sums.problem(ctx.seed, index)?;
        let mut random = Stream::new(ctx.seed, index);
        let language = self.language(&mut random);
        let response = self.response(a, b, language, &mut random);
        Ok(Row {
            prompt: vec![Message { role: "user".into(), content: format!("{}{a}+{b}?", language.ask) }],
            reference: Some((a + b).to_string()),
            fields: vec![("response".into(), response), ("language".into(), language.code.into())],
        })
    }
}

pipeline_plugin::generator!(SpelledSums);
