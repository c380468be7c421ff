//! Conditions: what is refused with its place, and what is kept.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use base::{Decision, Group, Judgement};
use common::{group, score};
use host::Condition;

#[track_caller]
fn refused(text: &str, at: Option<usize>, part: &str) {
    let error = Condition::compile(text).expect_err(text);
    assert!(error.message.contains(part), "{text}: {}", error.message);
    assert_eq!(error.at, at, "{text}: {}", error.message);
}

#[test]
fn what_is_no_condition_is_refused_in_its_place() {
    refused("reward > ", Some(9), "incomplete");
    refused("reward > 0.2 && token < 9", Some(16), "there is no `token` here; there are reward, mean");
    refused("reward > 0.2 &&\n  token < 9", Some(18), "there is no `token` here");
    refused("\"\u{e9}\" == token", Some(8), "there is no `token` here");
    refused("tokens + 1", None, "gives a number where `true` or `false` belongs");
    refused("reward > 0.2 && text.size() > 3", Some(21), "there is no function `size (");
    refused("config.word == 1", Some(0), "there is no `config` here");
    refused("let a = 1; a > 0", Some(0), "");
    refused("eval(\"true\")", Some(0), "");
    refused("while true {}", Some(0), "");
    refused("fields.level", None, "gives nothing where `true` or `false` belongs");
}

/// A group whose completions are 1, 2, 3 .. letters long.
fn rewarded(rewards: &[Option<f64>]) -> Group {
    let texts: Vec<String> = (1..=rewards.len()).map(|n| "x".repeat(n)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Group { rewards: rewards.to_vec(), decisions: vec![Decision::Keep; rewards.len()], ..group(Some("7"), &texts) }
}

#[track_caller]
fn kept(text: &str, group: &Group) -> Vec<bool> {
    let decisions = Condition::compile(text).unwrap().decide(group).unwrap();
    decisions.iter().map(|decision| *decision == Decision::Keep).collect()
}

#[test]
fn a_condition_sees_a_completion_its_group_and_its_row() {
    let mut four = rewarded(&[Some(0.0), Some(0.5), Some(1.0), None]);
    let verdicts = vec![score(0.0), score(1.0), score(1.0), common::undecided("why")];
    four.judgements.push(std::sync::Arc::new(Judgement { stage: "accuracy".into(), verdicts }));
    for (text, expected) in [
        ("true", [true, true, true, true]),
        ("reward > 0.2", [false, true, true, false]),
        ("reward > 0", [false, true, true, false]),
        ("reward >= mean && tokens < 3", [false, true, false, false]),
        ("mean == 0.5 && deviation == 0.5 && lowest == 0 && highest == 1", [true; 4]),
        ("text.len() == 2 || tokens == 3", [false, true, true, false]),
        ("finish == \"stop\" && source == \"sums\" && reference == \"7\"", [true; 4]),
        ("fields.level == \"2\" && fields.other == ()", [true; 4]),
        ("number(fields.level) > 1.5 && step == 3 && prompt_id == 7", [true; 4]),
        ("scores.accuracy == 1", [false, true, true, false]),
        ("(scores.accuracy ?? 0.0) < 1.0", [true, false, false, true]),
        ("if tokens > 2 { reward != () } else { false }", [false, false, true, false]),
    ] {
        assert_eq!(kept(text, &four), expected, "{text}");
    }
}

#[test]
fn what_was_dropped_before_counts_no_more() {
    let mut three = rewarded(&[Some(0.0), Some(0.5), Some(1.0)]);
    three.decisions[0] = Decision::Drop("before".into());
    assert_eq!(kept("lowest == 0.5 && mean == 0.75", &three), [true; 3]);
    assert_eq!(kept("deviation == ()", &rewarded(&[Some(1.0)])), [true]);
}

#[test]
fn a_reason_has_the_condition_and_the_values_it_names() {
    let two = rewarded(&[Some(0.1), None]);
    let decisions = Condition::compile("reward > 0.2 && tokens < 2000").unwrap().decide(&two).unwrap();
    let dropped = |reason: &str| Decision::Drop(format!("`reward > 0.2 && tokens < 2000` is false: {reason}"));
    assert_eq!(decisions, [dropped("reward 0.1, tokens 1"), dropped("reward none, tokens 2")]);
}

#[test]
fn a_condition_that_fails_or_never_ends_says_where() {
    let one = rewarded(&[Some(0.1)]);
    let failed = |text: &str| Condition::compile(text).unwrap().decide(&one).unwrap_err();
    let place = "on completion 0 of step 3, source `sums`, prompt 7";
    for (text, part) in [
        ("fields.other.len() > 3", "Function not found"),
        ("if source == \"sums\" { fields.level } else { true }", "it gave a string instead of `true` or `false`"),
        ("if source == \"sums\" { 1 / (step - 3) > 0 } else { true }", "Division by zero"),
    ] {
        let reason = failed(text);
        assert!(reason.contains(part) && reason.ends_with(place), "{text}: {reason}");
    }
    let long = Group { completions: group(None, &["x".repeat(900_000).as_str()]).completions, ..one };
    let text = ["text.to_upper()"; 6].join(" + ") + " != \"\"";
    let reason = Condition::compile(&text).unwrap().decide(&long).unwrap_err();
    assert!(reason.starts_with("operations exhausted: 100,000 spent, 100,000 allowed"), "{reason}");
}
