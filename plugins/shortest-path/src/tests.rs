use procedural::check::{Check, judged, task};

use super::*;
use pipeline_plugin::Row;

#[test]
fn grids_have_a_way_that_is_longer_by_the_difficulty() {
    let effort = |puzzle: &Puzzle| ShortestPath {}.solve(puzzle).answer.len() as f64;
    let wrong = |puzzle: &Puzzle, answer: &str| {
        assert!(answer.len() >= puzzle.rows.len());
        let back = match answer.as_bytes()[answer.len() - 1] {
            b'U' => "D",
            b'D' => "U",
            b'L' => "R",
            _ => "L",
        };
        let last = &answer[answer.len() - 1..];
        vec![
            answer[1..].to_owned(),
            answer[..answer.len() - 1].to_owned(),
            format!("{answer}{back}{last}"),
            format!("{answer}X"),
            "U".repeat(20),
        ]
    };
    Check::<ShortestPath> { rows: 1_000, effort: &effort, wrong: &wrong }.run();
}

fn row(rows: &str) -> Row {
    let rows: Vec<&str> = rows.split('/').collect();
    let puzzle = serde_json::json!({ "rows": rows }).to_string();
    Row { prompt: Vec::new(), reference: None, fields: vec![("puzzle".into(), puzzle)] }
}

#[test]
fn any_shortest_path_is_right() {
    let task = task::<ShortestPath>(serde_json::json!({}));
    let check = |answer: &str, score: f64, note: &str| {
        let found = judged(&task, &row("S.#/.../#.G"), &format!("<answer>{answer}</answer>"));
        assert_eq!((found.0, found.2.as_str()), (score, note), "{answer}");
    };
    for right in ["RDRD", "DRRD", "drdr", "D, R, D, R", "right -> down -> down -> right", "R\nD\nR\nD"] {
        check(right, 1.0, "");
    }
    check("RDLRRD", 0.0, "it takes 6 moves where 4 suffice");
    check("RR", 0.0, "move 2 (R) goes into a wall");
    check("U", 0.0, "move 1 (U) goes off the grid");
    check("RD", 0.0, "it ends at row 2, column 2, not at G");
    check("go right", 0.0, "`go` is no move");
    check("...", 0.0, "it has no moves");
    for damaged in ["S", "S#G/.../..", "S#G/###/...", "S.S/.../..G", "S../.../..x", "S../.../..."] {
        assert!(judged(&task, &row(damaged), "<answer>R</answer>").0.is_nan(), "{damaged} is no puzzle");
    }
}
