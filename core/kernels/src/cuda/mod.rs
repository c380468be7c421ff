//! The operations on an NVIDIA GPU, with the same fronts as on the CPU.
//!
//! Activations, gradients, sums, norms, softmax and router are f32; a product reads a parameter in what that computes in,
//! and rounds its other factor to the same, adding up in f32. Work goes to one stream and nothing waits for it but a
//! download; what the host tells the device (tokens, positions, segments) is uploaded once as long as it stays the same.
//! No kernel adds by atomics and cuBLAS serves one stream, so that numbers repeat on the same GPU, driver and libraries.
//! A tensor that is not f32 on a GPU goes to the composed twin.

mod attention;
mod experts;
mod gpu;
mod linear;
mod logprobs;
mod node;
pub(crate) mod optim;
mod rows;

pub(crate) use attention::Cached;
pub use attention::{attention, latent_attention};
pub(crate) use experts::Sorted;
pub use experts::{chosen, combine, grouped_linear, route, to_experts};
pub use gpu::device;
pub use linear::{head_linear, latent_query, linear};
pub use logprobs::token_logprobs;
pub use rows::{embed, gather_rows, heads, known, latent_key, rms_norm, rope, silu_mul};

pub use crate::ops::slow::{add, column};
