//! Runs other people's code: WebAssembly components and Rhai scripts that verify, reward, filter and generate.
//!
//! Foreign code has a budget and no capability that was not granted. What it does wrong becomes a verdict `undecided` with
//! its reason; only what is the host's own defect, or a failed filter or generator, is an error. The same call gives the
//! same answer and costs the same, however long it takes and on however many threads calls are made.
//!
//! This crate knows the WIT package `pipeline:plugin` and the records that cross it. It must never know what a reward
//! means, what a stage is, or where a plugin's name was written; and it never lets wall time become a verdict.

mod builtins;
mod component;
mod configured;
mod error;
mod folders;
mod gate;
mod grants;
mod runtimes;
mod sandbox;
mod script;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base::{Grants, Limits};
pub use builtins::{builtin, builtins};
pub use configured::{Configured, Spent};
pub use error::{ConfigureError, HostError};
use gate::Gate;
use grants::Granted;
pub use runtimes::Runtime;
use sandbox::{Cost, Fault, Outcome, Patience};
pub use script::{Condition, ConditionError};

/// Bytes of stack for a thread that calls plugins: what a script needs at most, so that none is made for each call. What
/// is not used takes no memory.
pub const STACK: usize = 80 << 20;

/// Settings of a host.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder of compiled components: made with mode 0700 if absent, and not used if others can write to it. `None`:
    /// `pipeline/compiled` in the user's cache folder, and no cache where there is no such folder.
    pub cache: Option<PathBuf>,
    /// Components of the world `runtime`, by the name under which they are granted: beside those of [`Runtime`], or in
    /// their place.
    pub runtimes: BTreeMap<String, Vec<u8>>,
}

/// Where a plugin's code is.
#[derive(Clone, Copy, Debug)]
pub enum Code<'a> {
    /// In the tool: one of [`builtins`].
    Builtin(&'a str),
    /// In a WebAssembly component.
    Wasm(&'a Path),
    /// In a Rhai script.
    Rhai(&'a Path),
}

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Judges completions, each alone.
    Verifier,
    /// Turns the verdicts of a group into rewards.
    Rewarder,
    /// Decides what is kept of a step.
    Filterer,
    /// Makes rows.
    Generator,
}

impl World {
    /// All worlds.
    pub const ALL: [Self; 4] = [Self::Verifier, Self::Rewarder, Self::Filterer, Self::Generator];

    /// The function that a plugin of this world has, and the interface that holds it.
    pub fn function(self) -> &'static str {
        match self {
            Self::Verifier => "verify",
            Self::Rewarder => "reward",
            Self::Filterer => "filter",
            Self::Generator => "generate",
        }
    }

    /// "generator and verifier".
    pub fn list(worlds: &[Self]) -> String {
        worlds.iter().map(Self::to_string).collect::<Vec<_>>().join(" and ")
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Verifier => "verifier",
            Self::Rewarder => "rewarder",
            Self::Filterer => "filterer",
            Self::Generator => "generator",
        })
    }
}

/// The runtimes of foreign code. One serves a whole process; plugins of it may be called from many threads.
pub struct Host {
    components: component::Components,
    runtimes: BTreeMap<String, Vec<u8>>,
    gate: Arc<Gate>,
}

impl Host {
    /// Sets up the runtimes.
    ///
    /// # Errors
    /// The machine can't run compiled WebAssembly.
    pub fn new(options: Options) -> Result<Self, HostError> {
        Self::with_watchdog(options, component::Watchdog::default())
    }

    fn with_watchdog(options: Options, watchdog: component::Watchdog) -> Result<Self, HostError> {
        let components = component::Components::new(options.cache, watchdog)?;
        Ok(Self { components, runtimes: options.runtimes, gate: Arc::default() })
    }

    /// Loads a plugin. `name` is used in messages only.
    ///
    /// # Errors
    /// The code or what is granted is absent, unreadable or damaged, the code fits no world or imports what it is not
    /// given, or a budget is missing.
    pub fn load(&self, name: &str, code: Code<'_>, limits: &Limits, grants: &Grants) -> Result<Plugin, HostError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| HostError::Read { path: path.to_owned(), source });
        let (origin, bytes, is_script) = match code {
            Code::Builtin(builtin) => {
                let (bytes, is_script) = builtins::find(builtin)?;
                (format!("builtin `{builtin}`"), bytes.to_vec(), is_script)
            }
            Code::Wasm(path) => (path.display().to_string(), read(path)?, false),
            Code::Rhai(path) => (path.display().to_string(), read(path)?, true),
        };
        let source = Source { plugin: name, origin: &origin, bytes: &bytes };
        let granted = Granted::read(&source, grants, &self.runtimes)?;
        let hash = granted.hash(&bytes).to_hex().to_string();
        let (worlds, code): (Arc<[World]>, Arc<dyn sandbox::Code>) = if is_script {
            if !grants.is_empty() {
                let detail = "a script can't use what is granted: remove its `grants`, or write a component";
                return Err(source.unusable(detail));
            }
            let script = script::Script::load(&source, limits)?;
            (script.worlds().into(), Arc::new(script))
        } else {
            let component = self.components.load(&source, limits, granted, &self.gate)?;
            (component.worlds().into(), Arc::new(component))
        };
        let size = bytes.len() as u64;
        Ok(Plugin {
            name: name.into(),
            worlds,
            hash,
            size,
            code,
            gate: Arc::clone(&self.gate),
            schema: OnceLock::new(),
        })
    }
}

/// Code that was read, and how messages speak of it.
struct Source<'a> {
    plugin: &'a str,
    origin: &'a str,
    bytes: &'a [u8],
}

impl Source<'_> {
    fn unusable(&self, detail: impl Into<String>) -> HostError {
        HostError::Unusable { plugin: self.plugin.into(), origin: self.origin.into(), detail: detail.into() }
    }

    fn missing(&self, key: &'static str, what: &'static str) -> HostError {
        HostError::MissingLimit { plugin: self.plugin.into(), key, what }
    }
}

/// Foreign code, loaded and checked, without a config yet.
pub struct Plugin {
    name: Arc<str>,
    worlds: Arc<[World]>,
    hash: String,
    size: u64,
    code: Arc<dyn sandbox::Code>,
    gate: Arc<Gate>,
    schema: OnceLock<serde_json::Value>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("worlds", &self.worlds).finish_non_exhaustive()
    }
}

impl Plugin {
    /// What the plugin is for: at least one world, in the order of [`World::ALL`].
    pub fn worlds(&self) -> &[World] {
        &self.worlds
    }

    /// The blake3 hash of the code and of the assets and runtimes that are granted to it, in hexadecimal.
    pub fn hash(&self) -> String {
        self.hash.clone()
    }

    /// The bytes of the code.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The version of the plugin interface that a component was built for, and what it imports; `None` of a script.
    pub fn interface(&self) -> Option<(&'static str, Vec<String>)> {
        self.code.interface()
    }

    /// What its budget counts: "fuel" or "operations".
    pub fn unit(&self) -> &'static str {
        self.code.budget().1
    }

    /// The JSON Schema of the plugin's config; the plugin is asked once.
    ///
    /// # Errors
    /// The plugin fails, or its answer is no JSON Schema.
    pub fn schema(&self) -> Result<serde_json::Value, HostError> {
        if let Some(schema) = self.schema.get() {
            return Ok(schema.clone());
        }
        let failed = |reason| HostError::Failed { plugin: self.name.to_string(), call: "schema", reason };
        let schema = match self.twice("schema", |patience| self.code.schema(patience))?.0 {
            Some(text) => {
                serde_json::from_str(&text).map_err(|error| failed(format!("the schema is no JSON: {error}")))?
            }
            None => serde_json::json!({ "type": "object", "additionalProperties": false }),
        };
        jsonschema::validator_for(&schema).map_err(|error| failed(format!("the schema is no JSON Schema: {error}")))?;
        Ok(self.schema.get_or_init(|| schema).clone())
    }

    /// Checks `config` against the plugin's schema, then by the plugin itself; `null` stands for an empty table.
    ///
    /// # Errors
    /// All objections to the config with their places, or the plugin failed.
    pub fn configure(&self, config: &serde_json::Value) -> Result<Configured, ConfigureError> {
        let config = if config.is_null() { serde_json::json!({}) } else { config.clone() };
        let schema = self.schema()?;
        let validator = jsonschema::validator_for(&schema).map_err(|error| HostError::Failed {
            plugin: self.name.to_string(),
            call: "schema",
            reason: error.to_string(),
        })?;
        let mut errors: Vec<_> = validator.iter_errors(&config).flat_map(|error| objections(&error, &schema)).collect();
        let mut cost = Cost::default();
        if errors.is_empty() {
            let text = config.to_string();
            (errors, cost) = self.twice("configure", |patience| self.code.check(&text, patience))?;
        }
        if !errors.is_empty() {
            return Err(ConfigureError::Config { errors });
        }
        let sandbox = self.code.bind(&config);
        let (name, worlds, gate) = (Arc::clone(&self.name), Arc::clone(&self.worlds), Arc::clone(&self.gate));
        Ok(Configured::new(name, worlds, sandbox, gate, self.code.budget(), cost.units))
    }

    /// Calls once, and once more with patience after the watchdog rang.
    fn twice<T>(&self, call: &'static str, f: impl Fn(Patience) -> Outcome<T>) -> Result<(T, Cost), HostError> {
        for patience in [Patience::Once, Patience::Alone] {
            let pass = self.gate.enter(patience == Patience::Alone);
            let outcome = f(patience);
            drop(pass);
            let reason = match outcome.result {
                Ok(value) => return Ok((value, outcome.cost)),
                Err(Fault::Expired) => continue,
                Err(Fault::Guest(reason)) => reason,
                Err(Fault::Exhausted) => {
                    let (budget, unit) = self.code.budget();
                    sandbox::exhausted(unit, budget)
                }
            };
            return Err(HostError::Failed { plugin: self.name.to_string(), call, reason });
        }
        Err(HostError::Watchdog { plugin: self.name.to_string(), call, place: String::new() })
    }
}

/// What a schema objects to: JSON pointers and messages. An unknown key has a pointer of its own.
fn objections(error: &jsonschema::ValidationError<'_>, schema: &serde_json::Value) -> Vec<(String, String)> {
    use jsonschema::error::ValidationErrorKind::{AdditionalProperties, UnevaluatedProperties};
    let path = error.instance_path().to_string();
    let (AdditionalProperties { unexpected } | UnevaluatedProperties { unexpected }) = error.kind() else {
        return vec![(path, error.to_string())];
    };
    // The keyword stands beside `properties`, unless the schema refers to another place.
    let keyword = error.schema_path().to_string();
    let beside = keyword.rfind('/').and_then(|end| schema.pointer(&keyword[..end])?.get("properties")?.as_object());
    let known: Vec<&str> = beside.into_iter().flat_map(|properties| properties.keys().map(String::as_str)).collect();
    let objection = |key: &String| {
        let hint = match builtins::nearest(key, known.iter().copied()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None if known.is_empty() => String::new(),
            None => format!("; known are {}", known.join(", ")),
        };
        (format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), format!("unknown key `{key}`{hint}"))
    };
    unexpected.iter().map(objection).collect()
}

#[cfg(test)]
mod tests {
    use base::{Completion, Context, Finish, Group, Limits, Prompt, RoutedExperts};

    use super::*;

    fn group(texts: &[&str]) -> Group {
        let completion = |text: &&str| {
            Arc::new(Completion {
                tokens: Vec::new(),
                loss_mask: Vec::new(),
                text: (*text).into(),
                finish: Finish::Stop,
                logprobs: Vec::new(),
                weights_version: 0,
                experts: RoutedExperts::default(),
            })
        };
        let prompt = Prompt {
            id: 7,
            source: "sums".into(),
            messages: Vec::new(),
            text: String::new(),
            tokens: Vec::new(),
            reference: None,
            response: None,
            learned: Vec::new(),
            fields: Vec::new(),
        };
        Group {
            step: 3,
            index: 0,
            prompt: Arc::new(prompt),
            completions: texts.iter().map(completion).collect(),
            judgements: Vec::new(),
            rewards: Vec::new(),
            decisions: Vec::new(),
        }
    }

    /// With a watchdog that rings at once, a completion that makes the plugin call the host is no verdict but an error.
    #[test]
    fn a_watchdog_that_rings_twice_is_never_a_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { cache: Some(folder.path().join("compiled")), ..Options::default() };
        let impatient = component::Watchdog { base: std::time::Duration::ZERO, nanoseconds: 0 };
        let host = Host::with_watchdog(options, impatient).unwrap();
        let mut text = include_str!("../tests/components/verifier.wat").to_owned();
        for (name, part) in [
            ("{prelude}", include_str!("../tests/components/prelude.wat")),
            ("{config}", include_str!("../tests/components/config.wat")),
            ("{config-core}", include_str!("../tests/components/config-core.wat")),
        ] {
            text = text.replace(name, part);
        }
        let path = folder.path().join("plugin.wasm");
        std::fs::write(&path, wat::parse_str(&text).unwrap()).unwrap();
        let limits = Limits { fuel: Some(1 << 50), memory: Some(1 << 24), ..Limits::default() };
        let plugin = host.load("slow", Code::Wasm(&path), &limits, &Grants::default()).unwrap();
        let plugin = plugin.configure(&serde_json::json!({})).unwrap();
        let ctx = Context { step: 3, seed: 1, max_tokens: 10, evaluating: false };
        let error = plugin.verify(&ctx, &group(&["a", "b", "Quietly", "c"])).unwrap_err();
        let message = error.to_string();
        let start = "plugin `slow` was stopped twice by the watchdog in verify on step 3, source `sums`, prompt 7, \
                     completion 2; ";
        assert!(message.starts_with(start), "{message}");
        assert_eq!(plugin.spent(), Spent::default(), "what time ended is not counted");
        assert!(plugin.verify(&ctx, &group(&["a"])).is_ok(), "the next call is as good as ever");
    }
}
