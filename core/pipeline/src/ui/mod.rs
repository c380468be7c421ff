//! What people see.

pub mod diagnostics;
pub mod interrupt;
pub mod progress;
pub mod summary;
pub mod tracing;

use std::io::{ErrorKind, IsTerminal, Write};

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

/// Text that a model or a file wrote, made safe for a terminal: control, escape and bidi characters become visible.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let bidi =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}');
        if c == '\n' {
            safe.push(c);
        } else if c.is_control() || bidi {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn escapes_what_could_move_the_cursor() {
        assert_eq!(escape("a\u{1b}[2Jb\u{202e}c\td\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{9}d\n");
    }
}
