//! What must hold of every family, over thousands of rows: a function for the families' tests.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Instant;

use pipeline_plugin::{Completion, Config, Context, Finish, Generator, Group, Message, Row, Verdict, Verifier};

use crate::{Family, Split, Task};

/// What differs from family to family.
pub struct Check<'a, F: Family> {
    /// Rows of each difficulty.
    pub rows: u64,
    /// A measure of how hard a puzzle is, by which difficulties ascend.
    pub effort: &'a dyn Fn(&F::Puzzle) -> f64,
    /// Answers to the puzzle that are wrong for certain.
    pub wrong: &'a dyn Fn(&F::Puzzle, &str) -> Vec<String>,
}

/// A plugin of the family as a config says it.
pub fn task<F: Family>(config: serde_json::Value) -> Task<F> {
    let task: Task<F> = serde_json::from_value(config).expect("the config fits");
    assert!(task.check().is_empty(), "{:?}", task.check());
    task
}

/// The verdict on a completion: its score, canonical answer and note. An undecided one has no score (NaN), and its reason as note.
pub fn judged<F: Family>(task: &Task<F>, row: &Row, text: &str) -> (f64, Option<String>, String) {
    let completion = Completion { id: 0, text: text.into(), tokens: 1, finish: Finish::Stop };
    let group = Group {
        prompt_id: 0,
        source: "rows".into(),
        prompt: row.prompt.iter().map(|m| Message { role: m.role.clone(), content: m.content.clone() }).collect(),
        reference: row.reference.clone(),
        fields: row.fields.clone(),
        completions: vec![],
    };
    match task.verify(&context(0), &group, &completion) {
        Verdict::Decided(finding) => (finding.score, finding.answer, finding.note.unwrap_or_default()),
        Verdict::Undecided(reason) => (f64::NAN, None, reason),
        Verdict::NotApplicable => panic!("not applicable"),
    }
}

/// A context with a seed.
pub fn context(seed: u64) -> Context {
    Context { step: 0, seed, max_tokens: 0, evaluating: false }
}

fn field<'a>(row: &'a Row, name: &str) -> &'a str {
    let found = row.fields.iter().find(|(field, _)| field == name);
    &found.unwrap_or_else(|| panic!("there is no field `{name}`")).1
}

impl<F: Family> Check<'_, F> {
    /// Rows are what their seed and index say, are solved by their own solution and not by broken ones, get harder with the
    /// difficulty, and are in one split only. Prints rows a second.
    pub fn run(&self) {
        let schema: serde_json::Value = serde_json::from_str(F::SCHEMA).expect("the schema is JSON");
        for key in ["split", "difficulty", "prompt", "think", "answer", "format_score"] {
            assert!(schema["properties"][key].is_object(), "the schema has `{key}`");
        }
        let mut before = f64::NEG_INFINITY;
        for level in F::LEVELS {
            let train = self.split(level, Split::Train);
            let held_out = self.split(level, Split::HeldOut);
            assert!(train.keys.is_disjoint(&held_out.keys), "a problem of difficulty {level} is in both splits");
            assert!(train.prompts.is_disjoint(&held_out.prompts));
            let effort = train.effort;
            assert!(effort > before, "difficulty {level} is {effort} after {before}");
            before = effort;
            println!(
                "difficulty {level}: effort {effort:.1}, {} problems in {} rows, {:.0} rows/s, held out {:.0} rows/s",
                train.keys.len(),
                self.rows,
                train.rate,
                held_out.rate
            );
        }
        let levels: RangeInclusive<u32> = F::LEVELS;
        let mixed = task::<F>(serde_json::json!({ "difficulty": [levels.start(), levels.end()] }));
        let seen: BTreeSet<String> = (0..400)
            .map(|index| field(&mixed.row(&context(1), index).expect("a row"), "difficulty").to_owned())
            .collect();
        assert_eq!(seen.len(), levels.count(), "every difficulty of a range is drawn");
    }

    fn split(&self, level: u32, split: Split) -> Found {
        let name = if split == Split::Train { "train" } else { "held-out" };
        let task = task::<F>(serde_json::json!({ "split": name, "difficulty": level }));
        let start = Instant::now();
        let rows: Vec<Row> = (0..self.rows).map(|index| task.row(&context(17), index).expect("a row")).collect();
        let rate = self.rows as f64 / start.elapsed().as_secs_f64();
        let (mut keys, mut prompts, mut effort) = (BTreeSet::new(), BTreeSet::new(), 0.0);
        for (index, row) in rows.iter().enumerate() {
            let [message] = &row.prompt[..] else { panic!("one message") };
            assert_eq!(message.role, "user");
            assert!(message.content.contains("<answer>"), "it says how to answer: {}", message.content);
            assert_eq!(field(row, "difficulty"), level.to_string());
            let puzzle: F::Puzzle = serde_json::from_str(field(row, "puzzle")).expect("a puzzle");
            let key = task.family().key(&puzzle);
            assert!(split.has(&key));
            keys.insert(key);
            prompts.insert(message.content.clone());
            effort += (self.effort)(&puzzle);

            let reference = row.reference.as_deref().expect("a reference");
            let response = field(row, "response");
            let (score, answer, note) = judged(&task, row, response);
            assert_eq!(score, 1.0, "{}\n{response}\n{note}", message.content);
            assert!(answer.is_some());
            let of = |answer: &str| judged(&task, row, &format!("<think>so</think>\n<answer>\n{answer}\n</answer>")).0;
            assert_eq!(of(reference), 1.0, "{reference}");
            let wrong = (self.wrong)(&puzzle, reference);
            assert!(!wrong.is_empty());
            for answer in wrong.iter().map(String::as_str).chain(["", "I don't know", "<answer>"]) {
                assert_eq!(of(answer), 0.0, "{}\nis not solved by\n{answer}", message.content);
            }
            assert_eq!(judged(&task, row, reference).0, 0.0, "an answer stands between its tags");
            if index < 20 {
                let again = task.row(&context(17), index as u64).expect("a row");
                assert_eq!((&again.reference, &again.fields), (&row.reference, &row.fields), "the same row again");
            }
        }
        let other = (0..20).map(|index| task.row(&context(18), index).expect("a row"));
        assert!(rows.iter().zip(other).any(|(row, other)| row.fields != other.fields), "another seed, other rows");
        Found { keys, prompts, effort: effort / self.rows as f64, rate }
    }
}

struct Found {
    keys: BTreeSet<String>,
    prompts: BTreeSet<String>,
    effort: f64,
    rate: f64,
}
