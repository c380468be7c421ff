//! Operations that move rows: look them up, send them to experts, and bring them back.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::node::{Shared, fill, fused, node, read};
use super::{Experts, elsewhere};
use crate::math::{dot, for_lanes, load, store};
use crate::param::Chain;
use crate::simd::{Lanes, dispatch};
use crate::{Param, pool};

/// Elements below which a second thread costs more than it gives.
const GRAIN: usize = 1 << 15;

fn check(rows: &[u32], count: usize, what: &str) -> Result<()> {
    match rows.iter().find(|&&row| row as usize >= count) {
        Some(row) => bail!("{what}: row {row} of {count}"),
        None => Ok(()),
    }
}

/// Copies rows of `x` (`[_, d]`).
fn gather(x: &[f32], rows: &[u32], d: usize) -> Vec<f32> {
    let write = |out: *mut f32| {
        let out = Shared::new(out);
        pool::run_ranges(rows.len(), GRAIN.div_ceil(d.max(1)), |range| {
            for i in range {
                let row = &x[rows[i] as usize * d..][..d];
                // SAFETY: row `i` of the output, which is this task's.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), out.at(i * d), d) };
            }
        });
    };
    // SAFETY: every row is copied.
    unsafe { fill(rows.len() * d, write) }
}

/// Adds each row of `grad` to the row of `out` that it came from, in ascending order.
fn scatter_add(grad: &[f32], rows: &[u32], d: usize, out: &mut [f32]) {
    assert!(grad.len() == rows.len() * d && rows.iter().all(|&row| (row as usize + 1) * d <= out.len()));
    let out = Shared::new(out.as_mut_ptr());
    let grain = (GRAIN / rows.len().max(1)).max(16);
    // Threads share the columns, so that each sum has one order.
    pool::run_ranges(d, grain, |columns| {
        for (i, &row) in rows.iter().enumerate() {
            let from = &grad[i * d + columns.start..i * d + columns.end];
            // SAFETY: the row exists (asserted above), and the columns are this task's.
            let to = unsafe { std::slice::from_raw_parts_mut(out.at(row as usize * d + columns.start), columns.len()) };
            to.iter_mut().zip(from).for_each(|(sum, g)| *sum += g);
        }
    });
}

/// The rows of x `[T, D]` with the numbers `rows`, `[P, D]`.
///
/// # Errors
/// A row that does not exist.
pub fn gather_rows(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    if !fused(&[x]) {
        return elsewhere::gather_rows(x, rows);
    }
    let x = &x.contiguous()?;
    let (count, d) = x.dims2()?;
    check(rows, count, "gather_rows")?;
    let out = gather(&read(x)?, rows, d);
    let shape = (rows.len(), d);
    if !x.track_op() {
        return node("gather_rows", [x], out, shape, |_, _| Ok([None]));
    }
    let rows = rows.to_vec();
    node("gather_rows", [x], out, shape, move |_, grad| {
        let mut dx = vec![0.0; count * d];
        scatter_add(grad, &rows, d, &mut dx);
        Ok([Some(dx)])
    })
}

/// The rows of a table `[V, D]` with the numbers `ids`, `[T, D]`.
///
/// # Errors
/// An id beyond the table.
pub fn embed(table: &Param, ids: &[u32]) -> Result<Tensor> {
    let value = table.value();
    if !fused(&[&value]) {
        return elsewhere::embed(table, ids);
    }
    let (count, d) = value.dims2()?;
    check(ids, count, "embed")?;
    let out = gather(&read(&value)?, ids, d);
    let (table, rows) = (table.clone(), ids.to_vec());
    node("embed", [&value], out, (ids.len(), d), move |_, grad| {
        table.accumulate(Chain::Rows, |sums| scatter_add(grad, &rows, d, sums));
        Ok([None])
    })
}

/// The sum of each token's expert outputs y `[P, D]`, weighed by `[T, k]`, to `[T, D]`: slots in ascending order.
///
/// # Errors
/// Shapes that don't fit.
pub fn combine(y: &Tensor, weights: &Tensor, experts: &Arc<Experts>) -> Result<Tensor> {
    if !fused(&[y, weights]) {
        return elsewhere::combine(y, weights, experts);
    }
    let (y, weights) = (&y.contiguous()?, &weights.contiguous()?);
    let ((pairs, d), (tokens, k)) = (y.dims2()?, weights.dims2()?);
    if pairs != tokens * k || experts.pairs.len() != pairs || experts.per_token != k {
        let (all, each) = (experts.pairs.len(), experts.per_token);
        bail!("combine: {:?} weighed by {:?} for {all} pairs, {each} of a token", y.shape(), weights.shape());
    }
    let grain = GRAIN.div_ceil((k * d).max(1));
    let out = {
        let (y, weights) = (read(y)?, read(weights)?);
        let (y, weights, pairs) = (Source(&y), Source(&weights), Source(&experts.pairs));
        let write = |out: *mut f32| {
            let out = Shared::new(out);
            pool::run_ranges(tokens, grain, |range| {
                let sizes = (range.start, range.end, k, d);
                // SAFETY: the sizes are those of the tensors, and pairs are below their number.
                unsafe { combine_rows(y.0.as_ptr(), weights.0.as_ptr(), pairs.0.as_ptr(), out.at(0), sizes) };
            });
        };
        // SAFETY: each token's row is written.
        unsafe { fill(tokens * d, write) }
    };
    let backward = {
        let (y, weights, experts) = (y.clone(), weights.clone(), experts.clone());
        move |_: &Tensor, grad: &[f32]| {
            let (y, weights) = (read(&y)?, read(&weights)?);
            let (y, weights, pairs) = (Source(&y), Source(&weights), Source(&experts.pairs));
            let mut dw = vec![0.0; tokens * k];
            let to_weights = Shared::new(dw.as_mut_ptr());
            let write = |dy: *mut f32| {
                let dy = Shared::new(dy);
                pool::run_ranges(tokens, grain, |range| {
                    let sizes = (range.start, range.end, k, d);
                    let (y, weights, pairs) = (y.0.as_ptr(), weights.0.as_ptr(), pairs.0.as_ptr());
                    // SAFETY: as above; a pair belongs to one slot of one token.
                    unsafe { spread_rows(y, weights, pairs, grad.as_ptr(), dy.at(0), to_weights.at(0), sizes) };
                });
            };
            // SAFETY: every pair has a slot, so every row is written.
            let dy = unsafe { fill(pairs.0.len() * d, write) };
            Ok([Some(dy), Some(dw)])
        }
    };
    node("combine", [y, weights], out, (tokens, d), backward)
}

/// A slice as such, out of whatever guards it.
#[derive(Clone, Copy)]
struct Source<'a, T>(&'a [T]);

/// First and last token, slots of a token, width.
type Sizes = (usize, usize, usize, usize);

#[inline(always)]
unsafe fn combine_lanes<L: Lanes>(y: *const f32, w: *const f32, pairs: *const u32, out: *mut f32, sizes: Sizes) {
    let (start, end, k, d) = sizes;
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for token in start..end {
            for_lanes!(d, |i, count| {
                let mut sum = L::splat(0.0);
                for slot in token * k..(token + 1) * k {
                    let row = y.add(*pairs.add(slot) as usize * d);
                    sum = L::fma(L::splat(*w.add(slot)), load::<L>(row.add(i), count), sum);
                }
                store::<L>(out.add(token * d + i), sum, count);
            });
        }
    }
}

#[inline(always)]
unsafe fn spread_lanes<L: Lanes>(
    y: *const f32,
    w: *const f32,
    pairs: *const u32,
    grad: *const f32,
    dy: *mut f32,
    dw: *mut f32,
    sizes: Sizes,
) {
    let (start, end, k, d) = sizes;
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for token in start..end {
            let grad = grad.add(token * d);
            for slot in token * k..(token + 1) * k {
                let row = *pairs.add(slot) as usize * d;
                *dw.add(slot) = dot::<L>(grad, y.add(row), d);
                let weight = L::splat(*w.add(slot));
                for_lanes!(d, |i, count| {
                    store::<L>(dy.add(row + i), L::mul(weight, load::<L>(grad.add(i), count)), count);
                });
            }
        }
    }
}

dispatch! {
    unsafe fn combine_rows(y: *const f32, w: *const f32, pairs: *const u32, out: *mut f32, sizes: Sizes) = combine_lanes
}
dispatch! {
    unsafe fn spread_rows(
        y: *const f32, w: *const f32, pairs: *const u32, grad: *const f32, dy: *mut f32, dw: *mut f32, sizes: Sizes,
    ) = spread_lanes
}
