//! What a plugin's author needs: the plugin's folder, its tests, judging files, measuring.
//!
//! This crate knows how a plugin is named, tested and measured. It must never print, exit or know a terminal, and it knows
//! nothing of runs: no stage, no model, no dataset.

mod answers;
mod build;
mod info;
mod judge;
mod junit;
mod manifest;
mod measure;
mod new;
mod quantiles;
mod rows;
mod runtime;
mod tests;

pub use build::{BuildError, Built, ComponentizeError, Toolchains, build, componentize};
pub use info::{Configuring, Info, info};
pub use judge::{Judge, JudgeError, Summary};
pub use junit::junit;
pub use manifest::{Budget, Error, Plugin, find, open};
pub use measure::{Measured, Work, limits, measure};
pub use new::{LANGUAGES, Language, NewError, new};
pub use quantiles::Quantiles;
pub use rows::groups;
pub use runtime::{RuntimeError, build_runtime};
pub use tests::{Report, Tested, test};
