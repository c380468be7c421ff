//! Models that judge: they give scores or tokens, they stand still while they judge, and what trains them is a preference.

use base::{Diagnostic, Span};

use super::{Dag, Stage, table};
use crate::tree::Node;

pub(super) fn check(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    roles(dag, findings);
    for stage in dag.stages.values() {
        if stage.is("judge") || stage.is("pairs") || stage.is("rewrite") {
            frozen(dag, stage, findings);
        }
        if stage.is("judge") {
            scale(stage, findings);
        }
        if stage.is("pairs") {
            judgements(stage, findings);
            enough(dag, stage, findings);
        }
        if stage.is("train-judge") {
            preferences(dag, stage, findings);
            adapters(dag, stage, findings);
        }
    }
}

/// A use of a model: who uses it, and where it is named.
type Use<'a> = (String, &'a Span);

/// A head gives scores or logits, so that no model is used for both.
fn roles(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let of_stage = |stage: &Stage<'_>| format!("`{}`", stage.name);
    for (name, _) in table(dag.root, "models") {
        let (mut scores, mut tokens): (Vec<Use<'_>>, Vec<Use<'_>>) = (Vec::new(), Vec::new());
        // That a judge learns is reported as such.
        let learns = dag.stages.values().any(|stage| stage.learns() && stage.node.text("model") == Some(name));
        for stage in dag.stages.values() {
            let asked = stage.node.get("prompt").is_some() || stage.is("pairs");
            if learns && stage.is("judge") {
                continue;
            }
            let scored = stage.is("train-judge") || (stage.is("judge") && !asked);
            let own = stage.node.get("model");
            let reference = stage.node.get("kl").and_then(|kl| kl.get("model"));
            for node in own.into_iter().chain(reference).filter(|node| node.as_text() == Some(name)) {
                if scored { &mut scores } else { &mut tokens }.push((of_stage(stage), &node.span));
            }
        }
        for (evaluation, entry) in table(dag.root, "evaluations") {
            if let Some(node) = entry.node.get("model").filter(|node| node.as_text() == Some(name)) {
                tokens.push((format!("the evaluation `{evaluation}`"), &node.span));
            }
        }
        if let (Some((scorer, at)), Some((writer, other))) = (scores.first(), tokens.first()) {
            let message = format!("`{name}` is asked for scores and for tokens");
            let error =
                Diagnostic::error("model-role", message).at((*at).clone(), format!("{scorer} takes its scores"));
            let error = error.label((*other).clone(), format!("{writer} takes its tokens"));
            findings
                .push(error.help("a reward model has one head for scores: define a second model of the same `path`"));
        }
    }
}

/// The same response must get the same verdict, and the same words, whatever else is learned meanwhile.
fn frozen(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some((model, at)) = dag.model(stage) else { return };
    let (does, code) = if stage.is("rewrite") { ("writes", "writer-learns") } else { ("judges", "judge-learns") };
    for learner in dag.stages.values().filter(|stage| stage.learns()) {
        let Some((_, learns)) = dag.model(learner).filter(|(learns, _)| *learns == model) else { continue };
        let message = format!("stage `{}` {does} with a model that `{}` trains", stage.name, learner.name);
        let error = Diagnostic::error(code, message).at(at.clone(), does);
        let error = error.label(learns.clone(), "is trained here");
        findings.push(error.help("it stands still: define a second model, or train it in a phase of its own"));
    }
}

fn scale(judge: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let (Some(scale), Some(prompt)) = (judge.node.key_span("scale"), judge.node.key_span("prompt")) else { return };
    let message = format!("stage `{}` has a `scale` for scores, but its judge writes text", judge.name);
    let error = Diagnostic::error("conflicting-keys", message).at(scale.clone(), "is for reward models");
    findings
        .push(error.label(prompt.clone(), "makes it a language model").help("the plugin says what a verdict scores"));
}

fn judgements(pairs: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(node) = pairs.node.get("judgements") else { return };
    if let Some(count) = node.as_integer().filter(|count| count % 2 == 1) {
        let message = format!("stage `{}` judges each pair {count} times, which is odd", pairs.name);
        let error = Diagnostic::error("odd-judgements", message).at(node.span.clone(), "must be even");
        findings.push(error.help("half of the judgements have the two responses in the other order"));
    }
}

/// There are two responses for each pair.
fn enough(dag: &Dag<'_>, pairs: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let upstream = dag.upstream(pairs.name);
    let Some(sample) = upstream.iter().find(|stage| stage.is("sample")) else { return };
    let Some(size) = sample.node.get("group_size") else { return };
    let wanted = pairs.node.get("pairs_per_prompt");
    let count = wanted.map_or(Some(1), Node::as_integer);
    let (Some(count), Some(there)) = (count, size.as_integer()) else { return };
    if count < 1 || there < 1 || there >= count.saturating_mul(2) {
        return;
    }
    let message = format!("stage `{}` makes {count} pairs of a prompt, which has {there} responses", pairs.name);
    let message =
        if count == 1 { message.replace("1 pairs", "1 pair").replace("1 responses", "1 response") } else { message };
    let error = Diagnostic::error("too-few-responses", message).at(size.span.clone(), "too few");
    let error = error.label(wanted.map_or(pairs.key, |node| &node.span).clone(), "takes two for each");
    findings.push(error.help(format!("at least {}; a response is in one pair at most", count.saturating_mul(2))));
}

/// The rows say which answer is better, or whether an answer is as it should be: all of them the same of the two.
fn preferences(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let mut first: Option<(&str, &Span)> = None;
    for (input, _) in &stage.inputs {
        let Some(dataset) = dag.stages.get(input).filter(|stage| stage.is("dataset")) else { continue };
        for columns in dataset.node.items("sources").iter().filter_map(|source| source.get("columns")) {
            if columns.as_table().is_none() {
                continue;
            }
            let has = |key: &str| columns.get(key).is_some();
            let kind = match (has("chosen") || has("rejected"), has("label")) {
                (true, false) => "pairs",
                (false, true) => "labels",
                (true, true) => {
                    let message = format!("the rows for `{}` are pairs and labelled", stage.name);
                    let error = Diagnostic::error("preference", message).at(columns.span.clone(), "says both");
                    findings.push(error.help("keep `chosen` and `rejected`, or `response` and `label`"));
                    continue;
                }
                (false, false) => {
                    let message = format!("stage `{}` has no preference to learn", stage.name);
                    let error = Diagnostic::error("preference", message);
                    let error = error.at(columns.span.clone(), "names neither pairs nor labels");
                    let error = error.label(stage.key.clone(), "learns from these rows");
                    findings.push(error.help(
                        "add `chosen = \"COLUMN\"` and `rejected = \"COLUMN\"`, or `response = \"COLUMN\"` and \
                         `label = \"COLUMN\"`",
                    ));
                    continue;
                }
            };
            match first {
                None => first = Some((kind, &columns.span)),
                Some((other, at)) if other != kind => {
                    let message = format!("stage `{}` learns from {other} and from {kind}", stage.name);
                    let error =
                        Diagnostic::error("preference", message).at(columns.span.clone(), format!("has {kind}"));
                    let error = error.label(at.clone(), format!("has {other}"));
                    findings.push(error.help("a reward model is trained on one of the two"));
                }
                Some(_) => {}
            }
        }
    }
}

/// Adapters stand before the body's matrices; the new head would not learn.
fn adapters(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some((model, at)) = dag.model(stage) else { return };
    let Some(key) = table(dag.root, "models").get(model).and_then(|entry| entry.node.key_span("lora")) else { return };
    let error = Diagnostic::error("judge-adapters", format!("the reward model `{model}` can't learn by adapters"));
    let error = error.at(key.clone(), "has no adapter for the head").label(at.clone(), "is trained here");
    findings.push(error.help("remove `lora`: all of its weights learn"));
}
