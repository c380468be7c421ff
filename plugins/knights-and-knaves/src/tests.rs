use procedural::check::{Check, judged, task};

use super::*;
use pipeline_plugin::Row;

#[test]
fn puzzles_have_one_solution_and_more_people_by_the_difficulty() {
    let effort = |puzzle: &Puzzle| f64::from(1_u32 << puzzle.people.len());
    let wrong = |puzzle: &Puzzle, answer: &str| {
        assert_eq!(puzzle.solutions().count(), 1);
        let swapped = |text: &str| text.replace("knight", "*").replace("knave", "knight").replace('*', "knave");
        let first = answer.split(", ").next().unwrap();
        vec![
            swapped(answer),
            first.to_owned(),
            format!("{answer}, {}", swapped(first)),
            answer.replacen("is a", "is not a", 1),
            format!("{answer}, Nobody is a knave"),
        ]
    };
    Check::<KnightsAndKnaves> { rows: 1_000, effort: &effort, wrong: &wrong }.run();
}

/// Ann says: "Bob is a knave." Bob says: "Ann is a knight and I am a knight."
fn row() -> Row {
    let puzzle = r#"{"people":["Ann","Bob"],"claims":[{"is":[1,false]},{"and":[[0,true],[1,true]]}]}"#;
    Row { prompt: Vec::new(), reference: None, fields: vec![("puzzle".into(), puzzle.into())] }
}

#[test]
fn an_answer_may_be_worded_in_many_ways() {
    let task = task::<KnightsAndKnaves>(serde_json::json!({}));
    let check = |answer: &str, score: f64, note: &str| {
        let found = judged(&task, &row(), &format!("<answer>{answer}</answer>"));
        assert_eq!((found.0, found.2.as_str()), (score, note), "{answer}");
    };
    for right in [
        "Ann is a knight, Bob is a knave",
        "(1) bob is a KNAVE\n(2) ann is a knight.",
        "Ann: knight; Bob: knave",
        "Ann is a knight, Bob is a knave, Ann is a knight",
    ] {
        check(right, 1.0, "");
    }
    check("The knave is Bob", 0.0, "it does not say who is a knave");
    check("Ann and Bob are knights", 0.0, "Ann would be a knight, yet what Ann says would be false");
    check("Ann is a knight", 0.0, "it does not say what Bob is");
    check("Ann is a knight, Ann is a knave", 0.0, "it says of Ann that they are both");
    check("Ann is a knight, Bob", 0.0, "it does not say what Bob is");
    check("Ann is not a knave", 0.0, "`not` is no name and no role");
}

#[test]
fn a_puzzle_is_told_in_words() {
    let puzzle: Puzzle = serde_json::from_str(&row().fields[0].1).unwrap();
    let words = KnightsAndKnaves {}.words(&puzzle);
    let claims = "Ann says: \"Bob is a knave.\"\nBob says: \"Ann is a knight and I am a knight.\"";
    assert_eq!(words, ["Ann and Bob", claims, "Ann is a knave, Bob is a knight"]);
    let solution = KnightsAndKnaves {}.solve(&puzzle);
    assert_eq!(solution.answer, "Ann is a knight, Bob is a knave");
    assert!(solution.thought.contains("Bob, a knave, says \"Ann is a knight and I am a knight\", which is false."));
}

#[test]
fn a_damaged_puzzle_decides_nothing() {
    let mut row = row();
    row.fields[0].1 = r#"{"people":["Ann"],"claims":[{"is":[4,false]}]}"#.into();
    let found = judged(&task::<KnightsAndKnaves>(serde_json::json!({})), &row, "<answer>Ann is a knight</answer>");
    assert!(found.0.is_nan());
    assert_eq!(found.2, "the row's puzzle is none of this family");
}
