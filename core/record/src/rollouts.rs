//! What the model wrote, and what became of it: one row a completion.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float32Builder, Float64Builder, ListBuilder, StringBuilder, UInt16Builder, UInt32Builder,
    UInt64Builder,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use base::{Decision, Finish, Group};
use serde_json::{Map, Value};

use crate::durable;
use crate::error::{Error, Result};
use crate::folder::PhaseFolder;
use crate::parquet_file;

/// Tokens in one row group: what a reader must hold at once.
const TOKENS_PER_ROW_GROUP: usize = 1 << 22;

/// The rollouts of a phase, a file `rollouts/step-000050.parquet` for each step.
///
/// The columns: `phase` (the name of the run where it has no phases), `step`, `group` (the prompt's position in the step), `prompt_id`, `source`, `messages` (JSON),
/// `prompt` (the text that the model was given), `reference`, `fields` (a JSON object), `completion` (its number in the
/// group), `text`, `tokens`, `loss_mask`, `logprobs`, `finish` (stop, length, aborted), `weights_version`, `verdicts` (a JSON
/// object: stage to verdict), `reward`, `advantage`, `decision` (keep, mask, drop), `reason` (why not kept), `experts` (ids by
/// token of prompt and completion, MoE layer, choice), `expert_layers`, `experts_per_token`.
pub struct Rollouts {
    phase: PhaseFolder,
}

impl Rollouts {
    pub(crate) fn new(phase: &PhaseFolder) -> Self {
        Self { phase: phase.clone() }
    }

    /// Where the rollouts of a step are, or will be.
    pub fn path(&self, step: u64) -> PathBuf {
        self.phase.path().join(file(step))
    }

    /// Writes the file of a step whole, dropped completions included. `advantages` has one list for each group and one
    /// number for each completion; an empty list stands for a group that has none.
    pub fn write(&self, step: u64, groups: &[Arc<Group>], advantages: &[Vec<f64>]) -> Result<PathBuf> {
        let path = self.path(step);
        let shape = |what: String| Error::Shape { path: path.clone(), what };
        if advantages.len() != groups.len() {
            return Err(shape(format!("{} groups have {} lists of advantages", groups.len(), advantages.len())));
        }
        for (group, advantages) in groups.iter().zip(advantages) {
            check(group, advantages).map_err(shape)?;
        }
        durable::create_dir_all(durable::parent(&path))?;
        let phase = self.phase.name.as_str();
        let batch = |groups: &[Arc<Group>], advantages: &[Vec<f64>]| {
            let mut columns = Columns::default();
            for (group, advantages) in groups.iter().zip(advantages) {
                for number in 0..group.completions.len() {
                    columns.push(phase, step, group, number, advantages.get(number).copied());
                }
            }
            columns.finish().map_err(|error| shape(error.to_string()))
        };
        let schema = batch(&[], &[])?.schema();
        let batches = row_groups(groups).into_iter().map(|range| batch(&groups[range.clone()], &advantages[range]));
        let mark = parquet_file::write(&path, schema, batches)?;
        self.phase.inner.ledger().files.insert(format!("{}{}", self.phase.prefix, file(step)), mark);
        Ok(path)
    }
}

fn file(step: u64) -> String {
    format!("rollouts/step-{step:06}.parquet")
}

/// The step of a file `step-000050.parquet` that was made here, of rollouts or of an evaluation.
pub(crate) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.strip_suffix(".parquet")?.parse().ok()?;
    file(step).ends_with(&format!("/{name}")).then_some(step)
}

/// Cuts the groups into runs of at most `TOKENS_PER_ROW_GROUP` tokens, at least one group each.
fn row_groups(groups: &[Arc<Group>]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, group) in groups.iter().enumerate() {
        let more: usize = group.completions.iter().map(|completion| completion.tokens.len()).sum();
        if i > start && tokens + more > TOKENS_PER_ROW_GROUP {
            ranges.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += more;
    }
    if start < groups.len() {
        ranges.push(start..groups.len());
    }
    ranges
}

/// Whether all per-completion lists of a group have its length or, where that is allowed, none.
fn check(group: &Group, advantages: &[f64]) -> std::result::Result<(), String> {
    let count = group.completions.len();
    let mut lists =
        vec![("advantages", advantages.len()), ("rewards", group.rewards.len()), ("decisions", group.decisions.len())];
    lists.extend(group.judgements.iter().map(|judgement| (judgement.stage.as_str(), judgement.verdicts.len())));
    match lists.iter().find(|(_, length)| *length != 0 && *length != count) {
        Some((what, length)) => {
            Err(format!("group {} has {count} completions, but `{what}` has {length} values", group.index))
        }
        None => Ok(()),
    }
}

#[derive(Default)]
struct Columns {
    phase: StringBuilder,
    step: UInt64Builder,
    group: UInt64Builder,
    prompt_id: UInt64Builder,
    source: StringBuilder,
    messages: StringBuilder,
    prompt: StringBuilder,
    reference: StringBuilder,
    fields: StringBuilder,
    completion: UInt64Builder,
    text: StringBuilder,
    tokens: ListBuilder<UInt32Builder>,
    loss_mask: ListBuilder<BooleanBuilder>,
    logprobs: ListBuilder<Float32Builder>,
    finish: StringBuilder,
    weights_version: UInt64Builder,
    verdicts: StringBuilder,
    reward: Float64Builder,
    advantage: Float64Builder,
    decision: StringBuilder,
    reason: StringBuilder,
    experts: ListBuilder<UInt16Builder>,
    expert_layers: UInt64Builder,
    experts_per_token: UInt64Builder,
}

impl Columns {
    fn push(&mut self, phase: &str, step: u64, group: &Group, number: usize, advantage: Option<f64>) {
        let (prompt, completion) = (&group.prompt, &group.completions[number]);
        self.phase.append_value(phase);
        self.step.append_value(step);
        self.group.append_value(group.index as u64);
        self.prompt_id.append_value(prompt.id);
        self.source.append_value(&prompt.source);
        self.messages.append_value(messages(&prompt.messages).to_string());
        self.prompt.append_value(&prompt.text);
        self.reference.append_option(prompt.reference.as_deref());
        let fields = prompt.fields.iter().map(|(name, value)| (name.clone(), Value::String(value.clone())));
        self.fields.append_value(Value::Object(fields.collect()).to_string());
        self.completion.append_value(number as u64);
        self.text.append_value(&completion.text);
        self.tokens.append_value(completion.tokens.iter().copied().map(Some));
        self.loss_mask.append_value(completion.loss_mask.iter().copied().map(Some));
        self.logprobs.append_value(completion.logprobs.iter().copied().map(Some));
        self.finish.append_value(finish(completion.finish));
        self.weights_version.append_value(completion.weights_version);
        self.verdicts.append_value(Value::Object(verdicts(group, number)).to_string());
        self.reward.append_option(group.rewards.get(number).copied().flatten());
        self.advantage.append_option(advantage);
        let (decision, reason) = match group.decisions.get(number) {
            None | Some(Decision::Keep) => ("keep", None),
            Some(Decision::Mask(reason)) => ("mask", Some(reason)),
            Some(Decision::Drop(reason)) => ("drop", Some(reason)),
        };
        self.decision.append_value(decision);
        self.reason.append_option(reason);
        self.experts.append_value(completion.experts.ids.iter().copied().map(Some));
        self.expert_layers.append_value(completion.experts.layers as u64);
        self.experts_per_token.append_value(completion.experts.per_token as u64);
    }

    fn finish(mut self) -> std::result::Result<RecordBatch, ArrowError> {
        let required = |name: &'static str, column: ArrayRef| (name, column, false);
        let optional = |name: &'static str, column: ArrayRef| (name, column, true);
        RecordBatch::try_from_iter_with_nullable([
            required("phase", Arc::new(self.phase.finish())),
            required("step", Arc::new(self.step.finish())),
            required("group", Arc::new(self.group.finish())),
            required("prompt_id", Arc::new(self.prompt_id.finish())),
            required("source", Arc::new(self.source.finish())),
            required("messages", Arc::new(self.messages.finish())),
            required("prompt", Arc::new(self.prompt.finish())),
            optional("reference", Arc::new(self.reference.finish())),
            required("fields", Arc::new(self.fields.finish())),
            required("completion", Arc::new(self.completion.finish())),
            required("text", Arc::new(self.text.finish())),
            required("tokens", Arc::new(self.tokens.finish())),
            required("loss_mask", Arc::new(self.loss_mask.finish())),
            required("logprobs", Arc::new(self.logprobs.finish())),
            required("finish", Arc::new(self.finish.finish())),
            required("weights_version", Arc::new(self.weights_version.finish())),
            required("verdicts", Arc::new(self.verdicts.finish())),
            optional("reward", Arc::new(self.reward.finish())),
            optional("advantage", Arc::new(self.advantage.finish())),
            required("decision", Arc::new(self.decision.finish())),
            optional("reason", Arc::new(self.reason.finish())),
            required("experts", Arc::new(self.experts.finish())),
            required("expert_layers", Arc::new(self.expert_layers.finish())),
            required("experts_per_token", Arc::new(self.experts_per_token.finish())),
        ])
    }
}

/// A conversation as datasets spell it.
pub(crate) fn messages(messages: &[base::Message]) -> Value {
    messages.iter().map(|message| serde_json::json!({ "role": message.role, "content": message.content })).collect()
}

/// The word for why a completion ended.
pub(crate) fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Aborted => "aborted",
    }
}

/// What each verify stage found about a completion, by stage.
pub(crate) fn verdicts(group: &Group, number: usize) -> Map<String, Value> {
    let mut verdicts = Map::new();
    for judgement in &group.judgements {
        let verdict = judgement.verdicts.get(number).and_then(|verdict| serde_json::to_value(verdict).ok());
        verdicts.insert(judgement.stage.clone(), verdict.unwrap_or(Value::Null));
    }
    verdicts
}
