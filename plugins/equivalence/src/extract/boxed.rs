//! What stands in boxes: `\boxed{..}`, `\fbox{..}`.

/// Boxes at most; more are no answer.
const BOXES: usize = 64;

/// A box: where its command begins, what it holds, and the byte after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boxed<'a> {
    /// Where the backslash is.
    pub start: usize,
    /// What it holds, trimmed.
    pub content: &'a str,
    /// The byte after its closing brace.
    pub end: usize,
}

/// The boxes of a text, from the last to the first, outermost ones only. A last box that is not closed holds the rest.
pub fn from_last(text: &str) -> Vec<Boxed<'_>> {
    let mut found: Vec<Boxed<'_>> = Vec::new();
    let mut limit = text.len();
    // Those that are not closed count as well: each was looked through to the end.
    for _ in 0..BOXES {
        let Some((start, open)) = last_command(&text[..limit]) else { break };
        let Some(content) = opened(text, open) else {
            limit = start;
            continue;
        };
        match content {
            Opened::Braced(inside) => match closing(text, inside) {
                Some(end) => {
                    // A box inside this one is part of what it holds.
                    while found.last().is_some_and(|inner| inner.start < end) {
                        found.pop();
                    }
                    found.push(Boxed { start, content: text[inside..end].trim(), end: end + 1 });
                }
                None if found.is_empty() => {
                    found.push(Boxed { start, content: text[inside..].trim(), end: text.len() });
                }
                None => {}
            },
            Opened::Bare(from, end) => {
                if found.is_empty() {
                    found.push(Boxed { start, content: text[from..end].trim(), end });
                }
            }
        }
        limit = start;
    }
    found
}

enum Opened {
    Braced(usize),
    Bare(usize, usize),
}

fn last_command(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    (0..bytes.len()).rev().filter(|&at| bytes[at] == b'\\').find_map(|at| {
        let name = [&b"boxed"[..], b"fbox"].into_iter().find(|name| bytes[at + 1..].starts_with(name))?;
        Some((at, at + 1 + name.len()))
    })
}

fn opened(text: &str, at: usize) -> Option<Opened> {
    let rest = &text[at..];
    let from = at + rest.len() - rest.trim_start().len();
    if text[from..].starts_with('{') {
        return Some(Opened::Braced(from + 1));
    }
    // `\boxed 5` is followed by what it holds, up to the end of the formula.
    if from == at {
        return None;
    }
    let end = text[from..].find(['$', '\n']).map_or(text.len(), |i| from + i);
    (end > from).then_some(Opened::Bare(from, end))
}

/// Where the brace closes whose inside begins at `from`.
pub fn closing(text: &str, from: usize) -> Option<usize> {
    let mut depth = 1;
    for (i, byte) in text.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return Some(i);
        }
    }
    None
}

/// The last box, and those before it that belong to the same answer: close by, or joined by a conjunction.
pub fn last_answer(text: &str) -> Vec<&str> {
    let mut answer: Vec<&str> = Vec::new();
    let mut next: Option<Boxed<'_>> = None;
    for found in from_last(text) {
        if let Some(next) = next {
            let between = &text[found.end.min(next.start)..next.start];
            let length = between.chars().count();
            let is_close = length < 10 || length < 70 && found.content != next.content && has_separator(between);
            if !is_close {
                break;
            }
        }
        if answer.last() != Some(&found.content) {
            answer.push(found.content);
        }
        next = Some(found);
    }
    answer.reverse();
    answer
}

/// All boxes in order, repeated neighbours once.
pub fn all(text: &str) -> Vec<&str> {
    let mut contents: Vec<&str> = from_last(text).into_iter().map(|found| found.content).collect();
    contents.dedup();
    contents.reverse();
    contents
}

fn has_separator(between: &str) -> bool {
    between.contains([',', ';'])
        || between.split(|c: char| !c.is_alphanumeric()).any(|word| word == "and" || word == "or")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_that_stand_together_are_one_answer() {
        assert_eq!(last_answer(r"\boxed{1} and \boxed{2}"), ["1", "2"]);
        assert_eq!(last_answer(r"\boxed{1} papers and \boxed{2} bins"), ["1", "2"]);
        assert_eq!(last_answer(r"\boxed{1} no no no no no \boxed{2}"), ["2"]);
        assert_eq!(last_answer(r"\fbox{\frac{1}{2}} and \boxed{\boxed{3}}"), [r"\frac{1}{2}", r"\boxed{3}"]);
        assert_eq!(last_answer(r"so \boxed{4"), ["4"]);
        assert_eq!(last_answer(r"so $\boxed 5$."), ["5"]);
        assert_eq!(last_answer("none"), [""; 0]);
    }
}
