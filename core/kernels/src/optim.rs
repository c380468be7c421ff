//! Fused arithmetic of an optimiser.

use crate::math::{for_lanes, load, store};
use crate::ops::Shared;
use crate::pool;
use crate::simd::{Lanes, dispatch};

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
    let factors = Factors {
        keep: (1.0 - lr * weight_decay) as f32,
        beta: (beta1 as f32, beta2 as f32),
        fresh: ((1.0 - beta1) as f32, (1.0 - beta2) as f32),
        step: (lr / bias_correction1) as f32,
        root: bias_correction2.sqrt() as f32,
        eps: eps as f32,
        scale: grad_scale as f32,
    };
    let (param, m, v) = (Shared::new(param.as_mut_ptr()), Shared::new(m.as_mut_ptr()), Shared::new(v.as_mut_ptr()));
    pool::run_ranges(n, GRAIN, |range| {
        // SAFETY: the range lies inside all four slices, and is this task's.
        unsafe {
            let start = range.start;
            update(param.at(start), grad[range.clone()].as_ptr(), m.at(start), v.at(start), range.len(), factors);
        }
    });
}

/// Elements below which a second thread costs more than it gives.
const GRAIN: usize = 1 << 14;

/// The constants in the order of PyTorch's operations.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    beta: (f32, f32),
    fresh: (f32, f32),
    step: f32,
    root: f32,
    eps: f32,
    scale: f32,
}

#[inline(always)]
unsafe fn update_lanes<L: Lanes>(param: *mut f32, grad: *const f32, m: *mut f32, v: *mut f32, n: usize, f: Factors) {
    // SAFETY: the caller vouches for `n` elements of each.
    unsafe {
        let [keep, b1, b2, new1, new2, step, root, eps, scale] =
            [f.keep, f.beta.0, f.beta.1, f.fresh.0, f.fresh.1, f.step, f.root, f.eps, f.scale].map(|x| L::splat(x));
        for_lanes!(n, |i, count| {
            let g = L::mul(load::<L>(grad.add(i), count), scale);
            let mean = L::add(L::mul(b1, load::<L>(m.add(i), count)), L::mul(new1, g));
            let square = L::add(L::mul(b2, load::<L>(v.add(i), count)), L::mul(L::mul(new2, g), g));
            let slope = L::div(mean, L::add(L::div(L::sqrt(square), root), eps));
            let value = L::sub(L::mul(keep, load::<L>(param.add(i), count)), L::mul(step, slope));
            store::<L>(m.add(i), mean, count);
            store::<L>(v.add(i), square, count);
            store::<L>(param.add(i), value, count);
        });
    }
}

dispatch! {
    unsafe fn update(
        param: *mut f32, grad: *const f32, m: *mut f32, v: *mut f32, n: usize, f: Factors,
    ) = update_lanes
}

/// Elements of a part of a sum; the parts are added in their order, so that no bit depends on who computed them.
const PART: usize = 1 << 16;

/// The sum of squares, in f64, by one fixed tree.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let mut parts = vec![0.0f64; x.len().div_ceil(PART)];
    let each: Vec<std::sync::Mutex<&mut f64>> = parts.iter_mut().map(std::sync::Mutex::new).collect();
    pool::run(each.len(), |part| {
        let sum = part_of_squares(&x[part * PART..x.len().min((part + 1) * PART)]);
        **each[part].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sum;
    });
    parts.iter().sum()
}

fn part_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for x in whole {
        lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane += f64::from(*x) * f64::from(*x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += f64::from(*x) * f64::from(*x));
    lanes.iter().sum()
}

/// Whether every element is a number, and not infinite.
pub fn is_finite(x: &[f32]) -> bool {
    let finite = std::sync::atomic::AtomicBool::new(true);
    pool::run_ranges(x.len(), PART, |range| {
        // Without an early end the loop is vectors of eight or sixteen.
        if !x[range].iter().fold(true, |finite, x| finite & x.is_finite()) {
            finite.store(false, std::sync::atomic::Ordering::Relaxed);
        }
    });
    finite.into_inner()
}
