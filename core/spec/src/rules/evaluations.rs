//! Evaluations: they run at some time, are judged by verify stages, and ask for no more than is sampled and read.

use base::Diagnostic;

use super::{Dag, table};
use crate::tree::Node;

pub(super) fn check(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    for (name, entry) in table(dag.root, "evaluations") {
        let never = entry.node.get("at").and_then(|at| at.as_array()).is_some_and(<[_]>::is_empty);
        if never && entry.node.get("every").is_none() {
            let error = Diagnostic::error("never-runs", format!("the evaluation `{name}` never runs"));
            let place = entry.node.get("at").map_or(&entry.key, |at| &at.span);
            findings.push(error.at(place.clone(), "at no time").help("say `at = [\"end\"]` or `every = 10`"));
        }
        judges(dag, name, &entry.node, findings);
        pass_at(name, &entry.node, findings);
        rating(name, &entry.node, findings);
    }
}

/// Right is what a verify stage says.
fn judges(dag: &Dag<'_>, name: &str, evaluation: &Node, findings: &mut Vec<Diagnostic>) {
    for stage in evaluation.items("verify") {
        if let Some(other) = stage.as_text().and_then(|name| dag.stages.get(name))
            && let Some(kind) = other.kind
            && kind.name != "verify"
        {
            let message =
                format!("the evaluation `{name}` is judged by `{}`, which is a {} stage", other.name, kind.name);
            let error = Diagnostic::error("edge-type", message).at(stage.span.clone(), "not a verify stage");
            findings.push(error.label(other.key.clone(), format!("a {} stage", kind.name)));
        }
    }
}

/// Whether one of k completions is right can't be estimated from fewer than k.
fn pass_at(name: &str, evaluation: &Node, findings: &mut Vec<Diagnostic>) {
    let given = evaluation.get("samples");
    let Some(samples) = given.map_or(Some(1), Node::as_integer) else { return };
    for item in evaluation.get("pass_at").and_then(Node::as_array).unwrap_or_default() {
        let Some(k) = item.as_integer().filter(|k| *k > samples) else { continue };
        let message = format!("pass@{k} of the evaluation `{name}` needs {k} completions a question");
        let error = Diagnostic::error("too-few-samples", message);
        let error = error.at(item.span.clone(), format!("`samples` is {samples}"));
        let error =
            given.into_iter().fold(error, |error, node| error.label(node.span.clone(), "completions a question"));
        findings.push(error.help(format!("say `samples = {k}`, or leave {k} out of `pass_at`")));
    }
}

/// A file's column is there for a rating only if the evaluation reads it.
fn rating(name: &str, evaluation: &Node, findings: &mut Vec<Diagnostic>) {
    let Some(node) = evaluation.get("rating").and_then(|rating| rating.get("column")) else { return };
    let (Some(column), Some(columns)) = (node.as_text(), evaluation.get("columns")) else { return };
    if columns.as_table().is_none() || columns.items("fields").iter().any(|field| field.as_text() == Some(column)) {
        return;
    }
    let message = format!("the evaluation `{name}` does not read the column `{column}`");
    let error = Diagnostic::error("missing-field", message).at(node.span.clone(), "not among the fields");
    let error = error.label(columns.span.clone(), format!("`fields` lacks `{column}`"));
    findings.push(error.help(format!("add it to `columns`: `fields = [\"{column}\"]`")));
}
