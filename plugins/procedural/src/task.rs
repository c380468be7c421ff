use std::ops::RangeInclusive;

use pipeline_plugin::{
    Completion, Config, ConfigError, Context, Finding, Generator, Group, Message, Row, Verdict, Verifier,
};
use serde::de::DeserializeOwned;

use crate::random::Stream;
use crate::split::Split;
use crate::template;

/// Puzzles that a family is asked to draw for one row before it gives up.
const DRAWS: u32 = 2_000;

/// The bytes of an answer that are read: far more than any puzzle's has, so that no completion spends the budget.
const ANSWER: usize = 4_000;

/// A family of puzzles. The type itself is what its config says beyond the keys of every family.
pub trait Family: DeserializeOwned + 'static {
    /// The JSON Schema of the config, the keys of every family included.
    const SCHEMA: &'static str;
    /// The difficulties there are, from easy to hard.
    const LEVELS: RangeInclusive<u32>;
    /// The prompt, with `{placeholders}`: those of [`Family::words`], and `{think}` and `{answer}`, the names of the tags.
    const PROMPT: &'static str;
    /// The names of the family's own placeholders.
    const PLACEHOLDERS: &'static [&'static str];
    /// What is asked, as the verifier needs it.
    type Puzzle: serde::Serialize + DeserializeOwned;

    /// Objections to the config that its schema can't express.
    fn check(&self) -> Vec<ConfigError> {
        Vec::new()
    }

    /// A puzzle of a difficulty, or `None` if this draw came to nothing. Those of the other split are thrown away, so a family
    /// whose puzzles are costly may look at the split early.
    fn draw(&self, level: u32, random: &mut Stream, split: Split) -> Option<Self::Puzzle>;

    /// What makes two puzzles the same problem, for the split.
    fn key(&self, puzzle: &Self::Puzzle) -> String;

    /// The values of [`Family::PLACEHOLDERS`], in their order.
    fn words(&self, puzzle: &Self::Puzzle) -> Vec<String>;

    /// A chain of thought and the answer that it comes to.
    fn solve(&self, puzzle: &Self::Puzzle) -> Solution;

    /// What stands between the answer's tags, judged.
    fn judge(&self, puzzle: &Self::Puzzle, answer: &str) -> Judged;

    /// Whether a row's puzzle is one: `key`, `words`, `solve` and `judge` are asked of no other.
    fn is_sound(&self, _puzzle: &Self::Puzzle) -> bool {
        true
    }

    /// The puzzle of a row that no generator made, by the columns of a published dataset. `None`: the row has none of them.
    fn puzzle_of(&self, _fields: &[(String, String)]) -> Option<Result<Self::Puzzle, String>> {
        None
    }
}

/// A worked example.
pub struct Solution {
    /// The steps that lead to the answer.
    pub thought: String,
    /// The answer, as it is to stand between its tags.
    pub answer: String,
}

/// What a family says of an answer.
#[derive(Debug, PartialEq)]
pub enum Judged {
    /// It solves the puzzle; its canonical form.
    Right(String),
    /// It is an answer, and wrong; its canonical form, and why it is wrong.
    Wrong(String, String),
    /// It can't be read as an answer; why not.
    Malformed(String),
}

/// A family as a plugin.
#[derive(serde::Deserialize)]
pub struct Task<F> {
    #[serde(default)]
    split: Split,
    #[serde(default)]
    difficulty: Difficulty,
    prompt: Option<String>,
    #[serde(default = "think")]
    think: String,
    #[serde(default = "answer")]
    answer: String,
    #[serde(default)]
    format_score: f64,
    #[serde(flatten)]
    family: F,
}

fn think() -> String {
    "think".into()
}

fn answer() -> String {
    "answer".into()
}

/// One difficulty, or any from the first to the second.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(untagged)]
enum Difficulty {
    One(u32),
    Range([u32; 2]),
}

impl Default for Difficulty {
    fn default() -> Self {
        Self::One(1)
    }
}

impl Difficulty {
    fn bounds(self) -> [u32; 2] {
        match self {
            Self::One(level) => [level, level],
            Self::Range(bounds) => bounds,
        }
    }
}

impl<F: Family> Config for Task<F> {
    const SCHEMA: &'static str = F::SCHEMA;

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = self.family.check();
        let [low, high] = self.difficulty.bounds();
        if low > high {
            errors.push(ConfigError { path: "/difficulty".into(), message: format!("{low} is above {high}") });
        }
        let known = || F::PLACEHOLDERS.iter().copied().chain(["think", "answer"]);
        for name in template::placeholders(self.template()) {
            if !known().any(|known| known == name) {
                let names: Vec<String> = known().map(|name| format!("{{{name}}}")).collect();
                let message = format!("there is no {{{name}}}; there are {}", names.join(", "));
                errors.push(ConfigError { path: "/prompt".into(), message });
            }
        }
        errors
    }
}

impl<F: Family> Task<F> {
    /// The family, as the config says it.
    #[cfg(feature = "check")]
    pub(crate) fn family(&self) -> &F {
        &self.family
    }

    fn template(&self) -> &str {
        self.prompt.as_deref().unwrap_or(F::PROMPT)
    }

    fn draw(&self, seed: u64, index: u64) -> Result<(u32, F::Puzzle), String> {
        let mut random = Stream::new(seed, index);
        let [low, high] = self.difficulty.bounds();
        let level = random.between(low.into(), high.into()) as u32;
        for _ in 0..DRAWS {
            let puzzle = self.family.draw(level, &mut random, self.split);
            if let Some(puzzle) = puzzle.filter(|puzzle| self.split.has(&self.family.key(puzzle))) {
                return Ok((level, puzzle));
            }
        }
        Err(format!("row {index}: none of {DRAWS} puzzles of difficulty {level} fits the config; allow more of them"))
    }

    fn prompt(&self, puzzle: &F::Puzzle) -> String {
        let words = self.family.words(puzzle);
        template::fill(self.template(), |name| match name {
            "think" => Some(&self.think),
            "answer" => Some(&self.answer),
            _ => F::PLACEHOLDERS.iter().zip(&words).find(|(known, _)| **known == name).map(|(_, word)| word.as_str()),
        })
    }

    /// The puzzle that a row asks.
    fn puzzle(&self, fields: &[(String, String)]) -> Result<F::Puzzle, String> {
        let puzzle = match fields.iter().find(|(name, _)| name == "puzzle") {
            Some((_, json)) => {
                serde_json::from_str(json).map_err(|error| format!("the field `puzzle` can't be read: {error}"))?
            }
            None => self
                .family
                .puzzle_of(fields)
                .unwrap_or_else(|| Err("the row has no field `puzzle`, which its generator gives it".into()))?,
        };
        if self.family.is_sound(&puzzle) { Ok(puzzle) } else { Err("the row's puzzle is none of this family".into()) }
    }
}

impl<F: Family> Generator for Task<F> {
    fn row(&self, ctx: &Context, index: u64) -> Result<Row, String> {
        let (level, puzzle) = self.draw(ctx.seed, index)?;
        let Solution { thought, answer } = self.family.solve(&puzzle);
        let json = serde_json::to_string(&puzzle).map_err(|error| error.to_string())?;
        let (think, tag) = (&self.think, &self.answer);
        let response = format!("<{think}>{thought}</{think}><{tag}>{answer}</{tag}>");
        Ok(Row {
            prompt: vec![Message { role: "user".into(), content: self.prompt(&puzzle) }],
            reference: Some(answer),
            fields: vec![
                ("difficulty".into(), level.to_string()),
                ("puzzle".into(), json),
                ("response".into(), response),
            ],
        })
    }
}

impl<F: Family> Verifier for Task<F> {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let puzzle = match self.puzzle(&group.fields) {
            Ok(puzzle) => puzzle,
            Err(reason) => return Verdict::Undecided(reason),
        };
        let finding = |score, answer, note| Verdict::Decided(Finding { score, answer, metrics: Vec::new(), note });
        let Some(text) = tagged(&completion.text, &self.answer) else {
            return finding(0.0, None, Some(format!("no <{0}>..</{0}>", self.answer)));
        };
        if text.len() > ANSWER {
            let note = format!("an answer of more than {ANSWER} bytes is not read");
            return finding(self.format_score, None, Some(note));
        }
        match self.family.judge(&puzzle, text.trim()) {
            Judged::Right(answer) => finding(1.0, Some(answer), None),
            Judged::Wrong(answer, why) => finding(self.format_score, Some(answer), Some(why)),
            Judged::Malformed(why) => finding(self.format_score, None, Some(why)),
        }
    }
}

/// What the last `<name>..</name>` holds.
pub fn tagged<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let end = rfind(text, &format!("</{name}>"))?;
    let open = format!("<{name}>");
    let start = rfind(&text[..end], &open)? + open.len();
    Some(&text[start..end])
}

/// Where a tag stands last. Its first and its last byte are looked at before the rest: std's search, which is made for long marks,
/// costs six times as much.
fn rfind(text: &str, mark: &str) -> Option<usize> {
    let (text, mark) = (text.as_bytes(), mark.as_bytes());
    let ([first, ..], [.., last]) = (mark, mark) else { return None };
    let is_there = |window: &[u8]| window.first() == Some(first) && window.last() == Some(last) && window == mark;
    text.windows(mark.len()).rposition(is_there)
}

/// A word as notes quote it: its beginning, with nothing that a terminal would obey.
pub fn quoted(word: &str) -> String {
    let short: String = word.chars().take(20).collect();
    format!("`{}{}`", short.escape_debug(), if short.len() < word.len() { ".." } else { "" })
}
