//! `verify`: a plugin's verdict on each completion, on threads of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Context, Finding, Group, Judgement, RngKey, Verdict};
use host::Configured;
use spec::OnUndecided;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};

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
}

impl VerifyStage {
    /// The verdicts for a group, after `on_undecided`.
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

    /// What the plugin is told about a step.
    pub fn context(&self, step: u64) -> Context {
        Context { step, seed: self.key.seed(), max_tokens: self.max_tokens.at(step) as u32, evaluating: false }
    }
}

impl Work for VerifyStage {
    fn run(&self, step: u64, inbox: Inbox, outbox: Outbox) -> Result<Report, Error> {
        let context = self.context(step);
        let (decided, undecided) = (AtomicU64::new(0), AtomicU64::new(0));
        let spent_before = self.plugin.spent();
        let worker = || -> Result<(), Error> {
            for (_, group) in inbox.iter() {
                let judgement = self.judge(&group, &context)?;
                let tally = tally(&judgement.verdicts);
                decided.fetch_add(tally.decided, Ordering::Relaxed);
                undecided.fetch_add(tally.undecided, Ordering::Relaxed);
                let mut group = Group::clone(&group);
                group.judgements.push(Arc::new(judgement));
                outbox.send(&Arc::new(group))?;
            }
            Ok(())
        };
        let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(worker)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
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
        let (decided, undecided) = (decided.into_inner(), undecided.into_inner());
        let spent = self.plugin.spent();
        let share = undecided as f64 / (decided + undecided).max(1) as f64;
        let finding = (share > self.spec.max_undecided).then(|| {
            format!(
                "{undecided} of {} completions are undecided by `{}`: more than max_undecided = {}",
                decided + undecided,
                self.name,
                self.spec.max_undecided
            )
        });
        let metrics = vec![
            (format!("undecided/{}", self.name), undecided as f64),
            (format!("plugin/{}/fuel", self.name), (spent.fuel - spent_before.fuel) as f64),
            (format!("plugin/{}/operations", self.name), (spent.operations - spent_before.operations) as f64),
        ];
        Ok(Report { metrics, finding, groups: None })
    }
}

fn tally(verdicts: &[Verdict]) -> Tally {
    let mut tally = Tally::default();
    for verdict in verdicts {
        match verdict {
            Verdict::Decided(_) => tally.decided += 1,
            Verdict::Undecided(_) => tally.undecided += 1,
            Verdict::NotApplicable => {}
        }
    }
    tally
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
