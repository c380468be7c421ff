//! Products with a parameter.

use std::ops::Deref;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use half::bf16;

use super::adapter::Low;
use super::node::{Shared, fill, fused, node, read};
use super::{Experts, elsewhere};
use crate::Param;
use crate::gemm::{self, Panels, Product};
use crate::matrices::{InPlace, Packed};
use crate::param::{Chain, in_place};

/// `y = x W^T + b`: x `[T, ..]` with rows of K elements, w `[N, K]`, bias `[N]`, to `[T, N]`.
///
/// # Errors
/// Shapes that don't fit.
pub fn linear(x: &Tensor, w: &Param, bias: Option<&Param>) -> Result<Tensor> {
    let x = &x.contiguous()?;
    let weight = w.value();
    if !fused(&[x, &weight]) {
        return elsewhere::linear(x, w, bias);
    }
    let &[m, ref row @ ..] = x.dims() else { bail!("linear: x has no rows") };
    let k = row.iter().product();
    let (n, width) = w.shape().dims2()?;
    if n == 0 || row.is_empty() || width != k || bias.is_some_and(|bias| bias.elem_count() != n) {
        bail!("linear: x is {:?}, `{}` {:?}, the bias {:?}", x.shape(), w.name(), w.shape(), bias.map(Param::shape));
    }
    let low = Low::new(w, Heads { m, heads: 1, n, k, transposed: false, x_row: k, y_row: n })?;
    let (mut out, inner) = {
        let (values, packed) = (read(x)?, w.packed()?);
        let b = packed.panels(0, n, k);
        // SAFETY: the sizes are those of the tensors.
        unsafe {
            let mut out = fill(m * n, |c| gemm::run(&[Product::rows(m, n, k, values.as_ptr(), b, c)]));
            let inner = low.forward(values.as_ptr(), out.as_mut_ptr())?;
            (out, inner)
        }
    };
    if let Some(bias) = bias {
        let values = bias.value();
        let values = read(&values)?;
        out.chunks_mut(n).for_each(|row| row.iter_mut().zip(&*values).for_each(|(y, b)| *y += b));
    }
    let backward = {
        let (x, w, bias) = (x.clone(), w.clone(), bias.cloned());
        move |grad: &[f32]| -> Result<Option<Vec<f32>>> {
            if let Some(bias) = bias.as_ref().filter(|bias| bias.is_tracked()) {
                bias.accumulate(Chain::Product, |sums| {
                    grad.chunks(n).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, g)| *sum += g));
                });
            }
            if w.is_tracked() {
                let values = read(&x)?;
                let b = Panels::in_place(values.as_ptr(), k);
                w.accumulate(Chain::Product, |sums| {
                    let product =
                        Product { a_row: 1, a_k: n, ..Product::rows(n, k, m, grad.as_ptr(), b, sums.as_mut_ptr()) };
                    // SAFETY: the sizes are those of the tensors; the accumulator has the parameter's.
                    unsafe { gemm::run(&[Product { accumulate: true, ..product }]) };
                });
            }
            let values = read(&x)?;
            // SAFETY: the sizes are those of the tensors.
            unsafe {
                if !x.track_op() {
                    low.backward(values.as_ptr(), grad.as_ptr(), &inner, None)?;
                    return Ok(None);
                }
                let weight = w.compute_value()?;
                let b = in_place(&weight)?;
                let b = b.panels(0, k);
                let mut dx = fill(m * k, |c| gemm::run(&[Product::rows(m, k, n, grad.as_ptr(), b, c)]));
                low.backward(values.as_ptr(), grad.as_ptr(), &inner, Some(dx.as_mut_ptr()))?;
                Ok(Some(dx))
            }
        }
    };
    let anchor = w.anchor();
    match bias {
        None => node("linear", [x, &anchor], out, (m, n), move |_, grad| Ok([backward(grad)?, None])),
        Some(bias) => {
            node("linear", [x, &anchor, &bias.value()], out, (m, n), move |_, grad| Ok([backward(grad)?, None, None]))
        }
    }
}

/// A product for each head: x `[T, H, K]`, w `[H, N, K]` (`[H, K, N]` if `transposed`), to `[T, H, N]`.
///
/// # Errors
/// Shapes that don't fit.
pub fn head_linear(x: &Tensor, w: &Param, transposed: bool) -> Result<Tensor> {
    let x = &x.contiguous()?;
    let weight = w.value();
    if !fused(&[x, &weight]) {
        return elsewhere::head_linear(x, w, transposed);
    }
    let (m, heads, k) = x.dims3()?;
    let (count, rows, columns) = w.shape().dims3()?;
    let n = if transposed { columns } else { rows };
    if count != heads || (if transposed { rows } else { columns }) != k {
        bail!("head_linear: x is {:?}, `{}` {:?}, transposed: {transposed}", x.shape(), w.name(), w.shape());
    }
    let shape = Heads { m, heads, n, k, transposed, x_row: heads * k, y_row: heads * n };
    let low = Low::new(w, shape)?;
    let values = read(x)?;
    // SAFETY: the sizes are those of the tensors.
    let (out, inner) = unsafe {
        let mut done = Ok(());
        let mut out = fill(m * heads * n, |y| done = shape.forward(values.as_ptr(), w, y));
        done?;
        let inner = low.forward(values.as_ptr(), out.as_mut_ptr())?;
        (out, inner)
    };
    drop(values);
    let backward = {
        let (x, w) = (x.clone(), w.clone());
        move |_: &Tensor, grad: &[f32]| {
            // SAFETY: the sizes are those of the tensors.
            unsafe {
                let values = read(&x)?;
                shape.backward_weight(values.as_ptr(), grad.as_ptr(), &w);
                if !x.track_op() {
                    low.backward(values.as_ptr(), grad.as_ptr(), &inner, None)?;
                    return Ok([None, None]);
                }
                let mut done = Ok(());
                let mut dx = fill(m * heads * k, |dx| done = shape.backward_input(grad.as_ptr(), &w, dx));
                done?;
                low.backward(values.as_ptr(), grad.as_ptr(), &inner, Some(dx.as_mut_ptr()))?;
                Ok([Some(dx), None])
            }
        }
    };
    node("head_linear", [x, &w.anchor()], out, (m, heads, n), backward)
}

/// The sizes of a product by head. Head `h` of x begins `h * k` after a row's begin, and `h * (y_row / heads)` in y: a
/// row may hold more than the product reads or writes.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub m: usize,
    pub heads: usize,
    pub n: usize,
    pub k: usize,
    pub transposed: bool,
    pub x_row: usize,
    pub y_row: usize,
}

impl Heads {
    fn x_at(&self, head: usize) -> usize {
        head * (self.x_row / self.heads)
    }

    fn y_at(&self, head: usize) -> usize {
        head * (self.y_row / self.heads)
    }

    /// # Safety
    /// `x` and `y` have `m` rows of `x_row` and `y_row`.
    pub unsafe fn forward(&self, x: *const f32, w: &Param, y: *mut f32) -> Result<()> {
        let Self { m, n, k, transposed, .. } = *self;
        let (weight, packed) = (w.compute_value()?, if transposed { None } else { Some(w.packed()?) });
        let weight = in_place(&weight)?;
        let products: Vec<_> = (0..self.heads)
            .map(|head| {
                let b = match &packed {
                    Some(packed) => packed.panels(head, n, k),
                    None => weight.panels(head * n * k, n),
                };
                // SAFETY: offsets of a head within a row.
                let (x, y) = unsafe { (x.add(self.x_at(head)), y.add(self.y_at(head))) };
                Product { a_row: self.x_row, c_row: self.y_row, ..Product::rows(m, n, k, x, b, y) }
            })
            .collect();
        // SAFETY: the caller's; heads write disjoint columns.
        unsafe { gemm::run(&products) };
        Ok(())
    }

    /// Adds `dy^T x` to the parameter's gradient, if it takes one.
    ///
    /// # Safety
    /// As for [`Self::forward`].
    pub unsafe fn backward_weight(&self, x: *const f32, dy: *const f32, w: &Param) {
        let Self { m, n, k, transposed, .. } = *self;
        if !w.is_tracked() {
            return;
        }
        w.accumulate(Chain::Product, |sums| {
            let products: Vec<_> = (0..self.heads)
                .map(|head| {
                    // SAFETY: offsets of a head within a row, and of a matrix within the parameter.
                    let (x, dy, c) = unsafe {
                        (x.add(self.x_at(head)), dy.add(self.y_at(head)), sums.as_mut_ptr().add(head * n * k))
                    };
                    let product = if transposed {
                        let b = Panels::in_place(dy, self.y_row);
                        Product { a_k: self.x_row, ..Product::rows(k, n, m, x, b, c) }
                    } else {
                        let b = Panels::in_place(x, self.x_row);
                        Product { a_k: self.y_row, ..Product::rows(n, k, m, dy, b, c) }
                    };
                    Product { a_row: 1, accumulate: true, ..product }
                })
                .collect();
            // SAFETY: the caller's; heads have matrices of their own.
            unsafe { gemm::run(&products) };
        });
    }

    /// Writes the gradient of x.
    ///
    /// # Safety
    /// As for [`Self::forward`].
    pub unsafe fn backward_input(&self, dy: *const f32, w: &Param, dx: *mut f32) -> Result<()> {
        // With the two matrices' roles exchanged it is the other product.
        let Self { m, heads, n, k, transposed, x_row, y_row } = *self;
        let other = Self { m, heads, n: k, k: n, transposed: !transposed, x_row: y_row, y_row: x_row };
        // SAFETY: the caller's.
        unsafe { other.forward(dy, w, dx) }
    }
}

/// A product for each expert: x `[P, K]` sorted by expert, w `[E, N, K]`, to `[P, N]`.
///
/// # Errors
/// Shapes that don't fit.
pub fn grouped_linear(x: &Tensor, w: &Param, experts: &Arc<Experts>) -> Result<Tensor> {
    let x = &x.contiguous()?;
    let weight = w.value();
    if !fused(&[x, &weight]) {
        return elsewhere::grouped_linear(x, w, experts);
    }
    let (m, k) = x.dims2()?;
    let (count, n, width) = w.shape().dims3()?;
    if width != k || m != experts.rows.len() || count + 1 != experts.offsets.len() {
        bail!("grouped_linear: x is {:?}, `{}` {:?} for {m} pairs", x.shape(), w.name(), w.shape());
    }
    let out = {
        let (values, packed) = (read(x)?, w.packed()?);
        // SAFETY: the sizes are those of the tensors; the offsets ascend to m.
        unsafe { fill(m * n, |y| forward_groups(experts, values.as_ptr(), &packed, y, n, k)) }
    };
    let backward = {
        let (x, w, experts) = (x.clone(), w.clone(), experts.clone());
        move |_: &Tensor, grad: &[f32]| {
            // SAFETY: as above.
            unsafe {
                backward_group_weights(&experts, read(&x)?.as_ptr(), grad.as_ptr(), &w, n, k);
                if !x.track_op() {
                    return Ok([None, None]);
                }
                let weight = w.compute_value()?;
                let weight = in_place(&weight)?;
                let dx = fill(m * k, |dx| backward_groups(&experts, grad.as_ptr(), &weight, dx, n, k));
                Ok([Some(dx), None])
            }
        }
    };
    node("grouped_linear", [x, &weight], out, (m, n), backward)
}

/// One product for each expert that has pairs.
fn by_expert(experts: &Experts, product: impl Fn(usize, usize, usize) -> Product) -> Vec<Product> {
    let ranges = experts.offsets.windows(2).enumerate().filter(|(_, range)| range[0] < range[1]);
    ranges.map(|(expert, range)| product(expert, range[0], range[1] - range[0])).collect()
}

/// # Safety
/// `x` has a row of `k` and `y` one of `n` for each pair.
pub(crate) unsafe fn forward_groups(e: &Experts, x: *const f32, packed: &Packed, y: *mut f32, n: usize, k: usize) {
    let products = by_expert(e, |expert, start, m| {
        let b = packed.panels(expert, n, k);
        // SAFETY: rows of the expert's pairs.
        unsafe { Product::rows(m, n, k, x.add(start * k), b, y.add(start * n)) }
    });
    // SAFETY: the caller's; experts have rows of their own.
    unsafe { gemm::run(&products) };
}

/// # Safety
/// As for [`forward_groups`].
pub(crate) unsafe fn backward_groups(
    e: &Experts,
    dy: *const f32,
    weight: &InPlace<impl Deref<Target = [f32]>, impl Deref<Target = [bf16]>>,
    dx: *mut f32,
    n: usize,
    k: usize,
) {
    let products = by_expert(e, |expert, start, m| {
        let b = weight.panels(expert * n * k, k);
        // SAFETY: rows of the expert's pairs.
        unsafe { Product::rows(m, k, n, dy.add(start * n), b, dx.add(start * k)) }
    });
    // SAFETY: the caller's; experts have rows of their own.
    unsafe { gemm::run(&products) };
}

/// # Safety
/// As for [`forward_groups`].
pub(crate) unsafe fn backward_group_weights(e: &Experts, x: *const f32, dy: *const f32, w: &Param, n: usize, k: usize) {
    if !w.is_tracked() {
        return;
    }
    w.accumulate(Chain::Product, |sums| {
        let sums = Shared::new(sums.as_mut_ptr());
        let products = by_expert(e, |expert, start, m| {
            // SAFETY: rows of the expert's pairs, and its matrix.
            let (x, dy, c) = unsafe { (x.add(start * k), dy.add(start * n), sums.at(expert * n * k)) };
            let product = Product::rows(n, k, m, dy, Panels::in_place(x, k), c);
            Product { a_row: 1, a_k: n, accumulate: true, ..product }
        });
        // SAFETY: the caller's; experts have matrices of their own.
        unsafe { gemm::run(&products) };
    });
}
