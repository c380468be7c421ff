//! The arithmetic of attention for one sequence and one group of key heads, on one thread.
//!
//! Queries come in tiles of some tokens by all heads of the group, keys in blocks of 64 that begin at fixed positions of the
//! sequence. A row of scores is masked by its length: its sums have their lanes at fixed positions too, and what lies
//! beyond adds +0.0.

use super::Segment;
use crate::gemm::{self, PANEL, Panels, Product, pack_rows, packed_len};
use crate::math::{dot, exp_lanes, for_lanes, load, store};
use crate::ops::node::Shared;
use crate::scratch;
use crate::simd::{Lanes, dispatch, max_lanes, prefetch, sum_lanes};

/// Keys in a block: whole panels.
const BLOCK: usize = 2 * PANEL;
/// Rows (tokens by heads) of a tile.
const ROWS: usize = 64;

/// The sizes of q `[tokens, heads, dk]`, k `[tokens, groups, dk]` and v `[tokens, groups, dv]`.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub tokens: usize,
    pub heads: usize,
    pub groups: usize,
    pub dk: usize,
    pub dv: usize,
    pub scale: f32,
}

/// The keys and values of one group that a segment attends to.
pub(super) struct Keys<'a> {
    /// Transposed keys in panels of 32 tokens; packed by this call, or lying in a cache.
    panels: Option<&'a [f32]>,
    /// From one panel to the next.
    panel: usize,
    /// Rows of keys, where they are not in panels yet, and of values.
    rows: &'a [f32],
    values: &'a [f32],
    value_row: usize,
    /// The position of the segment's first token.
    first: usize,
}

impl<'a> Keys<'a> {
    /// Keys that a cache holds.
    pub fn cached(sizes: &Sizes, group: usize, panels: &'a [f32], values: &'a [f32], first: usize) -> Self {
        let Sizes { groups, dk, dv, .. } = *sizes;
        let panels = Some(&panels[group * dk * PANEL..]);
        Self {
            panels,
            panel: groups * dk * PANEL,
            rows: &[],
            values: &values[group * dv..],
            value_row: groups * dv,
            first,
        }
    }

    /// The segment's own keys `[tokens, groups, dk]` and values, the first `dv` of each `value_width`.
    pub fn packed(
        sizes: &Sizes,
        group: usize,
        segment: &Segment,
        k: &'a [f32],
        v: &'a [f32],
        value_width: usize,
    ) -> Self {
        let Sizes { groups, dk, .. } = *sizes;
        let at = |width: usize| (segment.start * groups + group) * width;
        let last = |x: &[f32], width: usize| if segment.len == 0 { x.len() } else { at(width) };
        let (rows, values) = (&k[last(k, dk)..], &v[last(v, value_width)..]);
        Self { panels: None, panel: dk * PANEL, rows, values, value_row: groups * value_width, first: 0 }
    }

    /// The transposed keys of block `from..`.
    fn block(&self, packed: &[f32], from: usize) -> Panels {
        let panels = self.panels.unwrap_or(packed);
        Panels::of(panels[from / PANEL * self.panel..].as_ptr(), PANEL, self.panel)
    }

    /// Asks for the cached keys and values of block `from..end`, which the caller needs next.
    fn fetch(&self, sizes: &Sizes, from: usize, end: usize) {
        let Some(panels) = self.panels.filter(|_| from < end) else { return };
        let last = end.min(from + BLOCK);
        for panel in from / PANEL..last.div_ceil(PANEL) {
            prefetch(&panels[panel * self.panel..][..sizes.dk * PANEL]);
        }
        for token in from..last {
            prefetch(&self.values[token * self.value_row..][..sizes.dv]);
        }
    }

    /// The values of block `from..` as they lie.
    fn values(&self, from: usize) -> *const f32 {
        self.values[from * self.value_row..].as_ptr()
    }
}

/// Where rows (a token's head) lie: all heads of a group are one run of rows where they are the only rows of their tokens
/// or where there is one token; otherwise each head is a run of its own.
#[derive(Clone, Copy)]
struct Rows {
    /// Runs, and heads of a token in each.
    runs: usize,
    per_token: usize,
    /// Tokens of a tile.
    tokens: usize,
    first_head: usize,
    /// From one row to the next, in heads.
    stride: usize,
}

impl Rows {
    fn of(sizes: &Sizes, group: usize, segment: &Segment) -> Self {
        let heads = sizes.heads / sizes.groups;
        let one_run = sizes.groups == 1 || segment.len == 1;
        let (runs, per_token) = if one_run { (1, heads) } else { (heads, 1) };
        let stride = if one_run { 1 } else { sizes.heads };
        Self { runs, per_token, tokens: (ROWS / per_token).max(1), first_head: group * heads, stride }
    }

    /// The number of a token's first row of a run, in heads.
    fn at(&self, sizes: &Sizes, token: usize, run: usize) -> usize {
        token * sizes.heads + self.first_head + run
    }
}

/// Attention of one segment's queries in one group.
///
/// # Safety
/// q, out and state have the sizes for all tokens, and the elements of this segment and group are this call's alone.
pub(super) unsafe fn forward(
    sizes: &Sizes,
    segment: &Segment,
    group: usize,
    q: *const f32,
    keys: &Keys<'_>,
    out: Shared,
    state: Shared,
) {
    let Sizes { dk, dv, scale, .. } = *sizes;
    let rows = Rows::of(sizes, group, segment);
    let most = rows.tokens * rows.per_token;
    let total = keys.first + segment.len;
    let packed = if keys.panels.is_some() { 0 } else { packed_len(dk, total) };
    scratch::with([packed, most * BLOCK, most * dv, 3 * most], |[packed, scores, sums, marks]| {
        if keys.panels.is_none() {
            pack_rows(keys.rows, total, dk, sizes.groups * dk, packed, |x| x);
        }
        for start in (0..segment.len).step_by(rows.tokens) {
            let tokens = rows.tokens.min(segment.len - start);
            let (m, end) = (tokens * rows.per_token, keys.first + start + tokens);
            for run in 0..rows.runs {
                let head = rows.at(sizes, segment.start + start, run);
                for from in (0..end).step_by(BLOCK) {
                    let n = BLOCK.min(end - from);
                    if run == 0 && start == 0 {
                        keys.fetch(sizes, from + BLOCK, end);
                    }
                    // SAFETY: the caller's sizes; scratch has room for a tile.
                    unsafe {
                        let q = q.add(head * dk);
                        let product = Product::rows(m, n, dk, q, keys.block(packed, from), scores.as_mut_ptr());
                        gemm::whole(&Product { a_row: rows.stride * dk, c_row: BLOCK, ..product });
                        let tile = Tile {
                            rows: m,
                            per_token: rows.per_token,
                            // Keys of the block that the tile's first token sees; it may see none.
                            seen: (keys.first + start + 1) as isize - from as isize,
                            n,
                            scale,
                            first: from == 0,
                            width: dv,
                        };
                        fold_scores(&tile, scores.as_mut_ptr(), sums.as_mut_ptr(), marks.as_mut_ptr());
                        let b = Panels::in_place(keys.values(from), keys.value_row);
                        let product = Product::rows(m, dv, n, scores.as_ptr(), b, sums.as_mut_ptr());
                        gemm::whole(&Product { a_row: BLOCK, accumulate: from > 0, ..product });
                    }
                }
                // SAFETY: as above.
                unsafe {
                    let (out, state) = (out.at(head * dv), state.at(2 * head));
                    finish(m, dv, rows.stride, sums.as_ptr(), marks.as_ptr(), out, state);
                }
            }
        }
    });
}

/// A tile of scores `[rows, n]`, rows 64 apart.
struct Tile {
    rows: usize,
    per_token: usize,
    seen: isize,
    n: usize,
    scale: f32,
    first: bool,
    width: usize,
}

impl Tile {
    /// How many keys of the block row `row` sees.
    #[inline(always)]
    fn count(&self, row: usize) -> usize {
        (self.seen + (row / self.per_token) as isize).clamp(0, self.n as isize) as usize
    }
}

/// Turns scores into exponentials relative to the greatest so far, and brings what was summed before to the same
/// reference. `marks` holds for each row the maximum and the sum.
#[inline(always)]
unsafe fn fold_lanes<L: Lanes>(tile: &Tile, scores: *mut f32, sums: *mut f32, marks: *mut f32) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for row in 0..tile.rows {
            let (scores, mark) = (scores.add(row * BLOCK), marks.add(2 * row));
            let count = tile.count(row);
            let (before, total) = if tile.first { (f32::NEG_INFINITY, 0.0) } else { (*mark, *mark.add(1)) };
            let low = L::splat(f32::NEG_INFINITY);
            let mut max = low;
            for_lanes!(count, |i, n| {
                let scaled = L::mul(load::<L>(scores.add(i), n), L::splat(tile.scale));
                store::<L>(scores.add(i), scaled, n);
                if n < 16 {
                    let mut lanes = [f32::NEG_INFINITY; 16];
                    L::store_n(lanes.as_mut_ptr(), scaled, n);
                    max = L::max(L::load(lanes.as_ptr()), max);
                } else {
                    max = L::max(scaled, max);
                }
            });
            let block = max_lanes::<L>(max);
            let greatest = if block > before { block } else { before };
            let mut sum = L::splat(0.0);
            for_lanes!(count, |i, n| {
                let e = exp_lanes::<L>(L::sub(load::<L>(scores.add(i), n), L::splat(greatest)));
                store::<L>(scores.add(i), e, n);
                sum = L::add(sum, load::<L>(scores.add(i), n));
            });
            for i in count..tile.n {
                *scores.add(i) = 0.0;
            }
            let sum = sum_lanes::<L>(sum);
            *mark = greatest;
            if tile.first {
                *mark.add(1) = sum;
            } else if count > 0 {
                let factor = exp_lanes::<L>(L::splat(before - greatest));
                *mark.add(1) = max_lanes::<L>(L::fma(L::splat(total), factor, L::splat(sum)));
                let sums = sums.add(row * tile.width);
                for_lanes!(tile.width, |i, n| {
                    store::<L>(sums.add(i), L::mul(load::<L>(sums.add(i), n), factor), n);
                });
            }
        }
    }
}

/// Divides by the sums. Adding +0.0 makes every zero positive: a masked key may have changed the sign of one.
#[inline(always)]
unsafe fn finish_lanes<L: Lanes>(
    rows: usize,
    width: usize,
    stride: usize,
    sums: *const f32,
    marks: *const f32,
    out: *mut f32,
    state: *mut f32,
) {
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for row in 0..rows {
            let (sums, out, state) =
                (sums.add(row * width), out.add(row * stride * width), state.add(2 * row * stride));
            let inverse = 1.0 / *marks.add(2 * row + 1);
            (*state, *state.add(1)) = (*marks.add(2 * row), inverse);
            for_lanes!(width, |i, n| {
                let x = L::fma(load::<L>(sums.add(i), n), L::splat(inverse), L::splat(0.0));
                store::<L>(out.add(i), x, n);
            });
        }
    }
}

dispatch! { unsafe fn fold_scores(tile: &Tile, scores: *mut f32, sums: *mut f32, marks: *mut f32) = fold_lanes }
dispatch! {
    unsafe fn finish(
        rows: usize, width: usize, stride: usize, sums: *const f32, marks: *const f32, out: *mut f32, state: *mut f32,
    ) = finish_lanes
}

/// Where the gradients go. v's may be a part of k's.
#[derive(Clone, Copy)]
pub(super) struct Gradients {
    pub q: Shared,
    pub k: Shared,
    pub v: Shared,
}

/// The gradients of one segment in one group (Dao, FlashAttention-2, algorithm 2).
///
/// # Safety
/// The slices (q, k, out, its gradient, state) and the gradients have the sizes for all tokens; the gradients are zero,
/// and their elements of this segment and group are this call's alone.
pub(super) unsafe fn backward(
    sizes: &Sizes,
    segment: &Segment,
    group: usize,
    [q, k, out, grad, state]: [&[f32]; 5],
    keys: &Keys<'_>,
    to: Gradients,
) {
    let Sizes { groups, dk, dv, scale, .. } = *sizes;
    let rows = Rows::of(sizes, group, segment);
    let most = rows.tokens * rows.per_token;
    let key_row = groups * dk;
    let lengths = [packed_len(dk, segment.len), packed_len(dv, segment.len), most * BLOCK, most * BLOCK];
    scratch::with(lengths, |[packed, packed_values, scores, slopes]| {
        pack_rows(keys.rows, segment.len, dk, key_row, packed, |x| x);
        pack_rows(keys.values, segment.len, dv, keys.value_row, packed_values, |x| x);
        for from in (0..segment.len).step_by(BLOCK) {
            // Earlier tokens see nothing of this block.
            for start in (from..segment.len).step_by(rows.tokens) {
                let tokens = rows.tokens.min(segment.len - start);
                let (m, n) = (tokens * rows.per_token, BLOCK.min(start + tokens - from));
                for run in 0..rows.runs {
                    let head = rows.at(sizes, segment.start + start, run);
                    let key = (segment.start + from) * groups + group;
                    let (q, out, grad) = (&q[head * dk..], &out[head * dv..], &grad[head * dv..]);
                    // SAFETY: the caller's sizes; scratch has room for a tile.
                    unsafe {
                        let b = keys.block(packed, from);
                        let product = Product::rows(m, n, dk, q.as_ptr(), b, scores.as_mut_ptr());
                        gemm::whole(&Product { a_row: rows.stride * dk, c_row: BLOCK, ..product });
                        let b = Panels::packed(packed_values[from / PANEL * PANEL * dv..].as_ptr(), dv);
                        let product = Product::rows(m, n, dv, grad.as_ptr(), b, slopes.as_mut_ptr());
                        gemm::whole(&Product { a_row: rows.stride * dv, c_row: BLOCK, ..product });
                        let seen = (start + 1) as isize - from as isize;
                        let per_token = rows.per_token;
                        let tile = Tile { rows: m, per_token, seen, n, scale, first: false, width: dv };
                        let of = (out.as_ptr(), grad.as_ptr(), state[2 * head..].as_ptr(), rows.stride);
                        slope_scores(&tile, scores.as_mut_ptr(), slopes.as_mut_ptr(), of);

                        let b = Panels::in_place(grad.as_ptr(), rows.stride * dv);
                        let c = to.v.at(key * keys.value_row / groups);
                        let product = Product::rows(n, dv, m, scores.as_ptr(), b, c);
                        let transposed = Product { a_row: 1, a_k: BLOCK, accumulate: true, ..product };
                        gemm::whole(&Product { c_row: keys.value_row, ..transposed });

                        let b = Panels::in_place(q.as_ptr(), rows.stride * dk);
                        let product = Product::rows(n, dk, m, slopes.as_ptr(), b, to.k.at(key * dk));
                        let transposed = Product { a_row: 1, a_k: BLOCK, accumulate: true, ..product };
                        gemm::whole(&Product { c_row: key_row, ..transposed });

                        let b = Panels::in_place(k[key * dk..].as_ptr(), key_row);
                        let product = Product::rows(m, dk, n, slopes.as_ptr(), b, to.q.at(head * dk));
                        let strided = Product { a_row: BLOCK, c_row: rows.stride * dk, ..product };
                        gemm::whole(&Product { accumulate: true, ..strided });
                    }
                }
            }
        }
    });
}

/// Turns scores into probabilities p, and the gradients of those, `slopes`, into gradients of the scores before scaling:
/// `p * (slope - sum(out * grad)) * scale`. `of`: out, grad and state of the tile's rows, and their stride.
#[inline(always)]
unsafe fn slope_lanes<L: Lanes>(
    tile: &Tile,
    scores: *mut f32,
    slopes: *mut f32,
    of: (*const f32, *const f32, *const f32, usize),
) {
    let (out, grad, state, stride) = of;
    // SAFETY: the caller vouches for the sizes.
    unsafe {
        for row in 0..tile.rows {
            let (scores, slopes) = (scores.add(row * BLOCK), slopes.add(row * BLOCK));
            let at = row * stride * tile.width;
            let mean = L::splat(dot::<L>(out.add(at), grad.add(at), tile.width));
            let state = state.add(2 * row * stride);
            let (max, inverse, scale) = (L::splat(*state), L::splat(*state.add(1)), L::splat(tile.scale));
            let count = tile.count(row);
            for_lanes!(count, |i, n| {
                let scaled = L::mul(load::<L>(scores.add(i), n), scale);
                let p = L::mul(exp_lanes::<L>(L::sub(scaled, max)), inverse);
                let d = L::mul(L::mul(p, L::sub(load::<L>(slopes.add(i), n), mean)), scale);
                store::<L>(scores.add(i), p, n);
                store::<L>(slopes.add(i), d, n);
            });
            for i in count..tile.n {
                (*scores.add(i), *slopes.add(i)) = (0.0, 0.0);
            }
        }
    }
}

dispatch! {
    unsafe fn slope_scores(
        tile: &Tile, scores: *mut f32, slopes: *mut f32, of: (*const f32, *const f32, *const f32, usize),
    ) = slope_lanes
}
