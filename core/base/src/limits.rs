//! What foreign code may spend.

use serde::{Deserialize, Serialize};

/// The budget of one plugin. A field that does not apply to the plugin's kind is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// WebAssembly fuel for one completion (one row of a generator). Required for components.
    pub fuel: Option<u64>,
    /// Bytes of linear memory, the sum over a component's memories. Required for components.
    pub memory: Option<u64>,
    /// Rhai operations for one completion. Required for scripts.
    pub operations: Option<u64>,
    /// Bytes that one call may return. Default 1 MiB.
    pub output: Option<u64>,
    /// Bytes that one call may log. Default 64 KiB.
    pub log: Option<u64>,
}
