//! `pipeline plugin build [FOLDER]`, `pipeline plugin build --runtime NAME`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use author::{Built, Toolchains};
use clap::builder::PossibleValuesParser;
use host::Runtime;
use spec::Files;

use crate::commands::report;
use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// The plugin's folder, with a plugin.toml.
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Fetch compilers that are missing from PyPI or npm into a cache folder of this user.
    #[arg(long)]
    install: bool,
    /// Instead of a plugin: build a runtime that pipeline files can grant to plugins, from PyPI into this user's cache folder.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Runtime::ALL.map(Runtime::name)), conflicts_with_all = ["folder", "install"])]
    runtime: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let start = Instant::now();
    if let Some(runtime) = Runtime::ALL.into_iter().find(|runtime| args.runtime.as_deref() == Some(runtime.name())) {
        let path = author::build_runtime(runtime, &mut |step| ui::say(step))?;
        said(&path, std::fs::metadata(&path)?.len(), start);
        return Ok(exit_code::DONE);
    }
    let mut files = Files::default();
    let (manifest, findings) = spec::manifest(&args.folder.join("plugin.toml"), &mut files);
    report(&findings, &files);
    let Some(manifest) = manifest else { return Ok(exit_code::FINDING) };
    let built = author::build(&manifest, &Toolchains::of_user()?, args.install)
        .with_context(|| format!("failed to build {}", args.folder.display()))?;
    match built {
        Built::Component { path, bytes } => said(&path, bytes, start),
        Built::Script => ui::say("a script runs as it is: there is nothing to build"),
    }
    ui::say(&format!("next: pipeline plugin test {}", ui::argument(&args.folder)));
    Ok(exit_code::DONE)
}

fn said(path: &Path, bytes: u64, start: Instant) {
    let (size, seconds) = (ui::table::thousands(bytes), start.elapsed().as_secs_f64());
    ui::say(&format!("built {}: {size} bytes in {seconds:.1} s", ui::argument(path)));
}
