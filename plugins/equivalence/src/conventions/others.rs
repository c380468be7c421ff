//! PRM800K's, GSM8K's and Qwen2.5-Math's answers, and letters of multiple choice.

use common::bytes::rfind;

use super::hendrycks::{last_boxed_only_string, mathd_normalize_answer, remove_boxed, strip_string};
use crate::compare::{Settings, compare};
use crate::extract::{Answer, Extraction, Target, extract};
use crate::parser::parse;

/// What the last box holds.
pub fn extract_boxed_answer(text: &str) -> Option<&str> {
    remove_boxed(last_boxed_only_string(text)?)
}

/// Whether the normal forms are equal as text.
pub fn grade_answer_mathd(answer: &str, reference: &str) -> bool {
    mathd_normalize_answer(answer) == mathd_normalize_answer(reference)
}

/// PRM800K's second grader: element by element; a fraction must be written as in the reference, an integer as an integer.
pub fn grade_answer_sympy(answer: &str, reference: &str) -> bool {
    let (ours, theirs) = (prm_normal(reference), prm_normal(answer));
    if ours == theirs {
        return !ours.is_empty();
    }
    if theirs.is_empty() {
        return false;
    }
    let (ours_parts, theirs_parts) = (split_tuple(&ours), split_tuple(&theirs));
    let ends = |text: &str| (text.chars().next(), text.chars().next_back());
    if ours_parts.len() > 1 && ends(&ours) != ends(&theirs) || ours_parts.len() != theirs_parts.len() {
        return false;
    }
    ours_parts.iter().zip(&theirs_parts).all(|(ours, theirs)| {
        if is_fraction(ours) && is_fraction(theirs) {
            return ours == theirs;
        }
        if is_integer(ours) != is_integer(theirs) {
            return false;
        }
        let settings = Settings { precision: 12, ..Settings::default() };
        match (parse(ours), parse(theirs)) {
            (Some(a), Some(b)) => compare(&a, &b, &settings).is_equal(),
            _ => false,
        }
    })
}

fn prm_normal(text: &str) -> String {
    let inside = text.trim().strip_prefix("\\text{").and_then(|rest| rest.strip_suffix('}')).unwrap_or(text.trim());
    let mut text = inside.to_owned();
    for (from, to) in [
        ("\\%", ""),
        ("%", ""),
        ("\\$", ""),
        ("$", ""),
        (" or ", " , "),
        (" and ", " , "),
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("^\\circ", ""),
        ("^{\\circ}", ""),
        ("\\!", ""),
        ("{,}", ""),
        (" ", ""),
    ] {
        text = text.replace(from, to);
    }
    let digits = text.replace(',', "");
    let is_number =
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    let grouped = text.split(',').skip(1).all(|group| group.split('.').next().is_some_and(|digits| digits.len() == 3));
    if is_number && grouped { digits.to_lowercase() } else { text.to_lowercase() }
}

fn split_tuple(text: &str) -> Vec<&str> {
    let bracketed = text.len() > 2 && text.starts_with(['(', '[']) && text.ends_with([')', ']']);
    if bracketed && text[1..text.len() - 1].contains(',') && !text[1..text.len() - 1].contains(['(', ')', '[', ']']) {
        return text[1..text.len() - 1].split(',').map(str::trim).collect();
    }
    vec![text]
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_fraction(text: &str) -> bool {
    let inside = text.strip_prefix('-').unwrap_or(text);
    if let Some((above, below)) = inside.split_once('/') {
        return is_integer(above) && is_integer(below);
    }
    let parts =
        inside.strip_prefix("\\frac{").and_then(|rest| rest.strip_suffix('}')).and_then(|rest| rest.split_once("}{"));
    parts.is_some_and(|(above, below)| is_integer(above) && is_integer(below))
}

/// PRM800K's verdict on the last box, and what that holds. An empty reference, or no box, is a miss.
pub fn grade_answer_verl(text: &str, reference: &str) -> (bool, Option<String>) {
    let boxed = ["\\boxed", "\\fbox"].iter().any(|name| reference.contains(name));
    let reference = if boxed { extract_boxed_answer(reference).unwrap_or_default() } else { reference };
    match extract_boxed_answer(text) {
        Some(answer) if !reference.is_empty() => {
            let is_equal = grade_answer_mathd(answer, reference) || grade_answer_sympy(answer, reference);
            (is_equal, Some(answer.to_owned()))
        }
        answer => (false, answer.map(str::to_owned)),
    }
}

/// The number after the last `####`, without separators.
pub fn gsm8k_answer(text: &str) -> Option<String> {
    let rest = text[rfind(text, "####")? + 4..].trim_start_matches([' ', '$']);
    let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '.' | ','))).unwrap_or(rest.len());
    let number = rest[..end].replace(',', "");
    let number = number.trim_end_matches('.');
    number.bytes().any(|byte| byte.is_ascii_digit()).then(|| number.to_owned())
}

/// Qwen2.5-Math's answer: a box, what follows "the answer is", or the last number; normalised.
pub fn qwen25_extract_answer(text: &str) -> Option<String> {
    let answer = if text.contains("boxed") {
        let rest = &text[rfind(text, "boxed")? + "boxed".len()..];
        match rest.strip_prefix('{') {
            Some(inside) => {
                let end = crate::extract::boxed::closing(inside, 0).unwrap_or(inside.len());
                inside[..end].to_owned()
            }
            None => rest.split('$').next().unwrap_or_default().trim().to_owned(),
        }
    } else if let Some((at, phrase)) =
        ["he answer is", "final answer is", "答案是"].iter().find_map(|phrase| Some((rfind(text, phrase)?, phrase)))
    {
        text[at + phrase.len()..].to_owned()
    } else {
        let plain = text.replace(',', "");
        let bytes = plain.as_bytes();
        let last = bytes.iter().rposition(u8::is_ascii_digit)?;
        let is_part = |byte: &u8| byte.is_ascii_digit();
        let mut start = bytes[..=last].iter().rposition(|byte| !is_part(byte)).map_or(0, |i| i + 1);
        if start > 0 && bytes[start - 1] == b'.' {
            start -= 1;
            start = bytes[..start].iter().rposition(|byte| !is_part(byte)).map_or(0, |i| i + 1);
        }
        if start > 0 && bytes[start - 1] == b'-' {
            start -= 1;
        }
        plain[start..=last].to_owned()
    };
    let answer = answer.trim().trim_start_matches(':').trim();
    let answer = answer.lines().next().unwrap_or_default().trim_end_matches(['.', '/']).trim();
    let normal = strip_string(answer);
    // Without a unit behind a number.
    (!normal.is_empty()).then_some(normal)
}

/// Of the answers that were found, the one that equals a reference, or else the first.
pub fn select_extracted_answer<'a>(references: &[&str], answers: &[&'a str]) -> Option<&'a str> {
    let settings = Settings::default();
    let is_right = |answer: &&&str| {
        references.iter().any(|reference| match (Answer::whole(reference), Answer::whole(answer)) {
            (Some(ours), Some(theirs)) => crate::equal_answers(&ours, &theirs, &settings).is_equal(),
            _ => false,
        })
    };
    answers.iter().find(is_right).or(answers.first()).copied()
}

/// math-verify's extraction of strings: the one that was found, in lower case and as it was written.
pub fn choice_letter(text: &str, choices: &[&str]) -> Option<(String, String)> {
    let extraction = Extraction {
        targets: vec![Target::Choice],
        choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
        ..Extraction::default()
    };
    let found = extract(text, &extraction)?;
    Some((found.text.to_lowercase(), found.text))
}

/// Whether a text is a number with one of the short units right behind it: `10cm`, which MARIO does not take for 10.
pub fn has_glued_unit(text: &str) -> bool {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    unit.len() < text.len() && matches!(unit, "m" | "cm" | "mm" | "km" | "g" | "kg" | "s" | "h" | "l" | "ft" | "in")
}

/// Seconds since midnight that a text like `20:34`, `20:34:00` or `08:34 P.M.` says.
pub fn clock(text: &str) -> Option<u32> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == ':')).unwrap_or(text.len());
    let parts: Vec<&str> = text[..end].split(':').collect();
    let is_clock = matches!(parts.len(), 2 | 3)
        && (1..=2).contains(&parts[0].len())
        && parts[1..].iter().all(|part| part.len() == 2);
    if !is_clock {
        return None;
    }
    let numbers: Vec<u32> = parts.iter().map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let half: String = text[end..].replace("\\text", "").chars().filter(char::is_ascii_alphabetic).collect();
    let hours = match half.to_ascii_lowercase().as_str() {
        "" => numbers[0],
        "am" => numbers[0] % 12,
        "pm" => numbers[0] % 12 + 12,
        _ => return None,
    };
    let seconds = numbers.get(2).copied().unwrap_or(0);
    (hours < 25 && numbers[1] < 60 && seconds < 60).then_some(hours * 3600 + numbers[1] * 60 + seconds)
}

/// Words for "answer" that simple-evals knows.
const ANSWER: &[&str] = &[
    "answer",
    "答案",
    "答え",
    "回答",
    "解答",
    "答",
    "antwort",
    "respuesta",
    "réponse",
    "resposta",
    "risposta",
    "ответ",
    "jibu",
    "jawaban",
    "đáp án",
    "câu trả lời",
    "정답",
    "답",
    "الإجابة",
    "الجواب",
    "उत्तर",
    "উত্তর",
    "ìdáhùn",
];

/// The letter after the last "Answer:" in any language.
pub fn multiple_choice_letter(text: &str) -> Option<char> {
    let lower = text.to_lowercase();
    let mut best: Option<(usize, char)> = None;
    for word in ANSWER {
        let mut at = 0;
        while let Some(found) = lower[at..].find(word) {
            let start = at + found;
            at = start + word.len();
            let rest = lower[at..].trim_start();
            let Some(rest) = rest.strip_prefix(':').or_else(|| rest.strip_prefix('：')) else { continue };
            let mut letters = rest.trim_start_matches([' ', '\t', '*', '$', '(', '\n']).chars();
            if let Some(letter @ 'a'..='z') = letters.next()
                && letters.next().is_none_or(|next| !next.is_alphanumeric())
                && best.is_none_or(|(position, _)| position < start)
            {
                best = Some((start, letter.to_ascii_uppercase()));
            }
        }
    }
    best.map(|(_, letter)| letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prm800k_wants_fractions_as_in_the_reference() {
        assert!(grade_answer_sympy("x+1", "1+x"));
        assert!(!grade_answer_sympy(r"\frac{2}{4}", r"\frac{1}{2}"));
        assert!(grade_answer_verl(r"answer: \fbox{42}", r"\fbox{42}").0);
        assert!(!grade_answer_verl("just 42", "42").0);
        assert!(!grade_answer_verl(r"\boxed{42}", "").0);
        for (answer, reference) in [(r"\frac{1}{2}", "0.5"), (r"45^\circ", "45"), ("3/4", r"\frac{3}{4}")] {
            assert!(grade_answer_mathd(answer, reference), "{answer}");
        }
    }

    #[test]
    fn answers_of_qwen() {
        for (text, expected) in [
            (r"The answer is \boxed{42}", Some("42")),
            (r"The result is \boxed{\frac{1}{2}}", Some(r"\frac{1}{2}")),
            ("Therefore, the final answer is 100.", Some("100")),
            ("My final answer is: 3.14", Some("3.14")),
            ("所以，答案是x^2", Some("x^2")),
            ("There are 1,000 apples and 2,000 oranges.", Some("2000")),
            ("The probability is 0.75.", Some("0.75")),
            ("This sentence has no answer.", None),
            (r"The box is empty \boxed{}", None),
        ] {
            assert_eq!(qwen25_extract_answer(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn letters_are_found_in_many_languages() {
        assert_eq!(multiple_choice_letter("\nAnswer: D"), Some('D'));
        assert_eq!(multiple_choice_letter("\n答案: B"), Some('B'));
        assert_eq!(multiple_choice_letter("Answer: Because"), None);
        let letter = |text| choice_letter(text, &["A", "B", "C", "D"]).map(|(lower, raw)| lower + &raw);
        assert_eq!(letter("The answer is A.").as_deref(), Some("aA"));
        assert_eq!(letter("Final answer is B").as_deref(), Some("bB"));
        assert_eq!(letter("A. Because B is not valid").as_deref(), Some("aA"));
        assert_eq!(letter("Because B is valid").as_deref(), Some("bB"));
        assert_eq!(letter("No valid answer here"), None);
    }

    #[test]
    fn the_right_one_of_several_answers_is_selected() {
        assert_eq!(select_extracted_answer(&["42"], &["7", "42"]), Some("42"));
        assert_eq!(select_extracted_answer(&["42"], &["7", "8"]), Some("7"));
        assert_eq!(select_extracted_answer(&["42"], &[]), None);
    }
}
