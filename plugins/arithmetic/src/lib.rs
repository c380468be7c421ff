//! Additions with a chain of thought, right or wrong at stated rates, and the check of an answer by what was asked.

use std::fmt::Write;

use pipeline_plugin::{
    Completion, Config, ConfigError, Context, Finding, Generator, Group, Message, Row, Verdict, Verifier,
};
use procedural::{Bijection, Stream, tagged};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Arithmetic {
    #[serde(default)]
    split: Split,
    #[serde(default = "three")]
    digits: u32,
    count: Option<u64>,
    #[serde(default)]
    slip: f64,
    #[serde(default)]
    hasty: f64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Split {
    #[default]
    Train,
    HeldOut,
}

fn three() -> u32 {
    3
}

impl Config for Arithmetic {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        let most = self.problems() / self.split.window();
        if self.count() <= most {
            return Vec::new();
        }
        let message = format!("at most {most} rows can be distinct with {} digits in this split", self.digits);
        vec![ConfigError { path: "/count".into(), message }]
    }
}

impl Split {
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

impl Arithmetic {
    fn count(&self) -> u64 {
        self.count.unwrap_or(match self.split {
            Split::Train => 12_000,
            Split::HeldOut => 500,
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
    fn problem(&self, seed: u64, index: u64) -> Result<(u64, u64), String> {
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

    /// The trace column by column from the right, and the sum that it comes to.
    fn careful(&self, a: u64, b: u64, random: &mut Stream) -> (String, u64) {
        let mut trace = String::new();
        let (mut sum, mut carry, mut place) = (0, 0, 1);
        let (mut x, mut y) = (a, b);
        for column in 0..self.digits {
            let total = x % 10 + y % 10 + carry;
            let remembered = if carry == 1 { "+1" } else { "" };
            let comma = if column > 0 { "," } else { "" };
            let _ = write!(trace, "{comma}{}+{}{remembered}={total}", x % 10, y % 10);
            let is_last = column + 1 == self.digits;
            sum += place * if is_last { total } else { total % 10 };
            carry = u64::from(total >= 10 && (is_last || random.uniform() >= self.slip));
            (x, y, place) = (x / 10, y / 10, place * 10);
        }
        (trace, sum)
    }

    /// The sum at once, with a wrong digit in one half of the cases.
    fn hasty(a: u64, b: u64, random: &mut Stream) -> (String, u64) {
        let mut sum = a + b;
        if random.uniform() < 0.5 {
            let places = sum.max(1).ilog10() + 1;
            let place = random.below(u64::from(places)) as u32;
            let unit = 10_u64.pow(place);
            let digit = sum / unit % 10;
            // Another digit, and no 0 at the front of a number of several digits.
            let is_front = place + 1 == places && places > 1;
            let others: Vec<u64> = (u64::from(is_front)..10).filter(|other| *other != digit).collect();
            sum = sum - digit * unit + others[random.below(others.len() as u64) as usize] * unit;
        }
        (format!("{a}+{b}={sum}"), sum)
    }
}

impl Generator for Arithmetic {
    fn row(&self, ctx: &Context, index: u64) -> Result<Row, String> {
        let (a, b) = self.problem(ctx.seed, index)?;
        let mut random = Stream::new(ctx.seed, index);
        let (trace, sum) = if random.uniform() < self.hasty {
            Self::hasty(a, b, &mut random)
        } else {
            self.careful(a, b, &mut random)
        };
        let response = format!("<think>{trace}</think><answer>{sum}</answer>");
        Ok(Row {
            prompt: vec![Message { role: "user".into(), content: format!("{a}+{b}=?") }],
            reference: Some((a + b).to_string()),
            fields: vec![("response".into(), response)],
        })
    }
}

/// The sum that a prompt `a+b=?` asks for.
fn asked(group: &Group) -> Option<u128> {
    let question = &group.prompt.iter().rfind(|message| message.role == "user")?.content;
    let (a, b) = question.trim().strip_suffix("=?")?.split_once('+')?;
    Some(u128::from(a.trim().parse::<u64>().ok()?) + u128::from(b.trim().parse::<u64>().ok()?))
}

impl Verifier for Arithmetic {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let Some(sum) = asked(group) else {
            return Verdict::Undecided("the last message of the user is no `a+b=?`".into());
        };
        let found = tagged(&completion.text, "answer").map(str::trim);
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let answer = found.filter(is_number).and_then(|text| text.parse::<u128>().ok());
        let note = match (found, answer) {
            (_, Some(answer)) if answer == sum => None,
            (_, Some(answer)) => Some(format!("{answer} is not {sum}")),
            (Some(_), None) => Some("its answer is no whole number".into()),
            (None, None) => Some("no <answer>..</answer>".into()),
        };
        let score = if answer == Some(sum) { 1.0 } else { 0.0 };
        Verdict::Decided(Finding { score, answer: answer.map(|n| n.to_string()), metrics: Vec::new(), note })
    }
}

pipeline_plugin::task!(Arithmetic);
