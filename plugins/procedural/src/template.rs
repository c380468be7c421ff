//! Prompts with `{placeholders}`.

/// Fills in the placeholders; those that `words` lacks stay as they are. What is filled in is not looked at again.
pub fn fill<'a>(template: &str, words: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, name, after)) = next(rest) {
        text.push_str(before);
        match words(name) {
            Some(word) => text.push_str(word),
            None => text.extend(["{", name, "}"]),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// The names of all placeholders.
pub fn placeholders(template: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((_, name, after)) = next(rest) {
        names.push(name);
        rest = after;
    }
    names
}

/// The text before the next placeholder, its name, and the text after it.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let open = from + text[from..].find('{')?;
        let len = text[open + 1..].bytes().take_while(|b| b.is_ascii_lowercase() || *b == b'_').count();
        let close = open + 1 + len;
        if len > 0 && text[close..].starts_with('}') {
            return Some((&text[..open], &text[open + 1..close], &text[close + 1..]));
        }
        from = open + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_names_in_braces_and_filled_in_once() {
        let words = |name: &str| match name {
            "a" => Some("{b}"),
            "b" => Some("2"),
            _ => None,
        };
        assert_eq!(fill("{a}+{b}={c} { {} {{b}", words), "{b}+2={c} { {} {2");
        assert_eq!(placeholders("{a}+{b}={c} { {} {{b}"), ["a", "b", "c", "b"]);
    }
}
