//! The arithmetic of learning: advantages, losses, learning rates, AdamW, and how a step is cut into updates and passes.
//!
//! This crate knows tensors and numbers. It must never know a file, a model, a plugin or where a reward came from; and
//! no result of it may depend on a clock, on the number of threads or on the order of a hash map.

mod adamw;
mod advantage;
mod batches;
mod loss;
mod preference;
mod schedule;

pub use adamw::{AdamW, StateTensor, StepStats};
pub use advantage::{Scale, group_advantages};
pub use batches::{minibatches, pack};
pub use loss::{GrpoSettings, GrpoStats, PassInput, grpo_loss, sft_loss};
pub use preference::{PreferenceStats, binary_loss, bradley_terry_loss, sigmoid};
pub use schedule::{Schedule, ScheduleKind};
