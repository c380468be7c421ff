//! What people see.

pub mod diagnostics;
pub mod interrupt;
pub mod progress;
pub mod summary;
pub mod tracing;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;

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

/// What a terminal would obey (controls), reorder (bidi marks) or hide.
fn unsafe_letter(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// Text that a model, a plugin or a file wrote, on one line, with what could deceive a reader as `\u{...}`.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if unsafe_letter(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// A path as a shell takes it.
pub fn argument(path: &Path) -> String {
    let text = escape(&path.display().to_string());
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+:@%".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn escapes_what_could_move_the_cursor() {
        assert_eq!(escape("a\u{1b}[2Jb\u{202e}c\td\u{200b}\n"), "a\\u{1b}[2Jb\\u{202e}c\\td\\u{200b}\\n");
    }
}
