//! The operations. Each takes tensors of the shapes it names, refuses others, and has a gradient.
//!
//! On the CPU in f32 an operation is fused; elsewhere it is its composed twin of [`slow`].

mod attention;
mod experts;
mod rope;
mod router;
pub mod slow;

pub use attention::{LayerCache, Segment, attention};
pub use experts::Experts;
pub use rope::Rope;
pub use router::{Router, route};
pub use slow::{
    combine, embed, gather_rows, grouped_linear, head_linear, linear, rms_norm, rope, silu_mul, token_logprobs,
};

pub use crate::math::logprob_of;
