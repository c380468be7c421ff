//! Additions with a chain of thought, right or wrong at stated rates, and the check of an answer by what was asked.

use std::fmt::Write;

use pipeline_plugin::{
    Completion, Config, ConfigError, Context, Finding, Generator, Group, Message, Row, Verdict, Verifier,
};
use procedural::{Stream, Sums, guess, tagged};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
struct Arithmetic {
    #[serde(flatten)]
    sums: Sums,
    #[serde(default)]
    slip: f64,
    #[serde(default)]
    hasty: f64,
}

impl Config for Arithmetic {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        let error = |message| ConfigError { path: "/count".into(), message };
        self.sums.refusal().map(error).into_iter().collect()
    }
}

impl Arithmetic {
    /// The trace column by column from the right, and the sum that it comes to.
    fn careful(&self, a: u64, b: u64, random: &mut Stream) -> (String, u64) {
        let mut trace = String::new();
        let (mut sum, mut carry, mut place) = (0, 0, 1);
        let (mut x, mut y) = (a, b);
        for column in 0..self.sums.digits {
            let total = x % 10 + y % 10 + carry;
            let remembered = if carry == 1 { "+1" } else { "" };
            let comma = if column > 0 { "," } else { "" };
            let _ = write!(trace, "{comma}{}+{}{remembered}={total}", x % 10, y % 10);
            let is_last = column + 1 == self.sums.digits;
            sum += place * if is_last { total } else { total % 10 };
            carry = u64::from(total >= 10 && (is_last || random.uniform() >= self.slip));
            (x, y, place) = (x / 10, y / 10, place * 10);
        }
        (trace, sum)
    }

    /// The sum at once, with a wrong digit in one half of the cases.
    fn hasty(a: u64, b: u64, random: &mut Stream) -> (String, u64) {
        let sum = guess(a + b, random);
        (format!("{a}+{b}={sum}"), sum)
    }
}

impl Generator for Arithmetic {
    fn row(&self, ctx: &Context, index: u64) -> Result<Row, String> {
        let (a, b) = self.sums.problem(ctx.seed, index)?;
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
