//! LaTeX environments in prose: `$..$`, `$$..$$`, `\(..\)`, `\[..\]`, ` [..] `, and bare `\frac{1}{2}`.

use super::scan;

/// What an environment holds, and whether a word for "per cent" follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formula<'a> {
    /// Between the delimiters.
    pub content: &'a str,
    /// Whether `%` or a word for it stands behind.
    pub is_percent: bool,
}

/// Environments that are joined by conjunctions: where they begin and end, and what they hold.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Where the first begins.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// What they hold.
    pub formulas: Vec<Formula<'a>>,
}

/// Bytes from an environment's beginning to its box at most.
const BACK: usize = 8000;

/// Environments in a group at most.
const JOINED: usize = 6;

/// Finds environments in one text; it remembers where nothing closes, so that a search is not repeated.
pub struct Environments<'a> {
    text: &'a str,
    /// For `\]`, `\)`, `$$` and `$`: a stretch in which no environment closes.
    unclosed: [std::ops::Range<usize>; 4],
}

impl<'a> Environments<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, unclosed: [0..0, 0..0, 0..0, 0..0] }
    }

    /// All groups, from left to right without overlap.
    pub fn all(&mut self) -> Vec<Group<'a>> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(next) = self.next_start(at) {
            match self.group(next, false) {
                Some(group) => {
                    at = group.end;
                    found.push(group);
                }
                None => at = next + 1,
            }
        }
        found
    }

    /// The groups that hold boxes in all their environments, for the boxes that begin at `boxes`.
    ///
    /// An environment with a box begins at the nearest delimiter before it that still can enclose it.
    pub fn around(&mut self, boxes: &[usize]) -> Vec<Group<'a>> {
        let mut starts: Vec<usize> = boxes.iter().flat_map(|at| self.openers(*at)).flatten().collect();
        starts.sort_unstable();
        let mut found: Vec<Group<'a>> = Vec::new();
        for start in starts {
            if found.last().is_none_or(|last| start >= last.end) {
                found.extend(self.group(start, true));
            }
        }
        found
    }

    /// For `$$`, `$`, `\(`, `\[` and ` [`: where the environment begins that may enclose what is at `at`.
    fn openers(&self, at: usize) -> [Option<usize>; 5] {
        let bytes = self.text.as_bytes();
        let mut openers = [None; 5];
        // The kinds that can still be found, going left.
        let (mut is_line, mut is_bracket, mut is_display, mut is_inline) = (true, true, true, true);
        for i in (0..at).rev() {
            match bytes[i] {
                b'\n' => (is_line, is_bracket) = (false, false),
                b'$' if i > 0 && bytes[i - 1] == b'\\' => {}
                b'$' => {
                    if is_inline && is_line {
                        openers[1] = Some(i);
                    }
                    is_inline = false;
                    if is_display && i > 0 && bytes[i - 1] == b'$' {
                        openers[0] = Some(i - 1);
                        is_display = false;
                    }
                }
                b'(' if is_line && i > 0 && bytes[i - 1] == b'\\' => openers[2] = Some(i - 1),
                b')' if i > 0 && bytes[i - 1] == b'\\' => is_line = false,
                b'[' if i > 0 && bytes[i - 1] == b'\\' => openers[3] = Some(i - 1),
                b'[' if is_bracket => {
                    openers[4] = Some(i);
                    is_bracket = false;
                }
                b']' => {
                    is_bracket = false;
                    if i > 0 && bytes[i - 1] == b'\\' {
                        break;
                    }
                }
                _ => {}
            }
            if at - i > BACK {
                break;
            }
        }
        openers
    }

    /// Where an environment may begin, from `at` on.
    fn next_start(&self, at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        (at..bytes.len()).find(|&i| match bytes[i] {
            b'$' => true,
            b'\\' => matches!(bytes.get(i + 1), Some(b'[' | b'(' | b'f')),
            b'-' => bytes.get(i + 1) == Some(&b'\\'),
            b'[' => i > 0 && bytes[i - 1].is_ascii_whitespace(),
            _ => false,
        })
    }

    /// The group that begins at `at`.
    pub fn group(&mut self, at: usize, boxed: bool) -> Option<Group<'a>> {
        let (formula, mut end) = self.environment(at, boxed)?;
        let mut formulas = vec![formula];
        while formulas.len() < JOINED {
            let Some(next) = scan::conjunction(self.text, end) else { break };
            let Some((formula, after)) = self.environment(next, boxed) else { break };
            formulas.push(formula);
            end = after;
        }
        Some(Group { start: at, end, formulas })
    }

    fn environment(&mut self, at: usize, boxed: bool) -> Option<(Formula<'a>, usize)> {
        let (content, end) = self.delimited(at, boxed)?;
        if boxed && !has_box(content) {
            return None;
        }
        let after = scan::skip_spaces(self.text, end);
        let (is_percent, end) = match scan::percent(self.text, after) {
            Some(after) => (true, after),
            None => (false, end),
        };
        Some((Formula { content, is_percent }, end))
    }

    /// What the delimiters at `at` enclose, and the byte after them.
    fn delimited(&mut self, at: usize, boxed: bool) -> Option<(&'a str, usize)> {
        let text = self.text;
        let bytes = text.as_bytes();
        let previous = at.checked_sub(1).map(|i| bytes[i]);
        match bytes.get(at)? {
            b'$' if previous == Some(b'\\') => None,
            b'$' => {
                if bytes.get(at + 1) == Some(&b'$')
                    && let Some(close) = self.close(2, at + 2)
                {
                    return Some((&text[at + 2..close], close + 2));
                }
                if previous.is_some_and(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                let close = self.close(3, at + 1)?;
                Some((&text[at + 1..close], close + 1))
            }
            b'\\' => match bytes.get(at + 1)? {
                b'[' if previous != Some(b'\\') => {
                    let close = self.close(0, at + 2)?;
                    Some((&text[at + 2..close], close + 2))
                }
                b'(' if previous != Some(b'\\') => {
                    let close = self.close(1, at + 2)?;
                    Some((&text[at + 2..close], close + 2))
                }
                b'f' if !boxed => {
                    let end = fraction(text, at)?;
                    Some((&text[at..end], end))
                }
                _ => None,
            },
            b'-' if !boxed => {
                let end = fraction(text, at + 1)?;
                Some((&text[at..end], end))
            }
            b'[' => {
                let length = bytes[at + 1..].iter().position(|byte| matches!(byte, b'\n' | b'[' | b']'))?;
                let close = at + 1 + length;
                let is_closed = length > 0
                    && bytes[close] == b']'
                    && bytes.get(close + 1).is_some_and(u8::is_ascii_whitespace)
                    && previous.is_some_and(|byte| byte.is_ascii_whitespace());
                is_closed.then(|| (&text[at + 1..close], close + 1))
            }
            _ => None,
        }
    }

    /// Where the environment of this kind closes whose inside begins at `from`.
    fn close(&mut self, kind: usize, from: usize) -> Option<usize> {
        if self.unclosed[kind].contains(&from) {
            return None;
        }
        let bytes = self.text.as_bytes();
        let mut at = from;
        while at < bytes.len() {
            let is_escaped = at > from && bytes[at - 1] == b'\\';
            let found = match kind {
                0 => bytes[at] == b'\\' && bytes.get(at + 1) == Some(&b']'),
                1 => bytes[at] == b'\\' && bytes.get(at + 1) == Some(&b')'),
                2 => bytes[at] == b'$' && bytes.get(at + 1) == Some(&b'$'),
                _ => bytes[at] == b'$',
            };
            if found && !is_escaped {
                return (at > from).then_some(at);
            }
            // `\$` is part of the inside of `$..$` only.
            if found && kind != 3 || kind % 2 == 1 && bytes[at] == b'\n' {
                break;
            }
            at += 1;
        }
        self.unclosed[kind] = from..at;
        None
    }
}

fn has_box(content: &str) -> bool {
    ["\\boxed", "\\fbox"].iter().any(|name| content.find(name).is_some_and(|at| content[at..].contains('}')))
}

/// The byte after `\frac{1}{2}` with plain numbers.
fn fraction(text: &str, at: usize) -> Option<usize> {
    let mut end = at + text[at..].strip_prefix("\\frac").map(|_| 5)?;
    for _ in 0..2 {
        let inside = text[end..].strip_prefix('{')?;
        let length = inside.find('}')?;
        let number = inside[..length].strip_prefix('-').unwrap_or(&inside[..length]);
        let is_number = number.starts_with(|c: char| c.is_ascii_digit())
            && number.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b','));
        if !is_number {
            return None;
        }
        end += length + 2;
    }
    Some(end)
}
