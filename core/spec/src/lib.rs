//! Reads pipeline files and plugin folders' `plugin.toml`: TOML text to typed documents and to findings that know their place.
//!
//! This crate knows the shape of a stage, never how it runs. It must never touch a plugin, a GPU, a clock or a dataset:
//! the only files that it reads are the pipeline file and those that a recipe's phases name. It never stops at the first
//! thing wrong: whatever can be said about a file is said in one pass.

mod check;
mod fields;
mod files;
mod lower;
mod manifest;
mod overrides;
mod presets;
mod recipe;
mod rules;
mod schema;
mod suggest;
mod tree;
mod types;

use std::ops::Range;
use std::path::Path;

use base::{Diagnostic, Span};

pub use check::bytes_from_text;
pub use files::{Files, SET};
pub use manifest::load as manifest;
pub use schema::schema;
pub use types::*;

use overrides::Override;
use tree::Node;

/// Reads a pipeline or a recipe, with `overrides` of the form `a.b=c` applied before anything is checked.
///
/// The value of an override is TOML, or else the text as it stands. Its path leads through tables by key and through
/// lists by number or by the `name` of the element. In a recipe `run.dir=DIR` is the recipe's own, and
/// `phases.NAME.run.steps=5` reaches into the file of the phase `NAME`.
///
/// The document is `None` exactly if there is an error among the findings. They are sorted by file, in the order of
/// reading, and by place. `files` keeps the texts that their spans point into. A path in a file is relative to the folder
/// of that file, a path in an override to the working folder, and so is the default of `run.dir`.
pub fn load(path: &Path, overrides: &[String], files: &mut Files) -> (Option<Document>, Vec<Diagnostic>) {
    let mut findings = Vec::new();
    let document = read(path, overrides, files, &mut findings);
    conclude(document, findings, files)
}

/// What was read and the findings in the order of their places, each once.
fn conclude<T>(document: Option<T>, findings: Vec<Diagnostic>, files: &Files) -> (Option<T>, Vec<Diagnostic>) {
    let mut unique: Vec<Diagnostic> = Vec::new();
    // Two phases may run one file.
    for finding in findings {
        if !unique.contains(&finding) {
            unique.push(finding);
        }
    }
    unique.sort_by_key(|finding| {
        let place = finding.place.as_ref().map(|(span, _)| (files.position(&span.file), span.start, span.end));
        (place, finding.code, finding.message.clone())
    });
    let sound = !unique.iter().any(Diagnostic::is_error);
    if sound && document.is_none() {
        let message = "the file passed every check but could not be typed; this is a defect of the tool";
        unique.push(Diagnostic::error("internal", message));
    }
    (document.filter(|_| sound), unique)
}

fn read(path: &Path, overrides: &[String], files: &mut Files, findings: &mut Vec<Diagnostic>) -> Option<Document> {
    let text = text_of(path, files, findings)?;
    let (changes, set) = overrides::read(overrides, findings);
    if !set.is_empty() {
        files.insert(SET.into(), set);
    }
    let root = read_pipeline(path, &text, &changes, findings)?;
    if root.get("phases").is_some() {
        return recipe::read(&root, files, findings).map(Document::Recipe);
    }
    if findings.iter().any(Diagnostic::is_error) {
        return None;
    }
    let mut root = root;
    lower::fill_defaults(&mut root, &fields::PIPELINE);
    lower::pipeline(&root).map(|pipeline| Document::Pipeline(Box::new(pipeline)))
}

/// The text of a file, or a finding.
fn text_of(path: &Path, files: &mut Files, findings: &mut Vec<Diagnostic>) -> Option<String> {
    files
        .read(path)
        .map_err(|reason| {
            let message = format!("can't read `{}`: {reason}", path.display());
            findings.push(Diagnostic::error("unreadable-file", message));
        })
        .ok()
}

/// The tree of one file with changes applied, checked as far as one file can be; a recipe's phases are not looked into.
fn read_pipeline(path: &Path, text: &str, changes: &[Override], findings: &mut Vec<Diagnostic>) -> Option<Node> {
    let tree::Parsed { mut root, errors, muted, broken } = tree::parse(path, text);
    findings.extend(errors);
    let mut own = Vec::new();
    overrides::apply(&mut root, changes, broken, &mut own);
    let is_recipe = root.get("phases").is_some();
    let fields = if is_recipe { &fields::RECIPE } else { &fields::PIPELINE };
    check::Check { broken, findings: &mut own }.table(&root, fields, "");
    if !is_recipe && !broken {
        rules::check(&root, &mut own);
    }
    findings.extend(unmuted(own, path, &muted));
    (!broken).then_some(root)
}

/// Findings without those in parts of a text that were recovered by guessing: they deserve no further words.
fn unmuted<'a>(
    findings: Vec<Diagnostic>,
    path: &'a Path,
    muted: &'a [Range<usize>],
) -> impl Iterator<Item = Diagnostic> + 'a {
    let guessed = move |span: &Span| span.file == path && muted.iter().any(|muted| muted.contains(&span.start));
    findings.into_iter().filter(move |finding| !finding.place.as_ref().is_some_and(|(span, _)| guessed(span)))
}
