//! `pipeline model info FOLDER`, `pipeline model check FOLDER` and `pipeline model merge FOLDER --adapter DIR --out DIR`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_core::{DType, Device};
use model::check::{Difference, Outcome, Report};
use model::{Error, Info, Model, memory};
use serde_json::json;

use crate::ui::table::{self, Align};
use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what a model folder holds and whether it fits together, without reading its weights.
    Info(InfoArgs),
    /// Compare a model with the `reference.safetensors` that another implementation wrote beside it.
    Check(CheckArgs),
    /// Add the adapters of LoRA to the weights that they were trained for.
    Merge(MergeArgs),
}

#[derive(clap::Args)]
struct InfoArgs {
    /// A Hugging Face model folder.
    folder: PathBuf,
    /// How it is printed, on stdout.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// The sequences of the estimate of the memory that sampling takes.
    #[arg(long, default_value_t = 256)]
    slots: usize,
    /// The tokens of each of them, prompt and completion together; the model's context if that is less.
    #[arg(long, default_value_t = 1024)]
    tokens: usize,
    /// The tokens of a forward pass, of the estimate of the memory that learning takes.
    #[arg(long, default_value_t = 16384)]
    tokens_per_pass: usize,
}

#[derive(clap::Args)]
struct CheckArgs {
    /// A Hugging Face model folder with `reference.safetensors`; a tokenizer is not needed.
    folder: PathBuf,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = Place::Cpu)]
    device: Place,
    /// The largest difference of a tensor's elements that passes, relative to the largest of the reference's elements.
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f64,
    /// How it is printed, on stdout.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(clap::Args)]
struct MergeArgs {
    /// A Hugging Face model folder.
    folder: PathBuf,
    /// A folder of adapters in PEFT's layout, such as a checkpoint of a model with `lora`.
    #[arg(long)]
    adapter: PathBuf,
    /// The model folder to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables.
    Human,
    /// One JSON object.
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    /// The CPU, in f32.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Info(args) => info(args),
        Command::Check(args) => check(args),
        Command::Merge(args) => merge(args),
    }
}

/// What came of reading a model, or the exit code of what is wrong with it.
fn told<T>(result: Result<T, Error>) -> anyhow::Result<Result<T, u8>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_finding() => {
            ui::say(&format!("error: {}", ui::escape_lines(&error.to_string())));
            Ok(Err(exit_code::FINDING))
        }
        Err(error) => Err(error.into()),
    }
}

fn merge(args: &MergeArgs) -> anyhow::Result<u8> {
    if args.out.exists() {
        anyhow::bail!("{} is there already; give a folder that is not", args.out.display());
    }
    let merged = Model::load_merged(&args.folder, &args.adapter, &Device::Cpu, DType::F32);
    match told(merged.and_then(|model| model.save(&args.out)))? {
        Ok(()) => Ok(exit_code::DONE),
        Err(code) => Ok(code),
    }
}

fn info(args: &InfoArgs) -> anyhow::Result<u8> {
    let info = match told(Info::read(&args.folder))? {
        Ok(info) => info,
        Err(code) => return Ok(code),
    };
    let needs = Needs::of(&info, args);
    match args.format {
        Format::Human => ui::give(describe(&args.folder, &info, &needs).trim_end_matches('\n'))?,
        Format::Json => {
            let mut object = serde_json::to_value(&info)?;
            object["memory_to_load"] = info.memory.to_load().into();
            object["memory_to_sample"] = needs.sample.into();
            object["memory_to_learn"] = needs.learn.into();
            object["memory_available"] = json!(needs.available);
            object["estimated_for"] = json!({
                "slots": args.slots, "tokens": needs.tokens, "tokens_per_pass": args.tokens_per_pass,
            });
            ui::give(&ui::json(&object))?;
        }
    }
    for finding in &info.findings {
        ui::say(&format!("error: {}", ui::escape(finding)));
    }
    Ok(if info.findings.is_empty() { exit_code::DONE } else { exit_code::FINDING })
}

/// Bytes for a certain work.
struct Needs {
    slots: usize,
    tokens: usize,
    tokens_per_pass: usize,
    sample: u64,
    learn: u64,
    available: Option<u64>,
}

impl Needs {
    fn of(info: &Info, args: &InfoArgs) -> Self {
        let tokens = args.tokens.min(info.context);
        Self {
            slots: args.slots,
            tokens,
            tokens_per_pass: args.tokens_per_pass,
            sample: info.memory.to_sample() + memory::cache(&info.config, args.slots, tokens),
            learn: info.memory.to_learn() + memory::activations(&info.config, args.tokens_per_pass, false),
            available: memory::available(),
        }
    }
}

fn describe(folder: &Path, info: &Info, needs: &Needs) -> String {
    let count = |number: usize| table::thousands(number as u64);
    let token = |(id, text): &(u32, String)| format!("{id} {}", ui::escape(&format!("{text:?}")));
    let ends: Vec<String> = info.eos.iter().map(token).collect();
    let experts = info.experts.map_or_else(String::new, |(all, chosen)| {
        format!(", {} of them with {all} experts of which a token takes {chosen}", info.expert_layers)
    });
    let dtypes: Vec<String> =
        info.bytes.iter().map(|(dtype, bytes)| format!("{dtype} {}", memory::bytes(*bytes))).collect();
    let files = if info.files == 1 { "1 file".to_owned() } else { format!("{} files", info.files) };
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let mut rows = vec![
        ("folder", ui::escape(&folder.display().to_string())),
        ("architecture", ui::escape(&info.architecture)),
        ("gives", if info.gives_scores { "a score (a reward model)" } else { "tokens" }.to_owned()),
        ("layers", format!("{}{experts}", info.layers)),
        ("width", count(info.hidden)),
        ("parameters", format!("{}, of which {} for a token", count(info.parameters), count(info.active_parameters))),
        ("on disk", format!("{files}: {}", dtypes.join(", "))),
        ("context", format!("{} tokens", count(info.context))),
        ("vocabulary", count(info.vocab)),
        (
            "tokenizer",
            info.tokens.map_or_else(|| "can't be used".to_owned(), |tokens| format!("{} tokens", count(tokens))),
        ),
        ("begins with", or_none(info.bos.iter().map(token).collect())),
        ("ends with", or_none(ends.join(", "))),
        ("chat template", if info.chat_template { "yes" } else { "none" }.to_owned()),
    ];
    rows.extend(info.notes.iter().map(|note| ("note", ui::escape(note))));
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>();
    let bytes = |count: u64| memory::bytes(count);
    let needs = [
        ("memory on the CPU, in float32".to_owned(), String::new()),
        ("to load".to_owned(), bytes(info.memory.to_load())),
        (format!("to sample {} sequences of {} tokens", needs.slots, count(needs.tokens)), bytes(needs.sample)),
        (format!("to learn with {} tokens in a pass", count(needs.tokens_per_pass)), bytes(needs.learn)),
        ("free here".to_owned(), needs.available.map_or_else(|| "unknown".to_owned(), bytes)),
    ];
    let needs = needs.into_iter().map(|(name, value)| vec![name, value]).collect::<Vec<_>>();
    format!(
        "{}\n{}",
        table::render(&rows, &[Align::Left, Align::Left]),
        table::render(&needs, &[Align::Left, Align::Right])
    )
}

fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    anyhow::ensure!(args.tolerance >= 0.0, "the tolerance is {}; it must be 0 or above", args.tolerance);
    let device = match args.device {
        Place::Cpu => Device::Cpu,
        Place::Cuda => kernels::gpu().context("no CUDA device can be used; build with `--features cuda`")?,
    };
    let report = match told(model::check::check(&args.folder, &device))? {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    let beyond = report.differences.iter().filter(|difference| !difference.is_within(args.tolerance)).count();
    match args.format {
        Format::Human => ui::give(compared(&report, args.tolerance).trim_end_matches('\n'))?,
        Format::Json => ui::give(&ui::json(&compared_json(&report, args.tolerance)))?,
    }
    if !report.lacking.is_empty() {
        let names = ui::escape(&report.lacking.join(", "));
        ui::say(&format!("warning: not compared, because the reference lacks them: {names}"));
    }
    if report.differences.is_empty() {
        ui::say("error: nothing was compared");
        return Ok(exit_code::FINDING);
    }
    let all = report.differences.len();
    if beyond > 0 {
        ui::say(&format!("error: {beyond} of {all} tensors differ by more than {:e}", args.tolerance));
        return Ok(exit_code::FINDING);
    }
    ui::say(&format!("{all} of {all} tensors agree within {:e}", args.tolerance));
    Ok(exit_code::DONE)
}

/// A table of what was compared.
fn compared(report: &Report, tolerance: f64) -> String {
    let header = ["tensor", "elements", "largest difference", "relative", ""].map(str::to_owned).to_vec();
    let row = |difference: &Difference| {
        let (largest, relative) = match difference.outcome {
            Outcome::Numbers { largest, relative } => (format!("{largest:.1e}"), format!("{relative:.1e}")),
            Outcome::Choices { wrong: 0 } => ("all equal".to_owned(), "-".to_owned()),
            Outcome::Choices { wrong } => (format!("{wrong} wrong"), "-".to_owned()),
        };
        let verdict = if difference.is_within(tolerance) { "" } else { "beyond" };
        let elements = table::thousands(difference.elements as u64);
        vec![ui::escape(&difference.name), elements, largest, relative, verdict.to_owned()]
    };
    let rows: Vec<_> = std::iter::once(header).chain(report.differences.iter().map(row)).collect();
    table::render(&rows, &[Align::Left, Align::Right, Align::Right, Align::Right, Align::Left])
}

fn compared_json(report: &Report, tolerance: f64) -> serde_json::Value {
    let one = |difference: &Difference| {
        let (largest, relative, wrong) = match difference.outcome {
            Outcome::Numbers { largest, relative } => (Some(largest), Some(relative), None),
            Outcome::Choices { wrong } => (None, None, Some(wrong)),
        };
        json!({
            "tensor": difference.name, "elements": difference.elements, "largest": largest, "relative": relative,
            "wrong": wrong, "within": difference.is_within(tolerance),
        })
    };
    let differences: Vec<_> = report.differences.iter().map(one).collect();
    json!({ "tolerance": tolerance, "tensors": differences, "lacking": report.lacking })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_tolerance_is_marked() {
        let line = |name: &str, outcome| Difference { name: name.into(), elements: 1536, outcome };
        let report = Report {
            differences: vec![
                line("logits", Outcome::Numbers { largest: 2e-5, relative: 2e-6 }),
                line("grad.\u{1b}[2J", Outcome::Numbers { largest: 1.0, relative: 0.5 }),
                line("broken", Outcome::Numbers { largest: f64::NAN, relative: f64::NAN }),
                line("greedy_tokens", Outcome::Choices { wrong: 1 }),
                line("router.1.experts", Outcome::Choices { wrong: 0 }),
            ],
            lacking: Vec::new(),
        };
        let expected = "\
tensor            elements  largest difference  relative
logits               1,536              2.0e-5    2.0e-6
grad.\\u{1b}[2J       1,536               1.0e0    5.0e-1  beyond
broken               1,536                 NaN       NaN  beyond
greedy_tokens        1,536             1 wrong         -  beyond
router.1.experts     1,536           all equal         -
";
        assert_eq!(compared(&report, 1e-4), expected);
    }
}
