//! Powers and roots.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive};

use super::Canonical;
use super::functions::cosine;
use super::polynomial::{Exponent, Generator, Polynomial, factors, reduced};
use crate::tree::Node;

impl Canonical {
    pub(super) fn power(self, base: &Node, exponent: &Node) -> Option<Self> {
        let exponent_form = Self::of(exponent)?;
        if let Some(power) = exponent_form.as_rational() {
            if power.is_integer() {
                return self.whole_power(power.numer()).or_else(|| Self::opaque_power(base, exponent));
            }
            if let Some(root) = self.root(&power) {
                return Some(root);
            }
            return Self::opaque_power(base, exponent);
        }
        // b^(c + r) = b^c b^r for a base that is positive.
        if exponent_form.below.is_one()
            && let Some(kind) = self.power_base()
        {
            let mut result = Self::polynomial(Polynomial::constant(BigRational::one()));
            for (monomial, coefficient) in &exponent_form.above.0 {
                let factor = if monomial.is_empty() {
                    self.clone().root_or_whole(coefficient)?
                } else if kind == "e"
                    && let [(Generator::I, _), (Generator::Pi, p)] | [(Generator::Pi, p), (Generator::I, _)] =
                        &monomial[..]
                    && *p == Exponent::ONE
                {
                    // Euler: e^(i pi q) = cos(pi q) + i sin(pi q)
                    let cos = cosine(coefficient)?;
                    let sin = cosine(&(BigRational::new(1.into(), 2.into()) - coefficient))?;
                    let i = Self::generator(Generator::I);
                    Self::polynomial(cos).plus(&Self::polynomial(sin).times(&i)?)?
                } else {
                    let inside = Self::polynomial(Polynomial::term(monomial.clone(), BigRational::one()));
                    let name = format!("{kind}^({})", inside.print());
                    let exponent = Exponent::of(coefficient)?;
                    Self::polynomial(Polynomial::term(vec![(Generator::Opaque(name), exponent)], BigRational::one()))
                };
                result = result.times(&factor)?;
            }
            return Some(result);
        }
        Self::opaque_power(base, exponent)
    }

    /// What a base of a power with a variable exponent is called, if it is a positive number.
    fn power_base(&self) -> Option<String> {
        if !self.below.is_one() {
            return None;
        }
        if let Some(value) = self.as_rational() {
            return (value.is_positive() && !value.is_one() && value.is_integer() && value.numer().bits() < 40)
                .then(|| value.to_string());
        }
        match self.above.as_term()? {
            (monomial, coefficient) if coefficient.is_one() => match &monomial[..] {
                [(Generator::E, exponent)] if *exponent == Exponent::ONE => Some("e".into()),
                [(Generator::Name(name), exponent)] if *exponent == Exponent::ONE => Some(name.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    fn root_or_whole(self, power: &BigRational) -> Option<Self> {
        if power.is_integer() { self.whole_power(power.numer()) } else { self.root(power) }
    }

    fn whole_power(self, exponent: &BigInt) -> Option<Self> {
        let size = exponent.abs().to_u32()?;
        let (above, below) = (self.above.power(size)?, self.below.power(size)?);
        if exponent.is_negative() { Self::quotient(below, above) } else { Self::quotient(above, below) }
    }

    /// A power that is not whole, of a single term.
    fn root(&self, power: &BigRational) -> Option<Self> {
        if !self.below.is_one() {
            return None;
        }
        if self.above.0.is_empty() {
            return power.is_positive().then(|| self.clone());
        }
        let (monomial, coefficient) = self.above.as_term()?;
        let exponent = Exponent::of(power)?;
        let mut result: Vec<(Generator, Exponent)> = Vec::new();
        for (generator, inner) in monomial {
            // (x^2)^(1/2) is not x.
            let may = match generator {
                Generator::Pi | Generator::E | Generator::Prime(_) => true,
                Generator::I => false,
                Generator::Name(_) | Generator::Opaque(_) => *inner == Exponent::ONE && monomial.len() == 1,
            };
            if !may {
                return None;
            }
            result.push((generator.clone(), inner.times(exponent)?));
        }
        let mut total = Self::polynomial(Polynomial::constant(BigRational::one()));
        let (monomial, one) = reduced(result, BigRational::one())?;
        total = total.times(&Self::polynomial(Polynomial::term(monomial, one)))?;
        if coefficient.is_negative() {
            if exponent.1 == 2 {
                // (-1)^(n/2) = i^n
                let i = vec![(Generator::I, Exponent(exponent.0, 1))];
                let (monomial, sign) = reduced(i, BigRational::one())?;
                total = total.times(&Self::polynomial(Polynomial::term(monomial, sign)))?;
            } else if exponent.1 % 2 == 1 {
                if exponent.0 % 2 != 0 {
                    total = total.times(&Self::polynomial(Polynomial::constant(-BigRational::one())))?;
                }
            } else {
                return None;
            }
        }
        let mut primes: BTreeMap<BigInt, i64> = BTreeMap::new();
        for (part, sign) in [(coefficient.numer().abs(), 1), (coefficient.denom().clone(), -1)] {
            for (prime, count) in factors(&part)? {
                *primes.entry(prime).or_default() += sign * count;
            }
        }
        for (prime, count) in primes {
            let power = vec![(Generator::Prime(prime), Exponent(count, 1).times(exponent)?)];
            let (monomial, scale) = reduced(power, BigRational::one())?;
            total = total.times(&Self::polynomial(Polynomial::term(monomial, scale)))?;
        }
        Some(total)
    }
}
