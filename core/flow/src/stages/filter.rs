//! `filter`: completions are masked or dropped, with the reason; the record keeps them.

use std::sync::Arc;

use base::{Context, Decision, Finish, Group, RngKey};
use host::{Condition, Configured};
use spec::{DropRule, Schedule};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};

pub(crate) struct FilterStage {
    pub name: String,
    pub rules: Vec<DropRule>,
    pub condition: Option<Condition>,
    pub plugin: Option<Configured>,
    pub key: RngKey,
    pub max_tokens: Schedule,
}

impl Work for FilterStage {
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let mut groups: Vec<Group> = inbox.whole_step()?.iter().map(|group| Group::clone(group)).collect();
        let kept_before = kept(&groups);
        for rule in &self.rules {
            groups.iter_mut().for_each(|group| apply(*rule, group));
        }
        if let Some(condition) = &self.condition {
            for group in &mut groups {
                let failed =
                    |reason| Error::Finding(format!("the condition `where` of `{}` failed: {reason}", self.name));
                let decisions = condition.decide(group).map_err(failed)?;
                take_away(&mut group.decisions, decisions);
            }
        }
        let mut groups: Vec<Arc<Group>> = groups.into_iter().map(Arc::new).collect();
        let mut spent = None;
        if let Some(plugin) = &self.plugin {
            let context =
                Context { step, seed: self.key.seed(), max_tokens: self.max_tokens.at(step) as u32, evaluating: false };
            let before = plugin.spent();
            let decisions = plugin.filter(&context, &groups)?;
            spent = Some((plugin.name().to_owned(), plugin.spent().since(before)));
            for (group, decisions) in groups.iter_mut().zip(decisions) {
                take_away(&mut Arc::make_mut(group).decisions, decisions);
            }
        }
        let kept_after =
            groups.iter().flat_map(|group| &group.decisions).filter(|decision| **decision == Decision::Keep).count();
        groups.iter().try_for_each(|group| outbox.send(group))?;
        let metrics = vec![(format!("filter/{}/dropped", self.name), (kept_before - kept_after) as f64)];
        Ok(Report { metrics, spent, ..Report::default() })
    }
}

/// What was dropped before stays dropped: a filter only takes away.
fn take_away(decisions: &mut [Decision], new: Vec<Decision>) {
    for (old, new) in decisions.iter_mut().zip(new) {
        if matches!((&old, &new), (Decision::Keep, _) | (Decision::Mask(_), Decision::Drop(_))) {
            *old = new;
        }
    }
}

fn kept(groups: &[Group]) -> usize {
    groups.iter().flat_map(|group| &group.decisions).filter(|decision| **decision == Decision::Keep).count()
}

fn apply(rule: DropRule, group: &mut Group) {
    let live = |decision: &Decision| !matches!(decision, Decision::Drop(_));
    match rule {
        DropRule::EqualRewards => {
            let mut rewards = group
                .rewards
                .iter()
                .zip(&group.decisions)
                .filter(|(_, decision)| live(decision))
                .filter_map(|(reward, _)| *reward);
            let first = rewards.next();
            if first.is_none_or(|first| rewards.all(|reward| reward == first)) {
                drop_where(group, |_, _| true, "all rewards of the group are equal");
            }
        }
        DropRule::Truncated => {
            drop_where(group, |group, i| group.completions[i].finish == Finish::Length, "cut at the length limit")
        }
        DropRule::NonPositive => drop_where(
            group,
            |group, i| group.rewards[i].is_none_or(|reward| reward <= 0.0),
            "its reward is not above 0",
        ),
    }
}

fn drop_where(group: &mut Group, pick: impl Fn(&Group, usize) -> bool, reason: &str) {
    for i in 0..group.decisions.len() {
        if !matches!(group.decisions[i], Decision::Drop(_)) && pick(group, i) {
            group.decisions[i] = Decision::Drop(reason.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{Completion, Prompt, RoutedExperts};

    use super::*;

    fn group(rewards: &[Option<f64>]) -> Group {
        let prompt = Prompt {
            id: 0,
            source: "rows".into(),
            messages: Vec::new(),
            text: String::new(),
            tokens: vec![1],
            reference: None,
            response: None,
            learned: Vec::new(),
            fields: Vec::new(),
        };
        let completion = Arc::new(Completion {
            tokens: vec![1],
            loss_mask: vec![true],
            text: String::new(),
            finish: Finish::Stop,
            logprobs: vec![0.0],
            weights_version: 0,
            experts: RoutedExperts::default(),
        });
        let decisions = rewards.iter().map(|reward| match reward {
            Some(_) => Decision::Keep,
            None => Decision::Drop("undecided".to_owned()),
        });
        Group {
            step: 0,
            index: 0,
            prompt: Arc::new(prompt),
            completions: vec![completion; rewards.len()],
            judgements: Vec::new(),
            rewards: rewards.to_vec(),
            decisions: decisions.collect(),
        }
    }

    #[test]
    fn equal_rewards_are_those_of_decided_completions() {
        let mut equal = group(&[Some(1.0), None, Some(1.0)]);
        apply(DropRule::EqualRewards, &mut equal);
        assert_eq!(kept(&[equal.clone()]), 0);
        assert_eq!(equal.decisions[1], Decision::Drop("undecided".to_owned()), "the first reason stays");
        let mut mixed = group(&[Some(1.0), None, Some(0.0)]);
        apply(DropRule::EqualRewards, &mut mixed);
        assert_eq!(kept(&[mixed]), 2);
    }

    #[test]
    fn rejection_sampling_keeps_what_scored() {
        let mut mixed = group(&[Some(1.0), Some(0.0), Some(-0.5)]);
        apply(DropRule::NonPositive, &mut mixed);
        assert_eq!(kept(&[mixed]), 1);
    }
}
