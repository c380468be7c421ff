//! Rows are written for one model and remember their source, verify stages name those they cover: no name leads nowhere,
//! no row goes unjudged.

use base::Diagnostic;

use super::{Dag, Stage, table};
use crate::suggest::suggestion;
use crate::tree::Node;

pub(super) fn check(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    for stage in dag.stages.values() {
        if stage.is("dataset") || stage.is("generate") {
            readers(dag, stage, findings);
        }
        if stage.judges() {
            unknown(dag, stage, findings);
        }
        if stage.is("sample") {
            uncovered(dag, stage, findings);
        }
        if stage.is("sft") {
            responses(dag, stage, findings);
        }
        if stage.is("sample") {
            for input in stage.inputs.iter().filter_map(|(input, _)| dag.stages.get(input)) {
                let columns = input.node.items("sources").iter().filter_map(|source| source.get("columns"));
                columns.for_each(|columns| asks(columns, &format!("stage `{}`", stage.name), findings));
            }
        }
    }
    for (name, entry) in table(dag.root, "evaluations") {
        if let Some(columns) = entry.node.get("columns") {
            asks(columns, &format!("the evaluation `{name}`"), findings);
        }
    }
}

/// The sources of the rows that flow out of a stage, and where they are named. A generator's source is its stage's name.
fn sources_of<'a>(stage: &Stage<'a>) -> Vec<(&'a str, &'a base::Span)> {
    if stage.is("generate") {
        return vec![(stage.name, stage.key)];
    }
    if !stage.is("dataset") {
        return Vec::new();
    }
    let names = stage.node.items("sources").iter().filter_map(|source| source.get("name"));
    names.filter_map(|name| Some((name.as_text()?, &name.span))).collect()
}

/// Prompts become tokens once, by the template and the tokenizer of the model that takes them.
fn readers(dag: &Dag<'_>, source: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let reads = |stage: &&Stage<'_>| {
        (stage.is("sample") || stage.learns()) && stage.inputs.iter().any(|(input, _)| *input == source.name)
    };
    let mut readers = dag.stages.values().filter(reads).filter_map(|stage| Some((stage, dag.model(stage)?)));
    let Some((first, (model, first_at))) = readers.next() else { return };
    for (stage, (other, at)) in readers {
        // That two models learn is reported as such.
        if other == model || (first.learns() && stage.learns()) {
            continue;
        }
        let message = format!("stage `{}` feeds two models, `{model}` and `{other}`", source.name);
        let error = Diagnostic::error("several-models", message);
        let error = error.at(at.clone(), format!("`{}` takes them for `{other}`", stage.name));
        let error = error.label(first_at.clone(), format!("`{}` takes them for `{model}`", first.name));
        findings.push(
            error
                .label(source.key.clone(), "its prompts are tokenised once")
                .help(format!("give `{other}` a {} stage of its own", source.kind.map_or("source", |kind| kind.name))),
        );
    }
}

fn unknown(dag: &Dag<'_>, stage: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let feeds = if stage.inputs.is_empty() { dag.stages.values().collect() } else { dag.upstream(stage.name) };
    let known: Vec<&str> = feeds.into_iter().flat_map(sources_of).map(|(name, _)| name).collect();
    for source in stage.node.items("sources") {
        let Some(name) = source.as_text() else { continue };
        if !known.contains(&name) && !known.is_empty() {
            let message = format!("stage `{}` covers the source `{name}`, which no row comes from", stage.name);
            let error = Diagnostic::error("unknown-source", message).at(source.span.clone(), "no such source");
            findings.push(Diagnostic { help: suggestion(name, &known), ..error });
        }
    }
}

fn uncovered(dag: &Dag<'_>, sample: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    let judges = dag.stages.values().filter(|stage| stage.judges());
    let judges: Vec<&Stage<'_>> =
        judges.filter(|judge| dag.upstream(judge.name).iter().any(|stage| stage.name == sample.name)).collect();
    if judges.is_empty() {
        return;
    }
    // A source that no row comes from may mean one that seems uncovered.
    let known: Vec<&str> = dag.stages.values().flat_map(sources_of).map(|(name, _)| name).collect();
    let named =
        |judge: &Stage<'_>| judge.node.items("sources").iter().filter_map(Node::as_text).all(|it| known.contains(&it));
    if !judges.iter().all(|judge| named(judge)) {
        return;
    }
    let covers = |judge: &Stage<'_>, source: &str| match judge.node.get("sources") {
        Some(sources) => sources.as_array().is_some_and(|it| it.iter().any(|name| name.as_text() == Some(source))),
        None => true,
    };
    for (source, span) in dag.upstream(sample.name).into_iter().flat_map(sources_of) {
        if !judges.iter().any(|judge| covers(judge, source)) {
            let message = format!("no verify or judge stage covers the rows of source `{source}`");
            let error =
                Diagnostic::error("uncovered-source", message).at(span.clone(), "its completions would go unjudged");
            let named = judges.iter().filter_map(|judge| judge.node.get("sources"));
            let error = named.fold(error, |error, node| error.label(node.span.clone(), "does not name it"));
            findings.push(error.help(format!("add \"{source}\" to the `sources` of one")));
        }
    }
}

/// A whole conversation leaves nothing to answer.
fn asks(columns: &Node, who: &str, findings: &mut Vec<Diagnostic>) {
    for (key, span) in ["conversation", "text"].iter().filter_map(|key| Some((key, columns.key_span(key)?))) {
        let error = Diagnostic::error("nothing-asked", format!("{who} samples answers to rows that ask nothing"));
        let error = error.at(span.clone(), format!("a {key} is learned as it is"));
        findings.push(error.help("name the column of the question: `prompt = \"COLUMN\"`"));
    }
}

/// Supervised fine-tuning straight from a dataset imitates a column.
fn responses(dag: &Dag<'_>, sft: &Stage<'_>, findings: &mut Vec<Diagnostic>) {
    for (input, _) in &sft.inputs {
        let Some(dataset) = dag.stages.get(input).filter(|stage| stage.is("dataset")) else { continue };
        for columns in dataset.node.items("sources").iter().filter_map(|source| source.get("columns")) {
            let whole = ["response", "conversation", "text"].iter().any(|key| columns.get(key).is_some());
            if columns.as_table().is_some() && !whole {
                let message = format!("stage `{}` has no text to imitate", sft.name);
                let error = Diagnostic::error("missing-response", message);
                let error = error.at(columns.span.clone(), "names no `response` column");
                findings
                    .push(error.help("add `response = \"COLUMN\"`").label(sft.key.clone(), "learns from these rows"));
            }
        }
    }
}
