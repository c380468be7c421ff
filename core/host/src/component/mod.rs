//! WebAssembly components: one engine, pooled instances, and for every call a fresh instance with a budget.

mod abi;
mod cache;
mod imports;
mod instance;
mod runner;
mod version;
mod wasi;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::function;
use base::{Context, Decision, Group, Limits, Row, Verdict};
use imports::{Granted, Level, Sink, State};
use instance::{Budget, Failure, failure};
use runner::Interpreter;
use version::Exports;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component as Compiled, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Linker, Lower,
    TypedFunc,
};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig, Store, bail,
};

use crate::gate::{CALLS, Gate};
use crate::grants::{self, runtime_error};
use crate::sandbox::{Code, Cost, Fault, Outcome, Patience, Sandbox, grouped};
use crate::{HostError, Source, World};

/// Bytes that a call may return, where the limits don't say.
const OUTPUT: u64 = 1 << 20;

/// Bytes that a call may log, where the limits don't say.
const LOG: u64 = 64 << 10;

/// How long a call may take before the watchdog stops it.
///
/// Fuel is the limit that counts, and it bounds the time of all that a guest computes: every loop and every function takes of
/// it, memory that is filled, copied or grown too, and no instruction takes more than some 0.1 us for a unit. What fuel can't
/// see is time that passes in the host, so the watchdog looks at the clock where a guest calls the host. (wasmtime's epochs
/// would look in every loop, and made calls a fifth slower.) It is far above what the fuel can take: 2e9 units take about 0.1 s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    /// What every call has.
    pub(crate) base: Duration,
    /// Nanoseconds more for each unit of fuel.
    pub(crate) nanoseconds: u64,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { base: Duration::from_secs(2), nanoseconds: 25 }
    }
}

impl Watchdog {
    /// When a call is stopped that begins now and may spend `fuel`; `None` if that is beyond all time.
    fn deadline(self, fuel: u64, patience: Patience) -> Option<Instant> {
        let time = self.base.saturating_add(Duration::from_nanos(fuel.saturating_mul(self.nanoseconds)));
        Instant::now().checked_add(time.saturating_mul(patience.factor() as u32))
    }
}

/// The engine that all components share, and the cache of compiled ones.
pub(crate) struct Components {
    engine: Engine,
    cache: Option<cache::Cache>,
    watchdog: Watchdog,
}

impl Components {
    /// Sets up the engine.
    pub(crate) fn new(cache: Option<std::path::PathBuf>, watchdog: Watchdog) -> Result<Self, HostError> {
        let engine = Engine::new(&config(true)).or_else(|error| {
            // The pool reserves address space; where that is limited, instances are made one by one, only slower.
            tracing::warn!(%error, "no pool of plugin instances");
            Engine::new(&config(false))
        });
        let engine = engine.map_err(|error| HostError::Engine(format!("{error:#}")))?;
        Ok(Self { engine, cache: cache::Cache::open(cache), watchdog })
    }

    /// Compiles a component, or takes it from the cache, and checks all that can be checked without its config.
    pub(crate) fn load(
        &self,
        source: &Source<'_>,
        limits: &Limits,
        grants: grants::Granted<'_>,
        gate: &Gate,
    ) -> Result<Component, HostError> {
        let fuel = limits.fuel.ok_or_else(|| source.missing("fuel", "a component never runs without a fuel limit"))?;
        let memory =
            limits.memory.ok_or_else(|| source.missing("memory", "a component never runs without a memory limit"))?;
        let compiled = self.compile(source.bytes).map_err(|detail| source.unusable(detail))?;
        let exports = version::exports(&self.engine, &compiled).map_err(|detail| source.unusable(detail))?;
        let mut runtimes = Vec::new();
        for (name, (bytes, runs)) in &grants.runtimes {
            let interpreter = self
                .compile(bytes)
                .and_then(|compiled| Interpreter::link(&self.engine, &compiled, name, *runs, self.watchdog))
                .map_err(|detail| runtime_error(source, name, detail))?;
            patiently(gate, |patience| interpreter.check(patience)).map_err(|failure| match failure {
                Failure::Expired => expired(source),
                other => runtime_error(source, name, format!("it fails when it starts: {}", other.reason(runs.fuel))),
            })?;
            runtimes.push(interpreter);
        }
        let granted = Granted { assets: grants.assets.into_iter().collect(), runtimes };
        let pre = self
            .link(source.plugin, &compiled, exports.version, &granted)
            .map_err(|error| source.unusable(format!("{error:#}")))?;
        let setup = Setup {
            pre,
            exports,
            granted: Arc::new(granted),
            fuel,
            memory,
            output: limits.output.unwrap_or(OUTPUT),
            log: limits.log.unwrap_or(LOG),
            watchdog: self.watchdog,
            name: source.plugin.into(),
        };
        // Starting it takes a place in the pool of instances, and time: as every call does.
        patiently(gate, |patience| setup.check_types(patience)).map_err(|failure| match failure {
            Failure::Expired => expired(source),
            other => source.unusable(other.reason(fuel)),
        })?;
        Ok(Component { setup: Arc::new(setup) })
    }

    /// The component of `bytes`, or what is wrong with it.
    fn compile(&self, bytes: &[u8]) -> Result<Compiled, String> {
        match bytes {
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => {}
            [0, b'a', b's', b'm', ..] => {
                return Err("it is a core module, not a component; build it for `wasm32-wasip2`, or encode it".into());
            }
            _ => return Err("it is no WebAssembly component".into()),
        }
        let compiled = match &self.cache {
            Some(cache) => cache.component(&self.engine, bytes),
            None => Compiled::new(&self.engine, bytes),
        };
        compiled.map_err(|error| format!("it does not compile: {error:#}"))
    }

    fn link(
        &self,
        plugin: &str,
        component: &Compiled,
        version: &str,
        granted: &Granted,
    ) -> wasmtime::Result<InstancePre<State>> {
        let mut linker = Linker::new(&self.engine);
        imports::define(&mut linker, version, granted)?;
        let interface = |name: &str| format!("pipeline:plugin/{name}@{version}");
        let mut unused: Vec<(String, &str)> = Vec::new();
        unused.extend(granted.assets.first().map(|(name, _)| (interface("assets"), name.as_str())));
        unused.extend(granted.runtimes.first().map(|runtime| (interface("runner"), runtime.name.as_str())));
        for (import, item) in component.component_type().imports(&self.engine) {
            unused.retain(|(interface, _)| interface != import);
            match item.ty {
                ComponentItem::ComponentInstance(instance) if wasi::is_wasi(import) => {
                    wasi::define(&mut linker, &self.engine, import, &instance)?;
                }
                _ if ["types", "log", "assets"].iter().any(|name| import == interface(name)) => {}
                _ if import == interface("runner") && !granted.runtimes.is_empty() => {}
                _ => return Err(imports::refusal(plugin, import)),
            }
        }
        if let Some((interface, name)) = unused.first() {
            bail!(
                "it does not import `{interface}`, and can't use `{name}`: remove it from `[plugins.{plugin}.grants]`"
            );
        }
        linker.instantiate_pre(component)
    }
}

/// Tries once, and once more, alone and with patience, after the watchdog rang.
fn patiently<T>(gate: &Gate, f: impl Fn(Patience) -> Result<T, Failure>) -> Result<T, Failure> {
    let attempt = |patience| {
        let _pass = gate.enter(patience == Patience::Alone);
        f(patience)
    };
    match attempt(Patience::Once) {
        Err(Failure::Expired) => attempt(Patience::Alone),
        other => other,
    }
}

fn expired(source: &Source<'_>) -> HostError {
    HostError::Watchdog { plugin: source.plugin.into(), call: "its start", place: String::new() }
}

fn config(pooling: bool) -> Config {
    let mut cost = OperatorCost::default();
    // A page that grows is zeroed.
    cost.variable.memory_grow_per_page = u8::MAX;
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_memory64(false)
        .consume_fuel(true)
        .operator_cost(cost)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(512 << 10)
        .wasm_backtrace_max_frames(None);
    if pooling {
        // A plugin and a program that it runs.
        let calls = 2 * CALLS as u32;
        let mut pool = PoolingAllocationConfig::new();
        // The largest guest that was seen (SpiderMonkey) has 4 MiB of instance.
        pool.total_component_instances(calls)
            .total_core_instances(calls * imports::CORE_INSTANCES)
            .max_core_instances_per_component(imports::CORE_INSTANCES)
            .total_memories(calls * imports::MEMORIES)
            .max_memories_per_component(imports::MEMORIES)
            .total_tables(calls * imports::TABLES)
            .max_tables_per_component(imports::TABLES)
            .table_elements(imports::TABLE_ELEMENTS)
            .max_core_instance_size(4 << 20)
            .max_component_instance_size(4 << 20)
            .max_memory_size(4 << 30)
            // What a call has touched is wiped and stays mapped, so that the next call finds no page faults: a Rust guest's
            // heap begins above 1 MiB, behind its stack. The kernel says which pages those are.
            .linear_memory_keep_resident(2 << 20)
            .table_keep_resident(64 << 10)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// A component, linked and checked, and what a call may spend.
struct Setup {
    name: Arc<str>,
    pre: InstancePre<State>,
    exports: Exports,
    granted: Arc<Granted>,
    fuel: u64,
    memory: u64,
    output: u64,
    log: u64,
    watchdog: Watchdog,
}

/// A loaded component.
pub(crate) struct Component {
    setup: Arc<Setup>,
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
    fn check_types(&self, patience: Patience) -> Result<(), Failure> {
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
