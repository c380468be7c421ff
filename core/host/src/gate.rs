//! Who may call: a bounded number at once, or one alone.

use std::sync::{Condvar, Mutex, PoisonError};

/// Calls that run at the same time in one host. More wait: the pool of instances is made for so many.
pub(crate) const CALLS: usize = 16;

#[derive(Default)]
struct State {
    running: usize,
    alone: bool,
    waiting_alone: usize,
}

/// Lets `CALLS` calls in, or a single one that asks to be alone.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// The right to make a call, until dropped.
pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    alone: bool,
}

impl Gate {
    /// Waits for the right to make a call.
    pub(crate) fn enter(&self, alone: bool) -> Pass<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if alone {
            state.waiting_alone += 1;
            while state.running > 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting_alone -= 1;
        } else {
            while state.alone || state.waiting_alone > 0 || state.running >= CALLS {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.alone = alone;
        state.running += 1;
        Pass { gate: self, alone }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running -= 1;
        if self.alone {
            state.alone = false;
        }
        drop(state);
        self.gate.changed.notify_all();
    }
}
