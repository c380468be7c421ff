//! What a component is given: a log, assets (none yet), and a virtual WASI; and how it pays for each.

use base::RngKey;
use wasmtime::component::{ComponentType, Lift, Linker};
use wasmtime::{AsContextMut, ResourceLimiter, StoreContextMut, Trap, format_err};

/// The fuel of a call into the host, besides one for each byte: about what the call takes, in plain instructions.
const CALL_FUEL: u64 = 1_000;

/// A limit that was reached, as a trap.
#[derive(Debug, thiserror::Error)]
pub(super) enum Exceeded {
    #[error("memory exhausted: {} bytes allowed", crate::sandbox::grouped(*.0))]
    Memory(u64),
    #[error("table exhausted: {} elements allowed", crate::sandbox::grouped(*.0 as u64))]
    Table(usize),
    #[error("logged too much: {} bytes allowed in a call", crate::sandbox::grouped(*.0))]
    Log(u64),
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

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // Beyond what the component itself declares: that is between it and its code.
            return Ok(false);
        }
        self.used = self.used.saturating_add(desired.saturating_sub(current) as u64);
        // A trap, not a failed growth: guests answer the latter in ways of their own, some with an endless loop.
        if self.used > self.allowed { Err(Exceeded::Memory(self.allowed).into()) } else { Ok(true) }
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS { Err(Exceeded::Table(TABLE_ELEMENTS).into()) } else { Ok(true) }
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

/// The host's side of one instance.
pub(super) struct State {
    pub(super) memory: Memory,
    /// What the instance has logged, kept until the call ends.
    pub(super) logged: Vec<(Level, String)>,
    log_allowed: u64,
    log_used: u64,
    /// Nanoseconds on the virtual monotonic clock.
    pub(super) clock: u64,
    key: RngKey,
    drawn: u32,
}

impl State {
    pub(super) fn new(memory: u64, log: u64, seed: u64) -> Self {
        Self {
            memory: Memory { allowed: memory, used: 0 },
            logged: Vec::new(),
            log_allowed: log,
            log_used: 0,
            clock: 0,
            key: RngKey::new(seed, "wasi"),
            drawn: 0,
        }
    }

    /// Keeps a line of the plugin's log.
    pub(super) fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        // A line costs something even if it is empty, so that their number is bounded too.
        self.log_used += message.len() as u64 + 16;
        if self.log_used > self.log_allowed {
            return Err(Exceeded::Log(self.log_allowed).into());
        }
        self.logged.push((level, message));
        Ok(())
    }

    /// The next word of the instance's random numbers.
    pub(super) fn random(&mut self) -> u64 {
        let words = self.key.words([self.drawn, 0, 0, 0]);
        self.drawn = self.drawn.wrapping_add(1);
        u64::from(words[0]) | u64::from(words[1]) << 32
    }
}

/// Takes the fuel of a call into the host that moves `bytes`.
pub(super) fn charge(store: &mut StoreContextMut<'_, State>, bytes: usize) -> wasmtime::Result<()> {
    let mut store = store.as_context_mut();
    let left = store.get_fuel()?.checked_sub(CALL_FUEL + bytes as u64);
    store.set_fuel(left.unwrap_or(0))?;
    if left.is_none() { Err(Trap::OutOfFuel.into()) } else { Ok(()) }
}

/// Defines the imports of the WIT package at `version`.
pub(super) fn define(linker: &mut Linker<State>, version: &str) -> wasmtime::Result<()> {
    linker.instance(&format!("pipeline:plugin/types@{version}"))?;
    let mut log = linker.instance(&format!("pipeline:plugin/log@{version}"))?;
    log.func_wrap("emit", |mut store: StoreContextMut<'_, State>, (level, message): (Level, String)| {
        charge(&mut store, message.len())?;
        store.data_mut().log(level, message)
    })?;
    let mut assets = linker.instance(&format!("pipeline:plugin/assets@{version}"))?;
    assets.func_wrap("read", |mut store: StoreContextMut<'_, State>, (name, _, _): (String, u64, u32)| {
        charge(&mut store, name.len())?;
        Ok((Err::<Vec<u8>, _>(format!("the pipeline file grants no asset `{name}`")),))
    })?;
    Ok(())
}

/// What `import` is refused with.
pub(super) fn refusal(import: &str) -> wasmtime::Error {
    if import.starts_with("pipeline:plugin/runner@") {
        return format_err!("it imports `{import}`, and this host grants no runner");
    }
    format_err!("it imports `{import}`, and plugins are given `log`, `assets` and a virtual WASI 0.2 only")
}
