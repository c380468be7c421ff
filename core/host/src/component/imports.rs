//! What a component is given: a log, a virtual WASI, and the assets and runtimes that were granted; and how it pays for each.

use std::sync::Arc;
use std::time::Instant;

use base::RngKey;
use wasmtime::component::{ComponentType, Lift, Linker};
use wasmtime::{AsContextMut, ResourceLimiter, StoreContextMut, Trap, format_err};

use super::runner::{self, Interpreter};
use crate::sandbox::{Patience, grouped};

/// The fuel of a call into the host, besides one for each byte: about what the call takes, in plain instructions.
const CALL_FUEL: u64 = 1_000;

/// A limit that was reached, as a trap.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Exceeded {
    #[error("memory exhausted: {} bytes asked for, {} allowed", grouped(*asked), grouped(*allowed))]
    Memory { asked: u64, allowed: u64 },
    #[error("table exhausted: {} elements asked for, {} allowed", grouped(*asked as u64), grouped(*allowed as u64))]
    Table { asked: usize, allowed: usize },
    #[error("logged too much: {} bytes, {} allowed in a call", grouped(*logged), grouped(*allowed))]
    Log { logged: u64, allowed: u64 },
    #[error("wrote too much: {} bytes, {} allowed to stdout, and to stderr", grouped(*written as u64), grouped(*allowed as u64))]
    Written { written: usize, allowed: usize },
    #[error("runs in `{runtime}` exhausted: {} asked for, {} allowed for one completion", grouped(*asked), grouped(*allowed))]
    Runs { runtime: String, asked: u64, allowed: u64 },
    #[error("ran a program in its start or in configure, where none is allowed")]
    EarlyRun,
}

/// Elements of a table; the largest guest that was seen (SpiderMonkey) has 7,689.
pub(super) const TABLE_ELEMENTS: usize = 60_000;

/// Core instances, memories and tables of one component; the most that were seen are 40, 3 and 3 (QuickJS).
pub(super) const CORE_INSTANCES: u32 = 40;
pub(super) const MEMORIES: u32 = 4;
pub(super) const TABLES: u32 = 8;

#[derive(ComponentType, Lift, Clone, Copy, Debug, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make the values: they are lifted, not constructed")]
pub(super) enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
}

/// The memory of one instance: all its memories together.
pub(super) struct Memory {
    allowed: u64,
    used: u64,
}

impl Memory {
    /// Bytes in use: memories never shrink.
    pub(super) fn used(&self) -> u64 {
        self.used
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // Beyond what the component itself declares: that is between it and its code.
            return Ok(false);
        }
        self.used = self.used.saturating_add(desired.saturating_sub(current) as u64);
        // A trap, not a failed growth: guests answer the latter in ways of their own, some with an endless loop.
        let Self { used: asked, allowed } = *self;
        if asked > allowed { Err(Exceeded::Memory { asked, allowed }.into()) } else { Ok(true) }
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let (asked, allowed) = (desired, TABLE_ELEMENTS);
        if asked > allowed { Err(Exceeded::Table { asked, allowed }.into()) } else { Ok(true) }
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

/// What a plugin was granted, ready to be used.
#[derive(Default)]
pub(super) struct Granted {
    pub(super) assets: Vec<(String, Vec<u8>)>,
    pub(super) runtimes: Vec<Interpreter>,
}

/// Where lines and bytes go that an instance writes.
pub(super) enum Sink {
    /// A plugin's log: lines, kept until the call ends, at most so many bytes of them.
    Log { lines: Vec<(Level, String)>, allowed: u64, used: u64 },
    /// A program's streams, at most so many bytes of each.
    Streams { stdout: Vec<u8>, stderr: Vec<u8>, allowed: usize },
}

impl Sink {
    /// A log of at most `allowed` bytes.
    pub(super) fn log(allowed: u64) -> Self {
        Self::Log { lines: Vec::new(), allowed, used: 0 }
    }

    /// Takes what the instance writes to stdout (`Level::Info`) or stderr (`Level::Warn`).
    pub(super) fn write(&mut self, level: Level, bytes: &[u8]) -> wasmtime::Result<()> {
        match self {
            Self::Log { .. } => self.line(level, String::from_utf8_lossy(bytes).into_owned()),
            Self::Streams { stdout, stderr, allowed } => {
                let stream = if level == Level::Warn { stderr } else { stdout };
                let (written, allowed) = (stream.len() + bytes.len(), *allowed);
                if written > allowed {
                    return Err(Exceeded::Written { written, allowed }.into());
                }
                stream.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Keeps a line of the plugin's log; a program has none.
    fn line(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        let Self::Log { lines, allowed, used } = self else { return Ok(()) };
        // A line costs something even if it is empty, so that their number is bounded too.
        *used += message.len() as u64 + 16;
        let (logged, allowed) = (*used, *allowed);
        if logged > allowed {
            return Err(Exceeded::Log { logged, allowed }.into());
        }
        lines.push((level, message));
        Ok(())
    }

    /// What was written; what is no UTF-8 in it is replaced.
    pub(super) fn into_streams(self) -> (String, String) {
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        };
        match self {
            Self::Log { .. } => Default::default(),
            Self::Streams { stdout, stderr, .. } => (text(stdout), text(stderr)),
        }
    }

    /// What was logged.
    pub(super) fn lines(&self) -> &[(Level, String)] {
        match self {
            Self::Log { lines, .. } => lines,
            Self::Streams { .. } => &[],
        }
    }
}

/// What a call of a plugin may run, and what it has run.
#[derive(Default)]
pub(super) struct Programs {
    /// Completions that the call is about; 0 before the plugin is asked.
    pub(super) completions: u64,
    /// Runs so far, by the number of the runtime.
    runs: Vec<u64>,
    /// The fuel of all runs together.
    pub(super) fuel: u64,
}

impl Programs {
    /// Counts a run in the `i`th runtime.
    fn count(&mut self, i: usize, runtime: &Interpreter) -> wasmtime::Result<()> {
        if self.completions == 0 {
            return Err(Exceeded::EarlyRun.into());
        }
        self.runs.resize(self.runs.len().max(i + 1), 0);
        let (asked, allowed) = (self.runs[i] + 1, runtime.limits.runs);
        if asked > allowed.saturating_mul(self.completions) {
            return Err(Exceeded::Runs { runtime: runtime.name.clone(), asked, allowed }.into());
        }
        self.runs[i] = asked;
        Ok(())
    }

    /// Programs that were run.
    pub(super) fn total(&self) -> u64 {
        self.runs.iter().sum()
    }
}

/// The host's side of one instance.
pub(super) struct State {
    pub(super) memory: Memory,
    pub(super) sink: Sink,
    pub(super) granted: Arc<Granted>,
    pub(super) programs: Programs,
    /// When the watchdog stops the instance.
    deadline: Option<Instant>,
    patience: Patience,
    /// Nanoseconds on the virtual monotonic clock.
    pub(super) clock: u64,
    seed: u64,
    drawn: u32,
}

impl State {
    pub(super) fn new(
        memory: u64,
        sink: Sink,
        granted: Arc<Granted>,
        seed: u64,
        patience: Patience,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            memory: Memory { allowed: memory, used: 0 },
            sink,
            granted,
            programs: Programs::default(),
            deadline,
            patience,
            clock: 0,
            seed,
            drawn: 0,
        }
    }

    /// The next word of the instance's random numbers.
    pub(super) fn random(&mut self) -> u64 {
        let words = RngKey::new(self.seed, "wasi").words([self.drawn, 0, 0, 0]);
        self.drawn = self.drawn.wrapping_add(1);
        u64::from(words[0]) | u64::from(words[1]) << 32
    }
}

/// Takes the fuel of a call into the host that moves `bytes`; looks at the clock, too.
pub(super) fn charge(store: &mut StoreContextMut<'_, State>, bytes: usize) -> wasmtime::Result<()> {
    if store.data().deadline.is_some_and(|deadline| Instant::now() > deadline) {
        return Err(Trap::Interrupt.into());
    }
    let mut store = store.as_context_mut();
    let left = store.get_fuel()?.checked_sub(CALL_FUEL + bytes as u64);
    store.set_fuel(left.unwrap_or(0))?;
    if left.is_none() { Err(Trap::OutOfFuel.into()) } else { Ok(()) }
}

/// Defines the imports of the WIT package at `version`; `runner` only where a runtime is granted.
pub(super) fn define(linker: &mut Linker<State>, version: &str, granted: &Granted) -> wasmtime::Result<()> {
    linker.instance(&format!("pipeline:plugin/types@{version}"))?;
    let mut log = linker.instance(&format!("pipeline:plugin/log@{version}"))?;
    log.func_wrap("emit", |mut store: StoreContextMut<'_, State>, (level, message): (Level, String)| {
        charge(&mut store, message.len())?;
        store.data_mut().sink.line(level, message)
    })?;
    let mut assets = linker.instance(&format!("pipeline:plugin/assets@{version}"))?;
    assets.func_wrap("read", |store: StoreContextMut<'_, State>, (name, offset, length): (String, u64, u32)| {
        Ok((read(store, &name, offset, length)?,))
    })?;
    if !granted.runtimes.is_empty() {
        let mut runner = linker.instance(&format!("pipeline:plugin/runner@{version}"))?;
        runner.func_wrap("run", |store: StoreContextMut<'_, State>, params: (String, String, String)| {
            let (runtime, source, stdin) = params;
            Ok((run(store, &runtime, &source, &stdin)?,))
        })?;
    }
    Ok(())
}

/// A part of an asset.
fn read(
    mut store: StoreContextMut<'_, State>,
    name: &str,
    offset: u64,
    length: u32,
) -> wasmtime::Result<Result<Vec<u8>, String>> {
    let granted = Arc::clone(&store.data().granted);
    let Some((_, bytes)) = granted.assets.iter().find(|(known, _)| known == name) else {
        charge(&mut store, name.len())?;
        return Ok(Err(format!(
            "the pipeline file grants no asset `{name}`: it would be `{name} = {{ file = \"...\" }}`"
        )));
    };
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(length as usize).min(bytes.len());
    // Paid before it is copied.
    charge(&mut store, name.len() + (end - start))?;
    Ok(Ok(bytes[start..end].to_vec()))
}

/// A program in a sandbox of its own.
fn run(
    mut store: StoreContextMut<'_, State>,
    name: &str,
    source: &str,
    stdin: &str,
) -> wasmtime::Result<Result<runner::Outcome, String>> {
    charge(&mut store, name.len() + source.len() + stdin.len())?;
    let granted = Arc::clone(&store.data().granted);
    let Some((i, runtime)) = granted.runtimes.iter().enumerate().find(|(_, runtime)| runtime.name == name) else {
        return Ok(Err(format!("the pipeline file grants no runtime `{name}`")));
    };
    charge(&mut store, runner::RUN_FUEL)?;
    let state = store.data_mut();
    state.programs.count(i, runtime)?;
    let started = Instant::now();
    let (outcome, fuel) = runtime.run(source, stdin, state.seed, state.patience)?;
    state.programs.fuel += fuel;
    // The time of the run was the program's.
    state.deadline = state.deadline.and_then(|deadline| deadline.checked_add(started.elapsed()));
    charge(&mut store, outcome.size())?;
    Ok(Ok(outcome))
}

/// What `import` is refused with.
pub(super) fn refusal(plugin: &str, import: &str) -> wasmtime::Error {
    if import.starts_with("pipeline:plugin/runner@") {
        return format_err!(
            "it imports `{import}` to run programs, and no runtime is granted; what grants one is, under \
             `[plugins.{plugin}.grants]`: python = {{ fuel = 2_000_000_000, memory = \"256 MiB\", runs = 16 }}"
        );
    }
    format_err!(
        "it imports `{import}`, and plugins are given `log`, `assets`, a granted `runner` and a virtual WASI 0.2 only"
    )
}
