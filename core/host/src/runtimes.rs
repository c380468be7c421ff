//! The runtimes that the tool knows: interpreters, as components of the world `runtime`.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::folders;

// `JAVASCRIPT`: its component, if the sources had it.
include!(concat!(env!("OUT_DIR"), "/runtimes.rs"));

/// A language whose programs can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// QuickJS, which the tool carries.
    JavaScript,
    /// CPython, which is built on the user's machine: it is too large to carry.
    Python,
}

impl Runtime {
    /// All runtimes.
    pub const ALL: [Self; 2] = [Self::JavaScript, Self::Python];

    /// The name under which a pipeline file grants it.
    pub fn name(self) -> &'static str {
        match self {
            Self::JavaScript => "javascript",
            Self::Python => "python",
        }
    }

    /// Where the component of a runtime is that the tool does not carry: `pipeline/runtimes/NAME.wasm` in the user's cache
    /// folder; `None` for one that it carries, and where the user has no such folder.
    pub fn path(self) -> Option<PathBuf> {
        match self {
            Self::JavaScript => None,
            Self::Python => Some(folders::cache()?.join("runtimes").join(format!("{}.wasm", self.name()))),
        }
    }

    /// Its component, or what is missing and what to do.
    pub(crate) fn component(self) -> Result<Cow<'static, [u8]>, String> {
        let name = self.name();
        if self == Self::JavaScript {
            return JAVASCRIPT.map(Cow::Borrowed).ok_or_else(|| format!("this build of the tool lacks `{name}`"));
        }
        let command = format!("build it once with `pipeline plugin build --runtime {name}`");
        let path = self
            .path()
            .ok_or_else(|| format!("there is no cache folder for it: set XDG_CACHE_HOME, then {command}"))?;
        std::fs::read(&path)
            .map(Cow::Owned)
            .map_err(|error| format!("failed to read {}: {error}; {command}", path.display()))
    }
}
