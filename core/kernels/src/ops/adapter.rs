//! Low-rank adapters: what they add to a product with the parameter that they belong to.

use std::sync::Arc;

use candle_core::{Result, bail};

use super::linear::Heads;
use super::node::{fill, read};
use crate::Param;
use crate::gemm::{self, Panels, Product};
use crate::math::scale;
use crate::param::Chain;

/// Rows `first..first + N` of a parameter act as `W + scale * B A` (Hu et al., LoRA, arXiv 2106.09685, eq. 3), which is
/// never formed: a product with W also takes its x through A and B.
#[derive(Clone)]
pub struct Adapter {
    /// `[R, K]`.
    pub a: Param,
    /// `[N, R]`; `[H, N, R]` for a parameter `[H, N, K]`, whose heads share A.
    pub b: Param,
    /// The first row; 0 for a parameter with heads.
    pub first: usize,
    /// Multiplies the product of both.
    pub scale: f32,
}

/// The adapters of a parameter in a product of certain sizes.
pub(crate) struct Low {
    adapters: Arc<[Adapter]>,
    shape: Heads,
}

/// For each adapter `scale * x A^T` (transposed: `scale * x B`), `[T * H, R]`: what is kept for the backward pass.
pub(crate) type Inner = Vec<Vec<f32>>;

impl Low {
    /// # Errors
    /// Adapters that don't fit the parameter.
    pub fn new(w: &Param, shape: Heads) -> Result<Self> {
        let adapters = w.adapters().clone();
        for Adapter { a, b, first, .. } in adapters.iter() {
            let dims = w.shape().dims();
            let &[.., rows, width] = dims else { bail!("adapter: `{}` is {dims:?}", w.name()) };
            let (rank, of_a) = a.shape().dims2()?;
            let fits = match *b.shape().dims() {
                [n, r] => dims.len() == 2 && r == rank && first + n <= rows,
                [h, n, r] => dims.len() == 3 && (h, n, r) == (dims[0], rows, rank) && *first == 0,
                _ => false,
            };
            if of_a != width || !fits {
                bail!("adapter: {:?} and {:?} don't fit `{}` {dims:?} at {first}", a.shape(), b.shape(), w.name());
            }
        }
        Ok(Self { adapters, shape })
    }

    /// The adapter's part of the sizes, and how far its columns of y are from a row's begin.
    fn part(&self, adapter: &Adapter) -> (Heads, usize, usize) {
        let (rank, dims) = (adapter.a.shape().dims()[0], adapter.b.shape().dims());
        match self.shape.heads {
            1 if dims.len() == 2 => (Heads { n: dims[0], ..self.shape }, adapter.first, rank),
            _ => (self.shape, 0, rank),
        }
    }

    /// Adds to y.
    ///
    /// # Safety
    /// `x` and `y` have `m` rows of `x_row` and `y_row`; y is initialised.
    pub unsafe fn forward(&self, x: *const f32, y: *mut f32) -> Result<Inner> {
        self.adapters
            .iter()
            .map(|adapter| {
                let (Heads { m, heads, n, k, transposed, x_row, y_row }, first, rank) = self.part(adapter);
                let (x_head, y_head, rows) = (x_row / heads, y_row / heads, m * heads);
                let (a, b) = (adapter.a.value(), adapter.b.value());
                let (a, b) = (read(&a)?, read(&b)?);
                let (packed_a, packed_b) = (adapter.a.packed()?, adapter.b.packed()?);
                // SAFETY: the caller's; rows and heads lie as the sizes say.
                unsafe {
                    let y = y.add(first);
                    let mut inner = fill(rows * rank, |t| match transposed {
                        false => {
                            let b = packed_a.panels(0, rank, k);
                            gemm::run(&[Product { a_row: x_head, ..Product::rows(rows, rank, k, x, b, t) }]);
                        }
                        true => gemm::run(&by_head(heads, |h| {
                            let b = Panels::in_place(b[h * k * rank..].as_ptr(), rank);
                            let product = Product::rows(m, rank, k, x.add(h * x_head), b, t.add(h * rank));
                            Product { a_row: x_row, c_row: heads * rank, ..product }
                        })),
                    });
                    scale(inner.as_ptr(), inner.as_mut_ptr(), inner.len(), adapter.scale);
                    let t = inner.as_ptr();
                    match transposed {
                        false => gemm::run(&by_head(heads, |h| {
                            let b = packed_b.panels(h, n, rank);
                            let product = Product::rows(m, n, rank, t.add(h * rank), b, y.add(h * y_head));
                            Product { a_row: heads * rank, c_row: y_row, accumulate: true, ..product }
                        })),
                        true => {
                            let product = Product::rows(rows, n, rank, t, Panels::in_place(a.as_ptr(), n), y);
                            gemm::run(&[Product { c_row: y_head, accumulate: true, ..product }]);
                        }
                    }
                    Ok(inner)
                }
            })
            .collect()
    }

    /// Adds the gradients of A and B to theirs, and to `dx`, where there is one, the adapters' part.
    ///
    /// # Safety
    /// As for [`Self::forward`], with `dy` laid out as y and `dx` as x, initialised.
    pub unsafe fn backward(&self, x: *const f32, dy: *const f32, inner: &Inner, dx: Option<*mut f32>) -> Result<()> {
        for (adapter, inner) in self.adapters.iter().zip(inner) {
            let (Heads { m, heads, n, k, transposed, x_row, y_row }, first, rank) = self.part(adapter);
            let (x_head, y_head, rows, t) = (x_row / heads, y_row / heads, m * heads, inner.as_ptr());
            let (a, b) = (adapter.a.value(), adapter.b.value());
            let (a, b) = (read(&a)?, read(&b)?);
            let (packed_a, packed_b) = (adapter.a.packed()?, adapter.b.packed()?);
            // SAFETY: the caller's; rows and heads lie as the sizes say.
            unsafe {
                let dy = dy.add(first);
                let mut slopes = fill(rows * rank, |dt| match transposed {
                    false => gemm::run(&by_head(heads, |h| {
                        let b = Panels::in_place(b[h * n * rank..].as_ptr(), rank);
                        let product = Product::rows(m, rank, n, dy.add(h * y_head), b, dt.add(h * rank));
                        Product { a_row: y_row, c_row: heads * rank, ..product }
                    })),
                    true => {
                        let b = packed_a.panels(0, rank, n);
                        gemm::run(&[Product { a_row: y_head, ..Product::rows(rows, rank, n, dy, b, dt) }]);
                    }
                });
                scale(slopes.as_ptr(), slopes.as_mut_ptr(), slopes.len(), adapter.scale);
                let dt = slopes.as_ptr();
                if adapter.b.is_tracked() {
                    adapter.b.accumulate(Chain::Product, |sums| {
                        let (sums, step) = (sums.as_mut_ptr(), heads * rank);
                        gemm::run(&by_head(heads, |h| match transposed {
                            false => {
                                let (b, c) = (Panels::in_place(t.add(h * rank), step), sums.add(h * n * rank));
                                let product = Product::rows(n, rank, m, dy.add(h * y_head), b, c);
                                Product { a_row: 1, a_k: y_row, accumulate: true, ..product }
                            }
                            true => {
                                let (b, c) = (Panels::in_place(dt.add(h * rank), step), sums.add(h * k * rank));
                                let product = Product::rows(k, rank, m, x.add(h * x_head), b, c);
                                Product { a_row: 1, a_k: x_row, accumulate: true, ..product }
                            }
                        }));
                    });
                }
                if adapter.a.is_tracked() {
                    // The two halves of a latent's projection share A: each has a chain, or the order of additions would
                    // depend on how a batch is split. Within a chain rows are in order, and heads within rows.
                    let by_heads = adapter.b.shape().dims().len() == 3;
                    let chain = if by_heads && !transposed { Chain::OtherProduct } else { Chain::Product };
                    adapter.a.accumulate(chain, |sums| {
                        let sums = sums.as_mut_ptr();
                        let product = match transposed {
                            false => Product::rows(rank, k, rows, dt, Panels::in_place(x, x_head), sums),
                            true => Product::rows(rank, n, rows, t, Panels::in_place(dy, y_head), sums),
                        };
                        gemm::run(&[Product { a_row: 1, a_k: rank, accumulate: true, ..product }]);
                    });
                }
                let Some(dx) = dx else { continue };
                match transposed {
                    false => {
                        let product = Product::rows(rows, k, rank, dt, Panels::in_place(a.as_ptr(), k), dx);
                        gemm::run(&[Product { c_row: x_head, accumulate: true, ..product }]);
                    }
                    true => gemm::run(&by_head(heads, |h| {
                        let b = packed_b.panels(h, k, rank);
                        let product = Product::rows(m, k, rank, dt.add(h * rank), b, dx.add(h * x_head));
                        Product { a_row: heads * rank, c_row: x_row, accumulate: true, ..product }
                    })),
                }
            }
        }
        Ok(())
    }
}

fn by_head(heads: usize, product: impl Fn(usize) -> Product) -> Vec<Product> {
    (0..heads).map(product).collect()
}
