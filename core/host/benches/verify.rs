//! Calls of the first-party verifiers on groups of 16 completions of about 200 characters, each in a fresh instance.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Rig, ctx, group};
use divan::Bencher;
use divan::counter::ItemsCount;
use serde_json::json;

fn main() {
    divan::main();
}

const PLUGINS: [&str; 2] = ["format", "number"];

#[divan::bench(args = PLUGINS)]
fn verify_16(bencher: Bencher<'_, '_>, plugin: &str) {
    let rig = Rig::new();
    let plugin = rig.builtin(plugin, &json!({}));
    let text = format!("<think>{}</think><answer>18</answer>", "First 16 - 3 - 4 = 9 eggs. ".repeat(6));
    let group = group(Some("18"), &[text.as_str(); 16]);
    bencher.counter(ItemsCount::new(16_usize)).bench(|| plugin.verify(&ctx(), &group).unwrap());
}
