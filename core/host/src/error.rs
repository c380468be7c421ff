//! What can go wrong with foreign code that is not a verdict.

use std::path::PathBuf;

/// A plugin can't be loaded, or did what can't become a verdict.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No such builtin.
    #[error("there is no builtin plugin `{name}`{}; the builtins are {known}", hint(suggestion))]
    UnknownBuiltin {
        /// What was asked for.
        name: String,
        /// A builtin with a similar name.
        suggestion: Option<&'static str>,
        /// All builtins, separated by commas.
        known: String,
    },
    /// A plugin's file can't be read.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is granted as an asset can't be read.
    #[error("plugin `{plugin}`: failed to read the asset `{asset}` from {}: {source}", path.display())]
    Asset {
        /// The plugin's name.
        plugin: String,
        /// The asset's name.
        asset: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A runtime that is granted is not there, or can't be used within its grant.
    #[error("plugin `{plugin}`: the runtime `{runtime}` can't be used: {detail}")]
    Runtime {
        /// The plugin's name.
        plugin: String,
        /// The runtime's name.
        runtime: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// The file is no component that this host can run.
    #[error("plugin `{plugin}`: {origin} can't be used: {detail}")]
    Unusable {
        /// The plugin's name.
        plugin: String,
        /// The file, or the builtin.
        origin: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A script does not parse.
    #[error("{origin}:{line}:{column}: {message}")]
    Syntax {
        /// The file, or the builtin.
        origin: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A budget is missing: foreign code never runs without one.
    #[error("plugin `{plugin}` has no `limits.{key}`; {what}")]
    MissingLimit {
        /// The plugin's name.
        plugin: String,
        /// The key of the `limits` table.
        key: &'static str,
        /// Why it is needed.
        what: &'static str,
    },
    /// The plugin was asked for what its world does not have.
    #[error("plugin `{plugin}` is a {is}, and a {wanted} is needed here")]
    WrongWorld {
        /// The plugin's name.
        plugin: String,
        /// Its worlds.
        is: String,
        /// The world that has the function.
        wanted: crate::World,
    },
    /// A call that has no verdict to fall back on (schema, configure, filter, generate) failed.
    #[error("plugin `{plugin}` failed in {call}: {reason}")]
    Failed {
        /// The plugin's name.
        plugin: String,
        /// The function.
        call: &'static str,
        /// Why.
        reason: String,
    },
    /// A call was still running when its time was up, twice, although its budget was not spent.
    #[error(
        "plugin `{plugin}` was stopped twice by the watchdog in {call}{place}; its budget was not spent, so this is no \
         verdict but a defect of the host: please report it, with the plugin"
    )]
    Watchdog {
        /// The plugin's name.
        plugin: String,
        /// The function.
        call: &'static str,
        /// The prompt and the completion, where there are any.
        place: String,
    },
    /// The runtime can't be set up.
    #[error("failed to set up the plugin runtime: {0}")]
    Engine(String),
}

fn hint(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// Why a plugin could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// The config is wrong, in each of these places.
    #[error("{}", list(errors))]
    Config {
        /// A JSON pointer into the config and what is wrong there, in the order of the config.
        errors: Vec<(String, String)>,
    },
    /// The plugin failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

fn list(errors: &[(String, String)]) -> String {
    let lines = errors.iter().map(|(path, message)| match path.as_str() {
        "" => message.clone(),
        _ => format!("{path}: {message}"),
    });
    lines.collect::<Vec<_>>().join("; ")
}
