use procedural::check::{Check, judged, task};
use procedural::tagged;

use super::*;
use pipeline_plugin::Row;

/// Ways to combine so many numbers: pairs, times operations, down to one number.
fn ways(puzzle: &Puzzle) -> f64 {
    (2..=puzzle.numbers.len()).map(|n| (n * (n - 1) / 2 * 6) as f64).product()
}

#[test]
fn rows_are_valid_solvable_and_harder_by_the_difficulty() {
    let wrong = |puzzle: &Puzzle, answer: &str| {
        let Puzzle { numbers, target, .. } = puzzle;
        vec![
            format!("{answer} + 1 - 1"),
            format!("({answer}"),
            format!("-({answer})"),
            format!("{answer} = {target}"),
            numbers[0].to_string(),
            format!("{answer} * {answer} / ({answer})"),
        ]
    };
    Check::<Countdown> { rows: 1_000, effort: &ways, wrong: &wrong }.run();
}

fn row(numbers: &str, target: u64) -> Row {
    let fields = vec![("nums".into(), numbers.into()), ("target".into(), target.to_string())];
    Row { prompt: Vec::new(), reference: None, fields }
}

#[track_caller]
fn check(config: serde_json::Value, answer: &str, score: f64, note: &str) {
    let task = task::<Countdown>(config);
    let (found, _, why) = judged(&task, &row("[44, 19, 35]", 98), &format!("<answer>{answer}</answer>"));
    assert_eq!((found, why.as_str()), (score, note), "{answer}");
}

#[test]
fn an_expression_uses_each_number_exactly_once() {
    let all = || serde_json::json!({});
    for right in
        ["44 + 19 + 35", "(35+19)+44", "44--19+35", " 44\n+ (19 + (35)) ", "+44+19+35", "44 \u{2212} (-19 \u{2212} 35)"]
    {
        check(all(), right, 1.0, "");
    }
    check(all(), "44 + 54", 0.0, "it uses 54, which was not given");
    check(all(), "44 + 44 + 10", 0.0, "it uses 44 too often");
    check(all(), "44 + 19", 0.0, "it does not use 35");
    check(all(), "44 + 19 - 35", 0.0, "it equals 28, not 98");
    check(all(), "44 / 19 / 35", 0.0, "it equals 44/665, not 98");
    check(all(), "44 / (19 - 19 + 35)", 0.0, "it uses 19 too often");
    check(all(), "44 + 19 + 35 = 98", 0.0, "`=` does not belong into an expression");
    check(all(), "44 + 19 + 35.0", 0.0, "`.` does not belong into an expression");
    check(all(), "44 ** 19 35", 0.0, "`*` stands where a number belongs");
    check(all(), "44 19 35", 0.0, "`19` is not expected in it");
    check(all(), "(44 + 19 + 35", 0.0, "a parenthesis is not closed in it");
    check(all(), "44 + 19 + 35 +", 0.0, "a number is missing at its end");
    check(all(), &"(".repeat(500), 0.0, "its parentheses are nested more than 100 deep");
    check(all(), &"1+".repeat(501), 0.0, "an expression of more than 1000 bytes is not read");
    check(all(), "99999999999999999999999", 0.0, "a number in it is too large");
}

#[test]
fn numbers_may_be_left_out_and_form_may_score() {
    let some = || serde_json::json!({ "use_all": false });
    let task = task::<Countdown>(some());
    assert_eq!(judged(&task, &row("[44, 19, 35]", 25), "<answer>44-19</answer>").0, 1.0);
    check(some(), "44 + 44", 0.0, "it uses 44 too often");
    check(serde_json::json!({ "format_score": 0.1 }), "44 + 19", 0.1, "it does not use 35");
    let task = procedural::check::task::<Countdown>(serde_json::json!({ "answer": "result", "format_score": 0.1 }));
    assert_eq!(judged(&task, &row("44,19,35", 98), "<answer>44+19+35</answer>").0, 0.0);
    assert_eq!(judged(&task, &row("44,19,35", 98), "<result>1</result><result>44+19+35</result>").0, 1.0);
}

#[test]
fn division_by_zero_and_large_numbers_are_wrong() {
    let task = task::<Countdown>(serde_json::json!({}));
    let note = |numbers: &str, answer: &str| judged(&task, &row(numbers, 1), &format!("<answer>{answer}</answer>")).2;
    assert_eq!(note("[3, 3, 5]", "5 / (3 - 3)"), "it divides by zero");
    let large = "18446744073709551615";
    let numbers = [large; 3].join(",");
    assert_eq!(note(&numbers, &[large; 3].join("*")), "its numbers grow too large");
}

#[test]
fn the_prompt_is_the_config_s() {
    use pipeline_plugin::{Config, Generator};
    let of = |config| task::<Countdown>(config).row(&procedural::check::context(1), 3).unwrap();
    let row = of(serde_json::json!({ "prompt": "{numbers} = {target}?", "think": "t", "answer": "a" }));
    let response = &row.fields[2].1;
    assert!(response.starts_with("<t>") && tagged(response, "a").is_some(), "{response}");
    let (numbers, target) = row.prompt[0].content.strip_suffix('?').unwrap().split_once(" = ").unwrap();
    assert!(row.fields[1].1.starts_with(&format!("{{\"numbers\":[{}],\"target\":{target}", numbers.replace(' ', ""))));
    let unknown: Task<Countdown> = serde_json::from_value(serde_json::json!({ "prompt": "{nums}" })).unwrap();
    let errors = unknown.check();
    assert_eq!(errors[0].path, "/prompt");
    assert_eq!(errors[0].message, "there is no {nums}; there are {numbers}, {target}, {think}, {answer}");
}
