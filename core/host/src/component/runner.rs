//! Programs that plugins run: each in a fresh instance of a granted runtime, with a budget of its own.
//!
//! A program is told from its interpreter by nobody: what it writes and how it ends is all that its plugin learns.

use std::sync::Arc;

use base::Runs;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Compiled, ComponentExportIndex, ComponentType, InstancePre, Linker, Lower};
use wasmtime::{Engine, Store, Trap};

use super::imports::{Exceeded, Granted, Sink, State};
use super::instance::{Budget, Failure, failure};
use super::{Watchdog, wasi};
use crate::sandbox::Patience;

/// The plugin's fuel for starting a run, besides that of the call and one for each byte that goes in and comes out.
pub(super) const RUN_FUEL: usize = 10_000;

/// Bytes that a program may write to stdout, and as many to stderr.
const STREAM: usize = 1 << 20;

/// How a program ended.
#[derive(ComponentType, Lower, Clone, Debug)]
#[component(variant)]
pub(super) enum Exit {
    #[component(name = "ok")]
    Ok,
    #[component(name = "failed")]
    Failed(i32),
    #[component(name = "out-of-fuel")]
    OutOfFuel,
    #[component(name = "out-of-memory")]
    OutOfMemory,
    #[component(name = "trapped")]
    Trapped(String),
}

/// What a program wrote, and how it ended.
#[derive(ComponentType, Lower, Clone, Debug)]
#[component(record)]
pub(super) struct Outcome {
    stdout: String,
    stderr: String,
    exit: Exit,
}

impl Outcome {
    /// Bytes that it brings along.
    pub(super) fn size(&self) -> usize {
        let exit = if let Exit::Trapped(reason) = &self.exit { reason.len() } else { 0 };
        self.stdout.len() + self.stderr.len() + exit
    }
}

/// A runtime that was granted: compiled, linked and started once for a test.
pub(super) struct Interpreter {
    pub(super) name: String,
    pub(super) limits: Runs,
    pre: InstancePre<State>,
    execute: ComponentExportIndex,
    watchdog: Watchdog,
    granted: Arc<Granted>,
}

impl Interpreter {
    /// Links a component of the world `runtime`; otherwise what is wrong with it.
    pub(super) fn link(
        engine: &Engine,
        compiled: &Compiled,
        name: &str,
        limits: Runs,
        watchdog: Watchdog,
    ) -> Result<Self, String> {
        let text = |error: wasmtime::Error| format!("{error:#}");
        let mut linker = Linker::new(engine);
        for (import, item) in compiled.component_type().imports(engine) {
            match item.ty {
                ComponentItem::ComponentInstance(instance) if wasi::is_wasi(import) => {
                    wasi::define(&mut linker, engine, import, &instance).map_err(text)?;
                }
                _ => return Err(format!("it imports `{import}`, and runtimes are given a virtual WASI 0.2 only")),
            }
        }
        let pre = linker.instantiate_pre(compiled).map_err(text)?;
        let execute = compiled
            .get_export_index(None, "execute")
            .ok_or("it exports no `execute: func(source: string, stdin: string) -> s32`")?;
        // A runtime has nothing granted, and no runner of its own.
        Ok(Self { name: name.into(), limits, pre, execute, watchdog, granted: Arc::default() })
    }

    /// Starts it, and holds the type of its function against the world's.
    pub(super) fn check(&self, patience: Patience) -> Result<(), Failure> {
        let mut store = self.store(0, patience);
        let instance = self.pre.instantiate(&mut store).map_err(|error| failure(&error))?;
        instance.get_typed_func::<(&str, &str), (i32,)>(&mut store, &self.execute).map(drop).map_err(|error| {
            Failure::Other(format!("the type of `execute` is not that of the world `runtime`: {error:#}"))
        })
    }

    /// Runs a program: how it ended, and its fuel. An error if the watchdog rang, which says nothing about the program.
    pub(super) fn run(
        &self,
        source: &str,
        stdin: &str,
        seed: u64,
        patience: Patience,
    ) -> wasmtime::Result<(Outcome, u64)> {
        let mut store = self.store(seed, patience);
        let status = self.pre.instantiate(&mut store).and_then(|instance| {
            let execute = instance.get_typed_func::<(&str, &str), (i32,)>(&mut store, &self.execute)?;
            execute.call(&mut store, (source, stdin))
        });
        let exit = match status {
            Ok((0,)) => Exit::Ok,
            Ok((status,)) => Exit::Failed(status),
            Err(error) => match failure(&error) {
                Failure::Expired => return Err(Trap::Interrupt.into()),
                Failure::Fuel => Exit::OutOfFuel,
                Failure::Exceeded(Exceeded::Memory { .. }) => Exit::OutOfMemory,
                Failure::Exceeded(exceeded) => Exit::Trapped(exceeded.to_string()),
                Failure::Exited(0) => Exit::Ok,
                Failure::Exited(status) => Exit::Failed(i32::from(status)),
                Failure::Trap(reason) | Failure::Other(reason) => Exit::Trapped(reason),
                Failure::HostCall => Exit::Trapped("passed too much in one call".into()),
            },
        };
        let fuel = self.limits.fuel - store.get_fuel().unwrap_or(0);
        let (stdout, stderr) = store.into_data().sink.into_streams();
        Ok((Outcome { stdout, stderr, exit }, fuel))
    }

    fn store(&self, seed: u64, patience: Patience) -> Store<State> {
        let sink = Sink::Streams { stdout: Vec::new(), stderr: Vec::new(), allowed: STREAM };
        let Runs { fuel, memory, .. } = self.limits;
        let deadline = self.watchdog.deadline(fuel, patience);
        let state = State::new(memory, sink, Arc::clone(&self.granted), seed, patience, deadline);
        Budget { fuel, hostcall: STREAM }.store(self.pre.engine(), state)
    }
}
