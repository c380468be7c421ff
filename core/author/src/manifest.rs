//! Where a plugin is that a user names: a folder with a `plugin.toml`, a component, a script, or a builtin.

use std::path::{Path, PathBuf};

use base::{Diagnostic, Grants, Limits};
use host::{Code, Host, HostError};
use spec::{Case, Files, PluginSource};

/// What a folder says about its plugin.
const MANIFEST: &str = "plugin.toml";

/// Why a plugin that was named can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its `plugin.toml` is wrong, in these places.
    #[error("its plugin.toml has {} errors", .0.len())]
    Invalid(Vec<Diagnostic>),
    /// There is nothing of this name.
    #[error("`{0}` is no file or folder, and {1}")]
    Unknown(String, HostError),
    /// The file does not exist.
    #[error("{} does not exist", .0.display())]
    Absent(PathBuf),
    /// It is a file or a folder, but not of a plugin.
    #[error("{} is no plugin: name a folder with a plugin.toml, a .wasm, a .rhai, or a builtin", .0.display())]
    NoPlugin(PathBuf),
}

/// A budget that replaces what a folder says, or what stands in where nothing is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// WebAssembly fuel for one completion.
    pub fuel: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Rhai operations for one completion.
    pub operations: Option<u64>,
}

impl Budget {
    /// What a plugin may spend that brings no limits of its own: far more than one needs that is fit for a run.
    pub const DEFAULT: Self = Self { fuel: Some(2_000_000_000), memory: Some(256 << 20), operations: Some(10_000_000) };
}

/// A plugin that a user named.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its code.
    pub source: PluginSource,
    /// What it may spend.
    pub limits: Limits,
    /// What it may use beyond its input.
    pub grants: Grants,
    /// Its tests and where they are; of a plugin that has a `plugin.toml`.
    pub tests: Option<(PathBuf, Vec<Case>)>,
}

impl Plugin {
    /// Loads its code.
    ///
    /// # Errors
    /// As [`Host::load`].
    pub fn load(&self, host: &Host) -> Result<host::Plugin, HostError> {
        let code = match &self.source {
            PluginSource::Builtin(name) => Code::Builtin(name),
            PluginSource::Wasm(path) => Code::Wasm(path),
            PluginSource::Rhai(path) => Code::Rhai(path),
        };
        host.load(&self.name, code, &self.limits, &self.grants)
    }
}

/// The plugin that `named` names: a path that exists, or else a builtin. `files` keeps the text of its `plugin.toml`.
///
/// # Errors
/// There is no such plugin, or its `plugin.toml` is wrong. The code is not looked at.
pub fn open(named: &Path, budget: Budget, files: &mut Files) -> Result<Plugin, Error> {
    let text = named.to_string_lossy();
    if named.is_dir() || named.file_name().is_some_and(|name| name == MANIFEST) {
        let file = if named.is_dir() { named.join(MANIFEST) } else { named.to_owned() };
        if named.is_dir() && !file.exists() {
            return Err(Error::NoPlugin(named.to_owned()));
        }
        return folder(&file, budget, files);
    }
    let source = match named.extension().and_then(|ending| ending.to_str()) {
        Some("wasm") if named.exists() => PluginSource::Wasm(named.to_owned()),
        Some("rhai") if named.exists() => PluginSource::Rhai(named.to_owned()),
        _ if named.exists() => return Err(Error::NoPlugin(named.to_owned())),
        None if named.components().count() == 1 => {
            let manifest = host::builtin(&text).map_err(|error| Error::Unknown(text.clone().into_owned(), error))?;
            let source = PluginSource::Builtin(text.clone().into_owned());
            let Some(manifest) = manifest else { return Ok(bare(text.into_owned(), source, budget)) };
            let file = Path::new("builtin").join(named).join(MANIFEST);
            files.insert(file.clone(), manifest.to_owned());
            let Plugin { name, limits, grants, tests, .. } = folder(&file, budget, files)?;
            // The files of the folder are not in the tool, and so neither are the tests that need them.
            let tests = tests.filter(|_| grants.assets.is_empty());
            let grants = Grants { runtimes: grants.runtimes, ..Grants::default() };
            return Ok(Plugin { name, source, limits, grants, tests });
        }
        _ => return Err(Error::Absent(named.to_owned())),
    };
    let name = named.file_stem().map_or(text.clone(), |stem| stem.to_string_lossy()).into_owned();
    Ok(bare(name, source, budget))
}

/// A plugin of which nothing is known but its code.
fn bare(name: String, source: PluginSource, budget: Budget) -> Plugin {
    let limits = limited(Limits::default(), budget, Budget::DEFAULT);
    Plugin { name, source, limits, grants: Grants::default(), tests: None }
}

fn folder(file: &Path, budget: Budget, files: &mut Files) -> Result<Plugin, Error> {
    let (manifest, findings) = spec::manifest(file, files);
    let Some(manifest) = manifest else { return Err(Error::Invalid(findings)) };
    let limits = limited(manifest.plugin.limits, budget, Budget::default());
    let tests = Some((manifest.file, manifest.tests));
    let spec::Plugin { source, grants, .. } = manifest.plugin;
    Ok(Plugin { name: manifest.name, source, limits, grants, tests })
}

/// Limits with those that were asked for, and defaults where there is none.
fn limited(limits: Limits, asked: Budget, default: Budget) -> Limits {
    Limits {
        fuel: asked.fuel.or(limits.fuel).or(default.fuel),
        memory: asked.memory.or(limits.memory).or(default.memory),
        operations: asked.operations.or(limits.operations).or(default.operations),
        ..limits
    }
}

/// The folders of plugins among what a user names, as a shell expands `plugins/*`, and what there is no plugin in. A folder
/// without a `plugin.toml` stands for those of its folders that have one; a single name is never passed over.
pub fn find(named: &[PathBuf]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut found, mut passed) = (Vec::new(), Vec::new());
    for path in named {
        let is_folder = path.is_dir();
        let below = || {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
            let mut below: Vec<PathBuf> = entries.filter(|path| path.join(MANIFEST).is_file()).collect();
            below.sort();
            below
        };
        let ending = path.extension().and_then(|ending| ending.to_str());
        if is_folder && !path.join(MANIFEST).is_file() {
            let below = below();
            if below.is_empty() && named.len() > 1 {
                passed.push(path.clone());
            } else if below.is_empty() {
                found.push(path.clone());
            }
            found.extend(below);
        } else if path.is_file()
            && named.len() > 1
            && !matches!(ending, Some("wasm" | "rhai"))
            && path.file_name().is_none_or(|name| name != MANIFEST)
        {
            passed.push(path.clone());
        } else {
            found.push(path.clone());
        }
    }
    (found, passed)
}
