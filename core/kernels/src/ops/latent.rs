//! The two ends of multi-head latent attention (DeepSeek-V2 report, section 2.1) in absorbed form: queries and keys that
//! are part latent, part rotated, written in one go.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::adapter::Low;
use super::elsewhere;
use super::linear::Heads;
use super::node::{fill, fused, node, read};
use super::norm::Norm;
use super::rope::{Rope, Turn};
use crate::Param;

/// Queries for a latent key: of each head of q `[T, H, N + R]` or `[T, H * (N + R)]` the first N elements go through `key` `[H, N, L]`, the
/// others are rotated; to `[T, H, L + R]`.
///
/// # Errors
/// Shapes that don't fit, or a position beyond the table.
pub fn latent_query(q: &Tensor, key: &Param, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    let weight = key.value();
    if !fused(&[q, &weight]) {
        return elsewhere::latent_query(q, key, positions, table);
    }
    let q = &q.contiguous()?;
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
    let turn = Turn { heads, width: rotated, x_row, y_row, x_at: nope, y_at: latent };
    let back = Turn { x_row: y_row, y_row: x_row, x_at: latent, y_at: nope, ..turn };
    let low = Low::new(key, product)?;
    let mut done = Ok(());
    let (out, inner) = {
        let values = read(q)?;
        // SAFETY: the sizes are those of the tensors; product and rotation share each head's elements.
        unsafe {
            let mut out = fill(m * y_row, |y| {
                done = product.forward(values.as_ptr(), key, y);
                turn.run(table, positions, &values, y, false);
            });
            let inner = low.forward(values.as_ptr(), out.as_mut_ptr())?;
            (out, inner)
        }
    };
    done?;
    let anchor = key.anchor();
    let (source, key, positions, table) = (q.clone(), key.clone(), positions.to_vec(), table.clone());
    node("latent_query", [q, &anchor], out, (m, heads, latent + rotated), move |_, grad| {
        let values = read(&source)?;
        // SAFETY: as above.
        unsafe {
            product.backward_weight(values.as_ptr(), grad.as_ptr(), &key);
            if !source.track_op() {
                low.backward(values.as_ptr(), grad.as_ptr(), &inner, None)?;
                return Ok([None, None]);
            }
            let mut done = Ok(());
            let mut dq = fill(m * x_row, |dq| {
                done = product.backward_input(grad.as_ptr(), &key, dq);
                back.run(&table, &positions, grad, dq, true);
            });
            done?;
            low.backward(values.as_ptr(), grad.as_ptr(), &inner, Some(dq.as_mut_ptr()))?;
            Ok([Some(dq), None])
        }
    })
}

/// Latent keys: of each row of kv `[T, L + R]` the first L elements are normalised by `norm` `[L]`, the others rotated;
/// to `[T, 1, L + R]`.
///
/// # Errors
/// Shapes that don't fit, or a position beyond the table.
pub fn latent_key(kv: &Tensor, norm: &Param, eps: f64, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    let weight = norm.value();
    if !fused(&[kv, &weight]) {
        return elsewhere::latent_key(kv, norm, eps, positions, table);
    }
    let kv = &kv.contiguous()?;
    let ((rows, row), d) = (kv.dims2()?, norm.elem_count());
    if d == 0 || d > row {
        bail!("latent_key: kv is {:?}, `{}` {:?}", kv.shape(), norm.name(), norm.shape());
    }
    table.check(row - d, positions, rows)?;
    let sizes = Norm { rows, d, x_row: row, y_row: row, eps: eps as f32 };
    let turn = Turn { heads: 1, width: row - d, x_row: row, y_row: row, x_at: d, y_at: d };
    let out = {
        let (values, weight) = (read(kv)?, read(&weight)?);
        // SAFETY: the sizes are those of the tensors; norm and rotation share each row's elements.
        unsafe {
            fill(rows * row, |y| {
                sizes.forward(&values, &weight, y);
                turn.run(table, positions, &values, y, false);
            })
        }
    };
    let (source, norm, positions, table) = (kv.clone(), norm.clone(), positions.to_vec(), table.clone());
    node("latent_key", [kv, &weight], out, (rows, 1, row), move |_, grad| {
        let values = read(&source)?;
        // SAFETY: as above.
        unsafe {
            sizes.backward_weight(&values, grad, &norm);
            if !source.track_op() {
                return Ok([None, None]);
            }
            let weight = norm.value();
            let weight = read(&weight)?;
            let dx = fill(rows * row, |dx| {
                sizes.backward_input(&values, grad, &weight, dx);
                turn.run(&table, &positions, grad, dx, true);
            });
            Ok([Some(dx), None])
        }
    })
}
