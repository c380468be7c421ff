//! Where the final answer stands in a text, and what it is.
//!
//! The targets `latex`, `expr` and `choice` are math-verify's: formulas, arithmetic and letters compete by priority (after
//! "final answer is", in a box, after "answer:", after "answer", anywhere), and among equals the one that ends last is tried
//! first. The other targets look for a mark of their own.

pub mod boxed;
mod choice;
mod latex;
mod plain;
mod scan;

use common::bytes::rfind;
use num_bigint::BigInt;
use num_rational::BigRational;

use crate::lexer::{Token, tokens};
use crate::parser::parse;
use crate::tree::Node;
use latex::{Environments, Formula};
use plain::Plain;
pub use scan::{find_ignoring_case, rfind_ignoring_case};

/// A place where an answer may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Formulas, boxed or in an environment.
    Latex,
    /// Numbers and arithmetic outside of formulas.
    Expr,
    /// The strings of the config, as words of their own.
    Choice,
    /// The last box, whatever stands around it.
    Boxed,
    /// The last `<answer>..</answer>`.
    AnswerTag,
    /// What follows the last `####`.
    Hashes,
    /// What follows the last "the answer is" or "answer:".
    Phrase,
    /// The last `[..]`.
    Brackets,
    /// The last number.
    LastNumber,
    /// The whole text.
    Whole,
}

/// Where to look, and in which order.
#[derive(Clone, Debug)]
pub struct Extraction {
    /// In order; neighbours of `latex`, `expr` and `choice` are looked for together.
    pub targets: Vec<Target>,
    /// The priority of boxes among the formulas: 0 before all, 50 beside "final answer is", none if negative.
    pub boxed_priority: i32,
    /// What `choice` looks for.
    pub choices: Vec<String>,
    /// Whether only the first candidate is tried.
    pub takes_first: bool,
}

impl Default for Extraction {
    fn default() -> Self {
        Self {
            targets: vec![Target::Latex, Target::Expr],
            boxed_priority: 50,
            choices: ["A", "B", "C", "D"].map(String::from).to_vec(),
            takes_first: false,
        }
    }
}

/// An answer that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What it is, if it is a formula.
    pub node: Option<Node>,
    /// As it was written, without what only styles it.
    pub text: String,
}

impl Answer {
    /// Reads a text as a whole.
    pub fn whole(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        // What went through a string literal too often, or once too seldom.
        let repaired = if text.contains("\\\\begin{") {
            text.replace("\\\\", "\\")
        } else if text.contains("\u{c}rac") {
            text.replace("\u{c}rac", "\\frac")
        } else {
            text.to_owned()
        };
        Some(Self { node: number(&repaired).or_else(|| formula(&repaired)), text: repaired })
    }

    /// The text in a form that does not depend on spaces and styling commands.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.text)
    }
}

/// The answer of a text, by the first target that finds one.
pub fn extract(text: &str, extraction: &Extraction) -> Option<Answer> {
    let mut i = 0;
    while i < extraction.targets.len() {
        let is_prioritised = |target: &Target| matches!(target, Target::Latex | Target::Expr | Target::Choice);
        let found = if is_prioritised(&extraction.targets[i]) {
            let count = extraction.targets[i..].iter().take_while(|target| is_prioritised(target)).count();
            i += count;
            prioritised(text, &extraction.targets[i - count..i], extraction)
        } else {
            i += 1;
            marked(text, extraction.targets[i - 1])
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn marked(text: &str, target: Target) -> Option<Answer> {
    match target {
        Target::Boxed => {
            let contents = boxed::last_answer(text);
            (!contents.is_empty()).then(|| read_boxed(&contents))
        }
        Target::AnswerTag => inside(tag(text, "answer")?),
        Target::Hashes => {
            let rest = &text[rfind(text, "####")? + 4..];
            inside(rest.lines().next()?)
        }
        Target::Phrase => inside(after_phrase(text)?),
        Target::Brackets => {
            let close = rfind(text, "]")?;
            let open = rfind(&text[..close], "[")?;
            inside(&text[open + 1..close])
        }
        Target::LastNumber => {
            let found = plain::all(text, plain::number).pop()?;
            read_plain(found.plain)
        }
        Target::Whole => Answer::whole(text),
        Target::Latex | Target::Expr | Target::Choice => None,
    }
}

/// What the last tag of this name holds.
pub fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let close = rfind(text, &format!("</{name}>"))?;
    let open = format!("<{name}>");
    let start = rfind(&text[..close], &open)? + open.len();
    Some(text[start..close].trim())
}

/// What stands on the line after the last phrase that announces an answer.
fn after_phrase(text: &str) -> Option<&str> {
    let start = ["the answer is", "answer is", "answer:"]
        .iter()
        .filter_map(|phrase| Some(rfind_ignoring_case(text, phrase)? + phrase.len()))
        .max()?;
    let rest = text[start..].trim_start_matches([':', ' ', '*']);
    let line = rest.lines().next()?;
    // A sentence ends before the next one.
    let end = line.find(". ").unwrap_or(line.len());
    Some(line[..end].trim_end_matches(['.', '*', ' ']))
}

/// Reads what a mark encloses: as a whole if it is a formula, or else what is to be found in it.
fn inside(text: &str) -> Option<Answer> {
    let has_marks = text.contains(['$']) || text.contains("\\boxed") || text.contains("\\(") || text.contains("\\[");
    if !has_marks && let Some(whole) = Answer::whole(text).filter(|whole| whole.node.is_some()) {
        return Some(whole);
    }
    prioritised(text, &[Target::Latex, Target::Expr], &Extraction { boxed_priority: 0, ..Extraction::default() })
        .filter(|answer| answer.node.is_some())
        .or_else(|| Answer::whole(text))
}

struct Candidate<'a> {
    start: usize,
    end: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Formulas(Vec<Formula<'a>>),
    Boxes(Vec<&'a str>),
    Plain(Plain<'a>),
    Choice(&'a str),
}

/// The priorities that candidates have.
const PRIORITIES: [i32; 6] = [0, 50, 100, 200, 250, 300];

fn prioritised(text: &str, targets: &[Target], extraction: &Extraction) -> Option<Answer> {
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

fn read(kind: &Kind<'_>) -> Option<Answer> {
    match kind {
        Kind::Plain(plain) => read_plain(*plain),
        Kind::Choice(found) => {
            Some(Answer { node: Some(Node::Symbol(found.to_lowercase())), text: (*found).to_owned() })
        }
        Kind::Boxes(contents) => Some(read_boxed(contents)),
        Kind::Formulas(formulas) => {
            let answers: Vec<(Option<Node>, String)> = formulas.iter().map(read_formula).collect();
            let texts: Vec<&str> = answers.iter().map(|(_, text)| text.as_str()).collect();
            if answers.len() > 1 && answers.iter().all(|(node, _)| node.is_some()) {
                let text = texts.join(" and ");
                let mut elements = Vec::new();
                for (node, _) in answers {
                    match node {
                        Some(Node::Set(nodes)) => elements.extend(nodes),
                        Some(node) => elements.push(node),
                        None => {}
                    }
                }
                return Some(Answer { node: Some(Node::Set(elements)), text });
            }
            let (node, text) = answers.into_iter().next()?;
            Some(Answer { node, text })
        }
    }
}

fn read_formula(formula: &Formula<'_>) -> (Option<Node>, String) {
    let boxes = boxed::all(formula.content);
    let text = if boxes.is_empty() { formula.content.trim().to_owned() } else { boxes.join(",") };
    let node = parse_or_last_side(&text);
    (node.map(|node| if formula.is_percent { Node::Percent(Box::new(node)) } else { node }), text)
}

fn read_boxed(contents: &[&str]) -> Answer {
    let text = contents.join(",");
    Answer { node: parse_or_last_side(&text), text }
}

/// The formula, or what stands behind the last of several equals signs.
fn parse_or_last_side(text: &str) -> Option<Node> {
    formula(text).or_else(|| {
        if text.contains([',', ';']) {
            return None;
        }
        let bytes = text.as_bytes();
        let equals: Vec<usize> = (0..bytes.len())
            .filter(|&i| bytes[i] == b'=' && !(i > 0 && matches!(bytes[i - 1], b'\\' | b'<' | b'!' | b'>')))
            .collect();
        if equals.len() < 2 {
            return None;
        }
        formula(&text[equals.last()? + 1..])
    })
}

/// A formula, inside of its box or environment if it is in one.
fn formula(text: &str) -> Option<Node> {
    let boxes = if text.contains("\\boxed") || text.contains("\\fbox") { boxed::all(text) } else { Vec::new() };
    if boxes.is_empty() { parse(text) } else { parse(&boxes.join(",")) }
}

/// A number as prose has it, if the text is nothing else: `1 000`, `3,14`, `$5`.
fn number(text: &str) -> Option<Node> {
    let found = plain::number(text, 0)?;
    if found.end != text.len() || found.start != 0 {
        return None;
    }
    read_plain(found.plain)?.node
}

fn read_plain(plain: Plain<'_>) -> Option<Answer> {
    match plain {
        Plain::Arithmetic(text) => {
            let text = text.trim();
            let balanced = text.matches('(').count() == text.matches(')').count();
            Some(Answer { node: balanced.then(|| parse(text)).flatten(), text: text.to_owned() })
        }
        Plain::Number { whole, fraction, is_percent } => {
            let is_negative = whole.starts_with('-');
            let digits: String = whole.chars().filter(char::is_ascii_digit).collect();
            let digits = digits.trim_start_matches('0');
            let text = format!(
                "{}{}{}{fraction}",
                if is_negative { "-" } else { "" },
                if digits.is_empty() { "0" } else { digits },
                if fraction.is_empty() { "" } else { "." },
            );
            let node = if text.len() > 2000 {
                Node::Symbol(text.clone())
            } else {
                let above: BigInt = format!("0{digits}{fraction}").parse().ok()?;
                let below = BigInt::from(10).pow(u32::try_from(fraction.len()).ok()?);
                let value = BigRational::new(if is_negative { -above } else { above }, below);
                Node::Number { value, is_decimal: !fraction.is_empty() }
            };
            Some(Answer { node: Some(if is_percent { Node::Percent(Box::new(node)) } else { node }), text })
        }
    }
}

/// A text as its tokens, so that spaces and styling do not matter.
pub fn fingerprint(text: &str) -> String {
    let Some(tokens) = tokens(text) else { return text.split_whitespace().collect::<Vec<_>>().join(" ") };
    let mut print = String::with_capacity(text.len());
    for lexeme in tokens {
        match lexeme.token {
            Token::Number { whole, fraction, exponent } => {
                print.push_str(&whole);
                if let Some(fraction) = fraction.filter(|fraction| !fraction.is_empty()) {
                    print.push('.');
                    print.push_str(fraction);
                }
                if exponent != 0 {
                    print.push_str(&format!("e{exponent}"));
                }
                continue;
            }
            Token::Word(word) => print.push_str(word),
            Token::Command(name) => {
                print.push('\\');
                print.push_str(name);
            }
            Token::Text(text) => print.extend(text.split_whitespace().flat_map(|word| [word, " "])),
            Token::Sign(sign) => {
                print.push(sign);
                continue;
            }
            Token::RowEnd => print.push_str("\\\\"),
        }
        print.push(' ');
    }
    if !print.ends_with("...") {
        print.truncate(print.trim_end_matches([' ', '.', ',']).len());
    }
    print
}
