//! Elementwise operations by row.

use candle_core::{Result, Tensor, bail};

use super::elsewhere;
use super::node::{Shared, fill, fused, node, read};
use crate::math::{dot, for_lanes, load, sigmoid_lanes, store};
use crate::param::Chain;
use crate::simd::{Lanes, dispatch};
use crate::{Param, pool};

/// Elements below which a second thread costs more than it gives.
pub(crate) const GRAIN: usize = 1 << 14;

/// `x / sqrt(mean(x^2) + eps) * w` over the last dimension (Zhang and Sennrich, eq. 4): x `[.., D]`, w `[D]`.
///
/// # Errors
/// Shapes that don't fit.
pub fn rms_norm(x: &Tensor, w: &Param, eps: f64) -> Result<Tensor> {
    let weight = w.value();
    if !fused(&[x, &weight]) {
        return elsewhere::rms_norm(x, w, eps);
    }
    let x = &x.contiguous()?;
    let d = w.elem_count();
    if d == 0 || x.dims().last() != Some(&d) {
        bail!("rms_norm: x is {:?}, `{}` {:?}", x.shape(), w.name(), w.shape());
    }
    let norm = Norm { rows: x.elem_count() / d, d, x_row: d, y_row: d, eps: eps as f32 };
    let out = {
        let (values, weight) = (read(x)?, read(&weight)?);
        // SAFETY: the sizes are those of the tensors.
        unsafe { fill(norm.rows * d, |y| norm.forward(&values, &weight, y)) }
    };
    let backward = {
        let (x, w) = (x.clone(), w.clone());
        move |_: &Tensor, grad: &[f32]| {
            let values = read(&x)?;
            // SAFETY: as above.
            unsafe {
                norm.backward_weight(&values, grad, &w);
                if !x.track_op() {
                    return Ok([None, None]);
                }
                let weight = w.value();
                let weight = read(&weight)?;
                Ok([Some(fill(norm.rows * d, |dx| norm.backward_input(&values, grad, &weight, dx))), None])
            }
        }
    };
    node("rms_norm", [x, &weight], out, x.shape().clone(), backward)
}

/// The sizes of a norm: the first `d` of each row of `x_row` elements become the first `d` of a row of `y_row`.
#[derive(Clone, Copy)]
pub(crate) struct Norm {
    pub rows: usize,
    pub d: usize,
    pub x_row: usize,
    pub y_row: usize,
    pub eps: f32,
}

impl Norm {
    fn grain(&self) -> usize {
        GRAIN.div_ceil(self.d)
    }

    /// # Safety
    /// `x` has `rows` rows of `x_row`, `y` of `y_row`, `w` has `d` elements.
    pub unsafe fn forward(&self, x: &[f32], w: &[f32], y: *mut f32) {
        let y = Shared::new(y);
        pool::run_ranges(self.rows, self.grain(), |range| {
            let here = Self { rows: range.len(), ..*self };
            // SAFETY: the caller's; the rows are this task's.
            unsafe {
                let x = x.as_ptr().add(range.start * self.x_row);
                norm_rows(here, x, w.as_ptr(), y.at(range.start * self.y_row));
            }
        });
    }

    /// Writes the gradient of x.
    ///
    /// # Safety
    /// As for [`Self::forward`], with `dx` laid out as x and `dy` as y.
    pub unsafe fn backward_input(&self, x: &[f32], dy: &[f32], w: &[f32], dx: *mut f32) {
        let dx = Shared::new(dx);
        pool::run_ranges(self.rows, self.grain(), |range| {
            let here = Self { rows: range.len(), ..*self };
            // SAFETY: the caller's; the rows are this task's.
            unsafe {
                let x = x.as_ptr().add(range.start * self.x_row);
                let dy = dy.as_ptr().add(range.start * self.y_row);
                norm_gradient(here, x, dy, w.as_ptr(), dx.at(range.start * self.x_row));
            }
        });
    }

    /// [`Self::forward`] without other threads.
    ///
    /// # Safety
    /// As for [`Self::forward`].
    pub unsafe fn rows_on_this_thread(self, x: *const f32, w: &[f32], y: *mut f32) {
        // SAFETY: the caller's.
        unsafe { norm_rows(self, x, w.as_ptr(), y) };
    }

    /// [`Self::backward_input`] without other threads.
    ///
    /// # Safety
    /// As for [`Self::backward_input`].
    pub unsafe fn gradient_on_this_thread(self, x: *const f32, dy: *const f32, w: &[f32], dx: *mut f32) {
        // SAFETY: the caller's.
        unsafe { norm_gradient(self, x, dy, w.as_ptr(), dx) };
    }

    /// Adds the gradient of w, if it takes one, rows in ascending order.
    ///
    /// # Safety
    /// As for [`Self::backward_input`].
    pub unsafe fn backward_weight(&self, x: &[f32], dy: &[f32], w: &Param) {
        if !w.is_tracked() {
            return;
        }
        w.accumulate(Chain::Product, |sums| {
            let mut factors = vec![0.0; self.rows];
            let all = Shared::new(factors.as_mut_ptr());
            pool::run_ranges(self.rows, self.grain(), |range| {
                let here = Self { rows: range.len(), ..*self };
                // SAFETY: the caller's; the rows are this task's.
                unsafe { norm_factors(here, x.as_ptr().add(range.start * self.x_row), all.at(range.start)) };
            });
            let sums = Shared::new(sums.as_mut_ptr());
            // Threads share the columns, in whole lanes, so that each sum has one order.
            pool::run_ranges(self.d.div_ceil(16), (GRAIN / 16).div_ceil(self.rows.max(1)), |range| {
                let (start, end) = (range.start * 16, self.d.min(range.end * 16));
                // SAFETY: the caller's; the columns are this task's.
                unsafe {
                    let (x, dy) = (x.as_ptr().add(start), dy.as_ptr().add(start));
                    norm_weight(*self, x, dy, factors.as_ptr(), sums.at(start), end - start);
                }
            });
        });
    }
}

/// `1 / sqrt(mean(x^2) + eps)` of a row.
#[inline(always)]
unsafe fn factor<L: Lanes>(norm: &Norm, x: *const f32) -> f32 {
    // SAFETY: the caller vouches for a row.
    let squares = unsafe { dot::<L>(x, x, norm.d) };
    1.0 / (squares / norm.d as f32 + norm.eps).sqrt()
}

#[inline(always)]
unsafe fn norm_rows_lanes<L: Lanes>(norm: Norm, x: *const f32, w: *const f32, y: *mut f32) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for row in 0..norm.rows {
            let (x, y) = (x.add(row * norm.x_row), y.add(row * norm.y_row));
            let r = L::splat(factor::<L>(&norm, x));
            for_lanes!(norm.d, |i, n| {
                let normed = L::mul(load::<L>(x.add(i), n), r);
                store::<L>(y.add(i), L::mul(normed, load::<L>(w.add(i), n)), n);
            });
        }
    }
}

#[inline(always)]
unsafe fn norm_gradient_lanes<L: Lanes>(norm: Norm, x: *const f32, dy: *const f32, w: *const f32, dx: *mut f32) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for row in 0..norm.rows {
            let (x, dx, dy) = (x.add(row * norm.x_row), dx.add(row * norm.x_row), dy.add(row * norm.y_row));
            let r = factor::<L>(&norm, x);
            let mut sum = L::splat(0.0);
            for_lanes!(norm.d, |i, n| {
                let g = L::mul(load::<L>(dy.add(i), n), load::<L>(w.add(i), n));
                sum = L::fma(g, load::<L>(x.add(i), n), sum);
            });
            // dx = r * (g - x * r^2 * mean(g * x))
            let inner = L::splat(-(crate::simd::sum_lanes::<L>(sum) / norm.d as f32 * r * r));
            let r = L::splat(r);
            for_lanes!(norm.d, |i, n| {
                let g = L::mul(load::<L>(dy.add(i), n), load::<L>(w.add(i), n));
                store::<L>(dx.add(i), L::mul(r, L::fma(load::<L>(x.add(i), n), inner, g)), n);
            });
        }
    }
}

#[inline(always)]
unsafe fn norm_factors_lanes<L: Lanes>(norm: Norm, x: *const f32, out: *mut f32) {
    for row in 0..norm.rows {
        // SAFETY: the caller vouches for the sizes.
        unsafe { *out.add(row) = factor::<L>(&norm, x.add(row * norm.x_row)) };
    }
}

#[inline(always)]
unsafe fn norm_weight_lanes<L: Lanes>(
    norm: Norm,
    x: *const f32,
    dy: *const f32,
    factors: *const f32,
    sums: *mut f32,
    width: usize,
) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for_lanes!(width, |i, n| {
            let mut sum = load::<L>(sums.add(i), n);
            for row in 0..norm.rows {
                let normed = L::mul(load::<L>(x.add(row * norm.x_row + i), n), L::splat(*factors.add(row)));
                sum = L::fma(load::<L>(dy.add(row * norm.y_row + i), n), normed, sum);
            }
            store::<L>(sums.add(i), sum, n);
        });
    }
}

dispatch! { unsafe fn norm_rows(norm: Norm, x: *const f32, w: *const f32, y: *mut f32) = norm_rows_lanes }
dispatch! {
    unsafe fn norm_gradient(norm: Norm, x: *const f32, dy: *const f32, w: *const f32, dx: *mut f32) = norm_gradient_lanes
}
dispatch! { unsafe fn norm_factors(norm: Norm, x: *const f32, out: *mut f32) = norm_factors_lanes }
dispatch! {
    unsafe fn norm_weight(
        norm: Norm, x: *const f32, dy: *const f32, factors: *const f32, sums: *mut f32, width: usize,
    ) = norm_weight_lanes
}

/// `silu(gate) * up` of rows `[T, 2I]` that hold gate, then up; to `[T, I]` (Shazeer, GLU variants, eq. 6).
///
/// # Errors
/// An odd last dimension.
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    if !fused(&[gate_up]) {
        return elsewhere::silu_mul(gate_up);
    }
    let x = &gate_up.contiguous()?;
    let (rows, both) = x.dims2()?;
    if both == 0 || both % 2 != 0 {
        bail!("silu_mul: gate and up have one width, but together they are {both} wide");
    }
    let width = both / 2;
    let grain = GRAIN.div_ceil(both);
    let out = {
        let values = read(x)?;
        let values: &[f32] = &values;
        let write = |out: *mut f32| {
            let out = Shared::new(out);
            pool::run_ranges(rows, grain, |range| {
                // SAFETY: the sizes are those of the tensor; the rows are this task's.
                unsafe {
                    let x = values.as_ptr().add(range.start * both);
                    silu_rows(x, out.at(range.start * width), range.len(), width);
                }
            });
        };
        // SAFETY: each row is written.
        unsafe { fill(rows * width, write) }
    };
    let source = x.clone();
    node("silu_mul", [x], out, (rows, width), move |_, grad| {
        let values = read(&source)?;
        let values: &[f32] = &values;
        let write = |dx: *mut f32| {
            let dx = Shared::new(dx);
            pool::run_ranges(rows, grain, |range| {
                // SAFETY: as above.
                unsafe {
                    let (x, dy) = (values.as_ptr().add(range.start * both), grad.as_ptr().add(range.start * width));
                    silu_gradient(x, dy, dx.at(range.start * both), range.len(), width);
                }
            });
        };
        // SAFETY: each row is written.
        Ok([Some(unsafe { fill(rows * both, write) })])
    })
}

#[inline(always)]
unsafe fn silu_rows_lanes<L: Lanes>(x: *const f32, out: *mut f32, rows: usize, width: usize) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for row in 0..rows {
            let (gate, up, out) = (x.add(2 * row * width), x.add((2 * row + 1) * width), out.add(row * width));
            for_lanes!(width, |i, n| {
                let g = load::<L>(gate.add(i), n);
                let silu = L::mul(g, sigmoid_lanes::<L>(g));
                store::<L>(out.add(i), L::mul(silu, load::<L>(up.add(i), n)), n);
            });
        }
    }
}

#[inline(always)]
unsafe fn silu_gradient_lanes<L: Lanes>(x: *const f32, dy: *const f32, dx: *mut f32, rows: usize, width: usize) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for row in 0..rows {
            let (gate, up) = (x.add(2 * row * width), x.add((2 * row + 1) * width));
            let (d_gate, d_up) = (dx.add(2 * row * width), dx.add((2 * row + 1) * width));
            for_lanes!(width, |i, n| {
                let (g, u, dy) =
                    (load::<L>(gate.add(i), n), load::<L>(up.add(i), n), load::<L>(dy.add(row * width + i), n));
                let s = sigmoid_lanes::<L>(g);
                // silu' = s * (1 + g * (1 - s))
                let slope = L::mul(s, L::fma(g, L::sub(L::splat(1.0), s), L::splat(1.0)));
                store::<L>(d_gate.add(i), L::mul(L::mul(dy, u), slope), n);
                store::<L>(d_up.add(i), L::mul(dy, L::mul(g, s)), n);
            });
        }
    }
}

dispatch! { unsafe fn silu_rows(x: *const f32, out: *mut f32, rows: usize, width: usize) = silu_rows_lanes }
dispatch! {
    unsafe fn silu_gradient(x: *const f32, dy: *const f32, dx: *mut f32, rows: usize, width: usize) = silu_gradient_lanes
}
