//! A penalty for n-grams of words that come again.
//!
//! "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373), appendix C.2: the penalty is the greatest one
//! times the share of n-grams that are not distinct.

use common::words::{ngrams, words};
use pipeline_plugin::{Completion, Config, Context, Finding, Group, Verdict, Verifier};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Repetition {
    ngram_size: usize,
    max_penalty: f64,
    lowercase: bool,
}

impl Default for Repetition {
    fn default() -> Self {
        Self { ngram_size: 3, max_penalty: -1.0, lowercase: true }
    }
}

impl Config for Repetition {
    const SCHEMA: &str = include_str!("schema.json");
}

impl Verifier for Repetition {
    fn verify(&self, _: &Context, _: &Group, completion: &Completion) -> Verdict {
        let lowered;
        let text = if self.lowercase {
            lowered = completion.text.to_lowercase();
            &lowered
        } else {
            &completion.text
        };
        let (all, distinct) = ngrams(&words(text, true), self.ngram_size);
        let repeated = if all == 0 { 0.0 } else { 1.0 - distinct as f64 / all as f64 };
        // Adding zero makes a negative zero positive.
        let score = repeated * self.max_penalty + 0.0;
        let metrics = vec![("repeated_ngrams".into(), repeated)];
        let note = (distinct < all).then(|| format!("{distinct} of {all} n-grams are distinct"));
        Verdict::Decided(Finding { score, answer: None, metrics, note })
    }
}

pipeline_plugin::verifier!(Repetition);
