//! What is no part of a formula: punctuation and conditions at its end, units behind its numbers, prose.

use crate::lexer::{Lexeme, Token};
use crate::parser::Parser;
use crate::words;

impl Parser<'_> {
    /// Drops what ends a sentence, which an ellipsis does not.
    pub(crate) fn drop_final_punctuation(&mut self) {
        let dots = self.lexemes.iter().rev().take_while(|lexeme| lexeme.token == Token::Sign('.')).count();
        if dots >= 3 {
            return;
        }
        while let Some(Lexeme { token: Token::Sign('.' | ',' | ';' | ':' | '?'), .. }) = self.lexemes.last() {
            self.lexemes.pop();
        }
    }

    /// Three words in a row are no formula.
    pub(crate) fn is_prose(&self) -> bool {
        let mut words = 0;
        for lexeme in &self.lexemes {
            match lexeme.token {
                Token::Word(word) if word.len() > 1 && !words::is_unit(word) && words::function(word).is_none() => {
                    words += 1;
                    if words == 3 {
                        return true;
                    }
                }
                Token::Word(_) | Token::Sign('\'') => {}
                _ => words = 0,
            }
        }
        false
    }

    /// `\text{ if } x > 0`, `\pmod 5`: no part of the answer.
    pub(crate) fn skip_condition(&mut self) {
        match self.peek() {
            Some(Token::Text(text)) if words::begins_condition(text) => {}
            Some(Token::Command("pmod" | "forall" | "quad")) => {}
            Some(Token::Word("if" | "for" | "where" | "when")) => {}
            Some(Token::Sign('('))
                if matches!(self.peek_at(1), Some(Token::Command("bmod" | "mod") | Token::Word("mod"))) => {}
            _ => return,
        }
        if self.depth <= 1 {
            self.at = self.lexemes.len();
        }
    }

    /// A word in `\text{..}` that only says what is counted.
    pub(crate) fn skip_text_unit(&mut self) -> bool {
        let Some(Token::Text(text)) = self.peek() else { return false };
        let is_name = text.len() == 1 && text.chars().all(char::is_alphabetic) && !words::is_letter_unit(text);
        if is_name
            || words::joins(text)
            || words::begins_condition(text)
            || words::is_percent(text)
            || words::function(text).is_some() && !words::is_unit(text)
        {
            return false;
        }
        self.at += 1;
        self.skip_unit_exponent();
        true
    }

    fn skip_unit_exponent(&mut self) {
        if self.is_sign('^') {
            match (self.peek_at(1), self.peek_at(2), self.peek_at(3)) {
                (Some(Token::Number { .. }), ..) => self.at += 2,
                (Some(Token::Sign('{')), Some(Token::Number { .. }), Some(Token::Sign('}'))) => self.at += 4,
                _ => {}
            }
        } else if self.is_sign('²') || self.is_sign('³') {
            self.at += 1;
        }
    }

    /// Units at the end of an element: `cm^2`, `miles per hour`, `km/h`.
    pub(crate) fn skip_units(&mut self) -> bool {
        let start = self.at;
        loop {
            match self.peek() {
                Some(Token::Word(word))
                    if words::is_unit(word)
                        || words::is_letter_unit(word) && self.lexemes[self.at].is_spaced
                        || self.at > start && words::is_letter_unit(word) =>
                {
                    self.at += 1;
                    self.skip_unit_exponent();
                }
                Some(Token::Sign('/')) if self.at > start => self.at += 1,
                _ => break,
            }
        }
        let is_end = matches!(
            self.peek(),
            None | Some(
                Token::Sign(',' | ';' | '.' | ')' | ']' | '}' | '=') | Token::Word("and" | "or") | Token::Command("}")
            )
        );
        if self.at == start || !is_end {
            self.at = start;
            return false;
        }
        true
    }
}
