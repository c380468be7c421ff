//! Random numbers that depend on a seed and an index alone, by SplitMix64 (Steele, Lea and Flood, "Fast splittable
//! pseudorandom number generators", OOPSLA 2014).

pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The random numbers of one row.
pub struct Stream(u64);

impl Stream {
    pub fn new(seed: u64, index: u64) -> Self {
        Self(mix(mix(seed) ^ mix(!index)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number in `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// An index of a list that is not empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Puts a list into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.index(i + 1));
        }
    }
}

/// An order of `0..len`: a Feistel network over the next even number of bits, walked until it is inside.
pub struct Bijection {
    keys: [u64; 6],
    half: u32,
    len: u64,
}

impl Bijection {
    pub fn new(seed: u64, round: u64, len: u64) -> Self {
        let bits = len.max(2).next_power_of_two().ilog2();
        let key = mix(seed) ^ mix(round.wrapping_add(1) << 32);
        Self { keys: std::array::from_fn(|i| mix(key.wrapping_add(i as u64))), half: bits.div_ceil(2), len }
    }

    /// What stands at `position`, which is below the length.
    pub fn at(&self, position: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let mut n = position;
        loop {
            let (mut left, mut right) = (n >> self.half, n & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            n = left << self.half | right;
            if n < self.len {
                return n;
            }
        }
    }
}
