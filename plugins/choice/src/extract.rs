//! Where a choice is named in a text, and which it is.

use common::places::{Place, boxed};
use common::words::is_han;

use crate::letters::{ANCHORS, COLONS, LABELS, latin};

/// A way to find the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// In the last `<answer>..</answer>`.
    AnswerTag,
    /// In the last `\boxed{..}`.
    Boxed,
    /// Right after the last "Answer:", in any of many languages.
    Label,
    /// Near the last "answer", on the same line.
    Phrase,
    /// At the beginning of the text.
    Start,
    /// The last letter that stands alone.
    LastLetter,
}

impl Way {
    /// What notes call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerTag => "<answer>",
            Self::Boxed => "\\boxed",
            Self::Label => "\"Answer:\"",
            Self::Phrase => "\"the answer\"",
            Self::Start => "the beginning",
            Self::LastLetter => "the last letter",
        }
    }
}

/// How far behind "answer" its letter may stand, in characters, as in math-verify.
const NEAR: usize = 50;

/// The choices of a row.
pub struct Choices {
    letters: Vec<char>,
    /// The texts, simplified; none where the row does not have them.
    texts: Vec<String>,
}

impl Choices {
    pub fn new(letters: &str, texts: &[String]) -> Self {
        Self { letters: letters.chars().collect(), texts: texts.iter().map(|text| simplified(text)).collect() }
    }

    /// The letter of the choice with this number, from 0 on.
    pub fn letter_at(&self, index: usize) -> Option<char> {
        self.letters.get(index).copied()
    }

    /// The choice that a text is, in other case or punctuation; `None` too if two choices are alike.
    pub fn letter_of(&self, text: &str) -> Option<char> {
        let text = simplified(text);
        let mut same = self.texts.iter().zip(&self.letters).filter(|(choice, _)| !text.is_empty() && **choice == text);
        match (same.next(), same.next()) {
            (Some((_, letter)), None) => Some(*letter),
            _ => None,
        }
    }

    /// The letter that a text is, but for brackets and marks around it.
    pub fn only_letter(&self, text: &str) -> Option<char> {
        let text = text.trim_matches(|c: char| !c.is_alphanumeric());
        let mut characters = text.chars();
        let letter = latin(characters.next()?)?;
        (characters.next().is_none() && self.letters.contains(&letter)).then_some(letter)
    }

    /// The choice that the text begins with or is: `B`, `(b)`, `**B**. Paris`, `\text{B}`, or its wording.
    fn named(&self, text: &str) -> Option<char> {
        let text = unwrapped(text);
        if let Some(letter) = self.only_letter(text).or_else(|| self.letter_of(text)) {
            return Some(letter);
        }
        self.leading(text)
    }

    /// The letter at the beginning that is no word: what follows it is no letter, and no word that an article would have.
    fn leading(&self, text: &str) -> Option<char> {
        // A backslash begins a command of LaTeX.
        let begun = text.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '\\');
        let c = begun.chars().next().filter(|c| !c.is_ascii_lowercase())?;
        let letter = latin(c).filter(|letter| self.letters.contains(letter))?;
        let rest = &begun[c.len_utf8()..];
        (!joins(rest.chars().next()) && !is_article(letter, rest)).then_some(letter)
    }

    /// The letters of the text that stand alone, upper case, with their places.
    fn alone<'t>(&'t self, text: &'t str) -> impl Iterator<Item = (usize, char)> + 't {
        let is_alone = |at: usize| {
            let before = text[..at].chars().next_back();
            before != Some('\\') && !joins(before) && !joins(text[at + 1..].chars().next())
        };
        let bytes = text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_uppercase());
        bytes.map(|(at, byte)| (at, char::from(byte))).filter(move |(at, c)| self.letters.contains(c) && is_alone(*at))
    }
}

/// Whether the character makes a word of a letter beside it. Chinese, which has no spaces, does not.
fn joins(c: Option<char>) -> bool {
    let is_mark = |c| matches!(c, '\'' | '’' | '_' | '\u{300}'..='\u{36f}');
    c.is_some_and(|c| (c.is_alphanumeric() && !is_han(c)) || is_mark(c))
}

/// Whether an A or I before this is a word of English: a small letter follows after a space.
fn is_article(letter: char, rest: &str) -> bool {
    let mut characters = rest.chars();
    matches!(letter, 'A' | 'I') && characters.next() == Some(' ') && characters.next().is_some_and(char::is_lowercase)
}

/// Words in lower case with single spaces between them, and nothing else.
fn simplified(text: &str) -> String {
    let lowered = text.to_lowercase();
    let words: Vec<&str> = lowered.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    // A choice such as "-1" or "±" is nothing but punctuation or depends on it.
    if words.concat().chars().any(char::is_alphabetic) { words.join(" ") } else { lowered.trim().into() }
}

/// Without the marks of Markdown and LaTeX that often stand around a choice.
fn unwrapped(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let before = text;
        for mark in ["**", "$", "\\(", "\\[", "\\boxed", "\\textbf", "\\text", "\\mathrm", "\\mathbf", "{"] {
            text = text.strip_prefix(mark).unwrap_or(text);
        }
        text = text.trim_start();
        if text.len() == before.len() {
            return text.trim_end_matches(|c: char| matches!(c, '*' | '$' | '}' | '.') || c.is_whitespace());
        }
    }
}

/// The first way whose mark is in the text, and its choice if it names one.
pub fn find(text: &str, ways: &[Way], choices: &Choices) -> Option<(Way, Option<char>)> {
    ways.iter().find_map(|way| {
        let letter = match way {
            Way::AnswerTag => choices.named(Place::Tag("answer".into()).read(text)?),
            Way::Boxed => choices.named(boxed(text)?),
            Way::Label => Some(label(text, choices)?),
            Way::Phrase => Some(phrase(text, choices)?),
            Way::Start => Some(choices.leading(unwrapped(text))?),
            Way::LastLetter => Some(last_letter(text, choices)?),
        };
        Some((*way, letter))
    })
}

/// The choice right after the last label that has one.
fn label(text: &str, choices: &Choices) -> Option<char> {
    let mut end = text.len();
    while let Some(at) = text[..end].rfind(COLONS) {
        let before = text[..at].trim_end_matches(|c: char| c.is_whitespace() || c == '*');
        if LABELS.iter().any(|label| ends_with(before, label)) {
            let behind = text[at..].trim_start_matches(COLONS);
            let line = behind.trim_start_matches([' ', '\t', '*']).split('\n').next().unwrap_or_default();
            let line = unwrapped(line);
            // In another script a letter may be followed by a letter: there the first is enough.
            let foreign = || line.chars().next().filter(|c| !c.is_ascii()).and_then(latin);
            if let Some(letter) = choices.named(line).or_else(foreign).filter(|c| choices.letters.contains(c)) {
                return Some(letter);
            }
        }
        end = at;
    }
    None
}

/// Whether the text ends with the words, in any ASCII case, and they are no part of a longer one.
fn ends_with(text: &str, words: &str) -> bool {
    let Some(at) = text.len().checked_sub(words.len()) else { return false };
    let (Some(rest), Some(end)) = (text.get(..at), text.get(at..)) else { return false };
    let is_word = !rest.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
    is_word && end.eq_ignore_ascii_case(words)
}

/// The first letter that stands alone near the last anchor that has one.
fn phrase(text: &str, choices: &Choices) -> Option<char> {
    let lowered = text.to_ascii_lowercase();
    let mut end = text.len();
    loop {
        let last = |anchor: &&str| common::bytes::rfind(&lowered[..end], anchor).map(|at| (at, at + anchor.len()));
        let (at, behind) = ANCHORS.iter().filter_map(last).max()?;
        let line = text[behind..].split('\n').next().unwrap_or_default();
        let near = line.char_indices().nth(NEAR + 2).map_or(line, |(i, _)| &line[..i]);
        if let Some((_, letter)) = choices.alone(near).next() {
            return Some(letter);
        }
        end = at;
    }
}

/// The last letter that stands alone and is no article.
fn last_letter(text: &str, choices: &Choices) -> Option<char> {
    choices.alone(text).filter(|(at, letter)| !is_article(*letter, &text[at + 1..])).last().map(|found| found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Way; 6] = [Way::AnswerTag, Way::Boxed, Way::Label, Way::Phrase, Way::Start, Way::LastLetter];

    #[track_caller]
    fn check(text: &str, way: Way, letter: Option<char>) {
        assert_eq!(find(text, &ALL, &Choices::new("ABCD", &[])), Some((way, letter)), "{text}");
    }

    #[test]
    fn letters_are_found_by_every_way() {
        for text in
            ["<answer>B</answer>", "<answer> (b) </answer>", "<answer>B) Paris</answer>", "<answer>**B**</answer>"]
        {
            check(text, Way::AnswerTag, Some('B'));
        }
        check("<answer>Because</answer> B", Way::AnswerTag, None);
        check("<answer>A dog</answer>", Way::AnswerTag, None);
        for text in [r"\boxed{B}", r"\boxed{\text{B}}", r"\boxed{(B) 3}", r"\boxed{\textbf{(B)}\ 3}"] {
            check(text, Way::Boxed, Some('B'));
        }
        for text in
            ["Answer: B", "**Answer:** B", "ANSWER : (B)", "Answer: $B$", "Answer:\u{a0}B.", "Answer: A\nAnswer: B. No"]
        {
            check(text, Way::Label, Some('B'));
        }
        for text in ["答案：B", "답: B", "উত্তরঃ ব", "Réponse : B", "الإجابة: ب", "答え：Ｂ", "Antwort: b"]
        {
            check(text, Way::Label, Some('B'));
        }
        for text in [
            "The answer is B.",
            "so the final answer is\u{a0}(B) Paris",
            "the answer must be option B, not C",
            "所以答案是B",
        ] {
            check(text, Way::Phrase, Some('B'));
        }
        check("B. Because A is not valid", Way::Start, Some('B'));
        check("Because B is valid", Way::LastLetter, Some('B'));
        check("It is B. A dog knows.", Way::LastLetter, Some('B'));
        check("the Answerer: B", Way::Phrase, Some('B'));
    }

    #[test]
    fn words_are_no_letters() {
        for text in ["", "No valid answer here", "ABC", "a", "A dog", "B's", "É B\u{301}é", "\\B", "answer: Carbon"] {
            assert_eq!(find(text, &ALL, &Choices::new("ABCD", &[])), None, "{text}");
        }
    }

    #[test]
    fn a_choice_may_be_named_by_its_text() {
        let texts = ["Paris".into(), "the Rhine".into(), "-1".into(), "1".into()];
        let choices = Choices::new("ABCD", &texts);
        let named = |text| choices.named(text);
        assert_eq!([named("paris."), named("The Rhine!"), named("-1"), named("1")], ['A', 'B', 'C', 'D'].map(Some));
        assert_eq!((named("Rhine"), named("")), (None, None));
        assert_eq!(Choices::new("AB", &["x".into(), "X".into()]).letter_of("x"), None);
        let found = find("Answer: paris", &ALL, &choices);
        assert_eq!(found, Some((Way::Label, Some('A'))));
    }
}
