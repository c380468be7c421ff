//! Any two texts are compared by the math verifier under any of its conventions: there is an answer, never a panic.
#![no_main]

use equivalence::{Config, equal, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (reference, completion) = text.split_once('\0').unwrap_or((&text, &text));
    let _ = parse(reference);
    let config = Config::default();
    let first = equal(reference, completion, &config);
    assert_eq!(format!("{first:?}"), format!("{:?}", equal(reference, completion, &config)), "the same twice");
    let boxed = format!("\\boxed{{{completion}}}");
    let _ = equal(reference, &boxed, &config);
});
