//! Sums of tensors, parts of them, and functions that are known from elsewhere.

use candle_core::{Result, Shape, Tensor, bail};

use super::elsewhere;
use super::node::{Shared, fill, fused, node, owning_node, read};
use crate::{pool, tape};

/// Elements below which a second thread costs more than it gives.
const GRAIN: usize = 1 << 15;

/// `a + b` of two tensors of one shape.
///
/// # Errors
/// Shapes that differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !fused(&[a, b]) {
        return elsewhere::add(a, b);
    }
    if a.dims() != b.dims() {
        bail!("add: {:?} and {:?}", a.shape(), b.shape());
    }
    let (a, b) = (&a.contiguous()?, &b.contiguous()?);
    let out = {
        let (a, b) = (read(a)?, read(b)?);
        let (a, b): (&[f32], &[f32]) = (&a, &b);
        let write = |out: *mut f32| {
            let out = Shared::new(out);
            pool::run_ranges(a.len(), GRAIN, |range| {
                for (i, (a, b)) in range.clone().zip(a[range.clone()].iter().zip(&b[range])) {
                    // SAFETY: the element lies inside the output, and is this task's.
                    unsafe { *out.at(i) = a + b };
                }
            });
        };
        // SAFETY: the ranges cover all elements.
        unsafe { fill(a.len(), write) }
    };
    let tracked = (a.track_op(), b.track_op());
    owning_node("add", [a, b], out, a.shape(), move |_, grad| {
        Ok(match tracked {
            (true, true) => [Some(grad.clone()), Some(grad)],
            (true, false) => [Some(grad), None],
            (false, _) => [None, Some(grad)],
        })
    })
}

/// The elements of x under another shape, not copied if x is contiguous.
///
/// # Errors
/// A shape of another number of elements.
pub fn reshape(x: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let out = x.reshape(shape.into())?;
    // A tensor that is not contiguous is copied by an operation of candle's, in between.
    if out.track_op() && x.is_contiguous() {
        tape::enter_view(&out, x);
    }
    Ok(out)
}

/// Column `i` of x `[N, C]`, `[N]`.
///
/// # Errors
/// A column that does not exist.
pub fn column(x: &Tensor, i: usize) -> Result<Tensor> {
    if !fused(&[x]) {
        return elsewhere::column(x, i);
    }
    let x = &x.contiguous()?;
    let (rows, columns) = x.dims2()?;
    if i >= columns {
        bail!("column: number {i} of {columns}");
    }
    let out = read(x)?.chunks(columns).map(|row| row[i]).collect();
    node("column", [x], out, rows, move |_, grad| {
        let mut dx = vec![0.0; rows * columns];
        dx.chunks_mut(columns).zip(grad).for_each(|(row, g)| row[i] = *g);
        Ok([Some(dx)])
    })
}

/// A scalar that has the given value and, towards x `[N]`, the given gradient.
///
/// # Errors
/// A gradient of another length, or x in neither f32 nor f64.
pub fn known(x: &Tensor, value: f64, gradient: Vec<f64>) -> Result<Tensor> {
    if gradient.len() != x.dims1()? {
        bail!("known: a gradient of {} elements for {:?}", gradient.len(), x.shape());
    }
    if !fused(&[x]) {
        return elsewhere::known(x, value, gradient);
    }
    node("known", [x], vec![value as f32], (), move |_, grad| {
        Ok([Some(gradient.iter().map(|&g| g as f32 * grad[0]).collect())])
    })
}
