//! Answers are looked for in any text, by the math verifier and by the places that the other verifiers share: what is found
//! stands in the text.
#![no_main]

use common::places;
use equivalence::{Config, extract};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let _ = extract::extract(&text, &Config::default().extraction());
    let found = places::boxed(&text).into_iter().chain(places::blocks(&text, "answer"));
    for part in found.chain(places::fences(&text).map(|(_, program)| program)) {
        assert!(text.contains(part), "{part} stands in the text");
    }
});
