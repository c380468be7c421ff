//! Sixteen lanes of f32, in three instruction sets that give the same bits.
//!
//! A kernel is written once, generic over [`Lanes`], with every function on the way `#[inline(always)]`; [`dispatch!`]
//! instantiates it inside functions that enable the instruction set and picks one at run time. All operations are exact
//! or correctly rounded by IEEE 754, so the choice is a matter of speed alone.

use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Level {
    Portable = 1,
    Avx2 = 2,
    Avx512 = 3,
}

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// The best instruction set of this processor.
pub(crate) fn detect() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// The instruction set in use.
#[inline]
pub(crate) fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        1 => Level::Portable,
        2 => Level::Avx2,
        3 => Level::Avx512,
        _ => {
            let level = detect();
            LEVEL.store(level as u8, Ordering::Relaxed);
            level
        }
    }
}

/// Sixteen lanes of f32.
///
/// # Safety
/// Every method requires that the processor has the instruction set and that pointers are valid for the lanes that
/// are read or written.
pub(crate) trait Lanes: Copy {
    /// The vector.
    type V: Copy;
    /// How many rows of a product one tile has: as many as the registers hold.
    const ROWS: usize;
    /// How many vectors wide a tile is.
    const WIDE: usize;
    unsafe fn load(p: *const f32) -> Self::V;
    /// The first `n` lanes, the others +0.0.
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `n` lanes.
    unsafe fn store_n(p: *mut f32, v: Self::V, n: usize);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a > b ? a : b`, so `b` if one of them is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `a < b ? x : y`.
    unsafe fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Adds the low bits of `n` to the exponent of `p`.
    unsafe fn add_exponent(p: Self::V, n: Self::V) -> Self::V;
    /// Sixteen numbers in bf16, whose bits are the upper half of those of the same numbers in f32.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Asks for the cache line of an address, which need not be valid.
    unsafe fn prefetch(p: *const f32);
}

/// Plain Rust, for any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map2(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

impl Lanes for Portable {
    type V = [f32; 16];
    const ROWS: usize = 4;
    const WIDE: usize = 1;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller vouches for sixteen lanes; an array has the alignment of its element.
        unsafe { p.cast::<[f32; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> Self::V {
        let mut v = [0.0; 16];
        // SAFETY: the caller vouches for `n` lanes, n <= 16.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
        v
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: as in `load`.
        unsafe { p.cast::<[f32; 16]>().write(v) };
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: as in `load_n`.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n) };
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn sqrt(a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        std::array::from_fn(|lane| if a[lane] < b[lane] { x[lane] } else { y[lane] })
    }
    #[inline(always)]
    unsafe fn add_exponent(p: Self::V, n: Self::V) -> Self::V {
        map2(p, n, |p, n| f32::from_bits(p.to_bits().wrapping_add(n.to_bits() << 23)))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: the caller vouches for sixteen numbers.
        std::array::from_fn(|lane| f32::from_bits(u32::from(unsafe { p.add(lane).read() }) << 16))
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    /// A mask for `maskload`: the first `n` of eight lanes.
    #[inline(always)]
    unsafe fn mask8(n: usize) -> __m256i {
        const BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: n is clamped to 8, so eight integers from 8 - n on lie inside; the caller has AVX2.
        unsafe { _mm256_loadu_si256(BITS.as_ptr().add(8 - n.min(8)).cast()) }
    }

    // SAFETY (of all blocks below): the callers of `Lanes` vouch for the instruction set and for the pointers.
    impl Lanes for Avx2 {
        type V = (__m256, __m256);
        const ROWS: usize = 6;
        const WIDE: usize = 1;
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            unsafe { (_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
        }
        #[inline(always)]
        unsafe fn load_n(p: *const f32, n: usize) -> Self::V {
            // Masked-out lanes are not touched, so the second address may lie beyond the data.
            unsafe {
                let high = _mm256_maskload_ps(p.wrapping_add(8), mask8(n.saturating_sub(8)));
                (_mm256_maskload_ps(p, mask8(n)), high)
            }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            unsafe {
                _mm256_storeu_ps(p, v.0);
                _mm256_storeu_ps(p.add(8), v.1);
            }
        }
        #[inline(always)]
        unsafe fn store_n(p: *mut f32, v: Self::V, n: usize) {
            unsafe {
                _mm256_maskstore_ps(p, mask8(n), v.0);
                _mm256_maskstore_ps(p.wrapping_add(8), mask8(n.saturating_sub(8)), v.1);
            }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { (_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { (_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { (_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn sqrt(a: Self::V) -> Self::V {
            unsafe { (_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1)) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { (_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
            unsafe { (_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
            unsafe {
                (
                    _mm256_blendv_ps(y.0, x.0, _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0)),
                    _mm256_blendv_ps(y.1, x.1, _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1)),
                )
            }
        }
        #[inline(always)]
        unsafe fn add_exponent(p: Self::V, n: Self::V) -> Self::V {
            unsafe {
                let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(n.0));
                let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(n.1));
                (
                    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.0), low)),
                    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.1), high)),
                )
            }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self::V {
            unsafe {
                let widen = |p: *const u16| {
                    let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
                };
                (widen(p), widen(p.add(8)))
            }
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
    }

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    /// The first `n` of sixteen lanes.
    #[inline(always)]
    fn mask16(n: usize) -> __mmask16 {
        ((1u32 << n) - 1) as __mmask16
    }

    // SAFETY (of all blocks below): the callers of `Lanes` vouch for the instruction set and for the pointers.
    impl Lanes for Avx512 {
        type V = __m512;
        const ROWS: usize = 12;
        const WIDE: usize = 2;
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_n(p: *const f32, n: usize) -> Self::V {
            unsafe { _mm512_maskz_loadu_ps(mask16(n), p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn store_n(p: *mut f32, v: Self::V, n: usize) {
            unsafe { _mm512_mask_storeu_ps(p, mask16(n), v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(a: Self::V) -> Self::V {
            unsafe { _mm512_sqrt_ps(a) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn select_lt(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
        }
        #[inline(always)]
        unsafe fn add_exponent(p: Self::V, n: Self::V) -> Self::V {
            unsafe {
                let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(n));
                _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n))
            }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self::V {
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
    }
}

/// Asks for the cache lines of values that are read soon.
#[inline(always)]
pub(crate) fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        // SAFETY: every x86-64 processor has the instruction, and the address is valid.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Adds the lanes by the fixed tree: pairwise over 8, 4, 2, 1.
#[inline(always)]
pub(crate) unsafe fn sum_lanes<L: Lanes>(v: L::V) -> f32 {
    fold_lanes::<L>(v, |a, b| a + b)
}

/// The greatest lane.
#[inline(always)]
pub(crate) unsafe fn max_lanes<L: Lanes>(v: L::V) -> f32 {
    fold_lanes::<L>(v, |a, b| if a > b { a } else { b })
}

#[inline(always)]
fn fold_lanes<L: Lanes>(v: L::V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    // SAFETY: the array has sixteen lanes; a value of `L::V` exists only where the instruction set does.
    unsafe { L::store(lanes.as_mut_ptr(), v) };
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] = f(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

/// Defines a function that runs a kernel generic over [`Lanes`] with the instruction set in use.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? = $generic:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its registers")]
        $vis unsafe fn $name($($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,fma,avx2")]
            unsafe fn avx512($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller keeps the kernel's contract, and this function is only called with AVX-512.
                unsafe { $generic::<$crate::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller keeps the kernel's contract, and this function is only called with AVX2 and FMA.
                unsafe { $generic::<$crate::simd::Avx2>($($arg),*) }
            }
            // SAFETY: the caller keeps the kernel's contract; `level` never names what the processor lacks.
            unsafe {
                match $crate::simd::level() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Level::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::Level::Avx2 => avx2($($arg),*),
                    _ => $generic::<$crate::simd::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    static FORCED: Mutex<()> = Mutex::new(());

    /// The instruction sets of this processor.
    pub(crate) fn levels() -> Vec<Level> {
        let all = [Level::Portable, Level::Avx2, Level::Avx512];
        all.into_iter().filter(|level| *level as u8 <= detect() as u8).collect()
    }

    /// Uses one instruction set until the guard is dropped. Other tests may run meanwhile: the bits are the same.
    pub(crate) fn with(level: Level) -> impl Drop {
        struct Guard(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);
        impl Drop for Guard {
            fn drop(&mut self) {
                LEVEL.store(detect() as u8, Ordering::Relaxed);
            }
        }
        let guard = Guard(FORCED.lock().unwrap_or_else(PoisonError::into_inner));
        LEVEL.store(level as u8, Ordering::Relaxed);
        guard
    }

    const CONSTANTS: crate::optim::AdamW = crate::optim::AdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        bias_correction1: 0.3,
        bias_correction2: 0.2,
        grad_scale: 0.9,
    };

    #[test]
    fn the_instruction_set_changes_no_bit_of_a_network_and_its_update() {
        use crate::common::network::Network;

        for network in [Network::new(), Network::in_bf16()] {
            changes_no_bit(&network);
        }
    }

    fn changes_no_bit(network: &crate::common::network::Network) {
        let sequences = crate::common::network::Network::sequences();
        let mut seen = Vec::new();
        for level in levels() {
            let _guard = with(level);
            let mut slices = [1, 2, 3, 4].map(|seed| crate::common::numbers(seed, 1003));
            slices[3].iter_mut().for_each(|square| *square *= *square);
            let [value, gradient, mean, square] = &mut slices;
            crate::optim::adamw(value, gradient, mean, square, &CONSTANTS);
            let updated = slices.map(|slice| slice.into_iter().map(f32::to_bits).collect::<Vec<_>>());
            seen.push((level, network.forward(&sequences), network.gradients(&[&sequences]), updated));
        }
        let (_, forward, gradients, updated) = &seen[0];
        for (level, found, found_gradients, found_updated) in &seen[1..] {
            assert!(found == forward && found_updated == updated, "{level:?}");
            for (i, (found, expected)) in found_gradients.iter().zip(gradients).enumerate() {
                assert!(found == expected, "{level:?}: parameter {i}");
            }
        }
    }
}
