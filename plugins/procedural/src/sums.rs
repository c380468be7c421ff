//! Additions of two numbers of as many digits: which problems there are, which are held out, and in which order.

use crate::{Bijection, Stream};

/// A range of additions, as the config of a plugin says it.
#[derive(Clone, Copy, serde::Deserialize)]
pub struct Sums {
    #[serde(default)]
    split: SumsSplit,
    #[serde(default = "three")]
    pub digits: u32,
    count: Option<u64>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SumsSplit {
    #[default]
    Train,
    HeldOut,
}

fn three() -> u32 {
    3
}

impl SumsSplit {
    /// Problems among which there is one of the split for certain: none in so many has a probability below 1e-7.
    fn window(self) -> u64 {
        match self {
            Self::Train => 8,
            Self::HeldOut => 128,
        }
    }

    /// Whether a problem is of the split: one in eight is held out, by the FNV-1a hash (32 bits) of `a+b`.
    fn has(self, problem: &str) -> bool {
        let hash = problem.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        hash.is_multiple_of(8) == (self == Self::HeldOut)
    }
}

impl Sums {
    /// What is wrong with `count`, if anything is.
    pub fn refusal(&self) -> Option<String> {
        let most = self.problems() / self.split.window();
        let refused = self.count() > most;
        refused.then(|| format!("at most {most} rows can be distinct with {} digits in this split", self.digits))
    }

    fn count(&self) -> u64 {
        self.count.unwrap_or(match self.split {
            SumsSplit::Train => 12_000,
            SumsSplit::HeldOut => 500,
        })
    }

    /// The smallest operand: with one digit it is 0, otherwise the first digit is not 0.
    fn smallest(&self) -> u64 {
        if self.digits == 1 { 0 } else { 10_u64.pow(self.digits - 1) }
    }

    fn operands(&self) -> u64 {
        10_u64.pow(self.digits) - self.smallest()
    }

    /// The number of problems of both splits.
    fn problems(&self) -> u64 {
        self.operands().pow(2)
    }

    /// The operands of row `index`.
    ///
    /// All problems, in an order drawn from the seed, are cut into `count` windows, and a row is the first problem of its
    /// window that is of the split: so `count` rows in a row are distinct. Then a new order begins.
    ///
    /// # Errors
    /// A window has no problem of the split, which its size makes all but impossible.
    pub fn problem(&self, seed: u64, index: u64) -> Result<(u64, u64), String> {
        let count = self.count();
        let order = Bijection::new(seed, index / count, self.problems());
        let window = self.problems() / count;
        let start = index % count * window;
        let operand = |n: u64| n + self.smallest();
        (start..start + window)
            .map(|position| order.at(position))
            .map(|n| (operand(n / self.operands()), operand(n % self.operands())))
            .find(|(a, b)| self.split.has(&format!("{a}+{b}")))
            .ok_or_else(|| format!("row {index} has no problem of its own: ask for a smaller `count`"))
    }
}

/// A number, with another digit in one half of the cases.
pub fn guess(number: u64, random: &mut Stream) -> u64 {
    if random.uniform() >= 0.5 {
        return number;
    }
    let places = number.max(1).ilog10() + 1;
    let place = random.below(u64::from(places)) as u32;
    let unit = 10_u64.pow(place);
    let digit = number / unit % 10;
    // Another digit, and no 0 at the front of a number of several digits.
    let is_front = place + 1 == places && places > 1;
    let others: Vec<u64> = (u64::from(is_front)..10).filter(|other| *other != digit).collect();
    number - digit * unit + others[random.below(others.len() as u64) as usize] * unit
}
