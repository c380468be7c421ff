//! What the sandbox costs: the scorer of the builtin `number`, called natively and as a component, on 2 KB completions.
//!
//! `native` and `sandboxed` judge a group of 64, and build the same verdicts; `fresh` is an instance and one score. A text with
//! tags is searched from its end only, a plain one for every mark that an answer may have.

#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "a benchmark")]

#[path = "../../../plugins/number/src/extract.rs"]
mod extract;
#[path = "../../../plugins/number/src/rational.rs"]
mod rational;
#[path = "../tests/common/mod.rs"]
mod rig;

use base::{Finding, Group, Verdict};
use divan::Bencher;
use divan::counter::ItemsCount;
use extract::Way;
use rig::{Rig, ctx, group};
use serde_json::json;

fn main() {
    divan::main();
}

const WAYS: [Way; 5] = [Way::AnswerTag, Way::Boxed, Way::Hashes, Way::Phrase, Way::LastNumber];

const TEXTS: [&str; 2] = ["tags", "plain"];

fn completions(text: &str, n: usize) -> Group {
    let thought = "First 16 - 3 - 4 = 9 eggs, and each is sold for 2 dollars. ".repeat(34);
    let text = match text {
        "tags" => format!("<think>{thought}</think><answer>18</answer>"),
        _ => format!("{thought} In the end she has 18 dollars."),
    };
    group(Some("18"), &vec![text.as_str(); n])
}

/// What the component does.
fn verify(group: &Group) -> Vec<Verdict> {
    let judge = |text: &str| {
        let expected = extract::last(group.prompt.reference.as_deref().unwrap()).unwrap();
        let (score, answer, note) = match extract::find(text, &WAYS) {
            Some((way, Some(found))) => {
                let is_equal = found.is_within(expected, 0.0);
                let relation = if is_equal { "as expected".into() } else { format!("expected {expected}") };
                (f64::from(is_equal), Some(found.to_string()), format!("{found} from {}, {relation}", way.name()))
            }
            _ => (0.0, None, format!("no number, expected {expected}")),
        };
        Verdict::Decided(Finding { score, answer, metrics: Vec::new(), note: Some(note) })
    };
    group.completions.iter().map(|completion| judge(&completion.text)).collect()
}

#[divan::bench(args = TEXTS)]
fn native(bencher: Bencher<'_, '_>, text: &str) {
    let group = completions(text, 64);
    bencher.counter(ItemsCount::new(64_usize)).bench(|| verify(divan::black_box(&group)));
}

#[divan::bench(args = TEXTS)]
fn sandboxed(bencher: Bencher<'_, '_>, text: &str) {
    in_sandbox(bencher, &completions(text, 64));
}

#[divan::bench(args = TEXTS)]
fn fresh(bencher: Bencher<'_, '_>, text: &str) {
    in_sandbox(bencher, &completions(text, 1));
}

fn in_sandbox(bencher: Bencher<'_, '_>, group: &Group) {
    let plugin = Rig::new().builtin("number", &json!({}));
    assert_eq!(plugin.verify(&ctx(), group).unwrap(), verify(group));
    let n = group.completions.len();
    bencher.counter(ItemsCount::new(n)).bench(|| plugin.verify(&ctx(), divan::black_box(group)).unwrap());
}
