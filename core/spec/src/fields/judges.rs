//! The tables of the stages that ask a model about completions.

use super::stages::{
    FIELDS_CONFIG, INPUTS, MAX_UNDECIDED, MIN_P, ON_UNDECIDED, PLUGIN_CONFIG, REPETITION_PENALTY, SOURCES, STOP,
    STOP_TOKENS, TEMPLATE, TOP_K, TOP_P, TYPE,
};
use super::{Bounds, COUNT, Field, Fields, Kind, Rule, choice, default, optional, required};

const INPUT: Field = default(
    "input",
    Kind::Choice(&[
        choice("response", "The whole response."),
        choice("answer", "What follows the thinking: after `</think>`."),
    ]),
    "\"response\"",
    "What is judged of a response.",
);
const TEMPERATURE: Field = default(
    "temperature",
    Kind::Number(Bounds::NOT_NEGATIVE),
    "1.0",
    "Divides the logits of the model that is asked; 0: its likeliest words.",
);

pub(super) static JUDGE: Fields = Fields {
    name: "judge",
    doc: "Verdicts from a model: the score of a reward model, or, with `prompt` and `plugin`, what a language model writes.",
    fields: &[
        TYPE,
        INPUTS,
        required("model", Kind::Reference("model"), "The judge. It is never trained here."),
        INPUT,
        TEMPLATE,
        SOURCES,
        optional(
            "scale",
            Kind::Choice(&[
                choice("raw", "As it is."),
                choice(
                    "sigmoid",
                    "1 / (1 + exp(-score)): the probability that a judge of single answers gives to label 1.",
                ),
            ]),
            "How the score of a reward model becomes the verdict's; `raw` if absent.",
        ),
        optional(
            "prompt",
            Kind::Path(&["jinja"]),
            "A `.jinja` file: what a language model is asked. It may name `response`, `prompt` and `messages` (what the \
             response is to), `reference`, `source` and `fields`.",
        ),
        optional(
            "plugin",
            Kind::Reference("plugin"),
            "The plugin (world `verifier`) that reads a score from the judge's text.",
        ),
        FIELDS_CONFIG,
        default(
            "samples",
            Kind::Integer(1, 1024),
            "1",
            "Texts that the judge writes of a response; their scores are averaged.",
        ),
        TEMPERATURE,
        REPETITION_PENALTY,
        TOP_K,
        TOP_P,
        MIN_P,
        STOP,
        STOP_TOKENS,
        optional("max_tokens", COUNT, "The limit on the tokens of what the judge writes."),
        ON_UNDECIDED,
        MAX_UNDECIDED,
    ],
    rules: &[
        Rule::Needs("prompt", "plugin"),
        Rule::Needs("prompt", "max_tokens"),
        Rule::Needs("plugin", "prompt"),
        Rule::Needs("config", "plugin"),
        Rule::Needs("samples", "prompt"),
        Rule::Needs("temperature", "prompt"),
        Rule::Needs("repetition_penalty", "prompt"),
        Rule::Needs("top_k", "prompt"),
        Rule::Needs("top_p", "prompt"),
        Rule::Needs("min_p", "prompt"),
        Rule::Needs("stop", "prompt"),
        Rule::Needs("stop_tokens", "prompt"),
        Rule::Needs("max_tokens", "prompt"),
    ],
};

pub(super) static REWRITE: Fields = Fields {
    name: "rewrite",
    doc: "Completions that were kept, written anew by a language model: to be verified again, and collected.",
    fields: &[
        TYPE,
        INPUTS,
        required("model", Kind::Reference("model"), "The model that writes. It is never trained here."),
        required(
            "prompt",
            Kind::Path(&["jinja"]),
            "A `.jinja` file: what it is asked. It may name `response`, `prompt` and `messages` (what the response is to), \
             `reference`, `source` and `fields`.",
        ),
        TEMPLATE,
        TEMPERATURE,
        REPETITION_PENALTY,
        TOP_K,
        TOP_P,
        MIN_P,
        STOP,
        STOP_TOKENS,
        required("max_tokens", COUNT, "The limit on the tokens of what it writes."),
    ],
    rules: &[],
};

pub(super) static PAIRS: Fields = Fields {
    name: "pairs",
    doc: "Preference pairs: of two responses to a prompt the one that a language model finds better, and the other.",
    fields: &[
        TYPE,
        INPUTS,
        required("model", Kind::Reference("model"), "The judge. It is never trained here."),
        required(
            "prompt",
            Kind::Path(&["jinja"]),
            "A `.jinja` file: what the judge is asked. It may name `first`, `second`, `prompt` and `messages` (what the \
             responses are to), `reference`, `source` and `fields`.",
        ),
        required(
            "plugin",
            Kind::Reference("plugin"),
            "The plugin (world `verifier`) that reads a score from the judge's text: by how much the first is better, below 0 \
             if the second is.",
        ),
        default("config", Kind::Config, "{}", PLUGIN_CONFIG),
        INPUT,
        TEMPLATE,
        default(
            "pairs_per_prompt",
            COUNT,
            "1",
            "Pairs of a prompt's responses, drawn by seed; a response is in one at most.",
        ),
        default(
            "judgements",
            Kind::Integer(2, 64),
            "4",
            "How often a pair is judged, half of the times with the two in the other order. Even.",
        ),
        TEMPERATURE,
        REPETITION_PENALTY,
        TOP_K,
        TOP_P,
        MIN_P,
        STOP,
        STOP_TOKENS,
        required("max_tokens", COUNT, "The limit on the tokens of what the judge writes."),
        default(
            "margin",
            Kind::Number(Bounds::NOT_NEGATIVE),
            "1.0",
            "A pair is kept if the mean of its judgements is further than this from 0.",
        ),
        default(
            "length_difference",
            Kind::NumberOr(Bounds::SHARE, "none"),
            "0.05",
            "How far the mean lengths of chosen and rejected may differ over the data set, as a share of the mean length of \
             both; beyond that the pairs of a step that differ most are dropped, one after the other. `\"none\"`: as far as \
             they like.",
        ),
        MAX_UNDECIDED,
    ],
    rules: &[],
};
