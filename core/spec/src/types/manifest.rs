//! What a valid `plugin.toml` says, typed.

use std::path::PathBuf;
use std::sync::Arc;

use base::{Context, Group, Message, Span};
use serde_json::Value;

use super::Plugin;

/// A plugin's folder.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The `plugin.toml`.
    pub file: PathBuf,
    /// The plugin's name.
    pub name: String,
    /// Its code and what that may spend.
    pub plugin: Plugin,
    /// How the source becomes the component.
    pub build: Option<Build>,
    /// What it must answer, in the order of the file.
    pub tests: Vec<Case>,
}

/// How a plugin's source becomes its component.
#[derive(Clone, Debug)]
pub struct Build {
    /// The shell's command that makes the module; run in the folder. Without one the module is the source.
    pub command: Option<String>,
    /// The core module, in binary or in text, or the component.
    pub module: PathBuf,
    /// How strings are encoded in the module.
    pub strings: Strings,
}

/// How strings are encoded in a core module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// UTF-8, which most compilers use.
    Utf8,
    /// UTF-16: AssemblyScript.
    Utf16,
}

/// One of `[[tests]]`: a call and what it must answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is tested; unique in its file.
    pub name: String,
    /// The config.
    pub config: Value,
    /// What the plugin is told beside its input.
    pub context: Context,
    /// What it is given.
    pub input: Input,
    /// What it must answer.
    pub expect: Expect,
    /// By how much numbers may differ, absolutely.
    pub tolerance: f64,
    /// The place of the table.
    pub span: Span,
}

/// What a plugin is given, and so which side of it is called.
#[derive(Clone, Debug)]
pub enum Input {
    /// A group for a verifier.
    Verify(Box<Group>),
    /// A group with judgements for a rewarder.
    Reward(Box<Group>),
    /// The groups of a step, with rewards, for a filterer.
    Filter(Vec<Arc<Group>>),
    /// Which rows a generator makes.
    Generate {
        /// The first.
        first: u64,
        /// How many.
        count: u32,
    },
    /// The plugin is only configured.
    Nothing,
}

/// What a plugin must answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// For each completion.
    Verdicts(Vec<ExpectVerdict>),
    /// For each completion; `None` where it must not be decided.
    Rewards(Vec<Option<f64>>),
    /// For each completion of each group.
    Decisions(Vec<Vec<ExpectDecision>>),
    /// For each row.
    Rows(Vec<ExpectRow>),
    /// The call fails, and this is a part of the reason.
    Failed(String),
    /// The config is refused, and this is a part of the objections.
    Refused(String),
}

/// What a verdict must be.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpectVerdict {
    /// Decided; what is `None` or absent is not looked at.
    Decided {
        /// The score.
        score: Option<f64>,
        /// The canonical answer.
        answer: Option<String>,
        /// A part of the note.
        note: Option<String>,
        /// Some of the metrics.
        metrics: Vec<(String, f64)>,
    },
    /// Not decided, and this is a part of the reason.
    Undecided(String),
    /// The row is not the plugin's.
    NotApplicable,
}

/// What a decision must be; the texts are parts of the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectDecision {
    /// In the statistics and in the loss.
    Keep,
    /// In the statistics only.
    Mask(String),
    /// In neither.
    Drop(String),
}

/// What a row must be; what is `None` or absent is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectRow {
    /// The conversation.
    pub prompt: Option<Vec<Message>>,
    /// The right answer.
    pub reference: Option<String>,
    /// Some of the further columns.
    pub fields: Vec<(String, String)>,
}
