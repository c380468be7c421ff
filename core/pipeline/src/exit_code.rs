//! Exit codes are an interface: CI jobs branch on them.

/// Done.
pub const DONE: u8 = 0;
/// A finding: an invalid file, a failed test, data or plugins that don't fit it, a broken rule of the file.
pub const FINDING: u8 = 1;
/// Could not run: usage, IO, internal error.
pub const FAILED: u8 = 2;
/// Interrupted, and resumable.
pub const INTERRUPTED: u8 = 3;
/// No test was selected.
pub const NO_TESTS: u8 = 4;
