//! The tables of the stages.

use super::judges::{JUDGE, PAIRS, REWRITE};
use super::learning::{DISTIL, SFT, TRAIN_JUDGE};
use super::policy::GRPO;
use super::{Bounds, COUNT, Choice, Field, Fields, Kind, ROWS, Rule, choice, default, optional, required};
use crate::types::Edge;

/// A type of stage: its keys, what it takes and what it gives.
#[derive(Debug)]
pub(crate) struct StageType {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static Fields,
    /// The kinds of input that it takes; none if it takes no input.
    pub(crate) takes: &'static [Edge],
    /// Whether it joins several inputs.
    pub(crate) joins: bool,
    /// What flows out of it, if anything does.
    pub(crate) gives: Option<Edge>,
}

/// All stage types.
pub(crate) static STAGES: &[StageType] = &[
    stage("dataset", &DATASET, &[], Some(Edge::Prompts)),
    stage("generate", &GENERATE, &[], Some(Edge::Prompts)),
    stage("sample", &SAMPLE, &[Edge::Prompts], Some(Edge::Completions)),
    stage("verify", &VERIFY, &[Edge::Completions, Edge::Verdicts], Some(Edge::Verdicts)),
    stage("judge", &JUDGE, &[Edge::Completions, Edge::Verdicts], Some(Edge::Verdicts)),
    StageType { joins: true, ..stage("reward", &REWARD, &[Edge::Verdicts], Some(Edge::Rewards)) },
    stage("filter", &FILTER, &[Edge::Rewards], Some(Edge::Rewards)),
    stage("pairs", &PAIRS, &[Edge::Completions, Edge::Verdicts, Edge::Rewards], Some(Edge::Pairs)),
    stage("sft", &SFT, &[Edge::Prompts, Edge::Rewards], None),
    stage("grpo", &GRPO, &[Edge::Rewards], None),
    stage("rewrite", &REWRITE, &[Edge::Verdicts, Edge::Rewards], Some(Edge::Completions)),
    stage("train-judge", &TRAIN_JUDGE, &[Edge::Prompts], None),
    stage("distil", &DISTIL, &[Edge::Completions, Edge::Verdicts, Edge::Rewards], None),
    stage("collect", &COLLECT, &[Edge::Rewards, Edge::Verdicts, Edge::Pairs], None),
];

const fn stage(name: &'static str, fields: &'static Fields, takes: &'static [Edge], gives: Option<Edge>) -> StageType {
    StageType { name, fields, takes, joins: false, gives }
}

/// The stage type of a name.
pub(crate) fn stage_type(name: &str) -> Option<&'static StageType> {
    STAGES.iter().find(|stage| stage.name == name)
}

/// The key that says which other keys a stage takes.
pub(super) const TYPE: Field = required("type", Kind::Text, "What the stage does.");

pub(super) const INPUTS: Field =
    required("inputs", Kind::List(&Kind::Reference("stage"), 1), "The stages it takes its input from.");

pub(super) const PLUGIN_CONFIG: &str = "The plugin's configuration, checked by its own schema.";
pub(super) const FIELDS_CONFIG: Field = optional("config", Kind::Config, PLUGIN_CONFIG);

pub(super) const SOURCES: Field = optional(
    "sources",
    Kind::List(&Kind::Name("a source"), 1),
    "The sources that it covers, all if absent. Other rows are not applicable: neither 0 nor undecided.",
);
pub(super) const ON_UNDECIDED: Field = required(
    "on_undecided",
    Kind::Choice(&[
        choice("drop", "The completion is dropped."),
        choice("zero", "It scores 0."),
        choice("fail", "The run ends."),
    ]),
    "What becomes of a completion that can't be decided.",
);
pub(super) const MAX_UNDECIDED: Field = default(
    "max_undecided",
    Kind::Number(Bounds::SHARE),
    "0.5",
    "The share of a step that may be undecided before the run ends, after a commit; 1: the run goes on though nothing is \
     decided.",
);

pub(super) const TEMPLATE: Field = optional(
    "template",
    Kind::Text,
    "How a conversation becomes text: the name of a chat template such as `r1-zero`, or the path of a `.jinja` file. \
     If absent: the model's own chat template if it has one, else the contents as they are.",
);

pub(super) const SYSTEM: Field = optional("system", Kind::Text, "A system message put first.");

pub(super) const REPETITION_PENALTY: Field = optional(
    "repetition_penalty",
    Kind::Number(Bounds::POSITIVE),
    "Divides the positive and multiplies the negative logits of tokens that prompt and completion have already.",
);
pub(super) const TOP_K: Field =
    optional("top_k", COUNT, "Keeps that many of the likeliest tokens, with all that tie with the last of them.");
pub(super) const TOP_P: Field = optional(
    "top_p",
    Kind::Number(Bounds::SHARE_ABOVE_0),
    "Keeps the smallest set of tokens whose probability reaches it, after `top_k`.",
);
pub(super) const MIN_P: Field = optional(
    "min_p",
    Kind::Number(Bounds::SHARE_ABOVE_0),
    "Keeps the tokens whose probability is at least this share of the likeliest one's.",
);
pub(super) const STOP: Field = default(
    "stop",
    Kind::List(&Kind::Exact, 0),
    "[]",
    "Texts that end a completion where it contains one. What verifiers see is cut before it; its tokens are learned.",
);
pub(super) const STOP_TOKENS: Field = default(
    "stop_tokens",
    Kind::List(&Kind::Token, 0),
    "[]",
    "Tokens, by text or id, that end a completion beside the model's own.",
);

const PROMPTS_PER_STEP: Field = required("prompts_per_step", COUNT, "Rows a step.");

const ORDERS: &[Choice] = &[choice("shuffle", "A new permutation each epoch."), choice("sequential", "As they stand.")];

const fn order(toml: &'static str) -> Field {
    default("order", Kind::Choice(ORDERS), toml, "The order of rows.")
}

static DATASET: Fields = Fields {
    name: "dataset",
    doc: "Prompts from files.",
    fields: &[
        TYPE,
        required("sources", Kind::List(&Kind::Table(&SOURCE), 1), "The files; rows remember their source."),
        PROMPTS_PER_STEP,
        TEMPLATE,
        SYSTEM,
        order("\"shuffle\""),
    ],
    rules: &[],
};

static SOURCE: Fields = Fields {
    name: "source",
    doc: "A file of a dataset stage.",
    fields: &[
        required("name", Kind::Name("a source"), "What verify stages name in `sources`."),
        required("path", ROWS, "A `.jsonl` or `.parquet` file."),
        default(
            "weight",
            Kind::Number(Bounds::POSITIVE),
            "1.0",
            "The share of rows that come from it, relative to the other sources' weights.",
        ),
        required("columns", Kind::Table(&COLUMNS), "Which column is what."),
    ],
    rules: &[],
};

pub(super) static COLUMNS: Fields = Fields {
    name: "columns",
    doc: "Which column of a file is what.",
    fields: &[
        optional("prompt", Kind::Text, "What is asked: a string, or a list of `{ role, content }`."),
        optional(
            "prompt_template",
            Kind::Exact,
            "What is asked, made of several columns: a Jinja template such as `{{ question }} {{ choices[0] }}`.",
        ),
        optional(
            "conversation",
            Kind::Text,
            "A whole conversation, a list of `{ role, content }`: an sft stage learns each of the assistant's turns.",
        ),
        optional("text", Kind::Text, "A text that an sft stage learns as a whole."),
        optional("reference", Kind::Text, "The right answer."),
        optional("response", Kind::Text, "The text to imitate, or to be labelled."),
        optional("chosen", Kind::Text, "The better answer of a pair, to train a judge on."),
        optional("rejected", Kind::Text, "The worse answer of a pair."),
        optional(
            "label",
            Kind::Text,
            "Whether `response` is as it should be, to train a judge on: 1 or 0, true or false.",
        ),
        default("fields", Kind::List(&Kind::Text, 0), "[]", "Columns handed to plugins."),
    ],
    rules: &[
        Rule::ExactlyOne(&["prompt", "prompt_template", "conversation", "text"]),
        Rule::Needs("response", "prompt"),
        Rule::Needs("chosen", "prompt"),
        Rule::Needs("chosen", "rejected"),
        Rule::Needs("rejected", "chosen"),
        Rule::Needs("label", "response"),
    ],
};

static GENERATE: Fields = Fields {
    name: "generate",
    doc: "Prompts from a plugin.",
    fields: &[
        TYPE,
        required("plugin", Kind::Reference("plugin"), "The plugin (world `generator`)."),
        default("config", Kind::Config, "{}", PLUGIN_CONFIG),
        optional("count", COUNT, "How many rows there are before they repeat; if absent they never do."),
        PROMPTS_PER_STEP,
        TEMPLATE,
        SYSTEM,
        order("\"sequential\""),
    ],
    rules: &[],
};

static SAMPLE: Fields = Fields {
    name: "sample",
    doc: "Completions from a model.",
    fields: &[
        TYPE,
        INPUTS,
        required("model", Kind::Reference("model"), "The model."),
        required("group_size", Kind::Integer(1, 65536), "Completions a prompt."),
        default("temperature", Kind::Schedule(&Kind::Number(Bounds::POSITIVE)), "1.0", "Divides the logits."),
        REPETITION_PENALTY,
        TOP_K,
        TOP_P,
        MIN_P,
        STOP,
        STOP_TOKENS,
        required("max_tokens", Kind::Schedule(&COUNT), "The limit on a completion's tokens."),
        default(
            "ahead",
            Kind::Integer(0, 1),
            "0",
            "1: the next step is sampled, with the weights from before, while this one is learned. All that is sampled is \
             one step behind; it is as exact and as resumable as without.",
        ),
    ],
    rules: &[],
};

static VERIFY: Fields = Fields {
    name: "verify",
    doc: "Verdicts from a plugin. A stage that only evaluations name takes no `inputs`.",
    fields: &[
        TYPE,
        default("inputs", Kind::List(&Kind::Reference("stage"), 0), "[]", "The stage it takes its input from."),
        required("plugin", Kind::Reference("plugin"), "The plugin (world `verifier`)."),
        SOURCES,
        default("config", Kind::Config, "{}", PLUGIN_CONFIG),
        ON_UNDECIDED,
        MAX_UNDECIDED,
    ],
    rules: &[],
};

static REWARD: Fields = Fields {
    name: "reward",
    doc: "Rewards from verdicts: exactly one of `weights` and `plugin`.",
    fields: &[
        TYPE,
        INPUTS,
        optional(
            "weights",
            Kind::Map("an input", &Kind::Schedule(&Kind::Number(Bounds::ANY))),
            "The applicable inputs' scores, each times its weight, are added.",
        ),
        optional("plugin", Kind::Reference("plugin"), "A plugin that decides (world `rewarder`)."),
        FIELDS_CONFIG,
    ],
    rules: &[Rule::ExactlyOne(&["weights", "plugin"]), Rule::Needs("config", "plugin")],
};

static FILTER: Fields = Fields {
    name: "filter",
    doc: "Fewer completions: built-in rules, a condition, a plugin, or several of them, in this order.",
    fields: &[
        TYPE,
        INPUTS,
        optional(
            "drop",
            Kind::List(
                &Kind::Choice(&[
                    choice("equal_rewards", "Groups whose rewards are all equal: they carry no signal."),
                    choice("truncated", "Completions cut at the limit."),
                    choice("non_positive", "Completions whose reward is not above 0 (rejection sampling)."),
                ]),
                1,
            ),
            "Built-in rules, applied in this order.",
        ),
        optional(
            "where",
            Kind::Text,
            "A Rhai expression that is true for the completions to keep, as in `reward > 0.2 && tokens < 2000`. It may name \
             `reward`, `mean`, `deviation`, `lowest` and `highest` (of the group's rewards), `tokens`, `text`, `finish`, `source`, \
             `reference`, `fields`, `scores` (by verify stage), `step` and `prompt_id`.",
        ),
        optional("plugin", Kind::Reference("plugin"), "A plugin that decides (world `filterer`)."),
        FIELDS_CONFIG,
        optional(
            "refill",
            Kind::Table(&REFILL),
            "Sample on in rounds, each of the next rows, until enough groups are left (DAPO's dynamic sampling, \
             arXiv 2503.14476). What is left beyond that is learned in the next step.",
        ),
    ],
    rules: &[Rule::AtLeastOne(&["drop", "where", "plugin"]), Rule::Needs("config", "plugin")],
};

static REFILL: Fields = Fields {
    name: "refill",
    doc: "Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2).",
    fields: &[
        required("until", COUNT, "Groups with a completion left that a step needs."),
        required("at_most", COUNT, "Rounds beyond the first, at most; then the step goes on with what is left."),
    ],
    rules: &[],
};

static COLLECT: Fields = Fields {
    name: "collect",
    doc: "What was kept, as a dataset.",
    fields: &[
        TYPE,
        INPUTS,
        required("path", Kind::Output(&["jsonl", "parquet"]), "The file made in the run's folder, below `collected/`."),
    ],
    rules: &[],
};
