//! Recipes: the phases, their files, and what each takes over from those before it.

use std::path::Path;

use base::Diagnostic;
use indexmap::IndexMap;

use crate::files::{Files, SET};
use crate::rules::{Dag, gates};
use crate::suggest::{list, nearest};
use crate::tree::Node;
use crate::types::{Origin, Phase, Recipe};
use crate::{lower, overrides, read_pipeline};

/// A phase before it is typed.
struct Part {
    name: String,
    root: Option<Node>,
}

/// Reads the files of a recipe's phases and types the whole, if nothing is wrong anywhere.
pub(crate) fn read(root: &Node, files: &mut Files, findings: &mut Vec<Diagnostic>) -> Option<Recipe> {
    let mut parts: Vec<Part> = Vec::new();
    let phases = root.get("phases").and_then(Node::as_array).unwrap_or_default();
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase.text("name")).collect();
    for phase in phases {
        let name = phase.text("name").unwrap_or_default().to_owned();
        let pipeline = phase.get("pipeline").and_then(|at| phase_file(at, phase, files, findings));
        taken_over(root, phase, findings);
        if let Some(pipeline) = &pipeline {
            init(phase, pipeline, &parts, &names, findings);
            models(phase, pipeline, &parts, &names, findings);
            data(phase, pipeline, &parts, &names, findings);
        }
        parts.push(Part { name, root: pipeline });
    }
    let phase_of = |name: &str| parts.iter().find(|part| part.name == name);
    gates::check_recipe(root, &names, |name| phase_of(name).and_then(|part| part.root.as_ref()), findings);
    if findings.iter().any(Diagnostic::is_error) {
        return None;
    }
    typed(root, phases, parts)
}

/// The tree of a phase's file with its `set` applied.
fn phase_file(at: &Node, phase: &Node, files: &mut Files, findings: &mut Vec<Diagnostic>) -> Option<Node> {
    let path = at.path()?;
    let text = match files.read(&path) {
        Ok(text) => text,
        Err(reason) => {
            let error = Diagnostic::error("unreadable-file", format!("can't read `{}`: {reason}", path.display()));
            findings.push(error.at(at.span.clone(), "names this file"));
            return None;
        }
    };
    let changes = phase.get("set").map(overrides::of_set).unwrap_or_default();
    let root = read_pipeline(&path, &text, &changes, findings)?;
    if root.get("phases").is_some() {
        let error = Diagnostic::error("nested-recipe", format!("`{}` is a recipe itself", path.display()));
        findings.push(error.at(at.span.clone(), "must be a pipeline").help("name its phases here instead"));
        return None;
    }
    Some(root)
}

/// What a phase sets though the recipe's own replaces it. A phase's file may say it: the file also runs alone.
fn taken_over(root: &Node, phase: &Node, findings: &mut Vec<Diagnostic>) {
    let set = phase.get("set").map(overrides::of_set).unwrap_or_default();
    for path in [&["seed"][..], &["run", "dir"], &["run", "threads"]] {
        let own = path.iter().try_fold((root, None), |(node, _), key| Some((node.get(key)?, node.key_span(key))));
        for place in set.iter().filter_map(|change| change.sets(path)) {
            let own = own.and_then(|(_, key)| key);
            // Without threads of the recipe the phase's count, and the command line may overrule both.
            if path == ["run", "threads"] && own.is_none_or(|own| own.file == Path::new(SET) && place.file != own.file)
            {
                continue;
            }
            let path = path.join(".");
            let error = Diagnostic::error("set-without-effect", format!("a phase can't set `{path}`"));
            let error = error.at(place, "has no effect");
            let error = own.into_iter().fold(error, |error, own| error.label(own.clone(), "replaces it"));
            findings.push(error.help(format!("set the recipe's own `{path}`, in its file or by `--set {path}=...`")));
        }
    }
}

/// The model that a pipeline trains, or all of its models if it trains none.
fn learners(root: &Node) -> Vec<String> {
    let dag = Dag::new(root);
    // That a pipeline trains a second model is reported as such.
    let trained = dag.stages.values().filter(|stage| stage.learns()).find_map(|stage| stage.node.text("model"));
    if let Some(trained) = trained {
        return vec![trained.to_owned()];
    }
    let models = root.get("models").and_then(Node::as_table);
    models.map(|models| models.keys().cloned().collect()).unwrap_or_default()
}

fn learns(root: &Node) -> bool {
    Dag::new(root).stages.values().any(|stage| stage.learns())
}

/// An earlier phase that a value names, or a finding that says why there is none.
fn earlier<'p>(node: &Node, parts: &'p [Part], names: &[&str], findings: &mut Vec<Diagnostic>) -> Option<&'p Part> {
    let name = node.as_text()?.strip_prefix("phase:")?;
    if let Some(part) = parts.iter().find(|part| part.name == name) {
        return Some(part);
    }
    let error = if names.contains(&name) {
        let error = Diagnostic::error("unknown-phase", format!("the phase `{name}` does not come before this one"));
        error.at(node.span.clone(), "has not run yet").help("a phase takes over from phases above it")
    } else {
        let before: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let error = Diagnostic::error("unknown-phase", format!("there is no phase `{name}`"));
        let help = match nearest(name, before.iter().copied()) {
            Some(near) => Some(format!("did you mean `phase:{near}`?")),
            None if before.is_empty() => None,
            None => Some(format!("phases before this one: {}", list(&before))),
        };
        Diagnostic { help, ..error.at(node.span.clone(), "no such phase") }
    };
    findings.push(error);
    None
}

fn init(phase: &Node, pipeline: &Node, parts: &[Part], names: &[&str], findings: &mut Vec<Diagnostic>) {
    let Some(node) = phase.get("init") else { return };
    let learners = learners(pipeline);
    if learners.len() != 1 {
        let message = match learners.as_slice() {
            [] => "the phase has no model whose weights `init` could give".to_owned(),
            several => format!("`init` gives the weights of one model, but the phase has {}", list(several)),
        };
        findings.push(Diagnostic::error("bad-init", message).at(node.span.clone(), "for which model?"));
    }
    learned(node, parts, names, findings);
}

/// The phase that a value names has a model to give.
fn learned(node: &Node, parts: &[Part], names: &[&str], findings: &mut Vec<Diagnostic>) {
    if let Some(Part { name, root: Some(root) }) = earlier(node, parts, names, findings)
        && !learns(root)
    {
        let error = Diagnostic::error("nothing-learned", format!("the phase `{name}` learns nothing"));
        findings.push(error.at(node.span.clone(), "has no model to give"));
    }
}

fn models(phase: &Node, pipeline: &Node, parts: &[Part], names: &[&str], findings: &mut Vec<Diagnostic>) {
    let known: Vec<&str> =
        pipeline.get("models").and_then(Node::as_table).into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    for (model, entry) in phase.get("models").and_then(Node::as_table).into_iter().flatten() {
        if !known.contains(&model.as_str()) {
            let error = Diagnostic::error("unknown-model", format!("the phase has no model `{model}`"));
            let error = error.at(entry.key.clone(), "no such model");
            findings.push(Diagnostic { help: crate::suggest::suggestion(model, &known), ..error });
        }
        if let Some(init) = phase.key_span("init")
            && learners(pipeline) == [model.clone()]
        {
            let error = Diagnostic::error("conflicting-keys", format!("two places say where `{model}` comes from"));
            let error = error.at(entry.key.clone(), "here").label(init.clone(), "and here");
            findings.push(error.help("keep `init` for the model that learns"));
        }
        learned(&entry.node, parts, names, findings);
    }
}

fn data(phase: &Node, pipeline: &Node, parts: &[Part], names: &[&str], findings: &mut Vec<Diagnostic>) {
    let dag = Dag::new(pipeline);
    let datasets: Vec<&str> = dag.stages.values().filter(|stage| stage.is("dataset")).map(|stage| stage.name).collect();
    for (stage, entry) in phase.get("data").and_then(Node::as_table).into_iter().flatten() {
        let (stage, source) = match stage.split_once('.') {
            Some((stage, source)) => (stage, Some(source)),
            None => (stage.as_str(), None),
        };
        if !datasets.contains(&stage) {
            let error = Diagnostic::error("unknown-stage", format!("the phase has no dataset stage `{stage}`"));
            let error = error.at(entry.key.clone(), "no such dataset stage");
            findings.push(Diagnostic { help: crate::suggest::suggestion(stage, &datasets), ..error });
        }
        if let Some(stage) = dag.stages.get(stage).filter(|stage| stage.is("dataset")) {
            let sources = stage.node.items("sources");
            let names: Vec<&str> = sources.iter().filter_map(|source| source.text("name")).collect();
            match source {
                None if sources.len() > 1 => {
                    let message = format!("the dataset stage `{}` has several sources", stage.name);
                    let error = Diagnostic::error("bad-data", message).at(entry.node.span.clone(), "for which source?");
                    let first = names.first().copied().unwrap_or("NAME");
                    findings.push(error.help(format!("name one: `data = {{ \"{}.{first}\" = ... }}`", stage.name)));
                }
                Some(source) if !names.contains(&source) => {
                    let message = format!("the dataset stage `{}` has no source `{source}`", stage.name);
                    let error = Diagnostic::error("unknown-source", message).at(entry.key.clone(), "no such source");
                    findings.push(Diagnostic { help: crate::suggest::suggestion(source, &names), ..error });
                }
                _ => {}
            }
        }
        let Some(Part { name, root: Some(root) }) = earlier(&entry.node, parts, names, findings) else { continue };
        let collects = Dag::new(root).stages.values().filter(|stage| stage.is("collect")).count();
        if collects != 1 {
            let how_many = if collects == 0 { "nothing".to_owned() } else { format!("{collects} datasets") };
            let error = Diagnostic::error("nothing-collected", format!("the phase `{name}` collects {how_many}"));
            findings.push(error.at(entry.node.span.clone(), "must collect one dataset"));
        }
    }
}

fn typed(root: &Node, phases: &[Node], parts: Vec<Part>) -> Option<Recipe> {
    let mut root = root.clone();
    lower::fill_defaults(&mut root, &crate::fields::RECIPE);
    let seed = u64::try_from(root.get("seed")?.as_integer()?).ok()?;
    let run = root.get("run")?;
    let dir = run.get("dir")?.path()?;
    let threads = run.get("threads").and_then(Node::as_integer).and_then(|threads| usize::try_from(threads).ok());
    let mut typed = Vec::new();
    for (phase, part) in phases.iter().zip(parts) {
        let mut pipeline = part.root?;
        lower::fill_defaults(&mut pipeline, &crate::fields::PIPELINE);
        let mut pipeline = lower::pipeline(&pipeline)?;
        pipeline.seed = seed;
        pipeline.run.dir.clone_from(&dir);
        pipeline.run.threads = threads.or(pipeline.run.threads);
        let origins = |key: &str| -> Option<IndexMap<String, Origin>> {
            let table = phase.get(key).and_then(Node::as_table).into_iter().flatten();
            table.map(|(name, entry)| Some((name.clone(), lower::origin(&entry.node)?))).collect()
        };
        typed.push(Phase {
            name: part.name,
            pipeline,
            init: phase.get("init").and_then(lower::origin),
            models: origins("models")?,
            data: origins("data")?,
        });
    }
    let (name, gates) = (root.text("name")?.to_owned(), lower::gates(&root)?);
    Some(Recipe { file: root.span.file.clone(), name, seed, dir, phases: typed, gates })
}
