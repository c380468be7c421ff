//! Functions at arguments where their value is exact; elsewhere they stand for themselves.

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::Canonical;
use super::polynomial::{Exponent, Generator, Monomial, Polynomial, factors};
use crate::numeric;
use crate::tree::{Function, Node};

impl Canonical {
    pub(super) fn call(function: Function, nodes: &[Node]) -> Option<Self> {
        let opaque = || Self::opaque(function.name(), nodes);
        let integer =
            |i: usize| Self::of(nodes.get(i)?)?.as_rational().filter(BigRational::is_integer).map(|n| n.to_integer());
        let rational = |value: BigInt| Self::polynomial(Polynomial::constant(BigRational::from_integer(value)));
        match function {
            Function::Sin | Function::Cos | Function::Tan => {
                let form = Self::of(nodes.first()?)?;
                let Some(share) = share_of_pi(&form) else { return opaque() };
                let shifted = BigRational::new(1.into(), 2.into()) - &share;
                let exact = match function {
                    Function::Cos => cosine(&share).map(Self::polynomial),
                    Function::Sin => cosine(&shifted).map(Self::polynomial),
                    _ => {
                        let (sin, cos) = (cosine(&shifted), cosine(&share));
                        if let (Some(sin), Some(cos)) = (sin, cos) { Self::quotient(sin, cos) } else { None }
                    }
                };
                exact.map_or_else(opaque, Some)
            }
            Function::Cot | Function::Sec | Function::Csc => {
                let over = |above: Function, below: Function| {
                    let call = |function| Node::Call(function, nodes.to_vec());
                    Self::of(&call(above).over(call(below)))
                };
                match function {
                    Function::Cot => over(Function::Cos, Function::Sin),
                    Function::Sec => Self::of(&Node::integer(1).over(Node::Call(Function::Cos, nodes.to_vec()))),
                    _ => Self::of(&Node::integer(1).over(Node::Call(Function::Sin, nodes.to_vec()))),
                }
            }
            Function::Ln => Self::logarithm(nodes.first()?),
            Function::Abs => {
                let form = Self::of(nodes.first()?)?;
                if let Some(value) = form.as_rational() {
                    return Some(Self::polynomial(Polynomial::constant(value.abs())));
                }
                match numeric::real(nodes.first()?) {
                    Some(value) if value > 1e-9 => Some(form),
                    Some(value) if value < -1e-9 => form.negated(),
                    // |a - b| = |b - a|
                    _ => {
                        let is_negative = form.above.0.values().next_back().is_some_and(Signed::is_negative);
                        let inside = if is_negative { form.negated()? } else { form };
                        Self::named(format!("abs({})", inside.print()))
                    }
                }
            }
            Function::Min | Function::Max => {
                let mut texts = nodes.iter().map(|node| Some(Self::of(node)?.print())).collect::<Option<Vec<_>>>()?;
                texts.sort();
                texts.dedup();
                Self::named(format!("{}({})", function.name(), texts.join(", ")))
            }
            Function::Floor | Function::Ceil => match Self::of(nodes.first()?)?.as_rational() {
                Some(value) => {
                    let whole = if function == Function::Floor { value.floor() } else { value.ceil() };
                    Some(Self::polynomial(Polynomial::constant(whole)))
                }
                None => match numeric::real(nodes.first()?) {
                    Some(value) if value.abs() < 1e14 && (value - libm::round(value)).abs() > 1e-6 => {
                        let whole = if function == Function::Floor { libm::floor(value) } else { libm::ceil(value) };
                        Some(rational(BigInt::from(whole as i64)))
                    }
                    _ => opaque(),
                },
            },
            Function::Factorial => match integer(0).and_then(|n| n.to_u32()) {
                Some(n) if n <= 800 => Some(rational((1..=n).map(BigInt::from).product())),
                _ => opaque(),
            },
            Function::Binomial => match (integer(0).and_then(|n| n.to_i64()), integer(1).and_then(|k| k.to_i64())) {
                (Some(n), Some(k)) if (0..=4000).contains(&n) => {
                    if k < 0 || k > n {
                        return Some(rational(BigInt::zero()));
                    }
                    let k = k.min(n - k);
                    let mut result = BigInt::one();
                    for i in 0..k {
                        result = result * BigInt::from(n - i) / BigInt::from(i + 1);
                    }
                    Some(rational(result))
                }
                _ => opaque(),
            },
            Function::Gcd | Function::Lcm => {
                let mut total = integer(0)?;
                for i in 1..nodes.len() {
                    let other = integer(i)?;
                    total = if function == Function::Gcd { total.gcd(&other) } else { total.lcm(&other) };
                }
                Some(rational(total))
            }
            Function::Mod => match (integer(0), integer(1)) {
                (Some(a), Some(b)) if !b.is_zero() => Some(rational(a.mod_floor(&b))),
                _ => opaque(),
            },
            Function::Det => {
                let [Node::Matrix(rows)] = nodes else { return None };
                let cells =
                    rows.iter().map(|row| row.iter().map(Self::of).collect()).collect::<Option<Vec<Vec<_>>>>()?;
                Self::determinant(&cells)
            }
            _ => opaque(),
        }
    }

    fn determinant(rows: &[Vec<Self>]) -> Option<Self> {
        let n = rows.len();
        if n == 0 || n > 5 || rows.iter().any(|row| row.len() != n) {
            return None;
        }
        if n == 1 {
            return Some(rows[0][0].clone());
        }
        let mut total = Self::polynomial(Polynomial::default());
        for column in 0..n {
            let minor: Vec<Vec<Self>> = rows[1..]
                .iter()
                .map(|row| row.iter().enumerate().filter(|(i, _)| *i != column).map(|(_, cell)| cell.clone()).collect())
                .collect();
            let sign = if column % 2 == 0 { BigRational::one() } else { -BigRational::one() };
            let term = rows[0][column].times(&Self::determinant(&minor)?)?;
            total = total.plus(&term.times(&Self::polynomial(Polynomial::constant(sign)))?)?;
        }
        Some(total)
    }

    /// `ln` of a positive rational is a sum over its primes, that of a power a multiple.
    fn logarithm(node: &Node) -> Option<Self> {
        let form = Self::of(node)?;
        let opaque = || Self::opaque("ln", std::slice::from_ref(node));
        let Some((monomial, coefficient)) = form.above.as_term() else { return opaque() };
        if !form.below.is_one() || !coefficient.is_positive() {
            return opaque();
        }
        let mut total = Polynomial::default();
        for (generator, exponent) in monomial {
            let scale = BigRational::new(exponent.0.into(), exponent.1.into());
            match generator {
                Generator::E => total.add_term(Vec::new(), scale),
                Generator::Prime(prime) => total.add_term(log_of(&prime.to_string()), scale),
                Generator::Pi => total.add_term(log_of("pi"), scale),
                // ln(x^2) is not 2 ln(x).
                Generator::Name(name) if *exponent == Exponent::ONE && monomial.len() == 1 => {
                    total.add_term(log_of(name), BigRational::one());
                }
                Generator::Name(_) | Generator::Opaque(_) | Generator::I => return opaque(),
            }
        }
        for (part, sign) in [(coefficient.numer(), 1), (coefficient.denom(), -1)] {
            for (prime, count) in factors(part)? {
                total.add_term(log_of(&prime.to_string()), BigRational::from_integer((sign * count).into()));
            }
        }
        Some(Self::polynomial(total))
    }
}

fn log_of(name: &str) -> Monomial {
    vec![(Generator::Opaque(format!("ln({name})")), Exponent::ONE)]
}

/// The rational multiple of pi that a form is.
fn share_of_pi(form: &Canonical) -> Option<BigRational> {
    if !form.below.is_one() {
        return None;
    }
    if form.above.0.is_empty() {
        return Some(BigRational::zero());
    }
    match form.above.as_term()? {
        (monomial, coefficient) if monomial[..] == [(Generator::Pi, Exponent::ONE)] => Some(coefficient.clone()),
        _ => None,
    }
}

/// `cos(share * pi)` for multiples of a twelfth.
pub(super) fn cosine(share: &BigRational) -> Option<Polynomial> {
    let twelfths = (share * BigRational::from_integer(12.into())).to_integer_exact()?.mod_floor(&24.into()).to_i64()?;
    // cos(2 pi - x) = cos(x), cos(pi - x) = -cos(x)
    let folded = if twelfths > 12 { 24 - twelfths } else { twelfths };
    let (angle, sign) = if folded > 6 { (12 - folded, -1) } else { (folded, 1) };
    let root = |primes: &[i64], above: i64, below: i64| {
        let monomial = primes.iter().map(|prime| (Generator::Prime((*prime).into()), Exponent(1, 2))).collect();
        Polynomial::term(monomial, BigRational::new((sign * above).into(), below.into()))
    };
    match angle {
        0 => Some(root(&[], 1, 1)),
        1 => root(&[2, 3], 1, 4).plus(&root(&[2], 1, 4)),
        2 => Some(root(&[3], 1, 2)),
        3 => Some(root(&[2], 1, 2)),
        4 => Some(root(&[], 1, 2)),
        5 => root(&[2, 3], 1, 4).plus(&root(&[2], -1, 4)),
        _ => Some(Polynomial::default()),
    }
}

trait Exact {
    fn to_integer_exact(&self) -> Option<BigInt>;
}

impl Exact for BigRational {
    fn to_integer_exact(&self) -> Option<BigInt> {
        self.is_integer().then(|| self.to_integer())
    }
}
