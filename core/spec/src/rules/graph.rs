//! The shape of the DAG: what flows along edges, cycles, and stages that nothing comes of.

use base::Diagnostic;

use super::{Dag, Stage, table};
use crate::suggest::{list, nearest};
use crate::types::Edge;

pub(super) fn check(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let astray: Vec<&Stage<'_>> = dag.stages.values().filter(|stage| is_astray(dag, stage)).collect();
    for stage in dag.stages.values() {
        inputs(dag, stage, findings);
        edges(dag, stage, findings);
        unused(dag, stage, &astray, findings);
    }
    joins(dag, findings);
    cycles(dag, findings);
    work(dag, findings);
}

fn inputs(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(kind) = stage.kind else { return };
    if stage.is("verify") && stage.inputs.is_empty() && dag.is_input(stage.name) {
        let error = Diagnostic::error("missing-input", format!("stage `{}` has no input to judge", stage.name));
        findings.push(error.at(stage.key.clone(), "has no `inputs`, but other stages take its output"));
    }
    if !kind.joins
        && let [_, others @ ..] = stage.inputs.as_slice()
        && !kind.takes.is_empty()
    {
        for (_, span) in others {
            let message = format!("stage `{}` takes only one input", stage.name);
            let error = Diagnostic::error("too-many-inputs", message).at((*span).clone(), "one too many");
            findings.push(
                error.help("only reward stages join branches, each a verify or judge stage of the same sample stage"),
            );
        }
    }
}

fn edges(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(kind) = stage.kind else { return };
    for (input, span) in &stage.inputs {
        let Some(source) = dag.stages.get(input) else { continue };
        let Some(source_kind) = source.kind else { continue };
        if source_kind.gives.is_some_and(|gives| kind.takes.contains(&gives)) {
            continue;
        }
        let takes: Vec<&str> = kind.takes.iter().copied().map(words).collect();
        let takes = takes.join(" or ");
        let (message, label) = match source_kind.gives {
            Some(gives) => (
                format!("stage `{}` takes {takes}, but `{input}` gives {}", stage.name, words(gives)),
                format!("a {} stage gives {}", source_kind.name, words(gives)),
            ),
            None => (
                format!("stage `{}` takes {takes}, but `{input}` gives nothing", stage.name),
                format!("a {} stage is an end", source_kind.name),
            ),
        };
        let fitting = dag.stages.values().filter(|other| other.name != stage.name);
        let fitting = fitting.filter(|other| gives(other).is_some_and(|gives| kind.takes.contains(&gives)));
        let fitting: Vec<&str> = fitting.map(|other| other.name).collect();
        let error = Diagnostic::error("edge-type", message).at((*span).clone(), label);
        let help = if fitting.is_empty() {
            format!("a {} stage takes {takes}", kind.name)
        } else {
            format!("it can take its input from {}", list(&fitting))
        };
        findings.push(error.help(help));
    }
}

fn gives(stage: &Stage<'_>) -> Option<Edge> {
    stage.kind?.gives
}

fn words(edge: Edge) -> &'static str {
    match edge {
        Edge::Prompts => "prompts",
        Edge::Completions => "completions",
        Edge::Verdicts => "verdicts",
        Edge::Rewards => "rewards",
        Edge::Pairs => "pairs",
    }
}

/// Whether what a stage takes its input from is wrong: it may mean a stage that seems unused.
pub(super) fn is_astray(dag: &Dag<'_>, stage: &Stage<'_>) -> bool {
    let Some(kind) = stage.kind else { return true };
    let fits = |input: &str| dag.stages.get(input).and_then(gives).is_some_and(|gives| kind.takes.contains(&gives));
    let turns_back = |input| dag.upstream(input).iter().any(|other| other.name == stage.name);
    let optional = stage.is("verify") && !dag.is_input(stage.name);
    (stage.inputs.is_empty() && !kind.takes.is_empty() && !optional)
        || stage.inputs.iter().any(|(input, _)| !fits(input) || turns_back(input))
}

fn unused(dag: &Dag<'_>, stage: &Stage<'_>, astray: &[&Stage<'_>], findings: &mut Vec<Diagnostic>) {
    let Some(gives) = gives(stage) else { return };
    if dag.is_input(stage.name)
        || (stage.is("verify") && dag.is_evaluated_by(stage.name))
        || astray.iter().any(|other| other.kind.is_none_or(|kind| kind.takes.contains(&gives)))
    {
        return;
    }
    let message = format!("the {} of stage `{}` go nowhere", words(gives), stage.name);
    let error = Diagnostic::error("unused-stage", message).at(stage.key.clone(), "no stage takes its input from it");
    findings.push(error.help("name it in another stage's `inputs`, or remove it"));
}

/// Branches that meet judge the completions of one stage that writes.
fn joins(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    for stage in dag.stages.values().filter(|stage| stage.kind.is_some_and(|kind| kind.joins)) {
        let mut first: Option<(&str, &str)> = None;
        for (input, span) in &stage.inputs {
            let writes = |stage: &&Stage<'_>| stage.is("sample") || stage.is("rewrite");
            let Some(sample) = dag.upstream(input).into_iter().find(writes) else { continue };
            match first {
                None => first = Some((input, sample.name)),
                Some((_, name)) if name == sample.name => {}
                Some((branch, name)) => {
                    let message = format!("stage `{}` joins branches of different stages that write", stage.name);
                    let error = Diagnostic::error("join-mismatch", message);
                    let error = error.at((*span).clone(), format!("judges completions of `{}`", sample.name));
                    findings.push(error.help(format!("`{branch}` judges completions of `{name}`")));
                }
            }
        }
    }
}

/// Reports each cycle once, from its first stage in the order of the file.
fn cycles(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let mut reported: Vec<&str> = Vec::new();
    for stage in dag.stages.values() {
        if reported.contains(&stage.name) {
            continue;
        }
        let Some(cycle) = cycle_from(dag, stage) else { continue };
        reported.extend(cycle.iter().map(|stage| stage.name));
        let around: Vec<&str> = cycle.iter().map(|stage| stage.name).chain([stage.name]).collect();
        let message = match cycle.as_slice() {
            [only] => format!("stage `{}` takes its input from itself", only.name),
            _ => format!("stages take their inputs from each other in a cycle: {}", arrows(&around)),
        };
        let mut error = Diagnostic::error("cycle", message);
        for pair in around.windows(2) {
            let span = dag.stages.get(pair[0]).and_then(|stage| stage.inputs.iter().find(|(name, _)| *name == pair[1]));
            let Some((_, span)) = span else { continue };
            error = match error.place {
                None => error.at((*span).clone(), format!("`{}` waits for `{}`", pair[0], pair[1])),
                Some(_) => error.label((*span).clone(), format!("`{}` waits for `{}`", pair[0], pair[1])),
            };
        }
        findings.push(error.help("stages are a DAG: take one of these inputs from elsewhere"));
    }
}

fn arrows(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" <- ")
}

/// The shortest way from a stage over its inputs back to itself, without its repetition at the end.
fn cycle_from<'d, 'a>(dag: &'d Dag<'a>, start: &'d Stage<'a>) -> Option<Vec<&'d Stage<'a>>> {
    let mut ways: Vec<Vec<&Stage<'a>>> = vec![vec![start]];
    let mut next = 0;
    let mut seen: Vec<&str> = Vec::new();
    while let Some(way) = ways.get(next).cloned() {
        next += 1;
        let Some(last) = way.last() else { continue };
        for (input, _) in &last.inputs {
            if *input == start.name {
                return Some(way);
            }
            if !seen.contains(input)
                && let Some(stage) = dag.stages.get(input)
            {
                seen.push(input);
                ways.push(way.iter().copied().chain([stage]).collect());
            }
        }
    }
    None
}

/// There is something to do, and it is said how often.
fn work(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let run = dag.root.get("run");
    let end = dag.stages.values().find(|stage| stage.learns() || stage.is("collect"));
    let misspelt = |key: &str| key != "run" && nearest(key, ["run"]).is_some();
    if let Some(end) = end
        && run.is_none_or(|run| run.as_table().is_some() && run.get("steps").is_none())
        && !dag.root.as_table().is_some_and(|root| root.keys().any(|key| misspelt(key)))
    {
        let error = Diagnostic::error("missing-key", "`run` has no `steps`");
        let error = error.at(run.map_or(&dag.root.span, |run| &run.span).clone(), "`steps` is missing");
        let error = error.label(end.key.clone(), "this stage works at each step");
        findings.push(error.help("say how many passes of the DAG to make: `steps = 100` in `[run]`"));
    }
    let known = dag.stages.values().all(|stage| stage.kind.is_some());
    if end.is_none() && known && table(dag.root, "evaluations").is_empty() {
        let message = "the pipeline learns nothing, collects nothing and evaluates nothing";
        let error = Diagnostic::error("nothing-to-do", message).at(dag.root.span.clone(), "has no end");
        findings.push(error.help("add a grpo, sft, distil, train-judge or collect stage, or an evaluation"));
    }
}
