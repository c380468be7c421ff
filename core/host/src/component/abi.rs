//! The records of the WIT package `pipeline:plugin@0.1.0` as they cross into a component and back.
//!
//! What goes in is borrowed, what comes out is owned. The shapes are checked against the component's own types when it is
//! loaded.

use std::ops::Range;

use base::Judgement;
use wasmtime::component::{ComponentType, Lift, Lower};

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Context {
    step: u64,
    seed: u64,
    #[component(name = "max-tokens")]
    max_tokens: u32,
    evaluating: bool,
}

impl From<&base::Context> for Context {
    fn from(ctx: &base::Context) -> Self {
        Self { step: ctx.step, seed: ctx.seed, max_tokens: ctx.max_tokens, evaluating: ctx.evaluating }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Message<'a> {
    role: &'a str,
    content: &'a str,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Finish {
    #[component(name = "stop")]
    Stop,
    #[component(name = "length")]
    Length,
    #[component(name = "aborted")]
    Aborted,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Completion<'a> {
    id: u64,
    text: &'a str,
    tokens: u32,
    finish: Finish,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Group<'a> {
    #[component(name = "prompt-id")]
    prompt_id: u64,
    source: &'a str,
    prompt: Vec<Message<'a>>,
    reference: Option<&'a str>,
    fields: &'a [(String, String)],
    completions: Vec<Completion<'a>>,
}

impl<'a> Group<'a> {
    /// The group with some of its completions; a completion's id is its number within the whole group.
    pub(super) fn new(group: &'a base::Group, which: Range<usize>) -> Self {
        let prompt = &group.prompt;
        let completion = |(id, completion): (usize, &'a std::sync::Arc<base::Completion>)| Completion {
            id: id as u64,
            text: &completion.text,
            tokens: completion.tokens.len() as u32,
            finish: match completion.finish {
                base::Finish::Stop => Finish::Stop,
                base::Finish::Length => Finish::Length,
                base::Finish::Aborted => Finish::Aborted,
            },
        };
        Self {
            prompt_id: prompt.id,
            source: &prompt.source,
            prompt: prompt.messages.iter().map(|m| Message { role: &m.role, content: &m.content }).collect(),
            reference: prompt.reference.as_deref(),
            fields: &prompt.fields,
            completions: which.clone().zip(&group.completions[which]).map(completion).collect(),
        }
    }
}

#[derive(ComponentType, Lift, Lower, Clone)]
#[component(record)]
pub(super) struct Finding {
    score: f64,
    answer: Option<String>,
    metrics: Vec<(String, f64)>,
    note: Option<String>,
}

#[derive(ComponentType, Lift, Lower, Clone)]
#[component(variant)]
pub(super) enum Verdict {
    #[component(name = "decided")]
    Decided(Finding),
    #[component(name = "undecided")]
    Undecided(String),
    #[component(name = "not-applicable")]
    NotApplicable,
}

impl From<Verdict> for base::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Decided(Finding { score, answer, metrics, note }) => {
                Self::Decided(base::Finding { score, answer, metrics, note })
            }
            Verdict::Undecided(reason) => Self::Undecided(reason),
            Verdict::NotApplicable => Self::NotApplicable,
        }
    }
}

impl From<&base::Verdict> for Verdict {
    fn from(verdict: &base::Verdict) -> Self {
        match verdict.clone() {
            base::Verdict::Decided(base::Finding { score, answer, metrics, note }) => {
                Self::Decided(Finding { score, answer, metrics, note })
            }
            base::Verdict::Undecided(reason) => Self::Undecided(reason),
            base::Verdict::NotApplicable => Self::NotApplicable,
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct JudgementOf<'a> {
    stage: &'a str,
    verdicts: Vec<Verdict>,
}

impl<'a> From<&'a Judgement> for JudgementOf<'a> {
    fn from(judgement: &'a Judgement) -> Self {
        Self { stage: &judgement.stage, verdicts: judgement.verdicts.iter().map(Verdict::from).collect() }
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum Decision {
    #[component(name = "keep")]
    Keep,
    #[component(name = "mask")]
    Mask(String),
    #[component(name = "drop")]
    Drop(String),
}

impl From<Decision> for base::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Keep => Self::Keep,
            Decision::Mask(reason) => Self::Mask(reason),
            Decision::Drop(reason) => Self::Drop(reason),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct MessageOut {
    role: String,
    content: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct Row {
    prompt: Vec<MessageOut>,
    reference: Option<String>,
    fields: Vec<(String, String)>,
}

impl From<Row> for base::Row {
    fn from(row: Row) -> Self {
        let message = |m: MessageOut| base::Message { role: m.role, content: m.content };
        Self { prompt: row.prompt.into_iter().map(message).collect(), reference: row.reference, fields: row.fields }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct ConfigError {
    pub(super) path: String,
    pub(super) message: String,
}

/// The parameters and results of each function of a plugin.
pub(super) mod function {
    use super::{ConfigError, Context, Decision, Group, JudgementOf, Row, Verdict};

    pub(crate) type Schema = ((), (String,));
    pub(crate) type Configure<'a> = ((&'a str,), (Result<(), Vec<ConfigError>>,));
    pub(crate) type Verify<'a> = ((Context, Group<'a>), (Result<Vec<Verdict>, String>,));
    pub(crate) type Reward<'a> = ((Context, Group<'a>, Vec<JudgementOf<'a>>), (Result<Vec<Option<f64>>, String>,));
    pub(crate) type Filter<'a> = ((Context, Vec<Group<'a>>, Vec<Vec<f64>>), (Result<Vec<Vec<Decision>>, String>,));
    pub(crate) type Generate = ((Context, u64, u32), (Result<Vec<Row>, String>,));
}
