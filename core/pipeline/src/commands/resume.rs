//! `pipeline resume RUN`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::run::finish;
use super::{evaluations, load};
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
    let (folder, origin) = if args.run.is_dir() {
        anyhow::ensure!(args.overrides.is_empty(), "a run's folder knows its overrides: leave `--set` out");
        (args.run.clone(), flow::origin(&args.run)?)
    } else {
        let (document, _) = load(&args.run, &args.overrides);
        let Some(document) = document else { return Ok(exit_code::FINDING) };
        let (file, overrides) = (args.run.as_path(), args.overrides.as_slice());
        let folder = flow::latest(&flow::Job { document: &document, file, overrides, only_evaluations: false })?;
        let origin = flow::origin(&folder)?;
        let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
        anyhow::ensure!(
            same(&args.run, &origin.folder.join(&origin.file)),
            "the latest run, {}, belongs to another file, {}",
            folder.display(),
            origin.folder.join(&origin.file).display()
        );
        anyhow::ensure!(
            args.overrides == origin.overrides,
            "the latest run, {}, was started with {}: name the folder to go on with it",
            folder.display(),
            if origin.overrides.is_empty() {
                "no `--set`".to_owned()
            } else {
                format!("--set {}", origin.overrides.join(" --set "))
            }
        );
        (folder, origin)
    };
    let folder = folder.canonicalize().with_context(|| format!("failed to open {}", folder.display()))?;
    // The run's paths are relative to the folder it was started in; a folder that is gone has been moved as a whole.
    if origin.folder.is_dir() {
        std::env::set_current_dir(&origin.folder)
            .with_context(|| format!("failed to enter {}", origin.folder.display()))?;
    }
    let (document, files) = load(&origin.file, &origin.overrides);
    let Some(mut document) = document else { return Ok(exit_code::FINDING) };
    if origin.only_evaluations {
        document = evaluations(document)?;
    }
    let flow::Origin { file, overrides, only_evaluations, .. } = &origin;
    let job = flow::Job { document: &document, file, overrides, only_evaluations: *only_evaluations };
    finish(&files, |observer, interrupt| flow::resume(&job, &folder, observer, interrupt))
}
