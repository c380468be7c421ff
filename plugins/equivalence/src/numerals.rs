//! Numbers: decimals, repeating decimals, other bases.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

use crate::lexer::Token;
use crate::parser::Parser;
use crate::tree::Node;

/// Digits of a number at most: a longer one is compared as it was written.
const DIGITS: usize = 2000;

impl Parser<'_> {
    pub(crate) fn number(&mut self, whole: &str, fraction: Option<&str>, exponent: i64) -> Option<Node> {
        let fraction = fraction.unwrap_or("");
        if whole.len() + fraction.len() > DIGITS || exponent.abs() > 1000 {
            return Some(Node::Symbol(format!("{}.{fraction}e{exponent}", whole.trim_start_matches('0'))));
        }
        let digits: BigInt = format!("{whole}{fraction}").parse().ok()?;
        if exponent == 0 && self.is_sign('_') {
            if fraction.is_empty() {
                return self.based(digits);
            }
            self.at += 1;
            let base: String = self.raw()?.chars().filter(char::is_ascii_digit).collect();
            return Some(Node::Symbol(format!("{whole}.{fraction}_{base}")));
        }
        if self.is_command("accent")
            && self.peek_at(1) == Some(&Token::Sign('{'))
            && let Some(Token::Number { whole: period, fraction: None, .. }) = self.peek_at(2).cloned()
            && self.peek_at(3) == Some(&Token::Sign('}'))
            && period.len() < 40
        {
            self.at += 4;
            return repeating(&digits, fraction.len(), &period);
        }
        let ten = BigInt::from(10);
        let places = i64::try_from(fraction.len()).ok()? - exponent;
        let power = ten.pow(u32::try_from(places.abs()).ok()?);
        let value =
            if places > 0 { BigRational::new(digits, power) } else { BigRational::from_integer(digits * power) };
        let is_decimal = !fraction.is_empty() || exponent < 0;
        Some(Node::Number { value, is_decimal })
    }

    /// `204_5`, `204_{5}`, `11_{\text{two}}`.
    fn based(&mut self, digits: BigInt) -> Option<Node> {
        self.at += 1;
        let braced = self.take_sign('{');
        let is_text = matches!(self.peek(), Some(Token::Text(_)));
        let base = match self.peek()?.clone() {
            Token::Number { whole, fraction: None, .. } => whole.parse().ok()?,
            Token::Text(_) => 0,
            _ => return None,
        };
        self.at += 1;
        if braced && !self.take_sign('}') {
            return None;
        }
        Some(match base {
            2..=36 => Node::Based { digits, base },
            // In words, which are not read.
            0 if is_text => Node::rational(BigRational::from_integer(digits)),
            _ => Node::Symbol(format!("{digits}_{base}")),
        })
    }
}

/// `0.1\overline{6}`: the digits read as a number, how many of them stand after the point, and what repeats.
fn repeating(digits: &BigInt, places: usize, period: &str) -> Option<Node> {
    let ten = BigInt::from(10);
    let scale = ten.pow(u32::try_from(places).ok()?);
    let nines: BigInt = ten.pow(u32::try_from(period.len()).ok()?) - BigInt::one();
    let repeated: BigInt = period.parse().ok()?;
    if nines.is_zero() {
        return None;
    }
    let value = (BigRational::from_integer(digits.clone()) + BigRational::new(repeated, nines))
        / BigRational::from_integer(scale);
    Some(Node::rational(value))
}

/// `1 1/2`, unless the part is none.
pub(crate) fn mixed(whole: Node, part: &Node) -> Option<Node> {
    let (Node::Number { value: whole, is_decimal: false }, Node::Number { value: part, .. }) = (&whole, part) else {
        return None;
    };
    if !whole.is_integer() || *part >= num_traits::One::one() {
        return None;
    }
    Some(Node::rational(whole + part))
}
