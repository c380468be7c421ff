//! `sample`: completions from a model, each group handed on as soon as its last completion ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Decision, Diagnostic, Group, RngKey};
use model::Model;
use model::sampler::{self, Request, Settings};
use spec::StopToken;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};

pub(crate) struct SampleStage {
    pub spec: spec::Sample,
    pub model: Arc<Model>,
    /// The model that learns meanwhile: `model` is a copy of it, as it was when the step began.
    pub learner: Option<Arc<Model>>,
    /// What stays the same from step to step.
    pub settings: Settings,
    pub key: RngKey,
}

/// Sequences that are decoded together. More of them use the machine better, up to its caches; no number depends on it.
pub(crate) const SLOTS: usize = 256;

/// The sampler's settings for a model, at temperature 1 and without a limit.
///
/// # Errors
/// Stop tokens that the model does not have.
pub(crate) fn settings(sampling: &spec::Sampling, model: &Model, owner: &str) -> Result<Settings, Error> {
    let token = |token: &StopToken| {
        let (found, named) = match token {
            StopToken::Text(text) => (model.tokenizer.token_id(text), format!("`{text}`")),
            StopToken::Id(id) => (Some(*id).filter(|&id| (id as usize) < model.config.vocab), id.to_string()),
        };
        found.ok_or_else(|| {
            let message = format!("`stop_tokens` of `{owner}` has {named}, which is no token of the model");
            let finding = Diagnostic::error("unknown-token", message).at(sampling.span.clone(), "no such token");
            Error::Environment(vec![finding.help("a text that is not one token can be a stop string, in `stop`")])
        })
    };
    Ok(Settings {
        repetition_penalty: sampling.repetition_penalty,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        stop: sampling.stop.clone(),
        stop_tokens: sampling.stop_tokens.iter().map(token).collect::<Result<_, _>>()?,
        ..Settings::new(usize::MAX, SLOTS)
    })
}

impl Work for SampleStage {
    fn begin(&self) -> Result<(), Error> {
        self.learner.as_ref().map_or(Ok(()), |learner| self.model.copy_from(learner)).map_err(Error::model)
    }

    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        let settings = Settings {
            temperature: self.spec.temperature.at(step),
            max_tokens: self.spec.max_tokens.at(step) as usize,
            ..self.settings.clone()
        };
        let requests: Vec<Request> = groups
            .iter()
            .map(|group| Request {
                prompt: group.prompt.clone(),
                index: group.index as u64,
                completions: self.spec.group_size,
            })
            .collect();
        let stop = AtomicBool::new(false);
        let mut sent = Ok(());
        let stats =
            sampler::sample(&self.model, &requests, &settings, self.key, step as u32, &stop, &mut |i, completions| {
                if sent.is_err() {
                    return;
                }
                let mut group = Group::clone(&groups[i]);
                group.decisions = vec![Decision::Keep; completions.len()];
                group.completions = completions.into_iter().map(Arc::new).collect();
                sent = outbox.send(&Arc::new(group));
                if sent.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            })
            .map_err(Error::model)?;
        sent?;
        Ok(Report {
            metrics: vec![("num_tokens".into(), (stats.tokens + stats.prompt_tokens) as f64)],
            ..Report::default()
        })
    }
}
