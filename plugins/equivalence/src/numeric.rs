//! The value of a tree in floating point, at points that depend on the variables' names alone.

use num_traits::{One, Signed, ToPrimitive};

use crate::complex::Complex;
use crate::tree::{Constant, Function, Node};

/// Values of variables.
#[derive(Clone, Debug, Default)]
pub struct Point(Vec<(String, f64)>);

/// Which points variables are tried at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Of both signs.
    Real,
    /// Above zero.
    Positive,
    /// Whole numbers from 2 on.
    Whole,
}

impl Point {
    /// The `index`th point for these variables.
    pub fn new(variables: &[String], index: u32, domain: Domain) -> Self {
        let value = |name: &String| {
            // FNV-1a of the name, mixed with the index.
            let mut hash = 0xcbf2_9ce4_8422_2325_u64;
            for byte in name.bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            hash = (hash ^ u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
            hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash ^= hash >> 32;
            let share = (hash >> 11) as f64 / (1_u64 << 53) as f64;
            match domain {
                Domain::Whole => 2.0 + (hash % 6) as f64,
                Domain::Real if index % 2 == 1 => -(0.35 + 2.3 * share),
                Domain::Real if index % 4 == 2 && hash & 1 == 1 => -(0.35 + 2.3 * share),
                Domain::Real | Domain::Positive => 0.35 + 2.3 * share,
            }
        };
        Self(variables.iter().map(|name| (name.clone(), value(name))).collect())
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// Terms of a sum at most.
const TERMS: i64 = 2000;

/// Steps of an evaluation at most: sums in sums are long.
const STEPS: u32 = 200_000;

/// The value of a tree without variables, if it is real; infinite for infinity.
pub fn real(node: &Node) -> Option<f64> {
    if let Node::Number { value, .. } = node {
        return value.to_f64();
    }
    evaluate(node, &mut Point::default())?.as_real()
}

/// The value at a point; `None` where there is none: a division by zero, an overflow, what is not computed.
pub fn value(node: &Node, point: &Point) -> Option<Complex> {
    evaluate(node, &mut point.clone()).filter(|value| value.is_finite())
}

fn evaluate(node: &Node, point: &mut Point) -> Option<Complex> {
    let mut steps = STEPS;
    step(node, point, &mut steps)
}

fn step(node: &Node, point: &mut Point, steps: &mut u32) -> Option<Complex> {
    *steps = steps.checked_sub(1)?;
    Some(match node {
        Node::Number { value, .. } => Complex::real(value.to_f64()?),
        Node::Based { digits, .. } => Complex::real(digits.to_f64()?),
        Node::Percent(inner) => step(inner, point, steps)? * Complex::real(0.01),
        Node::Symbol(name) => Complex::real(point.get(name)?),
        Node::Constant(constant) => match constant {
            Constant::Pi => Complex::real(std::f64::consts::PI),
            Constant::E => Complex::real(std::f64::consts::E),
            Constant::I => Complex::I,
            Constant::Infinity => Complex::real(f64::INFINITY),
        },
        Node::Add(nodes) => {
            let mut sum = Complex::real(0.0);
            for node in nodes {
                sum = sum + step(node, point, steps)?;
            }
            sum
        }
        Node::Mul(nodes) => {
            let mut product = Complex::ONE;
            for node in nodes {
                product = product * step(node, point, steps)?;
            }
            product
        }
        Node::Pow(base, exponent) => {
            let value = step(base, point, steps)?;
            // Odd roots of negative numbers are the real ones.
            if let Node::Number { value: power, .. } = &**exponent
                && value.im == 0.0
                && value.re < 0.0
                && !power.denom().is_one()
                && power.denom().bit(0)
            {
                let size = libm::pow(-value.re, power.to_f64()?);
                return Some(Complex::real(if power.numer().bit(0) { -size } else { size }));
            }
            let exponent = step(exponent, point, steps)?;
            if value.re == 0.0 && value.im == 0.0 && exponent.re < 0.0 {
                return None;
            }
            value.power(exponent)
        }
        Node::Call(function, nodes) => call(*function, nodes, point, steps)?,
        Node::Series { is_product, variable, parts } => {
            let from = step(&parts[0], point, steps)?.as_real()?;
            let to = step(&parts[1], point, steps)?.as_real()?;
            if !(from == libm::trunc(from) && to == libm::trunc(to) && to - from <= TERMS as f64) {
                return None;
            }
            let mut total = Complex::real(if *is_product { 1.0 } else { 0.0 });
            point.0.push((variable.clone(), 0.0));
            let depth = point.0.len() - 1;
            for k in from as i64..=to as i64 {
                point.0[depth].1 = k as f64;
                let term = step(&parts[2], point, steps);
                let Some(term) = term else {
                    point.0.truncate(depth);
                    return None;
                };
                total = if *is_product { total * term } else { total + term };
            }
            point.0.truncate(depth);
            total
        }
        Node::Apply(name, nodes) => {
            // An unknown function: some value that depends on its name and arguments smoothly.
            let mut seed = name.bytes().fold(0.37, |seed: f64, byte| seed * 0.9 + f64::from(byte) * 0.01);
            for (i, node) in nodes.iter().enumerate() {
                let argument = step(node, point, steps)?;
                seed += libm::sin(argument.re * (1.3 + i as f64) + argument.im) + 0.71 * argument.re;
            }
            Complex::real(seed)
        }
        Node::PlusMinus(..)
        | Node::Opaque(..)
        | Node::Matrix(_)
        | Node::Set(_)
        | Node::Tuple(_)
        | Node::Interval { .. }
        | Node::Named(_)
        | Node::Combined(..)
        | Node::Chain(..) => return None,
    })
}

fn call(function: Function, nodes: &[Node], point: &mut Point, steps: &mut u32) -> Option<Complex> {
    if function == Function::Det {
        let [Node::Matrix(rows)] = nodes else { return None };
        return determinant(rows, point, steps);
    }
    let mut values = Vec::with_capacity(nodes.len());
    for node in nodes {
        values.push(step(node, point, steps)?);
    }
    let x = *values.first()?;
    let inverse = |value: Complex| Complex::ONE.over(value);
    let half = Complex::real(0.5);
    Some(match function {
        Function::Sin => x.sin(),
        Function::Cos => x.cos(),
        Function::Tan => defined(x.cos(), |cos| x.sin().over(cos))?,
        Function::Cot => defined(x.sin(), |sin| x.cos().over(sin))?,
        Function::Sec => defined(x.cos(), inverse)?,
        Function::Csc => defined(x.sin(), inverse)?,
        Function::Asin => x.asin(),
        Function::Acos => x.acos(),
        Function::Atan => x.atan(),
        Function::Acot => inverse(x).atan(),
        Function::Asec => inverse(x).acos(),
        Function::Acsc => inverse(x).asin(),
        Function::Sinh => (x.exp() - (-x).exp()) * half,
        Function::Cosh => (x.exp() + (-x).exp()) * half,
        Function::Tanh => (x.exp() - (-x).exp()).over(x.exp() + (-x).exp()),
        Function::Asinh => (x + (x * x + Complex::ONE).sqrt()).ln(),
        Function::Acosh => (x + (x + Complex::ONE).sqrt() * (x - Complex::ONE).sqrt()).ln(),
        Function::Atanh => ((Complex::ONE + x).ln() - (Complex::ONE - x).ln()) * half,
        Function::Ln => defined(x, Complex::ln)?,
        Function::Abs => Complex::real(x.abs()),
        Function::Floor => Complex::real(libm::floor(settled(x.as_real()?)?)),
        Function::Ceil => Complex::real(libm::ceil(settled(x.as_real()?)?)),
        Function::Factorial => factorial(x.as_real()?)?,
        Function::Binomial => {
            let (n, k) = (x.as_real()?, values[1].as_real()?);
            factorial(n)?.over(factorial(k)? * factorial(n - k)?)
        }
        Function::Min => {
            Complex::real(values.iter().try_fold(f64::INFINITY, |low, value| Some(low.min(value.as_real()?)))?)
        }
        Function::Max => {
            Complex::real(values.iter().try_fold(f64::NEG_INFINITY, |high, value| Some(high.max(value.as_real()?)))?)
        }
        Function::Mod => {
            let (a, b) = (x.as_real()?, values[1].as_real()?);
            if b == 0.0 {
                return None;
            }
            Complex::real(a - b * libm::floor(a / b))
        }
        Function::Gcd | Function::Lcm => {
            let mut total = whole(x)?;
            for value in &values[1..] {
                let other = whole(*value)?;
                let gcd = num_integer::gcd(total, other);
                total = if function == Function::Gcd { gcd } else { total.checked_mul(other)?.checked_div(gcd)? };
            }
            Complex::real(total as f64)
        }
        Function::Re => Complex::real(x.re),
        Function::Im => Complex::real(x.im),
        Function::Arg => Complex::real(x.arg()),
        Function::Det => return None,
    })
}

/// `f` of a value that is not zero.
fn defined(value: Complex, f: impl FnOnce(Complex) -> Complex) -> Option<Complex> {
    (value.abs() > 1e-15).then(|| f(value))
}

/// A value whose floor is certain, or which is whole.
fn settled(value: f64) -> Option<f64> {
    let nearest = libm::round(value);
    if value != nearest && (value - nearest).abs() < 1e-9 * value.abs().max(1.0) {
        return Some(nearest);
    }
    (value.abs() < 1e15).then_some(value)
}

fn whole(value: Complex) -> Option<i64> {
    let value = value.as_real()?;
    (value == libm::trunc(value) && value.abs() < 9e15).then_some(value.abs() as i64)
}

fn factorial(n: f64) -> Option<Complex> {
    if n < 0.0 && n == libm::trunc(n) || n > 170.0 {
        return None;
    }
    Some(Complex::real(libm::tgamma(n + 1.0)))
}

/// By elimination without pivots' growth in mind: matrices in answers are small.
fn determinant(rows: &[Vec<Node>], point: &mut Point, steps: &mut u32) -> Option<Complex> {
    let n = rows.len();
    if n > 8 || rows.iter().any(|row| row.len() != n) {
        return None;
    }
    let mut cells = Vec::new();
    for row in rows {
        let mut values = Vec::new();
        for node in row {
            values.push(step(node, point, steps)?);
        }
        cells.push(values);
    }
    let mut total = Complex::ONE;
    for i in 0..n {
        let pivot = (i..n).max_by(|a, b| cells[*a][i].abs().total_cmp(&cells[*b][i].abs()))?;
        if cells[pivot][i].abs() == 0.0 {
            return Some(Complex::real(0.0));
        }
        if pivot != i {
            cells.swap(pivot, i);
            total = -total;
        }
        total = total * cells[i][i];
        for below in i + 1..n {
            let factor = cells[below][i].over(cells[i][i]);
            for column in i..n {
                cells[below][column] = cells[below][column] - factor * cells[i][column];
            }
        }
    }
    Some(total)
}

/// The logarithm of the size of a number that may be too large for floating point.
pub fn log_size(node: &Node) -> Option<f64> {
    match node {
        Node::Number { value, .. } => {
            let size = value.abs();
            let log = |n: &num_bigint::BigInt| {
                let shift = n.bits().saturating_sub(64);
                Some(libm::log((n >> shift).to_f64()?) + shift as f64 * std::f64::consts::LN_2)
            };
            if size == num_traits::Zero::zero() {
                return None;
            }
            Some(log(size.numer())? - log(size.denom())?)
        }
        Node::Mul(nodes) => nodes.iter().try_fold(0.0, |sum, node| Some(sum + log_size(node)?)),
        Node::Pow(base, exponent) => {
            let log = log_size(base)? * real(exponent)?;
            log.is_finite().then_some(log)
        }
        Node::Call(Function::Factorial, nodes) => {
            let n = real(nodes.first()?)?;
            (0.0..1e300).contains(&n).then(|| libm::lgamma(n + 1.0))
        }
        _ => {
            let value = real(node)?;
            (value.is_finite() && value != 0.0).then(|| libm::log(value.abs()))
        }
    }
}
