//! A configured plugin: group calls, how a failure is narrowed down to its completion, and what was spent.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Context, Decision, Group, Row, Verdict};
use serde::{Deserialize, Serialize};

use crate::gate::Gate;
use crate::sandbox::{Fault, Outcome, Patience, Sandbox, counted, grouped};
use crate::{HostError, World};

/// What a plugin has spent so far. The same for the same calls, whatever their order and however long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Calls made, those that failed included.
    pub calls: u64,
    /// Fuel, of a component.
    pub fuel: u64,
    /// Operations, of a script.
    pub operations: u64,
    /// Programs run in granted runtimes.
    pub runs: u64,
    /// The fuel of those programs.
    pub run_fuel: u64,
    /// The most bytes of linear memory that an instance of a component came to have; programs that it ran apart.
    pub memory: u64,
    /// Completions that could not be decided.
    pub undecided: u64,
}

impl Spent {
    /// What was spent since it was `before`; `memory` is the most so far all the same.
    pub fn since(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            fuel: self.fuel - before.fuel,
            operations: self.operations - before.operations,
            runs: self.runs - before.runs,
            run_fuel: self.run_fuel - before.run_fuel,
            memory: self.memory,
            undecided: self.undecided - before.undecided,
        }
    }
}

impl std::ops::Add for Spent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            fuel: self.fuel + other.fuel,
            operations: self.operations + other.operations,
            runs: self.runs + other.runs,
            run_fuel: self.run_fuel + other.run_fuel,
            memory: self.memory.max(other.memory),
            undecided: self.undecided + other.undecided,
        }
    }
}

#[derive(Default)]
struct Meter {
    calls: AtomicU64,
    units: AtomicU64,
    runs: AtomicU64,
    run_fuel: AtomicU64,
    memory: AtomicU64,
    undecided: AtomicU64,
}

/// A plugin with its config, ready to be called from any thread; each call is made in a fresh instance.
#[derive(Clone)]
pub struct Configured {
    name: Arc<str>,
    worlds: Arc<[World]>,
    sandbox: Arc<dyn Sandbox>,
    gate: Arc<Gate>,
    budget: u64,
    unit: &'static str,
    configuring: u64,
    meter: Arc<Meter>,
    /// The first reasons that were reported, so that a log is not flooded by the same one.
    reported: Arc<Mutex<u32>>,
}

/// How many failures of one plugin are logged.
const REPORTED: u32 = 20;

impl std::fmt::Debug for Configured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configured").field("name", &self.name).field("worlds", &self.worlds).finish_non_exhaustive()
    }
}

impl Configured {
    pub(crate) fn new(
        name: Arc<str>,
        worlds: Arc<[World]>,
        sandbox: Arc<dyn Sandbox>,
        gate: Arc<Gate>,
        (budget, unit): (u64, &'static str),
        configuring: u64,
    ) -> Self {
        Self { name, worlds, sandbox, gate, budget, unit, configuring, meter: Arc::default(), reported: Arc::default() }
    }

    /// The plugin's name, as given to [`crate::Host::load`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the plugin is for: at least one world.
    pub fn worlds(&self) -> &[World] {
        &self.worlds
    }

    /// Fuel or operations that taking its config costs; of a component, the start of an instance too. Each call of a
    /// component pays it again, within the budget of one completion that is beside those of the completions.
    pub fn configuring(&self) -> u64 {
        self.configuring
    }

    /// Totals since the plugin was configured, of all clones together.
    pub fn spent(&self) -> Spent {
        let units = self.meter.units.load(Ordering::Relaxed);
        let is_fuel = self.unit == "fuel";
        Spent {
            calls: self.meter.calls.load(Ordering::Relaxed),
            fuel: if is_fuel { units } else { 0 },
            operations: if is_fuel { 0 } else { units },
            runs: self.meter.runs.load(Ordering::Relaxed),
            run_fuel: self.meter.run_fuel.load(Ordering::Relaxed),
            memory: self.meter.memory.load(Ordering::Relaxed),
            undecided: self.meter.undecided.load(Ordering::Relaxed),
        }
    }

    /// A verdict for each completion of a group.
    ///
    /// The group is judged in one call with the sum of its completions' budgets. If that fails in any way, it is repeated
    /// completion by completion, so that only the offender is undecided.
    ///
    /// # Errors
    /// The plugin is no verifier, or the watchdog rang twice.
    pub fn verify(&self, ctx: &Context, group: &Group) -> Result<Vec<Verdict>, HostError> {
        self.expect(World::Verifier)?;
        let n = group.completions.len();
        let verdicts = match self.verdicts(ctx, group, 0..n)? {
            Ok(verdicts) => verdicts,
            Err(reason) if n == 1 => vec![Verdict::Undecided(reason)],
            Err(_) => {
                let mut verdicts = Vec::with_capacity(n);
                for i in 0..n {
                    match self.verdicts(ctx, group, i..i + 1)? {
                        Ok(one) => verdicts.extend(one),
                        Err(reason) => verdicts.push(Verdict::Undecided(reason)),
                    }
                }
                verdicts
            }
        };
        let verdicts: Vec<Verdict> = verdicts.into_iter().map(finite).collect();
        for (i, verdict) in verdicts.iter().enumerate() {
            if let Verdict::Undecided(reason) = verdict {
                self.undecided(1, || format!("{}, completion {i}", place(group)), reason);
            }
        }
        Ok(verdicts)
    }

    fn verdicts(
        &self,
        ctx: &Context,
        group: &Group,
        which: Range<usize>,
    ) -> Result<Result<Vec<Verdict>, String>, HostError> {
        let n = which.len() as u64;
        if n == 0 {
            return Ok(Ok(Vec::new()));
        }
        let call = |patience| self.sandbox.verify(ctx, group, which.clone(), patience);
        let culprit = || {
            // To name the completion, each is tried alone; the one that rings is it.
            let rings = |i: &usize| {
                let _pass = self.gate.enter(false);
                let outcome = self.sandbox.verify(ctx, group, *i..*i + 1, Patience::Once);
                matches!(outcome.result, Err(Fault::Expired))
            };
            let culprit = if n == 1 { Some(which.start) } else { which.clone().find(rings) };
            let completion = culprit.map(|i| format!(", completion {i}")).unwrap_or_default();
            format!(" on {}{completion}", place(group))
        };
        let result = self.twice(World::Verifier, n, culprit, call)?;
        Ok(result.and_then(|verdicts| {
            if verdicts.len() as u64 == n {
                Ok(verdicts)
            } else {
                Err(format!("returned {} for {}", counted(verdicts.len() as u64, "verdict"), counted(n, "completion")))
            }
        }))
    }

    /// A reward for each completion of a group, `None` where the plugin can't tell; or the reason why there is none.
    /// Rewards compare within a group: after a failure the whole group has the same reason.
    ///
    /// # Errors
    /// The plugin is no rewarder, or the watchdog rang twice.
    pub fn reward(&self, ctx: &Context, group: &Group) -> Result<Vec<Result<Option<f64>, String>>, HostError> {
        self.expect(World::Rewarder)?;
        let n = group.completions.len();
        if n == 0 {
            return Ok(Vec::new());
        }
        let result = self
            .twice(
                World::Rewarder,
                n as u64,
                || format!(" on {}", place(group)),
                |patience| self.sandbox.reward(ctx, group, patience),
            )?
            .and_then(|rewards| {
                if rewards.len() != n {
                    let (got, n) = (counted(rewards.len() as u64, "reward"), counted(n as u64, "completion"));
                    return Err(format!("returned {got} for {n}"));
                }
                match rewards.iter().flatten().find(|reward| !reward.is_finite()) {
                    Some(reward) => Err(format!("returned a reward that is not finite: {reward}")),
                    None => Ok(rewards),
                }
            });
        match result {
            Ok(rewards) => {
                let undecided = rewards.iter().filter(|reward| reward.is_none()).count();
                self.meter.undecided.fetch_add(undecided as u64, Ordering::Relaxed);
                Ok(rewards.into_iter().map(Ok).collect())
            }
            Err(reason) => {
                self.undecided(n as u64, || place(group), &reason);
                Ok(vec![Err(reason); n])
            }
        }
    }

    /// A decision for each completion of each group.
    ///
    /// # Errors
    /// The plugin is no filterer, or it failed: there is no decision to fall back on.
    pub fn filter(&self, ctx: &Context, groups: &[Arc<Group>]) -> Result<Vec<Vec<Decision>>, HostError> {
        self.expect(World::Filterer)?;
        let n: usize = groups.iter().map(|group| group.completions.len()).sum();
        if n == 0 {
            return Ok(vec![Vec::new(); groups.len()]);
        }
        let failed = |reason| HostError::Failed { plugin: self.name.to_string(), call: "filter", reason };
        let decisions = self
            .twice(World::Filterer, n as u64, String::new, |patience| self.sandbox.filter(ctx, groups, patience))?
            .map_err(failed)?;
        let fits = decisions.len() == groups.len()
            && decisions.iter().zip(groups).all(|(decisions, group)| decisions.len() == group.completions.len());
        if !fits {
            let shape = "returned decisions that don't fit: one list for each group, one decision for each completion";
            return Err(failed(shape.into()));
        }
        Ok(decisions)
    }

    /// The rows `first .. first + count` of the generator's list.
    ///
    /// # Errors
    /// The plugin is no generator, or it failed: there is no row to fall back on.
    pub fn generate(&self, ctx: &Context, first: u64, count: u32) -> Result<Vec<Row>, HostError> {
        self.expect(World::Generator)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let failed = |reason| HostError::Failed { plugin: self.name.to_string(), call: "generate", reason };
        let rows = self
            .twice(
                World::Generator,
                u64::from(count),
                || format!(" of rows {first}..{}", first.saturating_add(u64::from(count))),
                |patience| self.sandbox.generate(ctx, first, count, patience),
            )?
            .map_err(failed)?;
        if rows.len() != count as usize {
            let (got, wanted) = (counted(rows.len() as u64, "row"), counted(u64::from(count), "row"));
            return Err(failed(format!("returned {got} where {wanted} were asked for")));
        }
        Ok(rows)
    }

    fn expect(&self, wanted: World) -> Result<(), HostError> {
        if self.worlds.contains(&wanted) {
            return Ok(());
        }
        Err(HostError::WrongWorld { plugin: self.name.to_string(), is: World::list(&self.worlds), wanted })
    }

    /// Calls once with the budget of `n`, and once more, alone, after the watchdog rang. Only the call that counts is metered,
    /// so that the totals don't depend on time. `place` says what the call was about.
    fn twice<T>(
        &self,
        world: World,
        n: u64,
        place: impl FnOnce() -> String,
        call: impl Fn(Patience) -> Outcome<T>,
    ) -> Result<Result<T, String>, HostError> {
        for patience in [Patience::Once, Patience::Alone] {
            let pass = self.gate.enter(patience == Patience::Alone);
            let outcome = call(patience);
            drop(pass);
            let result = match outcome.result {
                Ok(value) => Ok(value),
                Err(Fault::Guest(reason)) => Err(reason),
                Err(Fault::Exhausted) => Err(self.exhausted(world, n)),
                Err(Fault::Expired) => {
                    tracing::warn!(plugin = %self.name, ?patience, "the watchdog stopped a call");
                    continue;
                }
            };
            self.meter.calls.fetch_add(1, Ordering::Relaxed);
            self.meter.units.fetch_add(outcome.cost.units, Ordering::Relaxed);
            self.meter.runs.fetch_add(outcome.cost.runs, Ordering::Relaxed);
            self.meter.run_fuel.fetch_add(outcome.cost.run_fuel, Ordering::Relaxed);
            self.meter.memory.fetch_max(outcome.cost.memory, Ordering::Relaxed);
            return Ok(result);
        }
        Err(HostError::Watchdog { plugin: self.name.to_string(), call: world.function(), place: place() })
    }

    /// The reason of a spent budget.
    fn exhausted(&self, world: World, n: u64) -> String {
        let whole = if n == 1 { String::new() } else { format!(", of which there were {}", grouped(n)) };
        let thing = if world == World::Generator { "row" } else { "completion" };
        let (spent, allowed) = (grouped(self.budget.saturating_mul(n)), grouped(self.budget));
        format!("{} exhausted: {spent} spent, {allowed} allowed for one {thing}{whole}", self.unit)
    }

    fn undecided(&self, n: u64, place: impl Fn() -> String, reason: &str) {
        self.meter.undecided.fetch_add(n, Ordering::Relaxed);
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if *reported < REPORTED {
            *reported += 1;
            tracing::info!(plugin = %self.name, place = place(), reason, "undecided");
        }
    }
}

pub(crate) fn place(group: &Group) -> String {
    format!("step {}, source `{}`, prompt {}", group.step, group.prompt.source, group.prompt.id)
}

/// A verdict whose numbers are no numbers is none.
fn finite(verdict: Verdict) -> Verdict {
    let Verdict::Decided(finding) = &verdict else { return verdict };
    if !finding.score.is_finite() {
        return Verdict::Undecided(format!("returned a score that is not finite: {}", finding.score));
    }
    match finding.metrics.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Verdict::Undecided(format!("returned a metric `{name}` that is not finite: {value}")),
        None => verdict,
    }
}
