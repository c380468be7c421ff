//! `pipeline plugin ...`: what a plugin's author needs. One file a subcommand.

mod test;

use std::path::Path;

use author::{Budget, Error, Plugin};
use spec::Files;

use crate::commands::report;
use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run the `[[tests]]` of plugins' folders, each twice, and demand the same answer.
    Test(test::Args),
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Test(args) => test::run(args),
    }
}

/// The plugin that is named, or the exit code after its mistakes were printed.
fn open(named: &Path, budget: Budget) -> anyhow::Result<Result<Plugin, u8>> {
    let mut files = Files::default();
    match author::open(named, budget, &mut files) {
        Ok(plugin) => Ok(Ok(plugin)),
        Err(Error::Invalid(findings)) => {
            report(&findings, &files);
            Ok(Err(exit_code::FINDING))
        }
        Err(error) => Err(error.into()),
    }
}

/// "1 test", "2 tests".
fn counted(n: usize, thing: &str) -> String {
    format!("{} {thing}{}", ui::table::thousands(n as u64), if n == 1 { "" } else { "s" })
}
