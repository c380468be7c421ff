//! Exact canonical forms: quotients of polynomials in variables, roots of primes, constants and functions that stand for
//! themselves. Two expressions whose difference is zero in this form are equal for certain.
//!
//! A monomial is a product of generators with rational exponents. Roots of different primes are linearly independent over
//! the rationals (Besicovitch, "On the linear independence of fractional powers of integers", 1940), so that a number made
//! of rationals, roots and the imaginary unit is zero only if all its coefficients are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use crate::numeric;
use crate::tree::{Constant, Function, Node};

/// Bits of a number at most; what is larger stays as it was written.
const BITS: u64 = 8192;
/// Terms of a polynomial at most.
const TERMS: usize = 300;
/// Bytes of the name of what is not looked into, at most.
const LONGEST_NAME: usize = 4000;

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
pub struct Exponent(i64, i64);

impl Exponent {
    const ONE: Self = Self(1, 1);

    fn new(above: i64, below: i64) -> Self {
        let gcd = above.gcd(&below).max(1);
        Self(above / gcd, below / gcd)
    }

    fn of(value: &BigRational) -> Option<Self> {
        let small = |n: &BigInt| n.to_i64().filter(|n| n.abs() < 1 << 30);
        Some(Self(small(value.numer())?, small(value.denom())?))
    }

    fn plus(self, other: Self) -> Option<Self> {
        let above = self.0.checked_mul(other.1)?.checked_add(other.0.checked_mul(self.1)?)?;
        Some(Self::new(above, self.1.checked_mul(other.1)?)).filter(|sum| sum.0.abs() < 1 << 30 && sum.1 < 1 << 30)
    }

    fn times(self, other: Self) -> Option<Self> {
        Some(Self::new(self.0.checked_mul(other.0)?, self.1.checked_mul(other.1)?))
            .filter(|product| product.0.abs() < 1 << 30 && product.1 < 1 << 30)
    }

    fn is_integer(self) -> bool {
        self.1 == 1
    }
}

type Monomial = Vec<(Generator, Exponent)>;

/// A sum of monomials with coefficients that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polynomial(BTreeMap<Monomial, BigRational>);

/// A quotient of polynomials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    above: Polynomial,
    below: Polynomial,
}

impl Polynomial {
    fn constant(value: BigRational) -> Self {
        Self::term(Vec::new(), value)
    }

    fn term(monomial: Monomial, coefficient: BigRational) -> Self {
        let mut terms = BTreeMap::new();
        if !coefficient.is_zero() {
            terms.insert(monomial, coefficient);
        }
        Self(terms)
    }

    fn generator(generator: Generator) -> Self {
        Self::term(vec![(generator, Exponent::ONE)], BigRational::one())
    }

    fn is_one(&self) -> bool {
        self.as_rational().is_some_and(|value| value.is_one())
    }

    fn as_rational(&self) -> Option<BigRational> {
        match self.0.len() {
            0 => Some(BigRational::zero()),
            1 => self.0.get(&Vec::new()).cloned(),
            _ => None,
        }
    }

    fn as_term(&self) -> Option<(&Monomial, &BigRational)> {
        (self.0.len() == 1).then(|| self.0.iter().next())?
    }

    fn plus(mut self, other: &Self) -> Option<Self> {
        for (monomial, coefficient) in &other.0 {
            self.add_term(monomial.clone(), coefficient.clone());
        }
        (self.0.len() <= TERMS).then_some(self)
    }

    fn add_term(&mut self, monomial: Monomial, coefficient: BigRational) {
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

    fn times(&self, other: &Self) -> Option<Self> {
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

    fn power(&self, exponent: u32) -> Option<Self> {
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
fn reduced(monomial: Monomial, mut coefficient: BigRational) -> Option<(Monomial, BigRational)> {
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

    fn power(self, base: &Node, exponent: &Node) -> Option<Self> {
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

    fn call(function: Function, nodes: &[Node]) -> Option<Self> {
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

    /// The form as text that parses to the same form.
    pub fn print(&self) -> String {
        let mut text = String::new();
        if self.below.is_one() {
            print_polynomial(&self.above, &mut text);
        } else {
            text.push('(');
            print_polynomial(&self.above, &mut text);
            text.push_str(")/(");
            print_polynomial(&self.below, &mut text);
            text.push(')');
        }
        text
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
fn cosine(share: &BigRational) -> Option<Polynomial> {
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

/// Primes with their multiplicities, by trial division; what is left may be no prime if it is large.
fn factors(n: &BigInt) -> Option<Vec<(BigInt, i64)>> {
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

fn print_polynomial(polynomial: &Polynomial, text: &mut String) {
    if polynomial.0.is_empty() {
        text.push('0');
        return;
    }
    // Terms with variables first, as they are usually written.
    for (i, (monomial, coefficient)) in polynomial.0.iter().rev().enumerate() {
        let is_negative = coefficient.is_negative();
        if is_negative {
            text.push_str(if i == 0 { "-" } else { " - " });
        } else if i > 0 {
            text.push_str(" + ");
        }
        let size = coefficient.abs();
        if monomial.is_empty() {
            let _ = write!(text, "{size}");
            continue;
        }
        if !size.numer().is_one() {
            let _ = write!(text, "{}*", size.numer());
        }
        print_monomial(monomial, text);
        if !size.denom().is_one() {
            let _ = write!(text, "/{}", size.denom());
        }
    }
}

fn print_monomial(monomial: &Monomial, text: &mut String) {
    for (i, (generator, exponent)) in monomial.iter().enumerate() {
        if i > 0 {
            text.push('*');
        }
        match generator {
            Generator::Prime(prime) if *exponent == Exponent(1, 2) => {
                let _ = write!(text, "sqrt({prime})");
                continue;
            }
            Generator::Prime(prime) => {
                let _ = write!(text, "{prime}");
            }
            Generator::Name(name) => text.push_str(&name_text(name)),
            Generator::Opaque(name) => text.push_str(name),
            Generator::Pi => text.push_str("pi"),
            Generator::E => text.push('e'),
            Generator::I => text.push('i'),
        }
        if *exponent != Exponent::ONE {
            if exponent.is_integer() && exponent.0 > 0 {
                let _ = write!(text, "^{}", exponent.0);
            } else if exponent.is_integer() {
                let _ = write!(text, "^({})", exponent.0);
            } else {
                let _ = write!(text, "^({}/{})", exponent.0, exponent.1);
            }
        }
    }
}

/// A variable's name as the parser reads it.
pub fn name_text(name: &str) -> String {
    if let Some(letters) = name.strip_prefix("bar_") {
        return format!("\\overline{{{letters}}}");
    }
    let first = match name.strip_prefix('\\') {
        Some(command) => 1 + command.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(command.len()),
        None => name.chars().next().map_or(0, char::len_utf8),
    };
    let (letter, mark) = name.split_at(first);
    let is_mark = mark.is_empty()
        || mark.starts_with(['_', '\'']) && mark.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '\''));
    if name == "..." || is_mark && letter.len() != 1 + usize::from(letter == "\\") {
        return name.to_owned();
    }
    if is_mark && letter.chars().all(char::is_alphabetic) {
        return match mark.strip_prefix('_') {
            // More than one sign is a group.
            Some(below) if below.chars().count() > 1 => format!("{letter}_{{{below}}}"),
            _ => name.to_owned(),
        };
    }
    format!("\\text{{{name}}}")
}
