//! Exact canonical forms: quotients of polynomials in variables, roots of primes, constants and functions that stand for
//! themselves. Two expressions whose difference is zero in this form are equal for certain.
//!
//! A monomial is a product of generators with rational exponents. Roots of different primes are linearly independent over
//! the rationals (Besicovitch, "On the linear independence of fractional powers of integers", 1940), so that a number made
//! of rationals, roots and the imaginary unit is zero only if all its coefficients are.

mod functions;
mod polynomial;
mod powers;
mod text;

use num_rational::BigRational;
use num_traits::One;

use crate::tree::{Constant, Node};
use polynomial::{Exponent, Generator, Polynomial, reduced};
pub use text::name_text;

/// Bytes of the name of what is not looked into, at most.
const LONGEST_NAME: usize = 4000;

/// A quotient of polynomials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    above: Polynomial,
    below: Polynomial,
}

impl Canonical {
    /// The form of an expression; `None` for what is none, or too large.
    pub fn of(node: &Node) -> Option<Self> {
        Some(match node {
            Node::Number { value, .. } => Self::polynomial(Polynomial::constant(value.clone())),
            Node::Based { digits, .. } => {
                Self::polynomial(Polynomial::constant(BigRational::from_integer(digits.clone())))
            }
            Node::Percent(inner) => {
                let hundredth = Polynomial::constant(BigRational::new(1.into(), 100.into()));
                Self::of(inner)?.times(&Self::polynomial(hundredth))?
            }
            Node::Symbol(name) => Self::generator(Generator::Name(name.clone())),
            Node::Constant(constant) => Self::generator(match constant {
                Constant::Pi => Generator::Pi,
                Constant::E => Generator::E,
                Constant::I => Generator::I,
                Constant::Infinity => Generator::Opaque("oo".into()),
            }),
            Node::Add(nodes) => {
                let mut sum = Self::polynomial(Polynomial::default());
                for node in nodes {
                    sum = sum.plus(&Self::of(node)?)?;
                }
                sum
            }
            Node::Mul(nodes) => {
                let mut product = Self::polynomial(Polynomial::constant(BigRational::one()));
                for node in nodes {
                    product = product.times(&Self::of(node)?)?;
                }
                product
            }
            Node::Pow(base, exponent) => Self::of(base)?.power(base, exponent)?,
            Node::Call(function, nodes) => Self::call(*function, nodes)?,
            Node::Apply(name, nodes) => Self::opaque(name, nodes)?,
            Node::Series { is_product, variable, parts } => {
                let sign = if *is_product { "prod" } else { "sum" };
                let [from, to, body] = [Self::of(&parts[0])?, Self::of(&parts[1])?, Self::of(&parts[2])?];
                let (from, to, body) = (from.print(), to.print(), body.print());
                Self::named(format!("(\\{sign}_{{{variable}={from}}}^{{{to}}} ({body}))"))?
            }
            Node::Opaque(name, nodes) => Self::opaque(name, nodes)?,
            _ => return None,
        })
    }

    fn polynomial(above: Polynomial) -> Self {
        Self { above, below: Polynomial::constant(BigRational::one()) }
    }

    fn generator(generator: Generator) -> Self {
        Self::polynomial(Polynomial::generator(generator))
    }

    fn opaque(name: &str, nodes: &[Node]) -> Option<Self> {
        let mut text = format!("{name}(");
        for (i, node) in nodes.iter().enumerate() {
            if i > 0 {
                text.push_str(", ");
            }
            text.push_str(&Self::of(node)?.print());
        }
        text.push(')');
        Self::named(text)
    }

    /// Something that is not looked into, by its text.
    fn named(text: String) -> Option<Self> {
        (text.len() < LONGEST_NAME).then(|| Self::generator(Generator::Opaque(text)))
    }

    /// A power that is not looked into.
    fn opaque_power(base: &Node, exponent: &Node) -> Option<Self> {
        Self::named(format!("(({})^({}))", Self::of(base)?.print(), Self::of(exponent)?.print()))
    }

    fn negated(&self) -> Option<Self> {
        self.times(&Self::polynomial(Polynomial::constant(-BigRational::one())))
    }

    /// The value if it is rational.
    pub fn as_rational(&self) -> Option<BigRational> {
        if !self.below.is_one() {
            return None;
        }
        self.above.as_rational()
    }

    /// Whether it is a real polynomial expression of numbers alone, and so equal to another only if its form is.
    pub fn is_decisive(&self) -> bool {
        let known = |polynomial: &Polynomial| {
            polynomial.0.keys().flatten().all(|(generator, exponent)| match generator {
                Generator::Name(_) => exponent.is_integer(),
                Generator::Pi => exponent.is_integer(),
                Generator::I => true,
                // Trial division found all factors of what is below the square of its bound.
                Generator::Prime(prime) => prime.bits() <= 22,
                Generator::E | Generator::Opaque(_) => false,
            })
        };
        known(&self.above) && known(&self.below)
    }

    /// Whether `self - other` is zero; `None` if the products are too large.
    pub fn equals(&self, other: &Self) -> Option<bool> {
        if self.below == other.below {
            return Some(self.above == other.above);
        }
        Some(self.above.times(&other.below)? == other.above.times(&self.below)?)
    }

    fn plus(self, other: &Self) -> Option<Self> {
        if self.below == other.below {
            return Some(Self { above: self.above.plus(&other.above)?, below: self.below });
        }
        let above = self.above.times(&other.below)?.plus(&other.above.times(&self.below)?)?;
        Self::quotient(above, self.below.times(&other.below)?)
    }

    fn times(&self, other: &Self) -> Option<Self> {
        let above = self.above.times(&other.above)?;
        if self.below.is_one() && other.below.is_one() {
            return Some(Self { above, below: self.below.clone() });
        }
        Self::quotient(above, self.below.times(&other.below)?)
    }

    /// A quotient whose denominator is 1 where it was a single term, and has the leading coefficient 1 otherwise.
    fn quotient(above: Polynomial, below: Polynomial) -> Option<Self> {
        if below.0.is_empty() {
            return None;
        }
        if let Some((monomial, coefficient)) = below.as_term() {
            let inverse = monomial
                .iter()
                .map(|(generator, exponent)| (generator.clone(), Exponent(-exponent.0, exponent.1)))
                .collect();
            let (monomial, coefficient) = reduced(inverse, coefficient.recip())?;
            return Some(Self::polynomial(above.times(&Polynomial::term(monomial, coefficient))?));
        }
        let lead = below.0.values().next_back()?.recip();
        let scale =
            |polynomial: Polynomial| Polynomial(polynomial.0.into_iter().map(|(m, c)| (m, c * &lead)).collect());
        let (above, below) = (scale(above), scale(below));
        if above == below {
            return Some(Self::polynomial(Polynomial::constant(BigRational::one())));
        }
        Some(Self { above, below })
    }
}
