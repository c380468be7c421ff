//! The environment checks: does the file fit the plugins, data and models that it names? Each finding has its place.

use std::path::{Path, PathBuf};

use base::{Diagnostic, Row, Span};
use host::{Code, Configured, Host, Plugin, World};
use indexmap::IndexMap;
use model::{ChatTemplate, Config};
use record::CollectedRow;
use record::dataset::Rows;
use serde_json::Value;
use spec::{Columns, Feed, ModelSource, Origin, Pipeline, PluginSource, Questions, RewardRule, Stage, StageKind};

use crate::feed;
use crate::phase::Phase;
use crate::plan::trained_model;
use crate::stages::collect::PROVENANCE;

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
            match host.load(name, code, &plugin.limits) {
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

    /// The plugin with its configuration, or findings. A plugin that did not load was reported when it did not.
    pub fn configure(
        &self,
        name: &str,
        world: World,
        config: &Value,
        span: &Span,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<Configured> {
        let plugin = self.0.get(name)?;
        if plugin.world() != world {
            findings.push(
                Diagnostic::error(
                    "wrong-plugin-world",
                    format!("plugin `{name}` is a {}, a {world} is needed here", plugin.world()),
                )
                .at(span.clone(), format!("needs a {world}")),
            );
            return None;
        }
        match plugin.configure(config) {
            Ok(configured) => Some(configured),
            Err(host::ConfigureError::Config { errors }) => {
                for (pointer, message) in errors {
                    let place = if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") };
                    findings.push(
                        Diagnostic::error("plugin-config", format!("plugin `{name}` refuses its config{place}"))
                            .at(span.clone(), message),
                    );
                }
                None
            }
            Err(host::ConfigureError::Host(error)) => {
                findings.push(
                    Diagnostic::error("plugin-config", format!("plugin `{name}` could not take its config"))
                        .at(span.clone(), error.to_string()),
                );
                None
            }
        }
    }
}

/// Reads rows; what is wrong with the file becomes a finding at `span`.
pub(crate) fn read_rows(
    path: &Path,
    columns: &Columns,
    limit: Option<usize>,
    span: &Span,
    findings: &mut Vec<Diagnostic>,
) -> Option<Vec<Row>> {
    let rows = Rows::read(path).and_then(|rows| feed::rows_from_file(&rows, columns, limit));
    match rows {
        Ok(rows) => Some(rows),
        Err(error) => {
            findings.push(Diagnostic::error("dataset", error.to_string()).at(span.clone(), "read from here"));
            None
        }
    }
}

/// Everything of a phase that can be checked before work starts and without models: plugins, their configurations, data
/// files that exist by now, model folders, templates. Gives the hashes of the plugins' code.
pub(crate) fn check(phase: &Phase<'_>, host: &Host, findings: &mut Vec<Diagnostic>) -> IndexMap<String, String> {
    let pipeline = phase.pipeline;
    let plugins = Plugins::load(pipeline, host, findings);
    for (name, stage) in &pipeline.stages {
        check_stage(phase, name, stage, &plugins, findings);
    }
    for (name, evaluation) in &pipeline.evaluations {
        let span = match &evaluation.questions {
            Questions::File { path, columns, limit, span } => {
                read_rows(path, columns, *limit, span, findings);
                span
            }
            Questions::Plugin { plugin, config, config_span, .. } => {
                plugins.configure(plugin, World::Generator, config, config_span, findings);
                config_span
            }
        };
        check_template(name, evaluation.template.as_deref(), span, findings);
    }
    let trained = trained_model(pipeline);
    for (name, model) in &pipeline.models {
        let folder = match phase.init {
            Some(Origin::Phase(_)) if trained == Some(name) => continue,
            Some(Origin::Path(folder)) if trained == Some(name) => Some(folder),
            _ => None,
        };
        if let Err(problem) = check_model(folder, &model.source) {
            let finding = Diagnostic::error("model", format!("model `{name}` can't be loaded"));
            findings.push(finding.at(model.span.clone(), problem));
        }
    }
    plugins.hashes()
}

fn check_stage(phase: &Phase<'_>, name: &str, stage: &Stage, plugins: &Plugins, findings: &mut Vec<Diagnostic>) {
    let template = |feed: &Feed, findings: &mut Vec<Diagnostic>| {
        check_template(name, feed.template.as_deref(), &stage.span, findings);
    };
    match &stage.kind {
        StageKind::Dataset(dataset) => {
            template(&dataset.feed, findings);
            for source in &dataset.sources {
                let path = match phase.data.get(name) {
                    Some(Origin::Phase(_)) => continue,
                    Some(Origin::Path(path)) => path,
                    None => &source.path,
                };
                read_rows(path, &source.columns, None, &source.span, findings);
            }
        }
        StageKind::Generate(generate) => {
            template(&generate.feed, findings);
            let (config, span) = (&generate.config, &generate.config_span);
            plugins.configure(&generate.plugin, World::Generator, config, span, findings);
        }
        StageKind::Verify(verify) => {
            plugins.configure(&verify.plugin, World::Verifier, &verify.config, &verify.config_span, findings);
        }
        StageKind::Reward(reward) => {
            if let RewardRule::Plugin { plugin, config, config_span } = &reward.rule {
                plugins.configure(plugin, World::Rewarder, config, config_span, findings);
            }
        }
        StageKind::Filter(filter) => {
            if let Some((plugin, config)) = &filter.plugin {
                plugins.configure(plugin, World::Filterer, config, &filter.config_span, findings);
            }
        }
        StageKind::Collect(_) => {
            // A collected row has columns of its own, which fields of the same name would overwrite.
            let fields = phase.pipeline.stages.values().filter_map(|stage| match &stage.kind {
                StageKind::Dataset(dataset) => Some(dataset.sources.iter().flat_map(|source| &source.columns.fields)),
                _ => None,
            });
            if let Some(field) = fields
                .flatten()
                .find(|field| CollectedRow::COLUMNS.iter().chain(&PROVENANCE).any(|column| column == field))
            {
                let message = format!("the dataset field `{field}` can't be collected by `{name}`");
                findings.push(
                    Diagnostic::error("reserved-column", message)
                        .at(stage.span.clone(), format!("has a column `{field}` of its own"))
                        .help("rename the column in the dataset, or leave it out of `fields`"),
                );
            }
        }
        StageKind::Sample(_) | StageKind::Sft(_) | StageKind::Grpo(_) => {}
    }
}

fn check_template(owner: &str, template: Option<&str>, span: &Span, findings: &mut Vec<Diagnostic>) {
    let Some(name) = template else { return };
    let problem = match ChatTemplate::named(name) {
        Some(_) => return,
        None => match std::fs::read_to_string(name) {
            Ok(source) => ChatTemplate::new(&source).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        },
    };
    if let Some(problem) = problem {
        let finding = Diagnostic::error("chat-template", format!("the template `{name}` of `{owner}` can't be used"));
        let known = ChatTemplate::names().join(", ");
        findings
            .push(finding.at(span.clone(), problem).help(format!("give the path of a Jinja file, or one of {known}")));
    }
}

/// Whether a model's small files are there and say something known; its weights are read when the run begins.
fn check_model(folder: Option<&PathBuf>, source: &ModelSource) -> Result<(), String> {
    let (config, needed): (PathBuf, Vec<PathBuf>) = match (folder, source) {
        (Some(folder), _) | (None, ModelSource::Path(folder)) => {
            (folder.join("config.json"), vec![folder.join("tokenizer.json")])
        }
        (None, ModelSource::Init { config, tokenizer, chat_template }) => {
            (config.clone(), std::iter::once(tokenizer.clone()).chain(chat_template.clone()).collect())
        }
    };
    let text =
        std::fs::read_to_string(&config).map_err(|error| format!("failed to read {}: {error}", config.display()))?;
    Config::from_json(&text).map_err(|error| format!("{}: {error}", config.display()))?;
    match needed.iter().find(|path| !path.is_file()) {
        Some(path) => Err(format!("there is no {}", path.display())),
        None => Ok(()),
    }
}
