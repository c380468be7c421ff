//! `pipeline plugin bench PLUGIN`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, bail};
use author::{JudgeError, Measured, Plugin, Quantiles, Work};
use host::{Host, Options, World};
use serde_json::Value;
use spec::{Expect, Files, Input};

use super::info::{mebibytes, time};
use super::{BudgetArgs, counted, open, refused};
use crate::ui::table::{self, Align, thousands};
use crate::{exit_code, ui};

/// Lines of a file that are measured.
const LINES: usize = 10_000;

/// Measure what a plugin's calls cost, and say which limits leave room.
///
/// Fuel, operations and time are those of one completion (row of a generator) in a call of its own; completions a second are
/// counted in the calls that a run makes, a group each. The limits allow four times the most fuel or operations that was seen
/// and twice the memory: a budget is there to stop what is broken, and other inputs are longer.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A plugin's folder, a .wasm, a .rhai, or the name of a builtin. A path that exists wins.
    plugin: PathBuf,
    /// Measure the first 10,000 lines of this file, as `plugin run` takes it, instead of the tests of the folder.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The plugin's config, for `--input`.
    #[arg(long, value_name = "JSON", requires = "input", default_value = "{}", value_parser = super::json)]
    config: Value,
    /// The limit on a completion's tokens that the plugin is told, for `--input`.
    #[arg(long, requires = "input", default_value_t = 0)]
    max_tokens: u32,
    #[command(flatten)]
    budget: BudgetArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let plugin = match open(&args.plugin, &args.budget, &mut Files::default())? {
        Ok(plugin) => plugin,
        Err(code) => return Ok(code),
    };
    let host = Host::new(Options::default())?;
    let loaded = plugin.load(&host)?;
    let work = match work(args, &plugin, loaded.worlds()) {
        Err(error) => match error.downcast::<JudgeError>() {
            Ok(error @ JudgeError::Line { .. }) => {
                ui::say(&ui::escape(&format!("error: {error}")));
                return Ok(exit_code::FINDING);
            }
            Ok(error) => return Err(error.into()),
            Err(error) => return Err(error),
        },
        Ok(work) => work,
    };
    let measured = match author::measure(&loaded, &plugin.limits, &work) {
        Ok(measured) => measured,
        Err(error) => return refused(error),
    };
    for side in &measured {
        ui::give(&words(side, loaded.unit()))?;
    }
    match author::limits(&measured, loaded.unit()) {
        Some(line) => ui::give(&line)?,
        None => ui::say("no call stayed within its budget: give more by --fuel, --memory or --operations"),
    }
    Ok(exit_code::DONE)
}

/// The calls to measure: those of the tests that succeed, or those of a file.
fn work(args: &Args, plugin: &Plugin, worlds: &[World]) -> anyhow::Result<Vec<Work>> {
    let work: Vec<Work> = if let Some(path) = &args.input {
        let file = File::open(path).with_context(|| format!("failed to read {}", path.display()))?;
        let groups = author::groups(BufReader::new(file), &path.display().to_string(), LINES)?;
        let ctx = base::Context { step: 0, seed: 0, max_tokens: args.max_tokens, evaluating: false };
        let verifies = worlds.contains(&World::Verifier);
        if !verifies && !worlds.contains(&World::Rewarder) {
            bail!("plugin `{}` is a {}: only a verifier or a rewarder judges a file", plugin.name, World::list(worlds));
        }
        let side = if verifies { Input::Verify } else { Input::Reward };
        let work = |group| Work { config: args.config.clone(), ctx, input: side(Box::new(group)) };
        groups.into_iter().map(work).collect()
    } else {
        let cases = plugin.tests.iter().flat_map(|(_, cases)| cases);
        let succeeds = |expect: &Expect| !matches!(expect, Expect::Failed(_) | Expect::Refused(_));
        let work =
            |case: &spec::Case| Work { config: case.config.clone(), ctx: case.context, input: case.input.clone() };
        cases.filter(|case| succeeds(&case.expect)).map(work).collect()
    };
    if work.is_empty() {
        bail!("there is nothing to measure: name a folder with tests, or give completions by --input");
    }
    Ok(work)
}

fn words(side: &Measured, unit: &str) -> String {
    let item = if side.world == World::Generator { "row" } else { "completion" };
    let line = |name: &str, quantiles: &Quantiles, show: &dyn Fn(u64) -> String| {
        let [p50, p99] = [0.5, 0.99].map(|share| quantiles.at(share));
        vec![name.to_owned(), show(p50), show(p99), show(quantiles.most())]
    };
    let nanoseconds = |nanoseconds: u64| time(nanoseconds as f64 * 1e-9);
    let mut rows = vec![
        ["", "p50", "p99", "most"].map(str::to_owned).to_vec(),
        line(unit, &side.spent, &thousands),
        line("time", &side.nanoseconds, &nanoseconds),
    ];
    if side.runs.most() > 0 {
        rows.push(line("programs", &side.runs, &thousands));
        rows.push(line("their fuel", &side.run_fuel, &thousands));
    }
    if side.memory > 0 {
        rows.push(vec!["memory".into(), String::new(), String::new(), mebibytes(side.memory)]);
    }
    let counted = counted(usize::try_from(side.items).unwrap_or(usize::MAX), item);
    let table = table::render(&rows, &[Align::Left, Align::Right, Align::Right, Align::Right]);
    let rate = |rate: f64| thousands(rate as u64);
    let (one, all, threads) = (rate(side.one_thread), rate(side.all_threads), side.threads);
    let undecided = match side.undecided {
        0 => String::new(),
        undecided => format!(", {} undecided", thousands(undecided)),
    };
    format!("{}, {counted}{undecided}\n{table}{one} {item}s/s on one thread, {all} on {threads}", side.world)
}
