//! Exact numbers: what a decimal or a fraction stands for, whatever its form.

use std::fmt;

/// Digits of a number that is read. A longer one can't equal a reference that is no longer than this.
const DIGITS: usize = 37;

/// A fraction in lowest terms; the denominator is positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rational {
    numerator: i128,
    denominator: i128,
}

fn gcd(mut a: i128, mut b: i128) -> i128 {
    // 128-bit division is software: most numbers are short.
    if let (Ok(mut a), Ok(mut b)) = (u64::try_from(a.unsigned_abs()), u64::try_from(b.unsigned_abs())) {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        return i128::from(a);
    }
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.abs()
}

fn power_of_ten(exponent: usize) -> i128 {
    10_i128.pow(exponent as u32)
}

impl Rational {
    fn new(numerator: i128, denominator: i128) -> Self {
        let common = gcd(numerator, denominator);
        if common == 1 {
            return Self { numerator, denominator };
        }
        Self { numerator: numerator / common, denominator: denominator / common }
    }

    /// The number with these digits before and after the point; `None` if there are too many.
    pub fn from_decimal(whole: &[u8], fraction: &[u8]) -> Option<Self> {
        let whole = &whole[whole.iter().take_while(|digit| **digit == b'0').count()..];
        let zeros = fraction.iter().rev().take_while(|digit| **digit == b'0').count();
        let fraction = &fraction[..fraction.len() - zeros];
        if whole.len() + fraction.len() > DIGITS {
            return None;
        }
        let digits = whole.iter().chain(fraction);
        let numerator = digits.fold(0, |n, digit| n * 10 + i128::from(digit - b'0'));
        if fraction.is_empty() {
            return Some(Self { numerator, denominator: 1 });
        }
        Some(Self::new(numerator, power_of_ten(fraction.len())))
    }

    /// The decimal that was written where a float was read, if it had at most 15 digits: the first that rounds to it.
    ///
    /// std's formatting would do the same with 20 KB of tables.
    fn from_float(float: f64) -> Option<Self> {
        let mut scale = 1.0;
        for places in 0..=15 {
            let scaled = float * scale;
            if scaled > 1e15 {
                return None;
            }
            let nearest = (scaled + 0.5) as i128; // towards zero, so to the nearest for what is not negative
            if nearest as f64 / scale == float {
                return Some(Self::new(nearest, power_of_ten(places)));
            }
            scale *= 10.0;
        }
        None
    }

    /// The number with its sign turned if `is_negative`.
    pub fn signed(self, is_negative: bool) -> Self {
        Self { numerator: if is_negative { -self.numerator } else { self.numerator }, ..self }
    }

    /// The quotient; `None` if `other` is zero or the quotient too long.
    pub fn over(self, other: Self) -> Option<Self> {
        if other.numerator == 0 {
            return None;
        }
        let numerator = self.numerator.checked_mul(other.denominator)?.checked_mul(other.numerator.signum())?;
        Some(Self::new(numerator, self.denominator.checked_mul(other.numerator.abs())?))
    }

    /// Whether the difference is at most `tolerance`; exactly equal for 0.
    pub fn is_within(self, other: Self, tolerance: f64) -> bool {
        if self == other {
            return true;
        }
        if tolerance == 0.0 {
            return false;
        }
        self.exactly_within(other, tolerance)
            .unwrap_or_else(|| (self.approximate() - other.approximate()).abs() <= tolerance)
    }

    /// The same without rounding, where products are not too long.
    fn exactly_within(self, other: Self, tolerance: f64) -> Option<bool> {
        let tolerance = Self::from_float(tolerance)?;
        let a = self.numerator.checked_mul(other.denominator)?;
        let b = other.numerator.checked_mul(self.denominator)?;
        let difference = a.checked_sub(b)?.checked_abs()?.checked_mul(tolerance.denominator)?;
        let both = self.denominator.checked_mul(other.denominator)?;
        Some(difference <= tolerance.numerator.checked_mul(both)?)
    }

    fn approximate(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

impl fmt::Display for Rational {
    /// An integer, a decimal without trailing zeros where it ends, or a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { numerator, denominator } = *self;
        if denominator == 1 {
            return write!(f, "{numerator}");
        }
        // A decimal ends after so many places if they make the denominator whole.
        let places = (1..=DIGITS).find(|places| power_of_ten(*places) % denominator == 0);
        let scaled = places.and_then(|places| numerator.checked_mul(power_of_ten(places) / denominator));
        let (Some(places), Some(scaled)) = (places, scaled) else { return write!(f, "{numerator}/{denominator}") };
        let sign = if scaled < 0 { "-" } else { "" };
        let (whole, fraction) = (scaled.abs() / power_of_ten(places), scaled.abs() % power_of_ten(places));
        write!(f, "{sign}{whole}.{fraction:0>places$}")
    }
}
