//! Programs that read and print: a run for each case, and its output is compared here.

use crate::runner::{Language, Runner, failure, start};
use crate::{Judged, Tally};

/// What a program reads, and what it has to print.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub input: String,
    pub output: String,
}

/// Which white space matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whitespace {
    /// All but that at the ends of lines and of the output.
    #[default]
    Lines,
    /// That there is some.
    Words,
    /// All.
    Exact,
}

/// When two outputs are the same.
pub struct Comparison {
    pub whitespace: Whitespace,
    /// The greatest difference of two numbers, absolute or relative.
    pub tolerance: Option<f64>,
}

impl Comparison {
    fn is_same(&self, found: &str, expected: &str) -> bool {
        let words = |found: &str, expected: &str| {
            let mut pairs = (found.split_whitespace(), expected.split_whitespace());
            loop {
                match (pairs.0.next(), pairs.1.next()) {
                    (None, None) => return true,
                    (Some(a), Some(b)) if self.is_same_word(a, b) => {}
                    _ => return false,
                }
            }
        };
        match self.whitespace {
            Whitespace::Exact => found == expected,
            Whitespace::Words => words(found, expected),
            Whitespace::Lines => {
                let mut lines = (found.trim_end().lines(), expected.trim_end().lines());
                loop {
                    match (lines.0.next(), lines.1.next()) {
                        (None, None) => return true,
                        (Some(a), Some(b)) => {
                            let is_same = a.trim_end() == b.trim_end() || (self.tolerance.is_some() && words(a, b));
                            if !is_same {
                                return false;
                            }
                        }
                        _ => return false,
                    }
                }
            }
        }
    }

    fn is_same_word(&self, found: &str, expected: &str) -> bool {
        if found == expected {
            return true;
        }
        let Some(tolerance) = self.tolerance else { return false };
        // `inf` and `nan` are words, too.
        let number = |word: &str| word.parse::<f64>().ok().filter(|number| number.is_finite());
        let (Some(a), Some(b)) = (number(found), number(expected)) else { return false };
        (a - b).abs() <= tolerance * b.abs().max(1.0)
    }
}

/// Runs a program on each case; `until_failure`: no further than to the first that fails.
pub fn judge(
    cases: &[Case],
    comparison: &Comparison,
    source: &str,
    language: Language,
    until_failure: bool,
    runner: &impl Runner,
) -> Judged {
    let tests = u32::try_from(cases.len()).unwrap_or(u32::MAX);
    let mut tally = Tally { tests, passed: 0, failure: None };
    for (i, case) in cases.iter().enumerate() {
        let outcome = runner.run(language, source, &case.input)?;
        let wrong = failure(&outcome).or_else(|| {
            let shown = |text: &str| format!("{:?}", start(text.trim_end(), 80));
            (!comparison.is_same(&outcome.stdout, &case.output))
                .then(|| format!("expected {}, printed {}", shown(&case.output), shown(&outcome.stdout)))
        });
        match wrong {
            None => tally.passed += 1,
            Some(reason) => {
                tally.failure.get_or_insert_with(|| format!("case {}: {reason}", i + 1));
                if until_failure {
                    break;
                }
            }
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use pipeline_plugin::{Exit, Outcome};

    use super::*;

    #[test]
    fn outputs_are_compared_by_the_rules_of_the_config() {
        let is_same = |whitespace, tolerance, a, b| Comparison { whitespace, tolerance }.is_same(a, b);
        for (a, b, lines, words) in [
            ("1\n", "1", true, true),
            ("1  \n2\n\n", "1\n2", true, true),
            ("1\r\n2", "1\n2\n", true, true),
            ("1 2", "1  2", false, true),
            ("1\n2", "1 2", false, true),
            (" 1", "1", false, true),
            ("", "\n", true, true),
            ("", "1", false, false),
            ("1 2", "1", false, false),
            ("Yes", "yes", false, false),
            ("1.0", "1", false, false),
        ] {
            assert_eq!(is_same(Whitespace::Lines, None, a, b), lines, "{a:?} {b:?}");
            assert_eq!(is_same(Whitespace::Words, None, a, b), words, "{a:?} {b:?}");
            assert!(!is_same(Whitespace::Exact, None, a, b), "{a:?} {b:?}");
        }
        assert!(is_same(Whitespace::Exact, None, "1 \n", "1 \n"));
        for (a, b, expected) in [
            ("1.0", "1", true),
            ("0.3333", "0.333333", false),
            ("0.33333333", "0.333333333", true),
            ("1000000.5", "1000000", true),
            ("nan", "NaN", false),
            ("a 1.0 b", "a 1 b", true),
            ("1\n2", "1.0\n2.0", true),
            ("1 2", "1.0\n2.0", false),
        ] {
            assert_eq!(is_same(Whitespace::Lines, Some(1e-6), a, b), expected, "{a:?} {b:?}");
        }
    }

    /// Prints its input, but fails on `x`.
    struct Echo;

    impl Runner for Echo {
        fn run(&self, _: Language, _: &str, stdin: &str) -> Result<Outcome, String> {
            let exit = match stdin {
                "x" => Exit::Failed(1),
                "loop" => Exit::OutOfFuel,
                "gone" => return Err("no runtime".into()),
                _ => Exit::Ok,
            };
            Ok(Outcome { stdout: stdin.into(), stderr: "Traceback\nValueError: x\n".into(), exit })
        }
    }

    #[test]
    fn each_case_is_run_and_the_first_that_fails_is_told() {
        let judge = |cases: &[(&str, &str)], until_failure| {
            let case = |(input, output): &(&str, &str)| Case { input: (*input).into(), output: (*output).into() };
            let cases: Vec<_> = cases.iter().map(case).collect();
            let comparison = Comparison { whitespace: Whitespace::Lines, tolerance: None };
            super::judge(&cases, &comparison, "", Language::Python, until_failure, &Echo)
        };
        let tally = |tests, passed, failure: &str| {
            Ok(Tally { tests, passed, failure: Some(failure).filter(|text| !text.is_empty()).map(Into::into) })
        };
        assert_eq!(judge(&[("1", "1\n"), ("2", "2")], true), tally(2, 2, ""));
        let wrong = [("1", "2\n"), ("x", "x"), ("3", "3")];
        assert_eq!(judge(&wrong, true), tally(3, 0, "case 1: expected \"2\", printed \"1\""));
        assert_eq!(judge(&wrong, false), tally(3, 1, "case 1: expected \"2\", printed \"1\""));
        assert_eq!(judge(&[("x", "x")], true), tally(1, 0, "case 1: ValueError: x"));
        assert_eq!(judge(&[("loop", "loop")], true), tally(1, 0, "case 1: out of fuel"));
        assert_eq!(judge(&[("gone", "")], true), Err("no runtime".into()));
    }
}
