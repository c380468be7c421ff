//! Calls of a linked component: each in a fresh instance, with a budget, and what came of it.

use std::ops::Range;
use std::sync::Arc;

use base::{Context, Decision, Group, Row, Verdict};
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower, TypedFunc};

use super::Watchdog;
use super::abi::{self, function};
use super::imports::{Granted, Level, Sink, State};
use super::instance::{Budget, Failure, failure};
use super::version::Exports;
use crate::World;
use crate::sandbox::{Code, Cost, Fault, Outcome, Patience, Sandbox, grouped};

/// A component, linked and checked, and what a call may spend.
pub(super) struct Setup {
    pub(super) name: Arc<str>,
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
    pub(super) granted: Arc<Granted>,
    pub(super) fuel: u64,
    pub(super) memory: u64,
    pub(super) output: u64,
    pub(super) log: u64,
    pub(super) watchdog: Watchdog,
}

/// A loaded component.
pub(crate) struct Component {
    pub(super) setup: Arc<Setup>,
}

impl Component {
    pub(crate) fn worlds(&self) -> Vec<World> {
        self.setup.exports.functions.iter().map(|(world, _)| *world).collect()
    }
}

/// An instance that has run its start functions.
struct Running {
    store: Store<State>,
    instance: Instance,
}

impl Setup {
    /// An empty store with the fuel of one completion.
    fn store(&self, seed: u64, budget: u64, patience: Patience) -> Store<State> {
        let deadline = self.watchdog.deadline(self.fuel.saturating_add(budget), patience);
        let state = State::new(self.memory, Sink::log(self.log), Arc::clone(&self.granted), seed, patience, deadline);
        let hostcall = usize::try_from(self.output).unwrap_or(usize::MAX);
        Budget { fuel: self.fuel, hostcall }.store(self.pre.engine(), state)
    }

    /// Holds the types of the component's functions against ours.
    pub(super) fn check_types(&self, patience: Patience) -> Result<(), Failure> {
        let mut store = self.store(0, 0, patience);
        let instance =
            self.pre.instantiate(&mut store).map_err(|error| match self.failure(&error, &store, self.fuel) {
                Failure::Expired => Failure::Expired,
                other => Failure::Other(format!("it fails when it starts: {}", other.reason(self.fuel))),
            })?;
        let mut running = Running { store, instance };
        let exports = &self.exports;
        let checked = exports.functions.iter().try_for_each(|(world, function)| match world {
            World::Verifier => running.typed::<function::Verify<'_>>(function),
            World::Rewarder => running.typed::<function::Reward<'_>>(function),
            World::Filterer => running.typed::<function::Filter<'_>>(function),
            World::Generator => running.typed::<function::Generate>(function),
        });
        checked
            .and_then(|()| running.typed::<function::Schema>(&exports.schema))
            .and_then(|()| running.typed::<function::Configure<'_>>(&exports.configure))
            .map_err(|error| {
                let version = exports.version;
                Failure::Other(format!("a function's type is not that of pipeline:plugin {version}: {error:#}"))
            })
    }

    /// One call in a fresh instance: start, configure (where there is a config), then `f` with a budget of its own.
    fn call<F: Signature>(
        &self,
        call: &Call<'_>,
        index: &ComponentExportIndex,
        params: F::Params,
    ) -> Outcome<<F::Results as Single>::Value>
    where
        F::Results: Single,
    {
        let mut store = self.store(call.seed, call.budget, call.patience);
        let instance = match self.pre.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => {
                let result = Err(self.early("start", self.failure(&error, &store, self.fuel)));
                return Outcome { result, cost: self.cost(&store, self.fuel) };
            }
        };
        let mut running = Running { store, instance };
        if let Some(config) = call.config
            && let Err(fault) = running.configure(self, config)
        {
            return Outcome { result: Err(fault), cost: self.cost(&running.store, self.fuel) };
        }
        let before = self.cost(&running.store, self.fuel).units;
        running.store.data_mut().programs.completions = call.completions;
        let result = running
            .store
            .set_fuel(call.budget)
            .and_then(|()| running.instance.get_typed_func::<F::Params, F::Results>(&mut running.store, index))
            .and_then(|f| f.call(&mut running.store, params));
        running.show_log(&self.name);
        let cost = self.cost(&running.store, call.budget);
        Outcome {
            result: result.map(Single::value).map_err(|error| {
                match self.failure(&error, &running.store, call.budget) {
                    Failure::Fuel => Fault::Exhausted,
                    Failure::Expired => Fault::Expired,
                    other => Fault::Guest(other.reason(self.fuel)),
                }
            }),
            cost: Cost { units: before + cost.units, ..cost },
        }
    }

    /// What a store has spent of `budget`.
    fn cost(&self, store: &Store<State>, budget: u64) -> Cost {
        let programs = &store.data().programs;
        let units = budget - store.get_fuel().unwrap_or(0).min(budget);
        Cost { units, runs: programs.total(), run_fuel: programs.fuel, memory: store.data().memory.used() }
    }

    /// A failure before the function that was asked for.
    fn early(&self, when: &str, failure: Failure) -> Fault {
        match failure {
            Failure::Expired => Fault::Expired,
            other => Fault::Guest(format!("{when}: {}", other.reason(self.fuel))),
        }
    }

    /// Why an instance was stopped that had `budget`, as people read it.
    fn failure(&self, error: &wasmtime::Error, store: &Store<State>, budget: u64) -> Failure {
        let spent = || format!("{} fuel spent, {} allowed", grouped(self.cost(store, budget).units), grouped(budget));
        match failure(error) {
            Failure::Trap(trap) => {
                // A guest's panic hook logs the message; without it the trap says little.
                let said = store.data().sink.lines().iter().rev().find(|(level, _)| *level == Level::Warn);
                let words = |message: &str| message.split_whitespace().collect::<Vec<_>>().join(" ");
                let said = said.map(|(_, message)| format!(" ({})", words(message))).unwrap_or_default();
                Failure::Trap(format!("{trap}{said}; {}", spent()))
            }
            Failure::HostCall => Failure::Other(format!(
                "returned too much: more than the {} bytes allowed in a call",
                grouped(self.output)
            )),
            other => other,
        }
    }
}

/// What a call has besides its parameters.
struct Call<'a> {
    config: Option<&'a str>,
    seed: u64,
    budget: u64,
    /// Completions or rows that it is about.
    completions: u64,
    patience: Patience,
}

/// The parameters and results of a function, as a pair.
trait Signature {
    type Params: ComponentNamedList + Lower;
    type Results: ComponentNamedList + Lift;
}

impl<P: ComponentNamedList + Lower, R: ComponentNamedList + Lift> Signature for (P, R) {
    type Params = P;
    type Results = R;
}

/// Results of one value.
trait Single {
    type Value;
    fn value(self) -> Self::Value;
}

impl<T> Single for (T,) {
    type Value = T;
    fn value(self) -> T {
        self.0
    }
}

impl Running {
    fn typed<F: Signature>(&mut self, index: &ComponentExportIndex) -> wasmtime::Result<()> {
        let _: TypedFunc<F::Params, F::Results> = self.instance.get_typed_func(&mut self.store, index)?;
        Ok(())
    }

    fn configure(&mut self, setup: &Setup, config: &str) -> Result<(), Fault> {
        type Of<'a> = function::Configure<'a>;
        type Params<'a> = <Of<'a> as Signature>::Params;
        type Results<'a> = <Of<'a> as Signature>::Results;
        let index = &setup.exports.configure;
        let (result,) = self
            .instance
            .get_typed_func::<Params<'_>, Results<'_>>(&mut self.store, index)
            .and_then(|configure| configure.call(&mut self.store, (config,)))
            .map_err(|error| setup.early("configure", setup.failure(&error, &self.store, setup.fuel)))?;
        result.map_err(|errors| {
            let first = errors.first().map_or("no reason given", |error| &error.message);
            Fault::Guest(format!("refused a config that it had accepted: {first}"))
        })
    }

    fn show_log(&self, plugin: &str) {
        for (level, message) in self.store.data().sink.lines() {
            match level {
                Level::Debug => tracing::debug!(plugin, message, "log"),
                Level::Info => tracing::info!(plugin, message, "log"),
                Level::Warn => tracing::warn!(plugin, message, "log"),
            }
        }
    }
}

impl Code for Component {
    fn schema(&self, patience: Patience) -> Outcome<Option<String>> {
        let call = Call { config: None, seed: 0, budget: self.setup.fuel, completions: 0, patience };
        let Outcome { result, cost } = self.setup.call::<function::Schema>(&call, &self.setup.exports.schema, ());
        Outcome { result: result.map(Some), cost }
    }

    fn check(&self, config: &str, patience: Patience) -> Outcome<Vec<(String, String)>> {
        let call = Call { config: None, seed: 0, budget: self.setup.fuel, completions: 0, patience };
        let index = &self.setup.exports.configure;
        let Outcome { result, cost } = self.setup.call::<function::Configure<'_>>(&call, index, (config,));
        let errors = |result: Result<(), Vec<abi::ConfigError>>| {
            let errors = result.err().unwrap_or_default();
            errors.into_iter().map(|error| (error.path, error.message)).collect()
        };
        Outcome { result: result.map(errors), cost }
    }

    fn bind(&self, config: &serde_json::Value) -> Arc<dyn Sandbox> {
        Arc::new(Bound { setup: Arc::clone(&self.setup), config: config.to_string() })
    }

    fn interface(&self) -> Option<(&'static str, Vec<String>)> {
        let (component, engine) = (self.setup.pre.component(), self.setup.pre.engine());
        let imports = component.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect();
        Some((self.setup.exports.version, imports))
    }

    fn budget(&self) -> (u64, &'static str) {
        (self.setup.fuel, "fuel")
    }
}

/// A component with its config.
struct Bound {
    setup: Arc<Setup>,
    config: String,
}

impl Bound {
    /// A call of the world's function with the budget of `n` completions or rows.
    fn call<F: Signature<Results = (Result<T, String>,)>, T>(
        &self,
        world: World,
        ctx: &Context,
        n: usize,
        patience: Patience,
        params: F::Params,
    ) -> Outcome<T>
    where
        (Result<T, String>,): Single<Value = Result<T, String>>,
    {
        let Some((_, function)) = self.setup.exports.functions.iter().find(|(known, _)| *known == world) else {
            let result = Err(Fault::Guest(format!("it has no `{}`", world.function())));
            return Outcome { result, cost: Cost::default() };
        };
        let completions = n as u64;
        let budget = self.setup.fuel.saturating_mul(completions);
        let call = Call { config: Some(&self.config), seed: ctx.seed, budget, completions, patience };
        let Outcome { result, cost } = self.setup.call::<F>(&call, function, params);
        Outcome { result: result.and_then(|result| result.map_err(Fault::Guest)), cost }
    }
}

impl<T> Outcome<Vec<T>> {
    fn convert<U: From<T>>(self) -> Outcome<Vec<U>> {
        let convert = |values: Vec<T>| values.into_iter().map(U::from).collect();
        Outcome { result: self.result.map(convert), cost: self.cost }
    }
}

impl Sandbox for Bound {
    fn verify(&self, ctx: &Context, group: &Group, which: Range<usize>, patience: Patience) -> Outcome<Vec<Verdict>> {
        let params = (ctx.into(), abi::Group::new(group, which.clone()));
        self.call::<function::Verify<'_>, _>(World::Verifier, ctx, which.len(), patience, params).convert()
    }

    fn reward(&self, ctx: &Context, group: &Group, patience: Patience) -> Outcome<Vec<Option<f64>>> {
        let n = group.completions.len();
        let judgements = group.judgements.iter().map(|judgement| (&**judgement).into()).collect();
        let params = (ctx.into(), abi::Group::new(group, 0..n), judgements);
        self.call::<function::Reward<'_>, _>(World::Rewarder, ctx, n, patience, params)
    }

    fn filter(&self, ctx: &Context, groups: &[Arc<Group>], patience: Patience) -> Outcome<Vec<Vec<Decision>>> {
        let n = groups.iter().map(|group| group.completions.len()).sum();
        let shapes = groups.iter().map(|group| abi::Group::new(group, 0..group.completions.len())).collect();
        let rewards = groups.iter().map(|group| {
            // A completion without a reward is told by NaN; the list has the shape of the group all the same.
            (0..group.completions.len()).map(|i| group.rewards.get(i).copied().flatten().unwrap_or(f64::NAN)).collect()
        });
        let params = (ctx.into(), shapes, rewards.collect());
        let Outcome { result, cost } = self.call::<function::Filter<'_>, _>(World::Filterer, ctx, n, patience, params);
        let convert = |of_group: Vec<abi::Decision>| of_group.into_iter().map(Decision::from).collect();
        Outcome { result: result.map(|groups| groups.into_iter().map(convert).collect()), cost }
    }

    fn generate(&self, ctx: &Context, first: u64, count: u32, patience: Patience) -> Outcome<Vec<Row>> {
        let params = (ctx.into(), first, count);
        self.call::<function::Generate, _>(World::Generator, ctx, count as usize, patience, params).convert()
    }
}
