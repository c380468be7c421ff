//! What learning stages share, and the table of `sft`.

use super::stages::{INPUTS, TYPE};
use super::{Bounds, COUNT, Field, Fields, Kind, NATURAL, choice, default, optional, required};

pub(super) const MODEL: Field = required("model", Kind::Reference("model"), "The model that learns.");
pub(super) const MINIBATCHES: Field =
    default("minibatches", Kind::Integer(1, 1 << 20), "1", "Optimiser steps a step of the run.");
pub(super) const OPTIMIZER: Field = required("optimizer", Kind::Table(&ADAMW), "The optimiser.");
pub(super) const ROUTER_BIAS_STEP: Field = default(
    "router_bias_step",
    Kind::Number(Bounds::NOT_NEGATIVE),
    "0.001",
    "How far the router's selection bias moves after an optimiser step (DeepSeek-V3 report, 2.1.2).",
);
pub(super) const BALANCE_LOSS: Field = optional(
    "balance_loss",
    Kind::Number(Bounds::POSITIVE),
    "The factor of the sequence-wise balance loss of each layer of experts (DeepSeek-V3 report, eq. 17-20); none if absent.",
);
pub(super) const TOKENS_PER_PASS: Field = default(
    "tokens_per_pass",
    COUNT,
    "16384",
    "The most tokens in one forward pass. Memory only: it changes no number.",
);

pub(super) const RECOMPUTE: Field = default(
    "recompute",
    Kind::Boolean,
    "false",
    "Keep only what enters each layer, and compute the layer again in the backward pass: less memory for about a quarter \
     more time. It changes no number.",
);

pub(super) static SFT: Fields = Fields {
    name: "sft",
    doc: "Supervised fine-tuning: on the rows' responses, or on completions that were kept.",
    fields: &[TYPE, INPUTS, MODEL, MINIBATCHES, OPTIMIZER, ROUTER_BIAS_STEP, BALANCE_LOSS, TOKENS_PER_PASS, RECOMPUTE],
    rules: &[],
};

pub(super) static DISTIL: Fields = Fields {
    name: "distil",
    doc: "On-policy distillation: the student learns, on its own samples, to find likely what its teacher finds likely: the \
          reverse KL divergence from the teacher (MiniLLM, arXiv 2306.08543; GKD, arXiv 2306.13649).",
    fields: &[
        TYPE,
        INPUTS,
        MODEL,
        required("teacher", Kind::Reference("model"), "The teacher, of the same vocabulary. It stands still."),
        MINIBATCHES,
        OPTIMIZER,
        ROUTER_BIAS_STEP,
        BALANCE_LOSS,
        TOKENS_PER_PASS,
        RECOMPUTE,
    ],
    rules: &[],
};

pub(super) static TRAIN_JUDGE: Fields = Fields {
    name: "train-judge",
    doc: "Trains a reward model: on pairs (`columns.chosen` and `rejected`; Bradley-Terry) or on single answers (`columns.label`; \
          binary cross-entropy). A language model gets a new head that gives scores.",
    fields: &[TYPE, INPUTS, MODEL, MINIBATCHES, OPTIMIZER, ROUTER_BIAS_STEP, BALANCE_LOSS, TOKENS_PER_PASS, RECOMPUTE],
    rules: &[],
};

static ADAMW: Fields = Fields {
    name: "optimizer",
    doc: "AdamW (Loshchilov and Hutter, arXiv 1711.05101).",
    fields: &[
        required("learning_rate", Kind::Number(Bounds::POSITIVE), "The peak learning rate."),
        default(
            "schedule",
            Kind::Choice(&[
                choice("constant", "The peak, always."),
                choice("cosine", "Half a cosine down to `min_ratio`."),
                choice("linear", "A line down to `min_ratio`."),
            ]),
            "\"constant\"",
            "The course of the learning rate after the warm-up.",
        ),
        default("warmup", NATURAL, "0", "Steps of linear warm-up."),
        default(
            "min_ratio",
            Kind::Number(Bounds::SHARE),
            "0.0",
            "The share of the peak at which a decaying schedule ends.",
        ),
        default("betas", Kind::Pair(Bounds::SHARE_BELOW_1), "[0.9, 0.95]", "The decay of both moments."),
        default("epsilon", Kind::Number(Bounds::POSITIVE), "1e-8", "Added to the root of the second moment."),
        default(
            "weight_decay",
            Kind::Number(Bounds::NOT_NEGATIVE),
            "0.1",
            "Applies to matrices, not to norms and biases.",
        ),
        default(
            "clip_norm",
            Kind::NumberOr(Bounds::POSITIVE, "none"),
            "1.0",
            "The largest global norm of the gradient; `\"none\"`: no clipping.",
        ),
    ],
    rules: &[],
};
