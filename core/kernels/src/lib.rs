//! Fused tensor operations with their gradients, for the CPU and for NVIDIA GPUs (feature `cuda`).
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
//! On a GPU numbers repeat on the same GPU, driver and libraries; nothing more is promised there.
//!
//! The composed twins in [`ops::slow`] serve what is neither, and tests hold the fused operations against them.

#[cfg(feature = "cuda")]
mod cuda;
pub mod distribution;
mod gemm;
pub mod machine;
pub mod math;
mod matrices;
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
#[cfg(feature = "cuda")]
pub use cuda::device as gpu;
pub use param::Param;
pub use recompute::recompute;
pub use tape::backward;

/// The first NVIDIA GPU.
///
/// # Errors
/// Always: this program was built without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
pub fn gpu() -> Result<candle_core::Device> {
    candle_core::bail!("this program was built without the feature `cuda`")
}
