//! The soft overlong punishment of DAPO (arXiv 2503.14476, equation 13).
//!
//! With L the greatest length and C the cache, it is 0 up to L - C, falls linearly to -1 at L, and stays there.

use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Overlong {
    max_length: Option<u32>,
    cache: u32,
}

impl Config for Overlong {
    const SCHEMA: &str = r#"{
        "type": "object",
        "additionalProperties": false,
        "required": ["cache"],
        "properties": {
            "max_length": { "type": "integer", "minimum": 1, "description": "The greatest length in tokens. Default: the most that may be sampled at this step." },
            "cache": { "type": "integer", "minimum": 0, "description": "Over how many tokens before it the score falls from 0 to -1." }
        }
    }"#;

    fn check(&self) -> Vec<ConfigError> {
        if self.max_length.is_some_and(|length| self.cache > length) {
            let message = "the cache is longer than `max_length`".into();
            return vec![ConfigError { path: "/cache".into(), message }];
        }
        Vec::new()
    }
}

/// The score of a completion of so many tokens.
fn punishment(length: u32, max_length: u32, cache: u32) -> f64 {
    let expected = max_length.saturating_sub(cache);
    if length <= expected {
        0.0
    } else if length <= max_length {
        (f64::from(expected) - f64::from(length)) / f64::from(cache)
    } else {
        -1.0
    }
}

impl Verifier for Overlong {
    fn verify(&self, ctx: &Context, _: &Group, completion: &Completion) -> Verdict {
        let max_length = self.max_length.unwrap_or(ctx.max_tokens);
        if self.cache > max_length {
            return Verdict::Undecided(format!("the cache of {} tokens is longer than {max_length}", self.cache));
        }
        let score = punishment(completion.tokens, max_length, self.cache);
        let note = (score < 0.0).then(|| format!("{} tokens of {max_length}", completion.tokens));
        Verdict::Decided(Finding { score, answer: None, metrics: Vec::new(), note })
    }
}

pipeline_plugin::verifier!(Overlong);

#[cfg(test)]
mod tests {
    use super::punishment;

    #[test]
    fn it_falls_over_the_cache() {
        let lengths = [0, 80, 81, 90, 100, 101, u32::MAX];
        assert_eq!(lengths.map(|n| punishment(n, 100, 20)), [0.0, 0.0, -0.05, -0.5, -1.0, -1.0, -1.0]);
        assert_eq!([100, 101].map(|n| punishment(n, 100, 0)), [0.0, -1.0]);
    }
}
