//! `plugin.toml`: what a plugin's folder says about its code, and the tests of what it must answer.

mod expect;
mod input;

use std::path::Path;

use base::{Context, Diagnostic};

use crate::check::{Check, join};
use crate::fields::{self, MANIFEST};
use crate::files::Files;
use crate::lower;
use crate::rules::names;
use crate::tree::{self, Node};
use crate::types::{Build, Case, Expect, Input, Manifest, Strings};

/// Reads a `plugin.toml`.
///
/// The manifest is `None` exactly if there is an error among the findings, which are sorted by place. A path in the file is
/// relative to its folder. The code is not looked at. A text that `files` holds under this name already is not read again.
pub fn load(path: &Path, files: &mut Files) -> (Option<Manifest>, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let manifest = read(path, files, &mut findings);
    crate::conclude(manifest, findings, files)
}

fn read(path: &Path, files: &mut Files, findings: &mut Vec<Diagnostic>) -> Option<Manifest> {
    let text = crate::text_of(path, files, findings)?;
    let tree::Parsed { mut root, errors, muted, broken } = tree::parse(path, &text);
    findings.extend(errors);
    let mut own = Vec::new();
    Check { broken, findings: &mut own }.table(&root, &MANIFEST, "");
    if let (Some(name), false) = (root.get("name"), broken) {
        names::limits(name.as_text().unwrap_or("it"), &name.span, &root, &mut own);
    }
    lower::fill_defaults(&mut root, &MANIFEST);
    let tests = root.items("tests").to_vec();
    let cases: Vec<Option<Case>> = tests
        .iter()
        .enumerate()
        .filter(|(_, node)| node.as_table().is_some())
        .map(|(index, node)| {
            let path = join("tests", node.text("name").unwrap_or(&index.to_string()));
            Reader { check: Check { broken, findings: &mut own } }.case(node, &path)
        })
        .collect();
    findings.extend(crate::unmuted(own, path, &muted));
    if broken || findings.iter().any(Diagnostic::is_error) {
        return None;
    }
    Some(Manifest {
        file: path.to_owned(),
        name: lower::string(&root, "name")?,
        plugin: lower::plugin(&root)?,
        build: match root.get("build") {
            Some(build) => Some(self::build(build)?),
            None => None,
        },
        tests: cases.into_iter().collect::<Option<_>>()?,
    })
}

fn build(node: &Node) -> Option<Build> {
    Some(Build {
        command: lower::string(node, "command"),
        module: node.get("module")?.path()?,
        strings: if node.text("strings")? == "utf16" { Strings::Utf16 } else { Strings::Utf8 },
    })
}

/// The side of a plugin that a test calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Verifier,
    Rewarder,
    Filterer,
    Generator,
}

impl Side {
    /// What the test says, or else what its input looks like.
    fn of(test: &Node) -> Self {
        let input = test.get("input");
        let has = |key| input.is_some_and(|input| input.get(key).is_some());
        match test.text("world") {
            Some("verifier") => Self::Verifier,
            Some("rewarder") => Self::Rewarder,
            Some("filterer") => Self::Filterer,
            Some("generator") => Self::Generator,
            _ if input.is_some_and(|input| input.as_array().is_some()) => Self::Filterer,
            _ if has("judgements") => Self::Rewarder,
            _ if !has("completions") && (has("count") || has("first")) => Self::Generator,
            _ => Self::Verifier,
        }
    }
}

/// Reads the parts of a test whose shape depends on the side that is called. Each function gives `None` after a finding.
struct Reader<'a> {
    check: Check<'a>,
}

impl Reader<'_> {
    fn case(&mut self, node: &Node, path: &str) -> Option<Case> {
        let side = Side::of(node);
        let expect = node.get("expect").and_then(|expect| self.expect(expect, side, &join(path, "expect")));
        let refused = node.get("expect").is_some_and(|expect| expect.get("refused").is_some());
        let input = match node.get("input") {
            _ if refused => Some(Input::Nothing),
            Some(input) => self.input(input, side, &join(path, "input")),
            None => {
                if !self.check.broken {
                    self.say(node, "missing-key", &format!("`{path}` has no `input`"), "`input` is missing");
                }
                None
            }
        };
        let (input, expect) = (input?, expect?);
        self.counts(node, &input, &expect);
        let context = node.get("context")?;
        Some(Case {
            name: lower::string(node, "name")?,
            config: lower::json(node.get("config")?),
            context: Context {
                step: lower::natural(context, "step")?,
                seed: lower::natural(context, "seed")?,
                max_tokens: u32::try_from(lower::natural(context, "max_tokens")?).ok()?,
                evaluating: context.get("evaluating")?.as_boolean()?,
            },
            input,
            expect,
            tolerance: lower::number(node, "tolerance")?,
            span: node.get("name")?.span.clone(),
        })
    }

    /// What is expected is as long as what is given.
    fn counts(&mut self, node: &Node, input: &Input, expect: &Expect) {
        let (given, thing) = match input {
            Input::Verify(group) | Input::Reward(group) => (group.completions.len(), "completion"),
            Input::Filter(groups) => (groups.len(), "group"),
            Input::Generate { count, .. } => (*count as usize, "row"),
            Input::Nothing => return,
        };
        let expected = match expect {
            Expect::Verdicts(list) => list.len(),
            Expect::Rewards(list) => list.len(),
            Expect::Decisions(list) => list.len(),
            Expect::Rows(list) => list.len(),
            Expect::Failed(_) | Expect::Refused(_) => return,
        };
        let place = node.get("expect").unwrap_or(node);
        if expected != given {
            return self.mismatch(place, "`expect`", counted(expected, "answer"), counted(given, thing), thing);
        }
        if let (Input::Filter(groups), Expect::Decisions(lists)) = (input, expect) {
            for (index, (group, list)) in groups.iter().zip(lists).enumerate() {
                if group.completions.len() != list.len() {
                    let (got, of) = (list.len(), group.completions.len());
                    let place = place.as_array().and_then(|lists| lists.get(index)).unwrap_or(place);
                    let (got, of) = (counted(got, "decision"), counted(of, "completion"));
                    self.mismatch(place, &format!("`expect` of group {index}"), got, of, "completion");
                }
            }
        }
    }

    /// A list that is longer or shorter than what it is about.
    fn mismatch(&mut self, node: &Node, what: &str, got: String, of: String, thing: &str) {
        self.say(node, "count-mismatch", &format!("{what} has {got} for {of}"), &format!("one for each {thing}"));
    }

    /// A finding about a value.
    fn say(&mut self, node: &Node, code: &'static str, message: &str, label: &str) {
        self.check.findings.push(Diagnostic::error(code, message).at(node.span.clone(), label));
    }

    /// A string, empty or not.
    fn text<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        if node.as_text().is_none() {
            self.check.wrong_type(node, path, "a string");
        }
        node.as_text()
    }

    fn list<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Node]> {
        if node.as_array().is_none() {
            self.check.wrong_type(node, path, "a list");
        }
        node.as_array()
    }

    /// The elements of a list, each read; `None` if one of them is wrong, after all were read.
    fn each<T>(
        &mut self,
        node: &Node,
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.list(node, path)?;
        let read: Vec<Option<T>> =
            items.iter().enumerate().map(|(i, item)| read(self, item, &join(path, &i.to_string()))).collect();
        read.into_iter().collect()
    }

    fn table(&mut self, node: &Node, fields: &'static fields::Fields, path: &str) -> Option<()> {
        let before = self.check.findings.len();
        self.check.table(node, fields, path);
        (self.check.findings.len() == before).then_some(())
    }

    fn finite(&mut self, node: &Node, path: &str) -> Option<f64> {
        match node.as_number() {
            Some(number) if number.is_finite() => return Some(number),
            Some(_) => self.check.range(node, path, "finite"),
            None => self.check.wrong_type(node, path, "a number"),
        }
        None
    }
}

/// "1 answer", "2 answers".
fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// The members of a table in the form in which plugins are given columns: what is no string is compact JSON.
fn columns(node: Option<&Node>) -> Vec<(String, String)> {
    let members = node.and_then(Node::as_table).into_iter().flatten();
    let column = |(name, entry): (&String, &tree::Entry)| {
        let value = match lower::json(&entry.node) {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        (name.clone(), value)
    };
    members.map(column).collect()
}
