//! Semantics: what the parts of a pipeline say about each other.
//!
//! The rules look at the tree, not at types, so that they also run over the sound parts of a file in which others are
//! not; what a rule needs and does not find, the structure check has reported.

mod evaluations;
pub(crate) mod gates;
mod graph;
mod judges;
mod learning;
pub(crate) mod names;
mod policy;
mod rounds;
mod sources;

use base::{Diagnostic, Span};
use indexmap::IndexMap;

use crate::fields::{StageType, stage_type};
use crate::tree::{Node, Table};

/// Runs all rules over a pipeline.
pub(crate) fn check(root: &Node, findings: &mut Vec<Diagnostic>) {
    let dag = Dag::new(root);
    names::check(&dag, findings);
    graph::check(&dag, findings);
    learning::check(&dag, findings);
    judges::check(&dag, findings);
    gates::check(root, findings);
    rounds::check(&dag, findings);
    sources::check(&dag, findings);
    evaluations::check(&dag, findings);
}

/// The stages of a pipeline and how they hang together.
pub(crate) struct Dag<'a> {
    root: &'a Node,
    pub(crate) stages: IndexMap<&'a str, Stage<'a>>,
}

/// A stage as far as it is known.
pub(crate) struct Stage<'a> {
    pub(crate) name: &'a str,
    /// The place of its name.
    key: &'a Span,
    pub(crate) node: &'a Node,
    /// `None` if the type is missing or unknown.
    pub(crate) kind: Option<&'static StageType>,
    /// The stages that it names as inputs, and where.
    inputs: Vec<(&'a str, &'a Span)>,
}

impl Stage<'_> {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.kind.is_some_and(|it| it.name == kind)
    }

    /// Whether it trains the model that it names.
    pub(crate) fn learns(&self) -> bool {
        ["sft", "grpo", "distil", "train-judge"].iter().any(|kind| self.is(kind))
    }

    /// Whether it gives verdicts on completions.
    fn judges(&self) -> bool {
        self.is("verify") || self.is("judge")
    }
}

impl<'a> Dag<'a> {
    pub(crate) fn new(root: &'a Node) -> Self {
        let mut stages = IndexMap::new();
        for (name, entry) in table(root, "stages") {
            let node = &entry.node;
            let inputs = node.items("inputs").iter().filter_map(|input| Some((input.as_text()?, &input.span)));
            let kind = node.text("type").and_then(stage_type);
            let inputs = match kind {
                Some(kind) if kind.takes.is_empty() => Vec::new(),
                _ => inputs.collect(),
            };
            stages.insert(name.as_str(), Stage { name, key: &entry.key, node, kind, inputs });
        }
        Self { root, stages }
    }

    /// The stage and all that flows into it, nearest first.
    fn upstream(&self, stage: &'a str) -> Vec<&Stage<'a>> {
        let mut found: Vec<&Stage<'a>> = self.stages.get(stage).into_iter().collect();
        let mut next = 0;
        while let Some(stage) = found.get(next) {
            for (input, _) in stage.inputs.clone() {
                if let Some(stage) = self.stages.get(input)
                    && !found.iter().any(|other| other.name == stage.name)
                {
                    found.push(stage);
                }
            }
            next += 1;
        }
        found
    }

    /// The model that a stage names, if it is defined, and where it is named.
    fn model(&self, stage: &Stage<'a>) -> Option<(&'a str, &'a Span)> {
        let node = stage.node.get("model")?;
        let name = node.as_text().filter(|name| table(self.root, "models").contains_key(*name))?;
        Some((name, &node.span))
    }

    /// Whether a stage takes its input from this one.
    fn is_input(&self, name: &str) -> bool {
        self.stages.values().any(|stage| stage.inputs.iter().any(|(input, _)| *input == name))
    }

    /// Whether an evaluation is judged by this stage.
    fn is_evaluated_by(&self, name: &str) -> bool {
        let mut evaluations = table(self.root, "evaluations").values();
        evaluations.any(|entry| entry.node.items("verify").iter().any(|stage| stage.as_text() == Some(name)))
    }
}

static EMPTY: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::new);

/// The table at a key, empty if there is none.
fn table<'a>(node: &'a Node, key: &str) -> &'a Table {
    node.get(key).and_then(Node::as_table).unwrap_or(&EMPTY)
}
