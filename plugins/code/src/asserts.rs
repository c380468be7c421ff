//! Tests with asserts, which never share an interpreter with the program.
//!
//! The tests run in one sandbox, with stand-ins for what they take from the program. What they do with a stand-in is an
//! operation: they list the operations that they will come to. The program runs in another sandbox, then the operations on
//! it, and what each gave is data. With it the tests run again: they have their verdict, or list what they ask further. The
//! scripts on both sides are parts of the runtimes (`plugins/runtimes`); here their texts are passed on.

use serde_json::json;

use crate::runner::{Language, Runner, failure, start};
use crate::{Judged, Tally};

/// How often the program is run at most: as often as the tests ask further.
const ROUNDS: usize = 7;

/// Tests of a program.
pub struct Asserts<'a> {
    /// Programs that run before the tests.
    pub before: Vec<&'a str>,
    /// Programs with asserts.
    pub tests: &'a [String],
    /// The function that is tested.
    pub entry_point: Option<&'a str>,
    pub language: Language,
}

/// What the tests ask first, of any program.
#[derive(Debug)]
pub struct Opening(String);

/// What the tests' side says: exactly one of `ask`, `broken`, and the rest.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Reply {
    /// Operations whose results the tests need, as JSON.
    Ask { ask: String },
    /// The tests can't tell anything, whatever the program is.
    Broken { broken: String },
    /// The verdict.
    Told { tests: u32, passed: u32, holds: bool, failure: String },
}

impl Asserts<'_> {
    /// What the tests ask of any program; otherwise why they are no tests.
    pub fn open(&self, runner: &impl Runner) -> Result<Opening, String> {
        match self.ask("[]", "", runner)? {
            Ok(Reply::Ask { ask }) => Ok(Opening(ask)),
            Ok(Reply::Broken { broken }) => Err(broken),
            Ok(Reply::Told { .. }) => Err("the tests never use the program".into()),
            Err(reason) => Err(format!("the tests can't run: {reason}")),
        }
    }

    /// Judges a program.
    pub fn judge(&self, Opening(first): &Opening, source: &str, runner: &impl Runner) -> Judged {
        let mut operations = first.clone();
        for _ in 0..ROUNDS {
            let request = json!({ "program": source, "operations": operations }).to_string();
            let outcome = runner.run(self.language, self.script("program"), &request)?;
            let ended = failure(&outcome);
            match self.ask(&operations, &outcome.stdout, runner)? {
                Ok(Reply::Ask { ask }) => operations = ask,
                Ok(Reply::Told { tests, passed, holds, failure }) => {
                    let failure = match ended {
                        // What the program ended by tells more than that it did.
                        Some(ended) if !holds => Some(format!("{failure} ({ended})")),
                        _ => (!holds).then_some(failure),
                    };
                    return Ok(Tally { tests, passed, failure });
                }
                // It held before the program said anything: so it is by what the program said.
                Ok(Reply::Broken { broken: reason }) | Err(reason) => return Ok(Tally::failed(reason)),
            }
        }
        Ok(Tally::failed(format!("the tests had no verdict after {ROUNDS} runs of the program")))
    }

    /// Runs the tests with what is known: their reply, or what is wrong with it.
    fn ask(&self, operations: &str, output: &str, runner: &impl Runner) -> Result<Result<Reply, String>, String> {
        let Self { before, tests, entry_point, language } = self;
        let request = json!({
            "before": before, "tests": tests, "entry_point": entry_point, "operations": operations, "output": output,
        });
        let outcome = runner.run(*language, self.script("tests"), &request.to_string())?;
        if let Some(reason) = failure(&outcome) {
            return Ok(Err(reason));
        }
        Ok(serde_json::from_str(&outcome.stdout).map_err(|_| format!("they printed {:?}", start(&outcome.stdout, 80))))
    }

    fn script(&self, side: &str) -> &'static str {
        match (self.language, side) {
            (Language::Python, "tests") => "from _judge import tests; tests.main()",
            (Language::Python, _) => "from _judge import program; program.main()",
            (Language::JavaScript, "tests") => "require('_judge').tests()",
            (Language::JavaScript, _) => "require('_judge').program()",
        }
    }
}

impl Tally {
    /// Of a program that got no further.
    fn failed(reason: String) -> Self {
        Self { tests: 1, passed: 0, failure: Some(reason) }
    }
}
