//! `sample`: completions from a model, each group handed on as soon as its last completion ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Decision, Group, RngKey};
use model::Model;
use model::sampler::{self, Request, Settings};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};

pub(crate) struct SampleStage {
    pub spec: spec::Sample,
    pub model: Arc<Model>,
    pub key: RngKey,
}

/// Sequences that are decoded together. More of them use the machine better, up to its caches; no number depends on it.
pub(crate) const SLOTS: usize = 256;

impl Work for SampleStage {
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        let settings = Settings {
            temperature: self.spec.temperature.at(step),
            top_k: self.spec.top_k,
            top_p: self.spec.top_p,
            max_tokens: self.spec.max_tokens.at(step) as usize,
            slots: SLOTS,
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
