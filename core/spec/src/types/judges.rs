//! What judges do, and what trains them.

use std::path::PathBuf;

use base::Span;
use serde::Serialize;

use super::{Learning, OnUndecided, PluginConfig, Sampling};

/// `type = "judge"`.
#[derive(Clone, Debug, Serialize)]
pub struct Judge {
    /// The judge; it is never trained.
    pub model: String,
    /// What is judged.
    pub input: JudgeInput,
    /// How a conversation becomes text for the judge, as in a feed.
    pub template: Option<String>,
    /// The sources it covers; all if absent.
    pub sources: Option<Vec<String>>,
    /// How the model judges.
    pub by: JudgeBy,
    /// What becomes of what it can't decide.
    pub on_undecided: OnUndecided,
    /// As of a verify stage.
    pub max_undecided: f64,
}

/// What is judged of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeInput {
    /// All of it.
    Response,
    /// What follows the thinking.
    Answer,
}

/// How a model judges.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeBy {
    /// A reward model, by its score.
    Score(ScoreScale),
    /// A language model, by so many texts of which a plugin reads scores; their mean counts.
    Text {
        /// What it is asked.
        asked: Box<Asked>,
        /// The number of texts.
        samples: usize,
    },
}

/// How the score of a reward model becomes a verdict's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreScale {
    /// As it is.
    Raw,
    /// `1 / (1 + exp(-score))`.
    Sigmoid,
}

/// What a language model is asked that judges, how it writes, and who reads it.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The question, and how it is answered.
    #[serde(flatten)]
    pub asking: Asking,
    /// The plugin (world `verifier`) that reads a score from its text.
    pub plugin: String,
    /// Its configuration.
    pub config: PluginConfig,
}

/// What a language model is asked about a response, and how it writes.
#[derive(Clone, Debug, Serialize)]
pub struct Asking {
    /// A Jinja file: the question.
    pub prompt: PathBuf,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Which tokens may be chosen, and which end a text.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// The limit on a text's tokens.
    pub max_tokens: usize,
    /// The place of the question's path.
    #[serde(skip)]
    pub span: Span,
}

/// `type = "rewrite"`.
#[derive(Clone, Debug, Serialize)]
pub struct Rewrite {
    /// The language model that writes; it is never trained here.
    pub model: String,
    /// How a conversation becomes text for it, as in a feed.
    pub template: Option<String>,
    /// What it is asked.
    pub asking: Asking,
}

/// `type = "pairs"`.
#[derive(Clone, Debug, Serialize)]
pub struct Pairs {
    /// The judge; it is never trained.
    pub model: String,
    /// What is judged.
    pub input: JudgeInput,
    /// How a conversation becomes text for the judge, as in a feed.
    pub template: Option<String>,
    /// What it is asked.
    pub asked: Box<Asked>,
    /// Pairs of a prompt's completions.
    pub pairs_per_prompt: usize,
    /// How often each is judged: even, as half of them have the two in the other order.
    pub judgements: usize,
    /// What the mean of the judgements must exceed.
    pub margin: f64,
    /// How far the mean lengths of chosen and rejected may differ, as a share of the mean length of both; `None`: any.
    pub length_difference: Option<f64>,
    /// As of a verify stage, of pairs.
    pub max_undecided: f64,
}

/// `type = "train-judge"`.
#[derive(Clone, Debug, Serialize)]
pub struct TrainJudge {
    /// What it shares with other learning stages.
    pub learning: Learning,
}
