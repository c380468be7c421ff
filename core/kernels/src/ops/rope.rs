//! Rotary position embedding (Su et al., RoFormer, eq. 34).

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

use super::elsewhere;
use super::node::{Shared, fill, fused, node, read};
use super::norm::GRAIN;
use crate::math::{for_lanes, load, store};
use crate::pool;
use crate::simd::{Lanes, dispatch};

/// Tables of cosines and sines, `[max, R / 2]`, computed in f64.
#[derive(Clone, Debug)]
pub struct Rope {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
    cosines: Arc<[f32]>,
    sines: Arc<[f32]>,
    pub(crate) max: usize,
    pub(crate) interleaved: bool,
}

impl Rope {
    /// Tables for `max` positions. `inv_freq` has the `R / 2` angular frequencies, in radians a position; `scale`
    /// multiplies both tables (YaRN's attention factor). Interleaved, the pairs are `(0, 1), (2, 3), ..`, otherwise
    /// `(0, R/2), (1, R/2 + 1), ..`; a pair stays where it was.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(inv_freq: &[f64], scale: f64, max: usize, interleaved: bool, device: &Device) -> Result<Self> {
        let angles = || (0..max).flat_map(|position| inv_freq.iter().map(move |frequency| position as f64 * frequency));
        let cosines: Arc<[f32]> = angles().map(|angle| (libm::cos(angle) * scale) as f32).collect();
        let sines: Arc<[f32]> = angles().map(|angle| (libm::sin(angle) * scale) as f32).collect();
        let table = |values: &[f32]| Tensor::from_slice(values, (max, inv_freq.len()), device);
        Ok(Self { cos: table(&cosines)?, sin: table(&sines)?, cosines, sines, max, interleaved })
    }

    /// Refuses a position beyond the tables, or another width.
    pub(crate) fn check(&self, width: usize, positions: &[u32], rows: usize) -> Result<()> {
        let half = self.cos.dim(1)?;
        if width != 2 * half {
            bail!("rope: the input's last dimension is {width}, the table serves {}", 2 * half);
        }
        if positions.len() != rows {
            bail!("rope: {} positions for {rows} rows", positions.len());
        }
        if let Some(position) = positions.iter().find(|position| **position as usize >= self.max) {
            bail!("rope: position {position} lies beyond the table's {} positions", self.max);
        }
        Ok(())
    }

    /// The angles' cosines and sines at a position, and half a head's width.
    fn angles(&self, position: u32) -> (&[f32], &[f32], usize) {
        let half = self.cosines.len() / self.max;
        let from = position as usize * half;
        (&self.cosines[from..][..half], &self.sines[from..][..half], half)
    }

    /// Rotates `heads` heads that lie side by side, in place, or `back`.
    ///
    /// # Safety
    /// `y` has the elements of the heads; the position lies within the table.
    pub(crate) unsafe fn turn(&self, position: u32, heads: usize, y: *mut f32, back: bool) {
        let (cos, sin, half) = self.angles(position);
        for head in 0..heads {
            // SAFETY: the caller's.
            unsafe {
                let y = y.add(head * 2 * half);
                if self.interleaved {
                    turn_pairs(y, cos.as_ptr(), sin.as_ptr(), half, back);
                } else {
                    turn_halves(y, cos.as_ptr(), sin.as_ptr(), half, back);
                }
            }
        }
    }
}

/// Rotates the pairs `(0, 1), (2, 3), ..` in place.
unsafe fn turn_pairs(y: *mut f32, cos: *const f32, sin: *const f32, half: usize, back: bool) {
    let sign = if back { -1.0 } else { 1.0 };
    for i in 0..half {
        // SAFETY: the caller vouches for `half` angles and pairs.
        unsafe {
            let (cos, sin) = (*cos.add(i), *sin.add(i) * sign);
            let (a, b) = (*y.add(2 * i), *y.add(2 * i + 1));
            (*y.add(2 * i), *y.add(2 * i + 1)) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
}

/// Rotates the pairs `(0, half), (1, half + 1), ..` in place.
#[inline(always)]
unsafe fn turn_halves_lanes<L: Lanes>(y: *mut f32, cos: *const f32, sin: *const f32, half: usize, back: bool) {
    // SAFETY: the caller vouches for `half` angles and pairs.
    unsafe {
        let (first, second) = (y, y.add(half));
        let sign = L::splat(if back { -1.0 } else { 1.0 });
        for_lanes!(half, |i, n| {
            let (cos, sin) = (load::<L>(cos.add(i), n), L::mul(load::<L>(sin.add(i), n), sign));
            let (a, b) = (load::<L>(first.add(i), n), load::<L>(second.add(i), n));
            store::<L>(first.add(i), L::sub(L::mul(a, cos), L::mul(b, sin)), n);
            store::<L>(second.add(i), L::add(L::mul(b, cos), L::mul(a, sin)), n);
        });
    }
}

dispatch! {
    unsafe fn turn_halves(y: *mut f32, cos: *const f32, sin: *const f32, half: usize, back: bool) = turn_halves_lanes
}

/// Rotates each head of x `[T, H, R]` by the angles of its row's position.
///
/// # Errors
/// A position beyond the table, or another width.
pub fn rope(x: &Tensor, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    if !fused(&[x, &table.cos]) {
        return elsewhere::rope(x, positions, table);
    }
    let x = &x.contiguous()?;
    let (rows, heads, width) = x.dims3()?;
    table.check(width, positions, rows)?;
    let turn = Turn { heads, width, x_row: heads * width, y_row: heads * width, x_at: 0, y_at: 0 };
    let out = {
        let values = read(x)?;
        // SAFETY: the sizes are those of the tensor.
        unsafe { fill(values.len(), |y| turn.run(table, positions, &values, y, false)) }
    };
    let (positions, table) = (positions.to_vec(), table.clone());
    node("rope", [x], out, (rows, heads, width), move |_, grad| {
        // SAFETY: as above. The transpose of a rotation is the rotation back.
        Ok([Some(unsafe { fill(grad.len(), |dx| turn.run(&table, &positions, grad, dx, true)) })])
    })
}

/// Which part of each row is rotated: head `h` reads `width` elements from `h * (x_row / heads) + x_at`.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub heads: usize,
    pub width: usize,
    pub x_row: usize,
    pub y_row: usize,
    pub x_at: usize,
    pub y_at: usize,
}

impl Turn {
    /// Rotates rows of x to rows of y, or `back`.
    ///
    /// # Safety
    /// `y` has a row of `y_row` for each position; positions lie within the table.
    pub unsafe fn run(&self, table: &Rope, positions: &[u32], x: &[f32], y: *mut f32, back: bool) {
        let Self { heads, width, x_row, y_row, x_at, y_at } = *self;
        let y = Shared::new(y);
        pool::run_ranges(positions.len(), GRAIN.div_ceil((heads * width).max(1)), |range| {
            for row in range {
                for head in 0..heads {
                    let x = &x[row * x_row + head * (x_row / heads) + x_at..][..width];
                    // SAFETY: this row of y exists, and is this task's.
                    unsafe {
                        let y = y.at(row * y_row + head * (y_row / heads) + y_at);
                        std::ptr::copy_nonoverlapping(x.as_ptr(), y, width);
                        table.turn(positions[row], 1, y, back);
                    }
                }
            }
        });
    }
}
