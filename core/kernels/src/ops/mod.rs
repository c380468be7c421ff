//! The operations. Each takes tensors of the shapes it names, refuses others, and has a gradient.
//!
//! In f32 on the CPU and on a GPU an operation is fused; elsewhere it is its composed twin of [`slow`].

mod adapter;
mod attention;
mod balance;
mod basic;
mod experts;
mod heads;
mod latent;
mod linear;
mod logprobs;
mod node;
mod norm;
mod rope;
mod router;
mod rows;
pub mod slow;

#[cfg(not(feature = "cuda"))]
use slow as elsewhere;

#[cfg(feature = "cuda")]
use crate::cuda as elsewhere;

pub use adapter::Adapter;
pub use attention::{LayerCache, Segment, attention, latent_attention};
pub use balance::balance;
pub use basic::{add, column, known, reshape};
pub use experts::{Experts, chosen, to_experts};
pub use heads::{HeadRange, heads};
pub use latent::{latent_key, latent_query};
pub use linear::{grouped_linear, head_linear, linear};
pub use logprobs::token_logprobs;
pub(crate) use node::{Shared, fused, owning_node, read, read_as};
pub use norm::{rms_norm, silu_mul};
pub use rope::{Rope, rope};
pub use router::{Router, route};
pub use rows::{combine, embed, gather_rows};
