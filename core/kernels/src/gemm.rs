//! Products of matrices in f32.
//!
//! `C[i, j] (+)= sum over k of A[i, k] * B[k, j]`, k ascending, by fused multiply-add, starting from +0.0 or from what
//! C holds. C goes through memory between blocks of k, which changes no bit. B is read in panels of 32 columns, either
//! packed (`[k][32]`, the last panel padded) or in place; A is read in place with any strides.

use std::ops::Range;

use half::bf16;

use crate::math::{for_lanes, load, store};
use crate::simd::{Lanes, dispatch};
use crate::{pool, scratch};

/// The width of a panel.
pub(crate) const PANEL: usize = 32;
/// How much of k a pass over a block of C covers: A's part of a block stays in the second-level cache.
const DEPTH: usize = 512;
/// The most rows of C in a task: A's part and a panel of B stay in the second-level cache.
const ROWS: usize = 132;
/// Panels from which on a transposed A is worth being packed, and rows from which on a panel is: each is read so often.
const PACK: (usize, usize) = (4, 24);
/// Multiply-adds below which a second thread costs more than it gives.
const WORTH: usize = 1 << 18;

/// B, by panels: f32, or bf16 that is widened to it.
#[derive(Clone, Copy)]
pub(crate) struct Panels {
    start: *const u8,
    /// The bytes of an element: 4, or 2 for bf16.
    width: usize,
    /// From one k to the next.
    row: usize,
    /// From one panel to the next.
    panel: usize,
}

impl Panels {
    /// Panels of f32 with the given distances, in elements.
    pub fn of(start: *const f32, row: usize, panel: usize) -> Self {
        Self { start: start.cast(), width: 4, row, panel }
    }

    /// Packed panels of `depth` rows.
    pub fn packed(start: *const f32, depth: usize) -> Self {
        Self::of(start, PANEL, PANEL * depth)
    }

    /// A matrix whose rows are contiguous, in place.
    pub fn in_place(start: *const f32, row: usize) -> Self {
        Self::of(start, row, PANEL)
    }

    /// The same panels over numbers in bf16.
    pub fn in_bf16(self, start: *const bf16) -> Self {
        Self { start: start.cast(), width: 2, ..self }
    }

    fn is_bf16(&self) -> bool {
        self.width == 2
    }

    /// Where row `k` of a panel begins.
    fn at(&self, panel: usize, k: usize) -> *const u8 {
        self.start.wrapping_add((panel * self.panel + k * self.row) * self.width)
    }
}

/// One product.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const f32,
    /// From one row of A to the next.
    pub a_row: usize,
    /// From one k of A to the next.
    pub a_k: usize,
    pub b: Panels,
    pub c: *mut f32,
    pub c_row: usize,
    /// Adds to what C holds; otherwise C need not be initialised.
    pub accumulate: bool,
}

impl Product {
    /// A product of `m` contiguous rows of A with `b`, to contiguous rows of C.
    pub fn rows(m: usize, n: usize, k: usize, a: *const f32, b: Panels, c: *mut f32) -> Self {
        Self { m, n, k, a, a_row: k, a_k: 1, b, c, c_row: n, accumulate: false }
    }
}

/// A block of one product's C: what a task computes.
struct Block {
    product: usize,
    rows: Range<usize>,
    panels: Range<usize>,
}

/// Shares products with the compute threads.
struct Shared<'a>(&'a [Product]);
// SAFETY: `run`'s caller vouches for pointers that may be read, and for C's that are disjoint.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    fn get(&self, index: usize) -> &Product {
        &self.0[index]
    }
}

/// Computes all products, in parallel.
///
/// # Safety
/// For each product, A and B are valid for reads and C for writes over the ranges that its sizes and strides span (in
/// place, B's last panel only as far as n reaches; accumulating, C is initialised). No element of a C is touched by another
/// product, nor lies in an A or B.
pub(crate) unsafe fn run(products: &[Product]) {
    let work: usize = products.iter().map(|p| p.m * p.n * p.k).sum();
    let threads = if work < WORTH { 1 } else { pool::threads() };
    if threads == 1 {
        for product in products {
            for row in (0..product.m).step_by(ROWS) {
                // SAFETY: the caller's.
                unsafe { block(product, &(row..product.m.min(row + ROWS)), &(0..product.n.div_ceil(PANEL))) };
            }
        }
        return;
    }
    // SAFETY: the caller's.
    let (copies, products) = unsafe { gather(products) };
    // Eight tasks a thread: threads that wait for the last one lose half a task on average.
    let share = work / (8 * threads) + 1;
    let mut blocks = Vec::new();
    for (index, product) in products.iter().enumerate() {
        let panels = product.n.div_ceil(PANEL);
        let parts = (product.m * product.n * product.k).div_ceil(share);
        // Every block of rows reads its panels again, from memory if B is a large weight: columns are cut first.
        let height = product.m.div_ceil(product.m.div_ceil(ROWS)).next_multiple_of(12);
        let rows = product.m.div_ceil(height);
        let width = panels.div_ceil(parts.div_ceil(rows));
        for row in (0..product.m).step_by(height) {
            for panel in (0..panels).step_by(width) {
                let (rows, panels) = (row..product.m.min(row + height), panel..panels.min(panel + width));
                blocks.push(Block { product: index, rows, panels });
            }
        }
    }
    let shared = Shared(&products);
    pool::run(blocks.len(), |task| {
        let Block { product, rows, panels } = &blocks[task];
        // SAFETY: the caller's; blocks of one product are disjoint.
        unsafe { block(shared.get(*product), rows, panels) };
    });
    drop(copies);
}

/// The products with packed copies of every B that lies in place and that several blocks of rows read, and those copies.
///
/// # Safety
/// As for [`run`].
unsafe fn gather(products: &[Product]) -> (Vec<Vec<f32>>, Vec<Product>) {
    let read_again = |product: &&Product| product.b.row != PANEL && product.m > ROWS;
    let lengths = products.iter().filter(read_again).map(|product| packed_len(product.k, product.n));
    let mut copies: Vec<Vec<f32>> = lengths.map(Vec::with_capacity).collect();
    let pieces: Vec<(usize, usize, Destination)> = products
        .iter()
        .enumerate()
        .filter(|(_, product)| read_again(product))
        .zip(&mut copies)
        .flat_map(|((index, product), copy)| {
            let start = copy.as_mut_ptr();
            // The padding of the last panel stays uninitialised: no product reads it.
            (0..product.n.div_ceil(PANEL))
                .map(move |panel| (index, panel, Destination(start.wrapping_add(panel * PANEL * product.k))))
        })
        .collect();
    let shared = Shared(products);
    pool::run(pieces.len(), |piece| {
        let (index, panel, to) = &pieces[piece];
        let Product { n, k, b, .. } = shared.get(*index);
        // SAFETY: the caller's; the copy has room for all panels, and each is one task's.
        unsafe { gather_panel(*k, PANEL.min(n - panel * PANEL), b, *panel, to.0) };
    });
    let mut packed = copies.iter();
    let moved = products.iter().map(|product| match read_again(&product) {
        true => {
            let start = packed.next().map_or(std::ptr::null(), |copy| copy.as_ptr());
            Product { b: Panels::packed(start, product.k), ..*product }
        }
        false => *product,
    });
    let moved = moved.collect();
    (copies, moved)
}

/// Where a panel goes.
struct Destination(*mut f32);
// SAFETY: each is written by one task.
unsafe impl Sync for Destination {}

#[inline(always)]
unsafe fn gather_lanes<L: Lanes>(k: usize, columns: usize, b: &Panels, panel: usize, out: *mut f32) {
    // SAFETY: the caller's.
    unsafe { copy_panel::<L>(k, columns, b, (panel, 0), out) }
}

dispatch! {
    unsafe fn gather_panel(k: usize, columns: usize, b: &Panels, panel: usize, out: *mut f32) = gather_lanes
}

/// Computes one product on this thread, copying nothing: for small ones in f32.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn whole(product: &Product) {
    let panels = product.n.div_ceil(PANEL);
    for row in (0..product.m).step_by(ROWS) {
        // SAFETY: the caller's.
        unsafe { block_of(product, row..product.m.min(row + ROWS), 0..panels, Copies::NONE) };
    }
}

/// Computes some rows of some panels of C, with packed copies of what is read often and lies apart.
///
/// # Safety
/// As for [`run`].
unsafe fn block(product: &Product, rows: &Range<usize>, panels: &Range<usize>) {
    let (height, depth) = (rows.len(), DEPTH.min(product.k));
    let a = if product.a_row == 1 && panels.len() >= PACK.0 && height >= PACK.1 {
        height.next_multiple_of(12) * depth
    } else {
        0
    };
    let scattered = product.b.row != PANEL && height >= PACK.1;
    let b = if scattered || product.b.is_bf16() { PANEL * depth } else { 0 };
    scratch::with([a, b], |[a, b]| {
        // SAFETY: the caller's.
        unsafe {
            block_of(
                product,
                rows.clone(),
                panels.clone(),
                Copies { a: a.as_mut_ptr(), of_a: !a.is_empty(), b: b.as_mut_ptr(), of_b: !b.is_empty() },
            )
        }
    });
}

/// Room for copies of a part of a transposed A (tiles of rows, k by k) and of one panel of B, where they are worth it.
#[derive(Clone, Copy)]
struct Copies {
    a: *mut f32,
    of_a: bool,
    b: *mut f32,
    of_b: bool,
}

impl Copies {
    const NONE: Self = Self { a: std::ptr::null_mut(), of_a: false, b: std::ptr::null_mut(), of_b: false };
}

dispatch! {
    /// Computes a block of C.
    ///
    /// # Safety
    /// As for [`run`]; copies have room for the block.
    unsafe fn block_of(product: &Product, rows: Range<usize>, panels: Range<usize>, copies: Copies) = block_lanes
}

#[inline(always)]
unsafe fn block_lanes<L: Lanes>(product: &Product, rows: Range<usize>, panels: Range<usize>, copies: Copies) {
    let Product { n, k, a, a_row, a_k, b, c, c_row, accumulate, .. } = *product;
    let mut from = 0;
    loop {
        let depth = DEPTH.min(k - from);
        let add = accumulate || from > 0;
        if copies.of_a {
            // SAFETY: rows and k lie within A, and the copy has room for whole tiles.
            unsafe {
                let a = a.add(rows.start + from * a_k);
                pack_tiles::<L>(rows.len(), depth, a, a_k, copies.a);
            }
        }
        for panel in panels.clone() {
            let mut column = panel * PANEL;
            let end = n.min(column + PANEL);
            let (mut panel_b, b_row) = if copies.of_b {
                // SAFETY: rows and columns lie within B, and the copy has room for a panel.
                unsafe { copy_panel::<L>(depth, end - column, &b, (panel, from), copies.b) };
                (copies.b.cast_const(), PANEL)
            } else {
                (b.at(panel, from).cast::<f32>(), b.row)
            };
            // The next panel comes from memory while this one is computed with, a part of it with each tile: where it lies in
            // one piece a share, otherwise lines of each row with the first ones.
            let next = b.at(panel + 1, from).cast::<f32>();
            let (wide, row) = (PANEL * b.width / 4, b.row * b.width / 4);
            let share = wide.div_ceil(rows.len().div_ceil(L::ROWS));
            let fetched = |tile: usize| match (panel + 1 < panels.end, b.row == PANEL) {
                (true, true) => (next.wrapping_add(tile * depth * share), share),
                (true, false) if tile < wide / 16 => (next.wrapping_add(16 * tile), row),
                _ => (next, 0),
            };
            while column < end {
                let columns = (end - column).min(16 * L::WIDE);
                let mut row = rows.start;
                while row < rows.end {
                    let count = (rows.end - row).min(L::ROWS);
                    let done = row - rows.start;
                    let (next, next_row) = fetched(done / L::ROWS);
                    // SAFETY: as above; rows and columns end where C does.
                    unsafe {
                        let (a, a_row, a_k) = if copies.of_a {
                            (copies.a.add(done * depth).cast_const(), 1, L::ROWS)
                        } else {
                            (a.add(row * a_row + from * a_k), a_row, a_k)
                        };
                        let tile = Tile {
                            k: depth,
                            a,
                            a_row,
                            a_k,
                            b: panel_b,
                            b_row,
                            c: c.add(row * c_row + column),
                            c_row,
                            columns,
                            add,
                            next,
                            next_row,
                        };
                        if copies.of_a { tile_of::<L, true>(count, &tile) } else { tile_of::<L, false>(count, &tile) }
                    }
                    row += count;
                }
                column += columns;
                panel_b = panel_b.wrapping_add(columns);
            }
        }
        from += depth;
        if from >= k {
            break;
        }
    }
}

/// Copies `m` rows of a transposed A to tiles of as many rows as fit the registers, k by k within a tile. The last tile's
/// missing rows are left as they are: no product reads them.
#[inline(always)]
unsafe fn pack_tiles<L: Lanes>(m: usize, k: usize, a: *const f32, a_k: usize, out: *mut f32) {
    // Each k's rows lie side by side: they are read as one stream, and dealt to the tiles.
    for step in 0..k {
        for top in (0..m).step_by(L::ROWS) {
            let rows = L::ROWS.min(m - top);
            // SAFETY: the caller's; a tile has room for L::ROWS * k.
            unsafe { L::store_n(out.add(top * k + step * L::ROWS), L::load_n(a.add(step * a_k + top), rows), rows) };
        }
    }
}

/// Copies `k` rows of `columns` of a panel, from row `from` on, to a packed one in f32.
#[inline(always)]
unsafe fn copy_panel<L: Lanes>(k: usize, columns: usize, b: &Panels, (panel, from): (usize, usize), out: *mut f32) {
    for step in 0..k {
        // SAFETY: the caller's; the panel has room for 32 columns in each row.
        unsafe {
            let (row, to) = (b.at(panel, from + step), out.add(step * PANEL));
            if b.is_bf16() {
                let row = row.cast::<bf16>();
                for_lanes!(columns, |i, count| store::<L>(to.add(i), widen::<L>(row.add(i), count), count));
            } else {
                let row = row.cast::<f32>();
                for_lanes!(columns, |i, count| store::<L>(to.add(i), load::<L>(row.add(i), count), count));
            }
        }
    }
}

/// Loads up to sixteen numbers in bf16, which f32 holds exactly.
#[inline(always)]
unsafe fn widen<L: Lanes>(p: *const bf16, count: usize) -> L::V {
    // SAFETY: the caller vouches for `count` numbers.
    unsafe {
        if count == 16 {
            return L::load_bf16(p.cast());
        }
        let mut rest = [0u16; 16];
        std::ptr::copy_nonoverlapping(p.cast(), rest.as_mut_ptr(), count);
        L::load_bf16(rest.as_ptr())
    }
}

/// A block of C that fits into registers.
struct Tile {
    k: usize,
    a: *const f32,
    a_row: usize,
    a_k: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    columns: usize,
    add: bool,
    /// What is fetched into the caches meanwhile, and how far that goes on with each k.
    next: *const f32,
    next_row: usize,
}

/// Picks the instance for the number of rows and of columns.
#[inline(always)]
unsafe fn tile_of<L: Lanes, const PACKED: bool>(rows: usize, tile: &Tile) {
    macro_rules! pick {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= L::ROWS => unsafe {
                    // SAFETY: the caller's.
                    match (tile.columns > 16, tile.columns % 16 == 0) {
                        (false, true) => tile_lanes::<L, $rows, 1, true, PACKED>(tile),
                        (false, false) => tile_lanes::<L, $rows, 1, false, PACKED>(tile),
                        (true, true) if L::WIDE > 1 => tile_lanes::<L, $rows, 2, true, PACKED>(tile),
                        (true, false) if L::WIDE > 1 => tile_lanes::<L, $rows, 2, false, PACKED>(tile),
                        _ => {}
                    }
                },)*
                _ => {}
            }
        };
    }
    pick!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// The micro-kernel: `R` rows by `W` vectors, of which the last is whole or has the rest of the columns.
#[expect(clippy::needless_range_loop, reason = "rows and columns are registers")]
#[inline(always)]
unsafe fn tile_lanes<L: Lanes, const R: usize, const W: usize, const WHOLE: bool, const PACKED: bool>(tile: &Tile) {
    let Tile { k, a, a_row, a_k, b, b_row, c, c_row, columns, add, next, next_row } = *tile;
    let (a_row, a_k) = if PACKED { (1, L::ROWS) } else { (a_row, a_k) };
    let rest = columns - 16 * (W - 1);
    // SAFETY: rows, columns and k lie within what `run`'s caller vouches for.
    unsafe {
        let mut sums = [[L::splat(0.0); W]; R];
        if add {
            for row in 0..R {
                for wide in 0..W {
                    let p = c.add(row * c_row + 16 * wide);
                    sums[row][wide] = if WHOLE || wide + 1 < W { L::load(p) } else { L::load_n(p, rest) };
                }
            }
        }
        let mut b = b;
        let mut a = a;
        let mut next = next;
        for _ in 0..k {
            L::prefetch(next);
            next = next.wrapping_add(next_row);
            let mut columns = [L::splat(0.0); W];
            for wide in 0..W {
                let p = b.add(16 * wide);
                columns[wide] = if WHOLE || wide + 1 < W { L::load(p) } else { L::load_n(p, rest) };
            }
            for row in 0..R {
                let factor = L::splat(*a.add(row * a_row));
                for wide in 0..W {
                    sums[row][wide] = L::fma(factor, columns[wide], sums[row][wide]);
                }
            }
            b = b.wrapping_add(b_row);
            a = a.wrapping_add(a_k);
        }
        for row in 0..R {
            for wide in 0..W {
                let p = c.add(row * c_row + 16 * wide);
                if WHOLE || wide + 1 < W { L::store(p, sums[row][wide]) } else { L::store_n(p, sums[row][wide], rest) }
            }
        }
    }
}

/// The floats that packed panels of a `[k, n]` matrix take.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// Packs the transpose of `w` (`n` rows of `k`, `row` apart) into panels: `out[panel][k][32]`, padded by 0.
pub(crate) fn pack_rows<T: Copy + Default>(
    w: &[f32],
    n: usize,
    k: usize,
    row: usize,
    out: &mut [T],
    convert: impl Fn(f32) -> T,
) {
    for (panel, out) in out.chunks_mut(PANEL * k).enumerate() {
        let rows = PANEL.min(n - panel * PANEL);
        if rows < PANEL {
            out.fill(T::default());
        }
        // Small squares keep both sides in cache lines that are there already.
        for from in (0..k).step_by(16) {
            let to = k.min(from + 16);
            for r in 0..rows {
                let source = &w[(panel * PANEL + r) * row..][from..to];
                for (value, out) in source.iter().zip(out[from * PANEL..].chunks_mut(PANEL)) {
                    out[r] = convert(*value);
                }
            }
        }
    }
}
