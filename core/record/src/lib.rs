//! A run's folder: everything that a run leaves on a disk, and how it survives a crash.
//!
//! ```text
//! DIR/NAME/0001/
//!   pipeline.toml lock.json      the file as it was run, and what it resolved to
//!   events.jsonl                 the log; not covered by exactness
//!   metrics.jsonl timing.jsonl   one flat JSON object a line
//!   rollouts/step-000050.parquet every completion of a step
//!   evaluations/NAME/            what an evaluation saw after a step: step-000050.parquet
//!   checkpoints/step-000050/     appears whole or not at all; `state.json` has the hashes
//!   collected/                   datasets that the run made
//!   phases/NAME/                 the last four, for each phase of a recipe
//! ```
//!
//! A checkpoint is the commit. Its [`Mark`] says how long every other file was, so that a resumed run first cuts them
//! back ([`RunFolder::rewind`]) and then writes the same bytes again.
//!
//! This crate knows no model, no stage and no plugin, and it never decides what to run. Nothing else in the workspace
//! makes a run's state durable, and nothing here is visible to a reader before it is whole.

mod checkpoint;
mod collected;
pub mod dataset;
mod durable;
mod error;
mod evaluations;
mod folder;
mod json;
mod lines;
mod parquet_file;
mod rollouts;

pub use checkpoint::{Checkpoint, Checkpoints, Damaged, Keep, Latest};
pub use collected::{Answer, Collected, CollectedRow};
pub use durable::hash_file;
pub use error::{Error, Result};
pub use evaluations::{Answered, Evaluations};
pub use folder::{Events, FileMark, Mark, Metrics, PhaseFolder, Rewound, RunFolder};
pub use rollouts::Rollouts;
