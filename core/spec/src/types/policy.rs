//! What the `grpo` stage does, with its algorithm expanded.

use serde::Serialize;

use super::Learning;

/// `type = "grpo"`: a policy learns from rewards (DeepSeekMath, arXiv 2402.03300, section 4.1, and what came of it).
#[derive(Clone, Debug, Serialize)]
pub struct Grpo {
    /// What it shares with other learning stages.
    pub learning: Learning,
    /// Passes over the step's minibatches. Default 1.
    pub epochs: usize,
    /// How rewards become advantages.
    pub advantage: Advantage,
    /// Whose probabilities make a token's ratio.
    pub ratio: Ratio,
    /// What is made of ratio and advantage.
    pub surrogate: Surrogate,
    /// How token losses become one number.
    pub loss: Aggregation,
    /// The penalty for leaving a reference model; `None`: none.
    pub kl: Option<Kl>,
    /// The factor of the entropy bonus. Default 0: none.
    pub entropy: f64,
    /// Only this share of tokens, those with the highest entropy, is learned from; `None`: all.
    pub top_entropy: Option<f64>,
    /// What becomes of completions that were cut at the limit.
    pub overlong: Overlong,
    /// How a sampler whose probabilities are not the learner's is corrected; `None`: not.
    pub importance_sampling: Option<ImportanceSampling>,
    /// The distance beyond which sequences with a negative advantage are not learned from; `None`: none.
    pub off_policy_mask: Option<f64>,
    /// Whether learning sends tokens to the experts that sampling sent them to.
    pub replay_experts: bool,
}

/// `advantage = { baseline, scale, ddof, epsilon }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Advantage {
    /// What is subtracted from a reward.
    pub baseline: Baseline,
    /// What the rest is divided by.
    pub scale: Scale,
    /// A standard deviation of n numbers divides by n - ddof.
    pub ddof: u32,
    /// Added to the standard deviation; to the variance where tokens are whitened.
    pub epsilon: f64,
}

/// What is subtracted from a reward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The mean of its group.
    Group,
    /// The mean of the others of its group (RLOO, arXiv 2402.14740).
    LeaveOneOut,
    /// Nothing.
    None,
}

/// What centred rewards are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// The standard deviation of the group's rewards.
    Group,
    /// The standard deviation of the rewards of the others of the group.
    LeaveOneOut,
    /// The standard deviation of all rewards of the step.
    Batch,
    /// They are whitened over completions.
    WhitenSequences,
    /// They are whitened over tokens (REINFORCE++, arXiv 2501.03262).
    WhitenTokens,
    /// Nothing (Dr. GRPO, arXiv 2503.20783).
    None,
}

/// Whose probabilities make a token's ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ratio {
    /// The token's.
    Token,
    /// The sequence's, by the mean of its logarithms (GSPO, arXiv 2507.18071).
    Sequence,
    /// The same value with the token's own gradient (GSPO-token).
    SequenceToken,
}

/// What is made of ratio and advantage, with the settings that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Surrogate {
    /// PPO's clipped ratio.
    Clip {
        /// The ratio counts down to 1 - low.
        low: Option<f64>,
        /// The ratio counts up to 1 + high.
        high: Option<f64>,
        /// The loss of a token with a negative advantage A is at most -dual * A.
        dual: Option<f64>,
        /// The ratio counts up to delta, whatever the advantage.
        delta: Option<f64>,
    },
    /// The ratio weighs a token, and nothing flows through it (CISPO, arXiv 2506.13585).
    Cispo {
        /// The ratio counts down to 1 - low.
        low: Option<f64>,
        /// The ratio counts up to 1 + high.
        high: Option<f64>,
    },
    /// A soft gate (SAPO, arXiv 2511.20347).
    Sapo {
        /// Its temperature where the advantage is positive.
        positive: f64,
        /// Its temperature elsewhere.
        negative: f64,
    },
    /// No ratio: the plain policy gradient.
    Reinforce,
}

/// How token losses become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// The mean over sequences of the mean over tokens (GRPO's paper).
    SequenceMean,
    /// The mean over all tokens of the minibatch (DAPO, arXiv 2503.14476).
    TokenMean,
    /// The mean over sequences of the sum over tokens (RLOO, LUSPO).
    SequenceSum,
    /// The same, divided by the greatest length (Dr. GRPO, arXiv 2503.20783).
    Constant,
}

/// `kl = { coefficient, place, estimator, unbiased, clamp, model, refresh_every, average }`.
#[derive(Clone, Debug, Serialize)]
pub struct Kl {
    /// The factor of the estimate.
    pub coefficient: f64,
    /// Where it counts.
    pub place: KlPlace,
    /// How a token tells of the divergence.
    pub estimator: Estimator,
    /// The estimate is multiplied by the ratio. Default false.
    pub unbiased: bool,
    /// The difference of log-probabilities is held within ±20, the estimate within ±10. Default false.
    pub clamp: bool,
    /// The frozen model; the learning model's own start if it is the learning model.
    pub model: String,
    /// Steps after which the reference is refreshed from the policy; `None`: never.
    pub refresh_every: Option<u64>,
    /// The share of itself that the reference keeps at a refresh. Default 0: the policy replaces it.
    pub average: f64,
}

/// Where a KL penalty counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KlPlace {
    /// It is added to the loss.
    Loss,
    /// It is taken off the reward.
    Reward,
}

/// How a token tells of the divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// policy - reference.
    K1,
    /// |policy - reference|.
    Abs,
    /// (policy - reference)^2 / 2.
    K2,
    /// exp(reference - policy) - (reference - policy) - 1.
    K3,
}

/// What becomes of completions that were cut at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlong {
    /// They are learned from as others.
    Keep,
    /// They count in the statistics of their group, not in the loss.
    Mask,
}

/// `importance_sampling = { level, mode, at_least, at_most }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ImportanceSampling {
    /// Of what a weight is made.
    pub level: CorrectionLevel,
    /// What becomes of it outside the bounds.
    pub mode: Bounding,
    /// The lower bound. Default 0: none.
    pub at_least: f64,
    /// The upper bound. Default 2.
    pub at_most: f64,
}

/// Of what the weight of an importance sampling correction is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CorrectionLevel {
    /// The token's ratio.
    Token,
    /// The product of the ratios of the sequence.
    Sequence,
    /// Their geometric mean, which can only mask.
    SequenceMean,
    /// The least and the greatest of them, which can only mask.
    WorstToken,
}

/// What becomes of a weight outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bounding {
    /// It is the bound.
    Truncate,
    /// It is 0.
    Mask,
}
