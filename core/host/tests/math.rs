//! The built verifier `math` on the tables of facts: its own, and the shared case files where they are present.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests; one that is skipped says so")]

mod common;

use std::path::{Path, PathBuf};

use base::{Grants, Verdict};
use common::{Rig, ctx, group};
use host::Code;
use serde_json::{Value, json};

fn plugins() -> PathBuf {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    std::env::var_os("PIPELINE_PLUGINS").map_or(committed, PathBuf::from)
}

/// The shared data, or a printed line why a test is skipped.
fn shared(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Judges rows with `gold`, `prediction` and `config` through the sandbox: the score, or `None` where it is undecided.
fn scores(rows: &[(&str, &str, Value)]) -> Vec<Option<f64>> {
    let rig = Rig::new();
    let path = plugins().join("math/math.wasm");
    let limits = base::Limits { fuel: Some(50_000_000), ..common::wasm_limits() };
    let plugin = rig.host.load("math", Code::Wasm(&path), &limits, &Grants::default()).unwrap();
    let score = |(gold, prediction, config): &(&str, &str, Value)| {
        let plugin = plugin.configure(config).unwrap_or_else(|error| panic!("{config}: {error}"));
        match plugin.verify(&ctx(), &group(Some(gold), &[prediction])).unwrap().remove(0) {
            Verdict::Decided(finding) => Some(finding.score),
            Verdict::Undecided(reason) => {
                assert!(!reason.contains("fuel") && !reason.contains("panic"), "{prediction}: {reason}");
                None
            }
            Verdict::NotApplicable => panic!("{prediction}: not applicable"),
        }
    };
    rows.iter().map(score).collect()
}

/// Graders that compare two answers, found before; the plugin finds the prediction in a box.
const OF_ANSWERS: [&str; 3] = ["slime:grade_answer_mathd", "slime:grade_answer_sympy", "trinity:is_equiv"];

fn completion(row: &Value) -> String {
    let prediction = row["prediction"].as_str().unwrap();
    if OF_ANSWERS.contains(&row["grader"].as_str().unwrap()) {
        format!("\\boxed{{{prediction}}}")
    } else {
        prediction.into()
    }
}

/// The convention that a row's grader follows.
fn config(row: &Value) -> Value {
    let convention = match row["grader"].as_str().unwrap() {
        "mario-newer:is_equiv" | "mario-newer:are_equal_under_sympy" => "mario",
        "mario-older:is_equiv" => "mario_ordered",
        "areal:geometry3k_reward_fn" => "brackets",
        "skyrl:aime" | "slime:dapo:minerva" => "dapo",
        "slime:dapo:strict_box" => "dapo_strict",
        "skyrl:gsm8k" => "gsm8k",
        "slime:grade_answer_verl" | "slime:grade_answer_sympy" => "prm800k",
        "slime:grade_answer_mathd" | "trinity:compute_score_v0" | "trinity:is_equiv" => "hendrycks",
        "trinity:verify_math_answer" => "qwen25",
        grader if grader.ends_with("multichoice") => "choice",
        _ => "math_verify",
    };
    let mut config = json!({ "convention": convention });
    if row["extraction"].is_array() {
        config["extract"] = row["extraction"].clone();
        config["precision"] = row["precision"].clone();
        config["strict"] = row["strict"].clone();
        config["allow_set_relation_comp"] = row["allow_set_relation_comp"].clone();
        let is_default = row["note"].as_str().is_some_and(|note| note.contains("default"));
        config["boxed_priority"] = json!(if is_default { 50 } else { 0 });
    }
    config
}

#[track_caller]
fn all_as_expected(rows: &[Value]) {
    let completions: Vec<String> = rows.iter().map(completion).collect();
    let judged: Vec<_> = rows
        .iter()
        .zip(&completions)
        .map(|(row, completion)| (row["gold"].as_str().unwrap(), completion.as_str(), config(row)))
        .collect();
    let expected = rows.iter().map(|row| row["expected"].as_bool().unwrap());
    let found = scores(&judged);
    let wrong: Vec<_> = judged
        .iter()
        .zip(found)
        .zip(expected)
        .filter(|((_, score), expected)| (*score == Some(1.0)) != *expected)
        .map(|(((gold, prediction, config), score), _)| format!("{gold} | {prediction} | {config} | {score:?}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), judged.len(), wrong.join("\n"));
}

#[test]
fn verdicts_are_those_of_the_public_graders() {
    let text = include_str!("../../../plugins/equivalence/tests/equivalence.jsonl");
    all_as_expected(&rows(text));
    let Some(text) = shared("cases/math_equivalence.jsonl") else { return };
    all_as_expected(&rows(&text));
}

#[test]
fn reference_solutions_of_math_equal_their_answers() {
    let Some(text) = shared("math/math500.jsonl") else { return };
    let rows = rows(&text);
    let judged: Vec<_> = rows
        .iter()
        .map(|row| (row["answer"].as_str().unwrap(), row["solution"].as_str().unwrap(), json!({})))
        .collect();
    let right = scores(&judged).into_iter().filter(|score| *score == Some(1.0)).count();
    assert!(right * 100 >= judged.len() * 99, "{right} of {}", judged.len());
}

/// The rate is printed, not demanded: it depends on the machine.
#[test]
fn a_group_of_sixteen_is_judged_in_one_call() {
    let Some(text) = shared("math/math500.jsonl") else { return };
    let rig = Rig::new();
    let limits = base::Limits { fuel: Some(50_000_000), ..common::wasm_limits() };
    let code = Code::Builtin("math");
    let plugin = rig.host.load("math", code, &limits, &Grants::default()).unwrap().configure(&json!({})).unwrap();
    let rows = rows(&text);
    let groups: Vec<_> =
        rows.iter().map(|row| group(row["answer"].as_str(), &[row["solution"].as_str().unwrap(); 16])).collect();
    let start = std::time::Instant::now();
    let right: usize = groups
        .iter()
        .map(|group| {
            plugin
                .verify(&ctx(), group)
                .unwrap()
                .iter()
                .filter(|v| matches!(v, Verdict::Decided(f) if f.score == 1.0))
                .count()
        })
        .sum();
    let answers = 16 * groups.len();
    println!("{:.0} answers a second, {:?}", answers as f64 / start.elapsed().as_secs_f64(), plugin.spent());
    assert!(right * 100 >= answers * 99, "{right} of {answers}");
}
