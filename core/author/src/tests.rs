//! The tests of a plugin's folder: each call is made twice, in fresh instances, and must give the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use base::{Context, Decision, Group, Row, Verdict};
use host::{ConfigureError, Configured, Host, HostError, World};
use spec::{Case, Expect, Input};

use crate::answers::{self, quoted};
use crate::manifest::Plugin;

/// What the tests of one plugin gave.
#[derive(Debug)]
pub struct Report {
    /// The plugin's name.
    pub plugin: String,
    /// Its tests in the order of the file, or why there are none.
    pub tests: Result<Vec<Tested>, String>,
}

/// What one test gave.
#[derive(Debug)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// Its place in `plugin.toml`.
    pub at: base::Span,
    /// What is wrong, each in one or more lines; empty if it passed.
    pub problems: Vec<String>,
    /// How long both calls took.
    pub seconds: f64,
}

/// Runs the tests of plugins whose names contain `filter`, on all cores; `report` is called in the order of the plugins.
pub fn test(host: &Host, plugins: &[Plugin], filter: &str, mut report: impl FnMut(Report)) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(plugins.len());
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                while let Some((index, plugin)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    plugins.get(index).map(|plugin| (index, plugin))
                } {
                    if send.send((index, of_plugin(host, plugin, filter))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut waiting = BTreeMap::new();
        let mut due = 0;
        for (index, done) in receive {
            waiting.insert(index, done);
            while let Some(done) = waiting.remove(&due) {
                report(done);
                due += 1;
            }
        }
    });
}

fn of_plugin(host: &Host, plugin: &Plugin, filter: &str) -> Report {
    let chosen = || plugin.tests.iter().flat_map(|(_, cases)| cases).filter(|case| case.name.contains(filter));
    let tests = if chosen().next().is_none() {
        Ok(Vec::new())
    } else {
        let loaded = plugin.load(host).map_err(|error| error.to_string());
        loaded.map(|loaded| chosen().map(|case| of_case(&loaded, case)).collect())
    };
    Report { plugin: plugin.name.clone(), tests }
}

fn of_case(plugin: &host::Plugin, case: &Case) -> Tested {
    let start = Instant::now();
    let problems = match problems(plugin, case) {
        Ok(problems) => problems,
        Err(problem) => vec![problem],
    };
    Tested { name: case.name.clone(), at: case.span.clone(), problems, seconds: start.elapsed().as_secs_f64() }
}

/// What is wrong with a plugin's answer; the error is that it has none.
fn problems(plugin: &host::Plugin, case: &Case) -> Result<Vec<String>, String> {
    let configured = match (plugin.configure(&case.config), &case.expect) {
        (Ok(_), Expect::Refused(_)) => return Err("the config was accepted, and should have been refused".into()),
        (Ok(configured), _) => configured,
        (Err(error @ ConfigureError::Config { .. }), Expect::Refused(part)) => {
            let objections = error.to_string();
            if objections.contains(part) {
                return Ok(Vec::new());
            }
            return Err(differ("the config was refused for another reason", &quoted(part), &quoted(&objections)));
        }
        (Err(error), _) => return Err(format!("the config was refused: {error}")),
    };
    let call = Call { plugin: &configured, ctx: &case.context, case };
    let wanted = match &case.input {
        Input::Verify(_) => World::Verifier,
        Input::Reward(_) => World::Rewarder,
        Input::Filter(_) => World::Filterer,
        Input::Generate { .. } => World::Generator,
        Input::Nothing => return Ok(Vec::new()),
    };
    if !configured.worlds().contains(&wanted) {
        return Err(format!(
            "the input is that of a {wanted}, and the plugin is a {}: `world = \"{}\"` says what is tested",
            World::list(configured.worlds()),
            configured.worlds()[0]
        ));
    }
    match &case.input {
        Input::Verify(group) => call.verify(group),
        Input::Reward(group) => call.reward(group),
        Input::Filter(groups) => call.filter(groups),
        Input::Generate { first, count } => call.generate(*first, *count),
        Input::Nothing => Ok(Vec::new()),
    }
}

/// A call of a configured plugin.
struct Call<'a> {
    plugin: &'a Configured,
    ctx: &'a Context,
    case: &'a Case,
}

impl Call<'_> {
    fn verify(&self, group: &Group) -> Result<Vec<String>, String> {
        let verdicts = self.plugin.verify(self.ctx, group).map_err(|error| error.to_string())?;
        let backwards = Group { completions: group.completions.iter().rev().cloned().collect(), ..group.clone() };
        let mut again = self.plugin.verify(self.ctx, &backwards).map_err(|error| error.to_string())?;
        again.reverse();
        let name = |i: usize| completion(group, i);
        let mut problems = unsteady(&verdicts, &again, name, answers::verdict, "with the completions in another order");
        match &self.case.expect {
            Expect::Verdicts(expected) => {
                for (i, (expected, got)) in expected.iter().zip(&verdicts).enumerate() {
                    if !answers::is_verdict(expected, got, self.case.tolerance) {
                        problems.push(differ(&name(i), &answers::expected(expected), &answers::verdict(got)));
                    }
                }
            }
            Expect::Failed(part) => {
                for (i, got) in verdicts.iter().enumerate() {
                    if !matches!(got, Verdict::Undecided(reason) if reason.contains(part)) {
                        problems.push(differ(&name(i), &format!("failed: {}", quoted(part)), &answers::verdict(got)));
                    }
                }
            }
            _ => {}
        }
        Ok(problems)
    }

    fn reward(&self, group: &Group) -> Result<Vec<String>, String> {
        let call = || self.plugin.reward(self.ctx, group).map_err(|error| error.to_string());
        let (rewards, again) = (call()?, call()?);
        let name = |i: usize| completion(group, i);
        let mut problems = unsteady(&rewards, &again, name, answers::reward, "when it was called again");
        match &self.case.expect {
            Expect::Rewards(expected) => {
                for (i, (expected, got)) in expected.iter().zip(&rewards).enumerate() {
                    if !answers::is_reward(*expected, got, self.case.tolerance) {
                        problems.push(differ(&name(i), &answers::expected_reward(*expected), &answers::reward(got)));
                    }
                }
            }
            Expect::Failed(part) => {
                if let Some(got) = rewards.iter().find(|got| !matches!(got, Err(reason) if reason.contains(part))) {
                    problems.push(differ("the group", &format!("failed: {}", quoted(part)), &answers::reward(got)));
                }
            }
            _ => {}
        }
        Ok(problems)
    }

    fn filter(&self, groups: &[Arc<Group>]) -> Result<Vec<String>, String> {
        let call = || self.plugin.filter(self.ctx, groups);
        let (decisions, again) = (self.call_or_failure(call())?, self.call_or_failure(call())?);
        let (Some(decisions), Some(again)) = (decisions, again) else { return Ok(Vec::new()) };
        let flat = |lists: Vec<Vec<Decision>>| lists.into_iter().flatten().collect::<Vec<_>>();
        let (decisions, again) = (flat(decisions), flat(again));
        let names: Vec<String> = groups
            .iter()
            .enumerate()
            .flat_map(|(g, group)| {
                (0..group.completions.len()).map(move |i| format!("group {}, {}", g + 1, completion(group, i)))
            })
            .collect();
        let name = |i: usize| names.get(i).cloned().unwrap_or_default();
        let mut problems = unsteady(&decisions, &again, name, answers::decision, "when it was called again");
        if let Expect::Decisions(expected) = &self.case.expect {
            for (i, (expected, got)) in expected.iter().flatten().zip(&decisions).enumerate() {
                if !answers::is_decision(expected, got) {
                    problems.push(differ(&name(i), &answers::expected_decision(expected), &answers::decision(got)));
                }
            }
        }
        Ok(problems)
    }

    fn generate(&self, first: u64, count: u32) -> Result<Vec<String>, String> {
        let Some(rows) = self.call_or_failure(self.plugin.generate(self.ctx, first, count))? else {
            return Ok(Vec::new());
        };
        // A row depends on its own number alone, so that asking for it alone gives it again.
        let mut again: Vec<Row> = Vec::with_capacity(rows.len());
        for i in 0..u64::from(count) {
            again.extend(self.plugin.generate(self.ctx, first + i, 1).map_err(|error| error.to_string())?);
        }
        let name = |i: usize| format!("row {}", first + i as u64);
        let mut problems = unsteady(&rows, &again, name, answers::row, "when it was asked for alone");
        if let Expect::Rows(expected) = &self.case.expect {
            for (i, (expected, got)) in expected.iter().zip(&rows).enumerate() {
                if !answers::is_row(expected, got) {
                    problems.push(differ(&name(i), &answers::expected_row(expected), &answers::row(got)));
                }
            }
        }
        Ok(problems)
    }

    /// What a call gave; `None` if it failed as it should; the error is a problem.
    fn call_or_failure<T>(&self, result: Result<T, HostError>) -> Result<Option<T>, String> {
        match (result, &self.case.expect) {
            (Ok(_), Expect::Failed(part)) => Err(format!("the call gave an answer, and should have failed: {part}")),
            (Ok(value), _) => Ok(Some(value)),
            (Err(HostError::Failed { reason, .. }), Expect::Failed(part)) if reason.contains(part) => Ok(None),
            (Err(error), Expect::Failed(part)) => {
                Err(differ("the call failed for another reason", &quoted(part), &quoted(&error.to_string())))
            }
            (Err(error), _) => Err(error.to_string()),
        }
    }
}

/// The places where two calls that must give the same do not.
fn unsteady<T: PartialEq>(
    first: &[T],
    second: &[T],
    name: impl Fn(usize) -> String,
    words: impl Fn(&T) -> String,
    how: &str,
) -> Vec<String> {
    let differ = |(i, (a, b)): (usize, (&T, &T))| {
        (a != b).then(|| {
            let title = format!("{}: not the same {how}", name(i));
            format!("{title}\n  first   {}\n  second  {}", words(a), words(b))
        })
    };
    first.iter().zip(second).enumerate().filter_map(differ).collect()
}

fn differ(title: &str, expected: &str, got: &str) -> String {
    format!("{title}\n  expected  {expected}\n  got       {got}")
}

fn completion(group: &Group, i: usize) -> String {
    let text = group.completions.get(i).map_or("", |completion| &completion.text);
    format!("completion {} of {}, {}", i + 1, group.completions.len(), quoted(text))
}
