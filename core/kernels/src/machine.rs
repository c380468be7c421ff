//! What the processor can do at most: work of a known size on all compute threads, for a benchmark to time.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::pool;
use crate::simd::{Lanes, dispatch, sum_lanes};

/// Multiplies and adds in registers alone, on every compute thread; the floating-point operations that were done.
pub fn multiply_add(rounds: usize) -> f64 {
    let threads = pool::threads();
    let done = AtomicU32::new(0);
    pool::run(threads, |_| {
        // SAFETY: arithmetic in registers.
        let operations = unsafe { multiply_add_rounds(rounds) };
        done.store(operations.to_bits(), Ordering::Relaxed);
    });
    f64::from(f32::from_bits(done.into_inner())) * rounds as f64 * threads as f64
}

/// Reads all values once, shared among the compute threads. The result depends on them, so that nothing is left out.
pub fn read(values: &[f32]) -> f32 {
    let sum = AtomicU32::new(0);
    pool::run_ranges(values.len(), 1 << 20, |range| {
        // SAFETY: the range lies inside the slice.
        let part = unsafe { sum_of(values[range.clone()].as_ptr(), range.len()) };
        sum.fetch_xor(part.to_bits(), Ordering::Relaxed);
    });
    f32::from_bits(sum.into_inner())
}

/// The operations of a round.
#[inline(always)]
unsafe fn rounds_lanes<L: Lanes>(rounds: usize) -> f32 {
    // SAFETY: the caller has the instruction set.
    unsafe { if L::WIDE > 1 { chains::<L, 24>(rounds) } else { chains::<L, 6>(rounds) } }
}

/// `N` chains of multiply-adds that don't wait for each other.
#[inline(always)]
unsafe fn chains<L: Lanes, const N: usize>(rounds: usize) -> f32 {
    // SAFETY: arithmetic on lanes; the caller has the instruction set.
    unsafe {
        let (factor, term) = (L::splat(std::hint::black_box(0.999)), L::splat(std::hint::black_box(1e-3)));
        let mut sums = [L::splat(1.0); N];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = L::fma(*sum, factor, term);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += sum_lanes::<L>(sum);
        }
        std::hint::black_box(total);
    }
    (N * 16 * 2) as f32
}

#[inline(always)]
unsafe fn sum_of_lanes<L: Lanes>(values: *const f32, n: usize) -> f32 {
    // SAFETY: the caller vouches for `n` elements.
    unsafe {
        let mut sums = [L::splat(0.0); 4];
        for block in 0..n / 64 {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = L::add(*sum, L::load(values.add(block * 64 + 16 * i)));
            }
        }
        let [a, b, c, d] = sums;
        sum_lanes::<L>(L::add(L::add(a, b), L::add(c, d)))
    }
}

dispatch! { unsafe fn multiply_add_rounds(rounds: usize) -> f32 = rounds_lanes }
dispatch! { unsafe fn sum_of(values: *const f32, n: usize) -> f32 = sum_of_lanes }
