//! What a plugin's calls cost: fuel, time and memory of each completion, and how many it judges in a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::{Completion, Context, Group, Limits, Verdict};
use host::{ConfigureError, Configured, HostError, Spent, World};
use serde_json::Value;
use spec::Input;

use crate::quantiles::Quantiles;

/// Fuel or operations that a budget has for each that was seen at most: other inputs are longer, and cost more.
const FUEL_FACTOR: u64 = 4;

/// The same of memory: what a guest's allocator takes grows in steps.
const MEMORY_FACTOR: u64 = 2;

/// How often a call is timed, of which the fastest counts.
const REPEATS: usize = 3;

/// How long each part of a measurement goes on, beyond one pass over the inputs.
const PART: Duration = Duration::from_secs(1);

/// Calls of a plugin, with the config that they are made with.
pub struct Work {
    /// The config.
    pub config: Value,
    /// What the plugin is told beside its input.
    pub ctx: Context,
    /// What it is given.
    pub input: Input,
}

/// The line of `limits` that leaves room above all that was measured; `None` if nothing was within its budget.
pub fn limits(measured: &[Measured], unit: &str) -> Option<String> {
    let most = measured.iter().map(|side| side.spent.most()).max().filter(|most| *most > 0)?;
    let budget = round(most.saturating_mul(FUEL_FACTOR));
    if unit == "operations" {
        return Some(format!("limits = {{ operations = {} }}", grouped(budget)));
    }
    let memory = measured.iter().map(|side| side.memory).max().unwrap_or(0).saturating_mul(MEMORY_FACTOR);
    let memory = memory.div_ceil(1 << 20).next_power_of_two();
    Some(format!("limits = {{ fuel = {}, memory = \"{memory} MiB\" }}", grouped(budget)))
}

/// The next of 1,000, 2,000, 5,000, 10,000 ...
fn round(number: u64) -> u64 {
    let mut step = 1_000u64;
    loop {
        for factor in [1, 2, 5] {
            match step.checked_mul(factor) {
                Some(round) if round >= number => return round,
                Some(_) => {}
                None => return u64::MAX,
            }
        }
        step = step.saturating_mul(10);
    }
}

/// A number as TOML takes it, with `_` before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// What one side of a plugin was measured to cost, for each completion, or row of a generator.
#[derive(Debug)]
pub struct Measured {
    /// The side.
    pub world: World,
    /// Completions or rows of the inputs.
    pub items: u64,
    /// Those that could not be decided.
    pub undecided: u64,
    /// Fuel or operations, each completion being judged in a call of its own. Those that spent the whole budget are not
    /// counted: what they need is not known.
    pub spent: Quantiles,
    /// Nanoseconds of such a call, the fastest of three.
    pub nanoseconds: Quantiles,
    /// Programs that were run, and their fuel.
    pub runs: Quantiles,
    /// The fuel of those programs.
    pub run_fuel: Quantiles,
    /// The most bytes of memory of an instance.
    pub memory: u64,
    /// Completions or rows a second on one thread, in the calls that a run makes.
    pub one_thread: f64,
    /// The same on all threads.
    pub all_threads: f64,
    /// How many those are.
    pub threads: usize,
}

/// Measures each side of the plugin that `work` calls.
///
/// # Errors
/// A config is refused, or a call fails that gives no verdicts.
pub fn measure(plugin: &host::Plugin, limits: &Limits, work: &[Work]) -> Result<Vec<Measured>, ConfigureError> {
    let mut sides = Vec::new();
    for world in World::ALL {
        let calls: Vec<Call> = work
            .iter()
            .filter(|work| world_of(&work.input) == Some(world))
            .map(|work| Ok(Call { plugin: plugin.configure(&work.config)?, ctx: work.ctx, input: work.input.clone() }))
            .collect::<Result<_, ConfigureError>>()?;
        if calls.iter().any(|call| call.items() > 0) {
            let budget = if plugin.unit() == "fuel" { limits.fuel } else { limits.operations };
            sides.push(side(world, budget.unwrap_or(u64::MAX), &calls)?);
        }
    }
    Ok(sides)
}

/// The side that an input is for.
pub(crate) fn world_of(input: &Input) -> Option<World> {
    match input {
        Input::Verify(_) => Some(World::Verifier),
        Input::Reward(_) => Some(World::Rewarder),
        Input::Filter(_) => Some(World::Filterer),
        Input::Generate { .. } => Some(World::Generator),
        Input::Nothing => None,
    }
}

fn side(world: World, budget: u64, calls: &[Call]) -> Result<Measured, HostError> {
    let mut measured = Measured {
        world,
        items: calls.iter().map(Call::items).sum(),
        undecided: 0,
        spent: Quantiles::default(),
        nanoseconds: Quantiles::default(),
        runs: Quantiles::default(),
        run_fuel: Quantiles::default(),
        memory: 0,
        one_thread: 0.0,
        all_threads: 0.0,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    // The first pass counts what is the same in every one, and warms up.
    let singles: Vec<Call> = calls.iter().flat_map(Call::singles).collect();
    for call in &singles {
        let before = call.plugin.spent();
        let decided = call.call()?;
        let Spent { fuel, operations, runs, run_fuel, .. } = call.plugin.spent();
        let items = call.items().max(1);
        let each = |now: u64, before: u64| (now - before) / items;
        let spent = each(fuel + operations, before.fuel + before.operations);
        if !decided {
            measured.undecided += items;
        }
        if decided || spent < budget {
            measured.spent.add(spent, items);
            measured.runs.add(each(runs, before.runs), items);
            measured.run_fuel.add(each(run_fuel, before.run_fuel), items);
        }
    }
    let start = Instant::now();
    while start.elapsed() < PART {
        for call in &singles {
            // The fastest of a few: what the call takes, and not what else the machine did.
            let mut fastest = u64::MAX;
            for _ in 0..REPEATS {
                let start = Instant::now();
                call.call()?;
                fastest = fastest.min(start.elapsed().as_nanos() as u64);
            }
            let items = call.items().max(1);
            let nanoseconds = fastest / items;
            measured.nanoseconds.add(nanoseconds, items);
        }
    }
    measured.one_thread = rate(calls, 1)?;
    // Memory is that of a whole call.
    measured.memory = calls.iter().map(|call| call.plugin.spent().memory).max().unwrap_or(0);
    measured.all_threads = if measured.threads > 1 { rate(calls, measured.threads)? } else { measured.one_thread };
    Ok(measured)
}

/// Items a second of so many threads.
fn rate(calls: &[Call], threads: usize) -> Result<f64, HostError> {
    let (start, done) = (Instant::now(), AtomicU64::new(0));
    let next = AtomicU64::new(0);
    let work = || -> Result<(), HostError> {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= calls.len() as u64 && start.elapsed() >= PART {
                return Ok(());
            }
            let call = &calls[(turn % calls.len() as u64) as usize];
            call.call()?;
            done.fetch_add(call.items(), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| std::thread::Builder::new().stack_size(host::STACK).spawn_scoped(scope, work))
            .collect();
        for thread in threads {
            let thread = thread.map_err(|error| HostError::Engine(error.to_string()))?;
            thread.join().map_err(|_| HostError::Engine("a thread ended early".into()))??;
        }
        Ok(())
    })
    .map(|()| done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// A call of a configured plugin.
struct Call {
    plugin: Configured,
    ctx: Context,
    input: Input,
}

impl Call {
    /// Completions or rows.
    fn items(&self) -> u64 {
        match &self.input {
            Input::Verify(group) | Input::Reward(group) => group.completions.len() as u64,
            Input::Filter(groups) => groups.iter().map(|group| group.completions.len() as u64).sum(),
            Input::Generate { count, .. } => u64::from(*count),
            Input::Nothing => 0,
        }
    }

    /// The calls of one completion or row each, where the plugin can be asked so.
    fn singles(&self) -> Vec<Self> {
        let inputs = match &self.input {
            Input::Verify(group) => {
                let single = |completion: &Arc<Completion>| {
                    let completions = vec![Arc::clone(completion)];
                    Input::Verify(Box::new(Group { completions, ..(**group).clone() }))
                };
                group.completions.iter().map(single).collect()
            }
            Input::Generate { first, count } => {
                (0..u64::from(*count)).map(|i| Input::Generate { first: first + i, count: 1 }).collect()
            }
            whole => vec![whole.clone()],
        };
        inputs.into_iter().map(|input| Self { plugin: self.plugin.clone(), ctx: self.ctx, input }).collect()
    }

    /// Makes the call; whether it was decided.
    fn call(&self) -> Result<bool, HostError> {
        let ctx = &self.ctx;
        match &self.input {
            Input::Verify(group) => {
                let verdicts = self.plugin.verify(ctx, group)?;
                Ok(!verdicts.iter().any(|verdict| matches!(verdict, Verdict::Undecided(_))))
            }
            Input::Reward(group) => Ok(self.plugin.reward(ctx, group)?.iter().all(Result::is_ok)),
            Input::Filter(groups) => self.plugin.filter(ctx, groups).map(|_| true),
            Input::Generate { first, count } => self.plugin.generate(ctx, *first, *count).map(|_| true),
            Input::Nothing => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_round_and_leave_room() {
        assert_eq!([0, 1_000, 1_001, 62_588, 5_000_001].map(round), [1_000, 1_000, 2_000, 100_000, 10_000_000]);
        assert_eq!(round(u64::MAX), u64::MAX);
        assert_eq!(grouped(12_345_678), "12_345_678");
        let mut spent = Quantiles::default();
        spent.add(15_647, 1);
        let side = Measured {
            world: World::Verifier,
            items: 1,
            undecided: 0,
            spent,
            nanoseconds: Quantiles::default(),
            runs: Quantiles::default(),
            run_fuel: Quantiles::default(),
            memory: 1_114_112,
            one_thread: 0.0,
            all_threads: 0.0,
            threads: 1,
        };
        let line = "limits = { fuel = 100_000, memory = \"4 MiB\" }";
        assert_eq!(limits(&[side], "fuel").as_deref(), Some(line));
        assert_eq!(limits(&[], "operations"), None);
    }
}
