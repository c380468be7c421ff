//! What an `algorithm` says of the keys of a `grpo` stage that a file does not give.
//!
//! A preset is a set of keys as a file could give them, and nothing else: what runs is in the resolved document.

use base::Span;

use crate::lower::place;
use crate::tree::{Entry, Node, Table, Value, parse_value};

/// What stands where neither the file nor its algorithm says another thing: GRPO as its paper has it.
const BASE: &str = concat!(
    r#"{ advantage = { baseline = "group", scale = "group", ddof = 1, epsilon = 1e-4 }"#,
    r#", ratio = "token", surrogate = "clip", clip = { low = 0.2, high = 0.2 }, sapo = { positive = 1.0, negative = 1.05 }"#,
    r#", loss = "sequence-mean", kl = { place = "loss", estimator = "k3" } }"#,
);

/// The keys in which an algorithm differs from [`BASE`].
fn differences(algorithm: &str) -> &'static str {
    match algorithm {
        "dapo" => r#"{ clip = { low = 0.2, high = 0.28 }, loss = "token-mean" }"#,
        "dr-grpo" => r#"{ advantage = { scale = "none" }, loss = "constant" }"#,
        "gspo" => r#"{ ratio = "sequence", clip = { low = 3e-4, high = 4e-4 } }"#,
        "cispo" => r#"{ surrogate = "cispo", clip = { low = "none", high = 4.0 }, loss = "token-mean" }"#,
        "rloo" => concat!(
            r#"{ advantage = { baseline = "leave-one-out", scale = "none" }, surrogate = "reinforce""#,
            r#", loss = "sequence-sum", kl = { place = "reward", estimator = "k1" } }"#,
        ),
        _ => "{}",
    }
}

/// Gives a `grpo` stage the keys that its algorithm says and the file does not. A table that is optional stays absent.
pub(crate) fn expand(stage: &mut Node) {
    let at = stage.span.clone();
    let algorithm = stage.text("algorithm").unwrap_or_default().to_owned();
    let Some(table) = stage.as_table_mut() else { return };
    for preset in [differences(&algorithm), BASE] {
        if let Some(Node { value: Value::Table(mut preset), .. }) = parse_value(&at.file, preset, 0) {
            if !table.contains_key("kl") {
                preset.shift_remove("kl");
            }
            merge(table, preset, &at);
        }
    }
}

/// A stage as it is once its algorithm is expanded.
pub(crate) fn expanded(stage: &Node) -> Node {
    let mut stage = stage.clone();
    expand(&mut stage);
    stage
}

/// Adds what is absent, in tables too.
fn merge(table: &mut Table, preset: Table, at: &Span) {
    for (key, entry) in preset {
        match (table.get_mut(&key), entry.node) {
            (
                Some(Entry { node: Node { value: Value::Table(given), .. }, .. }),
                Node { value: Value::Table(more), .. },
            ) => {
                merge(given, more, at);
            }
            (Some(_), _) => {}
            (None, mut node) => {
                place(&mut node, at);
                table.insert(key, Entry { key: at.clone(), node });
            }
        }
    }
}
