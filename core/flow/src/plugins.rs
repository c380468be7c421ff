//! The plugins of a pipeline, loaded and configured; what does not fit is a finding in its place.

use base::Diagnostic;
use host::{Code, Configured, Host, HostError, Plugin, World};
use indexmap::IndexMap;
use spec::{Pipeline, PluginConfig, PluginSource};

/// Plugins that were loaded, by name.
pub(crate) struct Plugins(IndexMap<String, Plugin>);

impl Plugins {
    pub fn load(pipeline: &Pipeline, host: &Host, findings: &mut Vec<Diagnostic>) -> Self {
        let mut plugins = IndexMap::new();
        for (name, plugin) in &pipeline.plugins {
            let code = match &plugin.source {
                PluginSource::Builtin(builtin) => Code::Builtin(builtin),
                PluginSource::Wasm(path) => Code::Wasm(path),
                PluginSource::Rhai(path) => Code::Rhai(path),
            };
            match host.load(name, code, &plugin.limits, &plugin.grants) {
                Ok(loaded) => {
                    plugins.insert(name.clone(), loaded);
                }
                Err(error) => findings.push(not_loaded(name, plugin, &error)),
            }
        }
        Self(plugins)
    }

    /// The blake3 hash of each plugin's code, by name.
    pub fn hashes(&self) -> IndexMap<String, String> {
        self.0.iter().map(|(name, plugin)| (name.clone(), plugin.hash())).collect()
    }

    /// The plugin with its configuration, or findings: none for a plugin that did not load, which was reported then.
    pub fn configure(&self, name: &str, world: World, config: &PluginConfig) -> Result<Configured, Vec<Diagnostic>> {
        let plugin = self.0.get(name).ok_or_else(Vec::new)?;
        if !plugin.worlds().contains(&world) {
            let message = format!("plugin `{name}` is a {}, a {world} is needed here", World::list(plugin.worlds()));
            let error = Diagnostic::error("wrong-plugin-world", message);
            return Err(vec![error.at(config.span.clone(), format!("needs a {world}"))]);
        }
        plugin.configure(&config.value).map_err(|error| match error {
            host::ConfigureError::Config { errors } => {
                let findings = errors.into_iter().map(|(pointer, message)| {
                    let place = if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") };
                    Diagnostic::error("plugin-config", format!("plugin `{name}` refuses its config{place}"))
                        .at(config.place(&pointer).clone(), message)
                });
                findings.collect()
            }
            host::ConfigureError::Host(error) => {
                let finding = Diagnostic::error("plugin-config", format!("plugin `{name}` could not take its config"));
                vec![finding.at(config.span.clone(), error.to_string())]
            }
        })
    }
}

/// Why a plugin can't be loaded, at the grant that is to blame where one is.
fn not_loaded(name: &str, plugin: &spec::Plugin, error: &HostError) -> Diagnostic {
    let span = |grant: &str| plugin.grant_spans.get(grant).unwrap_or(&plugin.span).clone();
    match error {
        HostError::Asset { asset, path, source, .. } => {
            Diagnostic::error("asset", format!("the asset `{asset}` of plugin `{name}` can't be read"))
                .at(span(asset), format!("failed to read {}: {source}", path.display()))
        }
        HostError::Runtime { runtime, detail, .. } => {
            Diagnostic::error("runtime", format!("the runtime `{runtime}` of plugin `{name}` can't be used"))
                .at(span(runtime), detail.clone())
        }
        _ => Diagnostic::error("plugin-not-loaded", format!("plugin `{name}` can't be loaded"))
            .at(plugin.span.clone(), error.to_string()),
    }
}
