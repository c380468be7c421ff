//! What a mathematical text says, as a tree: nothing is evaluated here.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

/// A constant with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constant {
    /// The circle's 3.14...
    Pi,
    /// Euler's number 2.71...
    E,
    /// The imaginary unit.
    I,
    /// Positive infinity.
    Infinity,
}

/// A function whose meaning is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names are those of the field")]
pub enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Asin,
    Acos,
    Atan,
    Acot,
    Asec,
    Acsc,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    /// `log(x)`, natural; another base is a quotient.
    Ln,
    Abs,
    Floor,
    Ceil,
    Factorial,
    Binomial,
    Gcd,
    Lcm,
    Min,
    Max,
    Mod,
    Re,
    Im,
    Arg,
    Det,
}

impl Function {
    /// How it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sin => "sin",
            Self::Cos => "cos",
            Self::Tan => "tan",
            Self::Cot => "cot",
            Self::Sec => "sec",
            Self::Csc => "csc",
            Self::Asin => "asin",
            Self::Acos => "acos",
            Self::Atan => "atan",
            Self::Acot => "acot",
            Self::Asec => "asec",
            Self::Acsc => "acsc",
            Self::Sinh => "sinh",
            Self::Cosh => "cosh",
            Self::Tanh => "tanh",
            Self::Asinh => "asinh",
            Self::Acosh => "acosh",
            Self::Atanh => "atanh",
            Self::Ln => "ln",
            Self::Abs => "abs",
            Self::Floor => "floor",
            Self::Ceil => "ceil",
            Self::Factorial => "factorial",
            Self::Binomial => "binomial",
            Self::Gcd => "gcd",
            Self::Lcm => "lcm",
            Self::Min => "min",
            Self::Max => "max",
            Self::Mod => "mod",
            Self::Re => "re",
            Self::Im => "im",
            Self::Arg => "arg",
            Self::Det => "det",
        }
    }
}

/// A set with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names are those of the field")]
pub enum NamedSet {
    Naturals,
    Integers,
    Rationals,
    Reals,
    Complexes,
    Empty,
}

/// How two sides are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// `=`, and `\in` before a set.
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `!=`
    NotEqual,
}

impl Relation {
    /// The relation of the sides the other way round.
    pub fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            Self::Equal | Self::NotEqual => self,
        }
    }

    /// How it is printed.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::NotEqual => "!=",
        }
    }
}

/// How sets are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names are those of the field")]
pub enum SetOperation {
    Union,
    Intersection,
    Difference,
}

/// A mathematical object as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A number; `is_decimal` if it was written with a decimal point, so that it may be rounded.
    Number {
        /// The exact value of what was written.
        value: BigRational,
        /// Whether it had a decimal point.
        is_decimal: bool,
    },
    /// Digits with the base that they are to be read in: `204_5`.
    Based {
        /// The digits, read in base ten.
        digits: BigInt,
        /// From 2 to 36.
        base: u32,
    },
    /// `x\%`
    Percent(Box<Node>),
    /// A variable or an unknown name, in lower case if it has more than a letter.
    Symbol(String),
    /// A constant with a name.
    Constant(Constant),
    /// A sum.
    Add(Vec<Node>),
    /// A product, in the order that was written.
    Mul(Vec<Node>),
    /// A power.
    Pow(Box<Node>, Box<Node>),
    /// A known function of its arguments.
    Call(Function, Vec<Node>),
    /// An unknown function of its arguments.
    Apply(String, Vec<Node>),
    /// `a \pm b`: both signs.
    PlusMinus(Vec<Node>, Box<Node>, bool),
    /// A sum or product over an integer variable.
    Series {
        /// A product rather than a sum.
        is_product: bool,
        /// The bound variable.
        variable: String,
        /// First value, last value, and what is added or multiplied.
        parts: Box<[Node; 3]>,
    },
    /// Something that has a form but is not computed: an integral, a limit.
    Opaque(&'static str, Vec<Node>),
    /// Rows of equal length.
    Matrix(Vec<Vec<Node>>),
    /// Elements without order; also a list that was written without brackets.
    Set(Vec<Node>),
    /// Elements in order.
    Tuple(Vec<Node>),
    /// Two bounds; with both open it may be an ordered pair as well.
    Interval {
        /// Lower and upper bound.
        bounds: Box<[Node; 2]>,
        /// Whether the lower, the upper bound is left out.
        is_open: [bool; 2],
    },
    /// A set with a name.
    Named(NamedSet),
    /// Sets combined.
    Combined(SetOperation, Box<[Node; 2]>),
    /// `a = b < c`: relations in a row.
    Chain(Box<Node>, Vec<(Relation, Node)>),
}

impl Node {
    /// A whole number.
    pub fn integer(value: i64) -> Self {
        Self::Number { value: BigRational::from_integer(value.into()), is_decimal: false }
    }

    /// An exact number.
    pub fn rational(value: BigRational) -> Self {
        Self::Number { value, is_decimal: false }
    }

    /// The negative.
    pub fn negated(self) -> Self {
        match self {
            Self::Number { value, is_decimal } => Self::Number { value: -value, is_decimal },
            Self::PlusMinus(mut before, middle, is_minus) if before.is_empty() => {
                before.clear();
                Self::PlusMinus(before, middle, !is_minus)
            }
            other => Self::Mul(vec![Self::integer(-1), other]),
        }
    }

    /// `self / below`.
    pub fn over(self, below: Self) -> Self {
        if let (Self::Number { value: a, is_decimal: false }, Self::Number { value: b, is_decimal: false }) =
            (&self, &below)
            && a.is_integer()
            && b.is_integer()
            && !b.is_zero()
        {
            return Self::rational(a / b);
        }
        Self::Mul(vec![self, Self::Pow(Box::new(below), Box::new(Self::integer(-1)))])
    }

    /// Whether this is a whole number.
    pub fn as_integer(&self) -> Option<&BigInt> {
        match self {
            Self::Number { value, .. } if value.denom().is_one() => Some(value.numer()),
            _ => None,
        }
    }

    /// The nodes below.
    pub fn children(&self) -> Vec<&Node> {
        match self {
            Self::Number { .. } | Self::Based { .. } | Self::Symbol(_) | Self::Constant(_) | Self::Named(_) => {
                Vec::new()
            }
            Self::Percent(inner) => vec![inner],
            Self::Add(nodes)
            | Self::Mul(nodes)
            | Self::Call(_, nodes)
            | Self::Apply(_, nodes)
            | Self::Opaque(_, nodes)
            | Self::Set(nodes)
            | Self::Tuple(nodes) => nodes.iter().collect(),
            Self::Pow(a, b) => vec![a, b],
            Self::PlusMinus(before, after, _) => before.iter().chain([&**after]).collect(),
            Self::Series { parts, .. } => parts.iter().collect(),
            Self::Matrix(rows) => rows.iter().flatten().collect(),
            Self::Interval { bounds, .. } => bounds.iter().collect(),
            Self::Combined(_, both) => both.iter().collect(),
            Self::Chain(first, rest) => [&**first].into_iter().chain(rest.iter().map(|(_, node)| node)).collect(),
        }
    }

    /// Whether it or a node below fulfils the condition.
    pub fn any(&self, condition: &mut dyn FnMut(&Node) -> bool) -> bool {
        condition(self) || self.children().into_iter().any(|child| child.any(condition))
    }

    /// The names of free variables, in order of their first appearance.
    pub fn variables(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.any(&mut |node| {
            if let Node::Symbol(name) = node
                && !names.contains(name)
            {
                names.push(name.clone());
            }
            false
        });
        names
    }

    /// Whether this is a set, a tuple or an interval: what holds elements.
    pub fn is_collection(&self) -> bool {
        matches!(self, Self::Set(_) | Self::Tuple(_) | Self::Interval { .. } | Self::Named(_) | Self::Combined(..))
    }
}

/// The node with its variables renamed, each of `from` to its like in `to`.
pub fn renamed(node: &Node, from: &[String], to: &[String]) -> Node {
    let all = |nodes: &[Node]| nodes.iter().map(|node| renamed(node, from, to)).collect::<Vec<_>>();
    match node {
        Node::Symbol(name) => match from.iter().position(|known| known == name) {
            Some(i) => Node::Symbol(to[i].clone()),
            None => node.clone(),
        },
        Node::Percent(inner) => Node::Percent(Box::new(renamed(inner, from, to))),
        Node::Add(nodes) => Node::Add(all(nodes)),
        Node::Mul(nodes) => Node::Mul(all(nodes)),
        Node::Pow(a, b) => Node::Pow(Box::new(renamed(a, from, to)), Box::new(renamed(b, from, to))),
        Node::Call(function, nodes) => Node::Call(*function, all(nodes)),
        Node::Apply(name, nodes) => Node::Apply(name.clone(), all(nodes)),
        Node::Opaque(name, nodes) => Node::Opaque(name, all(nodes)),
        Node::Set(nodes) => Node::Set(all(nodes)),
        Node::Tuple(nodes) => Node::Tuple(all(nodes)),
        Node::Matrix(rows) => Node::Matrix(rows.iter().map(|row| all(row)).collect()),
        Node::Interval { bounds, is_open } => Node::Interval {
            bounds: Box::new([renamed(&bounds[0], from, to), renamed(&bounds[1], from, to)]),
            is_open: *is_open,
        },
        Node::Combined(operation, both) => {
            Node::Combined(*operation, Box::new([renamed(&both[0], from, to), renamed(&both[1], from, to)]))
        }
        Node::Chain(first, rest) => Node::Chain(
            Box::new(renamed(first, from, to)),
            rest.iter().map(|(relation, node)| (*relation, renamed(node, from, to))).collect(),
        ),
        other => other.clone(),
    }
}
