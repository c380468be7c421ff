//! Functions whose bits are ours on every machine: std's `exp` and `ln` differ by platform.
//!
//! The vector forms do lane by lane what the scalar ones do, so a value never depends on where in a row it stood.

use crate::simd::{Lanes, Portable, dispatch, max_lanes, sum_lanes};

/// 1.5 * 2^23: adding it to a small number leaves that number's nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2, in a part that products with small integers keep exact, and the rest.
const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
/// Cephes' minimax polynomial for `(e^r - 1 - r) / r^2` on |r| <= ln 2 / 2.
const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
/// Below the first, the result is 0 (it would be denormal); from the second on, infinite.
const EXP_RANGE: (f32, f32) = (-87.0, 88.722_84);

/// `e^x` in every lane, within 2 units in the last place; 0 below -87.
#[inline(always)]
pub(crate) unsafe fn exp_lanes<L: Lanes>(x: L::V) -> L::V {
    // SAFETY: arithmetic on lanes; the caller has the instruction set.
    unsafe {
        let shifted = L::fma(x, L::splat(std::f32::consts::LOG2_E), L::splat(ROUND));
        let n = L::sub(shifted, L::splat(ROUND));
        let r = L::fma(n, L::splat(-LN2.0), x);
        let r = L::fma(n, L::splat(-LN2.1), r);
        let mut p = L::splat(EXP[0]);
        for coefficient in &EXP[1..] {
            p = L::fma(p, r, L::splat(*coefficient));
        }
        let p = L::add(L::fma(p, L::mul(r, r), r), L::splat(1.0));
        let y = L::add_exponent(p, shifted);
        let y = L::select_lt(x, L::splat(EXP_RANGE.0), L::splat(0.0), y);
        // A NaN comes here too, and stays one: the exponent was added to bits that mean something else.
        L::select_lt(x, L::splat(EXP_RANGE.1), y, L::add(x, L::splat(f32::INFINITY)))
    }
}

/// `1 / (1 + e^-x)` in every lane.
#[inline(always)]
pub(crate) unsafe fn sigmoid_lanes<L: Lanes>(x: L::V) -> L::V {
    // SAFETY: arithmetic on lanes; the caller has the instruction set.
    unsafe {
        let e = exp_lanes::<L>(L::sub(L::splat(0.0), x));
        L::div(L::splat(1.0), L::add(L::splat(1.0), e))
    }
}

/// `e^x`, within 2 units in the last place; 0 below -87.
pub fn exp(x: f32) -> f32 {
    // SAFETY: plain arithmetic.
    unsafe { exp_lanes::<Portable>([x; 16])[0] }
}

/// The natural logarithm, rounded from f64.
pub fn ln(x: f32) -> f32 {
    libm::log(f64::from(x)) as f32
}

/// Runs `$body` for each sixteen of `$n` elements from `$i` on, the count being 16 but at the end.
macro_rules! for_lanes {
    ($n:expr, |$i:ident, $count:ident| $body:expr) => {{
        let mut $i = 0;
        while $i + 16 <= $n {
            let $count = 16;
            $body;
            $i += 16;
        }
        if $i < $n {
            let $count = $n - $i;
            $body;
        }
    }};
}
pub(crate) use for_lanes;

/// Loads up to sixteen lanes.
#[inline(always)]
pub(crate) unsafe fn load<L: Lanes>(p: *const f32, count: usize) -> L::V {
    // SAFETY: the caller vouches for `count` lanes.
    unsafe { if count == 16 { L::load(p) } else { L::load_n(p, count) } }
}

/// Loads up to sixteen lanes; those beyond hold `rest`.
#[inline(always)]
pub(crate) unsafe fn load_or<L: Lanes>(p: *const f32, count: usize, rest: f32) -> L::V {
    // SAFETY: the caller vouches for `count` lanes.
    unsafe {
        let v = load::<L>(p, count);
        if count == 16 {
            return v;
        }
        let mut lanes = [rest; 16];
        L::store_n(lanes.as_mut_ptr(), v, count);
        L::load(lanes.as_ptr())
    }
}

/// Stores up to sixteen lanes.
#[inline(always)]
pub(crate) unsafe fn store<L: Lanes>(p: *mut f32, v: L::V, count: usize) {
    // SAFETY: the caller vouches for `count` lanes.
    unsafe { if count == 16 { L::store(p, v) } else { L::store_n(p, v, count) } }
}

/// The greatest of `x[..n]`.
#[inline(always)]
pub(crate) unsafe fn max_of<L: Lanes>(x: *const f32, n: usize) -> f32 {
    // SAFETY: the caller vouches for `n` elements.
    unsafe {
        let low = L::splat(f32::NEG_INFINITY);
        let mut max = low;
        for_lanes!(n, |i, count| max = L::max(load_or::<L>(x.add(i), count, f32::NEG_INFINITY), max));
        max_lanes::<L>(max)
    }
}

/// `sum(a * b)` by the fixed tree.
#[inline(always)]
pub(crate) unsafe fn dot<L: Lanes>(a: *const f32, b: *const f32, n: usize) -> f32 {
    // SAFETY: the caller vouches for `n` elements of each.
    unsafe {
        let mut sum = L::splat(0.0);
        for_lanes!(n, |i, count| sum = L::fma(load::<L>(a.add(i), count), load::<L>(b.add(i), count), sum));
        sum_lanes::<L>(sum)
    }
}

/// Replaces `x[..n]` by `e^(x - max)`; the sum of that by the fixed tree.
#[inline(always)]
pub(crate) unsafe fn exp_sum<L: Lanes>(x: *mut f32, n: usize, max: f32) -> f32 {
    // SAFETY: the caller vouches for `n` elements.
    unsafe {
        let shift = L::splat(max);
        let mut sum = L::splat(0.0);
        for_lanes!(n, |i, count| {
            let e = exp_lanes::<L>(L::sub(load::<L>(x.add(i), count), shift));
            store::<L>(x.add(i), e, count);
            // The lanes beyond the end hold e^-max, so the sum reads them back as zeros.
            sum = L::add(sum, if count == 16 { e } else { L::load_n(x.add(i), count) });
        });
        sum_lanes::<L>(sum)
    }
}

/// `sum(e^(x - max))` of `x[..n]` by the fixed tree, with the maximum.
#[inline(always)]
unsafe fn max_and_sum<L: Lanes>(x: *const f32, n: usize, scratch: *mut f32) -> (f32, f32) {
    // SAFETY: the caller vouches for `n` elements, and as many to scribble on.
    unsafe {
        let max = max_of::<L>(x, n);
        std::ptr::copy_nonoverlapping(x, scratch, n);
        (max, exp_sum::<L>(scratch, n, max))
    }
}

#[inline(always)]
unsafe fn scale_lanes<L: Lanes>(x: *const f32, out: *mut f32, n: usize, factor: f32) {
    // SAFETY: the caller vouches for `n` elements of each.
    unsafe {
        for_lanes!(n, |i, count| store::<L>(out.add(i), L::mul(load::<L>(x.add(i), count), L::splat(factor)), count));
    }
}

#[inline(always)]
unsafe fn exp_all_lanes<L: Lanes>(x: *mut f32, n: usize) {
    // SAFETY: the caller vouches for `n` elements.
    unsafe { for_lanes!(n, |i, count| store::<L>(x.add(i), exp_lanes::<L>(load::<L>(x.add(i), count)), count)) }
}

dispatch! { unsafe fn max_and_sum_of(x: *const f32, n: usize, scratch: *mut f32) -> (f32, f32) = max_and_sum }
dispatch! { pub(crate) unsafe fn scale(x: *const f32, out: *mut f32, n: usize, factor: f32) = scale_lanes }
dispatch! { unsafe fn exp_all_of(x: *mut f32, n: usize) = exp_all_lanes }
dispatch! { unsafe fn exp_sum_of(x: *mut f32, n: usize, max: f32) -> f32 = exp_sum }
dispatch! { unsafe fn greatest(x: *const f32, n: usize) -> f32 = max_of }

/// Replaces each element by `e^x`: the bits of [`exp`].
pub fn exp_all(x: &mut [f32]) {
    // SAFETY: pointer and length are the slice's.
    unsafe { exp_all_of(x.as_mut_ptr(), x.len()) }
}

/// Replaces each element by `e^(x - max)`; the sum of that.
pub(crate) fn exp_of(x: &mut [f32]) -> f32 {
    // SAFETY: pointer and length are the slice's.
    unsafe {
        let max = greatest(x.as_ptr(), x.len());
        exp_sum_of(x.as_mut_ptr(), x.len(), max)
    }
}

/// `ln(sum(e^row))`, the sum by the fixed tree; negative infinity for an empty row.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let mut scratch = vec![0.0; row.len()];
    // SAFETY: pointers and length are the slices', which are of one length.
    let (max, sum) = unsafe { max_and_sum_of(row.as_ptr(), row.len(), scratch.as_mut_ptr()) };
    max + ln(sum)
}

/// What logits are multiplied by.
pub(crate) fn inverse(temperature: f64) -> f32 {
    (1.0 / temperature) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{self, Level};

    #[test]
    fn exp_is_close_and_keeps_its_ends() {
        let mut worst = 0.0f64;
        for i in -870_000..=887_000 {
            let x = i as f32 * 1e-4;
            let exact = libm::exp(f64::from(x));
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 1.5e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(88.7).is_finite());
        for payload in [f32::NAN.to_bits(), 0x7FC0_0001, 0xFFC0_01FF, 0x7F80_0001] {
            assert!(exp(f32::from_bits(payload)).is_nan(), "{payload:x}");
        }
    }

    #[test]
    fn every_instruction_set_has_the_scalar_bits() {
        let x: Vec<f32> = (0..4099).map(|i| (i as f32 - 2000.0) * 0.0447).collect();
        let scalar: Vec<u32> = x.iter().map(|x| exp(*x).to_bits()).collect();
        for level in simd::tests::levels() {
            let _guard = simd::tests::with(level);
            let mut y = x.clone();
            exp_all(&mut y);
            assert_eq!(y.iter().map(|y| y.to_bits()).collect::<Vec<_>>(), scalar, "{level:?}");
        }
    }

    #[test]
    fn log_sum_exp_agrees_with_f64_and_with_itself() {
        let row: Vec<f32> = (0..77).map(|i| (i * 37 % 29) as f32 * 0.3 - 4.0).collect();
        let exact = libm::log(row.iter().map(|x| libm::exp(f64::from(*x))).sum());
        let mut seen = Vec::new();
        for level in simd::tests::levels() {
            let _guard = simd::tests::with(level);
            assert!((f64::from(log_sum_exp(&row)) - exact).abs() < 1e-6);
            seen.push(log_sum_exp(&row).to_bits());
        }
        assert!(seen.iter().all(|bits| *bits == seen[0]), "{seen:?} of {:?}", Level::Portable);
    }
}
