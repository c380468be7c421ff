//! `^` `!` `%` and degrees: what stands behind an atom.

use crate::lexer::Token;
use crate::parser::{Parser, multiply};
use crate::tree::{Constant, Function, Node};
use crate::words;

impl Parser<'_> {
    /// An atom with what is behind it.
    pub(crate) fn power(&mut self) -> Option<Node> {
        self.nested(|parser| {
            let base = parser.atom()?;
            parser.postfix(base)
        })
    }

    fn postfix(&mut self, mut node: Node) -> Option<Node> {
        let mut operations = 0;
        loop {
            operations += 1;
            if operations > 8 {
                return None;
            }
            match self.peek() {
                Some(Token::Sign('^')) => {
                    self.at += 1;
                    if self.take_degree() {
                        node = self.degrees(node);
                        continue;
                    }
                    if self.take_command("prime") {
                        continue;
                    }
                    let exponent = self.exponent()?;
                    node = Node::Pow(Box::new(node), Box::new(exponent));
                }
                Some(Token::Sign(sign @ ('²' | '³'))) => {
                    let exponent = if *sign == '²' { 2 } else { 3 };
                    self.at += 1;
                    node = Node::Pow(Box::new(node), Box::new(Node::integer(exponent)));
                }
                Some(Token::Command("circ")) => {
                    self.at += 1;
                    node = self.degrees(node);
                }
                Some(Token::Sign('!')) if self.peek_at(1) != Some(&Token::Sign('=')) => {
                    if self.peek_at(1) == Some(&Token::Sign('!')) {
                        return None;
                    }
                    self.at += 1;
                    node = Node::Call(Function::Factorial, vec![node]);
                }
                Some(Token::Sign('%')) => {
                    self.at += 1;
                    node = Node::Percent(Box::new(node));
                }
                _ => return Some(node),
            }
        }
    }

    fn degrees(&self, node: Node) -> Node {
        if !self.in_angle {
            return node;
        }
        let unit = Node::Constant(Constant::Pi).over(Node::integer(180));
        multiply(node, unit)
    }

    /// `\circ` or `{\circ}` after a `^`.
    fn take_degree(&mut self) -> bool {
        let braced = self.is_sign('{')
            && matches!(self.peek_at(1), Some(Token::Command("circ") | Token::Word("o")))
            && self.peek_at(2) == Some(&Token::Sign('}'));
        if braced {
            self.at += 3;
        } else if self.is_command("circ") {
            self.at += 1;
        } else {
            return false;
        }
        // Of temperature.
        if let (Some(Token::Word("C" | "F")), None) = (self.peek(), self.peek_at(1)) {
            self.at += 1;
        }
        true
    }

    fn exponent(&mut self) -> Option<Node> {
        self.nested(|parser| {
            let is_negative = parser.take_sign('-');
            if !is_negative {
                parser.take_sign('+');
            }
            let exponent = if parser.is_sign('{') || parser.is_sign('(') {
                parser.atom()?
            } else if let Some(Token::Word(word)) = parser.peek()
                && word.len() > 1
                && words::function(word).is_none()
            {
                // Only the first letter is raised: `2^xy`.
                parser.first_letter()?
            } else {
                let atom = parser.atom()?;
                if parser.is_sign('^') { parser.postfix(atom)? } else { atom }
            };
            Some(if is_negative { exponent.negated() } else { exponent })
        })
    }
}
