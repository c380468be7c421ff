//! `pipeline run FILE`.

use std::path::PathBuf;

use super::{load, report};
use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// A pipeline file or a recipe.
    file: PathBuf,
    /// Replace a value of the file: `--set run.dir=/tmp/runs`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let (document, files) = load(&args.file, &args.overrides);
    let Some(document) = document else { return Ok(exit_code::FINDING) };
    let job = flow::Job { document: &document, file: &args.file, overrides: &args.overrides, only_evaluations: false };
    finish(&files, |observer, interrupt| flow::run(&job, observer, interrupt))
}

/// Runs `work` under the terminal's eye and turns what came of it into text and an exit code.
pub fn finish(
    files: &spec::Files,
    work: impl FnOnce(&dyn flow::Observer, &flow::Interrupt) -> Result<flow::Outcome, flow::Error>,
) -> anyhow::Result<u8> {
    let interrupt = flow::Interrupt::default();
    ui::interrupt::install(interrupt.clone())?;
    let progress = ui::progress::Progress::new();
    let result = work(&progress, &interrupt);
    progress.finish();
    match result {
        Ok(flow::Outcome::Finished { folder }) => {
            ui::summary::print(&folder);
            Ok(exit_code::DONE)
        }
        Ok(flow::Outcome::Interrupted { folder }) => {
            ui::say(&format!("interrupted; go on with: pipeline resume {}", ui::argument(&folder)));
            Ok(exit_code::INTERRUPTED)
        }
        Err(flow::Error::Environment(findings)) => {
            report(&findings, files);
            Ok(exit_code::FINDING)
        }
        Err(error) => {
            ui::say(&format!("error: {}", ui::escape(&error.to_string())));
            Ok(if error.is_finding() { exit_code::FINDING } else { exit_code::FAILED })
        }
    }
}
