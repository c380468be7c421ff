//! The choice of 64 tokens, each from a row of logits of its own. An item is a token.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use base::RngKey;
use divan::Bencher;
use divan::counter::ItemsCount;
use kernels::pool;
use model::sampler::Settings;
use model::sampler::choose::{Scratch, token};

/// The product's own: speeds are those of its memory.
#[global_allocator]
static ALLOCATOR: kernels::memory::Allocator = kernels::memory::Allocator::new();

fn main() {
    divan::main();
}

const ROWS: usize = 64;
const VOCABULARIES: [usize; 3] = [4096, 32768, 151_936];

/// Logits as wide as a trained model's: normal with deviation 2.5, as sums of twelve uniform numbers.
fn rows(vocab: usize) -> Vec<(Vec<f32>, Scratch)> {
    let key = RngKey::new(1, "logits");
    let logit = |row: usize, i: usize| {
        let words = (0..3).flat_map(|part| key.words([row as u32, i as u32, part, 0]));
        (words.map(|word| word as f32 / u32::MAX as f32).sum::<f32>() - 6.0) * 2.5
    };
    (0..ROWS).map(|row| ((0..vocab).map(|i| logit(row, i)).collect(), Scratch::default())).collect()
}

fn choose(bencher: Bencher<'_, '_>, vocab: usize, settings: &Settings) {
    let (mut rows, key) = (rows(vocab), RngKey::new(1, "choose"));
    let history: Vec<u32> = (0..500).map(|i| i * 31 % 4096).collect();
    let mut step = 0;
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        step += 1;
        pool::each(&mut rows, 1, |(logits, scratch)| {
            divan::black_box(token(logits, [&history, &[]], settings, key.words([step, 0, 0, 0]), scratch).unwrap());
        });
    });
}

#[divan::bench(args = VOCABULARIES)]
fn plain(bencher: Bencher<'_, '_>, vocab: usize) {
    choose(bencher, vocab, &Settings::new(1, 1));
}

#[divan::bench(args = VOCABULARIES)]
fn top_p(bencher: Bencher<'_, '_>, vocab: usize) {
    choose(bencher, vocab, &Settings { temperature: 0.6, top_p: Some(0.95), ..Settings::new(1, 1) });
}

#[divan::bench(args = VOCABULARIES)]
fn all_options(bencher: Bencher<'_, '_>, vocab: usize) {
    let settings = Settings {
        repetition_penalty: Some(1.1),
        temperature: 0.8,
        top_k: Some(50),
        top_p: Some(0.95),
        min_p: Some(0.05),
        ..Settings::new(1, 1)
    };
    choose(bencher, vocab, &settings);
}
