//! The quickstart's model with random weights: sampling, learning and judging. An item is a token.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::{Prompt, RngKey};
use candle_core::{DType, Device};
use divan::Bencher;
use divan::counter::ItemsCount;
use kernels::Param;
use learn::{AdamW, sft_loss};
use model::sampler::{Request, Settings, sample};
use model::{Model, Sequence, Walk};

/// The product's own: speeds are those of its memory.
#[global_allocator]
static ALLOCATOR: kernels::memory::Allocator = kernels::memory::Allocator::new();

fn main() {
    kernels::memory::tune_allocator();
    divan::main();
}

/// Prompts, and completions of each.
const PROMPTS: usize = 16;
const COMPLETIONS: usize = 16;
const TOKENS: usize = 30;

/// The model, ended by no token, so that every completion has its full length.
fn model() -> Model {
    let file =
        |name: &str| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/quickstart")).join(name);
    let text = std::fs::read_to_string(file("model.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    std::fs::write(&config, text.replace("\"eos_token_id\": 1", "\"eos_token_id\": null")).unwrap();
    Model::init(&config, &file("tokenizer.json"), None, RngKey::new(1, "init"), &Device::Cpu, DType::F32).unwrap()
}

fn prompt(model: &Model, i: usize) -> Vec<u32> {
    model.tokenizer.encode(&format!("<user>{}+{}=?<assistant>", 101 + i * 37, 880 - i * 23)).unwrap()
}

#[divan::bench]
fn sampling(bencher: Bencher<'_, '_>) {
    let model = model();
    let request = |i: usize| {
        let prompt = Prompt {
            id: i as u64,
            source: "bench".into(),
            messages: Vec::new(),
            text: String::new(),
            tokens: prompt(&model, i),
            reference: None,
            response: None,
            learned: Vec::new(),
            fields: Vec::new(),
        };
        Request { prompt: Arc::new(prompt), index: i as u64, completions: COMPLETIONS }
    };
    let requests: Vec<Request> = (0..PROMPTS).map(request).collect();
    let slots = PROMPTS * COMPLETIONS;
    let settings = Settings::new(TOKENS, slots);
    let (key, stop) = (RngKey::new(1, "sample"), AtomicBool::new(false));
    bencher.counter(ItemsCount::new(slots * TOKENS)).bench(|| {
        let stats = sample(&model, &requests, &settings, key, 0, &stop, &mut |_, _| ()).unwrap();
        assert_eq!(stats.tokens, slots * TOKENS);
    });
}

/// Whole sequences, of some length each.
fn rows(model: &Model, count: usize) -> Vec<(Vec<u32>, usize)> {
    let row = |i: usize| {
        let mut tokens = prompt(model, i % 30);
        let from = tokens.len();
        tokens.extend((0..TOKENS - 8 + i % 17).map(|t| 2 + ((t * 7 + i * 3) % 20) as u32));
        (tokens, from)
    };
    (0..count).map(row).collect()
}

fn sequences(rows: &[(Vec<u32>, usize)]) -> (Vec<Sequence<'_>>, ItemsCount) {
    let sequences: Vec<_> = rows.iter().map(|(tokens, from)| Sequence::new(tokens, *from)).collect();
    let tokens: usize = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
    (sequences, ItemsCount::new(tokens))
}

/// Forward and backward pass, and a step of AdamW.
#[divan::bench(args = [32, 256])]
fn learning(bencher: Bencher<'_, '_>, count: usize) {
    let model = model();
    let rows = rows(&model, count);
    let (sequences, tokens) = sequences(&rows);
    let params = model.params();
    let mut optimizer = AdamW::new(&params, (0.9, 0.95), 1e-8, 0.1, Model::decays).unwrap();
    bencher.counter(tokens).bench_local(|| {
        params.iter().for_each(Param::zero_grad);
        let walk = model.logprobs(&sequences, 1.0, Walk::Learn).unwrap();
        let targets = walk.values.elem_count();
        let loss = sft_loss(&walk.values, &vec![1.0 / targets as f64; targets]).unwrap();
        let mut gradients = kernels::backward(&loss).unwrap();
        params.iter().for_each(|param| param.collect(&mut gradients).unwrap());
        let stats = optimizer.step(&params, 1e-5, Some(1.0)).unwrap();
        assert!(stats.missing.is_empty());
    });
}

/// Log-probabilities only.
#[divan::bench(args = [32, 256])]
fn judging(bencher: Bencher<'_, '_>, count: usize) {
    let model = model();
    let rows = rows(&model, count);
    let (sequences, tokens) = sequences(&rows);
    bencher.counter(tokens).bench(|| model.logprobs(&sequences, 1.0, Walk::Frozen).unwrap());
}
