//! How many steps a completion marks as such: "Step 1:", numbered lines, bullets, "First,", "Finally,".

use common::bytes::{count, find_byte};
use pipeline_plugin::{Completion, Config, Context, Finding, Group, Verdict, Verifier};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReasoningSteps {
    enough: u32,
    every_line: bool,
}

impl Default for ReasoningSteps {
    fn default() -> Self {
        Self { enough: 3, every_line: false }
    }
}

impl Config for ReasoningSteps {
    const SCHEMA: &str = r#"{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "enough": { "type": "integer", "minimum": 1, "description": "The steps that are worth 1; fewer are worth their share. Default: 3." },
            "every_line": { "type": "boolean", "description": "Whether a number counts at the beginning of every line, and not of the text alone. Default: false, as in open-r1." }
        }
    }"#;
}

const WORDS: [&str; 4] = ["First,", "Second,", "Next,", "Finally,"];

/// The digits that `text` begins with, if there is one.
fn digits(text: &[u8]) -> Option<usize> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then_some(count)
}

/// The matches of open-r1's expression `(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)`; its alternatives can't
/// overlap. It has no flags, so `^` is the beginning of the text, unless `every_line` is asked for.
fn steps(text: &str, every_line: bool) -> usize {
    let bytes = text.as_bytes();
    let is_numbered = |at: usize| digits(&bytes[at..]).is_some_and(|n| bytes.get(at + n) == Some(&b'.'));
    let mut found = usize::from(is_numbered(0)) + WORDS.iter().map(|word| count(text, word)).sum::<usize>();
    let mut at = 0;
    while let Some(line) = find_byte(bytes, b'\n', at) {
        at = line + 1;
        let is_bullet = matches!(bytes.get(at), Some(b'-' | b'*'));
        found += usize::from(is_bullet || (every_line && is_numbered(at)));
    }
    let mut rest = text;
    while let Some(at) = common::bytes::find(rest, "Step ") {
        rest = &rest[at + "Step ".len()..];
        found += usize::from(digits(rest.as_bytes()).is_some_and(|n| rest.as_bytes().get(n) == Some(&b':')));
    }
    found
}

impl Verifier for ReasoningSteps {
    fn verify(&self, _: &Context, _: &Group, completion: &Completion) -> Verdict {
        let steps = steps(&completion.text, self.every_line) as f64;
        let score = (steps / f64::from(self.enough.max(1))).min(1.0);
        Verdict::Decided(Finding { score, answer: None, metrics: vec![("reasoning_steps".into(), steps)], note: None })
    }
}

pipeline_plugin::verifier!(ReasoningSteps);

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn steps_are_what_the_expression_matches() {
        let check = |text, expected| assert_eq!(steps(text, false), expected, "{text:?}");
        check("", 0);
        check("Step 1: a\nStep 22: b\nStep : c\nStep x: d", 2);
        check("1. a\n2. b", 1);
        check("10 a", 0);
        check("- a\n- b\n* c", 2);
        check("First, Second, Next, Finally, first,", 4);
        check("\n-Step 1:", 2);
        assert_eq!(steps("1. a\n2. b\n3 c", true), 2);
    }
}
