//! Whether two objects are the same answer. The rules are math-verify's: which forms of an answer stand for each other
//! (`x = 5` and `5`, `(1, 2)` and `{1, 2}`, `28\%` and `28`), and that decimals are rounded before they are compared.

use num_rational::BigRational;
use num_traits::ToPrimitive;

use crate::canonical::Canonical;
use crate::numeric::{self, Domain, Point};
use crate::parser::is_name;
use crate::relations;
use crate::sets;
use crate::tree::{Constant, Node, Relation};
use crate::{linear, tree};

/// What counts as equal.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decimal places to which decimals are rounded before they are compared.
    pub precision: u32,
    /// The relative difference that a decimal may have besides.
    pub tolerance: f64,
    /// Whether variables matter by name; otherwise by their order of appearance.
    pub is_strict: bool,
    /// Whether an inequality may answer where the reference is an interval.
    pub allows_relation_for_set: bool,
    /// Whether `10\%`, `0.1` and `10` are one.
    pub ignores_percent: bool,
    /// Whether lists without brackets have an order.
    pub has_ordered_lists: bool,
    /// Whether a matrix with a single row or column is a list of its entries.
    pub takes_vectors_as_lists: bool,
    /// Whether `y = 2x` and `f(x) = 2x` are one.
    pub ignores_names: bool,
    /// Where variables are tried.
    pub domain: Domain,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            precision: 6,
            tolerance: 0.0,
            is_strict: true,
            allows_relation_for_set: false,
            ignores_percent: false,
            has_ordered_lists: false,
            takes_vectors_as_lists: false,
            ignores_names: false,
            domain: Domain::Real,
        }
    }
}

/// How it was shown that two objects are equal; the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// By their forms.
    Exact,
    /// After decimals were rounded.
    Rounded,
    /// By their values at some points only.
    Numeric,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same.
    Equal(Proof),
    /// Not the same.
    Different,
    /// It can't be told.
    Unknown,
}

impl Comparison {
    /// Equal if both are; the weaker proof.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Equal(a), Self::Equal(b)) => Self::Equal(a.max(b)),
            (Self::Different, _) | (_, Self::Different) => Self::Different,
            _ => Self::Unknown,
        }
    }

    /// Whether the two are equal for all that is known.
    pub fn is_equal(self) -> bool {
        matches!(self, Self::Equal(_))
    }

    fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Equal(_) => self,
            Self::Different => other(),
            Self::Unknown => match other() {
                Self::Different => Self::Unknown,
                found => found,
            },
        }
    }
}

const EXACT: Comparison = Comparison::Equal(Proof::Exact);

/// Compares an answer with the reference. It is not symmetric where math-verify's rules are not.
pub fn compare(reference: &Node, answer: &Node, settings: &Settings) -> Comparison {
    if let (Node::Number { .. }, Node::Number { .. }) = (reference, answer) {
        return scalars(reference, answer, settings);
    }
    let (reference, answer) = (linear::folded(reference), linear::folded(answer));
    if settings.is_strict {
        return unwrapped(&reference, &answer, settings, 0);
    }
    let (theirs, ours) = (answer.variables(), reference.variables());
    let answer = if theirs.len() == ours.len() { tree::renamed(&answer, &theirs, &ours) } else { answer.into_owned() };
    unwrapped(&reference, &answer, settings, 0)
}

/// Elements in elements in elements ... are compared so deep.
const DEPTH: usize = 8;

pub(crate) fn unwrapped(reference: &Node, answer: &Node, settings: &Settings, depth: usize) -> Comparison {
    if depth > DEPTH {
        return Comparison::Unknown;
    }
    if reference == answer {
        return EXACT;
    }
    let (ours, theirs) = (Shape::of(reference), Shape::of(answer));
    // In `x = 2 + 3 = 5` only the first and the last side count.
    let (shortened_reference, shortened_answer) = (ours.shortened(reference), theirs.shortened(answer));
    let mut reference = shortened_reference.as_ref().unwrap_or(reference);
    let mut answer = shortened_answer.as_ref().unwrap_or(answer);
    if settings.ignores_names && ours.is_assignment && theirs.is_assignment {
        (reference, answer) = (last_side(reference), last_side(answer));
    } else if theirs.is_equation && !ours.is_equation {
        answer = last_side(answer);
    } else if ours.is_assignment && !theirs.is_equation {
        reference = last_side(reference);
    }
    let (reference_set, answer_set);
    if matches!(reference, Node::Chain(..)) && answer.is_collection() {
        reference_set = relations::solution(reference);
        reference = reference_set.as_ref().unwrap_or(reference);
    } else if settings.allows_relation_for_set && matches!(answer, Node::Chain(..)) && reference.is_collection() {
        answer_set = relations::solution(answer);
        answer = answer_set.as_ref().unwrap_or(answer);
    }
    if reference == answer {
        return EXACT;
    }
    match (reference, answer) {
        (Node::Chain(..), Node::Chain(..)) => relations::compare(reference, answer, settings, depth),
        (Node::Chain(..), _) | (_, Node::Chain(..)) => Comparison::Different,
        (Node::Matrix(a), Node::Matrix(b)) => {
            if a.len() != b.len() || a[0].len() != b[0].len() {
                return Comparison::Different;
            }
            all(a.iter().flatten().zip(b.iter().flatten()), settings, depth)
        }
        (Node::Matrix(rows), other) | (other, Node::Matrix(rows)) if settings.takes_vectors_as_lists => {
            let elements = match other {
                Node::Tuple(elements) | Node::Set(elements) => &elements[..],
                Node::Interval { bounds, .. } => &bounds[..],
                _ => return Comparison::Different,
            };
            let cells: Vec<&Node> = rows.iter().flatten().collect();
            if rows.len() > 1 && rows[0].len() > 1 || cells.len() != elements.len() {
                return Comparison::Different;
            }
            all(cells.into_iter().zip(elements), settings, depth)
        }
        (a, b) if a.is_collection() || b.is_collection() => sets::compare(a, b, settings, depth),
        (Node::Matrix(_), _) | (_, Node::Matrix(_)) => Comparison::Different,
        _ => scalars(reference, answer, settings),
    }
}

pub(crate) fn all<'a>(
    pairs: impl Iterator<Item = (&'a Node, &'a Node)>,
    settings: &Settings,
    depth: usize,
) -> Comparison {
    let mut total = EXACT;
    for (a, b) in pairs {
        total = total.and(unwrapped(a, b, settings, depth + 1));
        if total == Comparison::Different {
            break;
        }
    }
    total
}

/// What kind of relation a node is.
#[derive(Clone, Copy, Default)]
struct Shape {
    is_equation: bool,
    is_assignment: bool,
}

impl Shape {
    fn of(node: &Node) -> Self {
        let Node::Chain(first, rest) = node else { return Self::default() };
        let is_equation = rest.iter().all(|(relation, _)| *relation == Relation::Equal);
        Self { is_equation, is_assignment: is_equation && is_name(first) }
    }

    fn shortened(self, node: &Node) -> Option<Node> {
        let Node::Chain(first, rest) = node else { return None };
        if !self.is_assignment || rest.len() < 2 {
            return None;
        }
        Some(Node::Chain(first.clone(), vec![rest.last()?.clone()]))
    }
}

fn last_side(node: &Node) -> &Node {
    match node {
        Node::Chain(first, rest) => rest.last().map_or(first, |(_, node)| node),
        other => other,
    }
}

/// Compares what is no collection and no relation.
pub(crate) fn scalars(a: &Node, b: &Node, settings: &Settings) -> Comparison {
    if a == b {
        return EXACT;
    }
    if let (Node::Based { digits: x, base: p }, Node::Based { digits: y, base: q }) = (a, b) {
        return if x == y && p == q { EXACT } else { Comparison::Different };
    }
    if let (Some(x), y) | (y, Some(x)) = (infinite(a), infinite(b)) {
        return if y == Some(x) { EXACT } else { Comparison::Different };
    }
    if let Some(comparison) = percentages(a, b, settings) {
        return comparison;
    }
    if let (Node::Number { value: x, is_decimal: d }, Node::Number { value: y, is_decimal: e }) = (a, b) {
        if x == y {
            return EXACT;
        }
        return if *d || *e { rounded_rationals(x, y, settings) } else { near(a, b, settings) };
    }
    if let Some(comparison) = texts(a, b) {
        return comparison;
    }
    let (form_a, form_b) = (Canonical::of(a), Canonical::of(b));
    if let (Some(x), Some(y)) = (&form_a, &form_b) {
        match x.equals(y) {
            Some(true) => return EXACT,
            Some(false) if x.is_decisive() && y.is_decisive() => {
                let is_decimal = is_decimal(a) || is_decimal(b);
                return if is_decimal { rounded(a, b, settings) } else { near(a, b, settings) };
            }
            _ => {}
        }
    }
    let comparison = if is_decimal(a) || is_decimal(b) { rounded(a, b, settings) } else { Comparison::Different };
    comparison.or_else(|| at_points(a, b, settings)).or_else(|| near(a, b, settings))
}

/// Whether this is infinity, and of which sign.
fn infinite(node: &Node) -> Option<bool> {
    match node {
        Node::Constant(Constant::Infinity) => Some(true),
        Node::Mul(nodes) => match &nodes[..] {
            [sign @ Node::Number { .. }, Node::Constant(Constant::Infinity)] => Some(numeric::real(sign)? > 0.0),
            _ => None,
        },
        _ => None,
    }
}

/// A number that was written with a decimal point, perhaps as a percentage.
fn is_decimal(node: &Node) -> bool {
    match node {
        Node::Number { is_decimal, .. } => *is_decimal,
        Node::Percent(inner) => is_decimal(inner),
        Node::Mul(nodes) => matches!(&nodes[..], [Node::Number { .. }, inner] if is_decimal(inner)),
        _ => false,
    }
}

/// math-verify takes `9\%` for 9 as well as for 0.09, if it is whole.
fn percentages(a: &Node, b: &Node, settings: &Settings) -> Option<Comparison> {
    let (is_a, inside_a) = inside_percent(a);
    let (is_b, inside_b) = inside_percent(b);
    if !is_a && !is_b {
        return None;
    }
    if settings.ignores_percent {
        let plain = scalars(inside_a, inside_b, settings);
        if plain.is_equal() {
            return Some(plain);
        }
    } else if let (Some(x), Some(y)) = (inside_a.as_integer(), inside_b.as_integer())
        && !is_decimal(inside_a)
        && !is_decimal(inside_b)
    {
        return Some(if x == y { EXACT } else { Comparison::Different });
    }
    if is_a && is_b {
        return Some(scalars(inside_a, inside_b, settings));
    }
    None
}

fn inside_percent(node: &Node) -> (bool, &Node) {
    match node {
        Node::Percent(inner) => (true, inner),
        other => (false, other),
    }
}

/// Rounded half up, both the same way.
fn rounded_rationals(x: &BigRational, y: &BigRational, settings: &Settings) -> Comparison {
    let scale = BigRational::from_integer(num_bigint::BigInt::from(10).pow(settings.precision));
    if (x * &scale).round() == (y * &scale).round() {
        return Comparison::Equal(Proof::Rounded);
    }
    if settings.tolerance > 0.0
        && let (Some(x), Some(y)) = (x.to_f64(), y.to_f64())
        && is_near(x, y, settings.tolerance)
    {
        return Comparison::Equal(Proof::Rounded);
    }
    Comparison::Different
}

fn rounded(a: &Node, b: &Node, settings: &Settings) -> Comparison {
    let (Some(x), Some(y)) = (exact(a), exact(b)) else {
        let point = Point::default();
        let (Some(x), Some(y)) = (numeric::value(a, &point), numeric::value(b, &point)) else {
            return Comparison::Different;
        };
        let scale = libm::pow(10.0, f64::from(settings.precision));
        let same =
            |x: f64, y: f64| libm::round(x * scale) == libm::round(y * scale) || is_near(x, y, settings.tolerance);
        return if same(x.re, y.re) && same(x.im, y.im) {
            Comparison::Equal(Proof::Rounded)
        } else {
            Comparison::Different
        };
    };
    if x == y { EXACT } else { rounded_rationals(&x, &y, settings) }
}

fn exact(node: &Node) -> Option<BigRational> {
    match node {
        Node::Number { value, .. } => Some(value.clone()),
        other => Canonical::of(other)?.as_rational(),
    }
}

fn is_near(x: f64, y: f64, tolerance: f64) -> bool {
    tolerance > 0.0 && (x - y).abs() <= tolerance * x.abs().max(y.abs())
}

/// Within the relative tolerance, if there is one and either side holds a decimal.
fn near(a: &Node, b: &Node, settings: &Settings) -> Comparison {
    let mut has_decimal = false;
    for node in [a, b] {
        has_decimal |= node.any(&mut |node| matches!(node, Node::Number { is_decimal: true, .. }));
    }
    if settings.tolerance == 0.0 || !has_decimal {
        return Comparison::Different;
    }
    let mut names = a.variables();
    names.extend(b.variables());
    for index in 0..4 {
        let point = Point::new(&names, index, settings.domain);
        match (numeric::value(a, &point), numeric::value(b, &point)) {
            (Some(x), Some(y)) => {
                if (x - y).abs() > settings.tolerance * x.abs().max(y.abs()) {
                    return Comparison::Different;
                }
            }
            _ => return Comparison::Different,
        }
        if names.is_empty() {
            break;
        }
    }
    Comparison::Equal(Proof::Rounded)
}

/// Words are compared by their letters; `\text{odd}` is `odd`, which reads as a product.
fn texts(a: &Node, b: &Node) -> Option<Comparison> {
    if !is_text(a) && !is_text(b) {
        return None;
    }
    let same = match (letters(a), letters(b)) {
        (Some(x), Some(y)) => x == y,
        _ => false,
    };
    Some(if same { EXACT } else { Comparison::Different })
}

fn is_text(node: &Node) -> bool {
    matches!(node, Node::Symbol(name) if name.chars().count() > 1 && !name.contains(['_', '\\', '\'']))
        || matches!(node, Node::Symbol(name) if name == "E" || name == "I")
}

fn letters(node: &Node) -> Option<String> {
    Some(match node {
        Node::Symbol(name) => name.to_lowercase(),
        Node::Constant(Constant::E) => "e".into(),
        Node::Constant(Constant::I) => "i".into(),
        Node::Mul(nodes) => nodes.iter().map(letters).collect::<Option<String>>()?,
        Node::Number { value, .. } if value.is_integer() => value.to_string(),
        _ => return None,
    })
}

/// Points at which two expressions must agree.
const POINTS: u32 = 5;
/// So many times more points are tried where functions have pieces.
const PIECES: u32 = 4;

/// Compares by value at points.
fn at_points(a: &Node, b: &Node, settings: &Settings) -> Comparison {
    let mut names = a.variables();
    for name in b.variables() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let needs_whole = |node: &Node| {
        node.any(&mut |node| {
            matches!(node, Node::Series { .. } | Node::Call(tree::Function::Factorial | tree::Function::Binomial, _))
        })
    };
    let domain = if !names.is_empty() && (needs_whole(a) || needs_whole(b)) { Domain::Whole } else { settings.domain };
    let has_pieces = !names.is_empty() && (has_pieces(a) || has_pieces(b));
    let wanted = if has_pieces { PIECES * POINTS } else { POINTS };
    let (mut agreed, mut reference_has_value) = (0, false);
    for index in 0..3 * wanted {
        let point = Point::new(&names, index, domain);
        let (x, y) = (numeric::value(a, &point), numeric::value(b, &point));
        reference_has_value |= x.is_some();
        if let (Some(x), Some(y)) = (x, y) {
            let size = x.abs().max(y.abs());
            let difference = (x - y).abs();
            // Near zero what is left of a cancellation is no difference; a small exact value is.
            let is_same = difference <= 1e-10 * size || size < 1e-13 && !(is_product(a) && is_product(b));
            if !is_same {
                return Comparison::Different;
            }
            agreed += 1;
            if agreed == wanted || names.is_empty() {
                break;
            }
        } else if names.is_empty() {
            break;
        }
    }
    if agreed > 1 || agreed == 1 && names.is_empty() {
        return if has_pieces { Comparison::Unknown } else { Comparison::Equal(Proof::Numeric) };
    }
    if names.is_empty()
        && let (Some(x), Some(y)) = (numeric::log_size(a), numeric::log_size(b))
    {
        // Too large or too small for floating point: only a clear difference is one.
        return if (x - y).abs() > 1e-9 * x.abs().max(y.abs()).max(1.0) {
            Comparison::Different
        } else {
            Comparison::Unknown
        };
    }
    if reference_has_value { Comparison::Different } else { Comparison::Unknown }
}

/// Whether a function of variables in it has pieces that may agree with another expression at all points that are tried, and
/// differ elsewhere: the difference of two such expressions can be shown, their equality can't.
fn has_pieces(node: &Node) -> bool {
    use tree::Function::{Abs, Ceil, Floor, Gcd, Lcm, Max, Min, Mod};
    node.any(&mut |node| {
        let has_pieces = match node {
            Node::Call(Abs | Ceil | Floor | Gcd | Lcm | Max | Min | Mod, _) => true,
            // A root of (x - 1)^2.
            Node::Pow(base, exponent) if exponent.as_integer().is_none() => {
                matches!(&**base, Node::Pow(inner, _) if matches!(**inner, Node::Add(_)))
            }
            _ => false,
        };
        has_pieces && !node.variables().is_empty()
    })
}

/// Whether no sum in it can cancel.
fn is_product(node: &Node) -> bool {
    !node.any(&mut |node| matches!(node, Node::Add(_) | Node::Call(..)))
}
