//! `verify`: a plugin's verdict on each completion, on threads of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Context, Decision, Finding, Group, Judgement, RngKey, Verdict};
use host::Configured;
use spec::OnUndecided;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work, spawn};

pub(crate) struct VerifyStage {
    pub name: String,
    pub spec: spec::Verify,
    pub plugin: Configured,
    pub key: RngKey,
    /// The limit on a completion's tokens by step, as the plugin is told.
    pub max_tokens: spec::Schedule,
    pub threads: usize,
}

/// What was found about the completions of a step.
#[derive(Default)]
struct Tally {
    decided: u64,
    undecided: u64,
    /// The first group with an undecided completion, and why it is.
    first: Option<(usize, String)>,
}

impl VerifyStage {
    /// The verdicts for a group; an error where one is undecided and must not be.
    pub fn judge(&self, group: &Group, context: &Context) -> Result<Judgement, Error> {
        let covered =
            self.spec.sources.as_ref().is_none_or(|sources| sources.iter().any(|name| **name == *group.prompt.source));
        let verdicts = if covered {
            let _span = tracing::debug_span!("verify", stage = self.name, group = group.index).entered();
            self.plugin.verify(context, group)?
        } else {
            vec![Verdict::NotApplicable; group.completions.len()]
        };
        let mut reasons = verdicts.iter().enumerate().filter_map(|(i, verdict)| match verdict {
            Verdict::Undecided(reason) => Some((i, reason)),
            _ => None,
        });
        if self.spec.on_undecided == OnUndecided::Fail
            && let Some((number, reason)) = reasons.next()
        {
            return Err(Error::Finding(format!(
                "completion {number} of prompt {} (row {} of `{}`) is undecided and `on_undecided` is \"fail\": {reason}",
                group.index, group.prompt.id, group.prompt.source
            )));
        }
        Ok(Judgement { stage: self.name.clone(), verdicts })
    }

    /// Takes what could not be decided out of the group, where the file says so.
    fn decide(&self, group: &mut Group, judgement: &Judgement) {
        if self.spec.on_undecided != OnUndecided::Drop {
            return;
        }
        for (decision, verdict) in group.decisions.iter_mut().zip(&judgement.verdicts) {
            if let (Decision::Keep, Verdict::Undecided(reason)) = (&*decision, verdict) {
                *decision = Decision::Drop(format!("undecided by `{}`: {reason}", self.name));
            }
        }
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
                    let mut group = Group::clone(&group);
                    self.decide(&mut group, &judgement);
                    group.judgements.push(Arc::new(judgement));
                    outbox.send(&Arc::new(group))
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
        let Tally { decided, undecided, first } = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        let share = undecided as f64 / (decided + undecided).max(1) as f64;
        let warning = first.map(|(_, reason)| {
            format!(
                "{undecided} of {} completions are undecided by `{}`, the first: {reason}",
                decided + undecided,
                self.name
            )
        });
        let finding = warning.as_ref().filter(|_| share > self.spec.max_undecided);
        let finding =
            finding.map(|text| format!("{text}; that is more than `max_undecided = {}`", self.spec.max_undecided));
        let metrics = vec![(format!("undecided/{}", self.name), undecided as f64)];
        let spent = Some((self.plugin.name().to_owned(), self.plugin.spent().since(spent_before)));
        Ok(Report { metrics, spent, finding, warning, groups: None })
    }
}

impl Tally {
    fn add(&mut self, group: usize, verdicts: &[Verdict]) {
        for verdict in verdicts {
            match verdict {
                Verdict::Decided(_) => self.decided += 1,
                Verdict::Undecided(reason) => {
                    self.undecided += 1;
                    // Whatever thread comes first: the first in the order of prompts is the one that is shown.
                    if self.first.as_ref().is_none_or(|(first, _)| group < *first) {
                        self.first = Some((group, reason.clone()));
                    }
                }
                Verdict::NotApplicable => {}
            }
        }
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
