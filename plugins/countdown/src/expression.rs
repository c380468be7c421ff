//! Expressions of whole numbers with `+ - * /` and parentheses, computed exactly.

use std::fmt;

/// The parentheses and signs that may stand inside one another.
const DEPTH: usize = 100;

/// The bytes of an expression that are looked at.
const LENGTH: usize = 1_000;

/// A fraction in lowest terms, its denominator above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rational {
    numerator: i128,
    denominator: i128,
}

impl Rational {
    pub fn whole(n: u64) -> Self {
        Self { numerator: n.into(), denominator: 1 }
    }

    fn new(numerator: Option<i128>, denominator: Option<i128>) -> Result<Self, String> {
        let (Some(numerator), Some(denominator)) = (numerator, denominator) else {
            return Err("its numbers grow too large".into());
        };
        if denominator == 0 {
            return Err("it divides by zero".into());
        }
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs()) as i128 * denominator.signum();
        Ok(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }

    fn apply(self, operation: u8, other: Self) -> Result<Self, String> {
        let product = i128::checked_mul;
        let cross = (product(self.numerator, other.denominator), product(other.numerator, self.denominator));
        let both = product(self.denominator, other.denominator);
        match operation {
            b'+' => Self::new(cross.0.zip(cross.1).and_then(|(a, b)| a.checked_add(b)), both),
            b'-' => Self::new(cross.0.zip(cross.1).and_then(|(a, b)| a.checked_sub(b)), both),
            b'*' => Self::new(product(self.numerator, other.numerator), both),
            _ => Self::new(cross.0, product(self.denominator, other.numerator)),
        }
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What was parsed.
pub struct Expression {
    /// Without white space, and with ASCII signs.
    pub canonical: String,
    /// The numbers in it, from left to right.
    pub numbers: Vec<u64>,
    /// What it comes to, or why it comes to nothing.
    pub value: Result<Rational, String>,
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH {
            return Err(format!("an expression of more than {LENGTH} bytes is not read"));
        }
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                c if c.is_whitespace() => {}
                '0'..='9' => {
                    let mut number = u64::from(c as u32 - '0' as u32);
                    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                        let grown = number.checked_mul(10).and_then(|n| n.checked_add(digit.into()));
                        number = grown.ok_or("a number in it is too large")?;
                        rest.next();
                    }
                    tokens.push(Token::Number(number));
                }
                '+' | '-' | '*' | '/' | '(' | ')' => tokens.push(Token::Sign(c as u8)),
                '\u{2212}' => tokens.push(Token::Sign(b'-')),
                '\u{d7}' | '\u{22c5}' => tokens.push(Token::Sign(b'*')),
                '\u{f7}' => tokens.push(Token::Sign(b'/')),
                c => return Err(format!("`{}` does not belong into an expression", c.escape_debug())),
            }
        }
        let numbers = tokens.iter().filter_map(|token| match token {
            Token::Number(number) => Some(*number),
            Token::Sign(_) => None,
        });
        let numbers = numbers.collect();
        let canonical = tokens.iter().map(Token::to_string).collect();
        let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, failure: None };
        let value = parser.sum()?;
        if parser.at < tokens.len() {
            return Err(format!("`{}` is not expected in it", tokens[parser.at]));
        }
        let value = parser.failure.map_or(Ok(value), Err);
        Ok(Self { canonical, numbers, value })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Number(u64),
    Sign(u8),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Sign(sign) => write!(f, "{}", char::from(*sign)),
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    /// Why it has no value; the rest is parsed all the same, since a malformed expression is another mistake.
    failure: Option<String>,
}

impl Parser<'_> {
    fn sign(&mut self, signs: &[u8]) -> Option<u8> {
        match self.tokens.get(self.at) {
            Some(Token::Sign(sign)) if signs.contains(sign) => {
                self.at += 1;
                Some(*sign)
            }
            _ => None,
        }
    }

    fn apply(&mut self, a: Rational, operation: u8, b: Rational) -> Rational {
        a.apply(operation, b).unwrap_or_else(|why| {
            self.failure.get_or_insert(why);
            Rational::whole(1)
        })
    }

    fn sum(&mut self) -> Result<Rational, String> {
        let mut value = self.product()?;
        while let Some(operation) = self.sign(b"+-") {
            let other = self.product()?;
            value = self.apply(value, operation, other);
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Rational, String> {
        let mut value = self.factor()?;
        while let Some(operation) = self.sign(b"*/") {
            let other = self.factor()?;
            value = self.apply(value, operation, other);
        }
        Ok(value)
    }

    fn factor(&mut self) -> Result<Rational, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("its parentheses are nested more than {DEPTH} deep"));
        }
        let value = if let Some(sign) = self.sign(b"+-") {
            let value = self.factor()?;
            self.apply(Rational::whole(0), sign, value)
        } else if self.sign(b"(").is_some() {
            let value = self.sum()?;
            self.sign(b")").ok_or("a parenthesis is not closed in it")?;
            value
        } else {
            match self.tokens.get(self.at) {
                Some(Token::Number(number)) => {
                    self.at += 1;
                    Rational::whole(*number)
                }
                Some(token) => return Err(format!("`{token}` stands where a number belongs")),
                None => return Err("a number is missing at its end".into()),
            }
        };
        self.depth -= 1;
        Ok(value)
    }
}
