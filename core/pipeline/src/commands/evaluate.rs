//! `pipeline evaluate FILE`.

use std::path::PathBuf;

use super::run::finish;
use super::{evaluations, load};
use crate::exit_code;

#[derive(clap::Args)]
pub struct Args {
    /// A pipeline file; of a recipe, the file of one of its phases.
    file: PathBuf,
    /// Replace a value of the file: `--set models.policy.path=DIR`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let (document, files) = load(&args.file, &args.overrides);
    let Some(document) = document else { return Ok(exit_code::FINDING) };
    let document = evaluations(document)?;
    let job = flow::Job { document: &document, file: &args.file, overrides: &args.overrides, only_evaluations: true };
    finish(&files, |observer, interrupt| flow::run(&job, observer, interrupt))
}
