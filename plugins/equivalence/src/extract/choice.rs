//! Letters of multiple choice in prose.

use super::scan;

/// Candidates at one priority: start, end and the letter.
pub type Found<'a> = (usize, usize, &'a str);

/// The word itself at `at`, if it is one of `strings`.
fn key<'a>(text: &'a str, at: usize, strings: &[String]) -> Option<(usize, &'a str)> {
    let found = strings.iter().find(|string| !string.is_empty() && text[at..].starts_with(string.as_str()))?;
    Some((at + found.len(), &text[at..at + found.len()]))
}

/// What must follow: perhaps `**`, then a stop, white space or the end.
fn suffix(text: &str, at: usize) -> Option<usize> {
    let bold = if text[at..].starts_with("**") { at + 2 } else { at };
    match text[bold..].chars().next() {
        None => Some(bold),
        Some(c) if matches!(c, '.' | ',' | ':') || c.is_whitespace() => Some(bold + c.len_utf8()),
        Some(_) => None,
    }
}

/// The word with what must stand before and behind it.
fn anchored<'a>(text: &'a str, at: usize, strings: &[String]) -> Option<(usize, &'a str)> {
    let mut start = match text[at..].chars().next() {
        Some(c) if c.is_whitespace() => at + c.len_utf8(),
        _ if at == 0 => at,
        _ => return None,
    };
    if text[start..].starts_with("**") {
        start += 2;
    }
    let (end, found) = key(text, start, strings)?;
    Some((suffix(text, end)?, found))
}

/// The candidates of each priority, the highest first.
pub fn candidates<'a>(text: &'a str, strings: &[String]) -> Vec<Vec<Found<'a>>> {
    let mut groups: Vec<Vec<Found<'a>>> = vec![Vec::new(); 6];
    let mut at = 0;
    while let Some(start) = scan::find_ignoring_case(text, "final answer", at) {
        at = start + 1;
        let rest = start + "final answer".len();
        if let Some(after) = text[rest..].strip_prefix(" is") {
            let colon = text.len() - after.strip_prefix(':').unwrap_or(after).len();
            if let Some((end, found)) = key(text, scan::skip_spaces(text, colon), strings) {
                let dot = end + usize::from(text[end..].starts_with('.'));
                if text[scan::skip_spaces(text, dot)..].starts_with("I hope") {
                    groups[0].push((start, end, found));
                }
            }
        }
        for step in scan::steps(text, rest, 100) {
            let word = scan::skip_spaces(text, step);
            if word > step
                && let Some(after) = text[word..].strip_prefix("is")
            {
                let colon = text.len() - after.strip_prefix(':').unwrap_or(after).len();
                if let Some((end, found)) = key(text, scan::skip_spaces(text, colon), strings) {
                    groups[1].push((start, end, found));
                    break;
                }
            }
        }
    }
    at = 0;
    while let Some(start) = scan::find_ignoring_case(text, "answer", at) {
        at = start + 1;
        let rest = start + "answer".len();
        let colon = text[rest..].starts_with(':').then_some(rest + 1);
        for (group, from) in [(2, colon), (3, Some(rest))] {
            let Some(from) = from else { continue };
            if let Some((end, found)) = scan::steps(text, from, 50).find_map(|step| anchored(text, step, strings)) {
                groups[group].push((start, end, found));
            }
        }
    }
    let bold = if text.starts_with("**") { 2 } else { 0 };
    if let Some((end, found)) = key(text, bold, strings)
        && let Some(end) = suffix(text, end)
    {
        groups[4].push((0, end, found));
    }
    at = 0;
    while at < text.len() {
        match anchored(text, at, strings) {
            Some((end, found)) => {
                groups[5].push((at, end, found));
                at = end.max(at + 1);
            }
            None => at += 1,
        }
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    groups
}
