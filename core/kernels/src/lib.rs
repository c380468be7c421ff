//! Fused tensor operations with their gradients, for the CPU and (composed of candle's own) for CUDA.
//!
//! This crate knows candle, threads and instruction sets. It must never know a model, a tokenizer, a file or a
//! loss: an operation here has shapes and numbers, and nobody to please.
//!
//! # Exactness
//! On the CPU every tensor is f32, and every output element has one value, whatever the number of threads and
//! whichever instruction set is there:
//! * a product sums over `k` in ascending order by fused multiply-add, starting from +0.0 or from what it adds to;
//! * other sums over a row use one fixed tree: lane = index mod 16, then pairwise over 8, 4, 2, 1;
//! * `exp`, `ln`, `sigmoid` and `silu` are ours ([`math`]) or the `libm` crate's;
//! * an output element is computed wholly by one thread, from its own row (and sequence) only.
//!
//! So a token sampled with a cache has the same bits as the same token in a packed batch, and splitting a batch into
//! passes of whole sequences changes no bit of a gradient.
//!
//! The composed twins in [`ops::slow`] serve other devices, and tests hold the fused operations against them.

mod gemm;
pub mod machine;
pub mod math;
pub mod memory;
pub mod ops;
pub mod optim;
mod param;
pub mod pool;
mod recompute;
mod scratch;
mod simd;
mod tape;

#[cfg(test)]
extern crate self as kernels; // what the tests share names the crate from outside
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;

pub use candle_core::Result;
pub use param::Param;
pub use recompute::recompute;
pub use tape::backward;
