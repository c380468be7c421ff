//! A fresh instance with a budget, and why one fails.

use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap};

use super::imports::{Exceeded, State};
use super::wasi::Exited;
use crate::sandbox::exhausted;

/// What a store starts with.
pub(super) struct Budget {
    pub(super) fuel: u64,
    /// Bytes that one call across the border may bring to the host.
    pub(super) hostcall: usize,
}

impl Budget {
    /// An empty store with the budget, and the memory and time that the state says.
    pub(super) fn store(&self, engine: &Engine, state: State) -> Store<State> {
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.hostcall);
        // An engine without fuel is the only failure, and ours has it.
        let metered = store.set_fuel(self.fuel).is_ok();
        debug_assert!(metered);
        store
    }
}

/// Why an instance was stopped.
pub(super) enum Failure {
    /// Its fuel is spent.
    Fuel,
    /// The watchdog rang, or there was no place for it in the pool: it says nothing about the code.
    Expired,
    /// Another limit was reached.
    Exceeded(Exceeded),
    /// It called WASI's exit.
    Exited(u8),
    /// More bytes came across the border than one call may bring.
    HostCall,
    /// It trapped.
    Trap(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    /// As people read it, of an instance that had so much fuel.
    pub(super) fn reason(&self, fuel: u64) -> String {
        match self {
            Self::Fuel => exhausted("fuel", fuel),
            Self::Expired => "stopped by the watchdog".into(),
            Self::Exceeded(exceeded) => exceeded.to_string(),
            Self::Exited(status) => Exited(*status).to_string(),
            Self::HostCall => "passed too much in one call".into(),
            Self::Trap(trap) => format!("trapped: {trap}"),
            Self::Other(reason) => reason.clone(),
        }
    }
}

/// Why an instance was stopped.
pub(super) fn failure(error: &wasmtime::Error) -> Failure {
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return Failure::Exceeded(exceeded.clone());
    }
    if let Some(Exited(status)) = error.downcast_ref::<Exited>() {
        return Failure::Exited(*status);
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::Expired;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Failure::Fuel,
        Some(Trap::Interrupt) => Failure::Expired,
        // How deep calls nest in it differs by the processor: what it had spent by then is not told.
        Some(trap @ Trap::StackOverflow) => Failure::Other(format!("trapped: {}", bare(trap))),
        Some(trap) => Failure::Trap(bare(trap)),
        None => {
            let cause = error.root_cause().to_string();
            if cause.contains("fuel allocated for hostcalls") { Failure::HostCall } else { Failure::Other(cause) }
        }
    }
}

fn bare(trap: &Trap) -> String {
    trap.to_string().trim_start_matches("wasm trap: ").into()
}
