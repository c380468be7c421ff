//! Untrusted text, made safe for a terminal.

use serde_json::Value;

/// What a terminal would obey (controls), reorder (bidi marks) or hide.
pub fn unsafe_letter(letter: char) -> bool {
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

/// [`escape`] for text of several lines.
pub fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// JSON for people and programs. It escapes what is below U+0020 by itself; the rest that a terminal obeys can be escaped
/// within strings alone, and outside of strings JSON is ASCII.
pub fn json(value: &Value) -> String {
    let mut out = String::new();
    for letter in format!("{value:#}").chars() {
        match letter {
            '\n' => out.push('\n'),
            _ if unsafe_letter(letter) => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{escape, escape_lines, json};

    #[test]
    fn escapes_what_could_move_the_cursor() {
        assert_eq!(escape("a\u{1b}[2Jb\u{202e}c\td\u{200b}\n"), "a\\u{1b}[2Jb\\u{202e}c\\td\\u{200b}\\n");
    }
    #[test]
    fn lines_stay_and_json_stays_json() {
        assert_eq!(escape_lines("a\u{1b}\nb"), "a\\u{1b}\nb");
        let value = serde_json::json!({"\u{1b}": ["\u{202e}", "\n"]});
        let text = json(&value);
        assert!(!text.contains('\u{202e}') && !text.contains('\u{1b}'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON"), value);
    }
}
