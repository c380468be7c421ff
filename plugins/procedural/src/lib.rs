//! What the families of generated problems share, so that a family is only its puzzle.
//!
//! A [`Family`] draws a puzzle of a difficulty, asks it in words, solves it, and judges an answer. [`Task`] makes of it a
//! plugin that both generates rows and verifies completions: it holds problems out by a hash of what is asked, fills in the
//! prompt's template, lays out the record, and takes the answer from its tags.
//!
//! Every family's row has the same layout: one user message; as `reference` one right answer; and the fields `difficulty`,
//! `puzzle` (JSON, which is what its verifier goes by) and `response` (a chain of thought with the answer, to imitate).

#[cfg(feature = "check")]
pub mod check;
mod random;
mod split;
mod sums;
mod task;
mod template;

pub use random::{Bijection, Stream};
pub use split::Split;
pub use sums::{Sums, guess};
pub use task::{Family, Judged, Solution, Task, quoted, tagged};
