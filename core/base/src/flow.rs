//! What flows along the edges of a pipeline: prompts, and groups of completions.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::verdict::{Decision, Judgement};

/// One message of a conversation, as chat templates take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or another role that the template knows.
    pub role: String,
    /// The text of the message.
    pub content: String,
}

/// One row of a dataset or of a generator, ready to be sampled from or learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// The row's number within its stage; stable over epochs and resumes.
    pub id: u64,
    /// The name of the dataset source or of the stage that made the row.
    pub source: Arc<str>,
    /// The conversation before the template was applied.
    pub messages: Vec<Message>,
    /// The text that the model is given.
    pub text: String,
    /// `text` as token ids.
    pub tokens: Vec<u32>,
    /// The right answer, where the row has one.
    pub reference: Option<String>,
    /// The text to imitate, where the row has one (supervised fine-tuning).
    pub response: Option<String>,
    /// Where the parts to imitate lie among `tokens`, if the row is a whole conversation or text (supervised fine-tuning).
    pub learned: Vec<Range<usize>>,
    /// Further columns that the source names; what is no string is compact JSON.
    pub fields: Vec<(String, String)>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The end-of-sequence token or a stop string was sampled.
    Stop,
    /// The limit on the number of tokens was reached.
    Length,
    /// The run was stopped before the completion ended.
    Aborted,
}

/// The experts that each MoE layer chose for each token, as sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutedExperts {
    /// The number of MoE layers.
    pub layers: usize,
    /// The number of experts chosen for a token.
    pub per_token: usize,
    /// Expert ids, `[tokens, layers, per_token]`, flattened. Token 0 is the first token of the prompt.
    pub ids: Vec<u16>,
}

/// What the model wrote for a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The token ids, the end-of-sequence token included where it was sampled.
    pub tokens: Vec<u32>,
    /// For each token whether it takes part in the loss.
    pub loss_mask: Vec<bool>,
    /// The tokens as text, without the end-of-sequence token.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// The natural log-probability of each token at the sampling temperature, before any filter (top-k, top-p).
    pub logprobs: Vec<f32>,
    /// How many optimiser steps the weights that sampled it had seen.
    pub weights_version: u64,
    /// The experts chosen while sampling; empty for a dense model.
    pub experts: RoutedExperts,
}

/// A prompt with all its completions and what was found about them: the unit that flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The step of the run.
    pub step: u64,
    /// The position of the prompt within the step: whole-step stages take groups in this order.
    pub index: usize,
    /// What was asked.
    pub prompt: Arc<Prompt>,
    /// What was answered.
    pub completions: Vec<Arc<Completion>>,
    /// What the verify stages found, in the order in which branches were joined.
    pub judgements: Vec<Arc<Judgement>>,
    /// The reward of each completion, once a reward stage has run; `None` where it could not be decided.
    pub rewards: Vec<Option<f64>>,
    /// What filters decided for each completion; empty before the first filter.
    pub decisions: Vec<Decision>,
}
