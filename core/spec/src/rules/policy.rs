//! What the keys of a `grpo` stage say about each other. A key that would change nothing is refused: whoever gives it means
//! something by it.

use base::{Diagnostic, Span};

use super::{Dag, Stage};
use crate::presets;
use crate::tree::Node;

pub(super) fn check(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let expanded = presets::expanded(stage.node);
    group_of_one(dag, stage, &expanded, findings);
    advantage(stage, &expanded, findings);
    surrogate(stage, &expanded, findings);
    delta(stage, &expanded, findings);
    importance_sampling(stage, findings);
    penalty(stage, &expanded, findings);
}

/// The place of a key of the file, in the stage or in one of its tables.
fn given<'a>(stage: &'a Stage<'_>, path: &[&str]) -> Option<&'a Span> {
    let (last, tables) = path.split_last()?;
    let table = tables.iter().try_fold(stage.node, |node, key| node.get(key))?;
    table.key_span(last)
}

/// A text of the stage as it runs.
fn text<'a>(node: &'a Node, table: &str, key: &str) -> Option<&'a str> {
    node.get(table)?.text(key)
}

/// Advantages that compare the completions of a group need several.
fn group_of_one(dag: &Dag<'_>, stage: &Stage<'_>, expanded: &Node, findings: &mut Vec<Diagnostic>) {
    let compares = |key: &str| matches!(text(expanded, "advantage", key), Some("group" | "leave-one-out"));
    if !compares("baseline") && !compares("scale") {
        return;
    }
    let upstream = dag.upstream(stage.name);
    let Some(sample) = upstream.iter().find(|stage| stage.is("sample")) else { return };
    let Some(size) = sample.node.get("group_size").filter(|size| size.as_integer() == Some(1)) else { return };
    let message = format!("stage `{}` compares the completions of a group, but a group has only one", stage.name);
    let error = Diagnostic::error("group-size", message).at(size.span.clone(), "has nothing to compare with");
    let error = error.label(stage.key.clone(), "learns from differences within a group");
    let help = "at least 2, 8 to 16 are usual; or `advantage = { baseline = \"none\", scale = \"whiten-tokens\" }`, which compares \
                all completions of a step";
    findings.push(error.help(help));
}

fn idle(place: &Span, message: String, help: &str) -> Diagnostic {
    Diagnostic::error("idle-setting", message).at(place.clone(), "would change nothing").help(help)
}

fn advantage(stage: &Stage<'_>, expanded: &Node, findings: &mut Vec<Diagnostic>) {
    let scale = text(expanded, "advantage", "scale");
    if scale == Some("none") {
        for key in ["ddof", "epsilon"] {
            let Some(place) = given(stage, &["advantage", key]) else { continue };
            let message = format!("`{key}` of stage `{}` belongs to a division, but `scale` is `none`", stage.name);
            findings.push(idle(place, message, "remove it, or choose a `scale`"));
        }
    }
    if text(expanded, "advantage", "baseline") == Some("none")
        && let Some(scale) = scale.filter(|scale| ["group", "leave-one-out", "batch"].contains(scale))
    {
        let place = given(stage, &["advantage", "scale"]).or(given(stage, &["advantage", "baseline"]));
        let message =
            format!("stage `{}` divides rewards by a deviation from a mean that it does not subtract", stage.name);
        let error = Diagnostic::error("scale-without-baseline", message);
        let label = format!("`scale` is `{scale}`, `baseline` is `none`");
        let error = error.at(place.unwrap_or(stage.key).clone(), label);
        findings.push(
            error.help(
                "`whiten-sequences` and `whiten-tokens` subtract the mean of the step; `none` divides by nothing",
            ),
        );
    }
}

/// Keys that only some surrogates look at.
fn surrogate(stage: &Stage<'_>, expanded: &Node, findings: &mut Vec<Diagnostic>) {
    let Some(surrogate) = expanded.text("surrogate") else { return };
    let mut refuse = |path: &[&str], help: &str| {
        let Some(place) = given(stage, path) else { return };
        let message =
            format!("`{}` of stage `{}` means nothing to the surrogate `{surrogate}`", path.join("."), stage.name);
        findings.push(idle(place, message, help));
    };
    match surrogate {
        "clip" => {}
        "cispo" => {
            refuse(&["clip", "dual"], "it belongs to `surrogate = \"clip\"`");
            refuse(&["clip", "delta"], "it belongs to `surrogate = \"clip\"`");
        }
        _ => refuse(&["clip"], "it belongs to the surrogates `clip` and `cispo`"),
    }
    if surrogate != "sapo" {
        refuse(&["sapo"], "it belongs to `surrogate = \"sapo\"`");
    }
    let unbiased = expanded.get("kl").and_then(|kl| kl.get("unbiased")).and_then(Node::as_boolean) == Some(true);
    if surrogate == "reinforce" && !unbiased {
        refuse(&["ratio"], "it takes no ratio: leave `ratio` out");
    }
}

/// The limit of a ratio lies beyond where it is clipped.
fn delta(stage: &Stage<'_>, expanded: &Node, findings: &mut Vec<Diagnostic>) {
    let Some(clip) = expanded.get("clip") else { return };
    let number = |key: &str| clip.get(key).and_then(Node::as_number);
    let (Some(delta), Some(high)) = (number("delta"), number("high")) else { return };
    let Some(place) = given(stage, &["clip", "delta"]).filter(|_| delta <= 1.0 + high) else { return };
    let message = format!("`delta` of stage `{}` is not above 1 + `high`, where the ratio is clipped", stage.name);
    let error = Diagnostic::error("empty-bounds", message).at(place.clone(), format!("1 + `high` is {}", 1.0 + high));
    findings.push(error.help("INTELLECT-2 takes 4; leave it out for no limit"));
}

fn importance_sampling(stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(node) = stage.node.get("importance_sampling") else { return };
    if let Some(level) = node.get("level")
        && let Some(word @ ("sequence-mean" | "worst-token")) = level.as_text()
        && node.text("mode").is_none_or(|mode| mode == "truncate")
    {
        let message = format!("`{word}` is no importance weight: stage `{}` can't multiply by it", stage.name);
        let error = Diagnostic::error("mask-only", message);
        let error = match node.get("mode") {
            Some(mode) => error.at(mode.span.clone(), "would multiply").label(level.span.clone(), "can only mask"),
            None => error.at(level.span.clone(), "can only mask"),
        };
        findings.push(error.help("say `mode = \"mask\"`, or take the level `token` or `sequence`"));
    }
    let number = |key: &str| node.get(key).and_then(Node::as_number);
    let (least, most) = (number("at_least"), number("at_most").unwrap_or(2.0));
    if let Some((least, place)) = least.zip(node.key_span("at_least"))
        && least >= most
    {
        let message =
            format!("the bounds of `importance_sampling` of stage `{}` leave nothing between them", stage.name);
        let error = Diagnostic::error("empty-bounds", message);
        findings.push(error.at(place.clone(), format!("not below `at_most`, which is {most}")));
    }
}

fn penalty(stage: &Stage<'_>, expanded: &Node, findings: &mut Vec<Diagnostic>) {
    if text(expanded, "kl", "place") == Some("reward")
        && let Some(kl) = stage.node.get("kl")
        && kl.get("unbiased").and_then(Node::as_boolean) == Some(true)
        && let Some(place) = kl.key_span("unbiased")
    {
        let message =
            format!("the penalty of stage `{}` counts in the reward, through which nothing flows", stage.name);
        findings.push(idle(place, message, "remove it, or say `place = \"loss\"`"));
    }
    if let Some(kl) = stage.node.get("kl")
        && let (Some(learner), Some(model)) = (stage.node.text("model"), kl.get("model"))
        && let Some(name) = model.as_text().filter(|name| *name != learner)
        && let Some(key) = kl.key_span("refresh_every")
    {
        let message = format!("the reference `{name}` can't be refreshed from `{learner}`");
        let error = Diagnostic::error("kl-refresh", message).at(key.clone(), "refreshes another model");
        let error = error.label(model.span.clone(), format!("is not `{learner}`, which learns"));
        findings.push(error.help(format!("remove `refresh_every`, or take `{learner}` as the reference")));
    }
}
