//! Polynomials with rational coefficients. A monomial is a product of generators with rational exponents.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Bits of a number at most; what is larger stays as it was written.
const BITS: u64 = 8192;
/// Terms of a polynomial at most.
const TERMS: usize = 300;

/// What a monomial is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generator {
    /// A variable.
    Name(String),
    /// Something that is not looked into, by its printed form.
    Opaque(String),
    /// The circle's constant.
    Pi,
    /// Euler's number.
    E,
    /// The imaginary unit; its exponent is 1.
    I,
    /// A prime; its exponent is between 0 and 1.
    Prime(BigInt),
}

/// A reduced fraction of small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exponent(pub(super) i64, pub(super) i64);

impl Exponent {
    pub(super) const ONE: Self = Self(1, 1);

    pub(super) fn new(above: i64, below: i64) -> Self {
        let gcd = above.gcd(&below).max(1);
        Self(above / gcd, below / gcd)
    }

    pub(super) fn of(value: &BigRational) -> Option<Self> {
        let small = |n: &BigInt| n.to_i64().filter(|n| n.abs() < 1 << 30);
        Some(Self(small(value.numer())?, small(value.denom())?))
    }

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let above = self.0.checked_mul(other.1)?.checked_add(other.0.checked_mul(self.1)?)?;
        Some(Self::new(above, self.1.checked_mul(other.1)?)).filter(|sum| sum.0.abs() < 1 << 30 && sum.1 < 1 << 30)
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        Some(Self::new(self.0.checked_mul(other.0)?, self.1.checked_mul(other.1)?))
            .filter(|product| product.0.abs() < 1 << 30 && product.1 < 1 << 30)
    }

    pub(super) fn is_integer(self) -> bool {
        self.1 == 1
    }
}

pub(super) type Monomial = Vec<(Generator, Exponent)>;

/// A sum of monomials with coefficients that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polynomial(pub(super) BTreeMap<Monomial, BigRational>);

impl Polynomial {
    pub(super) fn constant(value: BigRational) -> Self {
        Self::term(Vec::new(), value)
    }

    pub(super) fn term(monomial: Monomial, coefficient: BigRational) -> Self {
        let mut terms = BTreeMap::new();
        if !coefficient.is_zero() {
            terms.insert(monomial, coefficient);
        }
        Self(terms)
    }

    pub(super) fn generator(generator: Generator) -> Self {
        Self::term(vec![(generator, Exponent::ONE)], BigRational::one())
    }

    pub(super) fn is_one(&self) -> bool {
        self.as_rational().is_some_and(|value| value.is_one())
    }

    pub(super) fn as_rational(&self) -> Option<BigRational> {
        match self.0.len() {
            0 => Some(BigRational::zero()),
            1 => self.0.get(&Vec::new()).cloned(),
            _ => None,
        }
    }

    pub(super) fn as_term(&self) -> Option<(&Monomial, &BigRational)> {
        (self.0.len() == 1).then(|| self.0.iter().next())?
    }

    pub(super) fn plus(mut self, other: &Self) -> Option<Self> {
        for (monomial, coefficient) in &other.0 {
            self.add_term(monomial.clone(), coefficient.clone());
        }
        (self.0.len() <= TERMS).then_some(self)
    }

    pub(super) fn add_term(&mut self, monomial: Monomial, coefficient: BigRational) {
        match self.0.entry(monomial) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                if !coefficient.is_zero() {
                    entry.insert(coefficient);
                }
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let sum = entry.get() + coefficient;
                if sum.is_zero() {
                    entry.remove();
                } else {
                    *entry.get_mut() = sum;
                }
            }
        }
    }

    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        if self.0.len() * other.0.len() > 20 * TERMS {
            return None;
        }
        let mut product = Self::default();
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let (monomial, coefficient) = multiply(a, b, x * y)?;
                product.add_term(monomial, coefficient);
            }
        }
        let is_small = product.0.len() <= TERMS && product.0.values().all(is_small);
        is_small.then_some(product)
    }

    pub(super) fn power(&self, exponent: u32) -> Option<Self> {
        if let Some((monomial, coefficient)) = self.as_term() {
            let exponent = i32::try_from(exponent).ok()?;
            let coefficient = rational_power(coefficient, exponent)?;
            let raised = monomial
                .iter()
                .map(|(generator, power)| Some((generator.clone(), power.times(Exponent(i64::from(exponent), 1))?)))
                .collect::<Option<Monomial>>()?;
            let (monomial, coefficient) = reduced(raised, coefficient)?;
            return Some(Self::term(monomial, coefficient));
        }
        if exponent > 24 {
            return None;
        }
        let mut result = Self::constant(BigRational::one());
        for _ in 0..exponent {
            result = result.times(self)?;
        }
        Some(result)
    }
}

/// The product of two monomials with its coefficient.
fn multiply(a: &Monomial, b: &Monomial, coefficient: BigRational) -> Option<(Monomial, BigRational)> {
    if a.is_empty() {
        return Some((b.clone(), coefficient));
    }
    if b.is_empty() {
        return Some((a.clone(), coefficient));
    }
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let order = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => x.0.cmp(&y.0),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Less => {
                merged.push(a[i].clone());
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                merged.push(b[j].clone());
                j += 1;
            }
            std::cmp::Ordering::Equal => {
                merged.push((a[i].0.clone(), a[i].1.plus(b[j].1)?));
                i += 1;
                j += 1;
            }
        }
    }
    reduced(merged, coefficient)
}

/// Brings exponents of primes between 0 and 1, and that of the imaginary unit to 1.
pub(super) fn reduced(monomial: Monomial, mut coefficient: BigRational) -> Option<(Monomial, BigRational)> {
    let mut kept = Vec::with_capacity(monomial.len());
    for (generator, exponent) in monomial {
        if exponent.0 == 0 {
            continue;
        }
        match &generator {
            Generator::Prime(prime) => {
                let whole = exponent.0.div_euclid(exponent.1);
                if whole != 0 {
                    let power = rational_power(&BigRational::from_integer(prime.clone()), i32::try_from(whole).ok()?)?;
                    coefficient *= power;
                }
                let rest = exponent.0.rem_euclid(exponent.1);
                if rest != 0 {
                    kept.push((generator, Exponent::new(rest, exponent.1)));
                }
            }
            Generator::I if exponent.is_integer() => {
                let turns = exponent.0.rem_euclid(4);
                if turns >= 2 {
                    coefficient = -coefficient;
                }
                if turns % 2 == 1 {
                    kept.push((generator, Exponent::ONE));
                }
            }
            _ => kept.push((generator, exponent)),
        }
    }
    Some((kept, coefficient))
}

fn is_small(value: &BigRational) -> bool {
    value.numer().bits() <= BITS && value.denom().bits() <= BITS
}

/// `base^exponent`, if that is not too large.
fn rational_power(base: &BigRational, exponent: i32) -> Option<BigRational> {
    if base.is_zero() && exponent < 0 {
        return None;
    }
    if base.abs().is_one() {
        return Some(if exponent % 2 == 0 { BigRational::one() } else { base.clone() });
    }
    let bits = base.numer().bits().max(base.denom().bits());
    if bits.checked_mul(u64::from(exponent.unsigned_abs()))? > BITS {
        return None;
    }
    Some(num_traits::Pow::pow(base, exponent))
}

/// Primes with their multiplicities, by trial division; what is left may be no prime if it is large.
pub(super) fn factors(n: &BigInt) -> Option<Vec<(BigInt, i64)>> {
    if !n.is_positive() || n.bits() > 512 {
        return None;
    }
    let mut found = Vec::new();
    let Some(mut small) = n.to_u64() else {
        // Of large numbers only small primes are taken out.
        let mut rest = n.clone();
        for prime in 2_u32..200 {
            let mut count = 0;
            while (&rest % prime).is_zero() {
                rest /= prime;
                count += 1;
            }
            if count > 0 {
                found.push((prime.into(), count));
            }
        }
        if let Some(small) = rest.to_u64() {
            found.extend(factors(&small.into())?);
        } else {
            found.push((rest, 1));
        }
        return Some(found);
    };
    let mut prime = 2_u64;
    while prime <= 2048 && prime * prime <= small {
        let mut count = 0;
        while small % prime == 0 {
            small /= prime;
            count += 1;
        }
        if count > 0 {
            found.push((prime.into(), count));
        }
        prime += if prime == 2 { 1 } else { 2 };
    }
    if small > 1 {
        // A square of a large prime.
        let root = num_integer::sqrt(small);
        if root * root == small { found.push((root.into(), 2)) } else { found.push((small.into(), 1)) }
    }
    Some(found)
}
