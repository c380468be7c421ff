//! Quantiles of many numbers in little memory, the same in whatever order the numbers come.

/// Buckets for each power of two: a quantile is at most this share (0.8%) above the number itself.
const BUCKETS: u64 = 128;

/// Counts of numbers by size: exact below 256, then 128 buckets for each power of two.
#[derive(Clone, Debug, Default)]
pub struct Quantiles {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Quantiles {
    /// Counts a number `times` times.
    pub fn add(&mut self, number: u64, times: u64) {
        let bucket = bucket(number);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += times;
        self.total += times;
        if times > 0 {
            self.most = self.most.max(number);
        }
    }

    /// The number that `share` of all numbers do not exceed; 0 if there are none.
    pub fn at(&self, share: f64) -> u64 {
        let rank = (share * self.total as f64).ceil() as u64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if *count > 0 && below >= rank {
                return greatest(bucket as u64).min(self.most);
            }
        }
        self.most
    }

    /// The greatest number.
    pub fn most(&self) -> u64 {
        self.most
    }
}

fn bucket(number: u64) -> usize {
    if number < 2 * BUCKETS {
        return number as usize;
    }
    // The numbers whose first 8 bits are the same share a bucket.
    let shift = u64::from(number.ilog2()) - 7;
    (shift * BUCKETS + (number >> shift)) as usize
}

/// The greatest number of a bucket.
fn greatest(bucket: u64) -> u64 {
    if bucket < 2 * BUCKETS {
        return bucket;
    }
    let shift = bucket / BUCKETS - 1;
    let first = bucket - shift * BUCKETS;
    ((u128::from(first + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for number in [0, 1, 255, 256, 257, 511, 512, 1_000_000, u64::MAX - 1, u64::MAX] {
            let greatest = greatest(bucket(number) as u64);
            assert!(
                greatest >= number && greatest as f64 <= number as f64 * (1.0 + 1.0 / 128.0),
                "{number}: {greatest}"
            );
            assert_eq!(bucket(greatest), bucket(number));
            if greatest < u64::MAX {
                assert_eq!(bucket(greatest + 1), bucket(number) + 1);
            }
        }
    }

    #[test]
    fn quantiles_of_a_hundred() {
        let mut quantiles = Quantiles::default();
        for number in (1..=100).rev() {
            quantiles.add(number, 2);
        }
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantiles.at(share)), [50, 99, 100]);
        assert_eq!(quantiles.most(), 100);
        assert_eq!(Quantiles::default().at(0.5), 0);
    }
}
