//! Losses over the log-probabilities of tokens.
//!
//! A loss is a weighted sum over tokens, computed in f64 in the order of the tokens. The weights hold the mask and the
//! denominators of the whole minibatch, so that the losses (and gradients) of its passes add up to those of one pass.

use candle_core::{DType, Device, Result, Tensor, bail};

/// How far the policy may move in one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrpoSettings {
    /// The ratio counts down to `1 - clip_low`.
    pub clip_low: f64,
    /// The ratio counts up to `1 + clip_high`.
    pub clip_high: f64,
    /// The factor of the KL penalty; `None`: no penalty.
    pub kl: Option<f64>,
}

/// The tokens of one pass. All slices have one value for each of its `N` tokens.
#[derive(Clone, Copy, Debug)]
pub struct PassInput<'a> {
    /// `[N]`, f32 or f64: the log-probabilities now. The gradient flows into it.
    pub policy: &'a Tensor,
    /// The log-probabilities at sampling.
    pub old: &'a [f32],
    /// The log-probabilities under the reference model.
    pub reference: Option<&'a [f32]>,
    /// The advantage of the token's completion.
    pub advantages: &'a [f64],
    /// The token's share in the loss: `1 / (sequences * tokens of the sequence)` for the mean over sequences of the mean
    /// over tokens, `1 / tokens` for the mean over tokens, both over the minibatch; 0 for a token outside the loss, which
    /// then is in no statistic either.
    pub weights: &'a [f64],
}

/// Sums over the tokens in the loss; divide by `tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GrpoStats {
    /// Tokens in the loss.
    pub tokens: usize,
    /// The k3 estimate of the divergence from the reference; 0 without one.
    pub kl: f64,
    /// Tokens whose ratio is below the lower bound while their advantage is negative: they have no gradient.
    pub clipped_low: usize,
    /// Tokens whose ratio is above the upper bound while their advantage is positive: they have no gradient.
    pub clipped_high: usize,
    /// The ratio of the probabilities now and at sampling.
    pub ratio: f64,
    /// The absolute difference of the log-probabilities now and at sampling.
    pub difference: f64,
    /// The largest of those differences; not a sum.
    pub difference_max: f64,
}

impl GrpoStats {
    /// Adds the sums of another pass.
    pub fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.kl += other.kl;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.ratio += other.ratio;
        self.difference += other.difference;
        self.difference_max = self.difference_max.max(other.difference_max);
    }
}

/// The loss of group relative policy optimisation (DeepSeekMath, arXiv 2402.03300, equation 3; separate bounds as in DAPO,
/// arXiv 2503.14476), a scalar, with what there is to say about the tokens. For a token of ratio `r = exp(policy - old)`:
///
/// `weight * ( -min(r * A, clip(r, 1 - clip_low, 1 + clip_high) * A) + kl * (exp(d) - d - 1) )`, `d = reference - policy`.
///
/// # Errors
/// Lengths that differ; a `policy` that is neither f32 nor f64; a KL factor without a reference.
pub fn grpo_loss(input: &PassInput<'_>, settings: &GrpoSettings) -> Result<(Tensor, GrpoStats)> {
    let policy = log_probs(input.policy)?;
    let lengths = [input.old.len(), input.advantages.len(), input.weights.len()];
    let reference_fits = input.reference.is_none_or(|reference| reference.len() == policy.len());
    if lengths.iter().any(|&length| length != policy.len()) || !reference_fits {
        bail!("the loss has {} log-probabilities, and {lengths:?} old ones, advantages and weights", policy.len());
    }
    if settings.kl.is_some() && input.reference.is_none() {
        bail!("a KL penalty needs the log-probabilities of a reference model");
    }
    let (floor, ceiling) = (1.0 - settings.clip_low, 1.0 + settings.clip_high);
    let kl_factor = settings.kl.unwrap_or(0.0);
    let mut stats = GrpoStats::default();
    let mut total = 0.0;
    let mut gradient = vec![0.0; policy.len()];
    for (i, &now) in policy.iter().enumerate() {
        let (weight, advantage) = (input.weights[i], input.advantages[i]);
        if weight == 0.0 {
            continue;
        }
        let difference = now - f64::from(input.old[i]);
        let ratio = libm::exp(difference);
        let (free, held) = (ratio * advantage, ratio.clamp(floor, ceiling) * advantage);
        // The clipped branch is constant; where it is the smaller one, nothing flows.
        let (mut loss, mut slope) = if free <= held { (-free, -free) } else { (-held, 0.0) };
        // A ratio that is no number must not pass for one that was clipped.
        if free.is_nan() {
            (loss, slope) = (free, free);
        }
        if let Some(reference) = input.reference {
            let d = f64::from(reference[i]) - now;
            let excess = libm::expm1(d);
            stats.kl += excess - d;
            loss += kl_factor * (excess - d);
            slope -= kl_factor * excess;
        }
        total += weight * loss;
        gradient[i] = weight * slope;
        stats.tokens += 1;
        stats.clipped_low += usize::from(ratio < floor && advantage < 0.0);
        stats.clipped_high += usize::from(ratio > ceiling && advantage > 0.0);
        stats.ratio += ratio;
        stats.difference += difference.abs();
        stats.difference_max = stats.difference_max.max(difference.abs());
    }
    Ok((attach(input.policy, total, gradient)?, stats))
}

/// The loss of supervised fine-tuning, a scalar: `-sum(weight * log-probability)`, the weights as in [`PassInput`].
///
/// # Errors
/// Lengths that differ; log-probabilities that are neither f32 nor f64.
pub fn sft_loss(log_probabilities: &Tensor, weights: &[f64]) -> Result<Tensor> {
    let values = log_probs(log_probabilities)?;
    if values.len() != weights.len() {
        bail!("the loss has {} log-probabilities and {} weights", values.len(), weights.len());
    }
    let terms = values.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
    let total = terms.map(|(value, weight)| -weight * value).sum();
    attach(log_probabilities, total, weights.iter().map(|weight| -weight).collect())
}

fn log_probs(tensor: &Tensor) -> Result<Vec<f64>> {
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
