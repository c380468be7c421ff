//! The tables around the stages.

use super::{
    Bounds, COUNT, Choice, Field, Fields, Kind, ROWS, Rule, choice, default, optional, required,
    stages::{COLUMNS, FIELDS_CONFIG, MIN_P, REPETITION_PENALTY, STOP, STOP_TOKENS, SYSTEM, TEMPLATE, TOP_K, TOP_P},
};

/// A pipeline file.
pub(crate) static PIPELINE: Fields = Fields {
    name: "pipeline",
    doc: "A pipeline: a DAG of stages over models and plugins.",
    fields: &[
        required("schema", Kind::Version, VERSION),
        required(
            "name",
            Kind::Name("a pipeline"),
            "The pipeline's name; run folders are made under it, and random numbers depend on it unless a recipe runs the file.",
        ),
        required(
            "seed",
            Kind::Integer(0, i64::MAX),
            "All random numbers depend on it and on names: the pipeline's (in a recipe the phase's) and the stage's.",
        ),
        default("run", Kind::Table(&RUN), "{}", "How long, and where to."),
        default("models", Kind::Map("a model", &Kind::Table(&MODEL)), "{}", "Models by name."),
        default("plugins", Kind::Map("a plugin", &Kind::Table(&PLUGIN)), "{}", "Other people's code, by name."),
        default("stages", Kind::Map("a stage", &Kind::Stage), "{}", "Stages by name: the DAG."),
        default(
            "evaluations",
            Kind::Map("an evaluation", &Kind::Table(&EVALUATION)),
            "{}",
            "Evaluations by name; they run beside the DAG.",
        ),
        default("gates", Kind::List(&Kind::Table(&GATE), 0), "[]", GATES),
    ],
    rules: &[],
};

const GATES: &str = "Bounds on metrics, looked at in the end. A run that misses one ends with exit code 1.";

const METRIC: &str = "The metric, as `metrics.jsonl` names it: `eval/sums/pass@1`.";
const CLAIM: Field = optional("claim", Kind::Text, "What it shows, in words.");
const AT: Field = default(
    "at",
    Kind::Choice(&[choice("end", "The last time that it was logged."), choice("start", "The first time.")]),
    "\"end\"",
    "Which of its values counts.",
);
const AT_LEAST: Field = optional("at_least", Kind::Number(Bounds::ANY), "The least that it may be.");
const AT_MOST: Field = optional("at_most", Kind::Number(Bounds::ANY), "The most that it may be.");
const OVER: &str = "What is subtracted before the bounds are looked at: by how much the metric is above another.";

static GATE: Fields = Fields {
    name: "gate",
    doc: "A bound on a metric.",
    fields: &[
        CLAIM,
        required("metric", Kind::Text, METRIC),
        AT,
        optional("over", Kind::Table(&GATE_OVER), OVER),
        AT_LEAST,
        AT_MOST,
    ],
    rules: &[Rule::AtLeastOne(&["at_least", "at_most"])],
};

static GATE_OVER: Fields = Fields {
    name: "gate-over",
    doc: "The metric that a gate's own is held against.",
    fields: &[optional("metric", Kind::Text, "The other metric; the gate's own if absent."), AT],
    rules: &[],
};

/// One of a recipe's gates.
static RECIPE_GATE: Fields = Fields {
    name: "recipe-gate",
    doc: "A bound on a metric of a phase.",
    fields: &[
        CLAIM,
        required("phase", Kind::Reference("phase"), "The phase that logs the metric."),
        required("metric", Kind::Text, METRIC),
        AT,
        optional("over", Kind::Table(&RECIPE_GATE_OVER), OVER),
        AT_LEAST,
        AT_MOST,
    ],
    rules: &[Rule::AtLeastOne(&["at_least", "at_most"])],
};

static RECIPE_GATE_OVER: Fields = Fields {
    name: "recipe-gate-over",
    doc: "The metric that a gate's own is held against.",
    fields: &[
        optional("phase", Kind::Reference("phase"), "The phase that logs it; the gate's own if absent."),
        optional("metric", Kind::Text, "The other metric; the gate's own if absent."),
        AT,
    ],
    rules: &[],
};

static EARLY_STOP: Fields = Fields {
    name: "early-stop",
    doc: "When a run ends before its last step: a metric has not become better for a while.",
    fields: &[
        required("metric", Kind::Text, METRIC),
        default(
            "goal",
            Kind::Choice(&[choice("max", "More is better."), choice("min", "Less is better.")]),
            "\"max\"",
            "Which way is better.",
        ),
        default(
            "margin",
            Kind::Number(Bounds::NOT_NEGATIVE),
            "0.0",
            "By how much it must be better than the best before to count.",
        ),
        required(
            "patience",
            COUNT,
            "Values in a row that are no better, after which the run ends, with the weights it has then.",
        ),
    ],
    rules: &[],
};

const VERSION: &str = "The version of this language: 1.";

const DIR: &str = "The folder that the run's own folder is made in: relative to the file that says it; if absent, `runs` \
                   in the working folder.";

/// `[run]` of a pipeline.
static RUN: Fields = Fields {
    name: "run",
    doc: "How long a pipeline runs, and where to.",
    fields: &[
        default("dir", Kind::Path(&[]), "\"runs\"", DIR),
        optional("steps", COUNT, "Passes of the DAG. Needed where a stage learns or collects."),
        optional(
            "threads",
            Kind::Integer(1, 1024),
            "Threads of the compute pool; the number of processors if absent. Changes no number.",
        ),
        default("checkpoint", Kind::Table(&CHECKPOINT), "{}", "When state becomes durable. The last step always does."),
        optional("early_stop", Kind::Table(&EARLY_STOP), "When the run ends before its last step; never if absent."),
    ],
    rules: &[],
};

static CHECKPOINT: Fields = Fields {
    name: "checkpoint",
    doc: "When state becomes durable.",
    fields: &[
        default("every", COUNT, "10", "Steps between checkpoints."),
        default("keep", COUNT, "3", "How many are kept."),
    ],
    rules: &[],
};

static MODEL: Fields = Fields {
    name: "model",
    doc: "A model: exactly one of `path` and `init`.",
    fields: &[
        optional("path", Kind::Path(&[]), "A Hugging Face folder."),
        optional("init", Kind::Table(&INIT), "Random weights, drawn from the seed."),
        default(
            "device",
            Kind::Choice(&[
                choice("auto", "CUDA where the build and the machine have it, else the CPU."),
                choice("cpu", "The CPU."),
                choice("cuda", "The first NVIDIA GPU."),
            ]),
            "\"auto\"",
            "Where it is computed.",
        ),
        default(
            "dtype",
            Kind::Choice(&[
                choice("f32", "Single precision."),
                choice(
                    "bf16",
                    "Weights rounded to bfloat16 for products; sums, norms, softmax and router stay in f32.",
                ),
            ]),
            "\"f32\"",
            "What its products are computed in. Weights are kept, updated and saved in f32 either way.",
        ),
        optional("lora", Kind::Table(&LORA), "Adapters that learn in place of the weights."),
    ],
    rules: &[Rule::ExactlyOne(&["path", "init"]), Rule::Needs("lora", "path")],
};

static LORA: Fields = Fields {
    name: "lora",
    doc: "Low-rank adapters (LoRA, arXiv 2106.09685): they learn, and the weights of `path` stay as they are.",
    fields: &[
        required("rank", Kind::Integer(1, 1 << 16), "The rank of an adapter."),
        required("alpha", Kind::Number(Bounds::POSITIVE), "An adapter counts `alpha / rank` times."),
        required(
            "targets",
            Kind::List(&Kind::Choice(LORA_TARGETS), 1),
            "The modules with an adapter, in every layer that has them. Routers and routed experts have none.",
        ),
    ],
    rules: &[],
};

const LORA_TARGETS: &[Choice] = &[
    choice("q_proj", "Queries."),
    choice("k_proj", "Keys."),
    choice("v_proj", "Values."),
    choice("o_proj", "What attention gives."),
    choice("q_a_proj", "Down to the latent of queries (DeepSeek)."),
    choice("q_b_proj", "Queries from their latent."),
    choice("kv_a_proj_with_mqa", "Down to the latent of keys and values (DeepSeek)."),
    choice("kv_b_proj", "Keys and values from their latent."),
    choice("gate_proj", "The gate of a dense MLP, and of shared experts."),
    choice("up_proj", "What is gated."),
    choice("down_proj", "Back to the residual stream."),
];

static INIT: Fields = Fields {
    name: "init",
    doc: "A model with random weights.",
    fields: &[
        required("config", Kind::Path(&["json"]), "A `config.json`."),
        required("tokenizer", Kind::Path(&["json"]), "A `tokenizer.json`."),
        optional("chat_template", Kind::Path(&["jinja"]), "A Jinja chat template to store beside the weights."),
    ],
    rules: &[],
};

static PLUGIN: Fields = Fields {
    name: "plugin",
    doc: "Foreign code and what it may spend: exactly one of `builtin`, `wasm` and `rhai`.",
    fields: &[
        optional("builtin", Kind::Name("a builtin"), "The name of a plugin that the tool carries."),
        optional("wasm", Kind::Path(&["wasm", "wat"]), "A WebAssembly component."),
        optional("rhai", Kind::Path(&["rhai"]), "A Rhai script."),
        default(
            "limits",
            Kind::Table(&LIMITS),
            "{}",
            "What it may spend. Components need `fuel` and `memory`, scripts `operations`.",
        ),
        default("grants", Kind::Map("a grant", &Kind::Table(&GRANT)), "{}", GRANTS),
    ],
    rules: &[Rule::ExactlyOne(&["builtin", "wasm", "rhai"])],
};

/// What `grants` is.
pub(super) const GRANTS: &str =
    "What it may use beyond its input, by name: files to read, and runtimes to run programs in. By default nothing.";

/// One of the grants.
pub(super) static GRANT: Fields = Fields {
    name: "grant",
    doc: "A file that a component may read, or a runtime that it may run programs in: `python` or `javascript`.",
    fields: &[
        optional("file", Kind::Path(&[]), "A file that it may read under the grant's name."),
        optional("fuel", COUNT, "WebAssembly fuel of one run, the interpreter's start included."),
        optional("memory", Kind::Size(1 << 16, 1 << 32), "Linear memory of one run, the interpreter's included."),
        optional("runs", COUNT, "Runs for one completion, or one row of a generator."),
    ],
    rules: &[
        Rule::ExactlyOne(&["file", "fuel"]),
        Rule::Needs("fuel", "memory"),
        Rule::Needs("fuel", "runs"),
        Rule::Needs("memory", "fuel"),
        Rule::Needs("runs", "fuel"),
    ],
};

pub(super) static LIMITS: Fields = Fields {
    name: "limits",
    doc: "What a plugin may spend.",
    fields: &[
        optional("fuel", COUNT, "WebAssembly fuel for one completion, or one row of a generator. Components need it."),
        optional(
            "memory",
            Kind::Size(1 << 16, 1 << 32),
            "Linear memory, the sum over a component's memories. Components need it.",
        ),
        optional(
            "operations",
            COUNT,
            "Rhai operations for one completion, or one row of a generator. Scripts need it.",
        ),
        default("output", Kind::Size(1, 1 << 32), "\"1 MiB\"", "What one call may return."),
        default("log", Kind::Size(0, 1 << 32), "\"64 KiB\"", "What one call may log."),
    ],
    rules: &[],
};

static EVALUATION: Fields = Fields {
    name: "evaluation",
    doc: "Questions that are put to a model at certain steps: exactly one of `data` and `plugin` asks them.",
    fields: &[
        required("model", Kind::Reference("model"), "The model."),
        optional("data", ROWS, "A `.jsonl` or `.parquet` file of questions."),
        optional("columns", Kind::Table(&COLUMNS), "Which column of the file is what."),
        optional("skip", COUNT, "So many rows of the file are left out, from the first."),
        optional("limit", COUNT, "At most so many rows of the file, from the first that is not left out."),
        optional("plugin", Kind::Reference("plugin"), "A plugin that makes the questions (world `generator`)."),
        FIELDS_CONFIG,
        optional("count", COUNT, "The plugin's rows 0 to `count` - 1 are the questions."),
        TEMPLATE,
        SYSTEM,
        required(
            "verify",
            Kind::OneOrMore(&Kind::Reference("stage")),
            "The verify stage that judges, or several; right means a score of at least 1 from the first.",
        ),
        default("samples", COUNT, "1", "Completions a question."),
        optional(
            "pass_at",
            Kind::List(&COUNT, 1),
            "For each k of the list `eval/NAME/pass@k`, the unbiased estimate (arXiv 2107.03374, eq. 1); none is above `samples`. \
             If absent: `samples`. pass@1 is there always.",
        ),
        optional("rating", Kind::Table(&RATING), "Also a rating as on Codeforces: `eval/NAME/rating`."),
        default("temperature", Kind::Number(Bounds::POSITIVE), "1.0", "Divides the logits."),
        REPETITION_PENALTY,
        TOP_K,
        TOP_P,
        MIN_P,
        STOP,
        STOP_TOKENS,
        required("max_tokens", COUNT, "The limit on a completion's tokens."),
        default(
            "greedy",
            Kind::Boolean,
            "false",
            "Also one completion a question at temperature 0: `eval/NAME/greedy`.",
        ),
        default(
            "at",
            Kind::List(
                &Kind::Choice(&[choice("start", "Before the first step."), choice("end", "After the last step.")]),
                0,
            ),
            "[\"start\", \"end\"]",
            "When it runs, beside `every`.",
        ),
        optional("every", COUNT, "Also after every so many steps."),
    ],
    rules: &[
        Rule::ExactlyOne(&["data", "plugin"]),
        Rule::Needs("data", "columns"),
        Rule::Needs("columns", "data"),
        Rule::Needs("skip", "data"),
        Rule::Needs("limit", "data"),
        Rule::Needs("plugin", "count"),
        Rule::Needs("count", "plugin"),
        Rule::Needs("config", "plugin"),
    ],
};

static RATING: Fields = Fields {
    name: "rating",
    doc: "The rating that is likeliest, given which problems of known rating were solved: P(solved) = 1 / (1 + 10^((problem - rating) / 400)).",
    fields: &[
        required("column", Kind::Text, "The column with a problem's rating, one of `columns.fields`."),
        optional(
            "table",
            Kind::Path(&["csv"]),
            "Ratings of others, one a line, or `RATING,SHARE` lines: `eval/NAME/rating_percentile` is the share below, in percent.",
        ),
    ],
    rules: &[],
};

/// A file with `[[phases]]`.
pub(crate) static RECIPE: Fields = Fields {
    name: "recipe",
    doc: "A recipe: pipelines that run one after the other, each as a phase.",
    fields: &[
        required("schema", Kind::Version, VERSION),
        required("name", Kind::Name("a recipe"), "The recipe's name; run folders are made under it."),
        required(
            "seed",
            Kind::Integer(0, i64::MAX),
            "Replaces the seed of each phase; random numbers depend on it and on the names of the phase and the stage.",
        ),
        default("run", Kind::Table(&RECIPE_RUN), "{}", "Where to."),
        required("phases", Kind::List(&Kind::Table(&PHASE), 1), "The phases in order."),
        default("gates", Kind::List(&Kind::Table(&RECIPE_GATE), 0), "[]", GATES),
    ],
    rules: &[],
};

static RECIPE_RUN: Fields = Fields {
    name: "recipe-run",
    doc: "Where a recipe runs to. Steps and checkpoints are said by its phases.",
    fields: &[
        default("dir", Kind::Path(&[]), "\"runs\"", DIR),
        optional("threads", Kind::Integer(1, 1024), "Replaces the threads of each phase. Changes no number."),
    ],
    rules: &[],
};

/// One of `[[phases]]`.
pub(crate) static PHASE: Fields = Fields {
    name: "phase",
    doc: "A pipeline file as a part of a recipe.",
    fields: &[
        required("name", Kind::Name("a phase"), "The phase's name; its random numbers depend on it."),
        required("pipeline", Kind::Path(&["toml"]), "The pipeline file."),
        optional(
            "init",
            Kind::Origin,
            "Where the weights of the model that learns come from instead: a folder, or `phase:NAME` for what that phase learned.",
        ),
        default(
            "models",
            Kind::Map("a model", &Kind::Origin),
            "{}",
            "Where the weights of its other models come from instead, by model: a folder, or `phase:NAME` for what that phase \
             learned.",
        ),
        default(
            "data",
            Kind::RowOrigins,
            "{}",
            "Where the rows of dataset stages come from instead, by stage, or by \"STAGE.SOURCE\" where it has several sources: \
             a file, or `phase:NAME` for what that phase collected.",
        ),
        default("set", Kind::Overrides, "{}", "Overrides by dotted path: `set = { \"run.steps\" = 10 }`."),
    ],
    rules: &[],
};
