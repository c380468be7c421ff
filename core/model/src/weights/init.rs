//! Random initial weights.

use base::RngKey;

use super::{Entry, Start};
use crate::error::Result;

/// Normal random numbers for the hub tensors of a model. A tensor's numbers depend on the key and its name alone.
pub(crate) struct Random {
    pub key: RngKey,
    pub deviation: f64,
}

impl Random {
    /// The initial numbers of a parameter.
    pub fn gather(&self, entry: &Entry) -> Result<Vec<f32>> {
        entry.filled(|piece, values| {
            match entry.start {
                Start::Normal => self.normal(&piece.tensor.name, piece.from, values),
                Start::Ones => values.fill(1.0),
                Start::Zeros => values.fill(0.0),
            }
            Ok(())
        })
    }

    /// The numbers of a tensor from element `from` on. Box-Muller: two uniform numbers give two normal ones, with libm's
    /// functions, so that all platforms agree.
    fn normal(&self, name: &str, from: usize, values: &mut [f32]) {
        let key = self.key.derive(name);
        let (mut block, mut skip, mut done) = (from as u64 / 4, from % 4, 0);
        while done < values.len() {
            let words = key.words([block as u32, (block >> 32) as u32, 0, 0]);
            let mut four = [0.0; 4];
            for (pair, out) in words.chunks(2).zip(four.chunks_mut(2)) {
                // In (0, 1], so that the logarithm is finite.
                let radius = libm::sqrt(-2.0 * libm::log((f64::from(pair[0]) + 1.0) / 4_294_967_296.0));
                let angle = std::f64::consts::TAU * f64::from(pair[1]) / 4_294_967_296.0;
                out[0] = (self.deviation * radius * libm::cos(angle)) as f32;
                out[1] = (self.deviation * radius * libm::sin(angle)) as f32;
            }
            let len = (4 - skip).min(values.len() - done);
            values[done..done + len].copy_from_slice(&four[skip..skip + len]);
            (block, skip, done) = (block + 1, 0, done + len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normal_and_depend_on_key_and_name() {
        let random = |seed| Random { key: RngKey::new(seed, "init"), deviation: 0.5 };
        let normal = |seed, name: &str| {
            let mut values = vec![0.0; 101 * 997];
            random(seed).normal(name, 0, &mut values);
            values
        };
        let values = normal(1, "a");
        let mean = |power: i32| values.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / values.len() as f64;
        // Four standard errors around the moments of a normal distribution.
        assert!(mean(1).abs() < 4.0 * 0.5 / 317.0, "{}", mean(1));
        assert!((mean(2) - 0.25).abs() < 4.0 * 0.25 * 1.42 / 317.0, "{}", mean(2));
        assert!((mean(4) - 3.0 / 16.0).abs() < 4.0 * 0.62 / 317.0, "{}", mean(4));
        assert_eq!(values, normal(1, "a"));
        assert_ne!(values, normal(2, "a"));
        assert_ne!(values, normal(1, "b"));
        for (from, len) in [(0, 3), (1, 9), (7, 1), (997, 12)] {
            let mut run = vec![0.0; len];
            random(1).normal("a", from, &mut run);
            assert_eq!(run, values[from..from + len], "from {from}");
        }
    }
}
