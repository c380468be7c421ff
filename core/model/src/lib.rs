//! The transformer: what a checkpoint means, and the two walks over its weights.
//!
//! One set of weights serves a *sampling* walk (no graph, a cache with a slot for each sequence) and a *learning* walk
//! (differentiable, whole sequences packed without padding). Both are the same function, `Transformer::forward`, so
//! that on the CPU the log-probability that learning computes is the sampled one bit for bit.
//!
//! This crate knows no reward, no loss, no optimiser, no pipeline file and no plugin. It must never decide what is worth
//! learning, must never print, and must never read a clock: what it gives depends on files, weights and counters alone.

mod attention;
pub mod cache;
pub mod chat_template;
pub mod check;
pub mod config;
mod error;
mod info;
mod lora;
pub mod memory;
mod model;
mod moe;
pub mod sampler;
#[cfg(test)]
mod tests;
mod tokenizer;
mod trace;
mod transformer;
mod weights;

pub use chat_template::ChatTemplate;
pub use config::Config;
pub use error::{Error, Result};
pub use info::Info;
pub use lora::Lora;
pub use model::{LogProbs, Model, Scores, Sequence, Walk};
pub use tokenizer::Tokenizer;
pub use trace::Trace;
pub use transformer::Learning;
