//! The arithmetic of learning: advantages, losses, learning rates, AdamW, and how a step is cut into updates and passes.
//!
//! This crate knows tensors and numbers. It must never know a file, a model, a plugin or where a reward came from; and
//! no result of it may depend on a clock, on the number of threads or on the order of a hash map.

mod adamw;
mod advantage;
mod aggregation;
mod batches;
mod correction;
mod divergence;
mod loss;
mod preference;
mod schedule;
mod surrogate;

pub use adamw::{AdamW, StateTensor, StepStats};
pub use advantage::{Advantage, AdvantageSettings, Baseline, Scale, Scored, advantages, quantile, returns};
pub use aggregation::Aggregation;
pub use batches::{minibatches, pack};
pub use correction::{Bounding, Correction, Level, Mismatch};
pub use divergence::{Divergence, Estimator};
pub use loss::{LossSettings, LossStats, PassInput, Penalty, Ratio, policy_loss, sft_loss};
pub use preference::{PreferenceStats, binary_loss, bradley_terry_loss, sigmoid};
pub use schedule::{Schedule, ScheduleKind};
pub use surrogate::{Clip, Surrogate};
