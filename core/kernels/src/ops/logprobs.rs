//! Log-probabilities of tokens, without the logits of a whole batch.

use candle_core::{Result, Tensor, bail};

use super::elsewhere;
use super::node::{Shared, fused, node, read};
use crate::gemm::{self, Panels, Product};
use crate::math::{exp_lanes, exp_sum, for_lanes, inverse, ln, load, max_of, scale, store};
use crate::param::{Chain, in_place};
use crate::simd::{Lanes, dispatch};
use crate::{Param, pool};

/// The elements of logits that exist at once.
const CHUNK: usize = 1 << 19;

/// The natural log-probability of each target and the entropy (in nats) of the distribution that it is drawn from, at a
/// temperature above 0: hidden `[N, D]`, head `[V, D]`, to `[N, 2]`. Both have gradients. Logits exist for some rows at a
/// time only, in both directions.
///
/// # Errors
/// Shapes that don't fit, a target beyond the head, a temperature that is not above 0.
pub fn token_logprobs(hidden: &Tensor, head: &Param, targets: &[u32], temperature: f64) -> Result<Tensor> {
    let weight = head.value();
    if !fused(&[hidden, &weight]) {
        return elsewhere::token_logprobs(hidden, head, targets, temperature);
    }
    let x = &hidden.contiguous()?;
    let ((n, d), (vocab, width)) = (x.dims2()?, head.shape().dims2()?);
    if d == 0 || d != width || n != targets.len() || temperature.is_nan() || temperature <= 0.0 {
        bail!(
            "token_logprobs: a target for each row and a temperature above 0, not {} for {:?} by {:?} at {temperature}",
            targets.len(),
            x.shape(),
            head.shape()
        );
    }
    if let Some(target) = targets.iter().find(|&&target| target as usize >= vocab) {
        bail!("token_logprobs: target {target} of {vocab}");
    }
    let shape = Shape { d, vocab, factor: inverse(temperature) };
    let mut out = vec![0.0; 2 * n];
    {
        let values = read(x)?;
        let all = Shared::new(out.as_mut_ptr());
        shape.each_chunk(&values, head, |start, logits, sums| {
            pool::run_ranges(sums.len(), shape.grain(), |range| {
                for row in range {
                    // SAFETY: one row of the chunk's logits, and its two results.
                    unsafe {
                        let (logits, out) = (logits.at(row * vocab), all.at(2 * (start + row)));
                        log_prob_row(logits, vocab, targets[start + row] as usize, out);
                    }
                }
            });
            Ok(())
        })?;
    }
    let (source, head, targets) = (x.clone(), head.clone(), targets.to_vec());
    node("token_logprobs", [x, &weight], out, (n, 2), move |out, grad| {
        let (values, out, weight) = (read(&source)?, read(out)?, head.compute_value()?);
        let mut dx = vec![0.0; if source.track_op() { n * d } else { 0 }];
        shape.each_chunk(&values, &head, |start, logits, rows| {
            let m = rows.len();
            pool::run_ranges(m, shape.grain(), |range| {
                for row in range {
                    let at = 2 * (start + row);
                    let (g, entropy) = ((grad[at], grad[at + 1]), out[at + 1]);
                    // SAFETY: one row of the chunk's logits.
                    unsafe {
                        let logits = logits.at(row * vocab);
                        let target = targets[start + row] as usize;
                        log_prob_gradient(logits, vocab, target, (g.0, g.1, entropy, shape.factor));
                    }
                }
            });
            let weight = in_place(&weight)?;
            // SAFETY: the chunk's rows of x and dx, the logits, the head and its accumulator have these sizes.
            unsafe {
                let (logits, x) = (logits.at(0), values[start * d..].as_ptr());
                if head.is_tracked() {
                    head.accumulate(Chain::Product, |sums| {
                        let product = Product::rows(vocab, d, m, logits, Panels::in_place(x, d), sums.as_mut_ptr());
                        gemm::run(&[Product { a_row: 1, a_k: vocab, accumulate: true, ..product }]);
                    });
                }
                if !dx.is_empty() {
                    let (head, dx) = (weight.panels(0, d), dx[start * d..].as_mut_ptr());
                    gemm::run(&[Product::rows(m, d, vocab, logits, head, dx)]);
                }
            }
            Ok(())
        })?;
        Ok([source.track_op().then_some(dx), None])
    })
}

/// The sizes, and what logits are multiplied by.
#[derive(Clone, Copy)]
struct Shape {
    d: usize,
    vocab: usize,
    factor: f32,
}

impl Shape {
    fn grain(&self) -> usize {
        (1usize << 12).div_ceil(self.vocab.max(1))
    }

    /// Gives `f` the scaled logits of some rows at a time: the first row, the logits, the rows.
    fn each_chunk(
        &self,
        x: &[f32],
        head: &Param,
        mut f: impl FnMut(usize, Shared, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let Self { d, vocab, factor } = *self;
        let (n, packed) = (x.len() / d.max(1), head.packed()?);
        // Rows in whole tiles; how they are cut changes no bit.
        let rows = (CHUNK / vocab.max(1)).clamp(48, 4096);
        let mut logits: Vec<f32> = Vec::with_capacity(rows.min(n) * vocab);
        for start in (0..n).step_by(rows) {
            let m = rows.min(n - start);
            let pointer = Shared::new(logits.as_mut_ptr());
            // SAFETY: the capacity is that of the largest chunk; the product writes before anything reads.
            unsafe {
                let b = packed.panels(0, vocab, d);
                gemm::run(&[Product::rows(m, vocab, d, x[start * d..].as_ptr(), b, pointer.at(0))]);
                pool::run_ranges(m, self.grain(), |range| {
                    let first = pointer.at(range.start * vocab);
                    scale(first, first, range.len() * vocab, factor);
                });
            }
            f(start, pointer, 0..m)?;
        }
        Ok(())
    }
}

/// Writes the log-probability of the target and the entropy; the logits become `e^(z - max)`.
#[inline(always)]
unsafe fn log_prob_row_lanes<L: Lanes>(z: *mut f32, n: usize, target: usize, out: *mut f32) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        let max = max_of::<L>(z, n);
        let mut mean = L::splat(0.0);
        for_lanes!(n, |i, count| {
            let shifted = L::sub(load::<L>(z.add(i), count), L::splat(max));
            store::<L>(z.add(i), shifted, count);
            let shifted = load::<L>(z.add(i), count);
            mean = L::fma(exp_lanes::<L>(shifted), shifted, mean);
        });
        let chosen = *z.add(target);
        let sum = exp_sum::<L>(z, n, 0.0);
        let ln = ln(sum);
        *out = chosen - ln;
        *out.add(1) = ln - crate::simd::sum_lanes::<L>(mean) / sum;
    }
}

/// Replaces scaled logits by the gradient of what they were before scaling. `of`: the gradients of log-probability and
/// entropy, the entropy, and the scale.
#[inline(always)]
unsafe fn log_prob_gradient_lanes<L: Lanes>(z: *mut f32, n: usize, target: usize, of: (f32, f32, f32, f32)) {
    let (g, g_entropy, entropy, factor) = of;
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        let max = max_of::<L>(z, n);
        let mut sum = L::splat(0.0);
        for_lanes!(n, |i, count| {
            let shifted = L::sub(load::<L>(z.add(i), count), L::splat(max));
            store::<L>(z.add(i), shifted, count);
            let e = exp_lanes::<L>(shifted);
            if count == 16 {
                sum = L::add(sum, e);
            } else {
                let mut lanes = [0.0f32; 16];
                L::store_n(lanes.as_mut_ptr(), e, count);
                sum = L::add(sum, L::load(lanes.as_ptr()));
            }
        });
        let sum = crate::simd::sum_lanes::<L>(sum);
        let (inverse, ln) = (L::splat(1.0 / sum), ln(sum));
        // dz_j = g * (j == target) - p_j * (g + g_entropy * (ln p_j + entropy))
        let (slope, base) = (L::splat(g_entropy), L::splat(g + g_entropy * (entropy - ln)));
        for_lanes!(n, |i, count| {
            let shifted = load::<L>(z.add(i), count);
            let p = L::mul(exp_lanes::<L>(shifted), inverse);
            let d = L::mul(p, L::fma(slope, shifted, base));
            store::<L>(z.add(i), L::mul(L::sub(L::splat(0.0), d), L::splat(factor)), count);
        });
        *z.add(target) += g * factor;
    }
}

dispatch! { unsafe fn log_prob_row(z: *mut f32, n: usize, target: usize, out: *mut f32) = log_prob_row_lanes }
dispatch! {
    unsafe fn log_prob_gradient(z: *mut f32, n: usize, target: usize, of: (f32, f32, f32, f32)) = log_prob_gradient_lanes
}
