//! What the script that runs on this thread may still spend, and the config it sees.
//!
//! Rhai's callbacks are the engine's, not the call's; the state of a call is therefore the thread's, from `start` to
//! `finish`.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rhai::{Dynamic, EvalAltResult, Position};

use crate::sandbox::{Patience, grouped};

/// How long a call may take, however few its operations.
const BASE: Duration = Duration::from_secs(2);

/// What an operation may take besides: far more than it does.
const OPERATION: Duration = Duration::from_micros(100);

/// Bytes that a helper walks for one operation.
const BYTES: usize = 32;

/// Items of lists and maps that are copied for one operation.
const ITEMS: usize = 16;

/// Why a call was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The operations are spent.
    Operations,
    /// The watchdog rang.
    Time,
}

#[derive(Default)]
struct State {
    limit: u64,
    /// Operations of the script itself, as the engine counts them.
    counted: u64,
    /// Operations that helpers have added.
    added: u64,
    deadline: Option<Instant>,
    stopped: Option<Stopped>,
    config: Option<Dynamic>,
    log_allowed: u64,
    log_used: u64,
    logged: Vec<String>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// A call that is being metered.
pub(super) struct Meter(());

/// What a call has spent.
pub(super) struct End {
    pub(super) operations: u64,
    pub(super) stopped: Option<Stopped>,
    pub(super) logged: Vec<String>,
}

impl Meter {
    pub(super) fn start(limit: u64, log: u64, patience: Patience, config: Option<Dynamic>) -> Self {
        let time = BASE.saturating_add(OPERATION.saturating_mul(u32::try_from(limit).unwrap_or(u32::MAX)));
        let deadline = Instant::now().checked_add(time.saturating_mul(patience.factor() as u32));
        STATE.set(State { limit, deadline, config, log_allowed: log, ..State::default() });
        Self(())
    }

    pub(super) fn finish(self) -> End {
        let state = STATE.take();
        let operations = (state.counted + state.added).min(state.limit);
        End { operations, stopped: state.stopped, logged: state.logged }
    }
}

/// The engine's callback for every operation: a value ends the script.
pub(super) fn progress(counted: u64) -> Option<Dynamic> {
    STATE.with_borrow_mut(|state| {
        state.counted = counted;
        if counted + state.added > state.limit {
            state.stopped = Some(Stopped::Operations);
        } else if counted.is_multiple_of(64) && state.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            state.stopped = Some(Stopped::Time);
        }
        state.stopped.map(|_| Dynamic::UNIT)
    })
}

/// Takes what a helper costs that walks `bytes`.
pub(super) fn walk(bytes: usize) -> Result<(), Box<EvalAltResult>> {
    add(bytes / BYTES)
}

/// Takes what it costs to copy a value that holds `items`.
pub(super) fn copy(items: usize) -> Result<(), Box<EvalAltResult>> {
    if items < ITEMS { Ok(()) } else { add(items / ITEMS) }
}

fn add(operations: usize) -> Result<(), Box<EvalAltResult>> {
    STATE.with_borrow_mut(|state| {
        state.added += operations as u64;
        if state.counted + state.added > state.limit {
            state.stopped = Some(Stopped::Operations);
            return Err(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into());
        }
        Ok(())
    })
}

/// Keeps a line of the script's log.
pub(super) fn log(message: &str) -> Result<(), Box<EvalAltResult>> {
    walk(message.len())?;
    STATE.with_borrow_mut(|state| {
        // A line costs something even if it is empty, so that their number is bounded too.
        state.log_used += message.len() as u64 + 16;
        if state.log_used > state.log_allowed {
            let (logged, allowed) = (grouped(state.log_used), grouped(state.log_allowed));
            return Err(format!("logged too much: {logged} bytes, {allowed} allowed in a call").into());
        }
        state.logged.push(message.into());
        Ok(())
    })
}

/// The config of the running call.
pub(super) fn config() -> Option<Dynamic> {
    STATE.with_borrow(|state| state.config.clone())
}
