//! Tokens to a tree, by recursive descent. A text that is no formula gives `None`; nothing panics, and nothing recurses
//! deeper than [`DEPTH`].
//!
//! | level | joins |
//! | --- | --- |
//! | `list` | `,` `;` and, or |
//! | `chain` | `=` `<` `\in` ... |
//! | `combination` | `\cup` `\cap` `\setminus` |
//! | `sum` | `+` `-` `\pm` |
//! | `product` | `*` `/` |
//! | `run` | factors side by side: they bind closer than `/`, as in math-verify |
//! | `power` (postfix.rs) | `^` `!` `%` |
//! | `atom` (atoms.rs) | numbers, names, brackets, commands |

use num_traits::{Signed, ToPrimitive};

use crate::lexer::{Lexeme, Token, tokens};
use crate::numerals::mixed;
use crate::signs::expand;
use crate::tree::{Function, Node, Relation, SetOperation};
use crate::words;

/// Brackets and exponents inside each other at most; a level takes about 3 KiB of stack.
pub const DEPTH: usize = 40;

/// The formula that a text is, LaTeX or plain; `None` if it is none.
pub fn parse(text: &str) -> Option<Node> {
    let lexemes = tokens(text)?;
    let mut parser = Parser::new(text, lexemes);
    parser.drop_final_punctuation();
    if parser.lexemes.is_empty() || parser.is_prose() {
        return None;
    }
    let node = parser.list(Close::End)?;
    (parser.at == parser.lexemes.len()).then_some(node)
}

/// What ends a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    End,
    Brace,
    SetBrace,
    Round,
    Angle,
}

pub(crate) struct Parser<'a> {
    pub(crate) text: &'a str,
    pub(crate) lexemes: Vec<Lexeme<'a>>,
    pub(crate) at: usize,
    pub(crate) depth: usize,
    /// How many `|` are open.
    pub(crate) bars: usize,
    /// Inside braces of a set, where `|` and `:` introduce its condition.
    pub(crate) in_set: bool,
    /// Inside the argument of a function of an angle, where a degree is a number.
    pub(crate) in_angle: bool,
    /// Variables that a sum binds: there `i` is no imaginary unit.
    pub(crate) bound: Vec<String>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, lexemes: Vec<Lexeme<'a>>) -> Self {
        Self { text, lexemes, at: 0, depth: 0, bars: 0, in_set: false, in_angle: false, bound: Vec::new() }
    }

    pub(crate) fn peek(&self) -> Option<&Token<'a>> {
        self.lexemes.get(self.at).map(|lexeme| &lexeme.token)
    }

    pub(crate) fn peek_at(&self, ahead: usize) -> Option<&Token<'a>> {
        self.lexemes.get(self.at + ahead).map(|lexeme| &lexeme.token)
    }

    pub(crate) fn is_sign(&self, sign: char) -> bool {
        self.peek() == Some(&Token::Sign(sign))
    }

    pub(crate) fn is_command(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Command(command)) if *command == name)
    }

    pub(crate) fn take_sign(&mut self, sign: char) -> bool {
        let is = self.is_sign(sign);
        self.at += usize::from(is);
        is
    }

    pub(crate) fn take_command(&mut self, name: &str) -> bool {
        let is = self.is_command(name);
        self.at += usize::from(is);
        is
    }

    /// One level deeper, if that is allowed.
    pub(crate) fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth == DEPTH {
            return None;
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn is_closed(&self, close: Close) -> bool {
        match (close, self.peek()) {
            (_, None) => true,
            (Close::Brace, Some(Token::Sign('}'))) => true,
            (Close::SetBrace, Some(Token::Command("}") | Token::Sign('}'))) => true,
            (Close::Round, Some(Token::Sign(')' | ']'))) => true,
            (Close::Angle, Some(Token::Command("rangle"))) => true,
            _ => false,
        }
    }

    /// Whether a separator of elements is next; takes it, and says which.
    fn take_separator(&mut self) -> Option<char> {
        let mut found = None;
        loop {
            match self.peek() {
                Some(Token::Sign(sign @ (',' | ';'))) => found = found.max(Some(*sign)),
                Some(Token::Word("and" | "or")) => found = found.max(Some(',')),
                Some(Token::Text(text)) if words::joins(text) => {
                    if !text.is_empty() {
                        found = found.max(Some(','));
                    }
                }
                _ => return found,
            }
            self.at += 1;
        }
    }

    /// Elements until `close`, which is not taken, and whether a semicolon stood between any.
    pub(crate) fn elements(&mut self, close: Close) -> Option<(Vec<Vec<Node>>, bool)> {
        let mut groups: Vec<Vec<Node>> = vec![Vec::new()];
        self.take_separator();
        while !self.is_closed(close) {
            let element = self.chain()?;
            let last = groups.last_mut()?;
            expand(element, last);
            match self.take_separator() {
                Some(';') => groups.push(Vec::new()),
                Some(_) => {}
                None if self.is_closed(close) => break,
                None => return None,
            }
        }
        groups.retain(|group| !group.is_empty());
        let has_groups = groups.len() > 1;
        Some((groups, has_groups))
    }

    /// What stands without brackets: one object, or several as a set.
    pub(crate) fn list(&mut self, close: Close) -> Option<Node> {
        self.nested(|parser| {
            let (groups, _) = parser.elements(close)?;
            let elements: Vec<Node> = if groups.iter().all(|group| group.len() == 1) {
                groups.into_iter().flatten().collect()
            } else if groups.len() == 1 {
                groups.into_iter().next()?
            } else {
                groups.into_iter().map(Node::Tuple).collect()
            };
            one_or_set(elements)
        })
    }

    fn relation(&mut self) -> Option<Sign> {
        let next_is_equal = self.peek_at(1) == Some(&Token::Sign('='));
        let (sign, length) = match self.peek()? {
            Token::Sign('=') => (Sign::Relation(Relation::Equal), 1 + usize::from(next_is_equal)),
            Token::Sign('<') if next_is_equal => (Sign::Relation(Relation::LessEqual), 2),
            Token::Sign('>') if next_is_equal => (Sign::Relation(Relation::GreaterEqual), 2),
            Token::Sign('!') if next_is_equal => (Sign::Relation(Relation::NotEqual), 2),
            Token::Sign('~') if next_is_equal => (Sign::About, 2),
            Token::Sign('<') => (Sign::Relation(Relation::Less), 1),
            Token::Sign('>') => (Sign::Relation(Relation::Greater), 1),
            Token::Sign('≤') => (Sign::Relation(Relation::LessEqual), 1),
            Token::Sign('≥') => (Sign::Relation(Relation::GreaterEqual), 1),
            Token::Sign('≠') | Token::Command("notin") => (Sign::Relation(Relation::NotEqual), 1),
            Token::Sign('≈') => (Sign::About, 1),
            Token::Command("in" | "equiv" | "cong" | "sim") => (Sign::Relation(Relation::Equal), 1),
            Token::Sign(':') if next_is_equal => (Sign::Relation(Relation::Equal), 2),
            _ => return None,
        };
        self.at += length;
        Some(sign)
    }

    /// `a = b < c`.
    pub(crate) fn chain(&mut self) -> Option<Node> {
        // `\approx 8.24` is a value.
        self.take_sign('≈');
        let first = self.combination()?;
        let mut rest: Vec<(Relation, Node)> = Vec::new();
        let mut first = first;
        while let Some(sign) = self.relation() {
            let right = self.combination()?;
            match sign {
                Sign::Relation(relation) => rest.push((relation, right)),
                // An approximation says less than what it approximates, unless that is only a name.
                Sign::About if rest.is_empty() && is_name(&first) => first = right,
                Sign::About => {}
            }
        }
        self.skip_condition();
        Some(if rest.is_empty() { first } else { Node::Chain(Box::new(first), rest) })
    }

    fn combination(&mut self) -> Option<Node> {
        let mut left = self.sum()?;
        loop {
            let operation = match self.peek() {
                Some(Token::Command("cup" | "bigcup")) => SetOperation::Union,
                Some(Token::Word("U")) if left.is_collection() => SetOperation::Union,
                Some(Token::Command("cap" | "bigcap")) => SetOperation::Intersection,
                Some(Token::Command("setminus" | "backslash")) => SetOperation::Difference,
                _ => return Some(left),
            };
            self.at += 1;
            left = Node::Combined(operation, Box::new([left, self.sum()?]));
        }
    }

    pub(crate) fn sum(&mut self) -> Option<Node> {
        self.nested(Self::terms)
    }

    fn terms(&mut self) -> Option<Node> {
        let mut terms = Vec::new();
        if self.is_command("pm") || self.is_command("mp") {
            let is_minus = self.is_command("mp");
            self.at += 1;
            terms.push(Node::PlusMinus(Vec::new(), Box::new(self.product()?), is_minus));
        } else {
            terms.push(self.product()?);
        }
        loop {
            match self.peek() {
                Some(Token::Sign('+')) => {
                    self.at += 1;
                    let is_apart = self.lexemes.get(self.at).is_some_and(|lexeme| lexeme.is_spaced);
                    if !is_apart && self.take_sign('-') {
                        // `+-` is a sign that was typed in two.
                        let term = self.product()?;
                        let before = one_or_sum(std::mem::take(&mut terms));
                        terms.push(Node::PlusMinus(vec![before], Box::new(term), false));
                    } else {
                        terms.push(self.product()?);
                    }
                }
                Some(Token::Sign('-')) => {
                    self.at += 1;
                    terms.push(self.product()?.negated());
                }
                Some(Token::Command("pm" | "mp")) => {
                    let is_minus = self.is_command("mp");
                    self.at += 1;
                    let term = self.product()?;
                    let before = one_or_sum(std::mem::take(&mut terms));
                    terms.push(Node::PlusMinus(vec![before], Box::new(term), is_minus));
                }
                _ => return Some(one_or_sum(terms)),
            }
        }
    }

    /// `a * b / c`.
    pub(crate) fn product(&mut self) -> Option<Node> {
        let mut left = self.run()?;
        loop {
            match self.peek() {
                Some(Token::Sign('*')) => {
                    self.at += 1;
                    // Python's power.
                    if self.take_sign('*') {
                        let exponent = self.run()?;
                        left = raise_last(left, exponent);
                        continue;
                    }
                    left = multiply(left, self.run()?);
                }
                Some(Token::Sign('/' | '÷')) => {
                    self.at += 1;
                    if self.skip_units() {
                        continue;
                    }
                    left = left.over(self.run()?);
                }
                Some(Token::Sign(':')) if !self.in_set => {
                    self.at += 1;
                    let right = self.run()?;
                    if !self.is_sign(':') {
                        left = left.over(right);
                        continue;
                    }
                    // `a : b : c` is no quotient.
                    let mut parts = vec![left, right];
                    while self.take_sign(':') {
                        parts.push(self.run()?);
                    }
                    return Some(Node::Tuple(parts));
                }
                Some(Token::Command("bmod" | "mod") | Token::Word("mod")) => {
                    self.at += 1;
                    left = Node::Call(Function::Mod, vec![left, self.run()?]);
                }
                _ => return Some(left),
            }
        }
    }

    /// Signs, then factors side by side.
    fn run(&mut self) -> Option<Node> {
        let mut is_negative = false;
        loop {
            match self.peek()? {
                Token::Sign('-') => is_negative = !is_negative,
                Token::Sign('+') => {}
                _ => break,
            }
            self.at += 1;
        }
        let first_is_number = matches!(self.peek(), Some(Token::Number { .. }));
        let mut product = self.power()?;
        let mut previous_is_number = first_is_number && matches!(product, Node::Number { .. });
        loop {
            if self.skip_text_unit() || (is_numeric(&product) && self.skip_units()) {
                continue;
            }
            if let Some(Token::Word(word)) = self.peek()
                && words::is_percent(word)
            {
                self.at += 1;
                product = Node::Percent(Box::new(product));
                continue;
            }
            if let Some(Token::Text(word)) = self.peek()
                && words::is_percent(word)
            {
                self.at += 1;
                product = Node::Percent(Box::new(product));
                continue;
            }
            if !self.begins_factor() {
                break;
            }
            let is_spaced = self.lexemes[self.at].is_spaced;
            if let Some(Token::Number { fraction: None, .. }) = self.peek()
                && previous_is_number
            {
                // `1 1/2`
                if !is_spaced || self.peek_at(1) != Some(&Token::Sign('/')) {
                    return None;
                }
                let above = self.power()?;
                self.at += 1;
                let below = self.power()?;
                product = mixed(product, &above.over(below))?;
                previous_is_number = false;
                continue;
            }
            let is_fraction = self.is_command("frac");
            let is_number = matches!(self.peek(), Some(Token::Number { .. }));
            let factor = self.power()?;
            let is_mixed = is_fraction
                && previous_is_number
                && matches!(&factor, Node::Number { value, .. } if value.is_positive());
            previous_is_number = is_number && matches!(factor, Node::Number { .. });
            product = if is_mixed { mixed(product, &factor)? } else { multiply(product, factor) };
        }
        Some(if is_negative { product.negated() } else { product })
    }

    /// Whether the next token begins a factor.
    pub(crate) fn begins_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Number { .. } | Token::Sign('(' | '[' | '{')) => true,
            Some(Token::Sign('|') | Token::Command("|")) => self.bars == 0 && !self.in_set,
            Some(Token::Word(word)) => {
                !matches!(*word, "and" | "or" | "mod" | "if" | "for" | "where" | "when" | "is")
                    && !(*word == "U" && matches!(self.peek_at(1), Some(Token::Sign('(' | '['))))
            }
            Some(Token::Text(text)) => !words::joins(text) && !words::begins_condition(text),
            Some(Token::Command(name)) => !matches!(
                *name,
                "pm" | "mp"
                    | "cup"
                    | "cap"
                    | "bigcup"
                    | "bigcap"
                    | "setminus"
                    | "backslash"
                    | "in"
                    | "notin"
                    | "equiv"
                    | "cong"
                    | "sim"
                    | "}"
                    | "rfloor"
                    | "rceil"
                    | "rangle"
                    | "bmod"
                    | "mod"
                    | "pmod"
                    | "end"
                    | "choose"
                    | "circ"
                    | "forall"
                    | "to"
                    | "prime"
            ),
            _ => false,
        }
    }
}

enum Sign {
    Relation(Relation),
    About,
}

/// Whether this is a variable or made of variables only: what an equation may assign to.
pub(crate) fn is_name(node: &Node) -> bool {
    match node {
        Node::Symbol(_) => true,
        Node::Pow(base, exponent) => is_name(base) && exponent.as_integer().is_some_and(|n| n.to_i64() == Some(-1)),
        Node::Mul(nodes) | Node::Add(nodes) | Node::Apply(_, nodes) | Node::Tuple(nodes) => nodes.iter().all(is_name),
        Node::Call(Function::Abs, nodes) => nodes.iter().all(is_name),
        Node::Interval { bounds, is_open: [true, true] } => bounds.iter().all(is_name),
        // Names of more than a letter are products of letters, in which `e` and `i` are letters too.
        Node::Constant(crate::tree::Constant::E | crate::tree::Constant::I) => true,
        _ => false,
    }
}

fn is_numeric(node: &Node) -> bool {
    !node.any(&mut |node| matches!(node, Node::Symbol(_) | Node::Apply(..)))
}

pub(crate) fn multiply(left: Node, right: Node) -> Node {
    match (left, right) {
        (Node::Mul(mut left), right) => {
            left.push(right);
            Node::Mul(left)
        }
        (left, right) => Node::Mul(vec![left, right]),
    }
}

/// `a * b ** c`: the power is of the last factor.
fn raise_last(left: Node, exponent: Node) -> Node {
    match left {
        Node::Mul(mut factors) => {
            if let Some(last) = factors.pop() {
                factors.push(Node::Pow(Box::new(last), Box::new(exponent)));
            }
            Node::Mul(factors)
        }
        other => Node::Pow(Box::new(other), Box::new(exponent)),
    }
}

pub(crate) fn one_or_sum(mut terms: Vec<Node>) -> Node {
    if terms.len() == 1 { terms.swap_remove(0) } else { Node::Add(terms) }
}

fn one_or_set(mut elements: Vec<Node>) -> Option<Node> {
    match elements.len() {
        0 => None,
        1 => Some(elements.swap_remove(0)),
        _ => {
            // `n = 1, 2, 3`
            if let Node::Chain(_, rest) = &elements[0]
                && let [(Relation::Equal, _)] = rest[..]
                && elements[1..].iter().all(|element| !matches!(element, Node::Chain(..)))
            {
                let Node::Chain(first, mut rest) = elements.swap_remove(0) else { return None };
                let (_, value) = rest.swap_remove(0);
                // What was last took the place of what was first.
                let last = elements.swap_remove(0);
                let mut values = vec![value];
                values.append(&mut elements);
                values.push(last);
                return Some(Node::Chain(first, vec![(Relation::Equal, Node::Set(values))]));
            }
            Some(Node::Set(elements))
        }
    }
}
