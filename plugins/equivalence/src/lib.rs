//! Does the final answer of a completion equal the reference?
//!
//! [`extract`](extract::extract) finds the answer in a text, [`parse`] reads LaTeX or plain text as a tree, [`compare`] holds
//! two trees against each other: exactly where that is possible, by value at fixed points otherwise. [`equal`] does all
//! of it. The rules are math-verify's unless the [`Config`] names another [`Convention`].
//!
//! Nothing here panics, whatever a text holds, and the cost of a comparison grows with the length of the texts alone: numbers,
//! polynomials, sums and depths are bounded, and what exceeds the bounds is compared by its form or not decided.
//!
//! This crate does not know who asks, what a reward is, or what a problem was: only two texts.

mod atoms;
mod calls;
pub mod canonical;
pub mod compare;
mod complex;
mod config;
pub mod conventions;
mod dropped;
pub mod extract;
mod lexer;
mod linear;
mod numerals;
mod numeric;
mod parser;
mod postfix;
mod print;
mod relations;
mod sets;
mod signs;
pub mod tree;
mod words;

pub use compare::{Comparison, Proof, Settings, compare};
pub use config::{Config, Percent, Reading, Variables};
pub use conventions::Convention;
pub use extract::{Answer, Extraction, Target};
pub use numeric::Domain;
pub use parser::parse;
pub use print::print;

/// Whether the answer in `completion` equals the reference.
pub fn equal(reference: &str, completion: &str, config: &Config) -> Comparison {
    let read = common::places::after(completion, config.after_mark.as_deref(), config.without_mark);
    let Some(completion) = read else { return Comparison::Different };
    if let Some(judged) = config.convention.judge(completion, reference) {
        return judged.comparison;
    }
    let extraction = config.extraction();
    let Some(reference) = read_reference(reference, &extraction, config.reference) else { return Comparison::Unknown };
    match extract::extract(completion, &extraction) {
        Some(answer) => equal_answers(&reference, &answer, &config.settings()),
        None => Comparison::Different,
    }
}

/// The answer that a reference is: a formula as a whole, what follows GSM8K's `####`, or what is found in a solution.
pub fn read_reference(text: &str, extraction: &Extraction, reading: Reading) -> Option<Answer> {
    let text = text.trim();
    let found = || extract::extract(text, extraction);
    match reading {
        Reading::Whole => return Answer::whole(text),
        Reading::Extract => return found(),
        Reading::Auto => {}
    }
    if let Some(at) = common::bytes::rfind(text, "####") {
        return Answer::whole(&text[at + 4..]);
    }
    let holds = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
    let is_prose = holds(&["\\boxed", "\\fbox", "\\(", "\\["]) || text.bytes().filter(|byte| *byte == b'$').count() > 1;
    if is_prose && let Some(answer) = found() {
        return Some(answer);
    }
    let whole = Answer::whole(text)?;
    // A formula that can't be read is compared as a text: a number within it is not the answer.
    if whole.node.is_some() || text.contains('\\') {
        return Some(whole);
    }
    found().or(Some(whole))
}

/// Compares two answers: as formulas, or as texts where one is none.
pub fn equal_answers(reference: &Answer, answer: &Answer, settings: &Settings) -> Comparison {
    let is_same_text = || !reference.text.is_empty() && reference.fingerprint() == answer.fingerprint();
    let comparison = match (&reference.node, &answer.node) {
        (Some(ours), Some(theirs)) => compare(ours, theirs, settings),
        (None, _) => Comparison::Unknown,
        (Some(_), None) => Comparison::Different,
    };
    if comparison.is_equal() || !is_same_text() { comparison } else { Comparison::Equal(Proof::Exact) }
}
