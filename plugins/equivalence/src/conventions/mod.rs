//! The conventions of other graders, and their public helpers. They differ in what they take for an answer and in what
//! counts as equal, so that each is chosen by name.

pub mod hendrycks;
pub mod minerva;
pub mod others;

use crate::compare::{Comparison, Settings};
use crate::extract::{Answer, Extraction, Target};
use crate::numeric::Domain;

/// A grader whose verdicts are to be reproduced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// Hugging Face's math-verify.
    #[default]
    MathVerify,
    /// MARIO's math_evaluation: the whole text is the answer, decimals are near, units and `%` are dropped.
    Mario,
    /// Its first version: lists have an order.
    MarioOrdered,
    /// The last box, normalised and compared as text.
    Hendrycks,
    /// PRM800K's: the last box; a fraction must be reduced, an integer written as one.
    Prm800k,
    /// DAPO's: what follows "Answer:" in the last 300 characters, after Minerva's normalisation.
    Dapo,
    /// DAPO's strict form: the last box in the last 100 characters, to the letter.
    DapoStrict,
    /// GSM8K's: the number after `####`, to the letter.
    Gsm8k,
    /// Qwen2.5-Math's: the box, the phrase or the last number; decimals are near.
    Qwen25,
    /// The last `[..]`, or else the whole text, by math-verify's rules.
    Brackets,
    /// The letter after "Answer:", in any of the languages of simple-evals.
    Choice,
}

/// What a convention says of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Whether the answer is the reference's.
    pub comparison: Comparison,
    /// The answer that was found.
    pub answer: Option<String>,
}

impl Convention {
    /// Where it looks for an answer, as far as it uses this crate's own extraction.
    pub fn extraction(self) -> Extraction {
        let targets = match self {
            Self::Mario | Self::MarioOrdered => vec![Target::Whole],
            Self::Brackets => vec![Target::Brackets, Target::Latex, Target::Expr],
            _ => vec![Target::Latex, Target::Expr],
        };
        Extraction { targets, ..Extraction::default() }
    }

    /// What it takes for equal, as far as it uses this crate's own comparison.
    pub fn settings(self) -> Settings {
        match self {
            Self::Mario | Self::MarioOrdered => Settings {
                tolerance: 1e-3,
                ignores_percent: true,
                has_ordered_lists: self == Self::MarioOrdered,
                takes_vectors_as_lists: true,
                ignores_names: true,
                domain: Domain::Positive,
                ..Settings::default()
            },
            Self::Qwen25 => Settings { tolerance: 1e-4, ignores_percent: true, ..Settings::default() },
            _ => Settings::default(),
        }
    }

    /// The verdict of a convention that works on texts; `None` for one that works on formulas.
    pub fn judge(self, text: &str, reference: &str) -> Option<Judged> {
        let of = |is_equal: bool, answer: Option<String>| {
            let comparison =
                if is_equal { Comparison::Equal(crate::compare::Proof::Exact) } else { Comparison::Different };
            Some(Judged { comparison, answer })
        };
        match self {
            Self::MathVerify | Self::Brackets => None,
            Self::Mario | Self::MarioOrdered => {
                if others::has_glued_unit(text) != others::has_glued_unit(reference) {
                    return of(false, Some(text.trim().to_owned()));
                }
                let (ours, theirs) = (others::clock(reference)?, others::clock(text)?);
                of(ours == theirs, Some(text.trim().to_owned()))
            }
            Self::Hendrycks => {
                let inside = |text| hendrycks::last_boxed_only_string(text).and_then(hendrycks::remove_boxed);
                let reference = inside(reference).unwrap_or(reference);
                match inside(text) {
                    Some(answer) => of(hendrycks::is_equiv(answer, reference), Some(hendrycks::strip_string(answer))),
                    None => of(false, None),
                }
            }
            Self::Prm800k => {
                let (is_equal, answer) = others::grade_answer_verl(text, reference);
                of(is_equal, answer)
            }
            Self::Dapo | Self::DapoStrict => {
                let (is_equal, answer) = minerva::verify(text, reference, self == Self::DapoStrict);
                of(is_equal, answer)
            }
            Self::Gsm8k => {
                let answer = others::gsm8k_answer(text);
                of(answer.as_deref() == Some(reference.trim()), answer)
            }
            Self::Qwen25 => {
                let Some(answer) = others::qwen25_extract_answer(text) else { return of(false, None) };
                let comparison = match (Answer::whole(reference), Answer::whole(&answer)) {
                    (Some(ours), Some(theirs)) => crate::equal_answers(&ours, &theirs, &self.settings()),
                    _ => Comparison::Different,
                };
                Some(Judged { comparison, answer: Some(answer) })
            }
            Self::Choice => {
                let answer = others::multiple_choice_letter(text);
                of(answer.is_some_and(|letter| reference.trim() == letter.to_string()), answer.map(String::from))
            }
        }
    }
}
