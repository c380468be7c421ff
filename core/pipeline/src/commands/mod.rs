//! One file a subcommand.

pub mod bench;
pub mod evaluate;
pub mod model;
pub mod plugin;
pub mod resume;
pub mod run;
pub mod tokenizer;
pub mod validate;

use std::path::Path;

use base::Diagnostic;
use spec::{Document, Files};

use crate::{exit_code, ui};

/// `pipeline schema`.
pub fn schema() -> anyhow::Result<u8> {
    ui::give(&serde_json::to_string_pretty(&spec::schema())?)?;
    Ok(exit_code::DONE)
}

/// Reads a file and prints what is wrong with it; `None` if it can't run.
fn load(file: &Path, overrides: &[String]) -> (Option<Document>, Files) {
    let mut files = Files::default();
    let (document, diagnostics) = spec::load(file, overrides, &mut files);
    report(&diagnostics, &files);
    let valid = !diagnostics.iter().any(Diagnostic::is_error);
    (document.filter(|_| valid), files)
}

/// No more of a file than its evaluations.
fn evaluations(document: Document) -> anyhow::Result<Document> {
    match document {
        Document::Pipeline(pipeline) => Ok(Document::Pipeline(Box::new(pipeline.only_evaluations()))),
        Document::Recipe(recipe) => {
            let files: Vec<_> = recipe.phases.iter().map(|phase| phase.pipeline.file.display().to_string()).collect();
            let files = files.join(", ");
            anyhow::bail!("{} is a recipe: evaluate the file of one of its phases: {files}", recipe.file.display())
        }
    }
}

fn report(diagnostics: &[Diagnostic], files: &Files) {
    if !diagnostics.is_empty() {
        ui::say(ui::diagnostics::render(diagnostics, files, ui::colors()).trim_end_matches('\n'));
    }
}
