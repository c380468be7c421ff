//! Commands and words that take arguments: functions, sums and products over an index, matrices.

use crate::atoms::product;
use crate::lexer::Token;
use crate::parser::Parser;
use crate::tree::{Constant, Function, Node};
use crate::words;

impl Parser<'_> {
    /// A known function: exponent and base before its argument, with or without brackets.
    pub(crate) fn known(&mut self, name: &str) -> Option<Node> {
        let mut index = None;
        if matches!(name, "sqrt") && self.is_sign('[') {
            self.at += 1;
            index = Some(self.sum()?);
            if !self.take_sign(']') {
                return None;
            }
        }
        let (mut base, mut exponent) = (None, None);
        for _ in 0..2 {
            if name == "log" && base.is_none() && self.is_sign('_') {
                self.at += 1;
                base = Some(self.argument(false)?);
            } else if name != "sqrt" && exponent.is_none() && self.is_sign('^') {
                self.at += 1;
                exponent = Some(if self.is_sign('{') { self.atom()? } else { self.argument(false)? });
            }
        }
        let function = words::function(name);
        let in_angle = self.in_angle;
        self.in_angle = function.is_some_and(words::takes_angle);
        let arguments = self.function_arguments(matches!(name, "sqrt" | "cbrt"));
        self.in_angle = in_angle;
        let mut arguments = arguments?;
        let call = match name {
            "sqrt" | "cbrt" => {
                let radicand = (arguments.len() == 1).then(|| arguments.swap_remove(0))?;
                let index = index.unwrap_or_else(|| Node::integer(if name == "sqrt" { 2 } else { 3 }));
                Node::Pow(Box::new(radicand), Box::new(Node::integer(1).over(index)))
            }
            "exp" => {
                let argument = (arguments.len() == 1).then(|| arguments.swap_remove(0))?;
                Node::Pow(Box::new(Node::Constant(Constant::E)), Box::new(argument))
            }
            "log" | "lg" => {
                if arguments.len() == 2 && base.is_none() {
                    base = arguments.pop();
                }
                let argument = (arguments.len() == 1).then(|| arguments.swap_remove(0))?;
                let ln = |node| Node::Call(Function::Ln, vec![node]);
                ln(argument).over(ln(base.unwrap_or_else(|| Node::integer(10))))
            }
            _ => {
                let mut function = function?;
                if let Some(-1) = exponent.as_ref().and_then(Node::as_integer).and_then(|n| i64::try_from(n).ok())
                    && let Some(inverse) = words::inverse(function)
                {
                    function = inverse;
                    exponent = None;
                }
                let several = matches!(function, Function::Gcd | Function::Lcm | Function::Min | Function::Max);
                let needs = if function == Function::Binomial { 2 } else { 1 };
                if !several && arguments.len() != needs {
                    return None;
                }
                Node::Call(function, arguments)
            }
        };
        Some(match exponent {
            Some(exponent) => Node::Pow(Box::new(call), Box::new(exponent)),
            None => call,
        })
    }

    fn function_arguments(&mut self, takes_one: bool) -> Option<Vec<Node>> {
        if self.is_sign('(') {
            return self.nested(Self::arguments);
        }
        if self.is_sign('{') || takes_one {
            return Some(vec![self.argument(false)?]);
        }
        // Without brackets the argument is the factors up to the next function.
        let is_negative = self.take_sign('-');
        let mut factors = vec![self.power()?];
        while self.begins_factor() && !self.begins_function() && factors.len() < 20 {
            factors.push(self.power()?);
        }
        let argument = product(factors);
        Some(vec![if is_negative { argument.negated() } else { argument }])
    }

    fn begins_function(&self) -> bool {
        match self.peek() {
            Some(Token::Command(name) | Token::Word(name)) => {
                words::function(name).is_some() || matches!(*name, "log" | "lg" | "exp")
            }
            Some(Token::Text(_)) => true,
            _ => false,
        }
    }

    pub(crate) fn series(&mut self, is_product: bool) -> Option<Node> {
        let (mut variable, mut from, mut to) = (String::new(), None, None);
        for _ in 0..2 {
            if self.take_sign('_') {
                if !self.take_sign('{') {
                    return None;
                }
                let Some(Token::Word(name)) = self.peek().cloned() else { return None };
                self.at += 1;
                if name.len() != 1 || !self.take_sign('=') {
                    return None;
                }
                variable = name.to_lowercase();
                from = Some(self.sum()?);
                if !self.take_sign('}') {
                    return None;
                }
            } else if self.take_sign('^') {
                to = Some(self.argument(true)?);
            }
        }
        self.bound.push(variable.clone());
        let body = self.product();
        self.bound.pop();
        Some(Node::Series { is_product, variable, parts: Box::new([from?, to?, body?]) })
    }

    /// `\begin{pmatrix} .. \end{pmatrix}`
    pub(crate) fn environment(&mut self) -> Option<Node> {
        let name = self.environment_name()?;
        let is_array = name == "array";
        if is_array && self.is_sign('{') {
            self.raw()?;
        }
        let (bars, in_set) = (std::mem::take(&mut self.bars), std::mem::take(&mut self.in_set));
        let mut rows: Vec<Vec<Node>> = vec![Vec::new()];
        loop {
            match self.peek()? {
                Token::Command("end") => {
                    self.at += 1;
                    if self.environment_name()? != name {
                        return None;
                    }
                    break;
                }
                Token::RowEnd => {
                    self.at += 1;
                    rows.push(Vec::new());
                }
                Token::Sign('&') | Token::Sign(',' | ';' | '.') => self.at += 1,
                Token::Text(text) if words::begins_condition(text) => self.at += 1,
                _ => {
                    let cell = self.chain()?;
                    rows.last_mut()?.push(cell);
                }
            }
        }
        self.bars = bars;
        self.in_set = in_set;
        rows.retain(|row| !row.is_empty());
        if name == "cases" {
            let is_system = rows.iter().all(|row| matches!(row[..], [Node::Chain(..)]));
            let cells = rows.into_iter().flatten().collect();
            return Some(if is_system { Node::Set(cells) } else { Node::Opaque("cases", cells) });
        }
        let width = rows.first()?.len();
        if rows.iter().any(|row| row.len() != width) {
            return None;
        }
        let matrix = Node::Matrix(rows);
        match name.as_str() {
            "matrix" | "pmatrix" | "bmatrix" | "Bmatrix" | "array" | "smallmatrix" => Some(matrix),
            "vmatrix" | "Vmatrix" => Some(Node::Call(Function::Det, vec![matrix])),
            _ => None,
        }
    }

    fn environment_name(&mut self) -> Option<String> {
        let raw = self.raw()?;
        Some(raw.chars().filter(char::is_ascii_alphabetic).collect())
    }
}
