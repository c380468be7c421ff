//! Numbers and arithmetic in prose.

use super::scan;

/// What was found: a number with separators as they were written, or arithmetic to be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain<'a> {
    /// Digits before and after the decimal separator.
    Number {
        /// With sign and separators between thousands.
        whole: &'a str,
        /// Digits after the separator.
        fraction: &'a str,
        /// Whether `%` or a word for it follows.
        is_percent: bool,
    },
    /// `1/2`, `(3 + 4) * 5`
    Arithmetic(&'a str),
}

/// Where it begins (with what must stand before it) and ends.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The first byte of what stands before.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
    /// What it is.
    pub plain: Plain<'a>,
}

/// Numbers from which no arithmetic follows, at most.
const FAILURES: usize = 3000;

const CURRENCIES: &str = "$€£¥₹₽₪₩₫฿₡₢₣₤₥₦₧₨₭₮₯₰₱₲₳₴₵₶₷₸₺₻₼₾₿";

/// The byte after what must stand before a number: white space or `=` (or the beginning), then perhaps `**`.
fn prefix(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let first = rest.chars().next()?;
    let mut end = if first.is_whitespace() || first == '=' {
        at + first.len_utf8()
    } else if at == 0 {
        at
    } else {
        return None;
    };
    if text[end..].starts_with("**") {
        end += 2;
    }
    Some(end)
}

/// Arithmetic or a number, with what must stand before it, at `at`.
pub fn either(text: &str, at: usize) -> Option<Found<'_>> {
    arithmetic(text, at).or_else(|| number(text, at))
}

/// Arithmetic: from a digit on, only digits, points, spaces and signs, at least one sign among them.
pub fn arithmetic(text: &str, at: usize) -> Option<Found<'_>> {
    let start = prefix(text, at)?;
    let bytes = text.as_bytes();
    let mut digit = start;
    for sign in [b'-', b'(', b'-'] {
        digit += usize::from(bytes.get(digit) == Some(&sign));
    }
    if !bytes.get(digit)?.is_ascii_digit() {
        return None;
    }
    let is_operator = |c: char| matches!(c, '+' | '-' | '*' | '×' | '/' | '^' | '(' | ')' | '÷');
    // The last end that is followed by a stop and has an operator inside, as a backtracking match finds it.
    let (mut end, mut operator_at) = (None, None);
    let mut position = digit + 1;
    for c in text[digit + 1..].chars() {
        if position - digit > 500 {
            break;
        }
        if operator_at.is_some_and(|operator| position > operator + 1) && is_stop(text, position) {
            end = Some(position);
        }
        if is_operator(c) {
            operator_at.get_or_insert(position + c.len_utf8() - 1);
        } else if !(c.is_ascii_digit() || c == '.' || c.is_whitespace()) {
            break;
        }
        position += c.len_utf8();
    }
    if position == text.len() && operator_at.is_some_and(|operator| position > operator + 1) {
        end = Some(position);
    }
    let end = end?;
    Some(Found { start: at, end, plain: Plain::Arithmetic(&text[start..end]) })
}

/// Whether arithmetic may end before `at`.
fn is_stop(text: &str, at: usize) -> bool {
    let rest = text[at..].strip_prefix("**").unwrap_or(&text[at..]);
    rest.chars().next().is_none_or(|c| matches!(c, '.' | ',' | ':' | ')' | '$') || c.is_whitespace())
}

/// A number with what must stand before it at `at`.
pub fn number(text: &str, at: usize) -> Option<Found<'_>> {
    let mut start = prefix(text, at)?;
    if let Some(sign) = text[start..].chars().next()
        && CURRENCIES.contains(sign)
    {
        start += sign.len_utf8();
    }
    let (whole, fraction, end) = digits(text, start)?;
    let after = scan::skip_spaces(text, end);
    let (is_percent, end) = match scan::percent(text, after) {
        Some(after) => (true, after),
        None => (false, end),
    };
    Some(Found { start: at, end, plain: Plain::Number { whole, fraction, is_percent } })
}

/// The parts of a number at `at`, and the byte after it.
pub fn digits(text: &str, at: usize) -> Option<(&str, &str, usize)> {
    let bytes = text.as_bytes();
    let run = |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let sign = usize::from(bytes.get(at) == Some(&b'-'));
    let first = at + sign;
    let n = run(first);
    // Thousands with separators.
    if (1..=3).contains(&n) && bytes[first] != b'0' {
        let mut end = first + n;
        while matches!(bytes.get(end), Some(b',' | b' ')) && run(end + 1) >= 3 {
            end += 4;
        }
        if end > first + n {
            let decimals = if bytes.get(end) == Some(&b'.') { run(end + 1) } else { 0 };
            let after = if decimals > 0 { end + 1 + decimals } else { end };
            let fraction = if decimals > 0 { &text[end + 1..after] } else { "" };
            return Some((&text[at..end], fraction, after));
        }
    }
    if n > 0 {
        let end = first + n;
        let decimals = if matches!(bytes.get(end), Some(b'.' | b',')) { run(end + 1) } else { 0 };
        if decimals > 0 {
            return Some((&text[at..end], &text[end + 1..end + 1 + decimals], end + 1 + decimals));
        }
        return Some((&text[at..end], "", end));
    }
    if sign == 0 && bytes.get(at) == Some(&b'.') && run(at + 1) > 0 {
        let end = at + 1 + run(at + 1);
        return Some(("", &text[at + 1..end], end));
    }
    None
}

/// All that `finder` finds from left to right without overlap.
pub fn all<'a>(text: &'a str, finder: fn(&'a str, usize) -> Option<Found<'a>>) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    // A long stretch of digits and spaces is looked through from each of its numbers: not for ever.
    let mut failures = 0;
    while at < text.len() && failures < FAILURES {
        if let Some(next) = finder(text, at) {
            at = next.end.max(at + 1);
            found.push(next);
        } else {
            let digits_ahead = text.as_bytes()[at + 1..].first().is_some_and(u8::is_ascii_digit);
            failures += usize::from(digits_ahead);
            at += 1;
        }
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn last(text: &str) -> Plain<'_> {
        all(text, number).last().unwrap().plain
    }

    #[test]
    fn numbers_keep_their_separators_apart() {
        let number = |whole, fraction, is_percent| Plain::Number { whole, fraction, is_percent };
        assert_eq!(last("so 1,234,567.5"), number("1,234,567", "5", false));
        assert_eq!(last("Soucis : 2,74 $ a.."), number("2", "74", false));
        assert_eq!(last("it is $1,000.99 in all"), number("1,000", "99", false));
        assert_eq!(last("= .5 percent"), number("", "5", true));
        assert_eq!(last("1 000"), number("1 000", "", false));
        assert!(all("AZYUK2A", super::number).is_empty());
    }

    #[test]
    fn arithmetic_ends_where_prose_begins() {
        let of = |text: &'static str| all(text, arithmetic).last().map(|found| found.plain);
        assert_eq!(of("the answer is 2/3. It"), Some(Plain::Arithmetic("2/3.")));
        assert_eq!(of("so (1/2) * (4/3) P"), Some(Plain::Arithmetic("(1/2) * (4/3)")));
        assert_eq!(of("about 12 apples"), None);
    }
}
