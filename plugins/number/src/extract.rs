//! Where an answer stands in a text, and which number it is.

use common::bytes::rfind;
use common::places::boxed;

use crate::rational::Rational;

/// A way to find the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// In the last `<answer>..</answer>`.
    AnswerTag,
    /// In the last `\boxed{..}`.
    Boxed,
    /// On the line after the last `####`.
    Hashes,
    /// After the last "the answer is".
    Phrase,
    /// The last number of the text.
    LastNumber,
}

impl Way {
    /// What notes call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerTag => "<answer>",
            Self::Boxed => "\\boxed",
            Self::Hashes => "####",
            Self::Phrase => "\"the answer is\"",
            Self::LastNumber => "the last number",
        }
    }
}

const PHRASE: &str = "the answer is";

/// The first way whose mark is in the text, and its number if it holds one.
pub fn find(text: &str, ways: &[Way]) -> Option<(Way, Option<Rational>)> {
    ways.iter().find_map(|way| {
        let number = match way {
            Way::AnswerTag => last(last_tag(text)?),
            Way::Boxed => last(boxed(text)?),
            Way::Hashes => {
                let rest = &text[rfind(text, "####")? + 4..];
                first(rest.lines().next().unwrap_or_default())
            }
            Way::Phrase => first(&text[rfind_ignoring_case(text, PHRASE)? + PHRASE.len()..]),
            Way::LastNumber => Some(last(text)?),
        };
        Some((*way, number))
    })
}

fn last_tag(text: &str) -> Option<&str> {
    let before = &text[..rfind(text, "</answer>")?];
    Some(&before[rfind(before, "<answer>")? + "<answer>".len()..])
}

fn rfind_ignoring_case(text: &str, phrase: &str) -> Option<usize> {
    let (text, phrase) = (text.as_bytes(), phrase.as_bytes());
    let first = phrase[0].to_ascii_lowercase();
    (0..=text.len().checked_sub(phrase.len())?)
        .rev()
        .find(|&at| text[at] | 0x20 == first && text[at..at + phrase.len()].eq_ignore_ascii_case(phrase))
}

/// The first number of a text; `None` too if it is too long to be compared.
pub fn first(text: &str) -> Option<Rational> {
    (0..text.len()).filter(|at| may_begin(text.as_bytes(), *at)).find_map(|at| scan(text, at))?.0
}

/// The last number of a text; `None` too if it is too long to be compared.
pub fn last(text: &str) -> Option<Rational> {
    let bytes = text.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    // A number holds no white space, so the last one begins after the last white space before its last digit.
    let mut at = bytes[..end].iter().rposition(u8::is_ascii_whitespace).map_or(0, |i| i + 1);
    let mut found = None;
    while at < end {
        match if may_begin(bytes, at) { scan(text, at) } else { None } {
            Some((number, next)) => (found, at) = (number, next),
            None => at += 1,
        }
    }
    found
}

/// Whether a number may begin at byte `at`: texts are long, and most of their bytes need no closer look.
fn may_begin(bytes: &[u8], at: usize) -> bool {
    matches!(bytes[at], b'0'..=b'9' | b'-' | b'.' | b'$' | b'\\' | 0xc2 | 0xe2)
}

/// The number that begins at byte `at`, `None` if it is too long, and the byte after it.
///
/// A number is a sign, a currency sign, digits with separators between thousands, a fraction after a point; then perhaps
/// `/` and whole digits. Or it is `\frac{a}{b}`.
fn scan(text: &str, at: usize) -> Option<(Option<Rational>, usize)> {
    let bytes = text.as_bytes();
    let before = at.checked_sub(1).map(|i| bytes[i]);
    let mut i = at;
    let mut is_negative = false;
    // After a digit, a letter or a bracket a minus is an operation, not a sign.
    let is_operator = before.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b')' | b'}' | b']' | b'%'));
    if let Some(length) = [("-", 1), ("\u{2212}", 3)].iter().find(|(sign, _)| starts(bytes, i, sign)).map(|sign| sign.1)
    {
        if is_operator {
            return None;
        }
        is_negative = true;
        i += length;
    } else if before.is_some_and(|b| b.is_ascii_digit()) {
        return None;
    }
    if let Some((number, next)) = frac(text, i) {
        return Some((Some(number.signed(is_negative)), next));
    }
    for currency in ["\\$", "$", "€", "£", "¥"] {
        if starts(bytes, i, currency) {
            i += currency.len();
            break;
        }
    }
    if !is_negative && bytes.get(i) == Some(&b'-') && i > at {
        is_negative = true; // "$-5"
        i += 1;
    }
    let (whole, fraction, next) = decimal(bytes, i)?;
    let mut number = Rational::from_decimal(&whole, fraction);
    let mut end = next;
    if fraction.is_empty()
        && bytes.get(next) == Some(&b'/')
        && let Some(above) = number
        && let Some((below, none, next)) = decimal(bytes, next + 1)
        && none.is_empty()
        && let Some(quotient) = Rational::from_decimal(&below, &[]).and_then(|below| above.over(below))
    {
        (number, end) = (Some(quotient), next);
    }
    Some((number.map(|number| number.signed(is_negative)), end))
}

fn starts(bytes: &[u8], at: usize, part: &str) -> bool {
    bytes[at.min(bytes.len())..].starts_with(part.as_bytes())
}

/// The digits before and after the point, and the byte after them.
fn decimal(bytes: &[u8], at: usize) -> Option<(Vec<u8>, &[u8], usize)> {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut i = at.min(bytes.len());
    let n = digits(i);
    let mut whole = bytes[i..i + n].to_vec();
    i += n;
    if (1..=3).contains(&n) {
        // Separators between thousands: a comma, or LaTeX's {,}, before exactly three digits.
        loop {
            let separator = if starts(bytes, i, "{,}") {
                3
            } else if starts(bytes, i, ",") {
                1
            } else {
                break;
            };
            i += separator;
            if digits(i) != 3 {
                i -= separator;
                break;
            }
            whole.extend_from_slice(&bytes[i..i + 3]);
            i += 3;
        }
    }
    let mut fraction: &[u8] = &[];
    if bytes.get(i) == Some(&b'.') {
        let n = digits(i + 1);
        if n > 0 {
            fraction = &bytes[i + 1..i + 1 + n];
            i += 1 + n;
        }
    }
    if whole.is_empty() && fraction.is_empty() { None } else { Some((whole, fraction, i)) }
}

/// The bytes of a numerator or of a denominator, at most: a text can't make the search for their braces long.
const PART: usize = 80;

/// `\frac{a}{b}` and its kin, and the byte after it.
fn frac(text: &str, at: usize) -> Option<(Rational, usize)> {
    let name = ["\\frac{", "\\dfrac{", "\\tfrac{"].into_iter().find(|name| starts(text.as_bytes(), at, name))?;
    let above = at + name.len();
    let bytes = text.as_bytes();
    let middle = above + bytes[above..].windows(2).take(PART).position(|pair| pair == b"}{")?;
    let end = middle + 2 + bytes[middle + 2..].iter().take(PART).position(|byte| *byte == b'}')?;
    let part = |range: &str| {
        // No fraction within a fraction: the depth of the recursion would be the text's to choose.
        let (number, next) = if range.contains('\\') { None } else { scan(range, 0) }?;
        number.filter(|_| next == range.len())
    };
    let quotient = part(text[above..middle].trim())?.over(part(text[middle + 2..end].trim())?)?;
    Some((quotient, end + 1))
}
