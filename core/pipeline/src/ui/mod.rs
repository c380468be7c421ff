//! What people see.

pub mod diagnostics;
pub mod interrupt;
pub mod progress;
pub mod summary;
pub mod table;
mod text;
pub mod tracing;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;

pub use text::{escape, escape_lines, json};

/// Whether stderr takes colours: a terminal, and `NO_COLOR` is not set.
pub fn colors() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes human text to stderr. A terminal that is gone, or a reader that has enough, must not end a run.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes data to stdout.
///
/// # Errors
/// It can't be written; not that the reader has enough.
pub fn give(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("failed to write to stdout"),
        _ => Ok(()),
    }
}

/// A path as a shell takes it.
pub fn argument(path: &Path) -> String {
    let text = escape(&path.display().to_string());
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+:@%".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
