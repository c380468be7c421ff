//! Untrusted text, made safe for a terminal.

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

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn escapes_what_could_move_the_cursor() {
        assert_eq!(escape("a\u{1b}[2Jb\u{202e}c\td\u{200b}\n"), "a\\u{1b}[2Jb\\u{202e}c\\td\\u{200b}\\n");
    }
}
