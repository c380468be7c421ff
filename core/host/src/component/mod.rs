//! WebAssembly components: one engine, pooled instances, and for every call a fresh instance with a budget.

mod abi;
mod cache;
mod imports;
mod version;
mod wasi;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use abi::function;
use base::{Context, Decision, Group, Limits, Row, Verdict};
use imports::{Level, State};
use version::Exports;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component as Compiled, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Linker, Lower,
    TypedFunc,
};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig, Store, Trap};

use crate::gate::{CALLS, Gate};
use crate::sandbox::{Code, Fault, Outcome, Patience, Sandbox, grouped};
use crate::{HostError, Source, World};

/// Bytes that a call may return, where the limits don't say.
const OUTPUT: u64 = 1 << 20;

/// Bytes that a call may log, where the limits don't say.
const LOG: u64 = 64 << 10;

/// How long a call may take before the watchdog stops it. Fuel is the limit that counts; this only catches what fuel can't
/// see, so it is far above what the fuel can take: 2e9 units take about 0.1 s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    /// Ticks of 10 ms that every call has.
    pub(crate) base: u64,
    /// Fuel for which there is a tick more.
    pub(crate) fuel_per_tick: u64,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { base: 200, fuel_per_tick: 400_000 }
    }
}

const TICK: Duration = Duration::from_millis(10);

/// The engine that all components share, and the cache of compiled ones.
pub(crate) struct Runtime {
    engine: Engine,
    cache: Option<cache::Cache>,
    watchdog: Watchdog,
}

impl Runtime {
    /// Starts the engine and its ticker, which ends with the engine.
    pub(crate) fn new(cache: Option<std::path::PathBuf>, watchdog: Watchdog) -> Result<Self, HostError> {
        let engine = Engine::new(&config(true)).or_else(|error| {
            // The pool reserves address space; where that is limited, instances are made one by one, only slower.
            tracing::warn!(%error, "no pool of plugin instances");
            Engine::new(&config(false))
        });
        let engine = engine.map_err(|error| HostError::Engine(format!("{error:#}")))?;
        let weak = engine.weak();
        let ticker = move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new()
            .name("plugin-watchdog".into())
            .spawn(ticker)
            .map_err(|error| HostError::Engine(error.to_string()))?;
        Ok(Self { engine, cache: cache::Cache::open(cache), watchdog })
    }

    /// Compiles a component, or takes it from the cache, and checks all that can be checked without its config.
    pub(crate) fn load(&self, source: &Source<'_>, limits: &Limits, gate: &Gate) -> Result<Component, HostError> {
        match source.bytes {
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => {}
            [0, b'a', b's', b'm', ..] => {
                let detail = "it is a core module, not a component; build it for `wasm32-wasip2`, or encode it";
                return Err(source.unusable(detail));
            }
            _ => return Err(source.unusable("it is no WebAssembly component")),
        }
        let fuel = limits.fuel.ok_or_else(|| source.missing("fuel", "a component never runs without a fuel limit"))?;
        let memory =
            limits.memory.ok_or_else(|| source.missing("memory", "a component never runs without a memory limit"))?;
        let compiled = match &self.cache {
            Some(cache) => cache.component(&self.engine, source.bytes),
            None => Compiled::new(&self.engine, source.bytes),
        };
        let compiled = compiled.map_err(|error| source.unusable(format!("it does not compile: {error:#}")))?;
        let exports = version::exports(&self.engine, &compiled).map_err(|detail| source.unusable(detail))?;
        let pre = self.link(&compiled, exports.version).map_err(|error| source.unusable(format!("{error:#}")))?;
        let setup = Setup {
            pre,
            exports,
            fuel,
            memory,
            output: limits.output.unwrap_or(OUTPUT),
            log: limits.log.unwrap_or(LOG),
            watchdog: self.watchdog,
            name: source.plugin.into(),
        };
        // Starting it takes a place in the pool of instances, and time: as every call does.
        let unusable = |fault| match fault {
            Fault::Guest(detail) => source.unusable(detail),
            Fault::Exhausted => {
                source.unusable(format!("it fails when it starts: fuel exhausted: {} allowed", grouped(fuel)))
            }
            Fault::Expired => {
                HostError::Watchdog { plugin: source.plugin.into(), call: "its start", place: String::new() }
            }
        };
        let check = |patience| {
            let _pass = gate.enter(patience == Patience::Alone);
            setup.check_types(patience)
        };
        match check(Patience::Once) {
            Err(Fault::Expired) => check(Patience::Alone),
            other => other,
        }
        .map_err(unusable)?;
        Ok(Component { setup: Arc::new(setup) })
    }

    fn link(&self, component: &Compiled, version: &str) -> wasmtime::Result<InstancePre<State>> {
        let mut linker = Linker::new(&self.engine);
        imports::define(&mut linker, version)?;
        for (import, item) in component.component_type().imports(&self.engine) {
            match item.ty {
                ComponentItem::ComponentInstance(instance) if wasi::is_wasi(import) => {
                    wasi::define(&mut linker, &self.engine, import, &instance)?;
                }
                _ if ["types", "log", "assets"]
                    .iter()
                    .any(|name| import == format!("pipeline:plugin/{name}@{version}")) => {}
                _ => return Err(imports::refusal(import)),
            }
        }
        linker.instantiate_pre(component)
    }
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
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .max_wasm_stack(512 << 10)
        .wasm_backtrace_max_frames(None);
    if pooling {
        let calls = CALLS as u32;
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
            .linear_memory_keep_resident(256 << 10);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// A component, linked and checked, and what a call may spend.
struct Setup {
    name: Arc<str>,
    pre: InstancePre<State>,
    exports: Exports,
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
    pub(crate) fn world(&self) -> World {
        self.setup.exports.world
    }
}

/// An instance that has run its start functions.
struct Running {
    store: Store<State>,
    instance: Instance,
}

impl Setup {
    /// A fresh instance with the fuel of one completion, which starting it has used in part.
    fn start(&self, seed: u64, budget: u64, patience: Patience) -> Result<Running, (wasmtime::Error, Store<State>)> {
        let mut store = Store::new(self.pre.engine(), State::new(self.memory, self.log, seed));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(usize::try_from(self.output).unwrap_or(usize::MAX));
        let ticks = self.watchdog.base + self.fuel.saturating_add(budget) / self.watchdog.fuel_per_tick;
        store.set_epoch_deadline(ticks.saturating_mul(patience.factor()));
        let started = store.set_fuel(self.fuel).and_then(|()| self.pre.instantiate(&mut store));
        match started {
            Ok(instance) => Ok(Running { store, instance }),
            Err(error) => Err((error, store)),
        }
    }

    /// Holds the types of the component's functions against ours.
    fn check_types(&self, patience: Patience) -> Result<(), Fault> {
        let mut running = self.start(0, 0, patience).map_err(|(error, store)| match fault(self, &error, &store) {
            Fault::Guest(reason) => Fault::Guest(format!("it fails when it starts: {reason}")),
            other => other,
        })?;
        let exports = &self.exports;
        let checked = match exports.world {
            World::Verifier => running.typed::<function::Verify<'_>>(&exports.function),
            World::Rewarder => running.typed::<function::Reward<'_>>(&exports.function),
            World::Filterer => running.typed::<function::Filter<'_>>(&exports.function),
            World::Generator => running.typed::<function::Generate>(&exports.function),
        };
        checked
            .and_then(|()| running.typed::<function::Schema>(&exports.schema))
            .and_then(|()| running.typed::<function::Configure<'_>>(&exports.configure))
            .map_err(|error| {
                let version = exports.version;
                Fault::Guest(format!("a function's type is not that of pipeline:plugin {version}: {error:#}"))
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
        let mut spent = 0;
        let result = self.start(call.seed, call.budget, call.patience).map_err(|failed| failed.fault(self)).and_then(
            |mut running| {
                let configured = match call.config {
                    Some(config) => running.configure(self, config),
                    None => Ok(()),
                };
                spent += self.fuel - running.store.get_fuel().unwrap_or(0);
                configured?;
                let result = running
                    .store
                    .set_fuel(call.budget)
                    .and_then(|()| running.instance.get_typed_func::<F::Params, F::Results>(&mut running.store, index))
                    .and_then(|f| f.call(&mut running.store, params));
                spent += call.budget - running.store.get_fuel().unwrap_or(0);
                running.show_log(&self.name);
                result.map(Single::value).map_err(|error| fault(self, &error, &running.store))
            },
        );
        Outcome { result, spent }
    }
}

/// What a call has besides its parameters.
struct Call<'a> {
    config: Option<&'a str>,
    seed: u64,
    budget: u64,
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
            .map_err(|error| match fault(setup, &error, &self.store) {
                Fault::Exhausted => Fault::Guest(format!("configure: fuel exhausted: {} allowed", grouped(setup.fuel))),
                Fault::Guest(reason) => Fault::Guest(format!("configure: {reason}")),
                other => other,
            })?;
        result.map_err(|errors| {
            let first = errors.first().map_or("no reason given", |error| &error.message);
            Fault::Guest(format!("refused a config that it had accepted: {first}"))
        })
    }

    fn show_log(&self, plugin: &str) {
        for (level, message) in &self.store.data().logged {
            match level {
                Level::Debug => tracing::debug!(plugin, message, "log"),
                Level::Info => tracing::info!(plugin, message, "log"),
                Level::Warn => tracing::warn!(plugin, message, "log"),
            }
        }
    }
}

/// A start that failed.
trait Failed {
    fn fault(self, setup: &Setup) -> Fault;
}

impl Failed for (wasmtime::Error, Store<State>) {
    fn fault(self, setup: &Setup) -> Fault {
        match fault(setup, &self.0, &self.1) {
            Fault::Exhausted => Fault::Guest(format!("start: fuel exhausted: {} allowed", grouped(setup.fuel))),
            other => other,
        }
    }
}

fn fault(setup: &Setup, error: &wasmtime::Error, store: &Store<State>) -> Fault {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::Exhausted,
        Some(Trap::Interrupt) => Fault::Expired,
        _ => Fault::Guest(reason(setup, error, store)),
    }
}

/// The reason of a failure, as people read it.
fn reason(setup: &Setup, error: &wasmtime::Error, store: &Store<State>) -> String {
    if let Some(exceeded) = error.downcast_ref::<imports::Exceeded>() {
        return exceeded.to_string();
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let logged = &store.data().logged;
        // A guest's panic hook logs the message; without it the trap says little.
        let said = logged.iter().rev().find(|(level, _)| *level == Level::Warn);
        let words = |message: &str| message.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = said.map(|(_, message)| format!(" ({})", words(message))).unwrap_or_default();
        let trap = trap.to_string();
        return format!("trapped: {}{said}", trap.trim_start_matches("wasm trap: "));
    }
    let cause = error.root_cause().to_string();
    if cause.contains("fuel allocated for hostcalls") {
        return format!("returned too much: {} bytes allowed in a call", grouped(setup.output));
    }
    cause
}

impl Code for Component {
    fn schema(&self, patience: Patience) -> Outcome<Option<String>> {
        let call = Call { config: None, seed: 0, budget: self.setup.fuel, patience };
        let Outcome { result, spent } = self.setup.call::<function::Schema>(&call, &self.setup.exports.schema, ());
        Outcome { result: result.map(Some), spent }
    }

    fn check(&self, config: &str, patience: Patience) -> Outcome<Vec<(String, String)>> {
        let call = Call { config: None, seed: 0, budget: self.setup.fuel, patience };
        let index = &self.setup.exports.configure;
        let Outcome { result, spent } = self.setup.call::<function::Configure<'_>>(&call, index, (config,));
        let errors = |result: Result<(), Vec<abi::ConfigError>>| {
            let errors = result.err().unwrap_or_default();
            errors.into_iter().map(|error| (error.path, error.message)).collect()
        };
        Outcome { result: result.map(errors), spent }
    }

    fn bind(&self, config: &serde_json::Value) -> Arc<dyn Sandbox> {
        Arc::new(Bound { setup: Arc::clone(&self.setup), config: config.to_string() })
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
        ctx: &Context,
        n: usize,
        patience: Patience,
        params: F::Params,
    ) -> Outcome<T>
    where
        (Result<T, String>,): Single<Value = Result<T, String>>,
    {
        let budget = self.setup.fuel.saturating_mul(n as u64);
        let call = Call { config: Some(&self.config), seed: ctx.seed, budget, patience };
        let Outcome { result, spent } = self.setup.call::<F>(&call, &self.setup.exports.function, params);
        Outcome { result: result.and_then(|result| result.map_err(Fault::Guest)), spent }
    }
}

impl<T> Outcome<Vec<T>> {
    fn convert<U: From<T>>(self) -> Outcome<Vec<U>> {
        let convert = |values: Vec<T>| values.into_iter().map(U::from).collect();
        Outcome { result: self.result.map(convert), spent: self.spent }
    }
}

impl Sandbox for Bound {
    fn verify(&self, ctx: &Context, group: &Group, which: Range<usize>, patience: Patience) -> Outcome<Vec<Verdict>> {
        let params = (ctx.into(), abi::Group::new(group, which.clone()));
        self.call::<function::Verify<'_>, _>(ctx, which.len(), patience, params).convert()
    }

    fn reward(&self, ctx: &Context, group: &Group, patience: Patience) -> Outcome<Vec<Option<f64>>> {
        let n = group.completions.len();
        let judgements = group.judgements.iter().map(|judgement| (&**judgement).into()).collect();
        let params = (ctx.into(), abi::Group::new(group, 0..n), judgements);
        self.call::<function::Reward<'_>, _>(ctx, n, patience, params)
    }

    fn filter(&self, ctx: &Context, groups: &[Arc<Group>], patience: Patience) -> Outcome<Vec<Vec<Decision>>> {
        let n = groups.iter().map(|group| group.completions.len()).sum();
        let shapes = groups.iter().map(|group| abi::Group::new(group, 0..group.completions.len())).collect();
        let rewards = groups.iter().map(|group| {
            // A completion without a reward is told by NaN; the list has the shape of the group all the same.
            (0..group.completions.len()).map(|i| group.rewards.get(i).copied().flatten().unwrap_or(f64::NAN)).collect()
        });
        let params = (ctx.into(), shapes, rewards.collect());
        let Outcome { result, spent } = self.call::<function::Filter<'_>, _>(ctx, n, patience, params);
        let convert = |of_group: Vec<abi::Decision>| of_group.into_iter().map(Decision::from).collect();
        Outcome { result: result.map(|groups| groups.into_iter().map(convert).collect()), spent }
    }

    fn generate(&self, ctx: &Context, first: u64, count: u32, patience: Patience) -> Outcome<Vec<Row>> {
        let params = (ctx.into(), first, count);
        self.call::<function::Generate, _>(ctx, count as usize, patience, params).convert()
    }
}
