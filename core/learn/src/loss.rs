//! Losses over the log-probabilities of tokens.
//!
//! A loss is a weighted sum over tokens, computed in f64 in the order of the tokens. The weights hold the mask and the
//! denominators of the whole minibatch ([`crate::Aggregation`]), so that the losses (and gradients) of its passes add up to
//! those of one pass.
//!
//! Policy losses vary along these axes, each said once: whose ratio counts ([`Ratio`]), what is made of it
//! ([`Surrogate`]), how a sampler that differs is corrected ([`Correction`], and a mask), how the policy is held near a
//! reference ([`Divergence`]), and the entropy bonus.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::correction::Correction;
use crate::divergence::{Divergence, Estimator};
use crate::surrogate::{Clip, Surrogate, Term};

/// Whose probabilities make the ratio `r` of a token, with `l = policy - old` of each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// `e^l` of the token (GRPO).
    Token,
    /// `e^(mean of l)` of the sequence, for each of its tokens (GSPO, arXiv 2507.18071, equation 7).
    Sequence,
    /// The same value, whose gradient is that of the token's own log-probability (GSPO-token, arXiv 2507.18071, equation 14).
    SequenceToken,
}

/// The penalty for leaving a reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// Its factor.
    pub coefficient: f64,
    /// What is penalised.
    pub divergence: Divergence,
    /// The estimate is multiplied by the ratio, through which its gradient flows too: then the gradient is that of the
    /// divergence on average, also off-policy (TRL's `use_bias_correction_kl`; DeepSeek-V3.2, arXiv 2512.02556, section 3.1).
    pub unbiased: bool,
}

impl Penalty {
    /// The plain k3 estimate of GRPO's paper.
    pub fn k3(coefficient: f64) -> Self {
        Self { coefficient, divergence: Divergence { estimator: Estimator::K3, clamp: false }, unbiased: false }
    }
}

/// What a policy loss is made of. The default is GRPO's, without a penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSettings {
    /// Whose ratio counts.
    pub ratio: Ratio,
    /// What is made of it.
    pub surrogate: Surrogate,
    /// The correction of the sampler's probabilities.
    pub correction: Option<Correction>,
    /// The surrogate of a token with negative advantage counts only where the mean over its sequence of `sampler - policy`
    /// is at most this: what the policy has left far behind teaches it nothing (DeepSeek-V3.2, arXiv 2512.02556,
    /// section 3.1; TRL's `off_policy_mask_threshold`).
    pub off_policy_mask: Option<f64>,
    /// The penalty for leaving the reference.
    pub penalty: Option<Penalty>,
    /// The factor of the entropy (in nats), which is subtracted from the loss.
    pub entropy: f64,
}

impl Default for LossSettings {
    fn default() -> Self {
        let clip = Clip { low: Some(0.2), high: Some(0.2) };
        Self {
            ratio: Ratio::Token,
            surrogate: Surrogate::Clip { clip, dual: None, delta: None },
            correction: None,
            off_policy_mask: None,
            penalty: None,
            entropy: 0.0,
        }
    }
}

/// The tokens of one pass, whole sequences. All slices but `sequences` have one value for each of its `N` tokens.
#[derive(Clone, Copy, Debug)]
pub struct PassInput<'a> {
    /// The number of tokens of each sequence.
    pub sequences: &'a [usize],
    /// `[N]`, f32 or f64: the log-probabilities now. The gradient flows into it.
    pub policy: &'a Tensor,
    /// `[N]`, f32 or f64: the entropy of the distribution that each token was drawn from. The gradient flows into it if the
    /// settings give it a factor.
    pub entropy: &'a Tensor,
    /// The log-probabilities that ratios are taken against.
    pub old: &'a [f32],
    /// The log-probabilities that the sampler recorded.
    pub sampler: &'a [f32],
    /// The log-probabilities under the reference model. Without a penalty the divergence is only measured.
    pub reference: Option<&'a [f32]>,
    /// The advantage of the token.
    pub advantages: &'a [f64],
    /// The token's share in the loss, of [`crate::Aggregation`]; 0 for a token outside the loss, which then is in no
    /// statistic either.
    pub weights: &'a [f64],
}

/// Sums over the tokens in the loss; divide by `tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossStats {
    /// Tokens in the loss.
    pub tokens: usize,
    /// The estimated divergence from the reference, before the ratio multiplies it; 0 without one.
    pub kl: f64,
    /// The entropy.
    pub entropy: f64,
    /// Tokens whose ratio is below the lower bound; of a clipped surrogate only those with a negative advantage, which have
    /// no gradient.
    pub clipped_low: usize,
    /// Tokens whose ratio is above the upper bound; of a clipped surrogate only those with a positive advantage, which have
    /// no gradient.
    pub clipped_high: usize,
    /// The weight of the correction; 1 for each token without one.
    pub correction: f64,
    /// Tokens whose surrogate does not count, by the correction or by the off-policy mask.
    pub masked: usize,
}

impl LossStats {
    /// Adds the sums of another pass.
    pub fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.kl += other.kl;
        self.entropy += other.entropy;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.correction += other.correction;
        self.masked += other.masked;
    }
}

/// The loss of a policy, a scalar, with what there is to say about the tokens:
///
/// `sum over tokens of weight * (correction * surrogate + coefficient * divergence [* ratio] - entropy factor * entropy)`.
///
/// # Errors
/// Lengths that differ; log-probabilities that are neither f32 nor f64; a penalty without a reference.
pub fn policy_loss(input: &PassInput<'_>, settings: &LossSettings) -> Result<(Tensor, LossStats)> {
    let (policy, entropy) = (numbers(input.policy)?, numbers(input.entropy)?);
    let lengths = [input.old.len(), input.sampler.len(), input.advantages.len(), input.weights.len(), entropy.len()];
    let reference_fits = input.reference.is_none_or(|reference| reference.len() == policy.len());
    let whole = input.sequences.iter().sum::<usize>() == policy.len();
    if lengths.iter().any(|&length| length != policy.len()) || !reference_fits || !whole {
        bail!(
            "the loss has {} log-probabilities in sequences of {:?}, and {lengths:?} old ones, recorded ones, advantages, \
             weights and entropies",
            policy.len(),
            input.sequences
        );
    }
    if settings.penalty.is_some() && input.reference.is_none() {
        bail!("a KL penalty needs the log-probabilities of a reference model");
    }
    let mut pass = Pass { input, settings, policy: &policy, stats: LossStats::default() };
    let (mut total, mut gradient) = (0.0, vec![0.0; policy.len()]);
    let mut start = 0;
    for length in input.sequences {
        total += pass.sequence(start..start + length, &mut gradient);
        start += length;
    }
    let mut stats = pass.stats;
    let in_loss = || input.weights.iter().zip(&entropy).filter(|(weight, _)| **weight != 0.0);
    stats.entropy = in_loss().map(|(_, entropy)| entropy).sum();
    let mut loss = attach(input.policy, total, gradient)?;
    if settings.entropy != 0.0 {
        let bonus: f64 = in_loss().map(|(weight, entropy)| -settings.entropy * weight * entropy).sum();
        let slopes = input.weights.iter().map(|weight| -settings.entropy * weight).collect();
        loss = kernels::ops::add(&loss, &attach(input.entropy, bonus, slopes)?)?;
    }
    Ok((loss, stats))
}

/// A pass under way.
struct Pass<'a> {
    input: &'a PassInput<'a>,
    settings: &'a LossSettings,
    policy: &'a [f64],
    stats: LossStats,
}

impl Pass<'_> {
    /// One sequence's part of the loss; its gradient goes into `gradient`.
    fn sequence(&mut self, range: std::ops::Range<usize>, gradient: &mut [f64]) -> f64 {
        let Self { input, settings, policy, .. } = *self;
        let counts: Vec<bool> = input.weights[range.clone()].iter().map(|weight| *weight != 0.0).collect();
        let counted = || range.clone().zip(&counts).filter(|(_, counts)| **counts).map(|(i, _)| i);
        let tokens = counted().count().max(1) as f64;
        let mean = |of: &dyn Fn(usize) -> f64| counted().map(of).sum::<f64>() / tokens;
        let log_ratio = |i: usize| policy[i] - f64::from(input.old[i]);
        let of_sequence = match settings.ratio {
            Ratio::Token => None,
            Ratio::Sequence | Ratio::SequenceToken => Some(mean(&log_ratio)),
        };
        let left_behind = settings
            .off_policy_mask
            .is_some_and(|threshold| mean(&|i| f64::from(input.sampler[i]) - policy[i]) > threshold);
        let (old, sampler) = (&input.old[range.clone()], &input.sampler[range.clone()]);
        let corrections = settings.correction.map(|correction| correction.weights(old, sampler, &counts));

        let (mut total, mut shared) = (0.0, 0.0);
        for i in counted() {
            let (weight, advantage) = (input.weights[i], input.advantages[i]);
            let ratio = libm::exp(of_sequence.unwrap_or_else(|| log_ratio(i)));
            let term = settings.surrogate.at(ratio, advantage, policy[i]);
            let correction = corrections.as_ref().map_or(1.0, |weights| weights[i - range.start]);
            let factor = if left_behind && advantage < 0.0 { 0.0 } else { correction };
            self.count(&term, correction, factor);
            // What does not count may be infinite.
            let Term { mut loss, mut by_ratio, mut by_policy, .. } = if factor == 0.0 { Term::default() } else { term };
            loss *= factor;
            by_ratio *= factor;
            by_policy *= factor;
            if let Some(reference) = input.reference {
                // What is no part of the loss is measured as its paper does.
                let penalty = settings.penalty;
                let divergence = penalty.map_or(Penalty::k3(0.0).divergence, |penalty| penalty.divergence);
                let (value, slope) = divergence.at(policy[i], f64::from(reference[i]));
                self.stats.kl += value;
                if let Some(Penalty { coefficient, unbiased, .. }) = penalty {
                    let times = if unbiased { ratio } else { 1.0 };
                    loss += coefficient * (value * times);
                    by_policy += coefficient * (slope * times);
                    by_ratio += if unbiased { coefficient * (value * ratio) } else { 0.0 };
                }
            }
            total += weight * loss;
            match settings.ratio {
                Ratio::Sequence => {
                    gradient[i] = weight * by_policy;
                    shared += weight * by_ratio;
                }
                Ratio::Token | Ratio::SequenceToken => gradient[i] = weight * (by_ratio + by_policy),
            }
        }
        if settings.ratio == Ratio::Sequence {
            counted().for_each(|i| gradient[i] += shared / tokens);
        }
        total
    }

    fn count(&mut self, term: &Term, correction: f64, factor: f64) {
        self.stats.tokens += 1;
        self.stats.clipped_low += usize::from(term.clipped_low);
        self.stats.clipped_high += usize::from(term.clipped_high);
        self.stats.correction += correction;
        self.stats.masked += usize::from(factor == 0.0);
    }
}

/// The loss of supervised fine-tuning, a scalar: `-sum(weight * log-probability)`, the weights as in [`PassInput`].
///
/// # Errors
/// Lengths that differ; log-probabilities that are neither f32 nor f64.
pub fn sft_loss(log_probabilities: &Tensor, weights: &[f64]) -> Result<Tensor> {
    let values = numbers(log_probabilities)?;
    if values.len() != weights.len() {
        bail!("the loss has {} log-probabilities and {} weights", values.len(), weights.len());
    }
    let terms = values.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
    let total = terms.map(|(value, weight)| -weight * value).sum();
    attach(log_probabilities, total, weights.iter().map(|weight| -weight).collect())
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    if !matches!(tensor.dtype(), DType::F32 | DType::F64) {
        bail!("a loss takes log-probabilities in f32 or f64, not {:?}", tensor.dtype());
    }
    tensor.detach().to_dtype(DType::F64)?.to_vec1()
}

/// A scalar that has the value `loss` and, towards `input`, the gradient `gradient`. The few numbers of a pass are
/// handled on the CPU wherever the model is.
fn attach(input: &Tensor, loss: f64, gradient: Vec<f64>) -> Result<Tensor> {
    kernels::ops::known(&input.to_device(&Device::Cpu)?, loss, gradient)
}
