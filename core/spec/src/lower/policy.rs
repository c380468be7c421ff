//! The `grpo` stage, typed.

use super::{count, learning, natural, number, string};
use crate::tree::Node;
use crate::types::{
    Advantage, Aggregation, Baseline, Bounding, CorrectionLevel, Estimator, Grpo, ImportanceSampling, Kl, KlPlace,
    Overlong, Ratio, Scale, Surrogate,
};

pub(super) fn grpo(node: &Node) -> Option<Grpo> {
    let learning = learning(node)?;
    let kl = match node.get("kl") {
        Some(kl) => Some(penalty(kl, &learning.model)?),
        None => None,
    };
    let importance_sampling = match node.get("importance_sampling") {
        Some(correction) => Some(importance_sampling(correction)?),
        None => None,
    };
    Some(Grpo {
        learning,
        epochs: count(node, "epochs")?,
        advantage: advantage(node.get("advantage")?)?,
        ratio: match node.text("ratio")? {
            "sequence" => Ratio::Sequence,
            "sequence-token" => Ratio::SequenceToken,
            _ => Ratio::Token,
        },
        surrogate: surrogate(node)?,
        loss: match node.text("loss")? {
            "token-mean" => Aggregation::TokenMean,
            "sequence-sum" => Aggregation::SequenceSum,
            "constant" => Aggregation::Constant,
            _ => Aggregation::SequenceMean,
        },
        kl,
        entropy: number(node, "entropy")?,
        top_entropy: number(node, "top_entropy"),
        overlong: match node.text("overlong")? {
            "mask" => Overlong::Mask,
            _ => Overlong::Keep,
        },
        importance_sampling,
        off_policy_mask: number(node, "off_policy_mask"),
        replay_experts: node.get("replay_experts")?.as_boolean()?,
    })
}

fn advantage(node: &Node) -> Option<Advantage> {
    Some(Advantage {
        baseline: match node.text("baseline")? {
            "leave-one-out" => Baseline::LeaveOneOut,
            "none" => Baseline::None,
            _ => Baseline::Group,
        },
        scale: match node.text("scale")? {
            "leave-one-out" => Scale::LeaveOneOut,
            "batch" => Scale::Batch,
            "whiten-sequences" => Scale::WhitenSequences,
            "whiten-tokens" => Scale::WhitenTokens,
            "none" => Scale::None,
            _ => Scale::Group,
        },
        ddof: u32::try_from(natural(node, "ddof")?).ok()?,
        epsilon: number(node, "epsilon")?,
    })
}

fn surrogate(node: &Node) -> Option<Surrogate> {
    let clip = node.get("clip")?;
    // The word `none` is no number.
    let (low, high) = (number(clip, "low"), number(clip, "high"));
    Some(match node.text("surrogate")? {
        "cispo" => Surrogate::Cispo { low, high },
        "sapo" => {
            let sapo = node.get("sapo")?;
            Surrogate::Sapo { positive: number(sapo, "positive")?, negative: number(sapo, "negative")? }
        }
        "reinforce" => Surrogate::Reinforce,
        _ => Surrogate::Clip { low, high, dual: number(clip, "dual"), delta: number(clip, "delta") },
    })
}

fn penalty(node: &Node, learner: &str) -> Option<Kl> {
    Some(Kl {
        coefficient: number(node, "coefficient")?,
        place: match node.text("place")? {
            "reward" => KlPlace::Reward,
            _ => KlPlace::Loss,
        },
        estimator: match node.text("estimator")? {
            "k1" => Estimator::K1,
            "abs" => Estimator::Abs,
            "k2" => Estimator::K2,
            _ => Estimator::K3,
        },
        unbiased: node.get("unbiased")?.as_boolean()?,
        clamp: node.get("clamp")?.as_boolean()?,
        model: string(node, "model").unwrap_or_else(|| learner.to_owned()),
        refresh_every: natural(node, "refresh_every"),
        average: number(node, "average").unwrap_or(0.0),
    })
}

fn importance_sampling(node: &Node) -> Option<ImportanceSampling> {
    Some(ImportanceSampling {
        level: match node.text("level")? {
            "sequence" => CorrectionLevel::Sequence,
            "sequence-mean" => CorrectionLevel::SequenceMean,
            "worst-token" => CorrectionLevel::WorstToken,
            _ => CorrectionLevel::Token,
        },
        mode: match node.text("mode")? {
            "mask" => Bounding::Mask,
            _ => Bounding::Truncate,
        },
        at_least: number(node, "at_least")?,
        at_most: number(node, "at_most")?,
    })
}
