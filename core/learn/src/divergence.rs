//! How far the policy is from a reference, by what single tokens tell of it (Schulman, "Approximating KL divergence", 2020).

/// An estimate of the KL divergence from one token, with `d = reference - policy`, both log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// `-d`: right on average, of either sign.
    K1,
    /// `|d|` (verl's `abs`).
    Abs,
    /// `d^2 / 2`: its gradient is that of the divergence on average.
    K2,
    /// `e^d - d - 1`: right on average, never negative (DeepSeekMath, arXiv 2402.03300, equation 4).
    K3,
}

/// The clamps of verl's `low_var_kl`: of the difference, and of the estimate.
const CLAMPS: (f64, f64) = (20.0, 10.0);

/// An estimate that may be clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The estimate.
    pub estimator: Estimator,
    /// `d` is held within ±20 and the estimate within ±10, as verl and NeMo-RL do. Where it is held nothing flows.
    pub clamp: bool,
}

impl Divergence {
    /// The estimate, and its derivative by `policy`.
    pub fn at(&self, policy: f64, reference: f64) -> (f64, f64) {
        let exact = reference - policy;
        let d = if self.clamp { exact.clamp(-CLAMPS.0, CLAMPS.0) } else { exact };
        let (value, by_d) = match self.estimator {
            Estimator::K1 => (-d, -1.0),
            Estimator::Abs => (d.abs(), if d == 0.0 { 0.0 } else { d.signum() }),
            Estimator::K2 => (0.5 * d * d, d),
            Estimator::K3 => {
                let excess = libm::expm1(d);
                (excess - d, excess)
            }
        };
        // Comparisons that a NaN does not pass: it must not hide behind a clamp.
        let is_held = self.clamp && (exact.abs() > CLAMPS.0 || value.abs() > CLAMPS.1);
        match is_held {
            true => (value.clamp(-CLAMPS.1, CLAMPS.1), 0.0),
            false => (value, -by_d),
        }
    }
}
