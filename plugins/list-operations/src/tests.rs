use procedural::check::{Check, judged, task};

use super::*;
use pipeline_plugin::Row;

#[test]
fn programs_are_longer_by_the_difficulty_and_no_step_is_idle() {
    let effort = |puzzle: &Puzzle| puzzle.operations.len() as f64;
    let wrong = |puzzle: &Puzzle, answer: &str| {
        let lists = puzzle.lists().unwrap();
        assert!(std::iter::once(&puzzle.list).chain(&lists).zip(&lists).all(|(before, after)| before != after));
        assert!(lists.iter().all(|list| list.len() >= 3));
        vec![text(&puzzle.list), answer.replace(']', ", 0]"), answer.replace('[', "[x"), "[]".to_owned()]
    };
    Check::<ListOperations> { rows: 1_000, effort: &effort, wrong: &wrong }.run();
}

#[test]
fn operations_do_what_their_words_say() {
    use Operation::*;
    for (operation, list) in [
        (SortAscending, vec![1, 1, 2, 3]),
        (SortDescending, vec![3, 2, 1, 1]),
        (Reverse, vec![2, 1, 1, 3]),
        (RotateLeft(1), vec![1, 1, 2, 3]),
        (RotateRight(5), vec![2, 3, 1, 1]),
        (Swap(1, 4), vec![2, 1, 1, 3]),
        (Add(5), vec![8, 6, 6, 7]),
        (Double, vec![6, 2, 2, 4]),
        (Append(0), vec![3, 1, 1, 2, 0]),
        (RemoveAt(1), vec![1, 1, 2]),
        (RemoveEven, vec![3, 1, 1]),
        (RemoveOdd, vec![2]),
        (RemoveRepeated, vec![3, 1, 2]),
        (RunningSums, vec![3, 4, 5, 7]),
    ] {
        assert_eq!(operation.apply(&[3, 1, 1, 2]), Some(list), "{operation:?}");
    }
    for impossible in [Swap(0, 1), Swap(1, 9), RemoveAt(0), RemoveAt(5), Add(i64::MAX)] {
        assert_eq!(impossible.apply(&[3, 1, 1, 2]), None, "{impossible:?}");
    }
    assert_eq!(RotateLeft(1).apply(&[]), None);
}

#[test]
fn a_list_may_be_written_in_many_ways() {
    let puzzle = r#"{"list":[3,1,2],"operations":["sort-ascending",{"add":1},{"swap":[1,3]}]}"#;
    let row = Row { prompt: Vec::new(), reference: None, fields: vec![("puzzle".into(), puzzle.into())] };
    let task = task::<ListOperations>(serde_json::json!({}));
    let check = |answer: &str, score: f64, note: &str| {
        let found = judged(&task, &row, &format!("<answer>{answer}</answer>"));
        assert_eq!((found.0, found.2.as_str()), (score, note), "{answer}");
    };
    for right in ["[4, 3, 2]", "4 3 2", "4,3,2", "(4; 3; 2)", "4\n3\n2"] {
        check(right, 1.0, "");
    }
    check("[2, 3, 4]", 0.0, "it is not [4, 3, 2]");
    check("[4, 3]", 0.0, "it is not [4, 3, 2]");
    check("4 then 3", 0.0, "`then` is no whole number");
    check("[]", 0.0, "it holds no list");
}
