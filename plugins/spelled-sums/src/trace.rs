//! Sums worked in words, with the mistakes that a corpus has.

use procedural::{Stream, guess};

use crate::words::Language;

/// What becomes of traces.
#[derive(Clone, Copy, serde::Deserialize)]
pub(crate) struct Habits {
    /// The probability that a carry is forgotten, each time there is one.
    #[serde(default)]
    slip: f64,
    /// The probability that a column with a forgotten carry is noticed and said again, rightly.
    #[serde(default)]
    notice: f64,
    /// The share of traces that give the sum at once.
    #[serde(default)]
    hasty: f64,
    /// The probability that a trace begins in the other language than it was asked in.
    #[serde(default)]
    other: f64,
    /// The probability that it goes on in the other language, at each column after the first.
    #[serde(default)]
    switch: f64,
}

impl Habits {
    /// A trace, and the sum that it comes to.
    pub(crate) fn trace(
        self,
        a: u64,
        b: u64,
        digits: u32,
        asked: &'static Language,
        random: &mut Stream,
    ) -> (String, u64) {
        let mut language = if random.uniform() < self.other { asked.other() } else { asked };
        if random.uniform() < self.hasty {
            let sum = guess(a + b, random);
            return (format!("{a}{}{b}{}{sum}", language.plus, language.is), sum);
        }
        let mut trace = String::new();
        let (mut sum, mut carry, mut place) = (0, 0, 1);
        let (mut x, mut y) = (a, b);
        for column in 0..digits {
            if column > 0 {
                trace.push_str(language.comma);
                if random.uniform() < self.switch {
                    language = language.other();
                }
            }
            let forgets = carry == 1 && random.uniform() < self.slip;
            let said = if forgets { 0 } else { carry };
            let mut total = x % 10 + y % 10 + said;
            say(&mut trace, language, x % 10, y % 10, said);
            if forgets && random.uniform() < self.notice {
                total += carry;
                trace.push_str(language.comma);
                trace.push_str(language.wait);
                trace.push_str(language.comma);
                say(&mut trace, language, x % 10, y % 10, carry);
            }
            sum += place * if column + 1 == digits { total } else { total % 10 };
            carry = u64::from(total >= 10);
            (x, y, place) = (x / 10, y / 10, place * 10);
        }
        (trace, sum)
    }
}

/// One column.
fn say(trace: &mut String, language: &Language, x: u64, y: u64, carry: u64) {
    let number = |n: u64| language.numbers[n as usize];
    for part in [number(x), language.plus, number(y)] {
        trace.push_str(part);
    }
    if carry > 0 {
        trace.push_str(language.plus);
        trace.push_str(number(carry));
    }
    trace.push_str(language.is);
    trace.push_str(number(x + y + carry));
}
