//! The share of a list of marks that stand in a completion exactly once.

use common::bytes::count;
use pipeline_plugin::{Completion, Config, Context, Finding, Group, Verdict, Verifier};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tags {
    marks: Vec<String>,
}

impl Default for Tags {
    /// The four of open-r1's `tag_count_reward`, which come with the line feeds that its `format_reward` wants.
    fn default() -> Self {
        Self { marks: ["<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"].map(Into::into).into() }
    }
}

impl Config for Tags {
    const SCHEMA: &str = include_str!("schema.json");
}

impl Verifier for Tags {
    fn verify(&self, _: &Context, _: &Group, completion: &Completion) -> Verdict {
        let mut right = 0;
        let mut note = String::new();
        for mark in &self.marks {
            match count(&completion.text, mark) {
                1 => right += 1,
                other => {
                    let separator = if note.is_empty() { "" } else { ", " };
                    note += &format!("{separator}{mark:?} {other} times");
                }
            }
        }
        let score = f64::from(right) / self.marks.len().max(1) as f64;
        Verdict::Decided(Finding { score, answer: None, metrics: Vec::new(), note: (!note.is_empty()).then_some(note) })
    }
}

pipeline_plugin::verifier!(Tags);
