//! Formulas, arithmetic and letters compete by priority; among equals the one that ends last is tried first.

use common::bytes::rfind;

use super::latex::{self, Environments, Formula};
use super::plain::{self, Plain};
use super::reading::read;
use super::{Answer, Extraction, Target, boxed, choice, scan};

struct Candidate<'a> {
    start: usize,
    end: usize,
    kind: Kind<'a>,
}

pub(super) enum Kind<'a> {
    Formulas(Vec<Formula<'a>>),
    Boxes(Vec<&'a str>),
    Plain(Plain<'a>),
    Choice(&'a str),
}

/// The priorities that candidates have.
const PRIORITIES: [i32; 6] = [0, 50, 100, 200, 250, 300];

pub(super) fn prioritised(text: &str, targets: &[Target], extraction: &Extraction) -> Option<Answer> {
    let mut environments = Environments::new(text);
    let marks = Marks::new(text);
    let choices =
        if targets.contains(&Target::Choice) { choice::candidates(text, &extraction.choices) } else { Vec::new() };
    let mut first_text: Option<String> = None;
    for (group, priority) in PRIORITIES.into_iter().enumerate() {
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for target in targets {
            match target {
                Target::Latex => {
                    formulas(text, &marks, priority, extraction.boxed_priority, &mut environments, &mut candidates)
                }
                Target::Expr => plains(text, &marks, priority, &mut candidates),
                _ => candidates.extend(choices[group].iter().map(|&(start, end, found)| Candidate {
                    start,
                    end,
                    kind: Kind::Choice(found),
                })),
            }
        }
        // The one that ends last first; of those, the one that begins first. The sort keeps the order of targets.
        candidates.sort_by(|a, b| b.end.cmp(&a.end).then(a.start.cmp(&b.start)));
        for candidate in candidates {
            let Some(answer) = read(&candidate.kind) else { continue };
            if first_text.is_none() && !answer.text.is_empty() {
                first_text = Some(answer.text);
            }
            if answer.node.is_some() {
                return Some(Answer { node: answer.node, text: first_text.unwrap_or_default() });
            }
            if extraction.takes_first {
                return Some(Answer { node: None, text: first_text.unwrap_or_default() });
            }
        }
    }
    first_text.map(|text| Answer { node: None, text })
}

/// Where the words are that candidates stand beside, found in one pass.
struct Marks {
    /// "answer", in any case.
    answers: Vec<usize>,
    /// `\boxed` and `\fbox`.
    boxes: Vec<usize>,
}

/// The last marks of a kind that are looked at.
const MARKS: usize = 64;

impl Marks {
    fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut marks = Self { answers: Vec::new(), boxes: Vec::new() };
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                b'a' | b'A' if bytes.get(i + 1).is_some_and(|next| next | 0x20 == b'n') => {
                    if bytes.get(i..i + 6).is_some_and(|word| word.eq_ignore_ascii_case(b"answer")) {
                        marks.answers.push(i);
                    }
                }
                b'\\' if matches!(bytes.get(i + 1), Some(b'b' | b'f')) => {
                    if bytes[i + 1..].starts_with(b"boxed") || bytes[i + 1..].starts_with(b"fbox") {
                        marks.boxes.push(i);
                    }
                }
                _ => {}
            }
        }
        for list in [&mut marks.answers, &mut marks.boxes] {
            list.drain(..list.len().saturating_sub(MARKS));
        }
        marks
    }
}

/// Places right after an announcement of the answer, for one priority: where the announcement begins, and where it ends.
fn announcements(text: &str, marks: &Marks, priority: i32, mut visit: impl FnMut(usize, usize, bool) -> Option<usize>) {
    let mut at = 0;
    for start in &marks.answers {
        let rest = start + "answer".len();
        let before = &text.as_bytes()[start.saturating_sub("final ".len())..*start];
        let is_final = before.eq_ignore_ascii_case(b"final ");
        let start = if priority <= 50 { start.saturating_sub("final ".len()) } else { *start };
        if start < at || priority <= 50 && !is_final {
            continue;
        }
        at = start + 1;
        let found = match priority {
            0 => text[rest..].strip_prefix(" is").and_then(|after| {
                let after = after.strip_prefix(':').unwrap_or(after);
                visit(start, text.len() - after.len(), true)
            }),
            50 => scan::steps(text, rest, 100).find_map(|step| {
                let word = scan::skip_spaces(text, step);
                let after = text[word..].strip_prefix("is").filter(|_| word > step)?;
                let after = after.strip_prefix(':').unwrap_or(after);
                visit(start, text.len() - after.len(), false)
            }),
            100 => text[rest..].starts_with(':').then_some(rest + 1).and_then(|from| visit(start, from, false)),
            _ => visit(start, rest, false),
        };
        if let Some(end) = found {
            at = at.max(end);
        }
    }
}

fn formulas<'a>(
    text: &'a str,
    marks: &Marks,
    priority: i32,
    boxed_priority: i32,
    environments: &mut Environments<'a>,
    candidates: &mut Vec<Candidate<'a>>,
) {
    let mut add = |start: usize, group: latex::Group<'a>| {
        candidates.push(Candidate { start, end: group.end, kind: Kind::Formulas(group.formulas) });
    };
    match priority {
        0 | 50 => announcements(text, marks, priority, |start, from, hopes| {
            let group = environments.group(scan::skip_spaces(text, from), false)?;
            let end = group.end;
            if hopes && !is_hoped(text, end) {
                return None;
            }
            add(start, group);
            Some(end)
        }),
        100 | 200 => announcements(text, marks, priority, |start, from, _| {
            let group = scan::steps(text, from, 50).find_map(|step| environments.group(step, false))?;
            let end = group.end;
            add(start, group);
            Some(end)
        }),
        300 => {
            for group in environments.all() {
                add(group.start, group);
            }
        }
        _ => {}
    }
    if priority == boxed_priority
        && let Some(first) = marks.boxes.first()
    {
        for group in environments.around(&marks.boxes) {
            add(group.start, group);
        }
        let last = rfind(text, "}").map_or(0, |at| at + 1);
        let end = if last > *first { last } else { text.len() };
        let contents = boxed::last_answer(&text[*first..end]);
        if !contents.is_empty() {
            candidates.push(Candidate { start: *first, end, kind: Kind::Boxes(contents) });
        }
    }
}

fn is_hoped(text: &str, at: usize) -> bool {
    let rest = text[at..].strip_prefix('.').unwrap_or(&text[at..]);
    rest.strip_prefix(char::is_whitespace).unwrap_or(rest).starts_with("I hope")
}

fn plains<'a>(text: &'a str, marks: &Marks, priority: i32, candidates: &mut Vec<Candidate<'a>>) {
    let mut add = |start: usize, found: plain::Found<'a>| {
        candidates.push(Candidate { start, end: found.end, kind: Kind::Plain(found.plain) });
    };
    match priority {
        0 | 50 => announcements(text, marks, priority, |start, from, hopes| {
            // "is: 5" has white space to give to the number.
            let mut places = (from..=scan::skip_spaces(text, from)).filter(|at| text.is_char_boundary(*at));
            let found = if hopes { places.find_map(|at| plain::either(text, at)) } else { plain::either(text, from) }?;
            if hopes && !is_hoped(text, found.end) {
                return None;
            }
            add(start, found);
            Some(found.end)
        }),
        100 | 200 => announcements(text, marks, priority, |start, from, _| {
            // Behind the last equals sign that is near, or else the first number that is near.
            let mut equals: Vec<usize> =
                scan::steps(text, from, 100).filter(|at| text[*at..].starts_with('=')).map(|at| at + 1).collect();
            equals.reverse();
            let is_final = |found: &plain::Found<'a>| !text[scan::skip_spaces(text, found.end)..].starts_with('=');
            let behind = equals.into_iter().find_map(|at| {
                let spaces = scan::skip_spaces(text, at);
                let start =
                    scan::before(text, spaces).filter(|c| c.is_whitespace()).map_or(at, |c| spaces - c.len_utf8());
                if start < at { None } else { plain::either(text, start) }.filter(is_final)
            });
            let found = behind
                .or_else(|| scan::steps(text, from, 50).find_map(|step| plain::either(text, step).filter(is_final)))?;
            add(start, found);
            Some(found.end)
        }),
        300 => {
            for found in plain::all(text, plain::arithmetic).into_iter().chain(plain::all(text, plain::number)) {
                add(found.start, found);
            }
        }
        _ => {}
    }
}
