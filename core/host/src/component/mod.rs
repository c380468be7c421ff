//! WebAssembly components: one engine, pooled instances, and for every call a fresh instance with a budget.

mod abi;
mod cache;
mod call;
mod imports;
mod instance;
mod runner;
mod version;
mod wasi;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Limits;
pub(crate) use call::Component;
use call::Setup;
use imports::{Granted, State};
use instance::Failure;
use runner::Interpreter;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Compiled, InstancePre, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig, bail};

use crate::gate::{CALLS, Gate};
use crate::grants::{self, runtime_error};
use crate::sandbox::Patience;
use crate::{HostError, Source};

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
