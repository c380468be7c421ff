//! `pipeline plugin ...`: what a plugin's author needs. One file a subcommand.

mod bench;
mod build;
mod info;
mod new;
mod progress;
mod run;
mod test;

use std::path::Path;

use author::{Budget, Error, Plugin};
use host::ConfigureError;
use serde_json::Value;
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
    /// Make the folder of a new plugin: a working verifier with its tests, in one of eleven languages.
    New(new::Args),
    /// Make a plugin's component of its source.
    Build(build::Args),
    /// Run the `[[tests]]` of plugins' folders, each twice, and demand the same answer.
    Test(test::Args),
    /// Judge a file of completions: a line of verdicts for each of its lines, in order.
    Run(run::Args),
    /// Say what a plugin is: worlds, imports, config, and what it costs to load and configure.
    Info(info::Args),
    /// Measure what a plugin's calls cost, and say which limits leave room.
    Bench(bench::Args),
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::New(args) => new::run(args),
        Command::Build(args) => build::run(args),
        Command::Test(args) => test::run(args),
        Command::Run(args) => run::run(args),
        Command::Info(args) => info::run(args),
        Command::Bench(args) => bench::run(args),
    }
}

/// What a plugin may spend and use, where its folder doesn't say it or something else is wanted.
#[derive(Default, clap::Args)]
struct BudgetArgs {
    /// WebAssembly fuel for one completion; the folder's, else 2,000,000,000.
    #[arg(long)]
    fuel: Option<u64>,
    /// Memory of a component, such as "64 MiB"; the folder's, else 256 MiB.
    #[arg(long, value_parser = size)]
    memory: Option<u64>,
    /// Operations of a Rhai script for one completion; the folder's, else 10,000,000.
    #[arg(long)]
    operations: Option<u64>,
    /// A runtime for programs, `javascript` or `python`, where the folder grants none of this name: 16 runs for a completion,
    /// each of 2,000,000,000 fuel and 256 MiB. May be given twice.
    #[arg(long, value_name = "RUNTIME", value_parser = RUNTIMES)]
    grant: Vec<String>,
}

const RUNTIMES: [&str; 2] = ["javascript", "python"];

/// What a run of a program may spend, for a runtime that the command line grants.
const RUNS: base::Runs = base::Runs { fuel: 2_000_000_000, memory: 256 << 20, runs: 16 };

impl From<&BudgetArgs> for Budget {
    fn from(args: &BudgetArgs) -> Self {
        Self { fuel: args.fuel, memory: args.memory, operations: args.operations }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = text.parse().ok().or_else(|| spec::bytes_from_text(text).and_then(|bytes| u64::try_from(bytes).ok()));
    bytes.ok_or_else(|| "write an integer and a unit: B, KiB, MiB or GiB, such as \"64 MiB\"".into())
}

/// The config of the command line.
fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))
}

/// Prints what a plugin objects to in its config; another error stays one.
fn refused(error: ConfigureError) -> anyhow::Result<u8> {
    let ConfigureError::Config { errors } = error else { return Err(error.into()) };
    for (pointer, message) in errors {
        let place = if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") };
        ui::say(&ui::escape(&format!("error: the plugin refuses its config{place}: {message}")));
    }
    Ok(exit_code::FINDING)
}

/// The plugin that is named, or the exit code after its mistakes were printed. `files` keeps the text of its `plugin.toml`.
fn open(named: &Path, budget: &BudgetArgs, files: &mut Files) -> anyhow::Result<Result<Plugin, u8>> {
    match author::open(named, budget.into(), files) {
        Ok(mut plugin) => {
            for name in &budget.grant {
                plugin.grants.runtimes.entry(name.clone()).or_insert(RUNS);
            }
            Ok(Ok(plugin))
        }
        Err(Error::Invalid(findings)) => {
            report(&findings, files);
            Ok(Err(exit_code::FINDING))
        }
        Err(error) => Err(error.into()),
    }
}

/// "1 test", "2 tests".
fn counted(n: usize, thing: &str) -> String {
    format!("{} {thing}{}", ui::table::thousands(n as u64), if n == 1 { "" } else { "s" })
}
