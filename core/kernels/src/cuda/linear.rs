//! Products with a parameter.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::gpu::{Factor, Gpu, Matrix, Product, Weight, at, blocks, launch, on_gpu, start};
use super::node::node;
use super::rows::{add_columns, turn};
use crate::Param;
use crate::ops::{Rope, slow};

/// See [`crate::ops::linear`].
///
/// # Errors
/// Shapes that don't fit.
pub fn linear(x: &Tensor, w: &Param, bias: Option<&Param>) -> Result<Tensor> {
    let weight = w.value();
    if !on_gpu(&[x, &weight]) {
        return slow::linear(x, w, bias);
    }
    refuse_adapters(w)?;
    let (gpu, x) = (Gpu::of(x)?, &x.contiguous()?);
    let &[m, ref row @ ..] = x.dims() else { bail!("linear: x has no rows") };
    let k: usize = row.iter().product();
    let (n, width) = w.shape().dims2()?;
    if n == 0 || row.is_empty() || width != k || bias.is_some_and(|bias| bias.elem_count() != n) {
        bail!("linear: x is {:?}, `{}` {:?}, the bias {:?}", x.shape(), w.name(), w.shape(), bias.map(Param::shape));
    }
    let out = gpu.memory::<f32>(m * n)?;
    forward(&gpu, start(x)?, w, at(&out), (m, n, k))?;
    if let Some(bias) = bias {
        launch!(gpu, "add_bias", blocks(m * n), 256, 0; at(&out), start(&bias.value())?, (m * n) as u64, n as u32);
    }
    let backward = {
        let (gpu, x, w, bias) = (gpu.clone(), x.clone(), w.clone(), bias.cloned());
        move |grad: &Tensor| -> Result<Option<Tensor>> {
            let dy = start(grad)?;
            if let Some(bias) = bias.as_ref().filter(|bias| bias.is_tracked()) {
                bias.accumulate_on_device(|sums| add_columns(&gpu, dy, start(sums)?, m, n))?;
            }
            let dy = Factor::of(&gpu, dy, m * n, w.compute_dtype())?;
            if w.is_tracked() {
                let x = Factor::of(&gpu, start(&x)?, m * k, w.compute_dtype())?;
                w.accumulate_on_device(|sums| backward_weight(&gpu, &dy, &x, start(sums)?, (m, n, k)))?;
            }
            if !x.track_op() {
                return Ok(None);
            }
            let dx = gpu.memory::<f32>(m * k)?;
            backward_input(&gpu, &dy, &w, at(&dx), (m, n, k))?;
            Ok(Some(gpu.tensor(dx, x.shape())))
        }
    };
    match bias {
        None => node(&gpu, "linear", [x, &weight], out, (m, n), move |_, grad| Ok([backward(grad)?, None])),
        Some(bias) => node(&gpu, "linear", [x, &weight, &bias.value()], out, (m, n), move |_, grad| {
            Ok([backward(grad)?, None, None])
        }),
    }
}

/// There are no kernels for adapters yet: their product must not be left out in silence.
fn refuse_adapters(w: &Param) -> Result<()> {
    if w.adapters().is_empty() {
        return Ok(());
    }
    bail!("parameter `{}`: adapters are computed on the CPU only; say `device = \"cpu\"`", w.name())
}

/// `y = x W^T` of rows in memory.
pub(super) fn forward(gpu: &Gpu, x: u64, w: &Param, y: u64, (m, n, k): (usize, usize, usize)) -> Result<()> {
    let (x, weight) = (Factor::of(gpu, x, m * k, w.compute_dtype())?, Weight::of(w)?);
    let (a, b, c) = (Matrix::new(x.at, k), Matrix::new(weight.at, k).t(), Matrix::new(y, n));
    gpu.product((m, n, k), 1, &Product { dtype: x.dtype, a, b, c, accumulate: false })
}

/// `dW += dy^T x`.
pub(super) fn backward_weight(
    gpu: &Gpu,
    dy: &Factor,
    x: &Factor,
    dw: u64,
    (m, n, k): (usize, usize, usize),
) -> Result<()> {
    let (a, b, c) = (Matrix::new(dy.at, n).t(), Matrix::new(x.at, k), Matrix::new(dw, k));
    gpu.product((n, k, m), 1, &Product { dtype: x.dtype, a, b, c, accumulate: true })
}

/// `dx = dy W`.
pub(super) fn backward_input(
    gpu: &Gpu,
    dy: &Factor,
    w: &Param,
    dx: u64,
    (m, n, k): (usize, usize, usize),
) -> Result<()> {
    let weight = Weight::of(w)?;
    let (a, b, c) = (Matrix::new(dy.at, n), Matrix::new(weight.at, k), Matrix::new(dx, k));
    gpu.product((m, k, n), 1, &Product { dtype: dy.dtype, a, b, c, accumulate: false })
}

/// See [`crate::ops::head_linear`].
///
/// # Errors
/// Shapes that don't fit.
pub fn head_linear(x: &Tensor, w: &Param, transposed: bool) -> Result<Tensor> {
    let weight = w.value();
    if !on_gpu(&[x, &weight]) {
        return slow::head_linear(x, w, transposed);
    }
    refuse_adapters(w)?;
    let (gpu, x) = (Gpu::of(x)?, &x.contiguous()?);
    let (m, heads, k) = x.dims3()?;
    let (count, rows, columns) = w.shape().dims3()?;
    let n = if transposed { columns } else { rows };
    if count != heads || (if transposed { rows } else { columns }) != k {
        bail!("head_linear: x is {:?}, `{}` {:?}, transposed: {transposed}", x.shape(), w.name(), w.shape());
    }
    let shape = Heads { m, heads, n, k, transposed, x_row: heads * k, y_row: heads * n };
    let out = gpu.memory::<f32>(m * heads * n)?;
    shape.forward(&gpu, start(x)?, w, at(&out))?;
    let backward = {
        let (gpu, x, w) = (gpu.clone(), x.clone(), w.clone());
        move |_: &Tensor, grad: &Tensor| {
            shape.backward_weight(&gpu, start(&x)?, start(grad)?, &w)?;
            if !x.track_op() {
                return Ok([None, None]);
            }
            let dx = gpu.memory::<f32>(m * heads * k)?;
            shape.other_way().forward(&gpu, start(grad)?, &w, at(&dx))?;
            Ok([Some(gpu.tensor(dx, x.shape())), None])
        }
    };
    node(&gpu, "head_linear", [x, &weight], out, (m, heads, n), backward)
}

/// The sizes of a product by head; a row may hold more than the product reads or writes, as on the CPU.
#[derive(Clone, Copy)]
struct Heads {
    m: usize,
    heads: usize,
    n: usize,
    k: usize,
    transposed: bool,
    x_row: usize,
    y_row: usize,
}

impl Heads {
    fn x(&self, at: u64) -> Matrix {
        Matrix { at, row: self.x_row, batch: self.x_row / self.heads, transposed: false }
    }

    fn y(&self, at: u64) -> Matrix {
        Matrix { at, row: self.y_row, batch: self.y_row / self.heads, transposed: false }
    }

    /// The parameter's matrices, `[N, K]`, or `[K, N]` if transposed.
    fn w(&self, at: u64) -> Matrix {
        let row = if self.transposed { self.n } else { self.k };
        Matrix { at, row, batch: self.n * self.k, transposed: false }
    }

    fn forward(&self, gpu: &Gpu, x: u64, w: &Param, y: u64) -> Result<()> {
        let (x, weight) = (Factor::of(gpu, x, self.m * self.x_row, w.compute_dtype())?, Weight::of(w)?);
        let b = self.w(weight.at);
        let b = if self.transposed { b } else { b.t() };
        let product = Product { dtype: x.dtype, a: self.x(x.at), b, c: self.y(y), accumulate: false };
        gpu.product((self.m, self.n, self.k), self.heads, &product)
    }

    /// Adds `dy^T x` (`x^T dy` if transposed) to the parameter's gradient, if it takes one.
    fn backward_weight(&self, gpu: &Gpu, x: u64, dy: u64, w: &Param) -> Result<()> {
        if !w.is_tracked() {
            return Ok(());
        }
        let x = Factor::of(gpu, x, self.m * self.x_row, w.compute_dtype())?;
        let dy = Factor::of(gpu, dy, self.m * self.y_row, w.compute_dtype())?;
        let (first, second, n, k) = match self.transposed {
            true => (self.x(x.at), self.y(dy.at), self.k, self.n),
            false => (self.y(dy.at), self.x(x.at), self.n, self.k),
        };
        w.accumulate_on_device(|sums| {
            let c = self.w(start(sums)?);
            let product = Product { dtype: x.dtype, a: first.t(), b: second, c, accumulate: true };
            gpu.product((n, k, self.m), self.heads, &product)
        })
    }

    /// The product that gives the gradient of x from that of y: the matrices' roles are exchanged.
    fn other_way(&self) -> Self {
        let Self { m, heads, n, k, transposed, x_row, y_row } = *self;
        Self { m, heads, n: k, k: n, transposed: !transposed, x_row: y_row, y_row: x_row }
    }
}

/// See [`crate::ops::latent_query`].
///
/// # Errors
/// Shapes that don't fit, or a position beyond the table.
pub fn latent_query(q: &Tensor, key: &Param, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    let weight = key.value();
    if !on_gpu(&[q, &weight, &table.cos]) {
        return slow::latent_query(q, key, positions, table);
    }
    refuse_adapters(key)?;
    let (gpu, q) = (Gpu::of(q)?, &q.contiguous()?);
    let (heads, nope, latent) = key.shape().dims3()?;
    let (m, width) = match *q.dims() {
        [m, count, width] if count == heads => (m, width),
        [m, all] if heads > 0 && all % heads == 0 => (m, all / heads),
        _ => bail!("latent_query: q is {:?}, `{}` {:?}", q.shape(), key.name(), key.shape()),
    };
    if nope > width {
        bail!("latent_query: q is {:?}, `{}` {:?}", q.shape(), key.name(), key.shape());
    }
    let rotated = width - nope;
    table.check(rotated, positions, m)?;
    let (x_row, y_row) = (heads * width, heads * (latent + rotated));
    let product = Heads { m, heads, n: latent, k: nope, transposed: true, x_row, y_row };
    let out = gpu.memory::<f32>(m * y_row)?;
    product.forward(&gpu, start(q)?, key, at(&out))?;
    let (from, to) = ((width, nope), (latent + rotated, latent));
    turn(&gpu, table, positions, (start(q)?, from), (at(&out), to), (heads, rotated), false)?;
    let backward = {
        let (gpu, q, key, positions, table) = (gpu.clone(), q.clone(), key.clone(), positions.to_vec(), table.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dy = start(grad)?;
            product.backward_weight(&gpu, start(&q)?, dy, &key)?;
            if !q.track_op() {
                return Ok([None, None]);
            }
            let dq = gpu.memory::<f32>(m * x_row)?;
            product.other_way().forward(&gpu, dy, &key, at(&dq))?;
            turn(&gpu, &table, &positions, (dy, to), (at(&dq), from), (heads, rotated), true)?;
            Ok([Some(gpu.tensor(dq, q.shape())), None])
        }
    };
    node(&gpu, "latent_query", [q, &weight], out, (m, heads, latent + rotated), backward)
}
