//! Products at the quickstart's shapes and larger ones. An item is a floating-point operation, so items a second are
//! FLOP/s.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::sync::Arc;

use candle_core::{Device, Tensor};
use divan::Bencher;
use divan::counter::ItemsCount;
use kernels::Param;
use kernels::ops::{self, Experts};

/// The product's own: speeds are those of its memory.
#[global_allocator]
static ALLOCATOR: kernels::memory::Allocator = kernels::memory::Allocator::new();

fn main() {
    kernels::memory::tune_allocator();
    divan::main();
}

/// Rows, inner width, outer width.
const SHAPES: [(usize, usize, usize); 14] = [
    (1, 512, 3072),
    (16, 512, 3072),
    (64, 512, 3072),
    (64, 512, 4096),
    (2048, 512, 3072),
    (2048, 1536, 512),
    (16, 128, 128),
    (256, 128, 128),
    (256, 128, 512),
    (1280, 128, 512),
    (1280, 256, 128),
    (10_240, 128, 512),
    (512, 1024, 1024),
    (1024, 2048, 4096),
];

fn tensor(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32 * 0.01 - 0.5).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn flops(&(m, k, n): &(usize, usize, usize)) -> ItemsCount {
    ItemsCount::new(2 * m * k * n)
}

#[divan::bench(args = SHAPES)]
fn forward(bencher: Bencher<'_, '_>, shape @ (m, k, n): (usize, usize, usize)) {
    let (x, w) = (tensor(&[m, k]), Param::frozen("w", tensor(&[n, k])).unwrap());
    bencher.counter(flops(&shape)).bench(|| ops::linear(&x, &w, None).unwrap());
}

/// The gradients of input and weights: two products.
#[divan::bench(args = SHAPES)]
fn backward(bencher: Bencher<'_, '_>, (m, k, n): (usize, usize, usize)) {
    let x = candle_core::Var::from_tensor(&tensor(&[m, k])).unwrap();
    let (w, ones) = (Param::new("w", tensor(&[n, k])).unwrap(), tensor(&[m, n]));
    let run = || (ops::linear(&x, &w, None).unwrap() * &ones).unwrap();
    bencher.counter(flops(&(m, 2 * k, n))).with_inputs(run).bench_values(|y| y.backward().unwrap());
}

/// Two of eight experts for each token.
#[divan::bench(args = [16, 256, 1280])]
fn experts(bencher: Bencher<'_, '_>, tokens: usize) {
    let (k, n) = (128, 128);
    let chosen: Vec<u32> = (0..tokens as u32).flat_map(|t| [t * 5 % 4, 4 + t * 3 % 4]).collect();
    let experts = Arc::new(Experts::new(&chosen, 2, 8));
    let (x, w) = (tensor(&[2 * tokens, k]), Param::frozen("w", tensor(&[8, n, k])).unwrap());
    bencher.counter(flops(&(2 * tokens, k, n))).bench(|| ops::grouped_linear(&x, &w, &experts).unwrap());
}
