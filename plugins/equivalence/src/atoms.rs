//! What a formula is made of: names, brackets, sets, commands; numbers are in numerals.rs, functions in calls.rs.

use num_rational::BigRational;

use crate::lexer::Token;
use crate::numeric;
use crate::parser::{Close, Parser};
use crate::tree::{Constant, Function, NamedSet, Node};
use crate::words;

impl<'a> Parser<'a> {
    pub(crate) fn atom(&mut self) -> Option<Node> {
        self.nested(|parser| match parser.peek()?.clone() {
            Token::Number { whole, fraction, exponent } => {
                parser.at += 1;
                parser.number(&whole, fraction, exponent)
            }
            Token::Word(word) => parser.word(word),
            Token::Text(text) => parser.text(text),
            Token::Command(name) => parser.command(name),
            Token::Sign('(') => parser.round(false),
            Token::Sign('[') => parser.round(true),
            Token::Sign('{') => parser.braces(),
            Token::Sign('|') => parser.bars("|"),
            Token::Sign('.') => {
                let dots = (0..3).all(|i| parser.peek_at(i) == Some(&Token::Sign('.')));
                parser.at += 3;
                dots.then(|| Node::Symbol("...".into()))
            }
            _ => None,
        })
    }

    /// A word is a function, a constant, or letters that are multiplied.
    fn word(&mut self, word: &'a str) -> Option<Node> {
        match word {
            "pi" | "Pi" | "PI" => {
                self.at += 1;
                return Some(Node::Constant(Constant::Pi));
            }
            "inf" | "infty" | "infinity" | "Infinity" | "oo" => {
                self.at += 1;
                return Some(Node::Constant(Constant::Infinity));
            }
            // Not the product of its letters, which `O(n)` may be.
            "yes" | "Yes" | "YES" | "no" | "No" | "NO" => {
                self.at += 1;
                return Some(Node::Symbol(word.to_ascii_lowercase()));
            }
            "sqrt" | "cbrt" | "log" | "lg" | "exp" | "frac" => {
                self.at += 1;
                return self.known(word);
            }
            _ => {}
        }
        if words::function(word).is_some() {
            self.at += 1;
            return self.known(word);
        }
        if word.len() > 40 {
            return None;
        }
        // A function at the end of letters: `xsqrt(2)`.
        if word.len() > 4 && word.ends_with("sqrt") {
            let letters = &word[..word.len() - 4];
            self.lexemes[self.at].token = Token::Word("sqrt");
            return Some(product(letters.chars().map(|letter| self.letter(letter)).collect()));
        }
        let mut factors = Vec::with_capacity(word.len());
        let last = word.chars().next_back()?;
        for letter in word[..word.len() - 1].chars() {
            factors.push(self.letter(letter));
        }
        self.at += 1;
        factors.push(self.name(last.to_string())?);
        Some(product(factors))
    }

    /// The first letter of a word; the rest stays.
    pub(crate) fn first_letter(&mut self) -> Option<Node> {
        let Some(Token::Word(word)) = self.peek().cloned() else { return None };
        let letter = word.chars().next()?;
        self.lexemes[self.at].token = Token::Word(&word[1..]);
        self.lexemes[self.at].is_spaced = false;
        Some(self.letter(letter))
    }

    fn letter(&self, letter: char) -> Node {
        let name = letter.to_ascii_lowercase().to_string();
        if self.bound.contains(&name) {
            return Node::Symbol(name);
        }
        match letter {
            'e' => Node::Constant(Constant::E),
            'i' | 'I' => Node::Constant(Constant::I),
            _ => Node::Symbol(name),
        }
    }

    /// A name with its primes and subscript, applied to arguments if it is a function's.
    fn name(&mut self, name: String) -> Option<Node> {
        let mut full = name.clone();
        loop {
            if self.is_sign('\'') {
                self.at += 1;
                full.push('\'');
            } else if self.is_sign('_') && !full.contains('_') {
                self.at += 1;
                let raw = self.raw()?;
                full.push('_');
                full.extend(raw.chars().filter(|c| !c.is_whitespace() && !matches!(c, '{' | '}' | '\\')));
                if full.len() > 60 {
                    return None;
                }
            } else {
                break;
            }
        }
        let is_function = matches!(name.as_str(), "f" | "g" | "h" | "F" | "G" | "H");
        if is_function && self.is_sign('^') && self.peek_at(1) == Some(&Token::Sign('{')) {
            let inverse = self.peek_at(2) == Some(&Token::Sign('-'))
                && matches!(self.peek_at(3), Some(Token::Number { whole, .. }) if whole == "1")
                && self.peek_at(4) == Some(&Token::Sign('}'));
            if inverse {
                self.at += 5;
                full.push_str("^-1");
            }
        }
        if is_function && self.is_sign('(') {
            let arguments = self.arguments()?;
            return Some(Node::Apply(full.to_lowercase(), arguments));
        }
        if full == name {
            let mut letters = name.chars();
            if let (Some(letter), None) = (letters.next(), letters.next()) {
                return Some(self.letter(letter));
            }
        }
        Some(Node::Symbol(full.to_lowercase()))
    }

    /// The source of the next group or token, which is taken.
    pub(crate) fn raw(&mut self) -> Option<&'a str> {
        let first = self.lexemes.get(self.at)?;
        let (start, mut end) = (first.at, first.end);
        if first.token == Token::Sign('{') {
            let mut depth = 0;
            loop {
                let lexeme = self.lexemes.get(self.at)?;
                match lexeme.token {
                    Token::Sign('{') => depth += 1,
                    Token::Sign('}') => depth -= 1,
                    _ => {}
                }
                end = lexeme.end;
                self.at += 1;
                if depth == 0 {
                    break;
                }
            }
        } else {
            // One digit or letter, as TeX has it, unless the whole stands alone: `x_12` is meant as a whole.
            self.at += 1;
        }
        self.text.get(start..end)
    }

    fn text(&mut self, text: &'a str) -> Option<Node> {
        self.at += 1;
        if words::function(text).is_some() || matches!(text, "log" | "lg" | "exp") {
            return self.known(text);
        }
        match text {
            "e" => return Some(Node::Constant(Constant::E)),
            "i" => return Some(Node::Constant(Constant::I)),
            _ => {}
        }
        if !text.is_empty() && text.len() < 30 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Node::rational(BigRational::from_integer(text.parse().ok()?)));
        }
        let mut name: String =
            text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | '{' | '}')).collect();
        let bare = name.trim_end_matches(['.', ',', '!']).len();
        name.truncate(bare);
        if name.is_empty() {
            return self.power();
        }
        if name.chars().count() == 1 {
            return self.name(name);
        }
        self.name(name.to_lowercase())
    }

    /// One element, or a set of several.
    pub(crate) fn braces(&mut self) -> Option<Node> {
        self.at += 1;
        let bars = std::mem::take(&mut self.bars);
        let in_set = std::mem::take(&mut self.in_set);
        let node = self.list(Close::Brace)?;
        let node = if self.take_command("choose") {
            let below = self.list(Close::Brace)?;
            Node::Call(Function::Binomial, vec![node, below])
        } else {
            node
        };
        self.bars = bars;
        self.in_set = in_set;
        self.take_sign('}').then_some(node)
    }

    /// `(..)`, `[..)`: a group, a tuple or an interval.
    fn round(&mut self, opens_square: bool) -> Option<Node> {
        self.at += 1;
        let bars = std::mem::take(&mut self.bars);
        let in_set = std::mem::take(&mut self.in_set);
        let (groups, _) = self.elements(Close::Round)?;
        self.bars = bars;
        self.in_set = in_set;
        let closes_square = self.is_sign(']');
        if !closes_square && !self.is_sign(')') {
            return None;
        }
        self.at += 1;
        let mut elements: Vec<Node> = groups.into_iter().flatten().collect();
        match elements.len() {
            0 => None,
            1 => (opens_square == closes_square).then(|| elements.swap_remove(0)),
            2 => {
                let is_open = [!opens_square, !closes_square];
                let (low, high) = (numeric::real(&elements[0]), numeric::real(&elements[1]));
                // A point has the same brackets on both sides.
                if let (Some(low), Some(high)) = (low, high)
                    && is_open[0] == is_open[1]
                    && (high < low || high == low && is_open == [true, true])
                {
                    return Some(Node::Tuple(elements));
                }
                if elements.iter().any(|element| matches!(element, Node::Chain(..)) || element.is_collection()) {
                    return Some(Node::Tuple(elements));
                }
                let high = elements.pop()?;
                Some(Node::Interval { bounds: Box::new([elements.pop()?, high]), is_open })
            }
            _ => (opens_square == closes_square).then_some(Node::Tuple(elements)),
        }
    }

    pub(crate) fn arguments(&mut self) -> Option<Vec<Node>> {
        self.at += 1;
        let (groups, _) = self.elements(Close::Round)?;
        self.take_sign(')').then(|| groups.into_iter().flatten().collect())
    }

    /// `|x|`
    fn bars(&mut self, bar: &str) -> Option<Node> {
        let is_bar = |parser: &Self| if bar == "|" { parser.is_sign('|') } else { parser.is_command("|") };
        self.at += 1;
        let bars = self.bars;
        self.bars = bars + 1;
        let inside = self.sum();
        self.bars = bars;
        let inside = inside?;
        if !is_bar(self) {
            return None;
        }
        self.at += 1;
        Some(Node::Call(Function::Abs, vec![inside]))
    }

    /// An argument of a command: a group, or what stands next. Of a number only the first digit is meant.
    pub(crate) fn argument(&mut self, takes_all: bool) -> Option<Node> {
        if self.is_sign('{') {
            return self.nested(Self::braces);
        }
        if let Some(Token::Number { whole, fraction: None, .. }) = self.peek().cloned()
            && whole.len() > 1
            && !takes_all
        {
            let (first, rest) = whole.split_at(1);
            self.lexemes[self.at].token = Token::Number { whole: rest.into(), fraction: None, exponent: 0 };
            return Some(Node::integer(first.parse().ok()?));
        }
        if let Some(Token::Word(word)) = self.peek()
            && word.len() > 1
            && words::function(word).is_none()
            && !matches!(*word, "pi" | "sqrt")
        {
            return self.first_letter();
        }
        self.atom()
    }

    fn command(&mut self, name: &'a str) -> Option<Node> {
        self.at += 1;
        Some(match name {
            "frac" => {
                let above = self.argument(false)?;
                let below = self.argument(true)?;
                above.over(below)
            }
            "sqrt" | "log" | "lg" | "exp" => return self.known(name),
            "binom" | "dbinom" | "tbinom" => {
                Node::Call(Function::Binomial, vec![self.argument(false)?, self.argument(true)?])
            }
            "pi" => Node::Constant(Constant::Pi),
            "infty" => Node::Constant(Constant::Infinity),
            "imath" => Node::Constant(Constant::I),
            "boxed" | "fbox" => self.argument(true)?,
            "{" => return self.set(),
            "|" => {
                self.at -= 1;
                return self.bars("||");
            }
            "lfloor" | "lceil" => {
                let inside = self.sum()?;
                let (close, function) =
                    if name == "lfloor" { ("rfloor", Function::Floor) } else { ("rceil", Function::Ceil) };
                if !self.take_command(close) {
                    return None;
                }
                Node::Call(function, vec![inside])
            }
            "langle" => {
                let (groups, _) = self.elements(Close::Angle)?;
                if !self.take_command("rangle") {
                    return None;
                }
                Node::Tuple(groups.into_iter().flatten().collect())
            }
            "Reals" => self.named(NamedSet::Reals),
            "Integers" => self.named(NamedSet::Integers),
            "Naturals" => self.named(NamedSet::Naturals),
            "Rationals" => self.named(NamedSet::Rationals),
            "Complexes" => self.named(NamedSet::Complexes),
            "emptyset" => Node::Named(NamedSet::Empty),
            "begin" => return self.environment(),
            "accent" => {
                let raw = self.raw()?;
                let letters = raw.chars().filter(|c| c.is_alphanumeric());
                let name: String = "bar_".chars().chain(letters.flat_map(char::to_lowercase)).collect();
                if name.len() == 4 || name.len() > 60 {
                    return None;
                }
                return self.name(name);
            }
            "sum" | "prod" => return self.series(name == "prod"),
            "int" | "iint" | "oint" | "lim" => {
                let mut parts = Vec::new();
                while let Some(Token::Sign('_' | '^')) = self.peek() {
                    self.at += 1;
                    let raw: String = self.raw()?.chars().filter(|c| !c.is_whitespace()).collect();
                    parts.push(Node::Symbol(raw));
                }
                parts.push(self.product()?);
                Node::Opaque(if name == "lim" { "limit" } else { "integral" }, parts)
            }
            "dots" => Node::Symbol("...".into()),
            _ if words::function(name).is_some() => return self.known(name),
            _ if words::is_symbol_command(name) => {
                // A capital letter is another variable than the small one.
                return self.name(if name.len() == 1 { name.into() } else { format!("\\{name}") });
            }
            _ => return None,
        })
    }

    /// A set's name, and the sign that only a part of it is meant.
    fn named(&mut self, set: NamedSet) -> Node {
        if self.is_sign('^') || self.is_sign('_') {
            let start = self.at;
            self.at += 1;
            if let Some(raw) = self.raw() {
                let mark: String = raw.chars().filter(|c| !matches!(c, '{' | '}' | ' ')).collect();
                if mark == "+" || mark == "*" && set == NamedSet::Naturals {
                    return match set {
                        NamedSet::Integers | NamedSet::Naturals => Node::Named(NamedSet::Naturals),
                        NamedSet::Reals => Node::Interval {
                            bounds: Box::new([Node::integer(0), Node::Constant(Constant::Infinity)]),
                            is_open: [true, true],
                        },
                        _ => Node::Symbol(format!("{set:?}+")),
                    };
                }
            }
            self.at = start;
        }
        Node::Named(set)
    }

    /// `\{..\}`, with elements or with a condition.
    fn set(&mut self) -> Option<Node> {
        let (bars, in_set) = (std::mem::take(&mut self.bars), std::mem::replace(&mut self.in_set, true));
        let node = self.set_inside();
        self.bars = bars;
        self.in_set = in_set;
        node
    }

    fn set_inside(&mut self) -> Option<Node> {
        if self.take_command("}") {
            return Some(Node::Named(NamedSet::Empty));
        }
        let (groups, _) = {
            let start = self.at;
            match self.elements(Close::SetBrace) {
                Some(elements) => elements,
                None => {
                    // What gave up did not put the state back.
                    (self.at, self.bars, self.in_set) = (start, 0, true);
                    return self.builder();
                }
            }
        };
        if !self.take_command("}") && !self.take_sign('}') {
            return None;
        }
        Some(Node::Set(groups.into_iter().flatten().collect()))
    }

    /// `\{x | x > 0\}`: what the condition says of the variable.
    fn builder(&mut self) -> Option<Node> {
        let element = self.chain()?;
        if !self.take_sign('|') && !self.take_sign(':') {
            return None;
        }
        let (groups, _) = self.elements(Close::SetBrace)?;
        if !self.take_command("}") && !self.take_sign('}') {
            return None;
        }
        let mut conditions: Vec<Node> = groups.into_iter().flatten().collect();
        if conditions.len() == 1 && matches!(element, Node::Symbol(_)) {
            return conditions.pop();
        }
        conditions.insert(0, element);
        Some(Node::Opaque("builder", conditions))
    }
}

pub(crate) fn product(mut factors: Vec<Node>) -> Node {
    if factors.len() == 1 { factors.swap_remove(0) } else { Node::Mul(factors) }
}
