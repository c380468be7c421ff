//! Counts the words of a text that are in a language.
//!
//! What is no word of a language is left out of both numbers: digits, single Latin letters (variables), commands of LaTeX
//! and fenced code.

use whatlang::{Detector, Lang};

use crate::scripts::{Language, Script};

/// Letters that a piece of text has before its language is asked for. Below this the detector guesses.
const ENOUGH: usize = 40;

/// How sure the detector must be that a piece is in another language.
const SURE: f64 = 0.3;

/// The words in the language, and all words. `rivals` are the languages that pieces in the same script may be in instead.
pub fn count(text: &str, target: &Language, rivals: &[&Language]) -> (usize, usize) {
    let shared: Vec<Lang> =
        rivals.iter().filter(|rival| rival.scripts == target.scripts).map(|rival| rival.lang).collect();
    // Without a rival the script decides.
    let has_rival = shared.iter().any(|lang| *lang != target.lang);
    let detector = has_rival.then(|| Detector::with_allowlist([shared, vec![target.lang]].concat()));
    let is_foreign = |piece: &str| {
        let info = detector.as_ref().and_then(|detector| detector.detect(piece));
        info.is_some_and(|info| info.lang() != target.lang && info.confidence() >= SURE)
    };
    let (mut inside, mut all) = (0, 0);
    // The words of the piece that is not yet judged, and where it begins.
    let (mut start, mut letters, mut pending) = (0, 0, 0);
    let mut walk = Walk { text, at: 0 };
    while let Some(item) = walk.next() {
        match item {
            Item::Word { script, words, letters: more } => {
                all += words;
                if target.scripts.contains(&script) {
                    (pending, letters) = (pending + words, letters + more);
                }
            }
            Item::End if detector.is_none() || letters >= ENOUGH => {
                if !is_foreign(&text[start..walk.at]) {
                    inside += pending;
                }
                (start, letters, pending) = (walk.at, 0, 0);
            }
            Item::End => {}
        }
    }
    // A short rest is too little to be called foreign.
    if letters < ENOUGH || !is_foreign(&text[start..]) {
        inside += pending;
    }
    (inside, all)
}

/// What the walk over a text meets.
enum Item {
    /// A run of letters of one script.
    Word { script: Script, words: usize, letters: usize },
    /// The end of a sentence or of a line.
    End,
}

struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<Item> {
        loop {
            let rest = &self.text[self.at..];
            let c = rest.chars().next()?;
            if let Some(script) = Script::of(c) {
                return Some(self.word(script));
            }
            if let Some(inside) = rest.strip_prefix("```") {
                self.at += common::bytes::find(inside, "```").map_or(rest.len(), |end| end + 6);
                continue;
            }
            self.at += c.len_utf8();
            match c {
                '\\' => {
                    // A command's name is no word.
                    let name = self.text[self.at..].bytes().take_while(u8::is_ascii_alphabetic).count();
                    self.at += name;
                }
                '.' | '!' | '?' | '\n' | '。' | '！' | '？' | '।' | '؟' => return Some(Item::End),
                _ => {}
            }
        }
    }

    /// The run of letters that begins here; marks and apostrophes between letters belong to it.
    fn word(&mut self, script: Script) -> Item {
        let (mut letters, mut end) = (0_usize, self.at);
        for (i, c) in self.text[self.at..].char_indices() {
            match Script::of(c) {
                Some(other) if other == script => {
                    letters += 1;
                    end = self.at + i + c.len_utf8();
                }
                Some(_) => break,
                None if matches!(c, '\'' | '’' | '\u{300}'..='\u{36f}') => {}
                // Vowel signs of Indic scripts and Thai are no letters, and in no word alone.
                None if !c.is_ascii() && !c.is_whitespace() && in_script_block(c, script) => {
                    end = self.at + i + c.len_utf8();
                }
                None => break,
            }
        }
        self.at = end;
        let size = script.letters_of_a_word();
        let words = match (script, letters) {
            (Script::Latin, 1) => 0,
            _ if size > 0 => letters.div_ceil(size),
            _ => 1,
        };
        Item::Word { script, words, letters }
    }
}

/// Whether a character that is no letter belongs to the script's block.
fn in_script_block(c: char, script: Script) -> bool {
    let block = match script {
        Script::Devanagari => '\u{900}'..='\u{963}',
        Script::Bengali => '\u{980}'..='\u{9e3}',
        Script::Tamil => '\u{b80}'..='\u{bd7}',
        Script::Telugu => '\u{c00}'..='\u{c63}',
        Script::Thai => '\u{e00}'..='\u{e4e}',
        Script::Arabic => '\u{64b}'..='\u{65f}',
        Script::Hebrew => '\u{591}'..='\u{5c7}',
        _ => return false,
    };
    block.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::find;

    #[track_caller]
    fn check(code: &str, text: &str, expected: (usize, usize)) {
        let rivals: Vec<_> = ["en", "de", "fr", "es"].iter().filter_map(|code| find(code)).collect();
        assert_eq!(count(text, find(code).unwrap(), &rivals), expected, "{text}");
    }

    #[test]
    fn words_are_told_by_their_script() {
        check("en", "So the answer is 42, 所以答案是四十二。", (4, 8));
        check("zh", "所以答案是四十二, so x = 42.", (4, 5));
        check("ja", "答えはBです。", (3, 3));
        check("ru", "Ответ: the answer", (1, 3));
        check("hi", "उत्तर है answer", (2, 3));
        check("en", "x + y = 3 \\frac{a}{b} don't naïve", (2, 2));
        check("en", "look:\n```python\nfür = 1\n```\ndone", (2, 2));
        check("en", "```", (0, 0));
        check("en", "", (0, 0));
    }

    #[test]
    fn sentences_in_another_language_are_not_in_the_target() {
        let english = "We need to find the number of apples that are left in the basket.";
        let german = "Wir müssen herausfinden, wie viele Äpfel noch im Korb liegen.";
        let text = format!("{english} {german} {english}");
        check("en", &text, (28, 38));
        check("de", &text, (10, 38));
        check("fr", &text, (0, 38));
    }
}
