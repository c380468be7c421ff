//! The families of generated problems, as they are built: what each of them makes it also judges rightly, in the sandbox.
//! What holds of each family alone stands in its own tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests; figures are printed")]

mod common;

use std::collections::BTreeSet;
use std::time::Instant;

use base::{Context, Grants, Group, Limits, Prompt, Row};
use common::{Rig, ctx, group, scores};
use host::{Code, Configured, World};
use serde_json::{Value, json};

/// Each family with its difficulties: the key of the config, the easiest and the hardest.
const FAMILIES: [(&str, &str, u32, u32); 6] = [
    ("arithmetic", "digits", 1, 6),
    ("countdown", "difficulty", 1, 6),
    ("knights-and-knaves", "difficulty", 1, 7),
    ("list-operations", "difficulty", 1, 8),
    ("shortest-path", "difficulty", 1, 8),
    ("sudoku", "difficulty", 1, 8),
];

/// What the documentation of a family says a row may cost at most.
fn fuel(name: &str) -> u64 {
    match name {
        "sudoku" => 200_000_000,
        _ => 20_000_000,
    }
}

fn configured(rig: &Rig, name: &str, config: &Value) -> Configured {
    let limits = Limits { fuel: Some(fuel(name)), memory: Some(16 << 20), ..Limits::default() };
    let plugin = rig.host.load(name, Code::Builtin(name), &limits, &Grants::default()).unwrap();
    assert_eq!(plugin.worlds(), [World::Verifier, World::Generator]);
    plugin.configure(config).unwrap_or_else(|error| panic!("{error}"))
}

fn generated(plugin: &Configured, seed: u64, count: u32) -> Vec<Row> {
    plugin.generate(&Context { seed, ..ctx() }, 0, count).unwrap()
}

fn response(row: &Row) -> &str {
    &row.fields.iter().find(|(name, _)| name == "response").unwrap().1
}

/// The row with these completions, as a verify stage is given it.
fn answered(row: &Row, texts: &[&str]) -> Group {
    let mut group = group(row.reference.as_deref(), texts);
    let fields = row.fields.iter().filter(|(name, _)| name != "response").cloned().collect();
    group.prompt = Prompt { messages: row.prompt.clone(), fields, ..(*group.prompt).clone() }.into();
    group
}

#[test]
fn a_family_solves_what_it_asks_and_takes_no_other_answer() {
    let rig = Rig::new();
    for (name, key, easiest, hardest) in FAMILIES {
        for level in [easiest, hardest] {
            let count = if level == 1 { 10 } else { 40 };
            let config = json!({ key: level });
            let mut config = config;
            if name == "arithmetic" {
                config["count"] = count.into();
            }
            let plugin = configured(&rig, name, &config);
            let rows = generated(&plugin, 17, count);
            let (mut right, wrong) = (BTreeSet::new(), ["<answer>no idea</answer>", "<answer></answer>", ""]);
            for (i, row) in rows.iter().enumerate() {
                let other = response(&rows[(i + 1) % rows.len()]);
                let own = response(row);
                // What has the form of an answer after the right one, and what has the right one in no tags.
                let later = format!("{own}<answer>0</answer>");
                let bare = row.reference.clone().unwrap();
                let texts = [own, &later, &bare, wrong[0], wrong[1], wrong[2], other];
                let found = scores(&plugin.verify(&ctx(), &answered(row, &texts)).unwrap());
                assert_eq!(found[..6], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], "{name}: {:?}", row.prompt);
                right.insert(found[6] == 1.0);
            }
            assert!(right.contains(&false), "{name}: another row's answer is not always right");
        }
    }
}

/// Rows of a call that is timed.
const ROWS: u32 = 200;

#[test]
fn a_row_hangs_on_its_seed_and_index_alone_and_costs_what_is_said() {
    let rig = Rig::new();
    for (name, key, easiest, hardest) in FAMILIES {
        for (split, level) in [("train", easiest), ("train", hardest), ("held-out", hardest)] {
            let config = match name {
                "arithmetic" => json!({ key: level, "split": split, "count": 9 }),
                _ => json!({ key: level, "split": split }),
            };
            let plugin = configured(&rig, name, &config);
            let start = Instant::now();
            let whole = generated(&plugin, 5, ROWS);
            let seconds = start.elapsed().as_secs_f64();
            let spent = plugin.spent().fuel / u64::from(ROWS);
            println!("{name} {split} {level}: {:.0} rows/s, {spent} fuel a row", f64::from(ROWS) / seconds);
            let context = Context { seed: 5, step: 9, ..ctx() };
            let pieces: Vec<Row> = (0..6).flat_map(|i| plugin.generate(&context, 4 * i, 4).unwrap()).collect();
            assert_eq!(whole[..24], pieces, "{name}");
            assert_ne!(pieces, generated(&plugin, 6, 24), "{name}");
        }
    }
}

#[test]
fn no_problem_is_in_both_splits() {
    let rig = Rig::new();
    for (name, key, easiest, _) in FAMILIES {
        let prompts = |split: &str| -> BTreeSet<String> {
            // Of one digit only thirteen sums are held out.
            let level = if name == "arithmetic" { 3 } else { easiest };
            let plugin = configured(&rig, name, &json!({ key: level, "split": split }));
            let prompt = |row: &Row| row.prompt[0].content.clone();
            [1, 2].iter().flat_map(|seed| generated(&plugin, *seed, 60)).map(|row| prompt(&row)).collect()
        };
        let (train, held_out) = (prompts("train"), prompts("held-out"));
        assert!(train.len() > 15 && held_out.len() > 15, "{name}: {} and {}", train.len(), held_out.len());
        assert!(train.is_disjoint(&held_out), "{name}");
    }
}

/// Long completions and those that were written to be slow are wrong, not undecided: they stay far below the budget.
#[test]
fn no_completion_spends_the_budget_of_a_verdict() {
    let rig = Rig::new();
    for (name, key, _, hardest) in FAMILIES {
        let config = if name == "arithmetic" { json!({}) } else { json!({ key: hardest }) };
        let plugin = configured(&rig, name, &config);
        let row = generated(&plugin, 3, 1).remove(0);
        let name_in_it = row.reference.clone().unwrap();
        let mut texts = vec!["<answer>".repeat(12_000), "</answer>".repeat(12_000), "<".repeat(100_000)];
        for part in
            ["(", "-", "9", "1+", "R", "U ", "knight ", ", ", "\u{7b54}", &name_in_it[..name_in_it.len().min(9)]]
        {
            for length in [3_900, 100_000] {
                texts.push(format!("<answer>{}</answer>", part.repeat(length / part.len())));
            }
        }
        let mut most = 0;
        for text in &texts {
            let before = plugin.spent().fuel;
            let found = plugin.verify(&ctx(), &answered(&row, &[text])).unwrap();
            assert_eq!(scores(&found), [0.0], "{name}: {}", text.chars().take(40).collect::<String>());
            most = most.max(plugin.spent().fuel - before);
        }
        println!("{name}: at most {most} fuel a verdict");
        assert!(most < 5_000_000, "{name}: {most}");
    }
}
