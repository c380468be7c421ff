//! The filters as they are built, on steps of the size of a run: what they keep, and what that costs. What each of them decides
//! case by case stands in its folder.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests; figures are printed")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use base::{Decision, Grants, Group, Limits, Message, Prompt, RngKey};
use common::{Rig, ctx, group};
use host::{Code, Configured};
use serde_json::{Value, json};

/// The limits that the documentation shows.
fn limits(name: &str) -> Limits {
    let fuel = match name {
        "pattern" => 500_000_000,
        "language-mixing" => 100_000_000,
        "near-duplicates" => 50_000_000,
        "length-window" | "readability" => 20_000_000,
        _ => 5_000_000,
    };
    Limits { fuel: Some(fuel), memory: Some(256 << 20), ..Limits::default() }
}

fn configured(rig: &Rig, name: &str, grants: &Grants, config: &Value) -> Configured {
    let plugin = rig.host.load(name, Code::Builtin(name), &limits(name), grants).unwrap();
    plugin.configure(config).unwrap_or_else(|error| panic!("{error}"))
}

/// `words` words that depend on `seed` alone.
fn text(seed: u64, words: usize) -> String {
    let key = RngKey::new(seed, "text");
    let order = key.permutation(0, 5_000);
    order.iter().take(words).map(|n| format!("wo{n}")).collect::<Vec<_>>().join(" ")
}

fn asked(question: &str, texts: &[&str], id: u64) -> Arc<Group> {
    let mut group = group(None, texts);
    let messages = vec![Message { role: "user".into(), content: question.into() }];
    group.prompt = Prompt { id, messages, ..(*group.prompt).clone() }.into();
    group.rewards = (0..texts.len()).map(|i| Some(i as f64)).collect();
    group.decisions = vec![Decision::Keep; texts.len()];
    group.into()
}

fn dropped(decisions: &[Vec<Decision>]) -> Vec<(usize, usize)> {
    let drops = |(at, group): (usize, &Vec<Decision>)| {
        let is_dropped = |i: &usize| group[*i] != Decision::Keep;
        (0..group.len()).filter(is_dropped).map(|i| (at, i)).collect::<Vec<_>>()
    };
    decisions.iter().enumerate().flat_map(drops).collect()
}

/// Runs a filter over a step twice; prints what it cost.
fn filtered(plugin: &Configured, groups: &[Arc<Group>]) -> Vec<Vec<Decision>> {
    let start = Instant::now();
    let decisions = plugin.filter(&ctx(), groups).unwrap();
    let (time, fuel) = (start.elapsed(), plugin.spent().fuel);
    let n: usize = groups.iter().map(|group| group.completions.len()).sum();
    let bytes: usize = groups.iter().flat_map(|group| &group.completions).map(|one| one.text.len()).sum();
    println!(
        "{}: {n} completions of {} bytes: {time:.1?}, {} fuel a completion, {:.0} a byte",
        plugin.name(),
        bytes / n,
        fuel / n as u64,
        fuel as f64 / bytes as f64
    );
    assert_eq!(plugin.filter(&ctx(), groups).unwrap(), decisions, "the same step, the same decisions");
    decisions
}

#[test]
fn near_duplicates_are_found_in_a_step_of_many_completions() {
    let rig = Rig::new();
    let plugin = configured(&rig, "near-duplicates", &Grants::default(), &json!({}));
    let mut groups = Vec::new();
    let mut planted = Vec::new();
    for at in 0..32_u64 {
        let mut texts: Vec<String> = (0..16).map(|i| text(at * 16 + i, 350)).collect();
        if at > 0 {
            // A copy of a completion of the prompt before, with three words of 350 changed: about 0.92 alike.
            let mut words: Vec<String> = text((at - 1) * 16 + 3, 350).split(' ').map(str::to_owned).collect();
            [40, 170, 300].iter().for_each(|i| words[*i] = "other".into());
            texts[5] = words.join(" ");
            planted.push((at as usize, 5));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        groups.push(asked("q", &texts, at));
    }
    let decisions = filtered(&plugin, &groups);
    assert_eq!(dropped(&decisions), planted);
    let Decision::Drop(reason) = &decisions[4][5] else { panic!() };
    assert_eq!(reason, "0.917 like completion 3 of prompt 3");
}

/// The questions of GSM8K's test set are found among those of its training set, and no other.
#[test]
fn contamination_finds_the_questions_of_a_test_set() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/gsm8k");
    let (train, test) = (folder.join("train.jsonl"), folder.join("test.jsonl"));
    let (Ok(train), Ok(text)) = (std::fs::read_to_string(&train), std::fs::read_to_string(&test)) else {
        println!("skipped: there is no {}", folder.display());
        return;
    };
    let questions = |text: &str| -> Vec<String> {
        let question =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["question"].as_str().unwrap().to_owned();
        text.lines().filter(|line| !line.trim().is_empty()).map(question).collect()
    };
    let (train, test_questions) = (questions(&train), questions(&text));
    let rig = Rig::new();
    let grants = Grants { assets: BTreeMap::from([("test".to_owned(), test)]), ..Grants::default() };
    let plugin = configured(&rig, "contamination", &grants, &json!({ "assets": ["test"], "n": 13 }));
    let mut groups: Vec<Arc<Group>> = train.iter().take(240).map(|question| asked(question, &["a"; 4], 0)).collect();
    let mut expected = Vec::new();
    for (i, question) in test_questions.iter().enumerate().step_by(100) {
        // Case and punctuation don't hide it, nor words around it.
        let hidden = format!("Please think. {} Thank you", question.to_uppercase().replace(',', " ;"));
        groups.insert(i / 8, asked(&hidden, &["a"; 4], 0));
        expected.push(i / 8);
    }
    let decisions = filtered(&plugin, &groups);
    println!(
        "of which the asset has {} bytes: {:.0} fuel for each",
        text.len(),
        plugin.spent().fuel as f64 / 2.0 / text.len() as f64
    );
    let found: Vec<usize> = (0..groups.len()).filter(|at| decisions[*at][0] != Decision::Keep).collect();
    let known: Vec<usize> = found.iter().copied().filter(|at| expected.contains(at)).collect();
    assert_eq!(known, expected, "every question of the test set");
    assert!(found.len() - known.len() <= 3, "of 240 others few share thirteen words: {found:?}");
}

#[test]
fn a_filter_of_each_kind_stays_within_its_budget_on_long_completions() {
    let rig = Rig::new();
    let texts: Vec<String> = (0..8).map(|i| format!("<think>{}</think>{}", text(i, 2_000), text(i, 10))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let groups: Vec<Arc<Group>> = (0..8).map(|at| asked(&text(at + 100, 50), &texts, at)).collect();
    for (name, config, expected) in [
        ("pass-rate", json!({ "low": 0.8 }), 0),
        ("pass-rate", json!({ "low": 0.9 }), 64),
        ("top-k", json!({ "k": 3 }), 8 * 5),
        ("top-k", json!({ "k": 3, "of": "step" }), 61),
        ("length-window", json!({ "high": 20_000, "unit": "characters" }), 0),
        ("length-window", json!({ "low": 2_001, "unit": "words", "read": [{ "first_tag": "think" }] }), 64),
        ("readability", json!({}), 64),
        ("readability", json!({ "longest_paragraph": 20_000 }), 0),
        ("pattern", json!({ "require": ["wo[0-9]+ ", "<think>.*</think>"], "forbid": ["v5000", "(?i)AS AN AI"] }), 0),
        ("language-mixing", json!({ "language": "en", "by": "script" }), 0),
        ("language-mixing", json!({ "language": "ru", "by": "script" }), 64),
        ("language-mixing", json!({ "language": "en", "threshold": 0 }), 0),
        ("near-duplicates", json!({ "threshold": 1 }), 56),
        ("near-duplicates", json!({ "threshold": 0.5, "of": "group" }), 0),
    ] {
        let plugin = configured(&rig, name, &Grants::default(), &config);
        let decisions = filtered(&plugin, &groups);
        assert_eq!(dropped(&decisions).len(), expected, "{name} {config}");
    }
}

#[test]
fn no_filter_has_a_path_of_the_machine_that_built_it() {
    for name in [
        "contamination",
        "language-mixing",
        "length-window",
        "near-duplicates",
        "pass-rate",
        "pattern",
        "readability",
        "top-k",
    ] {
        let plugins: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
        let bytes = std::fs::read(plugins.join(name).join(format!("{name}.wasm"))).unwrap();
        for part in ["/home/", "/root/", "/tmp/", "/Users/", ".cache", "registry/src"] {
            assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()), "{name} holds {part}");
        }
    }
}
