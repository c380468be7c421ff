//! `pipeline plugin new NAME --lang LANGUAGE`.

use std::path::PathBuf;

use author::LANGUAGES;
use clap::builder::PossibleValuesParser;

use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// The plugin's folder; its last part is the plugin's name.
    #[arg(value_name = "NAME")]
    folder: PathBuf,
    /// The language that it is written in.
    #[arg(long, value_name = "LANGUAGE", value_parser = PossibleValuesParser::new(LANGUAGES.map(|language| language.name)))]
    lang: String,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let language = LANGUAGES.into_iter().find(|language| language.name == args.lang);
    let language = language.ok_or_else(|| anyhow::anyhow!("no language is called `{}`", args.lang))?;
    author::new(&args.folder, language)?;
    let folder = ui::argument(&args.folder);
    ui::say(&format!("made {folder}, a verifier in {}; yours to edit is {}", language.title, language.source));
    if language.name != "rhai" {
        ui::say(&format!("next: pipeline plugin build {folder}"));
    } else {
        ui::say(&format!("next: pipeline plugin test {folder}"));
    }
    Ok(exit_code::DONE)
}
