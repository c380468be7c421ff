//! What a plugin's author needs: the plugin's folder, its tests, judging files, measuring.
//!
//! This crate knows how a plugin is named, tested and measured. It must never print, exit or know a terminal, and it knows
//! nothing of runs: no stage, no model, no dataset.

mod answers;
mod judge;
mod junit;
mod manifest;
mod quantiles;
mod rows;
mod tests;

pub use judge::{Judge, JudgeError, Summary};
pub use junit::junit;
pub use manifest::{Budget, Error, Plugin, find, open};
pub use quantiles::Quantiles;
pub use tests::{Report, Tested, test};
