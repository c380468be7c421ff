//! `pipeline`: teaches language models to reason by reinforcement learning with verifiable rewards, as a TOML file says.
//!
//! The only crate that prints, exits or knows a terminal. Human text goes to stderr, data to stdout. It must never decide
//! anything about a run: what a file means is `spec`'s, what happens is `flow`'s.

mod commands;
mod exit_code;
mod ui;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: kernels::memory::Allocator = kernels::memory::Allocator::new();

/// Teach language models to reason by reinforcement learning with verifiable rewards.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// Log spans and events to stderr: a level or a filter such as `info` or `flow=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Write a trace that chrome://tracing and Perfetto open.
    #[arg(long, global = true, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say everything that is wrong with a pipeline file or a recipe.
    Validate(commands::validate::Args),
    /// Run a pipeline file or a recipe.
    Run(commands::run::Args),
    /// Go on with a run that was interrupted.
    Resume(commands::resume::Args),
    /// Run the evaluations of a pipeline file, and nothing else of it.
    Evaluate(commands::evaluate::Args),
    /// Measure how fast a model samples and learns on this machine.
    Bench(commands::bench::Args),
    /// Describe a model folder, or compare it with another implementation's numbers.
    Model(commands::model::Args),
    /// Test and try the plugins that verify, reward, filter and generate.
    Plugin(commands::plugin::Args),
    /// Train a tokenizer from a dataset.
    Tokenizer(commands::tokenizer::Args),
    /// Print the JSON Schema of pipeline files.
    Schema,
}

fn main() -> ExitCode {
    kernels::memory::tune_allocator();
    let cli = Cli::parse();
    let _trace = match ui::tracing::start(cli.log.as_deref(), cli.trace.as_deref()) {
        Ok(guard) => guard,
        Err(error) => return fail(&error),
    };
    let code = match cli.command {
        Command::Validate(args) => commands::validate::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Resume(args) => commands::resume::run(&args),
        Command::Evaluate(args) => commands::evaluate::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Model(args) => commands::model::run(&args),
        Command::Plugin(args) => commands::plugin::run(&args),
        Command::Tokenizer(args) => commands::tokenizer::run(&args),
        Command::Schema => commands::schema(),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    ui::say(&format!("error: {}", ui::escape(&format!("{error:#}"))));
    ExitCode::from(exit_code::FAILED)
}
