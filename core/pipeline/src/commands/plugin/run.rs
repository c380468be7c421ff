//! `pipeline plugin run PLUGIN --input FILE`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use author::{Judge, JudgeError, Summary};
use host::{Host, Options, World};
use serde_json::Value;
use spec::Files;

use super::progress::Progress;
use super::{BudgetArgs, counted, open, refused};
use crate::ui::table::thousands;
use crate::{exit_code, ui};

/// Judge a file of completions: a line of verdicts for each of its lines, in order.
///
/// A line of the input is an object: "completion", or "completions" for several of one prompt (each a string or {"text",
/// "tokens", "finish"}: what rewards of length look at), "prompt" (a string or a list of {"role", "content"}) and "reference", both
/// optional, for a rewarder "judgements" ({"STAGE": [verdicts]}); all else becomes the row's fields. A line of the output is
/// {"verdicts": [{"score", "note"} | {"undecided": why} | {"not_applicable": true}]}, with "answer" and "metrics" where the
/// plugin gives them, or {"rewards": [...]} of a rewarder. Undecided verdicts are data: the exit code is 0.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A plugin's folder, a .wasm, a .rhai, or the name of a builtin. A path that exists wins.
    plugin: PathBuf,
    /// The completions, as JSON Lines; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The plugin's config.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = super::json)]
    config: Value,
    /// Where the verdicts go. The file appears when it is whole; until then it is FILE.partial, which an interrupt removes. `-` is
    /// stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// The limit on a completion's tokens that the plugin is told.
    #[arg(long, default_value_t = 0)]
    max_tokens: u32,
    /// The seed that the plugin is told.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that judge; all processors if absent. Changes no verdict.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    budget: BudgetArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let plugin = match open(&args.plugin, &args.budget, &mut Files::default())? {
        Ok(plugin) => plugin,
        Err(code) => return Ok(code),
    };
    let (input, bytes): (Box<dyn Read + Send>, Option<u64>) = if args.input == Path::new("-") {
        (Box::new(std::io::stdin()), None)
    } else {
        let file = File::open(&args.input).with_context(|| format!("failed to read {}", args.input.display()))?;
        let length = file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
        (Box::new(file), length)
    };
    let host = Host::new(Options::default())?;
    let loaded = plugin.load(&host)?;
    let judge = Judge {
        plugin: &loaded,
        name: &plugin.name,
        config: &args.config,
        ctx: base::Context { step: 0, seed: args.seed, max_tokens: args.max_tokens, evaluating: false },
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let mut output = Output::create(&args.output)?;
    let mut progress = Progress::new(bytes);
    let name =
        if bytes.is_none() && args.input == Path::new("-") { "stdin".into() } else { args.input.display().to_string() };
    let judged = judge.judge(input, &name, &mut output.to, |summary| progress.show(summary));
    let seconds = progress.finish();
    match judged {
        Ok(summary) => {
            output.finish()?;
            ui::say(&words(&summary, &loaded, seconds));
            Ok(exit_code::DONE)
        }
        // Who reads the verdicts has enough.
        Err(JudgeError::Write(error)) if error.kind() == ErrorKind::BrokenPipe && output.path.is_none() => {
            Ok(exit_code::DONE)
        }
        Err(error) => {
            output.discard();
            match error {
                JudgeError::Config(error) => refused(error),
                JudgeError::Line { .. } => {
                    ui::say(&ui::escape(&format!("error: {error}")));
                    Ok(exit_code::FINDING)
                }
                error => Err(error.into()),
            }
        }
    }
}

/// Where verdicts go: stdout, a device or a pipe as it stands, or a file that appears when it is whole.
struct Output {
    to: std::io::BufWriter<Box<dyn Write>>,
    /// The name until then, and the name.
    path: Option<(PathBuf, PathBuf)>,
}

impl Output {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let plain = |to: Box<dyn Write>| Self { to: std::io::BufWriter::with_capacity(1 << 20, to), path: None };
        if path == Path::new("-") {
            return Ok(plain(Box::new(std::io::stdout())));
        }
        let failed = |path: &Path| format!("failed to write {}", path.display());
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(plain(Box::new(File::options().write(true).open(path).with_context(|| failed(path))?)));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        ui::interrupt::remove(partial.clone())?;
        let file = File::create(&partial).with_context(|| failed(&partial))?;
        Ok(Self { path: Some((partial, path.to_owned())), ..plain(Box::new(file)) })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.to.flush().context("failed to write the verdicts")?;
        if let Some((partial, path)) = self.path {
            fs::rename(&partial, &path).with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(())
    }

    fn discard(self) {
        if let Some((partial, _)) = self.path {
            // The first error is the one to report.
            let _ = fs::remove_file(partial);
        }
    }
}

/// What was judged, for people.
fn words(summary: &Summary, plugin: &host::Plugin, seconds: f64) -> String {
    let what = if plugin.worlds().contains(&World::Verifier) { "score" } else { "reward" };
    let mut parts = vec![match summary.mean() {
        Some(mean) => format!("mean {what} {mean:.4}"),
        None => format!("no {what}"),
    }];
    if summary.undecided() > 0 {
        parts.push(format!("{} undecided", thousands(summary.undecided())));
    }
    if summary.not_applicable > 0 {
        parts.push(format!("{} not applicable", thousands(summary.not_applicable)));
    }
    let counted = |n: u64, thing: &str| counted(usize::try_from(n).unwrap_or(usize::MAX), thing);
    let mut lines = vec![format!(
        "{} in {}: {}",
        counted(summary.completions, "completion"),
        counted(summary.lines, "line"),
        parts.join(", ")
    )];
    for (reason, times, line) in &summary.reasons {
        let first = if *times == 1 { format!("in line {line}") } else { format!("first in line {line}") };
        lines.push(format!("  undecided {}, {first}: {}", counted(*times, "time"), ui::escape(reason)));
    }
    if summary.other_reasons > 0 {
        lines.push(format!("  undecided {} for other reasons", counted(summary.other_reasons, "time")));
    }
    let spent = &summary.spent;
    let [p50, p99, most] = [spent.at(0.5), spent.at(0.99), spent.most()].map(thousands);
    lines.push(format!("{} for a completion: {p50} at p50, {p99} at p99, {most} at most", plugin.unit()));
    let rate = summary.completions as f64 / seconds.max(1e-9);
    lines.push(format!("{seconds:.2} s, {} completions/s", thousands(rate as u64)));
    lines.join("\n")
}
