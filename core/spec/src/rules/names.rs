//! Names: what stages and evaluations name exists, what exists is named, and plugins have their limits.

use base::{Diagnostic, Span};

use super::{Dag, table};
use crate::fields::{Fields, Kind};
use crate::suggest::{list, nearest};
use crate::tree::Node;

pub(super) fn check(dag: &Dag<'_>, findings: &mut Vec<Diagnostic>) {
    let mut used = Vec::new();
    for stage in dag.stages.values() {
        if let Some(kind) = stage.kind {
            references(dag, stage.node, kind.fields, &format!("stage `{}`", stage.name), &mut used, findings);
        }
    }
    if let Some(fields) = crate::fields::PIPELINE.field("evaluations")
        && let Kind::Map(_, Kind::Table(fields)) = &fields.kind
    {
        for (name, entry) in table(dag.root, "evaluations") {
            references(dag, &entry.node, fields, &format!("evaluation `{name}`"), &mut used, findings);
        }
    }
    for what in ["model", "plugin"] {
        let defined = table(dag.root, &format!("{what}s"));
        // A name that leads nowhere may mean what seems unused.
        if used.iter().any(|(of, name)| *of == what && !defined.contains_key(*name)) {
            continue;
        }
        for (name, entry) in defined {
            if !used.contains(&(what, name.as_str())) {
                let warning = Diagnostic::warning(unused_code(what), format!("the {what} `{name}` is never used"));
                findings.push(warning.at(entry.key.clone(), "no stage or evaluation names it"));
            }
        }
    }
    for (name, entry) in table(dag.root, "plugins") {
        limits(name, &entry.key, &entry.node, findings);
    }
}

fn unused_code(what: &str) -> &'static str {
    if what == "model" { "unused-model" } else { "unused-plugin" }
}

/// Looks up each reference in a table, and notes what it names.
fn references<'a>(
    dag: &Dag<'a>,
    node: &'a Node,
    fields: &Fields,
    who: &str,
    used: &mut Vec<(&'static str, &'a str)>,
    findings: &mut Vec<Diagnostic>,
) {
    for field in fields.fields {
        let what = match &field.kind {
            Kind::Reference(what) => *what,
            Kind::List(Kind::Reference(what), _) | Kind::OneOrMore(Kind::Reference(what)) => *what,
            Kind::Table(fields) => {
                if let Some(below) = node.get(field.name) {
                    references(dag, below, fields, who, used, findings);
                }
                continue;
            }
            _ => continue,
        };
        for item in node.items(field.name) {
            let Some(name) = item.as_text() else { continue };
            used.push((what, name));
            let defined = table(dag.root, &format!("{what}s"));
            if !defined.contains_key(name) {
                let names: Vec<&str> = defined.keys().map(String::as_str).collect();
                let message = match field.name {
                    "inputs" => format!("{who} takes its input from `{name}`, which does not exist"),
                    _ => format!("{who} names the {what} `{name}`, which does not exist"),
                };
                let (code, label) = match what {
                    "model" => ("unknown-model", "no such model"),
                    "plugin" => ("unknown-plugin", "no such plugin"),
                    _ => ("unknown-stage", "no such stage"),
                };
                let help = match nearest(name, names.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None if names.is_empty() => format!("define it: add a table `[{what}s.{name}]`"),
                    None => format!("defined are {}; or add a table `[{what}s.{name}]`", list(&names)),
                };
                findings.push(Diagnostic::error(code, message).at(item.span.clone(), label).help(help));
            }
        }
    }
}

/// Foreign code has a budget: components fuel and memory, scripts operations.
pub(crate) fn limits(name: &str, key: &Span, plugin: &Node, findings: &mut Vec<Diagnostic>) {
    let script = match (plugin.get("builtin"), plugin.get("rhai"), plugin.get("wasm")) {
        (Some(_), None, None) => return builtin_limits(name, key, plugin, findings),
        (None, Some(_), None) => true,
        (None, None, Some(_)) => false,
        _ => return,
    };
    if script {
        script_grants(name, plugin, findings);
    }
    let (what, needs, others): (_, &[&str], &[&str]) = if script {
        ("a Rhai script", &["operations"], &["fuel", "memory"])
    } else {
        ("a WebAssembly component", &["fuel", "memory"], &["operations"])
    };
    let given = plugin.get("limits");
    let missing: Vec<&str> =
        needs.iter().copied().filter(|need| given.is_none_or(|limits| limits.get(need).is_none())).collect();
    if !missing.is_empty() && given.is_none_or(|limits| limits.as_table().is_some()) {
        let error =
            Diagnostic::error("missing-limits", format!("the plugin `{name}` has no limit on {}", list(&missing)));
        let (place, label) = match given {
            Some(limits) => (limits.span.clone(), format!("{} is missing", list(&missing))),
            None => (key.clone(), "has no `limits`".to_owned()),
        };
        let example = if script { SCRIPT_LIMITS } else { COMPONENT_LIMITS };
        findings.push(error.at(place, label).help(format!("{what} needs such as `{example}`")));
    }
    for other in others {
        if let Some(span) = given.and_then(|limits| limits.key_span(other)) {
            let error = Diagnostic::error("wrong-limit", format!("`{other}` does not limit {what}"));
            let error = error.at(span.clone(), format!("`{name}` is {what}"));
            findings.push(error.help(format!("its limits are {}", list(needs))));
        }
    }
}

/// Only components can use what is granted.
fn script_grants(name: &str, plugin: &Node, findings: &mut Vec<Diagnostic>) {
    for (grant, entry) in plugin.get("grants").and_then(Node::as_table).into_iter().flatten() {
        let error = Diagnostic::error("wrong-grant", format!("the script `{name}` can't use the grant `{grant}`"));
        let error = error.at(entry.key.clone(), format!("`{name}` is a Rhai script"));
        findings.push(error.help("remove it; what reads files or runs programs is a component"));
    }
}

const SCRIPT_LIMITS: &str = "limits = { operations = 50_000 }";
const COMPONENT_LIMITS: &str = "limits = { fuel = 20_000_000, memory = \"64 MiB\" }";

/// Which builtins there are, and which of them are scripts, only their host knows; some budget each of them has.
fn builtin_limits(name: &str, key: &Span, plugin: &Node, findings: &mut Vec<Diagnostic>) {
    let limits = plugin.get("limits");
    if limits.is_some_and(|limits| limits.as_table().is_none()) {
        return;
    }
    let has = |limit: &str| limits.is_some_and(|limits| limits.get(limit).is_some());
    if has("operations") || (has("fuel") && has("memory")) {
        return;
    }
    let (missing, label) = match (has("fuel"), has("memory")) {
        (true, _) => ("has no limit on `memory`", "`memory` is missing"),
        (_, true) => ("has no limit on `fuel`", "`fuel` is missing"),
        _ => ("has no limit on what it computes", "`fuel` and `memory` are missing, or `operations`"),
    };
    let (place, label) = limits.map_or((key, "has no `limits`"), |limits| (&limits.span, label));
    let error = Diagnostic::error("missing-limits", format!("the plugin `{name}` {missing}")).at(place.clone(), label);
    let help = format!("a builtin that is a component needs such as `{COMPONENT_LIMITS}`, a script `{SCRIPT_LIMITS}`");
    findings.push(error.help(help));
}
