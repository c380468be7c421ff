//! Grants as a plugin uses them: files that were read, and the components of runtimes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base::{Grants, Runs};

use crate::runtimes::Runtime;
use crate::{HostError, Source};

/// What a plugin is granted, read once when it is loaded.
#[derive(Default)]
pub(crate) struct Granted<'a> {
    /// Each asset's bytes.
    pub(crate) assets: BTreeMap<String, Vec<u8>>,
    /// Each runtime's component, and what a run may spend.
    pub(crate) runtimes: BTreeMap<String, (Cow<'a, [u8]>, Runs)>,
}

impl<'a> Granted<'a> {
    /// Reads what is granted. `given` are the components of runtimes that come before those that the tool knows.
    pub(crate) fn read(
        source: &Source<'_>,
        grants: &Grants,
        given: &'a BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, HostError> {
        let mut granted = Self::default();
        for (name, path) in &grants.assets {
            let bytes = std::fs::read(path).map_err(|error| HostError::Asset {
                plugin: source.plugin.into(),
                asset: name.clone(),
                path: path.clone(),
                source: error,
            })?;
            granted.assets.insert(name.clone(), bytes);
        }
        for (name, runs) in &grants.runtimes {
            let known = || Runtime::ALL.into_iter().find(|runtime| runtime.name() == name);
            let component = match given.get(name) {
                Some(bytes) => Ok(Cow::Borrowed(bytes.as_slice())),
                None => known().map_or_else(|| Err(unknown(given)), Runtime::component),
            };
            let component = component.map_err(|detail| runtime_error(source, name, detail))?;
            granted.runtimes.insert(name.clone(), (component, *runs));
        }
        Ok(granted)
    }

    /// The hash of code with what it is granted: of the code alone where nothing is.
    pub(crate) fn hash(&self, code: &[u8]) -> blake3::Hash {
        let code = blake3::hash(code);
        if self.assets.is_empty() && self.runtimes.is_empty() {
            return code;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(code.as_bytes());
        let assets = self.assets.iter().map(|(name, bytes)| ("asset", name, bytes.as_slice()));
        let runtimes = self.runtimes.iter().map(|(name, (bytes, _))| ("runtime", name, &**bytes));
        for (kind, name, bytes) in assets.chain(runtimes) {
            // Names have lengths of their own, and so the hash of each stands for it.
            hasher.update(blake3::hash(format!("{kind} {name}").as_bytes()).as_bytes());
            hasher.update(blake3::hash(bytes).as_bytes());
        }
        hasher.finalize()
    }
}

/// What is wrong with a runtime that was granted.
pub(crate) fn runtime_error(source: &Source<'_>, name: &str, detail: String) -> HostError {
    HostError::Runtime { plugin: source.plugin.into(), runtime: name.into(), detail }
}

fn unknown(given: &BTreeMap<String, Vec<u8>>) -> String {
    let known = given.keys().map(String::as_str).chain(Runtime::ALL.map(Runtime::name));
    let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    format!("there is none of this name; the runtimes are {}", known.join(", "))
}
