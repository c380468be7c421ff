//! Does the program in a completion do what its tests ask for? It runs in a sandbox of its own, the granted runtime; what it
//! gives is compared outside of it.

mod asserts;
mod cases;
mod config;
mod fence;
mod fields;
mod program;
mod runner;

use std::cell::OnceCell;

use asserts::{Asserts, Opening};
use config::{Code, Score};
use fields::{Fields, Tests};
use pipeline_plugin::{Completion, Context, Finding, Group, Verdict, Verifier};
use runner::{Language, Runner, Sandbox};

/// How many tests a program passed.
#[derive(Debug, PartialEq)]
struct Tally {
    tests: u32,
    passed: u32,
    /// What went wrong first; `None` where nothing did.
    failure: Option<String>,
}

/// A program that was judged, or why it could not be.
type Judged = Result<Tally, String>;

/// The first runs of the tests: they know no program, and serve all completions of a group.
#[derive(Default)]
struct Openings([OnceCell<Result<Opening, String>>; 2]);

impl Openings {
    fn of(&self, language: Language) -> &OnceCell<Result<Opening, String>> {
        &self.0[language as usize]
    }
}

impl Verifier for Code {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        let judged =
            Fields::read(self, &group.fields).and_then(|fields| self.judge(&fields, &completion.text, &Sandbox));
        match judged {
            Ok(tally) => Verdict::Decided(self.finding(tally)),
            Err(reason) => Verdict::Undecided(reason),
        }
    }
}

impl Code {
    fn judge(&self, fields: &Fields, text: &str, runner: &impl Runner) -> Judged {
        let Some((language, block)) = fence::program(text, self.language, self.unfenced) else {
            let failure = format!("no fenced block of {}", self.language.name());
            return Ok(Tally { tests: 0, passed: 0, failure: Some(failure) });
        };
        let entry_point = fields.entry_point.as_deref();
        let source = match &fields.prepend {
            Some(start) => program::complete(start, &block, entry_point),
            None => block.into_owned(),
        };
        match &fields.tests {
            Tests::Cases(cases) => {
                let source = match &fields.setup {
                    Some(setup) => format!("{setup}\n{source}"),
                    None => source,
                };
                let is_all = self.score == Score::All;
                cases::judge(cases, &self.comparison(), &source, language, is_all, runner)
            }
            Tests::Asserts(tests) => {
                // What is defined before a function that is not finished is no program by itself, but in Python.
                let helpers = fields.prepend.as_ref().filter(|_| language == Language::Python);
                let before = helpers.into_iter().chain(&fields.setup).map(String::as_str).collect();
                let asserts = Asserts { before, tests, entry_point, language };
                let opening = self.openings.of(language).get_or_init(|| asserts.open(runner));
                asserts.judge(opening.as_ref().map_err(Clone::clone)?, &source, runner)
            }
        }
    }

    fn finding(&self, tally: Tally) -> Finding {
        let Tally { tests, passed, failure } = tally;
        let score = match self.score {
            Score::All => f64::from(failure.is_none()),
            Score::Share if tests == 0 => 0.0,
            Score::Share => f64::from(passed) / f64::from(tests),
        };
        let note = match failure {
            Some(failure) if tests == 0 => failure,
            Some(failure) => format!("{passed} of {tests} tests passed; {failure}"),
            None => format!("{passed} of {tests} tests passed"),
        };
        let metrics = vec![("tests".to_owned(), f64::from(tests)), ("passed".to_owned(), f64::from(passed))];
        Finding { score, answer: None, metrics, note: Some(note) }
    }
}

pipeline_plugin::program_verifier!(Code);
