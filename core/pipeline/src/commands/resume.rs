//! `pipeline resume RUN`.

use std::path::PathBuf;

use anyhow::Context;

use super::load;
use super::run::finish;
use crate::exit_code;

#[derive(clap::Args)]
pub struct Args {
    /// A run's folder, or the pipeline file whose latest run is meant.
    run: PathBuf,
    /// The overrides that the run was started with, where a file is given.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let (file, overrides, folder) = if args.run.is_dir() {
        anyhow::ensure!(args.overrides.is_empty(), "a run's folder knows its overrides: leave `--set` out");
        let origin = flow::origin(&args.run)?;
        let folder = args.run.canonicalize().with_context(|| format!("failed to open {}", args.run.display()))?;
        // The run's paths are relative to the folder it was started in; a folder that is gone has been moved as a whole.
        if origin.folder.is_dir() {
            std::env::set_current_dir(&origin.folder)
                .with_context(|| format!("failed to enter {}", origin.folder.display()))?;
        }
        (origin.file, origin.overrides, Some(folder))
    } else {
        (args.run.clone(), args.overrides.clone(), None)
    };
    let (document, files) = load(&file, &overrides);
    let Some(document) = document else { return Ok(exit_code::FINDING) };
    let job = flow::Job { document: &document, file: &file, overrides: &overrides };
    finish(&files, |observer, interrupt| flow::resume(&job, folder.as_deref(), observer, interrupt))
}
