//! What stages do.

use std::path::PathBuf;

use base::Span;
use indexmap::IndexMap;
use serde::Serialize;

use super::{Grpo, Judge, Pairs, PluginConfig, Rewrite, TrainJudge};

/// `[stages.NAME]`.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// The stages it takes its input from.
    pub inputs: Vec<String>,
    /// What it does.
    pub kind: StageKind,
    /// The place of the table's name.
    #[serde(skip)]
    pub span: Span,
}

/// What a stage does, by its `type`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum StageKind {
    /// Prompts from files.
    Dataset(Dataset),
    /// Prompts from a plugin.
    Generate(Generate),
    /// Completions from a model.
    Sample(Sample),
    /// Verdicts from a plugin.
    Verify(Verify),
    /// Verdicts from a model.
    Judge(Judge),
    /// Rewards from verdicts.
    Reward(Reward),
    /// Fewer completions.
    Filter(Filter),
    /// Preference pairs, made by a judge.
    Pairs(Pairs),
    /// Supervised fine-tuning: on the rows' responses, or on completions that were kept.
    Sft(Sft),
    /// Group relative policy optimisation.
    Grpo(Grpo),
    /// A reward model's training.
    TrainJudge(TrainJudge),
    /// On-policy distillation.
    Distil(Distil),
    /// Completions that were kept, in the words of another model.
    Rewrite(Box<Rewrite>),
    /// What was kept, as a dataset.
    Collect(Collect),
}

/// The kind of what flows along an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// Rows that nothing was sampled for.
    Prompts,
    /// Groups with completions.
    Completions,
    /// Groups with at least one judgement.
    Verdicts,
    /// Groups with rewards.
    Rewards,
    /// Groups of two completions, the better one and the other.
    Pairs,
}

/// How rows become prompts, and in which order.
#[derive(Clone, Debug, Serialize)]
pub struct Feed {
    /// Rows a step.
    pub prompts_per_step: usize,
    /// How a conversation becomes text. `None`: the model's own chat template if it has one, else the contents as they
    /// are. A name (`r1-zero`) or the path of a Jinja file.
    pub template: Option<String>,
    /// A system message put first.
    pub system: Option<String>,
    /// The order of rows.
    pub order: Order,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A new permutation each epoch.
    Shuffle,
    /// As they stand in the file.
    Sequential,
}

/// `type = "dataset"`.
#[derive(Clone, Debug, Serialize)]
pub struct Dataset {
    /// The files.
    pub sources: Vec<Source>,
    /// How rows become prompts.
    pub feed: Feed,
}

/// One source of a dataset stage: a `.jsonl` or `.parquet` file.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// What verify stages name in `sources`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The share of rows that come from it, relative to the other sources' weights.
    pub weight: f64,
    /// Which column is what.
    pub columns: Columns,
    /// The place of the path.
    #[serde(skip)]
    pub span: Span,
}

/// What the first column of a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// What is asked: a string or a list of `{role, content}`.
    Prompt,
    /// What is asked, by a Jinja template over the row's columns.
    Template,
    /// A whole conversation, a list of `{role, content}`: each of the assistant's turns is learned.
    Conversation,
    /// A text that is learned as a whole.
    Text,
}

/// `columns = { prompt = "question", reference = "answer", response = ..., fields = [...] }`.
#[derive(Clone, Debug, Serialize)]
pub struct Columns {
    /// The column that `shape` tells of, or a template.
    pub prompt: String,
    /// Which key names that column: `prompt`, `conversation` or `text`; or `prompt_template`.
    pub shape: Shape,
    /// The right answer.
    pub reference: Option<String>,
    /// The text to imitate, or to be labelled.
    pub response: Option<String>,
    /// The better answer of a pair.
    pub chosen: Option<String>,
    /// The worse answer of a pair.
    pub rejected: Option<String>,
    /// Whether the response is as it should be.
    pub label: Option<String>,
    /// Handed to plugins.
    pub fields: Vec<String>,
}

/// `type = "generate"`.
#[derive(Clone, Debug, Serialize)]
pub struct Generate {
    /// The plugin (world `generator`).
    pub plugin: String,
    /// Its configuration, checked by its own schema.
    pub config: PluginConfig,
    /// How many rows there are before they repeat (a new epoch). `None`: they never do.
    pub count: Option<u64>,
    /// How rows become prompts.
    pub feed: Feed,
}

/// A number that may change with the step: `x`, or `[{ from = 0, value = x }, ...]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// `(from, value)`, ascending, the first from step 0.
    pub points: Vec<(u64, f64)>,
}

impl Schedule {
    /// The value at a step (counted from 0).
    pub fn at(&self, step: u64) -> f64 {
        self.points
            .iter()
            .rev()
            .find(|(from, _)| *from <= step)
            .or(self.points.first())
            .map_or(0.0, |(_, value)| *value)
    }
}

/// `type = "sample"`.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// The model.
    pub model: String,
    /// Completions a prompt.
    pub group_size: usize,
    /// Divides the logits; above 0.
    pub temperature: Schedule,
    /// Which tokens may be chosen, and which end a completion.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// The limit on a completion's tokens.
    pub max_tokens: Schedule,
    /// Whether the next step is sampled while this one is learned: `ahead = 1`.
    pub ahead: bool,
}

/// Which tokens may be chosen, and which end a completion: in a sample stage and in an evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Sampling {
    /// Divides the positive and multiplies the negative logits of tokens that prompt and completion have already.
    pub repetition_penalty: Option<f64>,
    /// Keeps that many of the likeliest tokens, with all that tie with the last of them.
    pub top_k: Option<usize>,
    /// Keeps the smallest set of tokens whose probability reaches it, after `top_k`.
    pub top_p: Option<f64>,
    /// Keeps the tokens whose probability is at least this share of the likeliest one's.
    pub min_p: Option<f64>,
    /// Texts that end a completion where it contains one.
    pub stop: Vec<String>,
    /// Tokens that end a completion beside the model's own.
    pub stop_tokens: Vec<StopToken>,
    /// The place of the stop tokens.
    #[serde(skip)]
    pub span: Span,
}

/// A token of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StopToken {
    /// By its text.
    Text(String),
    /// By its number.
    Id(u32),
}

/// What happens to a completion that a verifier can't decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUndecided {
    /// It is dropped.
    Drop,
    /// It scores 0.
    Zero,
    /// The run ends.
    Fail,
}

/// `type = "verify"`.
#[derive(Clone, Debug, Serialize)]
pub struct Verify {
    /// The plugin (world `verifier`).
    pub plugin: String,
    /// The sources it covers; all if absent.
    pub sources: Option<Vec<String>>,
    /// Its configuration.
    pub config: PluginConfig,
    /// What becomes of what it can't decide.
    pub on_undecided: OnUndecided,
    /// The share of a step's completions that may be undecided before the run ends (after a commit, exit 1). Default
    /// 0.5.
    pub max_undecided: f64,
}

/// `type = "reward"`: either weights or a plugin.
#[derive(Clone, Debug, Serialize)]
pub struct Reward {
    /// How verdicts become a reward.
    pub rule: RewardRule,
}

/// How verdicts become a reward.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RewardRule {
    /// The applicable parts, each times its weight, are added.
    Weights(IndexMap<String, Schedule>),
    /// A plugin (world `rewarder`) decides.
    Plugin {
        /// Its name.
        plugin: String,
        /// Its configuration.
        config: PluginConfig,
    },
}

/// `type = "filter"`: built-in rules, a condition, a plugin, or several of them, in this order.
#[derive(Clone, Debug, Serialize)]
pub struct Filter {
    /// Built-in rules.
    pub drop: Vec<DropRule>,
    /// An expression that is true for the completions to keep: `where`.
    #[serde(rename = "where")]
    pub condition: Option<Condition>,
    /// A plugin (world `filterer`) and its configuration.
    pub plugin: Option<(String, PluginConfig)>,
    /// Whether more is sampled until enough is left.
    pub refill: Option<Refill>,
}

/// `refill = { until = 512, at_most = 3 }`: dynamic sampling (DAPO, arXiv 2503.14476, section 3.2), in rounds of a step's
/// prompts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Refill {
    /// Groups that must be left.
    pub until: usize,
    /// Rounds beyond the first, at most.
    pub at_most: u64,
}

/// `where = "reward > 0.2 && tokens < 2000"`.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Condition {
    /// The expression.
    pub text: String,
    /// The place of the string.
    #[serde(skip)]
    pub span: Span,
}

/// A built-in filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropRule {
    /// Groups whose rewards are all equal: they carry no signal.
    EqualRewards,
    /// Completions cut at the limit.
    Truncated,
    /// Completions whose reward is not above 0 (rejection sampling).
    NonPositive,
}

/// `optimizer = { ... }`: AdamW (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Clone, Debug, Serialize)]
pub struct Optimizer {
    /// The peak learning rate.
    pub learning_rate: f64,
    /// Its course after the warm-up.
    pub schedule: LearningRate,
    /// Steps of linear warm-up. Default 0.
    pub warmup: u64,
    /// The share of the peak at which a decaying schedule ends. Default 0.
    pub min_ratio: f64,
    /// Default [0.9, 0.95].
    pub betas: [f64; 2],
    /// Default 1e-8.
    pub epsilon: f64,
    /// Applies to matrices, not to norms and biases. Default 0.1.
    pub weight_decay: f64,
    /// The largest global norm of the gradient; `None`: no clipping. Default 1.
    pub clip_norm: Option<f64>,
}

/// The course of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LearningRate {
    /// The peak, always.
    Constant,
    /// Half a cosine down to `min_ratio`.
    Cosine,
    /// A line down to `min_ratio`.
    Linear,
}

/// What learning stages share.
#[derive(Clone, Debug, Serialize)]
pub struct Learning {
    /// The model that learns.
    pub model: String,
    /// Optimiser steps a step of the run. Default 1.
    pub minibatches: usize,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// How far the router's selection bias moves after an optimiser step (DeepSeek-V3 report, 2.1.2). Default 0.001.
    pub router_bias_step: f64,
    /// The factor of the sequence-wise balance loss of each layer of experts; `None`: no such loss.
    pub balance_loss: Option<f64>,
    /// The most tokens in one forward pass: memory only, it changes no number. Default 16384.
    pub tokens_per_pass: usize,
    /// Layers are computed again in the backward pass: memory only, it changes no number. Default false.
    pub recompute: bool,
}

/// `type = "sft"`: on the rows' responses, or on completions that were kept.
#[derive(Clone, Debug, Serialize)]
pub struct Sft {
    /// What it shares with other learning stages.
    pub learning: Learning,
}

/// `type = "distil"`.
#[derive(Clone, Debug, Serialize)]
pub struct Distil {
    /// What it shares with other learning stages; its model is the student.
    pub learning: Learning,
    /// The teacher, which stands still.
    pub teacher: String,
    /// The place of the teacher's name.
    #[serde(skip)]
    pub span: Span,
}

/// `type = "collect"`.
#[derive(Clone, Debug, Serialize)]
pub struct Collect {
    /// The file made in the run's folder: `collected/PATH`, a `.parquet` or `.jsonl`.
    pub path: PathBuf,
}
