//! What a place that was found says: a formula, a number, or only its text.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::latex::Formula;
use super::plain::{self, Plain};
use super::prioritised::Kind;
use super::{Answer, boxed};
use crate::lexer::{Token, tokens};
use crate::parser::parse;
use crate::tree::Node;

pub(super) fn read(kind: &Kind<'_>) -> Option<Answer> {
    match kind {
        Kind::Plain(plain) => read_plain(*plain),
        Kind::Choice(found) => {
            Some(Answer { node: Some(Node::Symbol(found.to_lowercase())), text: (*found).to_owned() })
        }
        Kind::Boxes(contents) => Some(read_boxed(contents)),
        Kind::Formulas(formulas) => {
            let answers: Vec<(Option<Node>, String)> = formulas.iter().map(read_formula).collect();
            let texts: Vec<&str> = answers.iter().map(|(_, text)| text.as_str()).collect();
            if answers.len() > 1 && answers.iter().all(|(node, _)| node.is_some()) {
                let text = texts.join(" and ");
                let mut elements = Vec::new();
                for (node, _) in answers {
                    match node {
                        Some(Node::Set(nodes)) => elements.extend(nodes),
                        Some(node) => elements.push(node),
                        None => {}
                    }
                }
                return Some(Answer { node: Some(Node::Set(elements)), text });
            }
            let (node, text) = answers.into_iter().next()?;
            Some(Answer { node, text })
        }
    }
}

fn read_formula(formula: &Formula<'_>) -> (Option<Node>, String) {
    let boxes = boxed::all(formula.content);
    let text = if boxes.is_empty() { formula.content.trim().to_owned() } else { boxes.join(",") };
    let node = parse_or_last_side(&text);
    (node.map(|node| if formula.is_percent { Node::Percent(Box::new(node)) } else { node }), text)
}

pub(super) fn read_boxed(contents: &[&str]) -> Answer {
    let text = contents.join(",");
    Answer { node: parse_or_last_side(&text), text }
}

/// The formula, or what stands behind the last of several equals signs.
fn parse_or_last_side(text: &str) -> Option<Node> {
    formula(text).or_else(|| {
        if text.contains([',', ';']) {
            return None;
        }
        let bytes = text.as_bytes();
        let equals: Vec<usize> = (0..bytes.len())
            .filter(|&i| bytes[i] == b'=' && !(i > 0 && matches!(bytes[i - 1], b'\\' | b'<' | b'!' | b'>')))
            .collect();
        if equals.len() < 2 {
            return None;
        }
        formula(&text[equals.last()? + 1..])
    })
}

/// A formula, inside of its box or environment if it is in one.
pub(super) fn formula(text: &str) -> Option<Node> {
    let boxes = if text.contains("\\boxed") || text.contains("\\fbox") { boxed::all(text) } else { Vec::new() };
    if boxes.is_empty() { parse(text) } else { parse(&boxes.join(",")) }
}

/// A number as prose has it, if the text is nothing else: `1 000`, `3,14`, `$5`.
pub(super) fn number(text: &str) -> Option<Node> {
    let found = plain::number(text, 0)?;
    if found.end != text.len() || found.start != 0 {
        return None;
    }
    read_plain(found.plain)?.node
}

pub(super) fn read_plain(plain: Plain<'_>) -> Option<Answer> {
    match plain {
        Plain::Arithmetic(text) => {
            let text = text.trim();
            let balanced = text.matches('(').count() == text.matches(')').count();
            Some(Answer { node: balanced.then(|| parse(text)).flatten(), text: text.to_owned() })
        }
        Plain::Number { whole, fraction, is_percent } => {
            let is_negative = whole.starts_with('-');
            let digits: String = whole.chars().filter(char::is_ascii_digit).collect();
            let digits = digits.trim_start_matches('0');
            let text = format!(
                "{}{}{}{fraction}",
                if is_negative { "-" } else { "" },
                if digits.is_empty() { "0" } else { digits },
                if fraction.is_empty() { "" } else { "." },
            );
            let node = if text.len() > 2000 {
                Node::Symbol(text.clone())
            } else {
                let above: BigInt = format!("0{digits}{fraction}").parse().ok()?;
                let below = BigInt::from(10).pow(u32::try_from(fraction.len()).ok()?);
                let value = BigRational::new(if is_negative { -above } else { above }, below);
                Node::Number { value, is_decimal: !fraction.is_empty() }
            };
            Some(Answer { node: Some(if is_percent { Node::Percent(Box::new(node)) } else { node }), text })
        }
    }
}

/// A text as its tokens, so that spaces and styling do not matter.
pub fn fingerprint(text: &str) -> String {
    let Some(tokens) = tokens(text) else { return text.split_whitespace().collect::<Vec<_>>().join(" ") };
    let mut print = String::with_capacity(text.len());
    for lexeme in tokens {
        match lexeme.token {
            Token::Number { whole, fraction, exponent } => {
                print.push_str(&whole);
                if let Some(fraction) = fraction.filter(|fraction| !fraction.is_empty()) {
                    print.push('.');
                    print.push_str(fraction);
                }
                if exponent != 0 {
                    print.push_str(&format!("e{exponent}"));
                }
                continue;
            }
            Token::Word(word) => print.push_str(word),
            Token::Command(name) => {
                print.push('\\');
                print.push_str(name);
            }
            Token::Text(text) => print.extend(text.split_whitespace().flat_map(|word| [word, " "])),
            Token::Sign(sign) => {
                print.push(sign);
                continue;
            }
            Token::RowEnd => print.push_str("\\\\"),
        }
        print.push(' ');
    }
    if !print.ends_with("...") {
        print.truncate(print.trim_end_matches([' ', '.', ',']).len());
    }
    print
}
