//! `pipeline validate FILE`.

use std::path::PathBuf;

use base::Diagnostic;

use super::report;
use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// A pipeline file or a recipe.
    file: PathBuf,
    /// Replace a value of the file: `--set run.steps=10`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Look at the file alone, not at the data, models and plugins that it names.
    #[arg(long)]
    no_environment: bool,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// With the lines of the file, on stderr.
    Human,
    /// One JSON array, on stdout.
    Json,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let mut files = spec::Files::default();
    let (document, mut diagnostics) = spec::load(&args.file, &args.overrides, &mut files);
    if let Some(document) = document.filter(|_| !args.no_environment && !diagnostics.iter().any(Diagnostic::is_error)) {
        diagnostics.extend(flow::check(&document)?);
    }
    match args.format {
        Format::Human => report(&diagnostics, &files),
        Format::Json => ui::give(&ui::diagnostics::render_json(&diagnostics, &files))?,
    }
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    if errors > 0 {
        ui::say(&format!(
            "{}: {errors} error{}",
            ui::escape(&args.file.display().to_string()),
            if errors == 1 { "" } else { "s" }
        ));
        return Ok(exit_code::FINDING);
    }
    ui::say(&format!("{}: valid", ui::escape(&args.file.display().to_string())));
    Ok(exit_code::DONE)
}
