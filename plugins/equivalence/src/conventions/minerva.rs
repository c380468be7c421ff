//! Minerva's normalisation (Lewkowycz et al., 2022, appendix D) and the scorers of DAPO (Yu et al., 2025) that use it.

use common::bytes::rfind;

use crate::extract::boxed::closing;
use crate::extract::rfind_ignoring_case;

/// Replaced in this order.
const SUBSTITUTIONS: [(&str, &str); 10] = [
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    ("\\$", ""),
    ("\\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (",\\text{and}", ","),
    ("\\text{and}", ","),
    ("\\text{m}", "\\text{}"),
];

/// Removed wherever they stand.
const REMOVED: &[&str] = &[
    "square",
    "ways",
    "integers",
    "dollars",
    "mph",
    "inches",
    "hours",
    "km",
    "units",
    "\\ldots",
    "sue",
    "points",
    "feet",
    "minutes",
    "digits",
    "cents",
    "degrees",
    "cm",
    "gm",
    "pounds",
    "meters",
    "meals",
    "edges",
    "students",
    "childrentickets",
    "multiples",
    "\\text{s}",
    "\\text{.}",
    "\\text{\ns}",
    "\\text{}^2",
    "\\text{}^3",
    "\\text{\n}",
    "\\text{}",
    "\\mathrm{th}",
    "^\\circ",
    "^{\\circ}",
    "\\;",
    ",\\!",
    "{,}",
    "\"",
    "\\dots",
    "<|im_end|>",
    "<|endoftext|>",
];

/// The last `\boxed{..}` with its command; `None` if there is none, or it is not closed.
pub fn last_boxed_only_string(text: &str) -> Option<&str> {
    let start = rfind(text, "\\boxed{")?;
    let end = closing(text, start + "\\boxed{".len())?;
    Some(&text[start..=end])
}

/// What a box holds.
///
/// # Errors
/// The text is no box.
pub fn remove_boxed(text: &str) -> Result<&str, String> {
    text.strip_prefix("\\boxed{")
        .and_then(|inside| inside.strip_suffix('}'))
        .ok_or_else(|| format!("box error: {text}"))
}

/// The normal form of an answer.
pub fn normalize_final_answer(answer: &str) -> String {
    let mut text = answer.rsplit('=').next().unwrap_or_default().to_owned();
    for (from, to) in SUBSTITUTIONS {
        text = text.replace(from, to);
    }
    for word in REMOVED {
        text = text.replace(word, "");
    }
    // What stands between the first two dollars.
    let parts: Vec<&str> = text.splitn(3, '$').collect();
    if let [_, inside, _] = parts[..] {
        text = inside.to_owned();
    }
    for command in ["\\text{", "\\textbf{", "\\overline{"] {
        text = unwrapped(&text, command, false);
    }
    text = unwrapped(&text, "\\boxed{", true);
    text = braced(&text, "frac", 2);
    text = braced(&text, "sqrt", 1);
    text = text.replace('$', "");
    let digits = text.replace(',', "");
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        text = digits;
    }
    text.trim().to_owned()
}

/// Without the command and its brace: to the next closing one, or to the last.
fn unwrapped(text: &str, command: &str, to_last: bool) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(command) {
        let inside = &rest[start + command.len()..];
        let Some(end) = (if to_last { inside.rfind('}') } else { inside.find('}') }) else { break };
        result.push_str(&rest[..start]);
        result.push_str(&inside[..end]);
        rest = &inside[end + 1..];
    }
    result.push_str(rest);
    result
}

/// `frac12` as `frac{1}{2}`, `sqrt3` as `sqrt{3}`.
fn braced(text: &str, command: &str, count: usize) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(command) {
        let end = start + command.len();
        result.push_str(&rest[..end]);
        rest = &rest[end..];
        let arguments: Vec<char> = rest.chars().take(count).collect();
        if arguments.len() < count || arguments[0] == '{' {
            continue;
        }
        for argument in arguments {
            result.extend(['{', argument, '}']);
            rest = &rest[argument.len_utf8()..];
        }
    }
    result.push_str(rest);
    result
}

/// The last `count` characters.
pub(crate) fn tail(text: &str, count: usize) -> &str {
    match text.char_indices().rev().nth(count.saturating_sub(1)) {
        Some((at, _)) => &text[at..],
        None => text,
    }
}

/// Whether what follows the last "Answer:" is the reference, both normalised, and what it is.
pub fn is_correct_minerva(text: &str, reference: &str) -> (bool, String) {
    let answer = rfind_ignoring_case(text, "answer").and_then(|_| {
        // The last "answer" that a colon follows.
        let mut end = text.len();
        loop {
            let at = rfind_ignoring_case(&text[..end], "answer")?;
            if let Some(rest) = text[at + 6..].trim_start().strip_prefix(':') {
                let line = rest.trim_start().lines().next().unwrap_or_default();
                return (!line.is_empty()).then_some(line);
            }
            end = at;
        }
    });
    let answer = normalize_final_answer(answer.unwrap_or("[INVALID]"));
    let reference = integral(reference).unwrap_or_else(|| normalize_final_answer(reference));
    (answer == reference, answer)
}

/// `42.0` and `4.2e1` as `42`.
fn integral(text: &str) -> Option<String> {
    let node = crate::parser::parse(text)?;
    node.as_integer().map(ToString::to_string)
}

/// Whether the last box in the last 100 characters holds the reference to the letter, and what it holds.
pub fn is_correct_strict_box(text: &str, reference: &str) -> (bool, Option<String>) {
    let answer = last_boxed_only_string(tail(text, 100)).and_then(|boxed| remove_boxed(boxed).ok()).map(str::to_owned);
    (answer.as_deref() == Some(reference), answer)
}

/// DAPO's verdict on the last 300 characters, and the answer that was found.
pub fn verify(text: &str, reference: &str, is_strict_box: bool) -> (bool, Option<String>) {
    let text = tail(text, 300);
    if is_strict_box {
        return is_correct_strict_box(text, reference);
    }
    let (is_correct, answer) = is_correct_minerva(text, reference);
    (is_correct, Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (text, expected) in [
            ("x = 42", "42"),
            ("an answer", "answer"),
            ("42 square", "42"),
            ("100 dollars", "100"),
            (r"\text{hello}", "hello"),
            (r"\boxed{42}", "42"),
            ("1,234,567", "1234567"),
            ("a b c", "bc"),
            ("42<|im_end|>", "42"),
            (r"$\frac12$", r"\frac{1}{2}"),
        ] {
            assert_eq!(normalize_final_answer(text), expected, "{text}");
        }
    }

    #[test]
    fn only_the_end_of_the_text_is_read() {
        let text = format!("{}{}", r"\boxed{42}", " filler".repeat(60));
        assert_eq!(verify(&text, "42", true), (false, None));
        assert_eq!(verify(r"long preamble … \boxed{42}", "42", true), (true, Some("42".into())));
        assert_eq!(verify("Answer: 41 was wrong.\nAnswer: 42", "42.0", false), (true, Some("42".into())));
        assert!(!verify("just a number 42", "42", false).0);
    }
}
