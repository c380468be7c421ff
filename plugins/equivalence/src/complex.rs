//! Complex numbers in floating point. Transcendental functions are the `libm` crate's, the same on every machine.

use std::ops::{Add, Mul, Neg, Sub};

/// `re + im i`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Complex {
    pub re: f64,
    pub im: f64,
}

impl Complex {
    pub const ONE: Self = Self::real(1.0);
    pub const I: Self = Self { re: 0.0, im: 1.0 };

    pub const fn real(re: f64) -> Self {
        Self { re, im: 0.0 }
    }

    /// The value if its imaginary part is only rounding.
    pub fn as_real(self) -> Option<f64> {
        (self.im == 0.0 || self.im.abs() <= 1e-12 * self.re.abs().max(1.0)).then_some(self.re)
    }

    pub fn is_finite(self) -> bool {
        self.re.is_finite() && self.im.is_finite()
    }

    pub fn abs(self) -> f64 {
        if self.im == 0.0 { self.re.abs() } else { libm::hypot(self.re, self.im) }
    }

    pub fn arg(self) -> f64 {
        libm::atan2(self.im, self.re)
    }

    pub fn over(self, below: Self) -> Self {
        if below.im == 0.0 {
            return Self { re: self.re / below.re, im: self.im / below.re };
        }
        let norm = below.re * below.re + below.im * below.im;
        Self {
            re: (self.re * below.re + self.im * below.im) / norm,
            im: (self.im * below.re - self.re * below.im) / norm,
        }
    }

    pub fn exp(self) -> Self {
        let scale = libm::exp(self.re);
        if self.im == 0.0 {
            return Self::real(scale);
        }
        Self { re: scale * libm::cos(self.im), im: scale * libm::sin(self.im) }
    }

    pub fn ln(self) -> Self {
        Self { re: libm::log(self.abs()), im: if self.im == 0.0 && self.re > 0.0 { 0.0 } else { self.arg() } }
    }

    pub fn sqrt(self) -> Self {
        if self.im == 0.0 {
            let root = libm::sqrt(self.re.abs());
            return if self.re < 0.0 { Self { re: 0.0, im: root } } else { Self::real(root) };
        }
        self.power(Self::real(0.5))
    }

    /// The principal value.
    pub fn power(self, exponent: Self) -> Self {
        if exponent.im == 0.0 {
            if exponent.re == 0.0 {
                return Self::ONE;
            }
            if self.im == 0.0 && (self.re >= 0.0 || exponent.re == libm::trunc(exponent.re)) {
                return Self::real(libm::pow(self.re, exponent.re));
            }
            if exponent.re == libm::trunc(exponent.re) && exponent.re.abs() <= 64.0 {
                let mut result = Self::ONE;
                for _ in 0..exponent.re.abs() as u32 {
                    result = result * self;
                }
                return if exponent.re < 0.0 { Self::ONE.over(result) } else { result };
            }
        }
        if self.re == 0.0 && self.im == 0.0 {
            return Self::real(if exponent.re > 0.0 { 0.0 } else { f64::NAN });
        }
        (self.ln() * exponent).exp()
    }

    pub fn sin(self) -> Self {
        if self.im == 0.0 {
            return Self::real(libm::sin(self.re));
        }
        Self { re: libm::sin(self.re) * libm::cosh(self.im), im: libm::cos(self.re) * libm::sinh(self.im) }
    }

    pub fn cos(self) -> Self {
        if self.im == 0.0 {
            return Self::real(libm::cos(self.re));
        }
        Self { re: libm::cos(self.re) * libm::cosh(self.im), im: -libm::sin(self.re) * libm::sinh(self.im) }
    }

    pub fn asin(self) -> Self {
        if self.im == 0.0 && self.re.abs() <= 1.0 {
            return Self::real(libm::asin(self.re));
        }
        // -i ln(iz + sqrt(1 - z^2))
        let inside = Self::I * self + (Self::ONE - self * self).sqrt();
        -(Self::I * inside.ln())
    }

    pub fn acos(self) -> Self {
        Self::real(std::f64::consts::FRAC_PI_2) - self.asin()
    }

    pub fn atan(self) -> Self {
        if self.im == 0.0 {
            return Self::real(libm::atan(self.re));
        }
        // (ln(1 + iz) - ln(1 - iz)) / 2i
        let (plus, minus) = ((Self::ONE + Self::I * self).ln(), (Self::ONE - Self::I * self).ln());
        (plus - minus).over(Self { re: 0.0, im: 2.0 })
    }
}

impl Add for Complex {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Mul for Complex {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        if self.im == 0.0 && other.im == 0.0 {
            return Self::real(self.re * other.re);
        }
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }
}

impl Neg for Complex {
    type Output = Self;
    fn neg(self) -> Self {
        Self { re: -self.re, im: -self.im }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(a: Complex, re: f64, im: f64) {
        assert!((a.re - re).abs() < 1e-12 && (a.im - im).abs() < 1e-12, "{a:?}");
    }

    #[test]
    fn functions_leave_the_real_line_on_the_principal_branch() {
        close(Complex::real(-4.0).sqrt(), 0.0, 2.0);
        close(Complex { re: 0.0, im: std::f64::consts::PI }.exp(), -1.0, 0.0);
        close(Complex::real(-1.0).ln(), 0.0, std::f64::consts::PI);
        close(Complex::I.power(Complex::real(2.0)), -1.0, 0.0);
        close(Complex::I.power(Complex::I), 0.207_879_576_350_761_9, 0.0);
        close(Complex::real(2.0).asin().sin(), 2.0, 0.0);
        close(Complex { re: 0.3, im: 0.4 }.atan(), 0.3373704711117763, 0.37908687234202215);
    }
}
