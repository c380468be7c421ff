//! What a program of operations makes of a list: step by step, with no step that changes nothing.

use std::fmt::Write;
use std::ops::RangeInclusive;

use procedural::{Family, Judged, Solution, Split, Stream, Task, quoted};

/// Numbers of a drawn list at its start.
const LENGTH: RangeInclusive<u64> = 5..=8;

/// The largest number at its start, and on the way.
const START: u64 = 20;
const LARGEST: i64 = 200;

/// The numbers and operations that are looked at.
const MOST: usize = 1_000;

#[derive(serde::Deserialize)]
struct ListOperations {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Puzzle {
    list: Vec<i64>,
    operations: Vec<Operation>,
}

/// Places count from 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Operation {
    SortAscending,
    SortDescending,
    Reverse,
    RotateLeft(usize),
    RotateRight(usize),
    Swap(usize, usize),
    Add(i64),
    Double,
    Append(i64),
    RemoveAt(usize),
    RemoveEven,
    RemoveOdd,
    RemoveRepeated,
    RunningSums,
}

impl Operation {
    fn draw(length: usize, random: &mut Stream) -> Self {
        let place = |random: &mut Stream| random.index(length.max(1)) + 1;
        match random.below(14) {
            0 => Self::SortAscending,
            1 => Self::SortDescending,
            2 => Self::Reverse,
            3 => Self::RotateLeft(random.between(1, 3) as usize),
            4 => Self::RotateRight(random.between(1, 3) as usize),
            5 => Self::Swap(place(random), place(random)),
            6 => Self::Add(random.between(1, 9) as i64),
            7 => Self::Double,
            8 => Self::Append(random.below(START + 1) as i64),
            9 => Self::RemoveAt(place(random)),
            10 => Self::RemoveEven,
            11 => Self::RemoveOdd,
            12 => Self::RemoveRepeated,
            _ => Self::RunningSums,
        }
    }

    /// The list after it, or `None` where it can't be done.
    fn apply(self, list: &[i64]) -> Option<Vec<i64>> {
        let (mut list, length) = (list.to_vec(), list.len());
        match self {
            Self::SortAscending => list.sort_unstable(),
            Self::SortDescending => list.sort_unstable_by(|a, b| b.cmp(a)),
            Self::Reverse => list.reverse(),
            Self::RotateLeft(by) => list.rotate_left(by.checked_rem(length)?),
            Self::RotateRight(by) => list.rotate_right(by.checked_rem(length)?),
            Self::Swap(a, b) => {
                let (a, b) = (a.checked_sub(1)?, b.checked_sub(1)?);
                if a.max(b) >= list.len() {
                    return None;
                }
                list.swap(a, b);
            }
            Self::Add(by) => list = list.iter().map(|n| n.checked_add(by)).collect::<Option<_>>()?,
            Self::Double => list = list.iter().map(|n| n.checked_mul(2)).collect::<Option<_>>()?,
            Self::Append(n) => list.push(n),
            Self::RemoveAt(place) => {
                let place = place.checked_sub(1).filter(|place| *place < list.len())?;
                list.remove(place);
            }
            Self::RemoveEven => list.retain(|n| n % 2 != 0),
            Self::RemoveOdd => list.retain(|n| n % 2 == 0),
            Self::RemoveRepeated => {
                let mut kept: Vec<i64> = Vec::new();
                for n in list {
                    if !kept.contains(&n) {
                        kept.push(n);
                    }
                }
                list = kept;
            }
            Self::RunningSums => {
                let mut sum = 0_i64;
                for n in &mut list {
                    sum = sum.checked_add(*n)?;
                    *n = sum;
                }
            }
        }
        Some(list)
    }

    fn words(self) -> String {
        let places = |n: usize| if n == 1 { "1 place".to_owned() } else { format!("{n} places") };
        match self {
            Self::SortAscending => "Sort the list in ascending order.".into(),
            Self::SortDescending => "Sort the list in descending order.".into(),
            Self::Reverse => "Reverse the list.".into(),
            Self::RotateLeft(by) => format!("Rotate the list to the left by {}.", places(by)),
            Self::RotateRight(by) => format!("Rotate the list to the right by {}.", places(by)),
            Self::Swap(a, b) => format!("Swap the numbers at positions {a} and {b}."),
            Self::Add(by) => format!("Add {by} to every number."),
            Self::Double => "Double every number.".into(),
            Self::Append(n) => format!("Append {n} to the end."),
            Self::RemoveAt(place) => format!("Remove the number at position {place}."),
            Self::RemoveEven => "Remove all even numbers.".into(),
            Self::RemoveOdd => "Remove all odd numbers.".into(),
            Self::RemoveRepeated => "Remove every number that stands earlier in the list.".into(),
            Self::RunningSums => "Replace every number by the sum of it and all numbers before it.".into(),
        }
    }
}

fn text(list: &[i64]) -> String {
    let numbers: Vec<String> = list.iter().map(i64::to_string).collect();
    format!("[{}]", numbers.join(", "))
}

impl Puzzle {
    /// The list after each operation.
    fn lists(&self) -> Option<Vec<Vec<i64>>> {
        let mut list = self.list.clone();
        let step = |operation: &Operation| {
            list = operation.apply(&list)?;
            Some(list.clone())
        };
        self.operations.iter().map(step).collect()
    }
}

impl Family for ListOperations {
    const SCHEMA: &'static str = include_str!("schema.json");
    const LEVELS: RangeInclusive<u32> = 1..=8;
    const PROMPT: &'static str = "Start with the list {list} and do the following, one after the other. Positions count from 1.\n\
        {operations}\nWhich list comes out? Think inside <{think}> </{think}> tags, then give the list inside <{answer}> </{answer}> \
        tags, for example <{answer}>[3, 1, 2]</{answer}>.";
    const PLACEHOLDERS: &'static [&'static str] = &["list", "operations"];
    type Puzzle = Puzzle;

    fn draw(&self, level: u32, random: &mut Stream, _: Split) -> Option<Puzzle> {
        let length = random.between(*LENGTH.start(), *LENGTH.end());
        let list: Vec<i64> = (0..length).map(|_| random.below(START + 1) as i64).collect();
        let (mut now, mut operations) = (list.clone(), Vec::new());
        // An operation that changes nothing, leaves next to nothing or makes large numbers is drawn again.
        for _ in 0..100 {
            let operation = Operation::draw(now.len(), random);
            let fits = |next: &Vec<i64>| *next != now && next.len() >= 3 && next.iter().all(|n| *n <= LARGEST);
            if let Some(next) = operation.apply(&now).filter(fits) {
                now = next;
                operations.push(operation);
            }
            if operations.len() > level as usize {
                return (now != list).then_some(Puzzle { list, operations });
            }
        }
        None
    }

    fn is_sound(&self, puzzle: &Puzzle) -> bool {
        puzzle.list.len() <= MOST
            && puzzle.operations.len() <= MOST
            && puzzle.lists().is_some_and(|lists| !lists.is_empty())
    }

    fn key(&self, puzzle: &Puzzle) -> String {
        format!("{:?}{:?}", puzzle.list, puzzle.operations)
    }

    fn words(&self, puzzle: &Puzzle) -> Vec<String> {
        let numbered = puzzle.operations.iter().enumerate().map(|(i, one)| format!("{}. {}", i + 1, one.words()));
        vec![text(&puzzle.list), numbered.collect::<Vec<_>>().join("\n")]
    }

    fn solve(&self, puzzle: &Puzzle) -> Solution {
        let lists = puzzle.lists().unwrap_or_default();
        let mut thought = text(&puzzle.list);
        for (i, list) in lists.iter().enumerate() {
            let _ = write!(thought, " {}: {}", i + 1, text(list));
        }
        Solution { thought, answer: text(lists.last().unwrap_or(&puzzle.list)) }
    }

    fn judge(&self, puzzle: &Puzzle, answer: &str) -> Judged {
        let mut list = Vec::new();
        for word in answer.split(|c: char| c.is_whitespace() || "[](),;".contains(c)).filter(|word| !word.is_empty()) {
            match word.parse::<i64>() {
                Ok(number) => list.push(number),
                Err(_) => return Judged::Malformed(format!("{} is no whole number", quoted(word))),
            }
        }
        let lists = puzzle.lists().unwrap_or_default();
        let expected = lists.last().unwrap_or(&puzzle.list);
        match &list {
            list if list == expected => Judged::Right(text(list)),
            list if list.is_empty() => Judged::Malformed("it holds no list".into()),
            list => Judged::Wrong(text(list), format!("it is not {}", text(expected))),
        }
    }
}

pipeline_plugin::task!(Task<ListOperations>);

#[cfg(test)]
mod tests;
