//! The tables of the `grpo` stage. In formulas `r` is the ratio of a token's probability now to that before the update, `A`
//! its advantage, `l` its log-probability.

use super::learning::{BALANCE_LOSS, MINIBATCHES, MODEL, OPTIMIZER, RECOMPUTE, ROUTER_BIAS_STEP, TOKENS_PER_PASS};
use super::stages::{INPUTS, TYPE};
use super::{Bounds, COUNT, Field, Fields, Kind, Rule, choice, default, optional, required};

/// Above 1.
const ABOVE_1: Bounds = Bounds { least: Some(1.0), most: None, above: true, below: false };

const ALGORITHM: Field = default(
    "algorithm",
    Kind::Choice(&[
        choice(
            "grpo",
            "Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300): what the keys below say of `grpo`.",
        ),
        choice(
            "dapo",
            "`clip = { low = 0.2, high = 0.28 }`, `loss = \"token-mean\"` (arXiv 2503.14476); with a filter that refills.",
        ),
        choice("dr-grpo", "`advantage.scale = \"none\"`, `loss = \"constant\"` (arXiv 2503.20783)."),
        choice("gspo", "`ratio = \"sequence\"`, `clip = { low = 3e-4, high = 4e-4 }` (arXiv 2507.18071)."),
        choice(
            "cispo",
            "`surrogate = \"cispo\"`, `clip = { low = \"none\", high = 4 }`, `loss = \"token-mean\"` (arXiv 2506.13585; the bound of ScaleRL, arXiv 2510.13786).",
        ),
        choice(
            "rloo",
            "`advantage = { baseline = \"leave-one-out\", scale = \"none\" }`, `surrogate = \"reinforce\"`, `loss = \"sequence-sum\"`, and a `kl` counts in the reward by `k1` (arXiv 2402.14740).",
        ),
    ]),
    "\"grpo\"",
    "What the keys of this stage are that the file does not give. A key that is given wins; nothing else depends on this.",
);

pub(super) static GRPO: Fields = Fields {
    name: "grpo",
    doc: "Policy optimisation from rewards: GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1) and the algorithms that came of it.",
    fields: &[
        TYPE,
        INPUTS,
        MODEL,
        ALGORITHM,
        default("epochs", Kind::Integer(1, 1 << 10), "1", "Passes over the step's minibatches, each in another order."),
        MINIBATCHES,
        OPTIMIZER,
        optional("advantage", Kind::Table(&ADVANTAGE), "How rewards become advantages."),
        optional(
            "ratio",
            Kind::Choice(&[
                choice("token", "`r = exp(l - l_old)` of each token; of `grpo`."),
                choice(
                    "sequence",
                    "`r = exp(mean of l - l_old)` of the sequence, for each of its tokens (GSPO, arXiv 2507.18071, equation 7).",
                ),
                choice(
                    "sequence-token",
                    "The same value, whose gradient is the token's own (GSPO-token, equation 14).",
                ),
            ]),
            "Whose probabilities make the ratio `r` of a token.",
        ),
        optional(
            "surrogate",
            Kind::Choice(&[
                choice("clip", "`-min(r A, clip(r) A)` (PPO, arXiv 1707.06347, equation 7); of `grpo`."),
                choice(
                    "cispo",
                    "`-sg[clip(r)] A l`: the ratio only weighs, and every token keeps its gradient (arXiv 2506.13585, equation 4).",
                ),
                choice("sapo", "`-4 / t sigmoid(t (r - 1)) A`: a soft gate of temperature t (SAPO, arXiv 2511.20347)."),
                choice("reinforce", "`-A l`: the policy gradient without a ratio (RLOO, arXiv 2402.14740)."),
            ]),
            "What is made of ratio and advantage.",
        ),
        optional("clip", Kind::Table(&CLIP), "How far the ratio counts, for `clip` and `cispo`."),
        optional("sapo", Kind::Table(&SAPO), "The temperatures of `sapo`."),
        optional(
            "loss",
            Kind::Choice(&[
                choice(
                    "sequence-mean",
                    "The mean over sequences of the mean over tokens (GRPO's paper, equation 3); of `grpo`.",
                ),
                choice(
                    "token-mean",
                    "The mean over all tokens of the minibatch (DAPO, arXiv 2503.14476, equation 12).",
                ),
                choice("sequence-sum", "The mean over sequences of the sum over tokens (RLOO, LUSPO)."),
                choice(
                    "constant",
                    "The sum over tokens, divided by sequences times `max_tokens` (Dr. GRPO, arXiv 2503.20783).",
                ),
            ]),
            "How token losses become one number.",
        ),
        optional("kl", Kind::Table(&KL), "The penalty for leaving a reference model; none if absent."),
        default(
            "entropy",
            Kind::Number(Bounds::NOT_NEGATIVE),
            "0.0",
            "The factor of the entropy bonus: the entropy of the policy (nats a token, aggregated as `loss`) times it is \
             subtracted from the loss.",
        ),
        optional(
            "top_entropy",
            Kind::Number(Bounds::SHARE_ABOVE_0),
            "Only this share of the step's tokens is learned from, those whose entropy was highest before the step \
             (arXiv 2506.01939); all if absent.",
        ),
        default(
            "overlong",
            Kind::Choice(&[
                choice("keep", "They are learned from as others."),
                choice("mask", "They count in the statistics of their group, not in the loss."),
            ]),
            "\"keep\"",
            "What becomes of completions that were cut at `max_tokens`. The plugin `overlong` penalises length softly; a \
             filter's `truncated` drops them from the statistics, too.",
        ),
        optional(
            "importance_sampling",
            Kind::Table(&IMPORTANCE_SAMPLING),
            "The correction of a sampler whose probabilities are not the learner's: on a GPU, or behind it. Ratios are then \
             taken against the learner's probabilities before the step. None if absent: ratios are taken against the \
             probabilities that the sampler recorded.",
        ),
        optional(
            "off_policy_mask",
            Kind::Number(Bounds::NOT_NEGATIVE),
            "Sequences with a negative advantage are not learned from where the mean of `l_sampler - l` is above this \
             (DeepSeek-V3.2, arXiv 2512.02556, section 3.1).",
        ),
        default(
            "replay_experts",
            Kind::Boolean,
            "false",
            "Learning sends each token to the experts that sampling sent it to; the gradient flows through their weights \
             (routing replay, arXiv 2510.11370).",
        ),
        ROUTER_BIAS_STEP,
        BALANCE_LOSS,
        TOKENS_PER_PASS,
        RECOMPUTE,
    ],
    rules: &[],
};

static ADVANTAGE: Fields = Fields {
    name: "advantage",
    doc: "How rewards become advantages: `A = (reward - baseline) / scale`. Where all rewards of a group are equal it is 0.",
    fields: &[
        optional(
            "baseline",
            Kind::Choice(&[
                choice("group", "The mean of its group; of `grpo`."),
                choice("leave-one-out", "The mean of the others of its group (RLOO, arXiv 2402.14740, equation 6)."),
                choice("none", "0."),
            ]),
            "What a reward is compared with.",
        ),
        optional(
            "scale",
            Kind::Choice(&[
                choice("group", "The standard deviation of the rewards of the group, plus `epsilon`; of `grpo`."),
                choice(
                    "leave-one-out",
                    "The standard deviation of the others of the group, plus `epsilon`; 1 where it is 0.",
                ),
                choice("batch", "The standard deviation of all rewards of the step, plus `epsilon`."),
                choice(
                    "whiten-sequences",
                    "All advantages of the step are whitened: `(A - mean) / (deviation + epsilon)`.",
                ),
                choice(
                    "whiten-tokens",
                    "The same over all tokens: `(A - mean) / sqrt(variance + epsilon)` (REINFORCE++, arXiv 2501.03262, equation 9).",
                ),
                choice("none", "1 (Dr. GRPO, arXiv 2503.20783)."),
            ]),
            "What centred rewards are divided by.",
        ),
        optional("ddof", Kind::Integer(0, 1), "A standard deviation of n numbers divides by n - ddof; 1 of `grpo`."),
        optional(
            "epsilon",
            Kind::Number(Bounds::POSITIVE),
            "Keeps nearly equal rewards from huge advantages; 1e-4 of `grpo`.",
        ),
    ],
    rules: &[],
};

static CLIP: Fields = Fields {
    name: "clip",
    doc: "How far the probability ratio counts.",
    fields: &[
        optional(
            "low",
            Kind::NumberOr(Bounds::NOT_NEGATIVE, "none"),
            "Down to 1 - low; `\"none\"`: however small it is. 0.2 of `grpo`.",
        ),
        optional(
            "high",
            Kind::NumberOr(Bounds::NOT_NEGATIVE, "none"),
            "Up to 1 + high; `\"none\"`: however large it is. 0.2 of `grpo`.",
        ),
        optional(
            "dual",
            Kind::Number(ABOVE_1),
            "The loss of a token with A < 0 is at most `-dual A` (dual-clip PPO, arXiv 1912.09729, equation 5); no limit if \
             absent.",
        ),
        optional(
            "delta",
            Kind::Number(ABOVE_1),
            "The ratio counts up to delta for A < 0, too (two-sided clipping, INTELLECT-2, arXiv 2505.07291); no limit if absent.",
        ),
    ],
    rules: &[],
};

static SAPO: Fields = Fields {
    name: "sapo",
    doc: "The temperatures of SAPO's gate (arXiv 2511.20347, equation 6).",
    fields: &[
        optional("positive", Kind::Number(Bounds::POSITIVE), "Where the advantage is positive; 1."),
        optional("negative", Kind::Number(Bounds::POSITIVE), "Elsewhere; 1.05."),
    ],
    rules: &[],
};

static KL: Fields = Fields {
    name: "kl",
    doc: "The penalty for leaving a reference model, by an estimate from each token's `d = l_reference - l`.",
    fields: &[
        required("coefficient", Kind::Number(Bounds::NOT_NEGATIVE), "The factor of the estimate."),
        optional(
            "place",
            Kind::Choice(&[
                choice("loss", "It is added to the loss; of all but `rloo`."),
                choice(
                    "reward",
                    "It is taken off the reward, by the probabilities before the step (RLOO, REINFORCE++).",
                ),
            ]),
            "Where it counts.",
        ),
        optional(
            "estimator",
            Kind::Choice(&[
                choice("k1", "`-d`; of `rloo`."),
                choice("abs", "`|d|`."),
                choice("k2", "`d^2 / 2`."),
                choice("k3", "`exp(d) - d - 1` (DeepSeekMath, equation 4); of all but `rloo`."),
            ]),
            "How a token tells of the divergence (Schulman, \"Approximating KL divergence\", 2020).",
        ),
        default(
            "unbiased",
            Kind::Boolean,
            "false",
            "The estimate is multiplied by the ratio, so that its gradient is that of the divergence (DeepSeek-V3.2, \
             arXiv 2512.02556; TRL's `use_bias_correction_kl`).",
        ),
        default(
            "clamp",
            Kind::Boolean,
            "false",
            "d is held within -20 and 20, the estimate within -10 and 10 (verl's `low_var_kl`).",
        ),
        optional(
            "model",
            Kind::Reference("model"),
            "The frozen model; the learning model's own start if it is the learning model, or absent.",
        ),
        optional("refresh_every", COUNT, "Steps after which the reference is replaced by the policy; never if absent."),
        optional(
            "average",
            Kind::Number(Bounds::SHARE_BELOW_1),
            "At a refresh the reference becomes `average * reference + (1 - average) * policy` (TR-DPO, arXiv 2404.09656; \
             TRL's `ref_model_mixup_alpha` is 1 - average); 0 if absent: the policy replaces it.",
        ),
    ],
    rules: &[Rule::Needs("average", "refresh_every")],
};

static IMPORTANCE_SAMPLING: Fields = Fields {
    name: "importance_sampling",
    doc: "A weight for each token's surrogate, through which nothing flows, from `d = l_learner - l_sampler` before the step. \
          Where both agree it is 1, exactly.",
    fields: &[
        default(
            "level",
            Kind::Choice(&[
                choice("token", "`exp(d)` of the token."),
                choice("sequence", "`exp(sum of d)` of the sequence."),
                choice("sequence-mean", "`exp(mean of d)` of the sequence; it can only mask."),
                choice("worst-token", "The least and the greatest `exp(d)` of the sequence; it can only mask."),
            ]),
            "\"token\"",
            "What is held within the bounds.",
        ),
        default(
            "mode",
            Kind::Choice(&[
                choice("truncate", "Outside the bounds the weight is the bound (truncated importance sampling)."),
                choice("mask", "Outside the bounds the weight is 0."),
            ]),
            "\"truncate\"",
            "What becomes of a weight outside the bounds.",
        ),
        default("at_least", Kind::Number(Bounds::NOT_NEGATIVE), "0.0", "The lower bound."),
        default("at_most", Kind::Number(Bounds::POSITIVE), "2.0", "The upper bound; 2 is verl's and slime's."),
    ],
    rules: &[],
};
