//! Countdown: reach a target with given numbers and the four operations.
//!
//! The convention is TinyZero's: the answer is an expression that uses each number exactly once.

mod expression;

use std::fmt::Write;
use std::ops::RangeInclusive;

use expression::{Expression, Rational};
use procedural::{Family, Judged, Solution, Split, Stream, Task};

/// The largest number that a step of a drawn solution may come to.
const LARGEST_STEP: u64 = 9_999;

#[derive(serde::Deserialize)]
struct Countdown {
    #[serde(default = "ninety_nine")]
    largest: u64,
    #[serde(default = "hundred")]
    largest_target: u64,
    #[serde(default = "yes")]
    use_all: bool,
}

fn ninety_nine() -> u64 {
    99
}

fn hundred() -> u64 {
    100
}

fn yes() -> bool {
    true
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Puzzle {
    numbers: Vec<u64>,
    target: u64,
    /// A way to reach the target, as a hint for whoever inspects the row.
    solution: Vec<Step>,
}

/// Two numbers that are there are replaced by what they come to.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Step(u64, char, u64, u64);

impl Family for Countdown {
    const SCHEMA: &'static str = include_str!("schema.json");
    const LEVELS: RangeInclusive<u32> = 1..=6;
    const PROMPT: &'static str = "Using each of the numbers {numbers} exactly once, write an expression that equals {target}. \
        It may use +, -, *, / and parentheses. Think inside <{think}> </{think}> tags, then give the expression inside \
        <{answer}> </{answer}> tags, for example <{answer}>(1 + 2) / 3</{answer}>.";
    const PLACEHOLDERS: &'static [&'static str] = &["numbers", "target"];
    type Puzzle = Puzzle;

    fn draw(&self, level: u32, random: &mut Stream, _: Split) -> Option<Puzzle> {
        let numbers: Vec<u64> = (0..=level).map(|_| random.between(1, self.largest)).collect();
        let (mut left, mut solution) = (numbers.clone(), Vec::new());
        while left.len() > 1 {
            let (a, b) = (left.swap_remove(random.index(left.len())), left.swap_remove(random.index(left.len())));
            let (a, b) = (a.max(b), a.min(b));
            let ways = [('+', Some(a + b)), ('-', a.checked_sub(b)), ('*', a.checked_mul(b)), ('/', quotient(a, b))];
            let is_small = |n: &u64| (1..=LARGEST_STEP).contains(n);
            let ways: Vec<(char, u64)> = ways.into_iter().filter_map(|(o, n)| Some((o, n.filter(is_small)?))).collect();
            let (operation, result) = *ways.get(random.index(ways.len().max(1)))?;
            solution.push(Step(a, operation, b, result));
            left.push(result);
        }
        let target = left[0];
        (target <= self.largest_target).then_some(Puzzle { numbers, target, solution })
    }

    /// The numbers in any order.
    fn key(&self, puzzle: &Puzzle) -> String {
        let mut numbers = puzzle.numbers.clone();
        numbers.sort_unstable();
        format!("{numbers:?}={}", puzzle.target)
    }

    fn words(&self, puzzle: &Puzzle) -> Vec<String> {
        let numbers: Vec<String> = puzzle.numbers.iter().map(u64::to_string).collect();
        vec![numbers.join(", "), puzzle.target.to_string()]
    }

    fn solve(&self, puzzle: &Puzzle) -> Solution {
        let mut thought = String::new();
        // Each number that is left, with the expression that it comes from.
        let mut left: Vec<(u64, String)> = puzzle.numbers.iter().map(|n| (*n, n.to_string())).collect();
        let take = |left: &mut Vec<(u64, String)>, number: u64| {
            let place = left.iter().position(|(n, _)| *n == number);
            place.map_or_else(|| number.to_string(), |place| left.swap_remove(place).1)
        };
        for (i, Step(a, operation, b, result)) in puzzle.solution.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let _ = write!(thought, "{comma}{a} {operation} {b} = {result}");
            let (x, y) = (take(&mut left, *a), take(&mut left, *b));
            left.push((*result, format!("({x} {operation} {y})")));
        }
        let answer = left.pop().map(|(_, text)| text).unwrap_or_default();
        let inside = answer.strip_prefix('(').and_then(|answer| answer.strip_suffix(')'));
        Solution { thought, answer: inside.unwrap_or(&answer).to_owned() }
    }

    fn judge(&self, puzzle: &Puzzle, answer: &str) -> Judged {
        let expression = match Expression::parse(answer) {
            Ok(expression) => expression,
            Err(why) => return Judged::Malformed(why),
        };
        let canonical = expression.canonical;
        if let Some(why) = self.misused(&puzzle.numbers, &expression.numbers) {
            return Judged::Wrong(canonical, why);
        }
        match expression.value {
            Err(why) => Judged::Wrong(canonical, why),
            Ok(value) if value == Rational::whole(puzzle.target) => Judged::Right(canonical),
            Ok(value) => Judged::Wrong(canonical, format!("it equals {value}, not {}", puzzle.target)),
        }
    }

    /// The columns of TinyZero's data set.
    fn puzzle_of(&self, fields: &[(String, String)]) -> Option<Result<Puzzle, String>> {
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let (numbers, target) = (field("nums")?, field("target")?);
        let numbers: Option<Vec<u64>> =
            numbers.trim_matches(['[', ']', ' ']).split(',').map(|number| number.trim().parse().ok()).collect();
        Some(match (numbers, target.trim().parse()) {
            (Some(numbers), Ok(target)) => Ok(Puzzle { numbers, target, solution: Vec::new() }),
            _ => Err("the fields `nums` and `target` are no list of whole numbers and no whole number".into()),
        })
    }
}

fn quotient(a: u64, b: u64) -> Option<u64> {
    (b > 0 && a.is_multiple_of(b)).then(|| a / b)
}

impl Countdown {
    /// How the numbers of an expression differ from those that were given.
    fn misused(&self, given: &[u64], used: &[u64]) -> Option<String> {
        let mut left = given.to_vec();
        for number in used {
            let Some(place) = left.iter().position(|n| n == number) else {
                return Some(match given.contains(number) {
                    true => format!("it uses {number} too often"),
                    false => format!("it uses {number}, which was not given"),
                });
            };
            left.remove(place);
        }
        left.first().filter(|_| self.use_all).map(|number| format!("it does not use {number}"))
    }
}

pipeline_plugin::task!(Task<Countdown>);

#[cfg(test)]
mod tests;
