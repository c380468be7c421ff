//! Searches for short marks.
//!
//! std's two-way search is longer than most plugins; marks are tags and phrases of a few bytes, so looking for their first
//! byte, eight at a time, is shorter and faster.

const LANES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = LANES << 7;

/// Where `byte` stands first, at `from` or after it.
pub fn find_byte(text: &[u8], byte: u8, from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    let (chunks, tail) = rest.as_chunks::<8>();
    let wanted = LANES * u64::from(byte);
    for (i, chunk) in chunks.iter().enumerate() {
        // A lane is zero where the bytes are equal; the lowest marked lane is exact, those above it may be borrowed into.
        let differing = u64::from_le_bytes(*chunk) ^ wanted;
        let equal = differing.wrapping_sub(LANES) & !differing & HIGH;
        if equal != 0 {
            return Some(from + 8 * i + equal.trailing_zeros() as usize / 8);
        }
    }
    let done = from + 8 * chunks.len();
    tail.iter().position(|b| *b == byte).map(|i| done + i)
}

/// Where `mark` stands first, at byte `from` or after it. An empty mark stands nowhere.
pub fn find_from(text: &str, mark: &str, from: usize) -> Option<usize> {
    let (text, mark) = (text.as_bytes(), mark.as_bytes());
    let first = *mark.first()?;
    let mut at = from;
    loop {
        at = find_byte(text, first, at)?;
        if text[at..].starts_with(mark) {
            return Some(at);
        }
        at += 1;
    }
}

/// Where `mark` stands first.
pub fn find(text: &str, mark: &str) -> Option<usize> {
    find_from(text, mark, 0)
}

/// Where `mark` stands last. An empty mark stands nowhere.
pub fn rfind(text: &str, mark: &str) -> Option<usize> {
    let (text, mark) = (text.as_bytes(), mark.as_bytes());
    let first = *mark.first()?;
    (0..=text.len().checked_sub(mark.len())?).rev().find(|&at| text[at] == first && text[at..].starts_with(mark))
}

/// How often `mark` stands in the text, without overlap.
pub fn count(text: &str, mark: &str) -> usize {
    let (mut found, mut at) = (0, 0);
    while let Some(start) = find_from(text, mark, at) {
        found += 1;
        at = start + mark.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_agree_with_std() {
        let texts =
            ["", "a", "<a><b><a>", "é<é<a></a>", "aaaaaaaaaaaaaaaaaaab", "\u{3c01}<\u{3c3c}x<x<x", "12345678<12345678"];
        for text in texts {
            for mark in ["<", "<a>", "a", "aa", "b", "é", "x<x", "8<"] {
                assert_eq!(find(text, mark), text.find(mark), "{text} {mark}");
                assert_eq!(rfind(text, mark), text.rfind(mark), "{text} {mark}");
                assert_eq!(count(text, mark), text.matches(mark).count(), "{text} {mark}");
            }
            assert_eq!((find(text, ""), rfind(text, ""), count(text, "")), (None, None, 0));
        }
        assert_eq!(find_from("abcabc", "a", 1), Some(3));
        assert_eq!(find_from("abc", "a", 9), None);
    }

    /// Bytes next to each other that differ by one are where the arithmetic on eight at a time could go wrong.
    #[test]
    fn every_byte_is_found_at_every_place() {
        for byte in 0..=255_u8 {
            for at in 0..20 {
                let mut text = [byte ^ 1; 20];
                text[at] = byte;
                assert_eq!(find_byte(&text, byte, 0), Some(at));
                assert_eq!(find_byte(&text, byte ^ 2, 0), None);
            }
        }
    }
}
