//! Answers of public data sets, where they are present: each equals itself, and hardly ever another.

use std::path::Path;

use equivalence::{Comparison, Config, equal};
use serde_json::Value;

/// The rows of a shared file, or a printed line why it is skipped.
fn shared(name: &str) -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()),
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

/// Judges each answer against the completion that `text` makes of its row: at least `share` of them must be equal.
#[track_caller]
fn equals_itself(name: &str, answer: &str, text: impl Fn(&Value) -> String, share: f64) {
    let Some(rows) = shared(name) else { return };
    let config = Config::default();
    let mut right = 0;
    for row in &rows {
        let reference = row[answer].as_str().unwrap();
        let found = equal(reference, &text(row), &config);
        if found.is_equal() {
            right += 1;
        } else {
            println!("{name}: {found:?}: {reference}");
        }
    }
    println!("{name}: {right} of {} equal", rows.len());
    assert!(f64::from(right) >= share * rows.len() as f64, "{name}: {right} of {}", rows.len());
}

#[test]
fn reference_solutions_of_math_have_their_answers() {
    for name in ["math/train.jsonl", "math/test.jsonl"] {
        equals_itself(name, "answer", |row| row["solution"].as_str().unwrap().into(), 0.995);
    }
}

#[test]
fn answers_equal_themselves_in_a_box() {
    let boxed = |key: &'static str| move |row: &Value| format!("So it is $\\boxed{{{}}}$.", row[key].as_str().unwrap());
    for name in ["aime/aime24.jsonl", "aime/aime25.jsonl", "math/math500.jsonl"] {
        equals_itself(name, "answer", boxed("answer"), 1.0);
    }
    equals_itself("deepmath/train.jsonl", "answer", boxed("answer"), 0.995);
    for name in ["gsm8k/train.jsonl", "gsm8k/test.jsonl"] {
        equals_itself(name, "answer", boxed("final"), 1.0);
    }
}

/// Answers of other problems that are accepted must be equal by reason: they are printed to be read.
#[test]
fn answers_of_other_problems_are_wrong() {
    for name in ["math/train.jsonl", "math/test.jsonl", "deepmath/train.jsonl"] {
        let Some(rows) = shared(name) else { return };
        let config = Config::default();
        let (mut tried, mut accepted, mut unknown) = (0, 0, 0);
        for (i, row) in rows.iter().enumerate() {
            let reference = row["answer"].as_str().unwrap();
            for step in [1, 7919, 104_729] {
                let other = rows[(i * step + 13) % rows.len()]["answer"].as_str().unwrap();
                if other == reference || reference.is_empty() || other.is_empty() {
                    continue;
                }
                tried += 1;
                match equal(reference, &format!("\\boxed{{{other}}}"), &config) {
                    Comparison::Equal(proof) => {
                        accepted += 1;
                        println!("{name}: {reference} | {other} | {proof:?}");
                    }
                    Comparison::Unknown => {
                        unknown += 1;
                        println!("{name}: undecided {reference} | {other}");
                    }
                    Comparison::Different => {}
                }
            }
        }
        println!("{name}: {accepted} of {tried} accepted though written otherwise, {unknown} undecided");
        assert!(accepted * 100 < tried, "{name}: {accepted} of {tried}");
        assert!(unknown * 50 < tried, "{name}: {unknown} undecided of {tried}");
    }
}
