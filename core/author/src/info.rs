//! What a plugin is, and what loading and configuring it costs.

use std::time::Instant;

use host::{ConfigureError, Host, HostError, Options, World};
use serde_json::Value;

use crate::manifest::Plugin;

/// What a plugin is.
#[derive(Debug)]
pub struct Info {
    /// What it is for.
    pub worlds: Vec<World>,
    /// The version of the interface that a component was built for, and what it imports.
    pub interface: Option<(&'static str, Vec<String>)>,
    /// The bytes of its code.
    pub size: u64,
    /// The blake3 hash of its code and of what it is granted.
    pub hash: String,
    /// The JSON Schema of its config.
    pub schema: Value,
    /// What taking its config costs, or what it objects to.
    pub configuring: Result<Configuring, Vec<(String, String)>>,
    /// Seconds to load it from nothing: to compile a component, to parse a script.
    pub load: f64,
    /// Seconds to load it once more, a component from the cache of compiled ones.
    pub load_again: f64,
}

/// What taking a config costs.
#[derive(Clone, Copy, Debug)]
pub struct Configuring {
    /// Fuel or operations; of a component, with the start of an instance. Each call of a component pays it again.
    pub spent: u64,
    /// "fuel" or "operations".
    pub unit: &'static str,
    /// Seconds.
    pub seconds: f64,
}

/// Describes a plugin, with what a config costs it.
///
/// # Errors
/// It can't be loaded, has no schema, or fails when it is configured.
pub fn info(plugin: &Plugin, config: &Value) -> Result<Info, HostError> {
    // A cache of its own, so that the first time is the first.
    let cache = tempfile::tempdir().map_err(|error| HostError::Engine(error.to_string()))?;
    let host = Host::new(Options { cache: Some(cache.path().join("compiled")), ..Options::default() })?;
    let timed = || {
        let start = Instant::now();
        plugin.load(&host).map(|loaded| (loaded, start.elapsed().as_secs_f64()))
    };
    let (_, load) = timed()?;
    let (loaded, load_again) = timed()?;
    let schema = loaded.schema()?;
    let mut fastest = f64::INFINITY;
    let mut configuring = Err(Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        match loaded.configure(config) {
            Ok(configured) => {
                fastest = fastest.min(start.elapsed().as_secs_f64());
                let (spent, unit) = (configured.configuring(), loaded.unit());
                configuring = Ok(Configuring { spent, unit, seconds: fastest });
            }
            Err(ConfigureError::Config { errors }) => configuring = Err(errors),
            Err(ConfigureError::Host(error)) => return Err(error),
        }
    }
    Ok(Info {
        worlds: loaded.worlds().to_vec(),
        interface: loaded.interface(),
        size: loaded.size(),
        hash: loaded.hash(),
        schema,
        configuring,
        load,
        load_again,
    })
}
