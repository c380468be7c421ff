//! The heads of a joined projection, made ready for attention.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::elsewhere;
use super::node::{Shared, fill, fused, node, read};
use super::norm::{GRAIN, Norm};
use super::rope::Rope;
use crate::{Param, pool};

/// Which heads of a row: `count` of `width` elements each, from head number `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRange {
    /// The first head.
    pub first: usize,
    /// The number of heads.
    pub count: usize,
    /// The width of a head.
    pub width: usize,
}

/// Takes heads out of a joined projection: of each row of x `[T, C]` those of `range`, each normalised by `norm` `[D]` with
/// its eps, as [`super::rms_norm`] does, and then rotated by the angles of the row's position, as [`super::rope()`] does; to
/// `[T, count, D]`.
///
/// # Errors
/// Shapes that don't fit, or a position beyond the table.
pub fn heads(
    x: &Tensor,
    range: HeadRange,
    norm: Option<(&Param, f64)>,
    rotation: Option<(&[u32], &Arc<Rope>)>,
) -> Result<Tensor> {
    let weight = norm.map(|(param, _)| param.value());
    if !fused(&[x]) || weight.as_ref().is_some_and(|weight| !fused(&[weight])) {
        return elsewhere::heads(x, range, norm, rotation);
    }
    let x = &x.contiguous()?;
    let HeadRange { first, count, width } = range;
    let (rows, row) = x.dims2()?;
    if count == 0 || width == 0 || (first + count) * width > row {
        bail!("heads: x is {:?}, asked for {range:?}", x.shape());
    }
    if let Some((param, _)) = norm.filter(|(param, _)| param.elem_count() != width) {
        bail!("heads: {range:?}, `{}` {:?}", param.name(), param.shape());
    }
    if let Some((positions, table)) = rotation {
        table.check(width, positions, rows)?;
    }
    let sizes = Sizes { rows, row, start: first * width, count, width };
    let out = {
        let (values, weight) = (read(x)?, weight.as_ref().map(|weight| read(weight)).transpose()?);
        let norm = norm.zip(weight.as_deref()).map(|((_, eps), weight)| (sizes.norm(eps), weight));
        // SAFETY: the sizes are those of the tensors; positions lie within the table.
        unsafe { fill(rows * count * width, |y| sizes.forward(&values, norm, rotation, y)) }
    };
    let shape = (rows, count, width);
    let backward = {
        let (x, norm) = (x.clone(), norm.map(|(param, eps)| (param.clone(), eps)));
        let rotation = rotation.map(|(positions, table)| (positions.to_vec(), table.clone()));
        move |grad: &[f32]| -> Result<Option<Vec<f32>>> {
            let turned = rotation.as_ref().map(|(positions, table)| {
                // SAFETY: as above. The transpose of a rotation is the rotation back.
                unsafe { fill(grad.len(), |to| sizes.turn_back(grad, positions, table, to)) }
            });
            let grad = turned.as_deref().unwrap_or(grad);
            let Some((param, eps)) = &norm else {
                return Ok(x.track_op().then(|| sizes.spread(grad)));
            };
            let values = read(&x)?;
            if param.is_tracked() {
                let own = sizes.gather(&values);
                // SAFETY: `own` and the gradient have a row of the norm's width for each head.
                unsafe { Norm { rows: rows * count, ..sizes.norm(*eps) }.backward_weight(&own, grad, param) };
            }
            if !x.track_op() {
                return Ok(None);
            }
            let weight = param.value();
            let weight = read(&weight)?;
            Ok(Some(sizes.backward_norm(&values, grad, &weight, *eps)))
        }
    };
    match &weight {
        None => node("heads", [x], out, shape, move |_, grad| Ok([backward(grad)?])),
        Some(weight) => node("heads", [x, weight], out, shape, move |_, grad| Ok([backward(grad)?, None])),
    }
}

/// `rows` rows of `row` elements, of which `count` heads of `width` from element `start` on are meant.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    row: usize,
    start: usize,
    count: usize,
    width: usize,
}

impl Sizes {
    /// The norm of one row's heads.
    fn norm(&self, eps: f64) -> Norm {
        Norm { rows: self.count, d: self.width, x_row: self.width, y_row: self.width, eps: eps as f32 }
    }

    /// The elements of all heads of a row.
    fn taken(&self) -> usize {
        self.count * self.width
    }

    /// Row `row` of x, from the first head on.
    fn of<'a>(&self, x: &'a [f32], row: usize) -> &'a [f32] {
        &x[row * self.row + self.start..][..self.taken()]
    }

    fn each_row(&self, f: impl Fn(usize) + Sync) {
        pool::run_ranges(self.rows, GRAIN.div_ceil(self.taken()), |range| range.for_each(&f));
    }

    /// # Safety
    /// `y` has `rows * count * width` elements, a norm's weight `width`; positions lie within the table.
    unsafe fn forward(
        &self,
        x: &[f32],
        norm: Option<(Norm, &[f32])>,
        rotation: Option<(&[u32], &Arc<Rope>)>,
        y: *mut f32,
    ) {
        let y = Shared::new(y);
        self.each_row(|row| {
            let x = self.of(x, row);
            // SAFETY: this row of y exists, and is this task's.
            unsafe {
                let y = y.at(row * self.taken());
                match norm {
                    Some((norm, weight)) => norm.rows_on_this_thread(x.as_ptr(), weight, y),
                    None => std::ptr::copy_nonoverlapping(x.as_ptr(), y, x.len()),
                }
                if let Some((positions, table)) = rotation {
                    table.turn(positions[row], self.count, y, false);
                }
            }
        });
    }

    /// Rotates the output's gradient back.
    ///
    /// # Safety
    /// As for [`Self::forward`].
    unsafe fn turn_back(&self, grad: &[f32], positions: &[u32], table: &Rope, to: *mut f32) {
        let to = Shared::new(to);
        self.each_row(|row| {
            let grad = &grad[row * self.taken()..][..self.taken()];
            // SAFETY: this row exists, and is this task's.
            unsafe {
                let to = to.at(row * self.taken());
                std::ptr::copy_nonoverlapping(grad.as_ptr(), to, grad.len());
                table.turn(positions[row], self.count, to, true);
            }
        });
    }

    /// The heads of all rows, side by side.
    fn gather(&self, x: &[f32]) -> Vec<f32> {
        (0..self.rows).flat_map(|row| self.of(x, row)).copied().collect()
    }

    /// A gradient of x that is `grad` in the heads and zero elsewhere.
    fn spread(&self, grad: &[f32]) -> Vec<f32> {
        let mut dx = vec![0.0; self.rows * self.row];
        for (dx, grad) in dx.chunks_mut(self.row).zip(grad.chunks(self.taken())) {
            dx[self.start..][..self.taken()].copy_from_slice(grad);
        }
        dx
    }

    /// The same through the norm.
    fn backward_norm(&self, x: &[f32], grad: &[f32], weight: &[f32], eps: f64) -> Vec<f32> {
        let mut dx = vec![0.0; self.rows * self.row];
        let (to, norm) = (Shared::new(dx.as_mut_ptr()), self.norm(eps));
        self.each_row(|row| {
            let (x, grad) = (self.of(x, row), &grad[row * self.taken()..][..self.taken()]);
            // SAFETY: this row of dx exists, and is this task's.
            unsafe {
                norm.gradient_on_this_thread(x.as_ptr(), grad.as_ptr(), weight, to.at(row * self.row + self.start))
            };
        });
        dx
    }
}
