//! `reward`: the verdicts of all branches, joined, become one number for each completion.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Context, Decision, Finding, Group, Judgement, RngKey, Verdict};
use host::Configured;
use indexmap::IndexMap;
use spec::{OnUndecided, Schedule};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::stages::verify::{Score, score};

pub(crate) struct RewardStage {
    pub name: String,
    /// The stages it joins, in the order of `inputs`.
    pub inputs: usize,
    pub rule: Rule,
    /// What becomes of what a verify stage can't decide, by stage.
    pub on_undecided: IndexMap<String, OnUndecided>,
    pub key: RngKey,
    pub max_tokens: Schedule,
}

/// How verdicts become a reward.
pub(crate) enum Rule {
    Weights(IndexMap<String, Schedule>),
    Plugin(Configured),
}

impl RewardStage {
    /// The same group with the judgements of all its branches.
    fn join(branches: Vec<Option<Arc<Group>>>) -> Group {
        let mut branches = branches.into_iter().flatten();
        let mut joined = branches.next().map(|group| Group::clone(&group));
        for branch in branches {
            if let Some(joined) = &mut joined {
                // Branches share what was found before they parted.
                let new = branch
                    .judgements
                    .iter()
                    .filter(|one| !joined.judgements.iter().any(|other| Arc::ptr_eq(one, other)));
                let new: Vec<Arc<Judgement>> = new.cloned().collect();
                joined.judgements.extend(new);
                for (decision, other) in joined.decisions.iter_mut().zip(&branch.decisions) {
                    if *decision == Decision::Keep {
                        decision.clone_from(other);
                    }
                }
            }
        }
        joined.unwrap_or_else(|| unreachable!("a join is complete when every branch has arrived"))
    }

    fn decide(&self, mut group: Group, step: u64) -> Result<Group, Error> {
        let count = group.completions.len();
        group.rewards = match &self.rule {
            Rule::Weights(weights) => (0..count).map(|i| self.weigh(&mut group, i, weights, step)).collect(),
            Rule::Plugin(plugin) => {
                let context = Context {
                    step,
                    seed: self.key.seed(),
                    max_tokens: self.max_tokens.at(step) as u32,
                    evaluating: false,
                };
                let rewards = plugin.reward(&context, &self.as_scored(&group))?;
                rewards
                    .into_iter()
                    .enumerate()
                    .map(|(i, reward)| match reward {
                        _ if group.decisions[i] != Decision::Keep => None,
                        Ok(Some(reward)) => Some(reward),
                        Ok(None) => {
                            group.decisions[i] = Decision::Drop(format!("`{}` gave no reward", self.name));
                            None
                        }
                        Err(reason) => {
                            group.decisions[i] = Decision::Drop(format!("undecided by `{}`: {reason}", self.name));
                            None
                        }
                    })
                    .collect()
            }
        };
        Ok(group)
    }

    /// The group as a plugin sees it: what a verify stage could not decide is 0 where the file says so.
    fn as_scored(&self, group: &Group) -> Group {
        let mut group = group.clone();
        for judgement in &mut group.judgements {
            if self.on_undecided.get(&judgement.stage) == Some(&OnUndecided::Zero) {
                let undecided = |verdict: &&mut Verdict| matches!(verdict, Verdict::Undecided(_));
                let zero = || Verdict::Decided(Finding { score: 0.0, answer: None, metrics: Vec::new(), note: None });
                Arc::make_mut(judgement).verdicts.iter_mut().filter(undecided).for_each(|verdict| *verdict = zero());
            }
        }
        group
    }

    fn weigh(&self, group: &mut Group, i: usize, weights: &IndexMap<String, Schedule>, step: u64) -> Option<f64> {
        if group.decisions[i] != Decision::Keep {
            return None;
        }
        let mut sum = 0.0;
        let mut applicable = false;
        for (stage, weight) in weights {
            let policy = self.on_undecided.get(stage).copied().unwrap_or(OnUndecided::Drop);
            let Some(judgement) = group.judgements.iter().find(|judgement| judgement.stage == *stage) else { continue };
            match score(&judgement.verdicts[i], policy) {
                Score::Decided(score) => {
                    sum += weight.at(step) * score;
                    applicable = true;
                }
                Score::Undecided(reason) => {
                    let reason = format!("undecided by `{stage}`: {reason}");
                    group.decisions[i] = Decision::Drop(reason);
                    return None;
                }
                Score::NotApplicable => {}
            }
        }
        if !applicable {
            group.decisions[i] = Decision::Drop("no verifier covers the row".to_owned());
        }
        applicable.then_some(sum)
    }
}

impl Work for RewardStage {
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let plugin = if let Rule::Plugin(plugin) = &self.rule { Some((plugin, plugin.spent())) } else { None };
        let mut waiting: BTreeMap<usize, Vec<Option<Arc<Group>>>> = BTreeMap::new();
        for (position, group) in inbox.iter() {
            let index = group.index;
            let branches = waiting.entry(index).or_insert_with(|| vec![None; self.inputs]);
            branches[position] = Some(group);
            if branches.iter().all(Option::is_some)
                && let Some(branches) = waiting.remove(&index)
            {
                outbox.send(&Arc::new(self.decide(Self::join(branches), step)?))?;
            }
        }
        if !waiting.is_empty() {
            return Err(Error::Downstream);
        }
        let spent = plugin.map(|(plugin, before)| (plugin.name().to_owned(), plugin.spent().since(before)));
        Ok(Report { spent, ..Report::default() })
    }
}
