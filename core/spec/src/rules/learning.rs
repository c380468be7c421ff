//! What learning needs: one model that learns, weights that stay while it samples, minibatches, files of its own.

use base::Diagnostic;

use super::{Dag, Stage, graph, policy};
use crate::suggest::nearest;

pub(super) fn check(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let mut learners: Vec<&Stage<'_>> = Vec::new();
    let mut outputs: Vec<&Stage<'_>> = Vec::new();
    for stage in dag.stages.values() {
        if stage.learns() {
            twice(stage, &learners, "model", "model-learns-twice", "is trained by two stages", findings);
            another(dag, stage, &learners, findings);
            learners.push(stage);
            minibatches(dag, stage, findings);
        }
        if stage.is("grpo") {
            writer(dag, stage, findings);
            policy::check(dag, stage, findings);
        }
        if stage.is("distil") {
            writer(dag, stage, findings);
            teacher(stage, findings);
        }
        if stage.is("reward") {
            weights(stage, findings);
        }
        if stage.is("collect") {
            twice(stage, &outputs, "path", "duplicate-output", "is written by two stages", findings);
            outputs.push(stage);
        }
        if stage.is("generate") && stage.node.text("order") == Some("shuffle") && stage.node.get("count").is_none() {
            let message = format!("stage `{}` shuffles rows without end", stage.name);
            let error = Diagnostic::error("missing-key", message);
            let place = stage.node.get("order").map_or(stage.key, |order| &order.span);
            let error = error.at(place.clone(), "stands without `count`");
            findings.push(error.help("say how many rows there are with `count`, or leave `order` out"));
        }
    }
    samplers(dag, &learners, findings);
    adapters(dag, &learners, findings);
}

/// Adapters that nobody trains would change nothing.
fn adapters(dag: &Dag<'_>, learners: &[&Stage<'_>], findings: &mut Vec<Diagnostic>) {
    let learns = |name: &str| learners.iter().any(|stage| stage.node.text("model") == Some(name));
    for (name, entry) in super::table(dag.root, "models").iter().filter(|(name, _)| !learns(name)) {
        let Some(key) = entry.node.key_span("lora") else { continue };
        let message = format!("the model `{name}` has adapters, but no stage trains it");
        let error = Diagnostic::error("idle-adapters", message).at(key.clone(), "would change nothing");
        findings.push(error.help("remove `lora`; a folder of trained adapters can be given as `path`"));
    }
}

/// No two stages say the same at a key.
fn twice(
    stage: &Stage<'_>,
    before: &[&Stage<'_>],
    key: &str,
    code: &'static str,
    problem: &str,
    findings: &mut Vec<Diagnostic>,
) {
    let Some(node) = stage.node.get(key) else { return };
    let Some(text) = node.as_text() else { return };
    let Some(first) = before.iter().filter_map(|other| other.node.get(key)).find(|other| other.as_text() == Some(text))
    else {
        return;
    };
    let error = Diagnostic::error(code, format!("`{text}` {problem}"));
    findings.push(error.at(node.span.clone(), "by this one").label(first.span.clone(), "and by this one"));
}

/// A checkpoint holds one model that learns.
fn another(dag: &Dag<'_>, stage: &Stage<'_>, before: &[&Stage<'_>], findings: &mut Vec<Diagnostic>) {
    let Some((model, at)) = dag.model(stage) else { return };
    let mut before = before.iter().filter_map(|other| dag.model(other));
    let Some((first, first_at)) = before.next().filter(|(first, _)| *first != model) else { return };
    if before.any(|(other, _)| other == model) {
        return;
    }
    let error =
        Diagnostic::error("several-learners", format!("the pipeline trains two models, `{first}` and `{model}`"));
    let error = error.at(at.clone(), "learns, too").label(first_at.clone(), "learns");
    findings.push(error.help("a checkpoint holds one model: train each in a phase of its own, in a recipe"));
}

/// Stages run side by side within a step, unless one waits for the other.
fn samplers(dag: &Dag<'_>, learners: &[&Stage<'_>], findings: &mut Vec<Diagnostic>) {
    // Where an input leads astray, a stage may mean to wait for another.
    if dag.stages.values().any(|stage| graph::is_astray(dag, stage)) {
        return;
    }
    for sample in dag.stages.values().filter(|stage| stage.is("sample") && dag.is_input(stage.name)) {
        let Some((model, at)) = dag.model(sample) else { continue };
        for learner in learners {
            let Some((_, learns)) = dag.model(learner).filter(|(learns, _)| *learns == model) else { continue };
            if dag.upstream(learner.name).iter().any(|stage| stage.name == sample.name) {
                continue;
            }
            let message =
                format!("stage `{}` samples with weights that `{}` changes meanwhile", sample.name, learner.name);
            let error = Diagnostic::error("changing-weights", message);
            let error = error.at(at.clone(), format!("samples beside `{}`", learner.name));
            let error = error.label(learns.clone(), format!("trained here, without waiting for `{}`", sample.name));
            findings.push(error.help(format!(
                "let `{}` learn from what `{}` samples, or sample in a phase of its own, in a recipe",
                learner.name, sample.name
            )));
        }
    }
}

fn minibatches(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(node) = stage.node.get("minibatches") else { return };
    let Some(minibatches) = node.as_integer() else { return };
    for feed in dag.upstream(stage.name) {
        let Some(prompts) = feed.node.get("prompts_per_step") else { continue };
        let Some(count) = prompts.as_integer().filter(|count| (1..minibatches).contains(count)) else { continue };
        let message = format!("stage `{}` cuts {count} groups a step into {minibatches} minibatches", stage.name);
        let error =
            Diagnostic::error("too-many-minibatches", message).at(node.span.clone(), "more than there are groups");
        let error = error.label(prompts.span.clone(), format!("`{}` gives {count} a step", feed.name));
        findings.push(error.help(format!("at most {count}, or more `prompts_per_step`")));
    }
}

/// Ratios are taken against the weights that sampled.
fn writer(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let upstream = dag.upstream(stage.name);
    if let Some(rewrite) = upstream.iter().find(|stage| stage.is("rewrite")) {
        let message = format!("stage `{}` learns from what `{}` wrote anew", stage.name, rewrite.name);
        let error = Diagnostic::error("other-model", message).at(stage.key.clone(), "learns from its own samples");
        findings.push(error.label(rewrite.key.clone(), "writes others").help("an sft stage learns from any text"));
        return;
    }
    let Some(sample) = upstream.iter().find(|stage| stage.is("sample")) else { return };
    if let (Some(learns), Some(samples)) = (stage.node.get("model"), sample.node.get("model"))
        && let (Some(learner), Some(sampler)) = (learns.as_text(), samples.as_text())
        && learner != sampler
        && [learner, sampler].iter().all(|model| super::table(dag.root, "models").contains_key(*model))
    {
        let message = format!("stage `{}` trains `{learner}` on what `{sampler}` wrote", stage.name);
        let error = Diagnostic::error("other-model", message).at(learns.span.clone(), "learns");
        let error = error.label(samples.span.clone(), "writes");
        findings.push(error.help("it learns from its own model's completions; an sft stage learns from another's"));
    }
}

/// A model that taught itself would learn nothing.
fn teacher(stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let (Some(student), Some(teacher)) = (stage.node.get("model"), stage.node.get("teacher")) else { return };
    if let Some(name) = teacher.as_text().filter(|name| student.as_text() == Some(name)) {
        let error = Diagnostic::error("own-teacher", format!("`{name}` is its own teacher"));
        let error = error.at(teacher.span.clone(), "teaches").label(student.span.clone(), "learns");
        findings.push(error.help("name another model as the teacher"));
    }
}

fn weights(stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(node) = stage.node.get("weights") else { return };
    let Some(weights) = node.as_table() else { return };
    for (name, entry) in weights {
        if !stage.inputs.iter().any(|(input, _)| input == name) {
            let message = format!("stage `{}` weighs `{name}`, which is not among its inputs", stage.name);
            let error = Diagnostic::error("weight-without-input", message).at(entry.key.clone(), "not an input");
            let help = match nearest(name, stage.inputs.iter().map(|(input, _)| *input)) {
                Some(input) => format!("did you mean `{input}`?"),
                None => format!("add `{name}` to `inputs`, or remove its weight"),
            };
            findings.push(error.help(help));
        }
    }
    for (input, span) in &stage.inputs {
        if !weights.contains_key(*input) {
            let message = format!("stage `{}` gives its input `{input}` no weight", stage.name);
            let error = Diagnostic::error("input-without-weight", message).at((*span).clone(), "has no weight");
            let error = error.label(node.span.clone(), format!("`{input}` is missing here"));
            findings.push(error.help(format!("add `{input} = 1.0` to `weights`, or 0.0 if it should not count")));
        }
    }
}
