//! MinHash signatures, cut into bands (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3.4).
//!
//! One hash function serves for all numbers of a signature: it deals the shingles into bins, of which each keeps its least, and
//! an empty bin borrows from another that is chosen by its own number alone (Shrivastava, "Optimal Densification for Fast and
//! Accurate Minwise Hashing", ICML 2017).

use filtering::mix;

/// Bins, and so numbers of a signature.
const BINS: usize = 128;

/// The probability that a pair as similar as the threshold is compared.
const RECALL: f64 = 0.995;

/// How a signature is cut: numbers of a band, as many as the threshold allows, since each spares comparisons.
pub struct Bands {
    rows: usize,
}

impl Bands {
    pub fn new(threshold: f64) -> Self {
        let recall = |rows: usize| {
            let band = (0..rows).fold(1.0, |p, _| p * threshold);
            1.0 - (0..BINS / rows).fold(1.0, |p, _| p * (1.0 - band))
        };
        let rows = [32, 16, 8, 4, 2].into_iter().find(|rows| recall(*rows) >= RECALL).unwrap_or(1);
        Self { rows }
    }

    /// A key for each band of a set that is not empty: two texts are compared if they share one.
    pub fn keys(&self, shingles: &[u64]) -> Vec<u64> {
        let mut bins = [u64::MAX; BINS];
        for shingle in shingles {
            let hash = mix(*shingle ^ 0x6a09_e667_f3bc_c908);
            let bin = &mut bins[(hash >> (64 - BINS.trailing_zeros())) as usize];
            *bin = (*bin).min(hash);
        }
        let signature: Vec<u64> = (0..BINS).map(|i| lender(&bins, i)).collect();
        let key =
            |(band, numbers): (usize, &[u64])| numbers.iter().fold(band as u64, |key, n| mix(key.rotate_left(7) ^ n));
        signature.chunks(self.rows).enumerate().map(key).collect()
    }
}

/// What a bin holds, or the first bin that holds anything of those that its number leads to.
fn lender(bins: &[u64; BINS], i: usize) -> u64 {
    let mut attempt = 0;
    let mut at = i;
    while bins[at] == u64::MAX {
        attempt += 1;
        at = (mix((i as u64) << 32 | attempt) % BINS as u64) as usize;
    }
    bins[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_threshold_makes_wider_bands() {
        assert_eq!([0.5, 0.7, 0.8, 0.9, 1.0].map(|threshold| Bands::new(threshold).rows), [2, 4, 4, 8, 32]);
    }

    /// Of pairs as similar as the threshold nearly all share a band, of pairs far below it few do.
    #[test]
    fn similar_sets_share_a_band() {
        let bands = Bands::new(0.8);
        let share = |common: u64, own: u64| {
            let pairs = 400;
            let shares = |pair: &u64| {
                let set = |salt: u64| {
                    let common = (0..common).map(|i| mix(pair << 32 | i));
                    common.chain((0..own).map(|i| mix(salt << 60 | pair << 32 | i | 1 << 30))).collect::<Vec<u64>>()
                };
                let (a, b) = (bands.keys(&set(1)), bands.keys(&set(2)));
                a.iter().zip(&b).any(|(a, b)| a == b)
            };
            (0..pairs).filter(shares).count() as f64 / pairs as f64
        };
        assert!(share(160, 20) >= 0.99, "0.8 alike: {}", share(160, 20));
        assert!(share(20, 90) <= 0.1, "0.1 alike: {}", share(20, 90));
    }
}
