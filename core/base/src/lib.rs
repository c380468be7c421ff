//! Plain data that every room shares: prompts, completions, verdicts, limits, grants, random numbers, diagnostics.
//!
//! This crate knows no file, no tensor, no clock, no thread and no plugin. It must never perform IO, and it must never
//! depend on another crate of the workspace.

pub mod diagnostic;
pub mod flow;
pub mod grants;
pub mod limits;
pub mod rng;
pub mod verdict;

pub use diagnostic::{Diagnostic, Severity, Span};
pub use flow::{Completion, Finish, Group, Message, Prompt, RoutedExperts};
pub use grants::{Grants, Runs};
pub use limits::Limits;
pub use rng::RngKey;
pub use verdict::{Context, Decision, Finding, Judgement, Row, Verdict};
