//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A number depends on its key and its counter alone, so that no order of work, number of threads or resume changes it.

/// What random numbers are drawn from: a hash of the run's seed and of a name, usually the stage's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngKey([u32; 2]);

impl RngKey {
    /// The key of `name` (a stage, a tensor) under `seed`: FNV-1a over the name, mixed with the seed by SplitMix64.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mixed = split_mix(seed ^ split_mix(hash));
        Self([mixed as u32, (mixed >> 32) as u32])
    }

    /// A key for a part of what this key stands for.
    #[must_use]
    pub fn derive(self, name: &str) -> Self {
        Self::new(self.seed(), name)
    }

    /// The key as one number: what a plugin is given as its seed.
    pub fn seed(self) -> u64 {
        u64::from(self.0[0]) | u64::from(self.0[1]) << 32
    }

    /// Four random words for a counter such as (step, prompt, completion, position).
    pub fn words(self, counter: [u32; 4]) -> [u32; 4] {
        let [mut x0, mut x1, mut x2, mut x3] = counter;
        let [mut k0, mut k1] = self.0;
        for _ in 0..10 {
            let p0 = u64::from(x0) * 0xd251_1f53;
            let p1 = u64::from(x2) * 0xcd9e_8d57;
            (x0, x1, x2, x3) = ((p1 >> 32) as u32 ^ x1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ x3 ^ k1, p0 as u32);
            k0 = k0.wrapping_add(0x9e37_79b9);
            k1 = k1.wrapping_add(0xbb67_ae85);
        }
        [x0, x1, x2, x3]
    }

    /// A number in [0, 1) with 24 bits, exact in f32.
    pub fn uniform(self, counter: [u32; 4]) -> f32 {
        (self.words(counter)[0] >> 8) as f32 / (1 << 24) as f32
    }

    /// A permutation of `0..len`, by Fisher-Yates, drawn from counters `(round, 0, 0, i)`.
    pub fn permutation(self, round: u32, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            let words = self.words([round, 0, 0, i as u32]);
            let wide = u64::from(words[0]) | u64::from(words[1]) << 32;
            // The high half of a 64 x 64 product maps the word to 0..=i with a bias below 2^-40.
            let j = ((u128::from(wide) * (i as u128 + 1)) >> 64) as usize;
            order.swap(i, j);
        }
        order
    }
}

fn split_mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (kat_vectors, philox4x32 10 rounds).
    #[test]
    fn philox_matches_its_known_answers() {
        assert_eq!(RngKey([0, 0]).words([0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(RngKey([ones; 2]).words([ones; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let key = RngKey([0xa409_3822, 0x299f_31d0]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(key.words(counter), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn a_permutation_holds_each_index_once_and_differs_by_round() {
        let key = RngKey::new(17, "prompts");
        let mut order = key.permutation(0, 100);
        assert_ne!(order, key.permutation(1, 100));
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn keys_differ_by_seed_and_name() {
        assert_ne!(RngKey::new(1, "a"), RngKey::new(2, "a"));
        assert_ne!(RngKey::new(1, "a"), RngKey::new(1, "b"));
    }
}
