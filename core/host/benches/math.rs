//! The verifier `math` on groups of 16 completions of about 600 characters, each group in a fresh instance.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use base::{Grants, Limits};
use common::{Rig, ctx, group};
use divan::Bencher;
use divan::counter::ItemsCount;
use host::Code;
use serde_json::json;

fn main() {
    divan::main();
}

/// Reference and answer: numbers, radicals, sets, expressions, and what only values can show.
const ANSWERS: [(&str, &str); 6] = [
    ("42", "42"),
    (r"\frac{3\sqrt{2}}{4}", r"\frac{3}{2\sqrt{2}}"),
    (r"-2, 1", r"1, -2"),
    (r"(x+1)^3", r"x^3 + 3x^2 + 3x + 1"),
    (r"[-1, 2) \cup (2, \infty)", r"[-1,2) \cup (2,\infty)"),
    (r"\tan^2 y + 1", r"\sec^2 y"),
];

#[divan::bench(args = 0..ANSWERS.len())]
fn verify_16(bencher: Bencher<'_, '_>, answer: usize) {
    let rig = Rig::new();
    let limits = Limits { fuel: Some(50_000_000), ..common::wasm_limits() };
    let plugin = rig.host.load("math", Code::Builtin("math"), &limits, &Grants::default()).unwrap();
    let plugin = plugin.configure(&json!({})).unwrap();
    let (reference, answer) = ANSWERS[answer];
    let text = format!(
        "{}Therefore, the answer is $\\boxed{{{answer}}}$.",
        r"We get $x = \frac{1}{2} + 3$ and so on. ".repeat(14)
    );
    let group = group(Some(reference), &[text.as_str(); 16]);
    bencher.counter(ItemsCount::new(16_usize)).bench(|| plugin.verify(&ctx(), &group).unwrap());
}
