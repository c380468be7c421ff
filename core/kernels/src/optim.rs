//! Fused arithmetic of an optimiser.

/// Constants of one AdamW update (Loshchilov and Hutter, Decoupled Weight Decay Regularization, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The learning rate of this step.
    pub lr: f64,
    /// The decay of the mean of gradients.
    pub beta1: f64,
    /// The decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled: the value shrinks by `lr * weight_decay`.
    pub weight_decay: f64,
    /// `1 - beta1^t`.
    pub bias_correction1: f64,
    /// `1 - beta2^t`.
    pub bias_correction2: f64,
    /// Multiplies the gradient first (clipping).
    pub grad_scale: f64,
}

/// One update, in place: value, first moment `m` and second moment `v`, all of one length.
///
/// # Panics
/// If the lengths differ.
pub fn adamw(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], constants: &AdamW) {
    let n = param.len();
    assert!(grad.len() == n && m.len() == n && v.len() == n, "adamw: slices of different lengths");
    let AdamW { lr, beta1, beta2, eps, weight_decay, bias_correction1, bias_correction2, grad_scale } = *constants;
    let keep = (1.0 - lr * weight_decay) as f32;
    let (b1, b2, new1, new2) = (beta1 as f32, beta2 as f32, (1.0 - beta1) as f32, (1.0 - beta2) as f32);
    let step = (lr / bias_correction1) as f32;
    let (root, eps, scale) = (bias_correction2.sqrt() as f32, eps as f32, grad_scale as f32);
    for i in 0..n {
        let g = grad[i] * scale;
        m[i] = b1 * m[i] + new1 * g;
        v[i] = b2 * v[i] + new2 * g * g;
        param[i] = keep * param[i] - step * (m[i] / (v[i].sqrt() / root + eps));
    }
}

/// The sum of squares, in f64, by one fixed tree.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 16];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 16] += f64::from(*x) * f64::from(*x);
    }
    lanes.iter().sum()
}
