//! Overrides: `a.b=c` from the command line, and a phase's `set`.
//!
//! A path leads through tables by key, and through lists by number or by the `name` of the element:
//! `stages.prompts.sources.math.path=train.jsonl`. What stands at its end is replaced as a whole; what does not exist is
//! made, so that the check can say which key is unknown. Only a stage, model, plugin or evaluation is not made of parts.

use std::path::Path;

use base::{Diagnostic, Span};

use crate::fields::{Fields, Kind, PHASE, PIPELINE, RECIPE};
use crate::files::SET;
use crate::suggest::{list, nearest, suggestion};
use crate::tree::{Entry, MOST_LEVELS, Node, Value, parse_value};

/// One override.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    /// The keys and their places.
    path: Vec<(String, Span)>,
    /// What goes there.
    value: Node,
}

impl Override {
    /// The place at which this sets what a path leads to, alone or in a table.
    pub(crate) fn sets(&self, path: &[&str]) -> Option<Span> {
        let same = self.path.iter().zip(path).all(|((key, _), other)| key == other);
        if !same || self.path.len() > path.len() {
            return None;
        }
        let (mut node, mut place) = (&self.value, self.path.last()?.1.clone());
        for key in &path[self.path.len()..] {
            place = node.key_span(key)?.clone();
            node = node.get(key)?;
        }
        Some(place)
    }
}

/// Reads the overrides of the command line; the text is what spans of the file [`SET`] point into.
pub(crate) fn read(arguments: &[String], findings: &mut Vec<Diagnostic>) -> (Vec<Override>, String) {
    let (mut overrides, mut text) = (Vec::new(), String::new());
    for argument in arguments {
        let start = text.len();
        text.push_str(argument);
        text.push('\n');
        let Some((path, value)) = argument.split_once('=') else {
            let error = Diagnostic::error("bad-override", format!("`{argument}` sets nothing"));
            let error = error.at(Span::new(SET, start..start + argument.len()), "has no `=`");
            findings.push(error.help("write `--set run.steps=10`"));
            continue;
        };
        let path = split(path, start);
        let problem = match path.len() {
            _ if path.iter().any(|(key, _)| key.is_empty()) => "has an empty key",
            MOST_LEVELS.. => "has too many keys",
            _ => "",
        };
        if !problem.is_empty() {
            let error = Diagnostic::error("bad-override", "an override leads nowhere");
            let error = error.at(Span::new(SET, start..start + argument.len()), problem);
            findings.push(error.help("write `--set run.steps=10`"));
            continue;
        }
        let at = start + argument.len() - value.len();
        overrides.push(Override { path, value: value_from(value, at) });
    }
    (overrides, text)
}

fn split(path: &str, start: usize) -> Vec<(String, Span)> {
    let mut at = start;
    let mut keys = Vec::new();
    for part in path.split('.') {
        let key = part.trim();
        let from = at + (part.len() - part.trim_start().len());
        keys.push((key.to_owned(), Span::new(SET, from..from + key.len())));
        at += part.len() + 1;
    }
    keys
}

/// TOML where it is TOML, else the text as it stands: paths need no quotes within a shell's.
fn value_from(text: &str, at: usize) -> Node {
    match parse_value(Path::new(SET), text.trim_start(), at + text.len() - text.trim_start().len()) {
        Some(Node { value: Value::Datetime(_), .. }) | None => {
            Node { value: Value::Text(text.to_owned()), span: Span::new(SET, at..at + text.len()) }
        }
        Some(node) => node,
    }
}

/// The overrides of a phase's `set`: keys with dots in quotes, or TOML's own dotted keys.
pub(crate) fn of_set(set: &Node) -> Vec<Override> {
    let mut overrides = Vec::new();
    for (key, entry) in set.as_table().into_iter().flatten() {
        // A key with more dots is left whole: no table takes it.
        let parts = key.splitn(MOST_LEVELS, '.');
        let path: Vec<_> = parts.map(|part| (part.to_owned(), entry.key.clone())).collect();
        flatten(path, entry, &mut overrides);
    }
    overrides
}

/// A table that dotted keys made has no place of its own: the parser and [`put`] give it that of its key.
fn flatten(path: Vec<(String, Span)>, entry: &Entry, overrides: &mut Vec<Override>) {
    match entry.node.as_table() {
        Some(table) if entry.node.span == entry.key => {
            for (key, below) in table {
                let mut path = path.clone();
                path.push((key.clone(), below.key.clone()));
                flatten(path, below, overrides);
            }
        }
        _ => overrides.push(Override { path, value: entry.node.clone() }),
    }
}

/// Applies overrides to a document in order; `broken`: tables of it may be lost.
pub(crate) fn apply(root: &mut Node, overrides: &[Override], broken: bool, findings: &mut Vec<Diagnostic>) {
    let is_recipe = root.get("phases").is_some();
    for change in overrides {
        let astray = if is_recipe { of_a_phase(root, &change.path) } else { of_no_part(root, &change.path) };
        if let Some(error) = astray {
            findings.extend(Some(error).filter(|_| !broken));
            continue;
        }
        match change.path.as_slice() {
            [phases, phase, key, ..] if is_recipe && phases.0 == "phases" && PHASE.field(&key.0).is_none() => {
                let below = &change.path[2..];
                let dotted = dotted(below);
                let span = Span { start: below[0].1.start, ..below[below.len() - 1].1.clone() };
                let path = [phases.clone(), phase.clone(), ("set".to_owned(), span.clone()), (dotted, span)];
                put(root, &path, &change.value, findings);
            }
            path => put(root, path, &change.value, findings),
        }
    }
}

/// What is wrong with a path into a recipe that means a key of its phases' files.
fn of_a_phase(root: &Node, path: &[(String, Span)]) -> Option<Diagnostic> {
    let ((first, start), (_, end)) = (path.first()?, path.last()?);
    let takes = |fields: &'static Fields| match (&fields.field(first)?.kind, path.get(1)) {
        (Kind::Table(below), Some((key, _))) => below.field(key).map(|_| ()),
        _ => Some(()),
    };
    if takes(&RECIPE).is_some() || takes(&PIPELINE).is_none() {
        return None;
    }
    let dotted = dotted(path);
    let error = Diagnostic::error("bad-override", format!("`{dotted}` belongs to a phase, not to the recipe"));
    let error = error.at(Span { end: end.end, ..start.clone() }, "says no phase");
    let names: Vec<&str> = root.items("phases").iter().filter_map(|phase| phase.text("name")).collect();
    let help = format!("write `--set phases.NAME.{dotted}=...`");
    Some(error.help(if names.is_empty() { help } else { format!("{help}; the phases are {}", list(&names)) }))
}

/// What is wrong with a path into a pipeline that leads through something that it has none of.
fn of_no_part(root: &Node, path: &[(String, Span)]) -> Option<Diagnostic> {
    let ((first, span), below) = path.split_first()?;
    if first == "phases" {
        let error = Diagnostic::error("bad-override", format!("`{}` has no phases", root.span.file.display()));
        let error = error.at(span.clone(), "not a recipe");
        let rest = dotted(below.get(1..).unwrap_or_default());
        return Some(if rest.is_empty() { error } else { error.help(format!("leave the phase out: `{rest}=...`")) });
    }
    let Kind::Map(_, _) = PIPELINE.field(first)?.kind else { return None };
    let [(name, span), _, ..] = below else { return None };
    let what = first.strip_suffix('s')?;
    let names: Vec<&str> = match root.get(first) {
        Some(defined) => defined.as_table()?.keys().map(String::as_str).collect(),
        None => Vec::new(),
    };
    if names.contains(&name.as_str()) {
        return None;
    }
    let help = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("a new one is given as a whole: `{first}.{name}={{ ... }}`"),
        None => format!("defined are {}; a new one is given as a whole: `{first}.{name}={{ ... }}`", list(&names)),
    };
    let error = Diagnostic::error("bad-override", format!("there is no {what} `{name}`"));
    Some(error.at(span.clone(), format!("no such {what}")).help(help))
}

fn dotted(path: &[(String, Span)]) -> String {
    path.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(".")
}

fn put(node: &mut Node, path: &[(String, Span)], value: &Node, findings: &mut Vec<Diagnostic>) {
    let Some(((key, span), below)) = path.split_first() else {
        *node = value.clone();
        return;
    };
    let (kind, at) = (node.kind(), node.span.clone());
    match &mut node.value {
        Value::Table(table) => {
            let entry = table.entry(key.clone());
            let entry = entry.or_insert_with(|| Entry { key: span.clone(), node: Node::table_at(span.clone()) });
            put(&mut entry.node, below, value, findings);
        }
        Value::Array(items) => {
            let names: Vec<String> = items.iter().filter_map(|item| Some(item.text("name")?.to_owned())).collect();
            let index = key.parse().ok().or_else(|| items.iter().position(|item| item.text("name") == Some(key)));
            match index.and_then(|index: usize| items.get_mut(index)) {
                Some(item) => put(item, below, value, findings),
                None => {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let error = Diagnostic::error("bad-override", format!("the list has no element `{key}`"));
                    let error = error.at(span.clone(), "no such element");
                    findings.push(Diagnostic { help: suggestion(key, &names), ..error });
                }
            }
        }
        _ => {
            let error = Diagnostic::error("bad-override", format!("there is no `{key}` to set in {kind}"));
            findings.push(error.at(span.clone(), "leads nowhere").label(at, format!("is {kind}")));
        }
    }
}
