//! What plugins are told and what they answer. The shapes are those of the WIT package `pipeline:plugin`.

use serde::{Deserialize, Serialize};

use crate::flow::Message;

/// All that a plugin may know beyond its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The step of the run.
    pub step: u64,
    /// A seed that depends on the run's seed and the stage; plugins mix ids into it.
    pub seed: u64,
    /// The limit on the tokens of a completion.
    pub max_tokens: u32,
    /// Whether the completions belong to an evaluation.
    pub evaluating: bool,
}

/// What a verifier found about one completion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Finite: 1 is fully right, 0 is wrong, a penalty may be negative.
    pub score: f64,
    /// The canonical extracted answer, which majority votes group by.
    pub answer: Option<String>,
    /// Numbers to be logged.
    pub metrics: Vec<(String, f64)>,
    /// Shown to whoever inspects the completion.
    pub note: Option<String>,
}

/// A verifier's answer for one completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The verifier could tell.
    Decided(Finding),
    /// The verifier could not tell, or failed; the text is the reason.
    Undecided(String),
    /// The stage does not cover the row's source.
    NotApplicable,
}

/// What one verify stage found: a verdict for each completion of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The stage's name.
    pub stage: String,
    /// One for each completion, in order.
    pub verdicts: Vec<Verdict>,
}

/// A filter's answer for one completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// In the statistics of its group and in the loss.
    Keep,
    /// In the statistics of its group, not in the loss.
    Mask(String),
    /// Out of both.
    Drop(String),
}

/// A row that a generator made.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The conversation.
    pub prompt: Vec<Message>,
    /// The right answer.
    pub reference: Option<String>,
    /// Further columns; `response` is the text that supervised fine-tuning imitates.
    pub fields: Vec<(String, String)>,
}
