//! The plugins of a pipeline, loaded and configured; what does not fit is a finding in its place.

use base::{Diagnostic, Grants, Span};
use host::{Code, Configured, Host, Plugin, World};
use indexmap::IndexMap;
use serde_json::Value;
use spec::{Pipeline, PluginSource};

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
            match host.load(name, code, &plugin.limits, &Grants::default()) {
                Ok(loaded) => {
                    plugins.insert(name.clone(), loaded);
                }
                Err(error) => findings.push(
                    Diagnostic::error("plugin-not-loaded", format!("plugin `{name}` can't be loaded"))
                        .at(plugin.span.clone(), error.to_string()),
                ),
            }
        }
        Self(plugins)
    }

    /// The blake3 hash of each plugin's code, by name.
    pub fn hashes(&self) -> IndexMap<String, String> {
        self.0.iter().map(|(name, plugin)| (name.clone(), plugin.hash())).collect()
    }

    /// The plugin with its configuration, or findings: none for a plugin that did not load, which was reported then.
    pub fn configure(
        &self,
        name: &str,
        world: World,
        config: &Value,
        span: &Span,
    ) -> Result<Configured, Vec<Diagnostic>> {
        let plugin = self.0.get(name).ok_or_else(Vec::new)?;
        if !plugin.worlds().contains(&world) {
            let message = format!("plugin `{name}` is a {}, a {world} is needed here", World::list(plugin.worlds()));
            let error = Diagnostic::error("wrong-plugin-world", message);
            return Err(vec![error.at(span.clone(), format!("needs a {world}"))]);
        }
        plugin.configure(config).map_err(|error| match error {
            host::ConfigureError::Config { errors } => {
                let findings = errors.into_iter().map(|(pointer, message)| {
                    let place = if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") };
                    Diagnostic::error("plugin-config", format!("plugin `{name}` refuses its config{place}"))
                        .at(span.clone(), message)
                });
                findings.collect()
            }
            host::ConfigureError::Host(error) => {
                let finding = Diagnostic::error("plugin-config", format!("plugin `{name}` could not take its config"));
                vec![finding.at(span.clone(), error.to_string())]
            }
        })
    }
}
