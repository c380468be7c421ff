//! `pipeline bench`: tokens a second of sampling and of learning, beside what the machine could do at most.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device};
use flow::bench::{Bench, Sizes};
use model::{Model, Tokenizer};

use crate::{exit_code, ui};

#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face model folder, or a `config.json` for random weights.
    model: PathBuf,
    /// Measure only these.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["train", "sample", "grpo"])]
    only: Vec<What>,
    /// Prompts that are completed at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    batch: Vec<usize>,
    /// The most tokens in one forward pass of learning; it bounds memory.
    #[arg(long, default_value_t = 1024)]
    tokens_per_pass: usize,
    /// Compute threads; all processors if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = Place::Cpu)]
    device: Place,
    /// What products are computed in.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// A training step: 16 sequences of 256 tokens, forward, backward, AdamW.
    Train,
    /// 128 tokens after a prompt of 64.
    Sample,
    /// A step of GRPO: 16 prompts with 8 completions, 64 + 128 tokens.
    Grpo,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    Cpu,
    Cuda,
}

const SIZES: Sizes =
    Sizes { prompt: 64, completion: 128, sequences: 16, length: 256, prompts: 16, group: 8, tokens_per_pass: 0 };

pub fn run(args: &Args) -> anyhow::Result<u8> {
    if let Some(threads) = args.threads {
        kernels::pool::set_threads(threads);
    }
    let device = match args.device {
        Place::Cpu => Device::Cpu,
        Place::Cuda => kernels::gpu().context("no CUDA device can be used; build with `--features cuda`")?,
    };
    let dtype = match args.dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
    };
    let model = load(&args.model, &device, dtype)?;
    let (all, active) = model.parameter_count();
    let machine = (args.device == Place::Cpu).then(Machine::measure);
    ui::give(&format!("model        {:.1}M parameters, {:.1}M active", all as f64 / 1e6, active as f64 / 1e6))?;
    if let Some(machine) = &machine {
        ui::give(&format!(
            "machine      {} threads: {:.0} GF/s of f32 multiply-adds, {:.0} GB/s read from memory",
            kernels::pool::threads(),
            machine.flops / 1e9,
            machine.bandwidth / 1e9
        ))?;
    }
    // What a token costs at least: its products, and for few tokens at once the reading of the weights.
    let share = |tokens_per_second: f64, passes: f64, batch: Option<usize>| {
        let Some(machine) = &machine else { return String::new() };
        let arithmetic = 2.0 * passes * active as f64 / machine.flops;
        let reading =
            batch.map_or(0.0, |batch| (dtype.size_in_bytes() * active) as f64 / machine.bandwidth / batch as f64);
        let least = arithmetic.max(reading);
        let limit = if arithmetic < reading { "memory" } else { "arithmetic" };
        format!("   {:.0}% of the limit by {limit}", 100.0 * least * tokens_per_second)
    };
    let bench = Bench::new(model, Sizes { tokens_per_pass: args.tokens_per_pass, ..SIZES });
    if args.only.contains(&What::Train) {
        let speed = bench.training(2)?;
        let memory = peak_memory().map_or_else(String::new, |bytes| format!(", peak memory {:.0} MB", bytes / 1e6));
        ui::give(&format!("train        {speed:.0} tokens/s{}{memory}", share(speed, 3.0, None)))?;
    }
    if args.only.contains(&What::Sample) {
        for &batch in &args.batch {
            let runs = (0..3).map(|_| bench.sampling(batch)).collect::<Result<Vec<_>, _>>()?;
            let speed = runs.into_iter().fold(0.0, f64::max);
            ui::give(&format!("sample {batch:<5} {speed:.0} tokens/s{}", share(speed, 1.0, Some(batch))))?;
        }
    }
    if args.only.contains(&What::Grpo) {
        let step = bench.grpo_step()?;
        ui::give(&format!(
            "grpo step    {:.2} s, of it sampling {:.2} s ({} tokens sampled, {} learned from; greatest difference of a log-probability {:e})",
            step.seconds, step.sampling, step.sampled, step.learned, step.difference
        ))?;
    }
    Ok(exit_code::DONE)
}

fn load(path: &Path, device: &Device, dtype: DType) -> anyhow::Result<Model> {
    if path.is_dir() {
        return Ok(Model::load(path, device, dtype)?);
    }
    let config = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let config = model::Config::from_json(&config).with_context(|| path.display().to_string())?;
    let tokenizer = Tokenizer::train_chars(std::iter::once("ab".to_owned()), &[])?;
    Ok(Model::random(config, tokenizer, base::RngKey::new(17, "init"), device, dtype)?)
}

/// What this machine can do at most.
struct Machine {
    /// Multiplications and additions a second.
    flops: f64,
    /// Bytes a second.
    bandwidth: f64,
}

impl Machine {
    fn measure() -> Self {
        let best = |work: &dyn Fn() -> f64| {
            let rate = |_| {
                let start = Instant::now();
                work() / start.elapsed().as_secs_f64()
            };
            (0..5).map(rate).fold(0.0, f64::max)
        };
        // More than the caches of a thread hold, and less than a model takes.
        let values = vec![1.0f32; 1 << 26];
        let read = || {
            std::hint::black_box(kernels::machine::read(&values));
            4.0 * values.len() as f64
        };
        Self { flops: best(&|| kernels::machine::multiply_add(2_000_000)), bandwidth: best(&read) }
    }
}

/// The most memory that this process has held, in bytes, where the system says it.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}
