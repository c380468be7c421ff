//! Fused arithmetic of an optimiser.

#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{Device, Result, Tensor};

use crate::Param;
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

/// The two moments of a parameter's gradient, where the parameter is.
pub struct Moments(pub(crate) Place);

/// Where moments are.
pub(crate) enum Place {
    Host {
        mean: Vec<f32>,
        square: Vec<f32>,
    },
    #[cfg(feature = "cuda")]
    Device {
        mean: Tensor,
        square: Tensor,
    },
}

impl Moments {
    /// Zeros, for a parameter that has seen no gradient.
    ///
    /// # Errors
    /// The device fails.
    pub fn zeros(param: &Param) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let device @ Device::Cuda(_) = param.value().device() {
            let zeros = || Tensor::zeros(param.shape(), DType::F32, device);
            return Ok(Self(Place::Device { mean: zeros()?, square: zeros()? }));
        }
        let zeros = || vec![0.0; param.elem_count()];
        Ok(Self(Place::Host { mean: zeros(), square: zeros() }))
    }

    /// Mean of gradients and mean of their squares, of so many dimensions, on the CPU.
    ///
    /// # Errors
    /// Other dimensions; the device fails.
    pub fn tensors(&self, dims: &[usize]) -> Result<[Tensor; 2]> {
        match &self.0 {
            Place::Host { mean, square } => {
                let tensor = |values: &[f32]| Tensor::from_slice(values, dims, &Device::Cpu);
                Ok([tensor(mean)?, tensor(square)?])
            }
            #[cfg(feature = "cuda")]
            Place::Device { mean, square } => Ok([mean.to_device(&Device::Cpu)?, square.to_device(&Device::Cpu)?]),
        }
    }

    /// Takes over what [`Moments::tensors`] gave.
    ///
    /// # Errors
    /// Another dtype than f32; the device fails.
    pub fn load(&mut self, [from_mean, from_square]: [&Tensor; 2]) -> Result<()> {
        match &mut self.0 {
            Place::Host { mean, square } => {
                *mean = from_mean.flatten_all()?.to_vec1()?;
                *square = from_square.flatten_all()?.to_vec1()?;
            }
            #[cfg(feature = "cuda")]
            Place::Device { mean, square } => {
                *mean = from_mean.contiguous()?.to_device(mean.device())?;
                *square = from_square.contiguous()?.to_device(square.device())?;
            }
        }
        Ok(())
    }
}

/// The sum of squares of each parameter's gradient, in f64; `None` for one that none has reached since it was forgotten.
///
/// # Errors
/// The device fails.
pub fn grad_squares(params: &[&Param]) -> Result<Vec<Option<f64>>> {
    #[cfg(feature = "cuda")]
    if params.iter().any(|param| param.value().device().is_cuda()) {
        let gradients: Vec<_> = params.iter().map(|param| param.grad_on_device()).collect();
        let found: Vec<Tensor> = gradients.iter().flatten().map(Tensor::contiguous).collect::<Result<_>>()?;
        let mut sums = crate::cuda::optim::squares(&found)?.into_iter();
        return Ok(gradients.iter().map(|gradient| gradient.as_ref().and_then(|_| sums.next())).collect());
    }
    Ok(params.iter().map(|param| param.grad_squares()).collect())
}

/// One update, in place: value, first moment `m` and second moment `v`, all of one length.
///
/// # Panics
/// If the lengths differ.
pub fn adamw(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], constants: &AdamW) {
    let n = param.len();
    assert!(grad.len() == n && m.len() == n && v.len() == n, "adamw: slices of different lengths");
    let factors = constants.factors();
    let (param, m, v) = (Shared::new(param.as_mut_ptr()), Shared::new(m.as_mut_ptr()), Shared::new(v.as_mut_ptr()));
    pool::run_ranges(n, GRAIN, |range| {
        // SAFETY: the range lies inside all four slices, and is this task's.
        unsafe {
            let start = range.start;
            update(param.at(start), grad[range.clone()].as_ptr(), m.at(start), v.at(start), range.len(), factors);
        }
    });
}

impl AdamW {
    pub(crate) fn factors(&self) -> Factors {
        let Self { lr, beta1, beta2, eps, weight_decay, bias_correction1, bias_correction2, grad_scale } = *self;
        Factors {
            keep: (1.0 - lr * weight_decay) as f32,
            beta: (beta1 as f32, beta2 as f32),
            fresh: ((1.0 - beta1) as f32, (1.0 - beta2) as f32),
            step: (lr / bias_correction1) as f32,
            root: bias_correction2.sqrt() as f32,
            eps: eps as f32,
            scale: grad_scale as f32,
        }
    }
}

/// Elements below which a second thread costs more than it gives.
const GRAIN: usize = 1 << 14;

/// The constants in the order of PyTorch's operations.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub keep: f32,
    pub beta: (f32, f32),
    pub fresh: (f32, f32),
    pub step: f32,
    pub root: f32,
    pub eps: f32,
    pub scale: f32,
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
