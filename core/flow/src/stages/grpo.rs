//! `grpo`: a policy learns from the rewards of the step's groups (DeepSeekMath, arXiv 2402.03300, section 4.1, and what
//! came of it).
//!
//! A step goes in this order: the reference is refreshed; what is needed of frozen walks is computed (the reference's
//! log-probabilities, and the policy's own before its first update, where a setting asks for those); rewards become
//! advantages over the whole step; then minibatches are learned, epoch by epoch.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base::{Completion, Decision, Finish, Group, RngKey};
use learn::{Advantage, Scored};
use model::{Model, Sequence, Walk};
use spec::{KlPlace, Overlong, Schedule};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::stages::learning::Learner;
use crate::stages::policy;

pub(crate) struct GrpoStage {
    pub learner: Learner,
    pub spec: spec::Grpo,
    pub key: RngKey,
    /// The temperature at which the completions were sampled: log-probabilities are of that distribution.
    pub temperature: Schedule,
    /// The limit on completions.
    pub max_tokens: Schedule,
    pub reference: Option<Reference>,
}

/// The model that the policy is held near.
pub(crate) struct Reference {
    pub model: Mutex<Model>,
    pub kl: spec::Kl,
    /// Whether a checkpoint must hold it: a frozen model of its own can be loaded again.
    pub saved: bool,
}

/// A completion that counts in the statistics of its group.
struct Item<'a> {
    group: usize,
    /// Its number in the group.
    number: usize,
    tokens: Vec<u32>,
    /// The tokens of its prompt.
    prompt: usize,
    completion: &'a Completion,
    /// Whether it is learned from.
    is_learned: bool,
    /// What ratios are taken against, if it is not what the sampler recorded.
    old: Option<Vec<f32>>,
    /// The entropy before the step, where a setting asks for it.
    entropy: Vec<f32>,
    /// Under the reference model, where there is one.
    reference: Vec<f32>,
    advantage: Advantage,
}

impl Item<'_> {
    fn sequence(&self) -> Sequence<'_> {
        Sequence::new(&self.tokens, self.prompt)
    }

    fn old(&self) -> &[f32] {
        self.old.as_deref().unwrap_or(&self.completion.logprobs)
    }

    /// The places of the tokens in the loss.
    fn counted(&self) -> impl Iterator<Item = usize> + '_ {
        self.completion.loss_mask.iter().enumerate().filter(|(_, counts)| **counts).map(|(i, _)| i)
    }

    /// The advantage of each token; 0 for those that are not in the loss and those below an entropy.
    fn advantages(&self, least_entropy: Option<f64>) -> Vec<f64> {
        let mut advantages = vec![0.0; self.completion.tokens.len()];
        for (place, i) in self.counted().enumerate() {
            if least_entropy.is_none_or(|least| f64::from(self.entropy[i]) >= least) {
                advantages[i] = self.advantage.of_token(place);
            }
        }
        advantages
    }
}

/// Sums over all tokens of all minibatches of a step.
#[derive(Default)]
struct Totals {
    loss: f64,
    grad_norm: f64,
    violation: f64,
    balance: Option<f64>,
    updates: usize,
    stats: learn::LossStats,
    /// The learner's log-probabilities against the sampler's, before the first update.
    mismatch: learn::Mismatch,
}

/// What stays the same over the updates of a step.
struct Update {
    step: u64,
    settings: learn::LossSettings,
    aggregation: learn::Aggregation,
    /// Tokens with less entropy are not learned from.
    least_entropy: Option<f64>,
}

impl GrpoStage {
    /// The completions that are not dropped.
    fn items<'a>(&self, groups: &'a [Arc<Group>]) -> Vec<Item<'a>> {
        let of_group = |(g, group): (usize, &'a Arc<Group>)| {
            let live = group.decisions.iter().enumerate().filter(|(_, it)| !matches!(it, Decision::Drop(_)));
            live.map(move |(number, decision)| {
                let (prompt, completion) = (&group.prompt.tokens, &*group.completions[number]);
                let is_masked = self.spec.overlong == Overlong::Mask && completion.finish == Finish::Length;
                Item {
                    group: g,
                    number,
                    tokens: prompt.iter().chain(&completion.tokens).copied().collect(),
                    prompt: prompt.len(),
                    completion,
                    is_learned: *decision == Decision::Keep && !is_masked,
                    old: None,
                    entropy: Vec::new(),
                    reference: Vec::new(),
                    advantage: Advantage::Whole(0.0),
                }
            })
        };
        groups.iter().enumerate().flat_map(of_group).collect()
    }

    fn sequence<'a>(&self, item: &'a Item<'_>) -> Sequence<'a> {
        let experts = self.spec.replay_experts.then_some(&item.completion.experts);
        Sequence { experts, ..item.sequence() }
    }

    fn refresh_reference(&self, step: u64) -> Result<(), Error> {
        let Some(Reference { model, kl, .. }) = &self.reference else { return Ok(()) };
        if step == 0 || !kl.refresh_every.is_some_and(|every| step.is_multiple_of(every)) {
            return Ok(());
        }
        let reference = model.lock().unwrap_or_else(PoisonError::into_inner);
        let refreshed = match kl.average {
            0.0 => reference.copy_from(&self.learner.model),
            keep => reference.average_with(&self.learner.model, keep),
        };
        refreshed.map_err(Error::model)
    }

    /// Adds to the items what frozen walks say of them.
    fn judge(&self, step: u64, items: &mut [Item<'_>]) -> Result<(), Error> {
        let temperature = self.temperature.at(step);
        if self.spec.importance_sampling.is_some() || self.spec.top_entropy.is_some() {
            let model = &self.learner.model;
            let walked = walk(model, items, |item| item.is_learned, |item| self.sequence(item), temperature)?;
            for (i, logprobs, entropy) in walked {
                items[i].old = self.spec.importance_sampling.map(|_| logprobs);
                items[i].entropy = entropy;
            }
        }
        if let Some(Reference { model, kl, .. }) = &self.reference {
            let model = model.lock().unwrap_or_else(PoisonError::into_inner);
            let in_reward = kl.place == KlPlace::Reward;
            // Its own routers choose: its weights are others.
            let sequence = Item::sequence;
            let walked = walk(&model, items, |item| item.is_learned || in_reward, sequence, temperature)?;
            for (i, logprobs, _) in walked {
                items[i].reference = logprobs;
            }
        }
        Ok(())
    }

    /// Gives every item its advantage; those of the completions of each group.
    fn compare(&self, groups: &[Arc<Group>], items: &mut [Item<'_>]) -> Vec<Vec<f64>> {
        let in_reward = self.spec.kl.as_ref().filter(|kl| kl.place == KlPlace::Reward);
        let penalties_of = |item: &Item<'_>| -> Vec<f64> {
            let Some(kl) = in_reward else { return Vec::new() };
            let divergence = policy::divergence(kl);
            let of_token = |i: usize| divergence.at(f64::from(item.old()[i]), f64::from(item.reference[i])).0;
            item.counted().map(|i| kl.coefficient * of_token(i)).collect()
        };
        let penalties: Vec<Vec<f64>> = items.iter().map(penalties_of).collect();
        let mut scored: Vec<Vec<Scored<'_>>> =
            groups.iter().map(|group| vec![Scored::default(); group.completions.len()]).collect();
        for (item, penalties) in items.iter().zip(&penalties) {
            scored[item.group][item.number] = Scored {
                reward: groups[item.group].rewards.get(item.number).copied().flatten(),
                tokens: item.counted().count(),
                penalties,
            };
        }
        let advantages = learn::advantages(&scored, &policy::advantage(&self.spec.advantage));
        for item in items {
            item.advantage = advantages[item.group][item.number].clone();
        }
        advantages.iter().map(|group| group.iter().map(Advantage::mean).collect()).collect()
    }

    /// The entropy below which tokens are not learned from.
    fn least_entropy(&self, items: &[Item<'_>]) -> Option<f64> {
        let share = self.spec.top_entropy?;
        let learned = items.iter().filter(|item| item.is_learned);
        let entropies = learned.flat_map(|item| item.counted().map(|i| f64::from(item.entropy[i])));
        learn::quantile(entropies.collect(), 1.0 - share)
    }

    /// What a step's updates measured.
    fn measured(&self, totals: &Totals) -> Vec<(String, f64)> {
        let (updates, tokens, stats) = (totals.updates as f64, totals.stats.tokens.max(1) as f64, &totals.stats);
        let (compared, mismatch) = (totals.mismatch.tokens.max(1) as f64, &totals.mismatch);
        let mut metrics = vec![
            ("loss".into(), totals.loss / updates),
            ("grad_norm".into(), totals.grad_norm / updates),
            ("entropy".into(), stats.entropy / tokens),
        ];
        if self.reference.is_some() {
            metrics.push(("kl".into(), stats.kl / tokens));
        }
        let corrected = self.spec.importance_sampling.map(|_| stats.correction / tokens);
        metrics.extend([
            ("clip_ratio/low_mean".into(), stats.clipped_low as f64 / tokens),
            ("clip_ratio/high_mean".into(), stats.clipped_high as f64 / tokens),
            ("clip_ratio/region_mean".into(), (stats.clipped_low + stats.clipped_high) as f64 / tokens),
            ("sampling/sampling_logp_difference/mean".into(), mismatch.difference / compared),
            ("sampling/sampling_logp_difference/max".into(), mismatch.difference_max),
            ("sampling/importance_sampling_ratio/mean".into(), corrected.unwrap_or(mismatch.ratio / compared)),
            ("mismatch_kl".into(), mismatch.divergence / compared),
        ]);
        if self.spec.importance_sampling.is_some() || self.spec.off_policy_mask.is_some() {
            metrics.push(("sampling/masked_ratio".into(), stats.masked as f64 / tokens));
        }
        metrics.push(("max_vio/mean".into(), totals.violation / updates));
        metrics.extend(totals.balance.map(|sum| ("balance_loss".into(), sum / updates)));
        metrics
    }

    /// One optimiser step on the completions of `items`.
    fn minibatch(&self, update: &Update, items: &[&Item<'_>], totals: &mut Totals) -> Result<(), Error> {
        let counts: Vec<usize> = items.iter().map(|item| item.counted().count()).collect();
        let shares = update.aggregation.weights(&counts);
        let sequences: Vec<Sequence<'_>> = items.iter().map(|item| self.sequence(item)).collect();
        let is_first = totals.updates == 0;
        let temperature = self.temperature.at(update.step);
        let updated = self.learner.update(update.step, &sequences, temperature, &mut |pass, walk| {
            let (mut lengths, mut old, mut sampler) = (Vec::new(), Vec::new(), Vec::new());
            let (mut reference, mut advantages, mut weights) = (Vec::new(), Vec::new(), Vec::new());
            for (item, share) in items[pass.clone()].iter().zip(&shares[pass]) {
                lengths.push(item.completion.tokens.len());
                old.extend_from_slice(item.old());
                sampler.extend_from_slice(&item.completion.logprobs);
                reference.extend_from_slice(&item.reference);
                advantages.extend(item.advantages(update.least_entropy));
                weights.extend(item.completion.loss_mask.iter().map(|&counts| if counts { *share } else { 0.0 }));
            }
            if is_first && self.spec.importance_sampling.is_none() {
                let now = walk.values.to_vec1::<f32>().map_err(Error::model)?;
                let pairs = now.iter().zip(&sampler).zip(&weights);
                pairs.filter(|(_, weight)| **weight > 0.0).for_each(|((now, sampler), _)| {
                    totals.mismatch.add(*now, *sampler);
                });
            }
            let input = learn::PassInput {
                sequences: &lengths,
                policy: &walk.values,
                entropy: &walk.entropy,
                old: &old,
                sampler: &sampler,
                reference: self.reference.as_ref().map(|_| &*reference),
                advantages: &advantages,
                weights: &weights,
            };
            let (loss, stats) = learn::policy_loss(&input, &update.settings).map_err(Error::model)?;
            totals.loss += f64::from(loss.to_scalar::<f32>().map_err(Error::model)?);
            totals.stats.add(&stats);
            Ok(loss)
        })?;
        totals.grad_norm += updated.grad_norm;
        totals.violation += updated.max_violation;
        totals.balance = updated.balance_loss.map(|loss| totals.balance.unwrap_or(0.0) + loss);
        totals.updates += 1;
        Ok(())
    }

    /// Learns from a step's groups, in prompt order.
    fn learn(&self, step: u64, groups: Vec<Arc<Group>>) -> Result<Report, Error> {
        self.refresh_reference(step)?;
        let mut items = self.items(&groups);
        let equal = equal_rewards(&groups);
        let mut totals = Totals::default();
        if equal.is_none() {
            self.judge(step, &mut items)?;
        }
        let advantages = match equal {
            None => self.compare(&groups, &mut items),
            Some(_) => groups.iter().map(|group| vec![0.0; group.completions.len()]).collect(),
        };
        let mut surviving: Vec<usize> = items.iter().filter(|item| item.is_learned).map(|item| item.group).collect();
        surviving.dedup();
        if equal.is_some() {
            surviving.clear();
        }
        for item in items.iter().filter(|item| item.old.is_some()) {
            item.counted().for_each(|i| totals.mismatch.add(item.old()[i], item.completion.logprobs[i]));
        }
        let update = Update {
            step,
            settings: policy::loss(&self.spec),
            aggregation: policy::aggregation(self.spec.loss, self.max_tokens.at(step)),
            least_entropy: self.least_entropy(&items),
        };
        for epoch in 0..self.spec.epochs {
            let key = if epoch == 0 { self.key } else { self.key.derive(&format!("epoch {epoch}")) };
            for batch in learn::minibatches(surviving.len(), self.learner.spec.minibatches, key, step) {
                let of_group = |place: &usize| {
                    let group = surviving[*place];
                    items.iter().filter(move |item| item.group == group && item.is_learned)
                };
                let batch: Vec<&Item<'_>> = batch.iter().flat_map(of_group).collect();
                self.minibatch(&update, &batch, &mut totals)?;
            }
        }

        let mut metrics =
            vec![("updates".into(), totals.updates as f64), ("groups_learned".into(), surviving.len() as f64)];
        // Where nothing was learned nothing is said: a zero would look like a collapse.
        if totals.updates > 0 {
            metrics.push(("learning_rate".into(), self.learner.learning_rate(step)));
            metrics.extend(self.measured(&totals));
        }
        let warning = equal.map(|reward| {
            format!(
                "all rewards of step {} are {reward}: there is nothing to learn from it, and `{}` made no update",
                step + 1,
                self.learner.stage
            )
        });
        let groups = Some(groups.into_iter().zip(advantages).collect());
        Ok(Report { metrics, groups, warning, ..Report::default() })
    }
}

/// An item's number, and what a model says of its completion: log-probabilities and entropies.
type Walked = (usize, Vec<f32>, Vec<f32>);

/// What a model says of the items that `pick` accepts, without a graph.
fn walk<'i, 'c>(
    model: &Model,
    items: &'i [Item<'c>],
    pick: impl Fn(&Item<'c>) -> bool,
    sequence: impl Fn(&'i Item<'c>) -> Sequence<'i>,
    temperature: f64,
) -> Result<Vec<Walked>, Error> {
    let picked: Vec<usize> = (0..items.len()).filter(|&i| pick(&items[i])).collect();
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let sequences: Vec<Sequence<'_>> = picked.iter().map(|&i| sequence(&items[i])).collect();
    let walk = model.logprobs(&sequences, temperature, Walk::Frozen).map_err(Error::model)?;
    let numbers = |tensor: &candle_core::Tensor| tensor.to_vec1::<f32>().map_err(Error::model);
    let (values, entropies) = (numbers(&walk.values)?, numbers(&walk.entropy)?);
    let mut start = 0;
    let of_item = |i: usize| {
        let range = start..start + items[i].completion.tokens.len();
        start = range.end;
        (i, values[range.clone()].to_vec(), entropies[range].to_vec())
    };
    Ok(picked.into_iter().map(of_item).collect())
}

/// The reward that all completions of a step have, if there are some and all have the same. What was dropped counts, too:
/// a filter may have dropped it for that.
fn equal_rewards(groups: &[Arc<Group>]) -> Option<f64> {
    let mut rewards = groups.iter().flat_map(|group| &group.rewards).flatten();
    let first = *rewards.next()?;
    rewards.all(|reward| *reward == first).then_some(first)
}

impl Work for GrpoStage {
    fn run(&self, step: u64, inbox: &Inbox, _outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        if groups.is_empty() {
            return Err(Error::Downstream);
        }
        self.learn(step, groups)
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        self.learner.save(folder)?;
        if let Some(reference) = self.reference.as_ref().filter(|reference| reference.saved) {
            let folder = folder.join(format!("reference-{}", self.learner.stage));
            reference.model.lock().unwrap_or_else(PoisonError::into_inner).save(&folder).map_err(Error::model)?;
        }
        Ok(())
    }

    fn load(&self, folder: &Path) -> Result<(), Error> {
        self.learner.load(folder)?;
        if let Some(reference) = self.reference.as_ref().filter(|reference| reference.saved) {
            let folder = folder.join(format!("reference-{}", self.learner.stage));
            let model = self.learner.model.load_again(&folder).map_err(Error::model)?;
            *reference.model.lock().unwrap_or_else(PoisonError::into_inner) =
                model.frozen_copy().map_err(Error::model)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
