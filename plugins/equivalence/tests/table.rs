//! Verdicts of public graders' own test suites, as facts: `equivalence.jsonl` names the suite of each row; the shared case
//! files are read where they are present.

use std::collections::BTreeMap;
use std::path::Path;

use equivalence::conventions::{hendrycks, minerva, others};
use equivalence::{Config, Convention, equal};
use serde_json::Value;

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A shared file, or a printed line why it is skipped.
fn shared(name: &str) -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(rows(&text)),
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

fn config(row: &Value, grader: &str) -> Config {
    let convention = match grader {
        "mario-newer:is_equiv" | "mario-newer:are_equal_under_sympy" => Convention::Mario,
        "mario-older:is_equiv" => Convention::MarioOrdered,
        "areal:geometry3k_reward_fn" => Convention::Brackets,
        "skyrl:aime" | "slime:dapo:minerva" => Convention::Dapo,
        "slime:dapo:strict_box" => Convention::DapoStrict,
        "skyrl:gsm8k" => Convention::Gsm8k,
        "slime:grade_answer_verl" => Convention::Prm800k,
        "trinity:compute_score_v0" => Convention::Hendrycks,
        "trinity:verify_math_answer" => Convention::Qwen25,
        grader if grader.ends_with("multichoice") => Convention::Choice,
        _ => Convention::MathVerify,
    };
    let mut config = Config { convention, ..Config::default() };
    if row["extraction"].is_array() {
        config.extract = Some(serde_json::from_value(row["extraction"].clone()).unwrap());
        config.boxed_priority =
            Some(if row["note"].as_str().is_some_and(|note| note.contains("default")) { 50 } else { 0 });
        config.precision = row["precision"].as_u64().map(|places| places as u32);
        config.strict = row["strict"].as_bool();
        config.allow_set_relation_comp = row["allow_set_relation_comp"].as_bool();
    }
    config
}

/// Judges all rows, each by the convention of its grader, and demands every verdict.
#[track_caller]
fn check(rows: &[Value]) {
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap();
        let (grader, gold, prediction) = (text("grader"), text("gold"), text("prediction"));
        let found = match grader {
            "slime:grade_answer_mathd" => others::grade_answer_mathd(prediction, gold),
            "slime:grade_answer_sympy" => others::grade_answer_sympy(prediction, gold),
            "trinity:is_equiv" => hendrycks::is_equiv(prediction, gold),
            _ => equal(gold, prediction, &config(row, grader)).is_equal(),
        };
        let count = counts.entry(grader).or_default();
        count.1 += 1;
        if found == row["expected"].as_bool().unwrap() {
            count.0 += 1;
        } else {
            wrong.push(format!("{grader}: {gold:?} | {prediction:?} | found {found}"));
        }
    }
    for (grader, (right, all)) in &counts {
        println!("{grader}: {right} of {all}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn verdicts_are_those_of_the_public_suites() {
    check(&rows(include_str!("equivalence.jsonl")));
}

#[test]
fn verdicts_are_those_of_the_shared_cases() {
    if let Some(rows) = shared("cases/math_equivalence.jsonl") {
        check(&rows);
    }
}

#[test]
fn helpers_are_those_of_the_shared_cases() {
    let Some(rows) = shared("cases/extraction.jsonl") else { return };
    let json = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    for row in rows {
        let input = row["input"].as_str().unwrap_or_default();
        let args = &row["args"];
        let found = match row["function"].as_str().unwrap() {
            "last_boxed_only_string" => json(hendrycks::last_boxed_only_string(input)),
            "remove_boxed" => json(hendrycks::remove_boxed(input)),
            "extract_boxed_answer" | "extract_answer" => json(others::extract_boxed_answer(input)),
            "strip_string_hendrycks" => hendrycks::strip_string(input).into(),
            "mathd_normalize_answer" => hendrycks::mathd_normalize_answer(input).into(),
            "dapo_last_boxed_only_string" => json(minerva::last_boxed_only_string(input)),
            "dapo_remove_boxed" => match minerva::remove_boxed(input) {
                Ok(inside) => inside.into(),
                Err(error) => {
                    let expected = row["expected"].as_str().unwrap().strip_prefix("!error: ").unwrap();
                    assert!(error.starts_with(expected), "{row}");
                    continue;
                }
            },
            "dapo_normalize_final_answer" => minerva::normalize_final_answer(input).into(),
            "dapo_compute_score" => {
                let is_strict = args["strict_box_verify"].as_bool().unwrap_or(false);
                let (is_right, answer) = minerva::verify(input, args["ground_truth"].as_str().unwrap(), is_strict);
                let score = if is_right { 1.0 } else { -1.0 };
                let all = serde_json::json!({ "score": score, "acc": is_right, "pred": answer });
                for (key, value) in row["expected"].as_object().unwrap() {
                    assert_eq!(&all[key], value, "{row}");
                }
                continue;
            }
            "dapo_is_correct_strict_box" => {
                let (is_right, answer) = minerva::is_correct_strict_box(input, args["ground_truth"].as_str().unwrap());
                serde_json::json!([if is_right { 1 } else { -1 }, answer])
            }
            "dapo_is_correct_minerva" => {
                let (is_right, answer) = minerva::is_correct_minerva(input, args["ground_truth"].as_str().unwrap());
                serde_json::json!([is_right, answer])
            }
            "qwen25_extract_answer" => json(others::qwen25_extract_answer(input).as_deref()),
            "choice_letter_extraction" => {
                let choices: Vec<&str> = match args["strings"].as_array() {
                    Some(strings) => strings.iter().filter_map(Value::as_str).collect(),
                    None => vec!["A", "B", "C", "D"],
                };
                match others::choice_letter(input, &choices) {
                    Some((lower, raw)) => serde_json::json!([lower, raw]),
                    None => serde_json::json!([]),
                }
            }
            "select_extracted_answer" => {
                let list = |i: usize| -> Vec<&str> {
                    row["input"][i].as_array().unwrap().iter().filter_map(Value::as_str).collect()
                };
                json(others::select_extracted_answer(&list(0), &list(1)))
            }
            _ => continue,
        };
        assert_eq!(found, row["expected"], "{row}");
    }
}
