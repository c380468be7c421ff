//! Random initial weights.

use base::RngKey;

use super::{Entry, HubTensor, Start};
use crate::error::Result;

/// Normal random numbers for the hub tensors of a model. A tensor's numbers depend on the key and its name alone.
pub(crate) struct Random {
    pub key: RngKey,
    pub deviation: f64,
}

impl Random {
    /// The initial numbers of a parameter.
    pub fn gather(&self, entry: &Entry) -> Result<Vec<f32>> {
        entry.gather(|tensor| {
            Ok(match entry.start {
                Start::Normal => self.normal(tensor),
                Start::Ones => vec![1.0; tensor.shape.iter().product()],
                Start::Zeros => vec![0.0; tensor.shape.iter().product()],
            })
        })
    }

    /// Box-Muller: two uniform numbers give two normal ones, with libm's functions, so that all platforms agree.
    fn normal(&self, tensor: &HubTensor) -> Vec<f32> {
        let key = self.key.derive(&tensor.name);
        let count = tensor.shape.iter().product();
        let mut values = Vec::with_capacity(count + 3);
        let mut block = 0u64;
        while values.len() < count {
            let words = key.words([block as u32, (block >> 32) as u32, 0, 0]);
            for pair in words.chunks(2) {
                // In (0, 1], so that the logarithm is finite.
                let radius = libm::sqrt(-2.0 * libm::log((f64::from(pair[0]) + 1.0) / 4_294_967_296.0));
                let angle = std::f64::consts::TAU * f64::from(pair[1]) / 4_294_967_296.0;
                values.push((self.deviation * radius * libm::cos(angle)) as f32);
                values.push((self.deviation * radius * libm::sin(angle)) as f32);
            }
            block += 1;
        }
        values.truncate(count);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normal_and_depend_on_key_and_name() {
        let random = |seed| Random { key: RngKey::new(seed, "init"), deviation: 0.5 };
        let tensor = |name: &str| HubTensor { name: name.into(), shape: vec![101, 997] };
        let values = random(1).normal(&tensor("a"));
        assert_eq!(values.len(), 101 * 997);
        let mean = |power: i32| values.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / values.len() as f64;
        // Four standard errors around the moments of a normal distribution.
        assert!(mean(1).abs() < 4.0 * 0.5 / 317.0, "{}", mean(1));
        assert!((mean(2) - 0.25).abs() < 4.0 * 0.25 * 1.42 / 317.0, "{}", mean(2));
        assert!((mean(4) - 3.0 / 16.0).abs() < 4.0 * 0.62 / 317.0, "{}", mean(4));
        assert_eq!(values, random(1).normal(&tensor("a")));
        assert_ne!(values, random(2).normal(&tensor("a")));
        assert_ne!(values, random(1).normal(&tensor("b")));
    }
}
