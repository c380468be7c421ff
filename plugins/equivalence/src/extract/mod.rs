//! Where the final answer stands in a text, and what it is.
//!
//! The targets `latex`, `expr` and `choice` are math-verify's: formulas, arithmetic and letters compete by priority (after
//! "final answer is", in a box, after "answer:", after "answer", anywhere), and among equals the one that ends last is tried
//! first. The other targets look for a mark of their own.

pub mod boxed;
mod choice;
mod latex;
mod plain;
mod prioritised;
mod reading;
mod scan;

use crate::tree::Node;
use common::bytes::rfind;
use prioritised::prioritised;
pub use reading::fingerprint;
use reading::{formula, number, read_boxed, read_plain};
pub use scan::{find_ignoring_case, rfind_ignoring_case};

/// A place where an answer may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Formulas, boxed or in an environment.
    Latex,
    /// Numbers and arithmetic outside of formulas.
    Expr,
    /// The strings of the config, as words of their own.
    Choice,
    /// The last box, whatever stands around it.
    Boxed,
    /// The last `<answer>..</answer>`.
    AnswerTag,
    /// What follows the last `####`.
    Hashes,
    /// What follows the last "the answer is" or "answer:".
    Phrase,
    /// The last `[..]`.
    Brackets,
    /// The last number.
    LastNumber,
    /// The whole text.
    Whole,
}

/// Where to look, and in which order.
#[derive(Clone, Debug)]
pub struct Extraction {
    /// In order; neighbours of `latex`, `expr` and `choice` are looked for together.
    pub targets: Vec<Target>,
    /// The priority of boxes among the formulas: 0 before all, 50 beside "final answer is", none if negative.
    pub boxed_priority: i32,
    /// What `choice` looks for.
    pub choices: Vec<String>,
    /// Whether only the first candidate is tried.
    pub takes_first: bool,
}

impl Default for Extraction {
    fn default() -> Self {
        Self {
            targets: vec![Target::Latex, Target::Expr],
            boxed_priority: 50,
            choices: ["A", "B", "C", "D"].map(String::from).to_vec(),
            takes_first: false,
        }
    }
}

/// An answer that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What it is, if it is a formula.
    pub node: Option<Node>,
    /// As it was written, without what only styles it.
    pub text: String,
}

impl Answer {
    /// Reads a text as a whole.
    pub fn whole(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        // What went through a string literal too often, or once too seldom.
        let repaired = if text.contains("\\\\begin{") {
            text.replace("\\\\", "\\")
        } else if text.contains("\u{c}rac") {
            text.replace("\u{c}rac", "\\frac")
        } else {
            text.to_owned()
        };
        Some(Self { node: number(&repaired).or_else(|| formula(&repaired)), text: repaired })
    }

    /// The text in a form that does not depend on spaces and styling commands.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.text)
    }
}

/// The answer of a text, by the first target that finds one.
pub fn extract(text: &str, extraction: &Extraction) -> Option<Answer> {
    let mut i = 0;
    while i < extraction.targets.len() {
        let is_prioritised = |target: &Target| matches!(target, Target::Latex | Target::Expr | Target::Choice);
        let found = if is_prioritised(&extraction.targets[i]) {
            let count = extraction.targets[i..].iter().take_while(|target| is_prioritised(target)).count();
            i += count;
            prioritised(text, &extraction.targets[i - count..i], extraction)
        } else {
            i += 1;
            marked(text, extraction.targets[i - 1])
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn marked(text: &str, target: Target) -> Option<Answer> {
    match target {
        Target::Boxed => {
            let contents = boxed::last_answer(text);
            (!contents.is_empty()).then(|| read_boxed(&contents))
        }
        Target::AnswerTag => inside(tag(text, "answer")?),
        Target::Hashes => {
            let rest = &text[rfind(text, "####")? + 4..];
            inside(rest.lines().next()?)
        }
        Target::Phrase => inside(after_phrase(text)?),
        Target::Brackets => {
            let close = rfind(text, "]")?;
            let open = rfind(&text[..close], "[")?;
            inside(&text[open + 1..close])
        }
        Target::LastNumber => {
            let found = plain::all(text, plain::number).pop()?;
            read_plain(found.plain)
        }
        Target::Whole => Answer::whole(text),
        Target::Latex | Target::Expr | Target::Choice => None,
    }
}

/// What the last tag of this name holds.
pub fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let close = rfind(text, &format!("</{name}>"))?;
    let open = format!("<{name}>");
    let start = rfind(&text[..close], &open)? + open.len();
    Some(text[start..close].trim())
}

/// What stands on the line after the last phrase that announces an answer.
fn after_phrase(text: &str) -> Option<&str> {
    let start = ["the answer is", "answer is", "answer:"]
        .iter()
        .filter_map(|phrase| Some(rfind_ignoring_case(text, phrase)? + phrase.len()))
        .max()?;
    let rest = text[start..].trim_start_matches([':', ' ', '*']);
    let line = rest.lines().next()?;
    // A sentence ends before the next one.
    let end = line.find(". ").unwrap_or(line.len());
    Some(line[..end].trim_end_matches(['.', '*', ' ']))
}

/// Reads what a mark encloses: as a whole if it is a formula, or else what is to be found in it.
fn inside(text: &str) -> Option<Answer> {
    let has_marks = text.contains(['$']) || text.contains("\\boxed") || text.contains("\\(") || text.contains("\\[");
    if !has_marks && let Some(whole) = Answer::whole(text).filter(|whole| whole.node.is_some()) {
        return Some(whole);
    }
    prioritised(text, &[Target::Latex, Target::Expr], &Extraction { boxed_priority: 0, ..Extraction::default() })
        .filter(|answer| answer.node.is_some())
        .or_else(|| Answer::whole(text))
}
