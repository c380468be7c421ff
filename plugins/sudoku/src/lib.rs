//! Sudoku of 4 x 4 or 9 x 9 with one solution.
//!
//! Cells of a random complete grid are emptied one by one, as long as a search finds no second solution.

mod grid;

use std::fmt::Write;
use std::ops::RangeInclusive;

use grid::Grid;
use procedural::{Family, Judged, Solution, Split, Stream, Task};

#[derive(serde::Deserialize)]
struct Sudoku {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Puzzle {
    /// The rows, from the top; a digit or `.` for each cell.
    rows: Vec<String>,
}

impl Family for Sudoku {
    const SCHEMA: &'static str = include_str!("schema.json");
    const LEVELS: RangeInclusive<u32> = 1..=8;
    const PROMPT: &'static str = "Fill in the blanks (.) of this {size} x {size} Sudoku, so that every row, every column and every \
        {box} x {box} box holds each of the numbers 1 to {size} once.\n{grid}\nThink inside <{think}> </{think}> tags, then give \
        the complete grid inside <{answer}> </{answer}> tags, one line for each row.";
    const PLACEHOLDERS: &'static [&'static str] = &["grid", "size", "box"];
    type Puzzle = Puzzle;

    /// The solution decides on the split: so nothing of a held-out grid is learned from another choice of its blanks.
    fn draw(&self, level: u32, random: &mut Stream, split: Split) -> Option<Puzzle> {
        let (side, blanks) = match level {
            1..=4 => (2, 2 + 2 * level as usize),
            _ => (3, 6 * level as usize),
        };
        let solution = Grid::complete(side, random)?;
        if !split.has(&solution.line()) {
            return None;
        }
        let mut cells: Vec<usize> = (0..solution.cells.len()).collect();
        random.shuffle(&mut cells);
        let (mut puzzle, mut emptied) = (solution, 0);
        for cell in cells {
            let digit = std::mem::take(&mut puzzle.cells[cell]);
            if puzzle.solutions(2).len() > 1 {
                puzzle.cells[cell] = digit;
                continue;
            }
            emptied += 1;
            if emptied == blanks {
                return Some(Puzzle { rows: puzzle.rows("") });
            }
        }
        None
    }

    fn is_sound(&self, puzzle: &Puzzle) -> bool {
        Grid::read(&puzzle.rows).is_some_and(|grid| grid.conflict().is_none())
    }

    fn key(&self, puzzle: &Puzzle) -> String {
        let solution = Grid::read(&puzzle.rows).and_then(|grid| grid.solutions(1).pop());
        solution.map(|grid| grid.line()).unwrap_or_default()
    }

    fn words(&self, puzzle: &Puzzle) -> Vec<String> {
        let Some(grid) = Grid::read(&puzzle.rows) else { return Vec::new() };
        vec![grid.rows(" ").join("\n"), grid.size().to_string(), grid.side.to_string()]
    }

    fn solve(&self, puzzle: &Puzzle) -> Solution {
        let mut thought = String::new();
        let Some(mut grid) = Grid::read(&puzzle.rows) else { return Solution { thought, answer: String::new() } };
        let solution = grid.solutions(1).pop().unwrap_or_else(|| grid.clone());
        while let Some((cell, candidates)) = grid.narrowest() {
            let (row, column) = (cell / grid.size() + 1, cell % grid.size() + 1);
            let digits: Vec<String> =
                (1..=grid.size() as u8).filter(|d| candidates >> d & 1 == 1).map(|d| d.to_string()).collect();
            grid.cells[cell] = solution.cells[cell];
            let digit = grid.cells[cell];
            let _ = match digits.len() {
                1 => write!(thought, "Row {row}, column {column} can only be {digit}. "),
                _ => write!(thought, "Row {row}, column {column} is one of {}; it is {digit}. ", digits.join(", ")),
            };
        }
        Solution { thought: thought.trim_end().to_owned(), answer: solution.rows(" ").join("\n") }
    }

    fn judge(&self, puzzle: &Puzzle, answer: &str) -> Judged {
        let Some(given) = Grid::read(&puzzle.rows) else { return Judged::Malformed("there is no grid".into()) };
        let mut cells = Vec::new();
        for c in answer.chars() {
            match c.to_digit(10) {
                Some(digit) if (1..=given.size()).contains(&(digit as usize)) => cells.push(digit as u8),
                None if c.is_whitespace() || "|-+,;[]".contains(c) => {}
                _ => return Judged::Malformed(format!("`{}` does not belong into the grid", c.escape_debug())),
            }
        }
        if cells.len() != given.cells.len() {
            return Judged::Malformed(format!("it has {} of {} cells", cells.len(), given.cells.len()));
        }
        let grid = Grid { side: given.side, cells };
        let canonical = grid.rows("").join("/");
        let differs = |cell: &usize| given.cells[*cell] != 0 && given.cells[*cell] != grid.cells[*cell];
        if let Some(cell) = (0..given.cells.len()).find(differs) {
            let (row, column) = (cell / given.size() + 1, cell % given.size() + 1);
            let why = format!("row {row}, column {column} is given as {}", given.cells[cell]);
            return Judged::Wrong(canonical, why);
        }
        match grid.conflict() {
            Some(why) => Judged::Wrong(canonical, why),
            None => Judged::Right(canonical),
        }
    }
}

pipeline_plugin::task!(Task<Sudoku>);

#[cfg(test)]
mod tests;
