//! The MATH data set's own convention (Hendrycks et al., 2021): answers are normalised as text and compared as text.

use common::bytes::rfind;

use crate::extract::boxed::closing;

/// The last `\boxed{..}`, or else `\fbox{..}`, with its command; `None` if it is not closed.
pub fn last_boxed_only_string(text: &str) -> Option<&str> {
    let start = rfind(text, "\\boxed").or_else(|| rfind(text, "\\fbox"))?;
    let rest = &text[start..];
    if let Some(after) = rest.strip_prefix("\\boxed ") {
        let end = after.find('$').unwrap_or(after.len());
        return Some(&rest[.."\\boxed ".len() + end]);
    }
    let open = start + rest.find('{')?;
    let end = closing(text, open + 1)?;
    Some(&text[start..=end])
}

/// What a box holds; `None` if the text is no box.
pub fn remove_boxed(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("\\boxed ") {
        return Some(rest);
    }
    let inside = text.strip_prefix("\\boxed{").or_else(|| text.strip_prefix("\\fbox{"))?;
    inside.strip_suffix('}')
}

/// The normal form of an answer.
pub fn strip_string(text: &str) -> String {
    let mut text = text.replace('\n', "");
    for (from, to) in [
        ("\\!", ""),
        ("\\\\", "\\"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("\\$", ""),
        ("$", ""),
    ] {
        text = text.replace(from, to);
    }
    if let Some(at) = text.find("\\text{ ") {
        text.truncate(at);
    }
    for (from, to) in [("\\%", ""), ("%", ""), (" .", " 0."), ("{.", "{0.")] {
        text = text.replace(from, to);
    }
    if text.is_empty() {
        return text;
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    // Of `x = 5` the right side counts, if the left side is short.
    let sides: Vec<&str> = text.split('=').collect();
    if let [left, right] = sides[..]
        && left.chars().count() <= 2
    {
        text = right.to_owned();
    }
    text = with_braced_roots(&text).replace(' ', "");
    text = with_braced_fractions(&text);
    if text == "0.5" {
        text = "\\frac{1}{2}".into();
    }
    with_fraction(text)
}

/// Whether two answers have the same normal form.
pub fn is_equiv(a: &str, b: &str) -> bool {
    strip_string(a) == strip_string(b)
}

/// `\sqrt3` as `\sqrt{3}`.
fn with_braced_roots(text: &str) -> String {
    let mut parts = text.split("\\sqrt");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str("\\sqrt");
        match part.chars().next() {
            Some(first) if first != '{' => {
                result.extend(['{', first, '}']);
                result.push_str(&part[first.len_utf8()..]);
            }
            _ => result.push_str(part),
        }
    }
    result
}

/// `\frac12` as `\frac{1}{2}`.
fn with_braced_fractions(text: &str) -> String {
    let mut parts = text.split("\\frac");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str("\\frac");
        if part.starts_with('{') {
            result.push_str(part);
            continue;
        }
        let mut letters = part.chars();
        let (Some(above), Some(below)) = (letters.next(), letters.next()) else { return text.to_owned() };
        result.extend(['{', above, '}']);
        if below == '{' {
            result.push(below)
        } else {
            result.extend(['{', below, '}'])
        }
        result.push_str(letters.as_str());
    }
    result
}

/// `3/4` as `\frac{3}{4}`, if that is the whole answer.
fn with_fraction(text: String) -> String {
    let is_integer = |part: &str| {
        let digits = part.strip_prefix('-').unwrap_or(part);
        !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'))
    };
    match text.split_once('/') {
        Some((above, below)) if is_integer(above) && is_integer(below) => format!("\\frac{{{above}}}{{{below}}}"),
        _ => text,
    }
}

/// The normal form of PRM800K's first grader: a `\text{..}` around the whole answer is taken off before.
pub fn mathd_normalize_answer(text: &str) -> String {
    let text = text.trim();
    let inside =
        text.strip_prefix("\\text{").and_then(|rest| rest.strip_suffix('}')).filter(|inside| !inside.contains('}'));
    strip_string(inside.unwrap_or(text).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_found_from_the_right_and_needs_its_brace() {
        assert_eq!(last_boxed_only_string(r"\boxed{a}, then \boxed{\frac{1}{2}}."), Some(r"\boxed{\frac{1}{2}}"));
        assert_eq!(last_boxed_only_string(r"answer: \fbox{7}"), Some(r"\fbox{7}"));
        assert_eq!(last_boxed_only_string(r"start \boxed{never closes"), None);
        assert_eq!(remove_boxed(r"\boxed{\frac{1}{2}}"), Some(r"\frac{1}{2}"));
        assert_eq!(remove_boxed("not boxed at all"), None);
    }

    #[test]
    fn normal_forms() {
        for (text, expected) in [
            (r"\frac12", r"\frac{1}{2}"),
            (r"\tfrac{1}{2}", r"\frac{1}{2}"),
            (r"\left(1\right)", "(1)"),
            (r"45^{\circ}", "45"),
            (".7", "0.7"),
            (".5", r"\frac{1}{2}"),
            ("3/4", r"\frac{3}{4}"),
            ("1 + 1", "1+1"),
            (r"x=\sqrt3", r"\sqrt{3}"),
            (r"10\text{ cm}", "10"),
        ] {
            assert_eq!(strip_string(text), expected, "{text}");
        }
        assert_eq!(mathd_normalize_answer(r"\text{42}"), "42");
    }
}
