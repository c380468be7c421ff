//! A shortest path through a grid with walls. Any path that is as short as can be is right.

use std::collections::VecDeque;
use std::fmt::Write;
use std::ops::RangeInclusive;

use procedural::{Family, Judged, Solution, Split, Stream, Task, quoted};

/// A cell is a wall with this probability, in percent.
const WALLS: u64 = 30;

/// The sides of a grid that are looked at.
const SIDES: RangeInclusive<usize> = 2..=64;

/// The moves, as rows and columns change.
const MOVES: [(char, &str, isize, isize); 4] =
    [('U', "up", -1, 0), ('D', "down", 1, 0), ('L', "left", 0, -1), ('R', "right", 0, 1)];

#[derive(serde::Deserialize)]
struct ShortestPath {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Puzzle {
    /// The rows from the top: `S` and `G`, `.` is free, `#` is a wall.
    rows: Vec<String>,
}

/// A grid that was read.
struct Maze {
    side: usize,
    is_wall: Vec<bool>,
    start: usize,
    goal: usize,
}

impl Maze {
    fn read(rows: &[String]) -> Option<Self> {
        let side = rows.len();
        let cells: Vec<u8> = rows.iter().flat_map(|row| row.bytes()).collect();
        let is_known = |b: &u8| b"SG.#".contains(b);
        if !SIDES.contains(&side) || rows.iter().any(|row| row.len() != side) || !cells.iter().all(is_known) {
            return None;
        }
        let only = |wanted: u8| {
            let mut places = cells.iter().enumerate().filter(|(_, b)| **b == wanted).map(|(place, _)| place);
            places.next().filter(|_| places.next().is_none())
        };
        let (start, goal) = (only(b'S')?, only(b'G')?);
        Some(Self { side, is_wall: cells.iter().map(|b| *b == b'#').collect(), start, goal })
    }

    /// The cell that a move leads to, unless that is off the grid.
    fn beside(&self, cell: usize, (_, _, down, right): (char, &str, isize, isize)) -> Option<usize> {
        let row = (cell / self.side).checked_add_signed(down).filter(|row| *row < self.side)?;
        let column = (cell % self.side).checked_add_signed(right).filter(|column| *column < self.side)?;
        Some(row * self.side + column)
    }

    /// The number of moves from each cell to `to`, by a breadth-first search; `None` where there is no way.
    fn distances(&self, to: usize) -> Vec<Option<usize>> {
        let mut distances = vec![None; self.is_wall.len()];
        distances[to] = Some(0);
        let mut queue = VecDeque::from([(to, 0)]);
        while let Some((cell, distance)) = queue.pop_front() {
            for next in MOVES.into_iter().filter_map(|one| self.beside(cell, one)) {
                if !self.is_wall[next] && distances[next].is_none() {
                    distances[next] = Some(distance + 1);
                    queue.push_back((next, distance + 1));
                }
            }
        }
        distances
    }

    fn place(&self, cell: usize) -> String {
        format!("row {}, column {}", cell / self.side + 1, cell % self.side + 1)
    }
}

/// "RRD", "R, R, D" or "right, right, down".
fn moves(answer: &str) -> Result<Vec<(char, &'static str, isize, isize)>, String> {
    let mut moves = Vec::new();
    for word in answer.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        if let Some(one) = MOVES.into_iter().find(|(_, name, ..)| word.eq_ignore_ascii_case(name)) {
            moves.push(one);
            continue;
        }
        for c in word.chars() {
            let one = MOVES.into_iter().find(|(letter, ..)| letter.eq_ignore_ascii_case(&c));
            moves.push(one.ok_or_else(|| format!("{} is no move", quoted(word)))?);
        }
    }
    if moves.is_empty() { Err("it has no moves".into()) } else { Ok(moves) }
}

impl Family for ShortestPath {
    const SCHEMA: &'static str = include_str!("schema.json");
    const LEVELS: RangeInclusive<u32> = 1..=8;
    const PROMPT: &'static str = "Find a shortest path from S to G through this grid. A move goes to the next cell up (U), down (D), \
        left (L) or right (R), never into a wall (#) and never off the grid.\n{grid}\nThink inside <{think}> </{think}> tags, then \
        give the moves inside <{answer}> </{answer}> tags, for example <{answer}>RRDLU</{answer}>.";
    const PLACEHOLDERS: &'static [&'static str] = &["grid", "side"];
    type Puzzle = Puzzle;

    /// The way is at least as long as the side of the grid.
    fn draw(&self, level: u32, random: &mut Stream, _: Split) -> Option<Puzzle> {
        let side = level as usize + 3;
        let is_wall: Vec<bool> = (0..side * side).map(|_| random.below(100) < WALLS).collect();
        let start = random.index(side * side);
        if is_wall[start] {
            return None;
        }
        let mut maze = Maze { side, is_wall, start, goal: start };
        let distances = maze.distances(start);
        let is_far = |cell: &usize| distances[*cell].is_some_and(|distance| distance >= side);
        let far: Vec<usize> = (0..side * side).filter(is_far).collect();
        maze.goal = *far.get(random.index(far.len().max(1)))?;
        let letter = |cell: usize| match cell {
            cell if cell == maze.start => 'S',
            cell if cell == maze.goal => 'G',
            cell if maze.is_wall[cell] => '#',
            _ => '.',
        };
        let row = |row: usize| (row * side..(row + 1) * side).map(letter).collect();
        Some(Puzzle { rows: (0..side).map(row).collect() })
    }

    fn is_sound(&self, puzzle: &Puzzle) -> bool {
        Maze::read(&puzzle.rows).is_some_and(|maze| maze.distances(maze.goal)[maze.start].is_some())
    }

    fn key(&self, puzzle: &Puzzle) -> String {
        puzzle.rows.join("/")
    }

    fn words(&self, puzzle: &Puzzle) -> Vec<String> {
        vec![puzzle.rows.join("\n"), puzzle.rows.len().to_string()]
    }

    fn solve(&self, puzzle: &Puzzle) -> Solution {
        let (mut thought, mut answer) = (String::new(), String::new());
        let Some(maze) = Maze::read(&puzzle.rows) else { return Solution { thought, answer } };
        let distances = maze.distances(maze.goal);
        let mut cell = maze.start;
        let _ = write!(thought, "S is at {}, G at {}.", maze.place(maze.start), maze.place(maze.goal));
        while let Some(left) = distances[cell].filter(|left| *left > 0) {
            let nearer = MOVES.into_iter().find_map(|one| {
                let next = maze.beside(cell, one)?;
                (distances[next] == Some(left - 1)).then_some((one.0, next))
            });
            let Some((letter, next)) = nearer else { break };
            let _ = write!(thought, " {letter} to {}.", maze.place(next));
            answer.push(letter);
            cell = next;
        }
        Solution { thought, answer }
    }

    fn judge(&self, puzzle: &Puzzle, answer: &str) -> Judged {
        let Some(maze) = Maze::read(&puzzle.rows) else { return Judged::Malformed("there is no grid".into()) };
        let moves = match moves(answer) {
            Ok(moves) => moves,
            Err(why) => return Judged::Malformed(why),
        };
        let canonical: String = moves.iter().map(|(letter, ..)| letter).collect();
        let mut cell = maze.start;
        for (i, one) in moves.iter().enumerate() {
            let wrong = |what: &str| format!("move {} ({}) goes {what}", i + 1, one.0);
            cell = match maze.beside(cell, *one) {
                None => return Judged::Wrong(canonical, wrong("off the grid")),
                Some(next) if maze.is_wall[next] => return Judged::Wrong(canonical, wrong("into a wall")),
                Some(next) => next,
            };
        }
        if cell != maze.goal {
            return Judged::Wrong(canonical, format!("it ends at {}, not at G", maze.place(cell)));
        }
        match maze.distances(maze.goal)[maze.start] {
            Some(fewest) if fewest < moves.len() => {
                Judged::Wrong(canonical, format!("it takes {} moves where {fewest} suffice", moves.len()))
            }
            _ => Judged::Right(canonical),
        }
    }
}

pipeline_plugin::task!(Task<ShortestPath>);

#[cfg(test)]
mod tests;
