//! A parameter's matrices in the forms and the dtype that products read.

use std::ops::Deref;

use half::bf16;

use crate::gemm::{PANEL, Panels, pack_rows, packed_len};
use crate::ops::Shared;
use crate::pool;

/// The panels of the transpose of each `[N, K]` matrix, one matrix after another.
pub(crate) enum Packed {
    F32(Vec<f32>),
    /// Rounded to the nearest, ties to even.
    Bf16(Vec<bf16>),
}

/// The matrices as they lie, row after row.
pub(crate) enum InPlace<F, B> {
    F32(F),
    Bf16(B),
}

/// Elements below which a second thread costs more than it gives.
const GRAIN: usize = 1 << 14;

impl Packed {
    /// Room for the panels of `matrices` of `[n, k]`, in bf16 or f32.
    pub fn zeros(rounded: bool, matrices: usize, n: usize, k: usize) -> Self {
        let length = matrices * packed_len(k, n);
        if rounded { Self::Bf16(vec![bf16::ZERO; length]) } else { Self::F32(vec![0.0; length]) }
    }

    /// The panels of one matrix of `[n, k]`.
    pub fn panels(&self, matrix: usize, n: usize, k: usize) -> Panels {
        let at = matrix * packed_len(k, n);
        match self {
            Self::F32(panels) => Panels::packed(panels[at..].as_ptr(), k),
            Self::Bf16(panels) => Panels::packed(std::ptr::null(), k).in_bf16(panels[at..].as_ptr()),
        }
    }

    /// Packs matrices of `[n, k]`.
    pub fn fill(&mut self, values: &[f32], n: usize, k: usize) {
        match self {
            Self::F32(panels) => fill(values, n, k, panels, |x| x),
            Self::Bf16(panels) => fill(values, n, k, panels, bf16::from_f32),
        }
    }
}

fn fill<T: Copy + Default + Send>(
    values: &[f32],
    n: usize,
    k: usize,
    panels: &mut [T],
    convert: impl Fn(f32) -> T + Sync,
) {
    if panels.is_empty() {
        return;
    }
    let (count, each) = (panels.len() / (PANEL * k), n.div_ceil(PANEL));
    let out = Shared::new(panels.as_mut_ptr().cast::<f32>());
    pool::run_ranges(count, GRAIN.div_ceil(PANEL * k), |range| {
        for panel in range {
            let (matrix, first) = (panel / each, panel % each * PANEL);
            // SAFETY: the pointer is that of the panels again; this one lies inside, and is this task's.
            let out = unsafe {
                let start = out.at(0).cast::<T>().add(panel * PANEL * k);
                std::slice::from_raw_parts_mut(start, PANEL * k)
            };
            pack_rows(&values[(matrix * n + first) * k..], PANEL.min(n - first), k, k, out, &convert);
        }
    });
}

impl<F: Deref<Target = [f32]>, B: Deref<Target = [bf16]>> InPlace<F, B> {
    /// Panels over rows of `row` elements, from element `at` on.
    pub fn panels(&self, at: usize, row: usize) -> Panels {
        match self {
            Self::F32(values) => Panels::in_place(values[at..].as_ptr(), row),
            Self::Bf16(values) => Panels::in_place(std::ptr::null(), row).in_bf16(values[at..].as_ptr()),
        }
    }
}
