//! Gates and early stops: the metrics that they name are logged by something.

use base::Diagnostic;

use super::table;
use crate::suggest::suggestion;
use crate::tree::Node;

/// Those of a pipeline.
pub(super) fn check(root: &Node, findings: &mut Vec<Diagnostic>) {
    for gate in root.items("gates") {
        itself(gate, findings);
        for node in [Some(gate), gate.get("over")].into_iter().flatten() {
            evaluated(node, root, findings);
        }
    }
    if let Some(stop) = root.get("run").and_then(|run| run.get("early_stop")) {
        evaluated(stop, root, findings);
    }
}

/// Those of a recipe: each names its phase. `pipeline` gives the tree of a phase's file.
pub(crate) fn check_recipe<'a>(
    root: &Node,
    phases: &[&str],
    pipeline: impl Fn(&str) -> Option<&'a Node>,
    findings: &mut Vec<Diagnostic>,
) {
    for gate in root.items("gates") {
        itself(gate, findings);
        for node in [Some(gate), gate.get("over")].into_iter().flatten() {
            let place = node.get("phase");
            let Some(phase) = place.or(gate.get("phase")).and_then(Node::as_text) else { continue };
            match pipeline(phase) {
                Some(root) => evaluated(node, root, findings),
                None if phases.contains(&phase) => {}
                None => {
                    let Some(place) = place else { continue };
                    let error = Diagnostic::error("unknown-phase", format!("there is no phase `{phase}`"));
                    let error = error.at(place.span.clone(), "no such phase");
                    findings.push(Diagnostic { help: suggestion(phase, phases), ..error });
                }
            }
        }
    }
}

/// A number minus itself is 0.
fn itself(gate: &Node, findings: &mut Vec<Diagnostic>) {
    let Some(over) = gate.get("over") else { return };
    let same = |key: &str| over.text(key).is_none_or(|other| gate.text(key) == Some(other));
    let when = |node: &Node| node.text("at") == Some("start");
    if same("phase") && same("metric") && when(gate) == when(over) {
        let error = Diagnostic::error("gate", "the gate holds a metric against itself");
        let error = error.at(over.span.clone(), "is what the gate looks at");
        findings.push(error.help("name another `metric`, another `phase`, or `at = \"start\"`"));
    }
}

/// An evaluation's metric has an evaluation.
fn evaluated(node: &Node, root: &Node, findings: &mut Vec<Diagnostic>) {
    let Some(metric) = node.get("metric") else { return };
    let name = metric.as_text().and_then(|text| text.strip_prefix("eval/")).and_then(|rest| rest.split('/').next());
    let evaluations = table(root, "evaluations");
    if let Some(name) = name.filter(|name| !evaluations.contains_key(*name)) {
        let known: Vec<&str> = evaluations.keys().map(String::as_str).collect();
        let error = Diagnostic::error("unknown-evaluation", format!("there is no evaluation `{name}`"));
        let error = error.at(metric.span.clone(), "is logged by none");
        findings.push(Diagnostic { help: suggestion(name, &known), ..error });
    }
}
