//! How much memory a model takes, from its config alone, and how much the machine has.
//!
//! All numbers are bytes on the CPU, where everything is f32. The formulas count what grows with the model and with the
//! work; the program itself and its threads' scratch come on top, some tens of MiB.

use std::path::Path;

use candle_core::Device;
use serde::Serialize;

use crate::config::{Attention, Config, FeedForward, Head};
use crate::error::{Error, Result};
use crate::transformer::Transformer;
use crate::weights::Entry;

/// Bytes of a number.
const F32: u64 = 4;

/// The rows of a panel, of which packed matrices are made, and the tokens of one in a cache.
const PANEL: u64 = 32;

/// What a model takes whatever it does, and what learning adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// The parameters: `4 * elements`.
    pub values: u64,
    /// The tables of cosines and sines, on the host and for the device: `4 * 4 * context * rotated / 2`.
    pub angles: u64,
    /// The packed copies that products read, made with the first of them: of each `[N, K]` matrix
    /// `4 * K * ceil(N / 32) * 32`; an embedding's only if it is the head as well.
    pub panels: u64,
    /// The gradients: `4 * elements` of what learns, twice for a table that is embedding and head.
    pub gradients: u64,
    /// AdamW's two moments: `8 * elements` of what learns.
    pub moments: u64,
}

impl Weights {
    /// The estimate for a config.
    ///
    /// # Errors
    /// None that a config that could be read gives.
    pub fn of(config: &Config) -> Result<Self> {
        Ok(Self::of_entries(config, &Transformer::entries(config)?))
    }

    pub(crate) fn of_entries(config: &Config, entries: &[Entry]) -> Self {
        let (_, rotated) = config.attention.rotary();
        let angles = 4 * F32 * config.context as u64 * (rotated / 2) as u64;
        let mut sum = Self { values: 0, angles, panels: 0, gradients: 0, moments: 0 };
        for entry in entries {
            let elements = entry.elem_count() as u64;
            let tied = config.head == Head::Tied;
            let embedding = entry.name == "model.embed_tokens.weight";
            sum.values += F32 * elements;
            if let [.., rows, columns] = entry.shape[..]
                && (!embedding || tied)
            {
                let matrices = elements / (rows * columns) as u64;
                sum.panels += F32 * matrices * columns as u64 * (rows as u64).next_multiple_of(PANEL);
            }
            if entry.trained {
                sum.gradients += F32 * elements * if embedding && tied { 2 } else { 1 };
                sum.moments += 2 * F32 * elements;
            }
        }
        sum
    }

    /// What loading takes.
    pub fn to_load(&self) -> u64 {
        self.values + self.angles
    }

    /// What a model takes that samples or is a reference.
    pub fn to_sample(&self) -> u64 {
        self.to_load() + self.panels
    }

    /// What a model takes that learns, besides its activations.
    pub fn to_learn(&self) -> u64 {
        self.to_sample() + self.gradients + self.moments
    }
}

/// The caches of `slots` sequences of `tokens` tokens: in each layer `ceil(tokens / 32) * 32` keys and `tokens` values.
/// A key of latent attention has `kv_lora + rope` numbers and a value `kv_lora`; of grouped-query attention both have
/// `groups * width`.
pub fn cache(config: &Config, slots: usize, tokens: usize) -> u64 {
    let (keys, values) = match &config.attention {
        Attention::Grouped(grouped) => (grouped.groups * grouped.width, grouped.groups * grouped.width),
        Attention::Latent(latent) => (latent.kv_lora + latent.rope, latent.kv_lora),
    };
    let (keys, values) = (keys as u64, values as u64);
    let tokens = tokens as u64;
    let layer = F32 * (tokens.next_multiple_of(PANEL) * keys + tokens * values);
    layer * config.feed_forward.len() as u64 * slots as u64
}

/// What a learning pass over `tokens` tokens keeps for its backward pass: of each operation what it gave. With `recompute`
/// that is what enters each layer, and one layer's operations.
pub fn activations(config: &Config, tokens: usize, recompute: bool) -> u64 {
    let hidden = config.hidden as u64;
    let attention = of_attention(config);
    // Gate and up, their product, and the way back.
    let gated = |width: usize| 3 * width as u64 + hidden;
    let mixer = |part: &FeedForward| match part {
        FeedForward::Dense(width) => gated(*width),
        FeedForward::Experts(experts) => {
            let chosen = experts.router.chosen as u64;
            let routed = experts.router.experts as u64 + chosen * (1 + hidden + gated(experts.width)) + hidden;
            routed + if experts.shared > 0 { gated(experts.shared) + hidden } else { 0 }
        }
    };
    // Two norms, the way out of attention and two sums.
    let layers = config.feed_forward.iter().map(|part| 5 * hidden + attention + mixer(part));
    let layers = match recompute {
        false => layers.sum(),
        true => hidden * config.feed_forward.len() as u64 + layers.max().unwrap_or(0),
    };
    F32 * tokens as u64 * (layers + 3 * hidden)
}

/// The numbers of a token that one layer's attention keeps.
fn of_attention(config: &Config) -> u64 {
    let latent = match &config.attention {
        // The joined projection, its parts turned, and what attention gives.
        Attention::Grouped(grouped) => {
            let (heads, groups) = (grouped.heads as u64, grouped.groups as u64);
            return grouped.width as u64 * (2 * (heads + 2 * groups) + heads);
        }
        Attention::Latent(latent) => latent,
    };
    let heads = latent.heads as u64;
    let (lora, rope) = (latent.kv_lora as u64, latent.rope as u64);
    let queries = heads * (latent.nope as u64 + rope);
    let query = latent.q_lora.map_or(0, |width| 2 * width as u64) + queries + heads * (lora + rope);
    query + 2 * (lora + rope) + heads * (lora + latent.value as u64)
}

/// Refuses to load what the machine has no memory for. On another device than the CPU the host holds a tensor at a time.
pub(crate) fn require_for_loading(config: &Config, entries: &[Entry], device: &Device) -> Result<()> {
    if !device.is_cpu() {
        return Ok(());
    }
    let weights = Weights::of_entries(config, entries);
    match available() {
        Some(available) if available < weights.to_load() => Err(Error::Memory(format!(
            "there is not enough memory to load the model: its weights take {} as float32 (whatever their dtype in the \
             file), and {} is free; use a smaller model, or a machine with {} (to sample) or {} (to learn)",
            bytes(weights.to_load()),
            bytes(available),
            bytes(weights.to_sample()),
            bytes(weights.to_learn()),
        ))),
        _ => Ok(()),
    }
}

/// The memory that can be had without anything being swapped out: what the kernel says (`MemAvailable`), or what is left
/// to the process's control group, if that is less; and what the program's allocator keeps for later. `None` where
/// neither can be read.
pub fn available() -> Option<u64> {
    let kept = kernels::memory::release_unused() as u64;
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = meminfo.as_deref().and_then(available_of_meminfo);
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = group.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
    let limit = group.and_then(|group| left_to_group(Path::new("/sys/fs/cgroup"), group));
    machine.into_iter().chain(limit).min().map(|free| free + kept)
}

fn available_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least that is left to a control group (version 2) and those it lies in: the limit less what is used, where pages
/// of files that can be dropped don't count as used.
fn left_to_group(root: &Path, group: &str) -> Option<u64> {
    let left = |folder: &Path| {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let limit: u64 = read("memory.max")?.trim().parse().ok()?;
        let used: u64 = read("memory.current")?.trim().parse().ok()?;
        let stat = read("memory.stat").unwrap_or_default();
        let inactive = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
        Some(limit.saturating_sub(used.saturating_sub(inactive.unwrap_or(0))))
    };
    let group = root.join(group.trim_start_matches('/'));
    group.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(left).min()
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    format!("{size:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_read_from_the_kernel_and_the_control_group() {
        let meminfo = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available_of_meminfo(meminfo), Some(2 << 20));
        assert_eq!(available_of_meminfo("MemTotal: 16000 kB\n"), None);

        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("outer/inner");
        std::fs::create_dir_all(&group).unwrap();
        let write = |path: &str, text: &str| std::fs::write(root.path().join(path), text).unwrap();
        assert_eq!(left_to_group(root.path(), "/outer/inner"), None);
        write("outer/inner/memory.max", "max\n");
        write("outer/inner/memory.current", "900\n");
        write("outer/memory.max", "1000\n");
        write("outer/memory.current", "900\n");
        assert_eq!(left_to_group(root.path(), "/outer/inner"), Some(100));
        write("outer/memory.stat", "anon 500\ninactive_file 300\n");
        assert_eq!(left_to_group(root.path(), "/outer/inner"), Some(400));
        write("outer/inner/memory.max", "950\n");
        assert_eq!(left_to_group(root.path(), "/outer/inner"), Some(50));
    }

    #[test]
    fn sizes_are_told_in_units() {
        assert_eq!([512, 5 << 20, 3 << 39].map(bytes), ["0.5 KiB", "5.0 MiB", "1.5 TiB"]);
    }
}
