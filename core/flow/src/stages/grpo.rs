//! `grpo`: group relative policy optimisation (DeepSeekMath, arXiv 2402.03300, section 4.1) on the step's groups.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base::{Completion, Decision, Group, RngKey};
use model::{Model, Sequence, Walk};
use spec::{AdvantageScale, LossMean, Schedule};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::stages::learning::Learner;

pub(crate) struct GrpoStage {
    pub learner: Learner,
    pub spec: spec::Grpo,
    pub key: RngKey,
    /// The temperature at which the completions were sampled: log-probabilities are of that distribution.
    pub temperature: Schedule,
    pub reference: Option<Reference>,
}

/// The model that the policy is held near.
pub(crate) struct Reference {
    pub model: Mutex<Model>,
    pub coefficient: f64,
    /// Steps after which the policy replaces it.
    pub refresh_every: Option<u64>,
    /// Whether a checkpoint must hold it: a frozen model of its own can be loaded again.
    pub saved: bool,
}

/// A completion in the loss.
struct Item<'a> {
    tokens: Vec<u32>,
    prompt: usize,
    completion: &'a Completion,
    advantage: f64,
}

/// Sums over all tokens of all minibatches of a step.
#[derive(Default)]
struct Totals {
    loss: f64,
    grad_norm: f64,
    violation: f64,
    balance: Option<f64>,
    updates: usize,
    entropy: f64,
    stats: learn::GrpoStats,
}

impl GrpoStage {
    fn advantages(&self, group: &Group) -> Vec<f64> {
        let rewards: Vec<Option<f64>> = group
            .rewards
            .iter()
            .zip(&group.decisions)
            .map(|(reward, decision)| reward.filter(|_| !matches!(decision, Decision::Drop(_))))
            .collect();
        let scale = match self.spec.advantage {
            AdvantageScale::Group => learn::Scale::Group,
            AdvantageScale::None => learn::Scale::None,
        };
        learn::group_advantages(&rewards, scale)
    }

    /// What a step's updates measured.
    fn measured(&self, totals: &Totals) -> Vec<(String, f64)> {
        let (updates, tokens, stats) = (totals.updates as f64, totals.stats.tokens.max(1) as f64, &totals.stats);
        let mut metrics = vec![
            ("loss".into(), totals.loss / updates),
            ("grad_norm".into(), totals.grad_norm / updates),
            ("entropy".into(), totals.entropy / tokens),
        ];
        if self.reference.is_some() {
            metrics.push(("kl".into(), stats.kl / tokens));
        }
        metrics.extend([
            ("clip_ratio/low_mean".into(), stats.clipped_low as f64 / tokens),
            ("clip_ratio/high_mean".into(), stats.clipped_high as f64 / tokens),
            ("clip_ratio/region_mean".into(), (stats.clipped_low + stats.clipped_high) as f64 / tokens),
            ("sampling/sampling_logp_difference/mean".into(), stats.difference / tokens),
            ("sampling/sampling_logp_difference/max".into(), stats.difference_max),
            ("sampling/importance_sampling_ratio/mean".into(), stats.ratio / tokens),
            ("max_vio/mean".into(), totals.violation / updates),
        ]);
        metrics.extend(totals.balance.map(|sum| ("balance_loss".into(), sum / updates)));
        metrics
    }

    /// One optimiser step on the completions of `items`.
    fn minibatch(&self, step: u64, items: &[Item<'_>], totals: &mut Totals) -> Result<(), Error> {
        let temperature = self.temperature.at(step);
        let tokens_of = |item: &Item<'_>| item.completion.loss_mask.iter().filter(|&&counts| counts).count();
        let all_tokens: usize = items.iter().map(tokens_of).sum();
        let weight_of = |item: &Item<'_>| match self.spec.loss {
            LossMean::SequenceMean => 1.0 / (items.len() * tokens_of(item).max(1)) as f64,
            LossMean::TokenMean => 1.0 / all_tokens.max(1) as f64,
        };
        let settings = learn::GrpoSettings {
            clip_low: self.spec.clip.low,
            clip_high: self.spec.clip.high,
            kl: self.reference.as_ref().map(|reference| reference.coefficient),
        };
        let sequences: Vec<Sequence<'_>> =
            items.iter().map(|item| Sequence { tokens: &item.tokens, from: item.prompt }).collect();
        let updated = self.learner.update(step, &sequences, temperature, &mut |pass, walk| {
            let reference = match &self.reference {
                Some(reference) => {
                    let model = reference.model.lock().unwrap_or_else(PoisonError::into_inner);
                    let walk =
                        model.logprobs(&sequences[pass.clone()], temperature, Walk::Frozen).map_err(Error::model)?;
                    Some(walk.values.to_vec1::<f32>().map_err(Error::model)?)
                }
                None => None,
            };
            let (mut old, mut advantages, mut weights) = (Vec::new(), Vec::new(), Vec::new());
            for item in &items[pass] {
                let weight = weight_of(item);
                old.extend_from_slice(&item.completion.logprobs);
                advantages.extend(std::iter::repeat_n(item.advantage, item.completion.tokens.len()));
                weights.extend(item.completion.loss_mask.iter().map(|&counts| if counts { weight } else { 0.0 }));
            }
            let input = learn::PassInput {
                policy: &walk.values,
                old: &old,
                reference: reference.as_deref(),
                advantages: &advantages,
                weights: &weights,
            };
            let (loss, stats) = learn::grpo_loss(&input, &settings).map_err(Error::model)?;
            totals.loss += f64::from(loss.to_scalar::<f32>().map_err(Error::model)?);
            let entropy = walk.entropy.to_vec1::<f32>().map_err(Error::model)?;
            let in_loss = entropy.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0);
            totals.entropy += in_loss.map(|(entropy, _)| f64::from(*entropy)).sum::<f64>();
            totals.stats.add(&stats);
            Ok(loss)
        })?;
        totals.grad_norm += updated.grad_norm;
        totals.violation += updated.max_violation;
        totals.balance = updated.balance_loss.map(|loss| totals.balance.unwrap_or(0.0) + loss);
        totals.updates += 1;
        Ok(())
    }
}

impl Work for GrpoStage {
    fn run(&self, step: u64, inbox: &Inbox, _outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        if groups.is_empty() {
            return Err(Error::Downstream);
        }
        if let Some(Reference { model, refresh_every: Some(every), .. }) = &self.reference
            && step > 0
            && step.is_multiple_of(*every)
        {
            model
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .copy_from(&self.learner.model)
                .map_err(Error::model)?;
        }
        let advantages: Vec<Vec<f64>> = groups.iter().map(|group| self.advantages(group)).collect();
        let kept = |group: &Group, i: usize| group.decisions[i] == Decision::Keep;
        let surviving: Vec<usize> =
            (0..groups.len()).filter(|&g| (0..groups[g].completions.len()).any(|i| kept(&groups[g], i))).collect();

        let mut totals = Totals::default();
        for batch in learn::minibatches(surviving.len(), self.learner.spec.minibatches, self.key, step) {
            let items: Vec<Item<'_>> = batch
                .iter()
                .map(|&place| surviving[place])
                .flat_map(|g| (0..groups[g].completions.len()).map(move |i| (g, i)))
                .filter(|&(g, i)| kept(&groups[g], i))
                .map(|(g, i)| {
                    let (prompt, completion) = (&groups[g].prompt.tokens, &groups[g].completions[i]);
                    let tokens = prompt.iter().chain(&completion.tokens).copied().collect();
                    Item { tokens, prompt: prompt.len(), completion, advantage: advantages[g][i] }
                })
                .collect();
            self.minibatch(step, &items, &mut totals)?;
        }

        let mut metrics =
            vec![("updates".into(), totals.updates as f64), ("groups_learned".into(), surviving.len() as f64)];
        // Where nothing was learned nothing is said: a zero would look like a collapse.
        if totals.updates > 0 {
            metrics.push(("learning_rate".into(), self.learner.learning_rate(step)));
            metrics.extend(self.measured(&totals));
        }
        Ok(Report { metrics, groups: Some(groups.into_iter().zip(advantages).collect()), ..Report::default() })
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
