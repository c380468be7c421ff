//! What a `grpo` stage says, in the terms of `learn`.

use spec::{Bounding, CorrectionLevel, Estimator, Grpo, KlPlace, Surrogate};

/// How rewards become advantages.
pub(crate) fn advantage(spec: &spec::Advantage) -> learn::AdvantageSettings {
    learn::AdvantageSettings {
        baseline: match spec.baseline {
            spec::Baseline::Group => learn::Baseline::Group,
            spec::Baseline::LeaveOneOut => learn::Baseline::LeaveOneOut,
            spec::Baseline::None => learn::Baseline::None,
        },
        scale: match spec.scale {
            spec::Scale::Group => learn::Scale::Group,
            spec::Scale::LeaveOneOut => learn::Scale::LeaveOneOut,
            spec::Scale::Batch => learn::Scale::Batch,
            spec::Scale::WhitenSequences => learn::Scale::WhitenSequences,
            spec::Scale::WhitenTokens => learn::Scale::WhitenTokens,
            spec::Scale::None => learn::Scale::None,
        },
        ddof: spec.ddof,
        epsilon: spec.epsilon,
    }
}

/// How token losses become one number, where completions have at most so many tokens.
pub(crate) fn aggregation(spec: spec::Aggregation, max_tokens: f64) -> learn::Aggregation {
    match spec {
        spec::Aggregation::SequenceMean => learn::Aggregation::SequenceMean,
        spec::Aggregation::TokenMean => learn::Aggregation::TokenMean,
        spec::Aggregation::SequenceSum => learn::Aggregation::SequenceSum,
        spec::Aggregation::Constant => learn::Aggregation::Constant(max_tokens),
    }
}

/// How a token tells of the divergence from the reference.
pub(crate) fn divergence(kl: &spec::Kl) -> learn::Divergence {
    let estimator = match kl.estimator {
        Estimator::K1 => learn::Estimator::K1,
        Estimator::Abs => learn::Estimator::Abs,
        Estimator::K2 => learn::Estimator::K2,
        Estimator::K3 => learn::Estimator::K3,
    };
    learn::Divergence { estimator, clamp: kl.clamp }
}

/// What the loss is made of.
pub(crate) fn loss(spec: &Grpo) -> learn::LossSettings {
    let clip = |low, high| learn::Clip { low, high };
    let correction = |spec: spec::ImportanceSampling| learn::Correction {
        level: match spec.level {
            CorrectionLevel::Token => learn::Level::Token,
            CorrectionLevel::Sequence => learn::Level::Sequence,
            CorrectionLevel::SequenceMean => learn::Level::SequenceMean,
            CorrectionLevel::WorstToken => learn::Level::WorstToken,
        },
        bounding: match spec.mode {
            Bounding::Truncate => learn::Bounding::Truncate,
            Bounding::Mask => learn::Bounding::Mask,
        },
        at_least: spec.at_least,
        at_most: spec.at_most,
    };
    let penalty = |kl: &spec::Kl| learn::Penalty {
        coefficient: kl.coefficient,
        divergence: divergence(kl),
        unbiased: kl.unbiased,
    };
    learn::LossSettings {
        ratio: match spec.ratio {
            spec::Ratio::Token => learn::Ratio::Token,
            spec::Ratio::Sequence => learn::Ratio::Sequence,
            spec::Ratio::SequenceToken => learn::Ratio::SequenceToken,
        },
        surrogate: match spec.surrogate {
            Surrogate::Clip { low, high, dual, delta } => learn::Surrogate::Clip { clip: clip(low, high), dual, delta },
            Surrogate::Cispo { low, high } => learn::Surrogate::Cispo(clip(low, high)),
            Surrogate::Sapo { positive, negative } => learn::Surrogate::Sapo { positive, negative },
            Surrogate::Reinforce => learn::Surrogate::Reinforce,
        },
        correction: spec.importance_sampling.map(correction),
        off_policy_mask: spec.off_policy_mask,
        penalty: spec.kl.as_ref().filter(|kl| kl.place == KlPlace::Loss).map(penalty),
        entropy: spec.entropy,
    }
}
