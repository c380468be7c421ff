//! Walking through a text byte by byte.

/// White space in a row that is looked through at most.
const SPACES: usize = 500;

/// The byte after the white space at `at`.
pub fn skip_spaces(text: &str, at: usize) -> usize {
    let mut end = at;
    while end < text.len() && end - at < SPACES {
        match text[end..].chars().next() {
            Some(c) if c.is_whitespace() => end += c.len_utf8(),
            _ => break,
        }
    }
    end
}

/// The character before `at`.
pub fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

/// Where `word` stands, in any case, from `from` on. `word` is in lower case.
pub fn find_ignoring_case(text: &str, word: &str, from: usize) -> Option<usize> {
    let (bytes, word) = (text.as_bytes(), word.as_bytes());
    let last = bytes.len().checked_sub(word.len())?;
    (from..=last)
        .find(|&at| bytes[at].to_ascii_lowercase() == word[0] && bytes[at..at + word.len()].eq_ignore_ascii_case(word))
}

/// Where `word` stands last, in any case.
pub fn rfind_ignoring_case(text: &str, word: &str) -> Option<usize> {
    let (bytes, word) = (text.as_bytes(), word.as_bytes());
    let last = bytes.len().checked_sub(word.len())?;
    (0..=last)
        .rev()
        .find(|&at| bytes[at].to_ascii_lowercase() == word[0] && bytes[at..at + word.len()].eq_ignore_ascii_case(word))
}

/// The positions of the first `count + 1` characters from `from` on: what a lazy `.{0,count}?` tries.
pub fn steps(text: &str, from: usize, count: usize) -> impl Iterator<Item = usize> + '_ {
    text[from..].char_indices().map(move |(i, _)| from + i).chain([text.len()]).take(count + 1)
}

/// The byte after a word for "per cent" at `at`.
pub fn percent(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    for word in ["\\%", "%", "percentage", "Percentage", "percent", "Percent", "pct", "Pct"] {
        if rest.starts_with(word) {
            return Some(at + word.len());
        }
    }
    None
}

/// The byte after `,? and`, `,? or` or `,` with the white space around it.
pub fn conjunction(text: &str, at: usize) -> Option<usize> {
    let mut end = skip_spaces(text, at);
    let has_comma = text[end..].starts_with(',');
    end += usize::from(has_comma);
    let word = if has_comma { skip_spaces(text, end) } else { end };
    for conjunction in ["and", "or"] {
        if text[word..].starts_with(conjunction) {
            return Some(skip_spaces(text, word + conjunction.len()));
        }
    }
    has_comma.then(|| skip_spaces(text, end))
}
