//! `verify`: a plugin's verdict on each completion, on threads of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use base::{Context, Finding, Group, Judgement, RngKey, Verdict};
use host::Configured;
use spec::OnUndecided;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work, spawn};
use crate::stages::judged::{Ruling, Tally, covers};

pub(crate) struct VerifyStage {
    pub name: String,
    pub spec: spec::Verify,
    pub plugin: Configured,
    pub key: RngKey,
    /// The limit on a completion's tokens by step, as the plugin is told.
    pub max_tokens: spec::Schedule,
    pub threads: usize,
}

impl VerifyStage {
    /// The verdicts for a group; an error where one is undecided and must not be.
    pub fn judge(&self, group: &Group, context: &Context) -> Result<Judgement, Error> {
        let verdicts = if covers(&self.spec.sources, group) {
            let _span = tracing::debug_span!("verify", stage = self.name, group = group.index).entered();
            self.plugin.verify(context, group)?
        } else {
            vec![Verdict::NotApplicable; group.completions.len()]
        };
        self.ruling().require_decided(group, &verdicts)?;
        Ok(Judgement { stage: self.name.clone(), verdicts })
    }

    fn ruling(&self) -> Ruling<'_> {
        Ruling { stage: &self.name, on_undecided: self.spec.on_undecided, most: self.spec.max_undecided }
    }

    /// What the plugin is told about a step.
    pub fn context(&self, step: u64) -> Context {
        Context { step, seed: self.key.seed(), max_tokens: self.max_tokens.at(step) as u32, evaluating: false }
    }
}

impl Work for VerifyStage {
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let context = self.context(step);
        let tally = Mutex::new(Tally::default());
        let stop = AtomicBool::new(false);
        let spent_before = self.plugin.spent();
        let worker = || -> Result<(), Error> {
            for (_, group) in inbox.iter() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let judged = self.judge(&group, &context).and_then(|judgement| {
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(group.index, &judgement.verdicts);
                    outbox.send(&self.ruling().judged(&group, judgement))
                });
                if judged.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    return judged;
                }
            }
            Ok(())
        };
        let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| spawn(scope, worker)).collect();
            threads
                .into_iter()
                .map(|thread| thread?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        // An error of the plugin's is the cause; that the next stage is gone is only its consequence.
        let mut gone = Ok(());
        for result in results {
            match result {
                Err(Error::Downstream) => gone = Err(Error::Downstream),
                other => other?,
            }
        }
        gone?;
        let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        let spent = Some((self.plugin.name().to_owned(), self.plugin.spent().since(spent_before)));
        Ok(Report { spent, ..tally.report(&self.ruling(), "completions") })
    }
}

/// A verdict as a score: what can't be decided is nothing, or 0 where the file says so.
pub(crate) fn score(verdict: &Verdict, on_undecided: OnUndecided) -> Score<'_> {
    match verdict {
        Verdict::Decided(Finding { score, .. }) => Score::Decided(*score),
        Verdict::Undecided(_) if on_undecided == OnUndecided::Zero => Score::Decided(0.0),
        Verdict::Undecided(reason) => Score::Undecided(reason),
        Verdict::NotApplicable => Score::NotApplicable,
    }
}

/// What a verdict counts for.
pub(crate) enum Score<'a> {
    Decided(f64),
    Undecided(&'a str),
    NotApplicable,
}
