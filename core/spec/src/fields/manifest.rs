//! The tables of a plugin folder's `plugin.toml`.

use super::document::{GRANT, GRANTS, LIMITS};
use super::{Bounds, Fields, Kind, NATURAL, Rule, choice, default, optional, required};

/// `plugin.toml`.
pub(crate) static MANIFEST: Fields = Fields {
    name: "plugin-folder",
    doc: "A plugin's folder: its code, what the code may spend, and its tests.",
    fields: &[
        required("name", Kind::Name("a plugin"), "The plugin's name."),
        optional("wasm", Kind::Path(&["wasm", "wat"]), "A WebAssembly component: what building makes."),
        optional("rhai", Kind::Path(&["rhai"]), "A Rhai script."),
        default(
            "limits",
            Kind::Table(&LIMITS),
            "{}",
            "What it may spend. Components need `fuel` and `memory`, scripts `operations`.",
        ),
        default("grants", Kind::Map("a grant", &Kind::Table(&GRANT)), "{}", GRANTS),
        optional("build", Kind::Table(&BUILD), "How the source becomes the component."),
        default("tests", Kind::List(&Kind::Table(&CASE), 0), "[]", "What it must answer."),
    ],
    rules: &[Rule::ExactlyOne(&["wasm", "rhai"])],
};

static BUILD: Fields = Fields {
    name: "plugin-build",
    doc: "How the source becomes the component.",
    fields: &[
        optional(
            "command",
            Kind::Text,
            "A command for the shell, run in the plugin's folder, that makes the module. Without one the module is the source.",
        ),
        required("module", Kind::Path(&["wasm", "wat"]), "The core module or component that the command makes."),
        default(
            "strings",
            Kind::Choice(&[
                choice("utf8", "Strings of a core module are UTF-8."),
                choice("utf16", "They are UTF-16: AssemblyScript."),
            ]),
            "\"utf8\"",
            "How a core module encodes strings.",
        ),
    ],
    rules: &[],
};

static CASE: Fields = Fields {
    name: "plugin-test",
    doc: "A call of the plugin, and what it must answer.",
    fields: &[
        required("name", Kind::Text, "What is tested."),
        optional(
            "world",
            Kind::Choice(&[
                choice("verifier", "Judges completions."),
                choice("rewarder", "Turns verdicts into rewards."),
                choice("filterer", "Decides what is kept."),
                choice("generator", "Makes rows."),
            ]),
            "Which side of the plugin is called; if absent, the input tells.",
        ),
        default("config", Kind::Config, "{}", "The plugin's config."),
        default("context", Kind::Table(&CONTEXT), "{}", "What the plugin is told beside its input."),
        optional("input", Kind::Any, "What the plugin is given. Needed unless the config must be refused."),
        required("expect", Kind::Any, "What it must answer."),
        default("tolerance", Kind::Number(Bounds::NOT_NEGATIVE), "1e-9", "By how much numbers may differ."),
    ],
    rules: &[],
};

/// What a plugin is told beside its input.
static CONTEXT: Fields = Fields {
    name: "plugin-context",
    doc: "What a plugin is told beside its input.",
    fields: &[
        default("step", NATURAL, "0", "The step of the run."),
        default("seed", Kind::Integer(0, i64::MAX), "0", "The seed of the run and the stage."),
        default("max_tokens", Kind::Integer(0, u32::MAX as i64), "0", "The limit on the tokens of a completion."),
        default("evaluating", Kind::Boolean, "false", "Whether the completions belong to an evaluation."),
    ],
    rules: &[],
};

/// What a verifier or a rewarder is given, and one of the groups of a filter.
pub(crate) static GROUP: Fields = Fields {
    name: "plugin-group",
    doc: "A prompt and its completions.",
    fields: &[
        optional("prompt", Kind::Any, "A message of the user, or a list of `{ role, content }`."),
        optional("reference", Kind::Any, "The right answer."),
        optional("fields", Kind::Config, "Further columns; what is no string becomes JSON."),
        required("completions", Kind::Any, "A list of texts, or of `{ text, tokens, finish }`."),
        optional("judgements", Kind::Any, "The verdicts of each verify stage, by its name (for rewarders)."),
        optional("rewards", Kind::Any, "The reward of each completion, or \"undecided\" (for filters)."),
    ],
    rules: &[],
};

/// What a generator is asked for.
pub(crate) static GENERATED: Fields = Fields {
    name: "plugin-rows",
    doc: "Which rows a generator makes.",
    fields: &[
        default("first", NATURAL, "0", "The number of the first row."),
        required("count", Kind::Integer(1, 100_000), "How many."),
    ],
    rules: &[],
};

/// A message of a prompt.
pub(crate) static MESSAGE: Fields = Fields {
    name: "plugin-message",
    doc: "A message of a prompt.",
    fields: &[
        required("role", Kind::Text, "`system`, `user`, `assistant`."),
        required("content", Kind::Any, "The text of the message."),
    ],
    rules: &[],
};

/// A completion with more than its text.
pub(crate) static COMPLETION: Fields = Fields {
    name: "plugin-completion",
    doc: "A completion.",
    fields: &[
        required("text", Kind::Any, "What the model wrote."),
        default("tokens", Kind::Integer(0, 1 << 24), "0", "How many tokens that was."),
        default(
            "finish",
            Kind::Choice(&[
                choice("stop", "It ended by itself."),
                choice("length", "It reached the limit on tokens."),
                choice("aborted", "The run was stopped before."),
            ]),
            "\"stop\"",
            "Why it ended.",
        ),
    ],
    rules: &[],
};

/// A verdict: what is given to a rewarder, and what is expected of a verifier.
pub(crate) static FINDING: Fields = Fields {
    name: "plugin-verdict",
    doc: "A verdict.",
    fields: &[
        optional("score", Kind::Number(Bounds::ANY), "1 is fully right, 0 is wrong."),
        optional("answer", Kind::Any, "The canonical answer."),
        optional("note", Kind::Any, "What is shown to people; in a test a part of it."),
        optional("metrics", Kind::Config, "Numbers by name; in a test some of them."),
        optional("undecided", Kind::Any, "The reason why there is no score; in a test a part of it."),
    ],
    rules: &[],
};

/// A row that a generator must make.
pub(crate) static ROW: Fields = Fields {
    name: "plugin-row",
    doc: "A row that a generator makes; what is left out is not looked at.",
    fields: &[
        optional("prompt", Kind::Any, "A message of the user, or a list of `{ role, content }`."),
        optional("reference", Kind::Any, "The right answer."),
        optional("fields", Kind::Config, "Some of its further columns."),
    ],
    rules: &[],
};
