//! What foreign code may use beyond its input.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The capabilities of one plugin: none, unless they are granted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Files that the plugin may read, under these names.
    pub assets: BTreeMap<String, PathBuf>,
    /// Runtimes that the plugin may run programs in, by name.
    pub runtimes: BTreeMap<String, Runs>,
}

impl Grants {
    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.assets.is_empty() && self.runtimes.is_empty()
    }
}

/// What running programs in one runtime may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// WebAssembly fuel of one run, the interpreter's start included.
    pub fuel: u64,
    /// Bytes of linear memory of one run, the interpreter's included.
    pub memory: u64,
    /// Runs for one completion (one row of a generator).
    pub runs: u64,
}
