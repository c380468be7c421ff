//! Runs pipelines: a document that `spec` read becomes stages that pass groups to one another, step after step, with
//! commits that a killed run goes on from.
//!
//! * [`check`] holds a document against the plugins, data and models that it names;
//! * [`run`] and [`resume`] do what it says, and tell an [`Observer`] what happens;
//! * inside, `plan` is the DAG, `executor` runs one step of it, `stages` holds what each stage type does, `evaluate` looks
//!   at the model beside the DAG, and `drive` goes through phases and steps and commits.
//!
//! This crate never prints, never ends the process and knows no terminal. It decides nothing about numbers: what a loss is
//! stands in `learn`, what a token's probability is in `model`, what a verdict is in `host`, what is durable in `record`.
//! The speed and the order of threads must never show in a result.

pub mod bench;
mod drive;
mod environment;
mod error;
mod evaluate;
mod executor;
mod feed;
mod gates;
mod memory;
mod metrics;
mod observer;
mod phase;
mod plan;
mod plugins;
mod ready;
mod render;
mod run;
mod stages;
mod steps;

pub use error::Error;
pub use evaluate::elsewhere::{Completions, Judged, judge};
pub use observer::{Event, Observer};
pub use record::dataset;
pub use run::{Interrupt, Job, Origin, Outcome, check, latest, origin, resume, run};
