use procedural::check::{Check, judged, task};

use super::*;
use pipeline_plugin::Row;

#[test]
fn puzzles_have_one_solution_and_more_blanks_by_the_difficulty() {
    let effort = |puzzle: &Puzzle| puzzle.rows.concat().matches('.').count() as f64;
    let wrong = |puzzle: &Puzzle, answer: &str| {
        assert_eq!(Grid::read(&puzzle.rows).unwrap().solutions(3).len(), 1);
        let (first, rest) = answer.split_once('\n').unwrap();
        let shifted: String = answer
            .chars()
            .map(|c| c.to_digit(10).map_or(c, |d| char::from_digit(d % puzzle.rows.len() as u32 + 1, 10).unwrap()))
            .collect();
        vec![rest.to_owned(), format!("{rest}\n{first}"), format!("{answer} 1"), shifted, puzzle.rows.join("\n")]
    };
    // Large grids take a while without optimisation.
    Check::<Sudoku> { rows: 100, effort: &effort, wrong: &wrong }.run();
}

fn row(rows: &str) -> Row {
    let rows: Vec<&str> = rows.split('/').collect();
    let puzzle = serde_json::json!({ "rows": rows }).to_string();
    Row { prompt: Vec::new(), reference: None, fields: vec![("puzzle".into(), puzzle)] }
}

#[test]
fn any_grid_that_fits_is_right() {
    let task = task::<Sudoku>(serde_json::json!({}));
    let check = |rows: &str, answer: &str, score: f64, note: &str| {
        let found = judged(&task, &row(rows), &format!("<answer>{answer}</answer>"));
        assert_eq!((found.0, found.2.as_str()), (score, note), "{answer}");
    };
    let blank = "1.../..../..../....";
    check(blank, "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1", 1.0, "");
    check(blank, "1234\n3412\n2341\n4123", 1.0, "");
    check(blank, "| 1 2 | 3 4 |\n| 3 4 | 1 2 |\n|---+---|\n| 2 1 | 4 3 |\n| 4 3 | 2 1 |", 1.0, "");
    check(blank, "2 1 3 4\n3 4 1 2\n1 2 4 3\n4 3 2 1", 0.0, "row 1, column 1 is given as 1");
    check(blank, "1 2 3 4\n1 4 3 2\n2 1 4 3\n4 3 2 1", 0.0, "1 stands twice in column 1");
    check(blank, "1 1 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1", 0.0, "1 stands twice in row 1");
    check(blank, "1 2 3 4\n2 1 4 3\n3 4 1 2\n4 3 2 1", 0.0, "2 stands twice in box 1");
    check(blank, "1 2 3 4\n3 4 1 2\n2 1 4 3", 0.0, "it has 12 of 16 cells");
    check(blank, "1 2 3 5\n3 4 1 2\n2 1 4 3\n4 3 2 1", 0.0, "`5` does not belong into the grid");
    for damaged in ["1...", "1.../..../..../...9", "11../..../..../....", "..../..../..../....."] {
        assert!(judged(&task, &row(damaged), "<answer>1</answer>").0.is_nan(), "{damaged} is no puzzle");
    }
}
