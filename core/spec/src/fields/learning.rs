//! The tables of the learning stages.

use super::stages::{INPUTS, TYPE};
use super::{Bounds, COUNT, Field, Fields, Kind, NATURAL, choice, default, optional, required};

const MODEL: Field = required("model", Kind::Reference("model"), "The model that learns.");
const MINIBATCHES: Field = default("minibatches", Kind::Integer(1, 1 << 20), "1", "Optimiser steps a step of the run.");
const OPTIMIZER: Field = required("optimizer", Kind::Table(&ADAMW), "The optimiser.");
const ROUTER_BIAS_STEP: Field = default(
    "router_bias_step",
    Kind::Number(Bounds::NOT_NEGATIVE),
    "0.001",
    "How far the router's selection bias moves after an optimiser step (DeepSeek-V3 report, 2.1.2).",
);
const BALANCE_LOSS: Field = optional(
    "balance_loss",
    Kind::Number(Bounds::POSITIVE),
    "The factor of the sequence-wise balance loss of each layer of experts (DeepSeek-V3 report, eq. 17-20); none if absent.",
);
const TOKENS_PER_PASS: Field = default(
    "tokens_per_pass",
    COUNT,
    "16384",
    "The most tokens in one forward pass. Memory only: it changes no number.",
);

const RECOMPUTE: Field = default(
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

pub(super) static TRAIN_JUDGE: Fields = Fields {
    name: "train-judge",
    doc: "Trains a reward model: on pairs (`columns.chosen` and `rejected`; Bradley-Terry) or on single answers (`columns.label`; \
          binary cross-entropy). A language model gets a new head that gives scores.",
    fields: &[TYPE, INPUTS, MODEL, MINIBATCHES, OPTIMIZER, ROUTER_BIAS_STEP, BALANCE_LOSS, TOKENS_PER_PASS, RECOMPUTE],
    rules: &[],
};

pub(super) static GRPO: Fields = Fields {
    name: "grpo",
    doc: "Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300, section 4.1).",
    fields: &[
        TYPE,
        INPUTS,
        MODEL,
        MINIBATCHES,
        OPTIMIZER,
        default("clip", Kind::Table(&CLIP), "{}", "How far the probability ratio may move: from 1 - low to 1 + high."),
        optional("kl", Kind::Table(&KL), "The penalty for leaving a reference model; none if absent."),
        default(
            "advantage",
            Kind::Choice(&[
                choice("group", "Centred rewards are divided by the standard deviation of their group."),
                choice("none", "Centred rewards are taken as they are (Dr. GRPO, arXiv 2503.20783)."),
            ]),
            "\"group\"",
            "What divides the centred rewards of a group.",
        ),
        default(
            "loss",
            Kind::Choice(&[
                choice("sequence-mean", "The mean over sequences of the mean over tokens (GRPO's paper)."),
                choice("token-mean", "The mean over all tokens of the minibatch (DAPO, arXiv 2503.14476)."),
            ]),
            "\"sequence-mean\"",
            "How token losses become one number.",
        ),
        ROUTER_BIAS_STEP,
        BALANCE_LOSS,
        TOKENS_PER_PASS,
        RECOMPUTE,
    ],
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

static CLIP: Fields = Fields {
    name: "clip",
    doc: "How far the probability ratio may move.",
    fields: &[
        default("low", Kind::Number(Bounds::NOT_NEGATIVE), "0.2", "Below 1."),
        default("high", Kind::Number(Bounds::NOT_NEGATIVE), "0.2", "Above 1."),
    ],
    rules: &[],
};

static KL: Fields = Fields {
    name: "kl",
    doc: "The penalty for leaving a reference model.",
    fields: &[
        required("coefficient", Kind::Number(Bounds::NOT_NEGATIVE), "The factor of the k3 estimate."),
        optional(
            "model",
            Kind::Reference("model"),
            "The frozen model; the learning model's own start if it is the learning model, or absent.",
        ),
        optional("refresh_every", COUNT, "Steps after which the reference is replaced by the policy; never if absent."),
    ],
    rules: &[],
};
