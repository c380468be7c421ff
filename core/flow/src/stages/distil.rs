//! `distil`: a student learns, on what it wrote itself, to be as likely to say a thing as its teacher is.
//!
//! The loss is the reverse KL divergence from the teacher, sequence by sequence estimated on the student's own samples
//! (MiniLLM, arXiv 2306.08543, equation 1; GKD, arXiv 2306.13649, section 3): the advantage of a token is how much likelier
//! the teacher finds it than the student did, `log p_teacher - log p_old`, and the ratio to the sampler's probability is
//! clipped as in GRPO. It is the mean over the tokens of a minibatch.

use std::path::Path;
use std::sync::Arc;

use base::{Decision, Group, RngKey};
use learn::{Aggregation, LossSettings, LossStats, PassInput};
use model::{Model, Sequence, Walk};
use spec::Schedule;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::stages::learning::Learner;

pub(crate) struct DistilStage {
    pub learner: Learner,
    pub teacher: Arc<Model>,
    pub key: RngKey,
    /// The temperature at which the completions were sampled: both distributions are taken at it.
    pub temperature: Schedule,
}

/// Sums over the minibatches of a step.
#[derive(Default)]
struct Totals {
    updates: usize,
    loss: f64,
    grad_norm: f64,
    violation: f64,
    /// The sum of `log p_old - log p_teacher` over the tokens.
    divergence: f64,
    stats: LossStats,
}

impl DistilStage {
    fn minibatch(&self, step: u64, groups: &[&Arc<Group>], totals: &mut Totals) -> Result<(), Error> {
        let temperature = self.temperature.at(step);
        let kept = |group: &Arc<Group>, i: usize| group.decisions.get(i).is_none_or(|one| *one == Decision::Keep);
        let items: Vec<_> = groups
            .iter()
            .flat_map(|group| (0..group.completions.len()).map(move |i| (group, i)))
            .filter(|(group, i)| kept(group, *i))
            .map(|(group, i)| (group.prompt.tokens.as_slice(), &group.completions[i]))
            .collect();
        let tokens: Vec<Vec<u32>> =
            items.iter().map(|(prompt, written)| prompt.iter().chain(&written.tokens).copied().collect()).collect();
        let sequences: Vec<Sequence<'_>> =
            items.iter().zip(&tokens).map(|((prompt, _), tokens)| Sequence::new(tokens, prompt.len())).collect();
        let counts: Vec<usize> =
            items.iter().map(|(_, written)| written.loss_mask.iter().filter(|&&counts| counts).count()).collect();
        let shares = Aggregation::TokenMean.weights(&counts);
        let updated = self.learner.update(step, &sequences, temperature, &mut |pass, walk| {
            let taught = self.teacher.logprobs(&sequences[pass.clone()], temperature, Walk::Frozen);
            let teacher = taught.and_then(|walk| Ok(walk.values.to_vec1::<f32>()?)).map_err(Error::model)?;
            let (mut lengths, mut old, mut weights) = (Vec::new(), Vec::new(), Vec::new());
            for ((_, written), share) in items[pass.clone()].iter().zip(&shares[pass]) {
                lengths.push(written.tokens.len());
                old.extend_from_slice(&written.logprobs);
                weights.extend(written.loss_mask.iter().map(|&counts| if counts { *share } else { 0.0 }));
            }
            let advantages: Vec<f64> =
                teacher.iter().zip(&old).map(|(teacher, old)| f64::from(*teacher) - f64::from(*old)).collect();
            let input = PassInput {
                sequences: &lengths,
                policy: &walk.values,
                entropy: &walk.entropy,
                old: &old,
                sampler: &old,
                reference: None,
                advantages: &advantages,
                weights: &weights,
            };
            let (loss, stats) = learn::policy_loss(&input, &LossSettings::default()).map_err(Error::model)?;
            totals.loss += f64::from(loss.to_scalar::<f32>().map_err(Error::model)?);
            let in_loss = advantages.iter().zip(&weights).filter(|(_, weight)| **weight != 0.0);
            totals.divergence -= in_loss.map(|(advantage, _)| advantage).sum::<f64>();
            totals.stats.add(&stats);
            Ok(loss)
        })?;
        totals.grad_norm += updated.grad_norm;
        totals.violation += updated.max_violation;
        totals.updates += 1;
        Ok(())
    }
}

impl Work for DistilStage {
    fn run(&self, step: u64, inbox: &Inbox, _outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        if groups.is_empty() {
            return Err(Error::Downstream);
        }
        let survives = |group: &&Arc<Group>| group.decisions.contains(&Decision::Keep);
        let surviving: Vec<&Arc<Group>> = groups.iter().filter(survives).collect();
        let mut totals = Totals::default();
        for batch in learn::minibatches(surviving.len(), self.learner.spec.minibatches, self.key, step) {
            let batch: Vec<&Arc<Group>> = batch.into_iter().map(|place| surviving[place]).collect();
            self.minibatch(step, &batch, &mut totals)?;
        }
        let mut metrics = vec![("updates".into(), totals.updates as f64)];
        if totals.updates > 0 {
            let (updates, tokens) = (totals.updates as f64, totals.stats.tokens.max(1) as f64);
            metrics.extend([
                ("learning_rate".into(), self.learner.learning_rate(step)),
                ("loss".into(), totals.loss / updates),
                ("grad_norm".into(), totals.grad_norm / updates),
                ("entropy".into(), totals.stats.entropy / tokens),
                ("reverse_kl".into(), totals.divergence / tokens),
                ("clip_ratio/low_mean".into(), totals.stats.clipped_low as f64 / tokens),
                ("clip_ratio/high_mean".into(), totals.stats.clipped_high as f64 / tokens),
                ("max_vio/mean".into(), totals.violation / updates),
            ]);
        }
        let groups = groups.into_iter().map(|group| (group, Vec::new())).collect();
        Ok(Report { metrics, groups: Some(groups), ..Report::default() })
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        self.learner.save(folder)
    }

    fn load(&self, folder: &Path) -> Result<(), Error> {
        self.learner.load(folder)
    }
}
