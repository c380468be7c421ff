//! Sampling in rounds (`refill`) and ahead of learning (`ahead`): what may stand beside it.

use base::Diagnostic;

use super::{Dag, Stage};

pub(super) fn check(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let mut first: Option<&Stage<'_>> = None;
    for stage in dag.stages.values().filter(|stage| stage.is("filter")) {
        let Some(key) = stage.node.key_span("refill") else { continue };
        match first.and_then(|first| first.node.key_span("refill")) {
            None => first = Some(stage),
            Some(other) => {
                let error = Diagnostic::error("several-refills", "two filters ask for more groups");
                let error = error.at(key.clone(), "asks, too").label(other.clone(), "asks");
                findings.push(error.help("let one filter do what both do: `refill` samples on until it is content"));
            }
        }
        branches(dag, stage, findings);
        temperature(dag, stage, findings);
        reach(dag, stage, findings);
    }
    ahead(dag, findings);
}

/// What is sampled in rounds goes through the filter and nowhere else: a branch beside it would take some rounds twice.
fn branches(dag: &Dag<'_>, filter: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let inside = dag.upstream(filter.name);
    let is_inside = |name: &str| inside.iter().any(|stage| stage.name == name);
    let Some(key) = filter.node.key_span("refill") else { return };
    for stage in dag.stages.values().filter(|stage| !is_inside(stage.name)) {
        for (input, span) in stage.inputs.iter().filter(|(input, _)| *input != filter.name && is_inside(input)) {
            let message = format!("stage `{}` takes groups of `{input}` past `{}`", stage.name, filter.name);
            let error = Diagnostic::error("refill-branch", message).at((*span).clone(), "does not wait for the filter");
            let error = error.label(key.clone(), "samples on, in rounds");
            findings.push(
                error.help(format!("take the input from `{}`; what it drops is still there, marked", filter.name)),
            );
        }
    }
}

/// A group that is learned a step later is learned at that step's temperature.
fn temperature(dag: &Dag<'_>, filter: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(key) = filter.node.key_span("refill") else { return };
    for stage in dag.upstream(filter.name) {
        let Some(node) = stage.node.get("temperature").filter(|node| node.as_array().is_some()) else { continue };
        let message =
            format!("the temperature of `{}` changes, and `{}` keeps groups over steps", stage.name, filter.name);
        let error = Diagnostic::error("refill-schedule", message).at(node.span.clone(), "changes");
        let error = error.label(key.clone(), "what is left over is learned a step later");
        findings.push(error.help("give one temperature, or cut the run into phases of a recipe"));
    }
}

/// The rounds can give what is asked for.
fn reach(dag: &Dag<'_>, filter: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(refill) = filter.node.get("refill") else { return };
    let number = |key: &str| refill.get(key).and_then(|node| node.as_integer());
    let (Some(until), Some(at_most)) = (number("until"), number("at_most")) else { return };
    let Some(node) = refill.get("until") else { return };
    for feed in dag.upstream(filter.name) {
        let Some(prompts) = feed.node.get("prompts_per_step") else { continue };
        let Some(count) = prompts.as_integer().filter(|count| *count > 0) else { continue };
        let most = count.saturating_mul(at_most.saturating_add(1));
        if until > most {
            let message = format!("`{}` asks for {until} groups, and all rounds together have {most}", filter.name);
            let error = Diagnostic::error("refill-reach", message).at(node.span.clone(), "more than there can be");
            let error = error.label(prompts.span.clone(), format!("{count} a round"));
            findings.push(error.help("lower `until`, or raise `at_most` or `prompts_per_step`"));
        }
    }
}

/// The whole of what samples goes ahead, or none of it.
fn ahead(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let says = |stage: &&Stage<'_>| stage.node.get("ahead").and_then(|node| node.as_integer()) == Some(1);
    let samplers: Vec<&Stage<'_>> = dag.stages.values().filter(|stage| stage.is("sample")).collect();
    let Some(first) = samplers.iter().copied().find(|stage| says(stage)) else { return };
    let Some(key) = first.node.key_span("ahead") else { return };
    for stage in samplers.iter().filter(|stage| !says(stage)) {
        let message = format!("stage `{}` samples ahead, and `{}` does not", first.name, stage.name);
        let error = Diagnostic::error("ahead", message).at(stage.key.clone(), "has no `ahead = 1`");
        findings.push(error.label(key.clone(), "the next step is sampled meanwhile").help("say it in both or in none"));
    }
}
