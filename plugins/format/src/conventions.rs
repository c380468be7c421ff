//! What counts as the right form. Trainers disagree in details that a model notices: each of their rules is here as it is.

use common::bytes::{count, find, find_byte, find_from, rfind};

/// A pair of tags.
pub struct Tags {
    pub open: String,
    pub close: String,
}

impl Tags {
    pub fn new(name: &str) -> Self {
        Self { open: format!("<{name}>"), close: format!("</{name}>") }
    }

    fn pair(&self) -> String {
        format!("{}..{}", self.open, self.close)
    }

    /// The block that opens first at byte `from` or after it, and the byte behind it.
    fn block<'t>(&self, text: &'t str, from: usize) -> Option<(&'t str, usize)> {
        let start = find_from(text, &self.open, from)? + self.open.len();
        let end = find_from(text, &self.close, start)?;
        Some((&text[start..end], end + self.close.len()))
    }
}

/// A rule that says whether a text has the right form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// One thought, then one answer, neither blank, with nothing but white space around them.
    #[default]
    Strict,
    /// A thought and after it an answer, neither blank, whatever stands around them.
    Lenient,
    /// open-r1's `format_reward` and, with `code`, its `code_format_reward`: each tag on a line of its own.
    OpenR1,
    /// TRL's `think_format_reward`: the text begins with the only opening tag of a thought, which is closed.
    Trl,
    /// verifiers' `ThinkParser`: the text begins with the only thought, and something stands after it.
    Verifiers,
    /// NeMo RL's `format_reward`: a quarter for a thought, three quarters for an answer, wherever they are.
    NemoRl,
    /// NeMo RL's form for several rewards of mathematics: a thought, a line feed, the only answer, and nothing else.
    NemoRlMath,
}

impl Convention {
    /// Whether the rule looks into the answer, so that it can ask for code there.
    pub fn has_answer(self) -> bool {
        matches!(self, Self::Strict | Self::Lenient | Self::OpenR1)
    }

    /// How far the text has the form, from 0 to 1. `fence` opens the code that the answer must hold.
    pub fn score(self, text: &str, think: &Tags, answer: &Tags, fence: Option<&str>) -> f64 {
        let is_well_formed = match self {
            Self::Strict => strict(text, think, answer).is_some_and(|inside| has_code(inside, fence)),
            Self::Lenient => lenient(text, think, answer).is_some_and(|inside| has_code(inside, fence)),
            Self::OpenR1 => open_r1(text, think, answer, fence).is_some(),
            Self::Trl => trl(text, think),
            Self::Verifiers => verifiers(text, think),
            Self::NemoRl => {
                let part = |tags: &Tags, weight| if has_pair(text, tags) { weight } else { 0.0 };
                return part(think, 0.25) + part(answer, 0.75);
            }
            Self::NemoRlMath => nemo_rl_math(text, think, answer).is_some(),
        };
        f64::from(is_well_formed)
    }

    /// What is said of a text that does not have the form.
    pub fn describe(self, think: &Tags, answer: &Tags, fence: Option<&str>) -> String {
        let (thought, answered) = (think.pair(), answer.pair());
        let code = fence.map(|fence| format!(" with {fence} inside")).unwrap_or_default();
        match self {
            Self::Strict => format!("not {thought}{answered}{code}"),
            Self::Lenient => format!("no {thought} and then {answered}{code}"),
            Self::OpenR1 => format!("not {thought}{answered}{code}, each tag on a line of its own"),
            Self::Trl => format!("not one {} at the beginning that is closed", think.open),
            Self::Verifiers => format!("not one {thought} at the beginning and something after it"),
            Self::NemoRl => format!("{thought} or {answered} is missing"),
            Self::NemoRlMath => format!("not {thought}, a line feed, {answered}"),
        }
    }
}

/// Whether a fenced block of the language stands in the answer, and is closed.
fn has_code(inside: &str, fence: Option<&str>) -> bool {
    fence.is_none_or(|fence| code_end(inside, 0, fence).is_some())
}

/// The byte behind the first code at `from` or after it.
fn code_end(text: &str, from: usize, fence: &str) -> Option<usize> {
    let opened = find_from(text, fence, from)? + fence.len();
    find_from(text, "```", opened).map(|at| at + 3)
}

/// What the answer holds. One walk over the text's `<`: this is the default, and its speed counts.
fn strict<'t>(text: &'t str, think: &Tags, answer: &Tags) -> Option<&'t str> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let marks = [&think.open, &think.close, &answer.open, &answer.close];
    let mut places = [None; 4];
    let mut at = 0;
    while let Some(start) = find_byte(bytes, b'<', at) {
        for (place, mark) in places.iter_mut().zip(marks) {
            if bytes[start..].starts_with(mark.as_bytes()) && place.replace(start).is_some() {
                return None;
            }
        }
        at = start + 1;
    }
    let [opened, closed, answers, ended] = [places[0]?, places[1]?, places[2]?, places[3]?];
    let thought = text.get(opened + think.open.len()..closed)?;
    let between = text.get(closed + think.close.len()..answers)?;
    let inside = text.get(answers + answer.open.len()..ended)?;
    let is_all = opened == 0 && ended + answer.close.len() == text.len() && is_blank(between);
    (is_all && !is_blank(thought) && !is_blank(inside)).then_some(inside)
}

fn is_blank(text: &str) -> bool {
    text.trim_start().is_empty()
}

fn lenient<'t>(text: &'t str, think: &Tags, answer: &Tags) -> Option<&'t str> {
    let (thought, behind) = think.block(text, 0)?;
    let (inside, _) = answer.block(text, behind)?;
    (!is_blank(thought) && !is_blank(inside)).then_some(inside)
}

/// `^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$`, where `.` is any character and `$` the end of any line.
fn open_r1(text: &str, think: &Tags, answer: &Tags, fence: Option<&str>) -> Option<()> {
    let begun = think.open.len() + 1;
    text.strip_prefix(&think.open)?.strip_prefix('\n')?;
    let middle = format!("\n{}\n{}\n", think.close, answer.open);
    let mut at = find_from(text, &middle, begun)? + middle.len();
    if let Some(fence) = fence {
        at = code_end(text, at, fence)?;
    }
    let end = format!("\n{}", answer.close);
    loop {
        at = find_from(text, &end, at)? + end.len();
        if matches!(text.as_bytes().get(at), None | Some(b'\n')) {
            return Some(());
        }
    }
}

/// `^<think>(?!.*<think>)(.*?)</think>.*$`, where `.` is any character.
fn trl(text: &str, think: &Tags) -> bool {
    text.starts_with(&think.open)
        && find_from(text, &think.open, think.open.len()).is_none()
        && find_from(text, &think.close, think.open.len()).is_some()
}

fn verifiers(text: &str, think: &Tags) -> bool {
    text.trim_start().starts_with(&think.open)
        && count(text, &think.open) == 1
        && count(text, &think.close) == 1
        && !text.ends_with(&think.close)
}

fn has_pair(text: &str, tags: &Tags) -> bool {
    find(text, &tags.open).is_some_and(|open| rfind(text, &tags.close).is_some_and(|close| close > open))
}

/// `^<think>.*?</think>\n<answer>.*?</answer>$`, where `.` is any character and a line feed may end the text.
fn nemo_rl_math(text: &str, think: &Tags, answer: &Tags) -> Option<()> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_prefix(&think.open)?;
    let middle = format!("{}\n{}", think.close, answer.open);
    let begun = find_from(text, &middle, think.open.len())? + middle.len();
    let is_ended = text[begun..].ends_with(&answer.close);
    (is_ended && count(text, &answer.open) == 1 && count(text, &answer.close) == 1).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(convention: Convention, fence: Option<&str>, text: &str, expected: f64) {
        let score = convention.score(text, &Tags::new("think"), &Tags::new("answer"), fence);
        assert_eq!(score, expected, "{convention:?} of {text:?}");
    }

    #[test]
    fn strict_takes_nothing_but_a_thought_and_an_answer() {
        let check = |text, expected| check(Convention::Strict, None, text, expected);
        check("<think>a</think><answer>b</answer>", 1.0);
        check(" <think>\na < b <i>\n</think>\n\n<answer>1</answer>\n", 1.0);
        for text in
            ["", "<", "<think>", "</think><think>a</think><answer>b</answer>", "<answer>b</answer><think>a</think>"]
        {
            check(text, 0.0);
        }
        check("<think>a</think>,<answer>b</answer>", 0.0);
        check("<think>a<answer>b</think></answer>", 0.0);
        check("<think>\u{a0}</think><answer>b</answer>", 0.0);
    }

    #[test]
    fn lines_end_where_python_says() {
        let check = |text, expected| check(Convention::OpenR1, None, text, expected);
        check("<think>\na\n</think>\n<answer>\nb\n</answer>", 1.0);
        check("<think>\na\n</think>\n<answer>\nb\n</answer>\nand more", 1.0);
        check("<think>\na\n</think>\n<answer>\nb\n</answer>x\n</answer>", 1.0);
        check("<think>\na\n</think>\n<answer>\nb\n</answer> ", 0.0);
        check("<think>\n</think>\n<answer>\nb\n</answer>", 0.0);
        check("<think>\n\n</think>\n<answer>\n\n</answer>", 1.0);
        check("x<think>\na\n</think>\n<answer>\nb\n</answer>", 0.0);
    }

    #[test]
    fn code_stands_in_the_answer_and_is_closed() {
        let python = Some("```python");
        for convention in [Convention::Strict, Convention::Lenient, Convention::OpenR1] {
            let text = |code| format!("<think>\n```python\n1\n```\n</think>\n<answer>\n{code}\n</answer>");
            check(convention, python, &text("```python\nx\n```"), 1.0);
            check(convention, python, &text("```python\nx\n"), 0.0);
            check(convention, python, &text("x"), 0.0);
        }
    }

    #[test]
    fn nemo_rl_counts_answers() {
        let check = |text, expected| check(Convention::NemoRlMath, None, text, expected);
        check("<think>a</think>\n<answer>b</answer>", 1.0);
        check("<think>a</think>\n<answer>b</answer>\n", 1.0);
        check("<think>a</think>\n<answer>b</answer>\n\n", 0.0);
        check("<think>a</think>\n\n<answer>b</answer>", 0.0);
        check("<think>a</think>\n<answer>b</answer><answer>c</answer>", 0.0);
        check("<think>a</think>\n<answer></answer", 0.0);
    }
}
